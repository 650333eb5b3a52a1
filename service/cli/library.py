"""`reelfind library`: shows and checks a library, and chooses what of it is served."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from indexer.library.errors import LibraryError
from indexer.library.folder import Library
from indexer.library.manifest import (
    current_number,
    generation_name,
    read_snapshot_manifest,
    snapshot_numbers,
)
from indexer.library.migration import migrate, undo_migration
from indexer.library.overview import list_generations, videos_lacking
from indexer.library.switching import drop_generation, publish_generation, rollback
from indexer.library.verify import verify_library
from model.runtime.exits import FAILED
from model.runtime.messages import for_shell
from service.cli.exits import CheckedCommand, note
from service.cli.generation import print_lacking
from service.cli.library_exclusions import COMMANDS
from service.cli.library_report import info_object, print_info, print_verify, verify_object
from service.cli.library_vectors import vectors_app
from service.cli.options import JsonOption, RequiredLibraryOption
from service.cli.printing import print_json, say

library_app = typer.Typer(
    name="library",
    help="Show a library, check it, choose what of it is served, or keep videos out of it.",
    no_args_is_help=True,
)


@library_app.command("info", cls=CheckedCommand)
def library_info_command(library: RequiredLibraryOption, as_json: JsonOption = False) -> None:
    """Show what a library holds, and list its generations and snapshots."""
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
    info = info_object(home, current, manifests, list_generations(home.path))
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


@library_app.command("publish", cls=CheckedCommand)
def library_publish_command(
    library: RequiredLibraryOption,
    generation: Annotated[
        str | None,
        typer.Argument(
            help="Name of the generation, or the beginning of it. Default: the only one that is not served.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Serve another generation: the one that `reelfind index --bundle NEW` has built, or an earlier one."""
    before = current_number(library)
    number = publish_generation(library, generation)
    lacking = [] if before is None else videos_lacking(library, before, number)
    manifest = read_snapshot_manifest(library, number)
    if as_json:
        name = generation_name(manifest.bundle_checksum)
        print_json({"library": str(library), "snapshot": number, "generation": name, "lacking": lacking})
    else:
        print_lacking(lacking, Console())
        typer.echo(
            f"snapshot {number} of bundle {manifest.bundle_name} is served now: name that bundle in "
            "REELFIND_BUNDLE from now on, or none; "
            f"`reelfind library rollback --library {for_shell(library)}` returns"
        )


@library_app.command("drop", cls=CheckedCommand)
def library_drop_command(
    library: RequiredLibraryOption,
    generation: Annotated[str, typer.Argument(help="Name of the generation, or the beginning of it.")],
    keep_minutes: Annotated[
        float,
        typer.Option(
            min=0,
            help="Refuse if it was served until less than these minutes ago, for services on other computers "
            "that still read it.",
        ),
    ] = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Remove a generation that is not served, with all its snapshots."""
    dropped = drop_generation(library, generation, keep_minutes * 60)
    if as_json:
        print_json({"library": str(library), "generation": dropped.name, "bytes": dropped.bytes})
    else:
        say(
            f"generation {dropped.name} (bundle {dropped.bundle_name}) is removed: "
            f"{dropped.bytes / 1e6:.1f} MB are free again"
        )


@library_app.command("migrate", cls=CheckedCommand)
def library_migrate_command(
    library: RequiredLibraryOption,
    undo: Annotated[
        bool,
        typer.Option(
            "--undo",
            help="Return to the snapshot from before, for the version of Reelfind that wrote it. What was "
            "indexed since is lost from the library. Stop `reelfind serve` first.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring a library of an earlier version to this one, in place, without reading any video again."""
    if undo:
        number = undo_migration(library)
        if as_json:
            print_json({"library": str(library), "snapshot": number})
        else:
            typer.echo(f"snapshot {number} is served again, by the version of Reelfind that wrote it")
        return
    done = migrate(library)
    if as_json:
        print_json({"library": str(library), "generations": [asdict(each) for each in done]})
    elif not done:
        typer.echo("the library is of this version: there is nothing to do")
    for each in () if as_json else done:
        copies = each.files - each.videos
        text = f"generation {each.name}: {each.files} files are {each.videos} videos"
        typer.echo(text + (f", {copies} of them copies" if copies else ""))


@library_app.command("rollback", cls=CheckedCommand)
def library_rollback_command(
    library: RequiredLibraryOption,
    to: Annotated[
        int | None,
        typer.Option(
            help="Number of the snapshot to serve. Default: the last intact one of the same generation "
            "before the current, or else the last of another generation."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Serve an earlier snapshot. The next `reelfind index` with its bundle continues from it."""
    number = rollback(library, to)
    if as_json:
        print_json({"library": str(library), "snapshot": number})
    else:
        typer.echo(f"snapshot {number} is served now; the next `reelfind index` continues from it")


library_app.add_typer(vectors_app)
for _name, _command in COMMANDS.items():
    library_app.command(_name, cls=CheckedCommand)(_command)
