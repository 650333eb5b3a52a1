"""Paths of files that are read by byte ranges: `s3://bucket/name`, `https://host/name`.

This module imports nothing but the standard library, so that a decoding process starts fast.
"""

import hashlib
import io
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path, PosixPath
from typing import Any, NamedTuple, Protocol

from model.runtime.errors import InputError
from model.runtime.messages import shorten
from model.runtime.remote.address import SCHEMES, is_bucket

WEB_SCHEMES = ("https", "http")
_REMOTE = re.compile(rf"({'|'.join([*SCHEMES, *WEB_SCHEMES])}):/", re.IGNORECASE)
_HOST = re.compile(r"[a-z0-9.\[\]:_-]+")
#: What is asked for at once where a reader asks for little.
_BUFFER_BYTES = 256 << 10


class RemoteFacts(NamedTuple):
    """What a server says of a file.

    Attributes:
        bytes: its size.
        mtime_ns: when it was modified, in nanoseconds since 1970; 0: the server does not say.
    """

    bytes: int
    mtime_ns: int


class RangeSource(Protocol):
    """Reads one file by byte ranges."""

    def look(self) -> RemoteFacts:
        """Ask the server for the file's facts as they are now.

        Raises:
            FileNotFoundError: there is no such file.
            OSError: the server does not say.
        """

    @property
    def size(self) -> int:
        """The file's size in bytes when its facts were asked for first. Raises as `look`."""
        ...

    def read(self, start: int, count: int) -> bytes:
        """The bytes from `start` on: `count` of them, or fewer at the end of the file.

        Raises:
            OSError: they cannot be read, or the file has changed since its facts were asked for first.
        """


