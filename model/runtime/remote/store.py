"""Reads files in object stores and on web servers by byte ranges, and lists them."""

from __future__ import annotations

import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import TypeVar

import obstore
from obstore.exceptions import BaseError, InvalidPathError, NotSupportedError
from obstore.store import ObjectStore

from model.runtime.errors import InputError
from model.runtime.remote.address import Address, endpoint_of
from model.runtime.remote.client import connect, connect_web, is_refused, reason_of
from model.runtime.remote.path import RemoteFacts, RemotePath

#: What is kept of files is kept in blocks: of one block, and of all of this process.
BLOCK_BYTES = 1 << 20
_KEPT_BYTES = 192 << 20
#: Blocks of one request, at most, where a file is read on and on.
_MOST_AHEAD = 4
#: A request whose answer breaks off is made again so many times.
_REPEATS = 1

T = TypeVar("T")


class StoreSource:
    """Reads one file on its server. Blocks that were read are kept for others who read the same file.

    Where a file is read on and on, more is asked for at once.

    Args:
        path: its address.
    """

    def __init__(self, path: RemotePath) -> None:
        self._path = path
        self._store, self._name = _store_of(path)
        self._facts: RemoteFacts | None = None
        self._mark = ""
        self._next, self._ahead = -1, 1

    def look(self) -> RemoteFacts:
        """See `RangeSource`."""
        facts, mark = _facts_in(self._again(lambda: obstore.head(self._store, self._name)))
        if self._facts is None:
            self._facts, self._mark = facts, mark
        return facts

    @property
    def size(self) -> int:
        """See `RangeSource`."""
        return (self._facts or self.look()).bytes

    def read(self, start: int, count: int) -> bytes:
        """See `RangeSource`."""
        stop = min(start + count, self.size)
        parts = []
        while start < stop:
            number, offset = divmod(start, BLOCK_BYTES)
            part = self._block(number)[offset : offset + stop - start]
            parts.append(part)
            start += len(part)
        return b"".join(parts)

    def _block(self, number: int) -> bytes:
        found = _kept.get(self._key(number))
        if found is not None:
            return found
        self._ahead = min(2 * self._ahead, _MOST_AHEAD) if number == self._next else 1
        blocks = self._fetch(number, self._ahead)
        self._next = number + len(blocks)
        for place, block in enumerate(blocks):
            _kept.put(self._key(number + place), block)
        return blocks[0]

    def _fetch(self, number: int, count: int) -> list[bytes]:
        start, stop = number * BLOCK_BYTES, min((number + count) * BLOCK_BYTES, self.size)

        def get() -> bytes:
            answer = obstore.get(self._store, self._name, options={"range": (start, stop)})
            _, mark = _facts_in(answer.meta)
            if mark != self._mark:
                raise OSError(errno.EIO, "it has changed while it was read", str(self._path))
            return bytes(answer.bytes())

        data = self._again(get)
        if len(data) != stop - start:
            raise OSError(errno.EIO, f"its server sends {len(data)} bytes instead of {stop - start}")
        return [data[place : place + BLOCK_BYTES] for place in range(0, len(data), BLOCK_BYTES)]

    def _key(self, number: int) -> tuple[str, str, int]:
        return str(self._path), self._mark, number

    def _again(self, ask: Callable[[], T]) -> T:
        return _asked(self._path, ask)


def list_files(folder: RemotePath) -> Iterator[tuple[RemotePath, RemoteFacts]]:
    """The files at and below a prefix of an object store, in no certain order.

    Empty ones without an extension, which some programs make for folders, are left out.

    Raises:
        OSError: the store cannot be reached, refuses, or has a name that cannot be listed. What was listed
            until then has come.
    """
    store, prefix = _store_of(folder)
    chunks = iter(obstore.list(store, prefix or None))
    while True:
        chunk = _asked(folder, lambda: next(chunks, None))
        if chunk is None:
            return
        for meta in chunk:
            facts, _ = _facts_in(meta)
            path = RemotePath("/".join([*folder.parts[:2], meta["path"]]))
            if facts.bytes or path.suffix:
                yield path, facts


