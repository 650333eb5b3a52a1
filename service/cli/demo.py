"""`reelfind demo`: indexes and serves real clips and short films, with queries to try."""

import signal
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from model.runtime.errors import ReelfindError
from model.runtime.exits import INTERRUPTED, NOTHING_FOUND
from model.runtime.signals import handling_signals
from service.cli.printing import plain
from service.demo.queries import QUERIES, DemoAnswer, ask
from service.demo.run import IndexingFailed, demo_server
from service.server_process import ServerProcess

_SHOWN_HITS = 3


def demo_command(
    once: Annotated[
        bool, typer.Option("--once", help="Print the answers to the three queries and exit.")
    ] = False,
    library: Annotated[
        Path, typer.Option(help="Folder of the library; the videos are stored beside it, in FOLDER-films.")
    ] = Path("demo-library"),
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port to listen on. Default: 8000; with --once, a free port."),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(help="Folder of the model bundle. Default: the one that ships with Reelfind."),
    ] = None,
    keep: Annotated[
        bool,
        typer.Option(help="Keep the videos and the library for the next run, or delete what this run made."),
    ] = True,
) -> None:
    """Index real clips, serve them, and print three queries to try.

    With --once, the exit code is 0 if every query has hits, 1 if one has none, and 3 if the server fails.
    """
    console = Console(highlight=False)
    if port is None:
        port = 0 if once else 8000
    try:
        with (
            handling_signals(_interrupt, [signal.SIGTERM]),
            demo_server(library, host=host, port=port, bundle=bundle, keep=keep, console=console) as server,
        ):
            if not once:
                _serve_until_stopped(server, console)
                return
            answers = [ask(server, query) for query in QUERIES]
            _print_answers(answers, console)
    except IndexingFailed as error:
        raise typer.Exit(error.code) from None
    except KeyboardInterrupt:
        console.print("stopped; `reelfind demo` continues from here")
        raise typer.Exit(INTERRUPTED) from None
    if not all(answer.hits for answer in answers):
        raise typer.Exit(NOTHING_FOUND)


def _invite(server: ServerProcess, console: Console) -> None:
    console.print(f"\nReelfind is at [bold]{server.url}[/bold] (Ctrl-C stops it). Three queries to try:")
    for query in QUERIES:
        console.print(f"  {query.text:<42} finds {query.video}")


def _serve_until_stopped(server: ServerProcess, console: Console) -> None:
    try:
        _invite(server, console)
        code = server.process.wait()
    except KeyboardInterrupt:
        console.print("\nstopping")
        return
    raise ReelfindError(f"The server stopped unexpectedly with exit code {code}.")


def _print_answers(answers: list[DemoAnswer], console: Console) -> None:
    for answer in answers:
        console.print(f"\n[bold]{answer.query.text}[/bold]")
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        for place, hit in enumerate(answer.hits[:_SHOWN_HITS], start=1):
            expected = hit.video == answer.query.video
            mark = "[green]✓ expected[/green]" if expected and place == 1 else "expected" if expected else ""
            match = "" if hit.match_score is None else f"match {hit.match_score:+.2f}"
            times = ", ".join(f"{seconds:.1f} s" for seconds in hit.seconds)
            table.add_row(f"  {place}", plain(hit.video), f"{hit.score:.3f}", match, f"at {times}", mark)
        console.print(table if answer.hits else "  [red]nothing found[/red]")
    first = sum(answer.rank == 1 for answer in answers)
    console.print(f"\n{first} of {len(answers)} queries found the expected video first.")


def _interrupt(_number: int) -> NoReturn:
    """Treat SIGTERM, which `timeout` and service managers send, like Ctrl-C: the server is stopped too."""
    raise KeyboardInterrupt
