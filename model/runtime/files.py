"""Checksums of files, flushing them to disk, and replacing them so that a power cut leaves them whole."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from model.runtime.faults import reach

_BLOCK_BYTES = 1 << 22
#: Of `sha256_once`, by device, inode, size and time of change.
_CHECKSUMS: dict[tuple[int, int, int, int], str] = {}
_MOST_CHECKSUMS = 256


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex.

    Raises:
        OSError: it cannot be read, or is no regular file: a pipe would block, a device may have no end.
    """
    with _open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_once(path: Path) -> str:
    """SHA-256 in hex of a file that is written once, such as the index of a snapshot.

    It is read again only if its time or size differs from when this process read it, under whatever name.

    Raises:
        OSError: see `sha256_of`.
    """
    before = path.stat()
    key = (before.st_dev, before.st_ino, before.st_size, before.st_mtime_ns)
    found = _CHECKSUMS.get(key)
    if found is None:
        found = sha256_of(path)
        while len(_CHECKSUMS) >= _MOST_CHECKSUMS:
            _CHECKSUMS.pop(next(iter(_CHECKSUMS)), None)
        _CHECKSUMS[key] = found
    return found


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`, or a copy of it where the file system knows no hard links.

    Raises:
        OSError: the source cannot be read, or the target cannot be written.
    """
    try:
        target.hardlink_to(source)
    except OSError:
        target.unlink(missing_ok=True)
        shutil.copyfile(source, target)


def _open_regular(path: Path) -> BufferedReader:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is no regular file", os.fspath(path))
    return os.fdopen(handle, "rb")  # closes it too


def sha256_steps(path: Path, step_bytes: int = 1 << 28) -> Generator[None, None, str]:
    """SHA-256 of a file in hex; yields after every `step_bytes`, so that the caller can show progress."""
    digest = hashlib.sha256()
    unreported = 0
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            unreported += len(block)
            if unreported >= step_bytes:
                unreported = 0
                yield
    return digest.hexdigest()


def flush(path: Path) -> None:
    """Force a file's or a folder's content to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path, *, shared: bool = False, step: str | None = None) -> Iterator[Path]:
    """Replace a file whole: yield a path to write to, then flush that file and rename it into place.

    A reader always sees the whole old file or the whole new one. If the caller raises an error while writing,
    the old file stays and the new one is removed.

    Args:
        path: the file to replace or create. The temporary name starts with a dot and keeps the suffix.
        shared: several processes or threads may replace the file at the same time; the last one wins.
        step: names the fault points around the replacement, see `model.runtime.faults`; None: there are none.
    """
    writer = f".{os.getpid()}.{threading.get_ident()}" if shared else ""
    temporary = path.with_name(f".{path.stem}{writer}.new{path.suffix}")
    reach(step, "write")
    try:
        yield temporary
        reach(step, "fsync")
        flush(temporary)
        reach(step, "rename")
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    reach(step, "renamed")
    flush(path.parent)


def replace_text(path: Path, text: str, *, shared: bool = False, step: str | None = None) -> None:
    """Replace a text file whole, in UTF-8; see `replacing`."""
    with replacing(path, shared=shared, step=step) as temporary:
        temporary.write_text(text, encoding="utf-8")
