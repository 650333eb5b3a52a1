"""`reelfind library vectors`: the index by which a library's vectors are searched."""

from typing import Annotated

import typer

from indexer.library.rebuilding import rebuild_vectors
from service.cli.exits import CheckedCommand
from service.cli.options import IndexBackendOption, JsonOption, RequiredLibraryOption
from service.cli.printing import print_json

vectors_app = typer.Typer(
    name="vectors", help="The index by which a library's vectors are searched.", no_args_is_help=True
)


@vectors_app.callback()
def vectors_group() -> None:
    """Keeps `rebuild` a command of its own while it is the only one."""


@vectors_app.command("rebuild", cls=CheckedCommand)
def library_vectors_rebuild_command(
    library: RequiredLibraryOption,
    index_backend: IndexBackendOption = None,
    index_factory: Annotated[
        str | None,
        typer.Option(help="Kind of index, in the backend's notation. 'auto' chooses by size."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make the index anew from the library's tables, and serve it. No video is read.

    It is the remedy for an index that is damaged or lost, and the way to another backend.
    """
    manifest = rebuild_vectors(library, index_backend, index_factory)
    if as_json:
        print_json(
            {
                "library": str(library),
                "snapshot": manifest.number,
                "backend": manifest.index_backend,
                "factory": manifest.index_factory,
                "num_segments": manifest.num_segments,
            }
        )
    else:
        typer.echo(
            f"snapshot {manifest.number} is served now: {manifest.num_segments} vectors, "
            f"backend {manifest.index_backend}, kind {manifest.index_factory}"
        )