def list_folder(folder: RemotePath) -> list[tuple[RemotePath, RemoteFacts]]:
    """The files in a prefix of an object store, without those in prefixes below it; none of a web server.

    Raises:
        OSError: see `list_files`.
    """
    if folder.is_web:
        return []
    store, prefix = _store_of(folder)
    metas = _asked(folder, lambda: obstore.list_with_delimiter(store, prefix or None))["objects"]
    return [(RemotePath("/".join([*folder.parts[:2], meta["path"]])), _facts_in(meta)[0]) for meta in metas]


def has_files(folder: RemotePath) -> bool:
    """Whether there is a file below a prefix. Raises as `list_files`."""
    store, prefix = _store_of(folder)
    return bool(_asked(folder, lambda: next(iter(obstore.list(store, prefix or None, chunk_size=1)), None)))


class _Kept:
    """The blocks that were read last, of all files that this process reads."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._blocks: OrderedDict[tuple[str, str, int], bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: tuple[str, str, int]) -> bytes | None:
        with self._lock:
            found = self._blocks.get(key)
            if found is not None:
                self._blocks.move_to_end(key)
            return found

    def put(self, key: tuple[str, str, int], block: bytes) -> None:
        with self._lock:
            if key not in self._blocks:
                self._blocks[key] = block
                self._bytes += len(block)
            while self._bytes > self._most_bytes:
                _, oldest = self._blocks.popitem(last=False)
                self._bytes -= len(oldest)


_kept = _Kept(_KEPT_BYTES)


def _store_of(path: RemotePath) -> tuple[ObjectStore, str]:
    """The store of an address, and the name of the file in it."""
    if path.is_web:
        return _web_store(str(path)), ""
    scheme, bucket = path.scheme, path.parts[1]
    return _bucket_store(scheme, bucket, endpoint_of(scheme)), "/".join(path.parts[2:])


@lru_cache(maxsize=64)
def _bucket_store(scheme: str, bucket: str, endpoint: str) -> ObjectStore:
    return connect(Address(scheme, bucket, ""), endpoint)


@lru_cache(maxsize=64)
def _web_store(address: str) -> ObjectStore:
    return connect_web(address)


def _facts_in(meta: obstore.ObjectMeta) -> tuple[RemoteFacts, str]:
    """What a store says of an object, and what differs where its content does."""
    modified = meta["last_modified"].replace(microsecond=0) - datetime(1970, 1, 1, tzinfo=UTC)
    mtime_ns = int(modified.total_seconds()) * 1_000_000_000
    # Servers need not repeat the time with each range.
    mark = meta["e_tag"] or str(meta["size"])
    return RemoteFacts(meta["size"], mtime_ns), mark


def _asked(path: RemotePath, ask: Callable[[], T]) -> T:
    """An answer; what a store says against it becomes an OSError in plain words."""
    for repeats_left in reversed(range(_REPEATS + 1)):
        try:
            return ask()
        except FileNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
        except NotSupportedError as error:
            text = "its server gives no ranges of bytes: download the file, and index the copy"
            raise OSError(errno.EOPNOTSUPP, text, str(path)) from error
        except InvalidPathError as error:
            text = f"a name in it cannot be read: {str(error).splitlines()[0]}"
            raise OSError(errno.EINVAL, text, str(path)) from error
        except InputError as error:
            raise OSError(errno.EINVAL, str(error), str(path)) from error
        except BaseError as error:
            if is_refused(error):
                raise PermissionError(errno.EACCES, reason_of(error), str(path)) from error
            if not repeats_left:
                raise OSError(errno.EIO, reason_of(error), str(path)) from error
    raise AssertionError("a request is made once at least")
