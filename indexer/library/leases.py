"""Keeps what a reader holds from being removed under it.

A reader has a shared lock on the manifest of the snapshot that it reads. It needs no right to write, and the
kernel lets go of it when the process ends. Locks may not reach from one machine to another: so a snapshot is
also kept for some time after another one took its place, in which its readers notice the new one.
"""

import fcntl
import os
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from indexer.library.errors import LibraryError
from indexer.library.storage.base import MANIFEST_FILE
from indexer.library.storage.registry import storage_of

#: In the folder of a snapshot that is no longer served: since when, in seconds of `time.time()`.
_RETIRED = "retired"


class Lease:
    """Holds a snapshot until it is collected or closed."""

    def __init__(self, handle: int) -> None:
        self._closing = weakref.finalize(self, os.close, handle)

    def close(self) -> None:
        """Let go of the snapshot."""
        self._closing()


def hold(folder: Path) -> Lease | None:
    """Hold the snapshot in a folder.

    Returns:
        The lease; None where there is no snapshot to hold, or the file system has no locks.

    Raises:
        LibraryError: the snapshot is being removed.
    """
    path = folder / MANIFEST_FILE
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    lease = Lease(handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        is_there = os.path.samestat(path.stat(), os.fstat(handle))
    except (BlockingIOError, FileNotFoundError):
        is_there = False
    except OSError:
        lease.close()
        return None
    if not is_there:
        lease.close()
        raise LibraryError(f"snapshot {folder.name} is being removed, for newer ones have been published")
    return lease


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Claim a snapshot for removal: whether no reader holds it. While it is claimed, none can."""
    try:
        handle = os.open(folder / MANIFEST_FILE, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        yield True  # without a manifest it cannot be read
        return
    try:
        yield _lock_alone(handle)
    finally:
        os.close(handle)


def _lock_alone(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def retired_seconds(folder: Path) -> float:
    """How long a snapshot has not been served; starts to count if it was served until now."""
    path, now = folder / _RETIRED, time.time()
    storage = storage_of(folder)
    try:
        since = float(storage.read(path))
    except (OSError, ValueError):
        since = now + 1
    # A time to come is that of a clock that was wrong: count anew.
    if since > now:
        storage.write(path, f"{now}\n".encode())
        return 0.0
    return now - since


def unretire(folder: Path) -> None:
    """Forget since when a snapshot has not been served, because it will be."""
    storage_of(folder).remove(folder / _RETIRED)
