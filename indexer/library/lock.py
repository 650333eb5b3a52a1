"""The lock of a library: one process writes it at a time, and others are told which."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from indexer.library.errors import BusyError, storage_errors
from indexer.library.storage.processes import has_ended, this_place
from indexer.library.storage.registry import storage_of

LOCK_FILE = "LOCK"
#: How long to wait for a process that is about to write its number, or whose number is that of a process
#: that has ended.
_WAIT_SECONDS = 1.0
_POLL_SECONDS = 0.05


@contextlib.contextmanager
def lock_library(folder: Path) -> Iterator[None]:
    """Hold the lock of the library in `folder`.

    Raises:
        BusyError: another process holds it; the message names the process, if it is known.
    """
    path = folder / LOCK_FILE
    with storage_errors(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _take(handle, folder)
        with storage_errors(path):
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()} {this_place()}\n".encode(), 0)
        try:
            with _held_everywhere(folder):
                yield
        finally:
            # Nobody shall be told of a process that has ended.
            with contextlib.suppress(OSError):
                os.ftruncate(handle, 0)
    finally:
        # Closing releases the lock; the kernel does this for a killed process.
        os.close(handle)


@contextlib.contextmanager
def _held_everywhere(folder: Path) -> Iterator[None]:
    """Hold a library that other computers can write, too, if it is one."""
    with contextlib.ExitStack() as stack:
        with storage_errors(folder):
            stack.enter_context(storage_of(folder).writing(folder))
        yield


def library_writer(folder: Path) -> str | None:
    """Which process writes the library in `folder`, such as "process 12"; None: none does.

    Raises:
        LibraryError: the lock cannot be read.
    """
    path = folder / LOCK_FILE
    with storage_errors(path):
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return storage_of(folder).writer(folder)
    try:
        # Who wants to write meanwhile finds no name in the file, and tries again.
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(handle) or "another process"
    finally:
        os.close(handle)
    with storage_errors(folder):
        return storage_of(folder).writer(folder)


def _take(handle: int, folder: Path) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _holder(handle)
            if holder is None and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
                continue
            writer = holder or "another process"
            raise BusyError(
                f"the library at {folder} is being written by {writer}: wait until it is done"
            ) from error
        else:
            return


def _holder(handle: int) -> str | None:
    """The process that the lock's file names; None where it names none, or one that has ended."""
    number, _, place = os.pread(handle, 512, 0).decode("utf-8", "replace").strip().partition(" ")
    if not number.isdecimal():
        return None
    if place not in ("", this_place()):
        host = place.partition(" ")[0]
        return f"process {number} on {host!r}, another computer or container"
    return None if has_ended(int(number)) else f"process {number}"
