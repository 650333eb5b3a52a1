"""The `reelfind` command, assembled from its subcommands.

Exit codes: 0 done, 1 nothing found, 2 invalid input, 3 failed, 130 interrupted.
"""

from importlib.metadata import version
from typing import Annotated

import typer

from service.cli.bench import bench_app
from service.cli.bundle import bundle_app
from service.cli.demo import demo_command
from service.cli.doctor import doctor_command
from service.cli.evaluate import eval_command
from service.cli.exits import CheckedCommand, ReelfindGroup
from service.cli.index import index_command
from service.cli.index_arguments import LEFT_OUT, IndexCommand
from service.cli.keys import keys_app
from service.cli.library import library_app
from service.cli.search import search_command
from service.cli.serve import serve_command
from service.cli.watch import watch_command

app = typer.Typer(
    cls=ReelfindGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Find videos, and moments in videos, by describing them.",
    epilog="Some options can also be set by an environment variable: `--help` of a command names it, and "
    "deploy/settings.md lists all of them. "
    "Exit codes: 0 done, 1 nothing found, 2 invalid input, 3 failed, 130 interrupted.",
)


def _print_version(is_requested: bool) -> None:
    if is_requested:
        typer.echo(f"reelfind {version('reelfind')}")
        raise typer.Exit


@app.callback()
def root(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Find videos, and moments in videos, by describing them."""


# `reelfind --help` lists the commands in this order.
app.command("serve", cls=CheckedCommand)(serve_command)
app.command("search", cls=CheckedCommand)(search_command)
app.command("eval", cls=CheckedCommand)(eval_command)
app.command("index", cls=IndexCommand, epilog=LEFT_OUT)(index_command)
app.command("watch", cls=IndexCommand, epilog=LEFT_OUT)(watch_command)
app.command("demo", cls=CheckedCommand)(demo_command)
app.add_typer(bench_app, name="bench")
app.command("doctor", cls=CheckedCommand)(doctor_command)
app.add_typer(library_app, name="library")
app.add_typer(keys_app, name="keys")
app.add_typer(bundle_app, name="bundle")