class RemotePath(PosixPath):
    """The address of a file, or of all files whose names begin so, where a `Path` is expected.

    It can be looked at and read, no more. Its parts, name and parents are those of a path; as text it is the
    address. Nothing is resolved: an address is its own real path.
    """

    __slots__ = ()

    def __str__(self) -> str:
        scheme, _, rest = super().__str__().partition("/")
        return f"{scheme}//{rest.removeprefix('/')}"

    def __fspath__(self) -> str:
        return str(self)

    @property
    def scheme(self) -> str:
        """What the address begins with, such as `s3`."""
        return self.parts[0].removesuffix(":")

    @property
    def is_web(self) -> bool:
        """Whether it is on a web server, which lists no files."""
        return self.scheme in WEB_SCHEMES

    def is_absolute(self) -> bool:
        """An address is."""
        return True

    def absolute(self) -> "RemotePath":
        """The address."""
        return self

    def resolve(self, strict: bool = False) -> "RemotePath":
        """The address, whether there is anything or not."""
        del strict
        return self

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Ask the server what the file is like. Raises as `RangeSource.look`."""
        del follow_symlinks
        return status_of(self, source_of(self).look())

    def lstat(self) -> os.stat_result:
        """As `stat`: there are no links."""
        return self.stat()

    def is_dir(self) -> bool:
        """Whether it is no file, and there are files whose names begin so. A web server lists none.

        Raises:
            OSError: the store does not say.
        """
        if self.is_web:
            return False
        try:
            self.stat()
        except FileNotFoundError:
            from model.runtime.remote.store import has_files

            return has_files(self)
        return False

    def is_symlink(self) -> bool:
        """There are no links."""
        return False

    def open(self, mode: str = "r", buffering: int = -1, *_: Any, **__: Any) -> Any:
        """Open the file for reading bytes.

        Raises:
            OSError: as `RangeSource.look`.
            ValueError: the mode is another one than `rb`.
        """
        if mode != "rb":
            raise ValueError(f"{self} can be read as bytes only, not opened with the mode {mode!r}")
        source = source_of(self)
        raw = RangedFile(source, source.size, self.name)
        return raw if buffering == 0 else io.BufferedReader(raw, max(buffering, _BUFFER_BYTES))


#: Sources that this process was given, by address.
_provided: dict[str, RangeSource] = {}


def provide(path: RemotePath, source: RangeSource) -> None:
    """Let this process read a file from a source. A confined process can reach no other."""
    _provided[str(path)] = source


def source_of(path: RemotePath) -> RangeSource:
    """What reads a file: the source that was given, else its server."""
    found = _provided.get(str(path))
    if found is not None:
        return found
    # Loaded here: the client takes time to load, and a process with a source needs none.
    from model.runtime.remote.store import StoreSource

    return StoreSource(path)


def media_path(stored: str | bytes | Path) -> Path:
    """The path of a media file or folder from how it is stored or written: a `RemotePath` for an address."""
    if isinstance(stored, RemotePath):
        return stored
    text = os.fsdecode(stored)
    # Made a path by others, an address has lost a slash.
    return RemotePath(text) if _REMOTE.match(text) else Path(text)


def real_path(named: str | Path) -> Path:
    """The path with links resolved; an address is its own. Nothing need be there."""
    path = media_path(named)
    return path if isinstance(path, RemotePath) else Path(os.path.realpath(path))


def is_remote_text(text: str) -> bool:
    """Whether a text is the address of media, not a path."""
    return _REMOTE.match(text) is not None


def parse_remote(text: str) -> RemotePath:
    """Read the address of a media file, or of a prefix of names.

    Raises:
        InputError: it is none, or holds a key or a password.
    """
    scheme, _, rest = text.partition(":")
    scheme = scheme.lower()
    host, _, name = rest.removeprefix("/").removeprefix("/").partition("/")
    name = name.rstrip("/")
    segments = name.split("/") if name else []
    problem = None
    if scheme in WEB_SCHEMES:
        host = host.lower()
        if "@" in host or "?" in text or "#" in text:
            problem = "it may hold no user, no password and no `?`: what is in the library is shown to others"
        elif _HOST.fullmatch(host) is None or not segments:
            problem = "an address on a web server is https://HOST/FILE"
    elif not is_bucket(host):
        problem = f"{shorten(host)} is no name of a bucket"
    if problem is None and {"", ".", ".."} & set(segments):
        problem = "a name in it is empty, or is `.` or `..`"
    if problem is None and any(ord(character) < 32 for character in text):
        problem = "it holds a control character"
    if problem is not None:
        raise InputError(f"{text!r} is no address of videos: {problem}")
    return RemotePath("/".join([f"{scheme}:", host, *segments]))


def status_of(path: RemotePath, facts: RemoteFacts) -> os.stat_result:
    """The facts of a remote file as the system tells those of a file here.

    The device stands for the bucket or the server, and the inode for the name.
    """
    numbers = (stat.S_IFREG | 0o444, _number(str(path)), _number("/".join(path.parts[:2])), 1, 0, 0)
    times = {"st_atime_ns": facts.mtime_ns, "st_mtime_ns": facts.mtime_ns, "st_ctime_ns": facts.mtime_ns}
    seconds = facts.mtime_ns / 1e9
    floats = {"st_atime": seconds, "st_mtime": seconds, "st_ctime": seconds}
    whole = int(seconds)
    return os.stat_result((*numbers, facts.bytes, whole, whole, whole), times | floats)


class RangedFile(io.RawIOBase):
    """A remote file, open for reading bytes.

    Args:
        source: reads it.
        size: its size in bytes.
        name: its name, which says something of its format.
    """

    def __init__(self, source: RangeSource, size: int, name: str) -> None:
        super().__init__()
        self._source, self._size = source, size
        self._position = 0
        self.name = name

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position, which may lie behind the end."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError(22, "there is nothing before the start of a file")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as the file goes. Raises as `RangeSource.read`."""
        view = memoryview(buffer).cast("B")
        data = self._source.read(self._position, min(len(view), max(0, self._size - self._position)))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def pread(self, count: int, start: int) -> bytes:
        """The bytes from `start` on, without moving the position. Raises as `RangeSource.read`."""
        return self._source.read(start, count)


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:7], "big")


def parents_of(path: RemotePath) -> Iterator[RemotePath]:
    """The prefixes above a path, down from the bucket or the server."""
    for count in range(2, len(path.parts)):
        yield RemotePath(*path.parts[:count])
