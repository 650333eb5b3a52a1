"""Remembers on which mounted disks and shares the videos are: while one is not mounted, none of its is gone.

An unmounted disk leaves an empty folder, which looks as if its videos had been deleted.
"""

import json
import os
import re
from collections.abc import Iterable, Set
from pathlib import Path

from indexer.library.errors import storage_errors
from indexer.library.storage.registry import storage_of

MOUNTS_FILE = "mounts.json"
_MOUNT_TABLE = Path("/proc/self/mountinfo")


def remember_mounts(library: Path, folders: Set[Path], *, forget: Iterable[Path] = ()) -> None:
    """Store the mount points among the folders above the videos, with those stored before.

    Args:
        library: the library's folder; its lock is held.
        folders: the absolute paths of all folders above the videos found.
        forget: mount points stored before whose videos are really gone.

    Raises:
        LibraryError: they cannot be written.
    """
    known = known_mounts(library)
    mounts = (known - set(forget)) | (mounted() & folders)
    if mounts != known:
        names = sorted(os.fsencode(path).hex() for path in mounts)
        with storage_errors(library / MOUNTS_FILE):
            # In hex: names need not be UTF-8.
            data = json.dumps({"mounts_hex": names}) + "\n"
            storage_of(library).write(library / MOUNTS_FILE, data.encode())


def known_mounts(library: Path) -> set[Path]:
    """The mount points below which videos of the library are, as far as they are stored."""
    try:
        stored = json.loads(storage_of(library).read(library / MOUNTS_FILE))
        return {Path(os.fsdecode(bytes.fromhex(name))) for name in stored["mounts_hex"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        # Libraries made before have none; a damaged file is written anew.
        return set()


def mounted() -> set[Path]:
    """The mount points of this machine, without `/`. Empty where the system does not tell."""
    try:
        lines = _MOUNT_TABLE.read_bytes().splitlines()
    except OSError:
        return set()
    points = set()
    for line in lines:
        fields, _, rest = line.partition(b" - ")
        # An automounter's entry is there whether the share is mounted or not.
        if not rest.startswith(b"autofs "):
            name = re.sub(rb"\\([0-7]{3})", lambda code: bytes([int(code[1], 8)]), fields.split(b" ")[4])
            points.add(Path(os.fsdecode(name)))
    return points - {Path("/")}
