"""`reelfind library info|verify|rollback`: shows and checks a library, and goes back to a snapshot."""

from typing import Annotated

import typer
from rich.console import Console

from indexer.library.errors import LibraryError
from indexer.library.folder import Library
from indexer.library.manifest import current_number, read_snapshot_manifest, snapshot_numbers
from indexer.library.verify import rollback, verify_library
from model.runtime.exits import FAILED
from service.cli.exits import CheckedCommand, note
from service.cli.library_report import info_object, print_info, print_verify, verify_object
from service.cli.options import JsonOption, RequiredLibraryOption
from service.cli.printing import print_json

library_app = typer.Typer(
    name="library",
    help="Show a library, check it, or go back to an earlier snapshot.",
    no_args_is_help=True,
)


@library_app.command("info", cls=CheckedCommand)
def library_info_command(library: RequiredLibraryOption, as_json: JsonOption = False) -> None:
    """Show what a library holds, and list its snapshots."""
    home = Library.open(library)
    current = current_number(home.path)
    if current is None:
        home.current()
    manifests = []
    for number in snapshot_numbers(home.path):
        try:
            manifests.append(read_snapshot_manifest(home.path, number))
        except LibraryError as error:
            if number == current:
                raise
            note(str(error))
    if current not in {manifest.number for manifest in manifests}:
        home.current()
    info = info_object(home, current, manifests)
    if as_json:
        print_json(info)
    else:
        print_info(info, Console())


@library_app.command("verify", cls=CheckedCommand)
def library_verify_command(library: RequiredLibraryOption, as_json: JsonOption = False) -> None:
    """Check the SHA-256 of every file of every snapshot. Exit code 3: the library is damaged."""
    report = verify_library(library)
    if as_json:
        print_json(verify_object(report))
    else:
        print_verify(report, Console())
    if not report.ok:
        raise typer.Exit(FAILED)


@library_app.command("rollback", cls=CheckedCommand)
def library_rollback_command(
    library: RequiredLibraryOption,
    to: Annotated[
        int | None,
        typer.Option(
            help="Number of the snapshot to serve. Default: the last intact one before the current."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Serve an earlier snapshot. The next `reelfind index` continues from it."""
    number = rollback(library, to)
    if as_json:
        print_json({"library": str(library), "snapshot": number})
    else:
        typer.echo(f"snapshot {number} is served now; the next `reelfind index` continues from it")
