"""Chooses what is served: an earlier snapshot, or another generation; and removes a generation.

Each choice is one atomic change of `CURRENT`. A service that runs notices it and opens the bundle that the
snapshot names; what it is asked meanwhile is answered from the snapshot before.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

from indexer.library.errors import LibraryError, storage_errors
from indexer.library.folder import Library
from indexer.library.generations import (
    remove_snapshot,
    restore_tables,
    served_generation,
    snapshots_of,
    staged,
    unstage,
)
from indexer.library.leases import retired_seconds, unretire
from indexer.library.lock import lock_library
from indexer.library.manifest import (
    CURRENT,
    FIRST_GENERATION,
    GENERATIONS,
    current_number,
    read_snapshot_manifest,
    snapshot_folder,
    snapshot_numbers,
    tables_folder,
)
from indexer.library.overview import GenerationState, list_generations
from indexer.library.schema import TABLES
from indexer.library.storage.registry import storage_of
from indexer.library.tables import table_path
from indexer.library.verify import FileHashes, verify_snapshot
from model.runtime.faults import checkpoint
from model.runtime.files import flush
from model.runtime.messages import for_shell


def rollback(path: Path | str, to: int | None = None) -> int:
    """Serve an earlier snapshot; the next run with its bundle continues from its state.

    The tables get a new version equal to the snapshot's, unless it is the newest one of another generation,
    whose tables may be ahead of it. Later snapshots are kept, so that they can be served again.

    Args:
        path: the library's folder.
        to: the snapshot's number; None: the newest whole snapshot of the same generation before the one that
            is served; where there is none, the newest whole one of another generation that was served before.

    Returns:
        The number of the snapshot that is served now.

    Raises:
        LibraryError: there is no such snapshot, or it is damaged.
        BusyError: another process is writing the library.
    """
    library = Path(path)
    numbers = snapshot_numbers(library)
    if not numbers:
        Library.open(library)
        raise LibraryError(f"{library} has no snapshot: publish one with `reelfind index`")
    with lock_library(library):
        target = _choose(library, numbers, to)
        if not _is_newest_of_another(library, target):
            restore_tables(library, read_snapshot_manifest(library, target), step="rollback")
        _serve(library, target, "rollback")
    return target


def publish_generation(path: Path | str, name: str | None = None) -> int:
    """Serve the newest complete snapshot of a generation that is not served, after checking all its files.

    Args:
        path: the library's folder.
        name: the generation's name, or the beginning of it; None: the only one that is not served.

    Returns:
        The number of the snapshot that is served now.

    Raises:
        LibraryError: there is no such generation, it is served already, or it has no complete and whole
            snapshot.
        BusyError: another process is writing the library.
    """
    library = Path(path)
    Library.open(library)
    with lock_library(library):
        chosen = _find(library, name, "publish")
        numbers = [n for n in snapshots_of(library, chosen.generation) if staged(library, n) != "incomplete"]
        if not numbers:
            raise LibraryError(
                f"generation {chosen.name} of {library} is not complete: run the `reelfind index` that "
                "builds it again, until it comes to its end"
            )
        problems = verify_snapshot(library, numbers[-1], False, FileHashes(library)).problems
        if problems:
            raise LibraryError(
                f"snapshot {numbers[-1]} of generation {chosen.name} is damaged ({problems[0]}): "
                f"`reelfind index PATH --library {for_shell(library)} --bundle BUNDLE --repair` repairs it"
            )
        _serve(library, numbers[-1], "publish_generation")
    return numbers[-1]


def drop_generation(path: Path | str, name: str, keep_seconds: float = 600.0) -> GenerationState:
    """Remove a generation that is not served: its snapshots, then its tables.

    A crash at any moment leaves a generation that can be dropped again, and the served one as it is.

    Args:
        path: the library's folder.
        name: the generation's name, or the beginning of it.
        keep_seconds: how long snapshots are kept after they were served, for readers on other machines.

    Returns:
        What it was.

    Raises:
        LibraryError: there is no such generation, it is served, a reader still needs it, or it cannot be
            removed.
        BusyError: another process is writing the library.
    """
    library = Path(path)
    Library.open(library)
    with lock_library(library):
        chosen = _find(library, name, "drop")
        folders = [snapshot_folder(library, number) for number in snapshots_of(library, chosen.generation)]
        for folder in folders:
            if staged(library, int(folder.name)) is None and retired_seconds(folder) < keep_seconds:
                raise LibraryError(
                    f"snapshot {folder.name} of generation {chosen.name} was served until less than "
                    f"{keep_seconds / 60:g} minutes ago, and services may still read it: try again later"
                )
        with storage_errors(library):
            for folder in folders:
                if not remove_snapshot(folder):
                    raise LibraryError(
                        f"snapshot {folder.name} of generation {chosen.name} is being read by a program on "
                        "this computer: try again when it has ended, or serves another snapshot"
                    )
            _remove_tables(library, chosen.generation)
    return chosen


def _serve(library: Path, number: int, step: str) -> None:
    """Let `CURRENT` name a snapshot."""
    before = _current_or_none(library)
    folder = snapshot_folder(library, number)
    with storage_errors(library / CURRENT):
        unretire(folder)
        unstage(folder)
        storage_of(library).serve(library / CURRENT, f"{number}\n", step=f"{step}.current")
        if before is not None and before != number and before in snapshot_numbers(library):
            # From now on it counts how long the snapshot has not been served.
            retired_seconds(snapshot_folder(library, before))


def _is_newest_of_another(library: Path, number: int) -> bool:
    """Whether a snapshot is the newest that was served of a generation that is not served now."""
    generation = read_snapshot_manifest(library, number).generation
    if _generation_of_current(library) in (None, generation):
        return False
    return number == max(n for n in snapshots_of(library, generation) if staged(library, n) is None)


def _choose(library: Path, numbers: list[int], to: int | None) -> int:
    listed = ", ".join(map(str, numbers))
    hashes = FileHashes(library)
    if to is not None:
        if to not in numbers:
            raise LibraryError(f"{library} has no snapshot {to}: choose one of {listed}")
        if staged(library, to) is not None:
            raise LibraryError(
                f"snapshot {to} was never served: `reelfind library publish` serves its generation"
            )
        if _is_former(library, to):
            raise LibraryError(
                f"snapshot {to} is of an earlier version of Reelfind: for that version, "
                f"`reelfind library migrate --library {for_shell(library)} --undo` returns to it"
            )
        problems = verify_snapshot(library, to, False, hashes).problems
        if problems:
            raise LibraryError(f"snapshot {to} is damaged ({problems[0]}): choose another of {listed}")
        return to
    current = _current_or_none(library)
    for number in _earlier(library, numbers, current):
        if not _is_former(library, number) and not verify_snapshot(library, number, False, hashes).problems:
            return number
    served = "the one that is served" if current is None else f"snapshot {current}"
    raise LibraryError(f"{library} has no whole snapshot before {served} (there are {listed})")


def _earlier(library: Path, numbers: list[int], current: int | None) -> Iterator[int]:
    """The snapshots that were served before, those of the same generation first, the newest of each first."""
    known = [number for number in reversed(numbers) if staged(library, number) is None]
    own = _generation_of_current(library)
    if current is None or own is None:
        yield from (number for number in known if current is None or number < current)
        return
    same = set(snapshots_of(library, own))
    yield from (number for number in known if number in same and number < current)
    yield from (number for number in known if number not in same)


def _is_former(library: Path, number: int) -> bool:
    """Whether a snapshot is of an earlier version, which this one cannot serve."""
    try:
        return read_snapshot_manifest(library, number).is_former
    except LibraryError:
        return False


def _generation_of_current(library: Path) -> str | None:
    """The generation of the snapshot that is served; None where that cannot be told."""
    current = _current_or_none(library)
    try:
        return None if current is None else read_snapshot_manifest(library, current).generation
    except LibraryError:
        return None


def _current_or_none(library: Path) -> int | None:
    try:
        return current_number(library)
    except LibraryError:
        return None


def _find(library: Path, name: str | None, command: str) -> GenerationState:
    """The generation that is not served and has this name, or the only one.

    Raises:
        LibraryError: there is none, there are several, or it is served.
    """
    served = served_generation(library)
    states = list_generations(library)
    others = [state for state in states if state.generation != served]
    listed = "; ".join(f"{state.name} ({state.bundle_name})" for state in others)
    if name is None:
        if len(others) == 1:
            return others[0]
        if not others:
            raise LibraryError(
                f"{library} has one generation, which is served: "
                f"`reelfind index PATH --library {for_shell(library)} --bundle NEW` builds another one"
            )
        raise LibraryError(f"{library} has several generations that are not served: name one of {listed}")
    found = [state for state in states if name and state.name.startswith(name)]
    if len(found) == 1 and found[0] in others:
        return found[0]
    if len(found) == 1:
        remedy = "publish another one first" if command == "drop" else "there is nothing to do"
        raise LibraryError(f"generation {found[0].name} of {library} is the one that is served: {remedy}")
    what = "no generation" if not found else "several generations"
    choose = f"name one of {listed}" if others else "it has only the one that is served"
    raise LibraryError(f"{library} has {what} {name!r}: {choose}")


def _remove_tables(library: Path, generation: str) -> None:
    folder = tables_folder(library, generation)
    storage = storage_of(library)
    if not storage.is_local:
        # `segments` last: it says whose tables they are.
        for name in sorted(TABLES, key=lambda table: table == "segments"):
            checkpoint(f"drop.{name}")
            storage.remove_folder(table_path(folder, name))
        return
    root = library / GENERATIONS
    aside = root / f".{generation or 'first'}.removed"
    root.mkdir(exist_ok=True)
    if generation != FIRST_GENERATION:
        checkpoint("drop.rename")
        folder.rename(aside)
    else:
        aside.mkdir(exist_ok=True)
        # `segments` last: it says whose tables they are.
        for name in sorted(TABLES, key=lambda table: table == "segments"):
            checkpoint(f"drop.{name}")
            if table_path(folder, name).exists():
                table_path(folder, name).rename(aside / table_path(folder, name).name)
    checkpoint("drop.remove")
    flush(root)
    flush(library)
    shutil.rmtree(aside)
