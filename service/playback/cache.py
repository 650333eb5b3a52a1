"""Stores finished streams and clips in a folder, up to a size. Several processes may share the folder.

An entry appears under its name only when it is whole, and its last bytes say how long it is: nothing that was
half written, before a crash or a power cut, is taken for an entry. Entries that were not used for longest go
first. A file that somebody reads stays readable when it goes.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import logging
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger("reelfind")

_KEY = re.compile(r"[0-9a-f]{64}")
_ENTRY, _UNFINISHED = ".mp4", ".part"
#: Bytes of the end of an entry, which describe it.
_FOOTER_BYTES = 256
#: While an entry grows, room is made for it in steps of so many bytes, or of this part of the cache.
_STEP_BYTES, _MOST_STEPS = 16 << 20, 32


@dataclass(frozen=True)
class StoredFile:
    """An open file with a finished stream or clip. Whoever has it closes `file`.

    Attributes:
        file: the file; more may follow in it than belongs to the content.
        size: of the content, in bytes.
        media_type: its content type.
    """

    file: io.FileIO
    size: int
    media_type: str


class PlaybackCache:
    """The folder.

    Args:
        folder: where it is; it is made when it is needed. None: nothing is stored.
        max_bytes: the size of all entries together, about; 0: nothing is stored.
    """

    def __init__(self, folder: Path | None, max_bytes: int) -> None:
        self._folder = folder or Path()
        self._max_bytes = max_bytes if folder is not None else 0

    def open(self, key: str) -> StoredFile | None:
        """Open an entry, which counts as used now; None if there is none.

        Args:
            key: 64 hex digits that say what it holds.
        """
        path = self._path(key)
        if not self._max_bytes:
            return None
        try:
            file = io.FileIO(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW))
        except OSError:
            return None
        stored = _read_footer(file)
        if stored is None:
            file.close()
            logger.warning("%s is damaged: it is removed", path)
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return stored

    def begin(self, key: str | None) -> NewEntry:
        """Begin an entry. Where nothing can be stored, its content is kept until its file is closed.

        Args:
            key: see `open`; None: it is not to be stored.

        Raises:
            OSError: there is no place for a file at all.
        """
        if self._max_bytes and key is not None:
            path = self._path(key)
            try:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._remove_unfinished()
                self.make_room(0)
                return NewEntry(self, path, self._folder / f"{secrets.token_hex(16)}{_UNFINISHED}")
            except OSError as error:
                logger.warning("nothing can be stored in %s: %s", self._folder, error.strerror or error)
        return NewEntry(self, None, None)

    @property
    def max_bytes(self) -> int:
        """The size of all entries together, about; 0: nothing is stored."""
        return self._max_bytes

    @property
    def max_entry_bytes(self) -> int:
        """The size of one entry: no long stream empties the cache."""
        return self._max_bytes // 2

    def make_room(self, wanted: int) -> None:
        """Remove the entries that were not used for longest, until `wanted` bytes more fit."""
        entries = list(self._files())
        used = sum(status.st_size for _, status in entries)
        for path, status in sorted(entries, key=lambda entry: entry[1].st_mtime_ns):
            if used + wanted <= self._max_bytes:
                return
            if path.suffix == _ENTRY:
                with contextlib.suppress(OSError):
                    path.unlink()
                used -= status.st_size

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"the key of an entry is {key!r}: it must be 64 hex digits")
        return self._folder / f"{key}{_ENTRY}"

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        """All that belongs to the cache, finished or not."""
        for path in self._folder.iterdir():
            if path.suffix in (_ENTRY, _UNFINISHED):
                with contextlib.suppress(OSError):
                    yield path, path.lstat()

    def _remove_unfinished(self) -> None:
        """Remove what processes have left that were killed: nobody holds the lock on it."""
        for path in self._folder.glob(f"*{_UNFINISHED}"):
            with contextlib.suppress(OSError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


class NewEntry:
    """An entry that is being written. Whoever has it calls `close`.

    Attributes:
        file: its file. A process that makes a clip writes there itself.
    """

    def __init__(self, cache: PlaybackCache, path: Path | None, unfinished: Path | None) -> None:
        self._cache = cache
        self._path = path
        self._unfinished = unfinished
        self._size = 0
        self._room = 0
        if unfinished is None:
            with tempfile.TemporaryFile(buffering=0) as file:
                self.file = io.FileIO(os.dup(file.fileno()), "r+")
        else:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self.file = io.FileIO(os.open(unfinished, flags, 0o600), "r+")
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def write(self, data: bytes) -> bool:
        """Add bytes. → Whether the entry can go on: it fits, and the disk takes it."""
        self._size += len(data)
        if self._size > self._cache.max_entry_bytes:
            return False
        try:
            if self._size > self._room:
                step = min(_STEP_BYTES, self._cache.max_bytes // _MOST_STEPS)
                self._room = self._size + step
                self._cache.make_room(len(data) + step)
            view = memoryview(data)
            while view:
                view = view[self.file.write(view) :]
        except OSError:
            return False
        return True

    def finish(self, size: int, media_type: str) -> StoredFile:
        """The content is whole: store it if it fits. → It, open; the entry need not be closed then.

        Args:
            size: its length in bytes. What the file has beyond that is cut off.
            media_type: its content type.

        Raises:
            OSError: the file cannot be read or written.
        """
        self.file.truncate(size)
        if self._unfinished is not None and self._path is not None:
            if size <= self._cache.max_entry_bytes:
                self._store(size, media_type)
            else:
                self._unfinished.unlink(missing_ok=True)
        self._unfinished = None
        return StoredFile(self.file, size, media_type)

    def _store(self, size: int, media_type: str) -> None:
        try:
            self._cache.make_room(_FOOTER_BYTES)
            os.pwrite(self.file.fileno(), _footer(size, media_type), size)
            os.fsync(self.file.fileno())
            if self._unfinished is not None and self._path is not None:
                self._unfinished.rename(self._path)
        except OSError as error:
            logger.warning("%s could not be stored: %s", self._path, error.strerror or error)
            if self._unfinished is not None:
                self._unfinished.unlink(missing_ok=True)

    def close(self) -> None:
        """Give it up."""
        if self._unfinished is not None:
            self._unfinished.unlink(missing_ok=True)
        self.file.close()


def _footer(size: int, media_type: str) -> bytes:
    text = json.dumps({"bytes": size, "media_type": media_type})
    return text.encode("ascii").ljust(_FOOTER_BYTES - 1) + b"\n"


def _read_footer(file: io.FileIO) -> StoredFile | None:
    """What the end of a file says of it; None where it is no whole entry."""
    try:
        size = os.fstat(file.fileno()).st_size - _FOOTER_BYTES
        found = json.loads(os.pread(file.fileno(), _FOOTER_BYTES, max(0, size)))
        media_type = found["media_type"]
        if size <= 0 or found["bytes"] != size or not isinstance(media_type, str):
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return StoredFile(file, size, media_type)
