"""Small files in the folders of snapshots, which say where a backend keeps their vectors."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from indexer.library.errors import VERIFY_REMEDY, LibraryError, storage_errors
from indexer.library.storage.registry import storage_of

P = TypeVar("P")


def write_place(path: Path, place: Any) -> Path:
    """Write a dataclass to a file in the folder of a snapshot that is being made. → The file."""
    with storage_errors(path):
        path.write_text(json.dumps(asdict(place)) + "\n", encoding="utf-8")
    return path


def read_place(
    path: Path, kind: Callable[..., P], is_right: Callable[[P], bool], what: str, *, in_store: bool = False
) -> P:
    """Read what `write_place` wrote, which may come from a stranger.

    Args:
        path: the file, in a snapshot's folder, which may not have got its place yet.
        kind: the dataclass.
        is_right: whether its values can be.
        what: what it names, for error messages.
        in_store: read it where the library is, not its copy on this computer.

    Raises:
        LibraryError: it is missing or damaged.
    """
    with storage_errors(path):
        content = json.loads(storage_of(path).read(path) if in_store else path.read_bytes())
    try:
        place = kind(**content)
    except TypeError as error:
        raise LibraryError(f"{path} is damaged: it names no {what}; {VERIFY_REMEDY}") from error
    if not is_right(place):
        raise LibraryError(f"{path} is damaged: it names no {what}; {VERIFY_REMEDY}")
    return place


def are_counts(*numbers: object) -> bool:
    """Whether values from JSON are whole numbers of at least 0."""
    return all(type(number) is int and number >= 0 for number in numbers)


def places_of_all(snapshots: Path, name: str) -> Iterator[tuple[Path, bool]]:
    """The folders of snapshots with a file of this name, those that are being made included.

    Yields:
        The folder, and whether the file is to be read where the library is: see `read_place`.

    Raises:
        LibraryError: the library cannot be listed.
    """
    with storage_errors(snapshots):
        stored = [path.parent for path in storage_of(snapshots).files(snapshots) if path.name == name]
    yield from ((folder, True) for folder in stored)
    # Of a snapshot that is being made, the file is on this computer alone.
    yield from ((path.parent, False) for path in snapshots.glob(f".*/{name}"))
