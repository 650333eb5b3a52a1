"""The generations of a library: each has the tables and the snapshots of one bundle.

The tables of the first one lie in the library, those of each further one in `generations/<name>/`, where the
name is the beginning of its bundle's checksum. A further generation is built beside the one that is served.
Its snapshots are *staged* until it is: nobody opens them, because `CURRENT` names another.
"""

from pathlib import Path
from typing import Literal

from indexer.library.errors import LibraryError, storage_errors
from indexer.library.leases import claimed
from indexer.library.manifest import (
    FIRST_GENERATION,
    GENERATIONS,
    SnapshotManifest,
    current_number,
    is_generation_name,
    read_snapshot_manifest,
    snapshot_folder,
    snapshot_numbers,
    tables_folder,
)
from indexer.library.schema import TABLES
from indexer.library.storage.registry import storage_of
from indexer.library.tables import open_table, table_exists, table_path
from indexer.library.vectors.registry import drop_vectors
from model.runtime.faults import checkpoint
from model.runtime.files import replace_text
from model.runtime.messages import for_shell

#: How far a staged snapshot is: its run was interrupted or still goes on, or it came to its end.
Staged = Literal["incomplete", "complete"]
#: In the folder of a staged snapshot: how far it is.
_STAGED = "staged"


def generations(library: Path) -> list[str]:
    """The generations that have tables, in any state: the first one first."""
    folder = library / GENERATIONS
    with storage_errors(folder):
        names = storage_of(folder).names(folder)
    named = [FIRST_GENERATION, *(name for name in names if is_generation_name(name))]
    return [name for name in named if has_tables(library, name)]


def has_tables(library: Path, generation: str) -> bool:
    """Whether a generation has any table."""
    return any(table_exists(tables_folder(library, generation), name) for name in TABLES)


def served_generation(library: Path) -> str:
    """The generation that is served; where none is, the one that there is, or the first.

    Raises:
        LibraryError: there are several, and it cannot be told which one is served.
    """
    present = generations(library)
    if len(present) < 2:
        return present[0] if present else FIRST_GENERATION
    number = current_number(library)
    if number is None:
        return present[0]
    served = read_snapshot_manifest(library, number).generation
    if served not in present:
        raise LibraryError(
            f"{tables_folder(library, served)} is missing, which snapshot {number} needs: restore it from a "
            "backup, or serve another generation with "
            f"`reelfind library rollback --library {for_shell(library)}`"
        )
    return served


def is_served(library: Path, generation: str) -> bool:
    """Whether new snapshots of a generation are to be served: it is served, or no other one is.

    Raises:
        LibraryError: it cannot be told which generation is served.
    """
    if current_number(library) is None or generations(library) in ([], [generation]):
        return True
    return served_generation(library) == generation


def snapshots_of(library: Path, generation: str) -> list[int]:
    """The numbers of a generation's snapshots, ascending.

    One whose manifest cannot be read counts for the generation that is served, whose runs remove it in time.
    """
    numbers = []
    for number in snapshot_numbers(library):
        try:
            is_own = read_snapshot_manifest(library, number).generation == generation
        except LibraryError:
            is_own = _may_be_served(library, generation)
        if is_own:
            numbers.append(number)
    return numbers


def _may_be_served(library: Path, generation: str) -> bool:
    try:
        return is_served(library, generation)
    except LibraryError:
        return False


def base_manifest(library: Path, generation: str) -> SnapshotManifest | None:
    """The snapshot that the next one of a generation follows: the one served, or else the newest of its own.

    None where there is none, or the snapshot that is served is damaged: then the next one is made from the
    tables alone.
    """
    try:
        number = current_number(library)
        served = None if number is None else read_snapshot_manifest(library, number)
    except LibraryError:
        return None
    if served is None or served.generation == generation:
        return served
    for number in reversed(snapshots_of(library, generation)):
        try:
            return read_snapshot_manifest(library, number)
        except LibraryError:
            continue
    return None


def stage(folder: Path, state: Staged) -> None:
    """Say in a snapshot's folder that it is staged, and how far it is.

    Raises:
        LibraryError: it cannot be written.
    """
    with storage_errors(folder):
        storage_of(folder).write(folder / _STAGED, f"{state}\n".encode(), step="stage")


def stage_new(folder: Path) -> None:
    """As `stage`, of a snapshot whose folder has not got its place yet: it is not complete.

    Raises:
        OSError: it cannot be written.
    """
    replace_text(folder / _STAGED, "incomplete\n", step="stage")


def unstage(folder: Path) -> None:
    """A snapshot is not staged any more, because it will be served."""
    with storage_errors(folder):
        storage_of(folder).remove(folder / _STAGED)


def staged(library: Path, number: int) -> Staged | None:
    """How far a staged snapshot is; None: it is served, or was."""
    try:
        text = storage_of(library).read(snapshot_folder(library, number) / _STAGED)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise LibraryError(f"{snapshot_folder(library, number)} cannot be read: {error.strerror}") from error
    return "complete" if text == b"complete\n" else "incomplete"


def complete(library: Path, number: int) -> None:
    """Note that the run which made a staged snapshot has come to its end: it may be published.

    Raises:
        LibraryError: it cannot be written.
    """
    if staged(library, number) == "incomplete":
        stage(snapshot_folder(library, number), "complete")


def restore_tables(library: Path, manifest: SnapshotManifest, *, step: str) -> None:
    """Give the tables of a snapshot's generation a new version that is equal to the snapshot's.

    Args:
        library: the library's folder; its lock is held.
        manifest: the snapshot's.
        step: names the steps of `checkpoint`.

    Raises:
        LibraryError: a table cannot be read or written.
    """
    tables = tables_folder(library, manifest.generation)
    # Restore `videos`, the commit marker, first: the next run repairs what a kill between the tables leaves.
    # Where the snapshot is older than a table, the next run fills the table again.
    for name in (name for name in TABLES if name in manifest.tables):
        checkpoint(f"{step}.{name}")
        dataset = open_table(tables, name, manifest.tables[name])
        with storage_errors(table_path(tables, name)):
            dataset.restore()  # type: ignore[no-untyped-call]


def remove_snapshot(folder: Path) -> bool:
    """Remove a snapshot, unless a reader holds it. → Whether it is removed."""
    storage = storage_of(folder)
    with claimed(folder) as is_free:
        if not is_free:
            return False
        checkpoint("prune.rename")
        rest = storage.set_aside(folder)
    checkpoint("prune.remove")
    drop_vectors(rest)
    storage.remove_folder(rest)
    return True
