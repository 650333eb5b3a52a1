"""Files of a library in an object store, with copies of the small ones in its working folder.

What must happen as one step is one conditional write: a snapshot is there when its manifest is, `CURRENT` is
replaced only if it is as its writer left it. It names the token of that writer too, and a process that gets
the right to write writes it again with its own token. So a process that was taken over, and does not know it
yet, cannot publish any more.
"""

import fcntl
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

from indexer.library.breaker import CircuitBreaker
from indexer.library.errors import BusyError, LibraryError, StoreAwayError, store_away
from indexer.library.storage.base import (
    CURRENT,
    MANIFEST_FILE,
    SNAPSHOTS,
    ChangedError,
    TablePlace,
    missing,
)
from indexer.library.storage.lease import LEASE_FILE, WriterLease, lease_holder
from model.runtime.faults import checkpoint, reach
from model.runtime.files import link_or_copy, replacing, sha256_once
from model.runtime.remote.address import Address
from model.runtime.remote.client import connect, is_refused, lance_options, reason_of

_BLOCK_BYTES = 8 << 20
_TRANSFERS = 4
#: After which pauses, in seconds, a request is made again that its client has given up, or cannot repeat.
_PAUSES = (0.2,)
#: How long a read takes until it is given up, and how long reads are refused at most after that.
_READ_SECONDS, _LONGEST_REFUSAL = 30.0, 5.0
#: A snapshot's place is taken by this object before its files are written.
_RESERVED = "reserved"
_MOST_CHECKSUMS = 4096

T = TypeVar("T")


class ObjectStorage:
    """See `Storage`. There is one of it for each library in a process.

    Args:
        address: where the library is.
        endpoint: the address of the server; empty: the usual one.
        folder: the working folder.
    """

    is_local = False

    def __init__(self, address: Address, endpoint: str, folder: Path) -> None:
        self.address = address
        self._folder = folder
        self._store = connect(address, endpoint)
        self._breaker = CircuitBreaker(StoreAwayError, str(address), longest_seconds=_LONGEST_REFUSAL)
        self._lance_options = lance_options(address, endpoint)
        self._checksums: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()
        self._lease: WriterLease | None = None
        #: Of `CURRENT`, while the lease is held.
        self._current_mark: str | None = None

    def reading(self) -> AbstractContextManager[None]:
        """See `Storage`."""
        return self._breaker.call(_READ_SECONDS)

    def read(self, path: Path) -> bytes:
        """See `Storage`."""
        found = self.read_marked(path)
        if found is None:
            raise missing(path)
        return found[0]

    def read_marked(self, path: Path) -> tuple[bytes, str] | None:
        """See `Storage`."""

        def get() -> tuple[bytes, str]:
            answer = obstore.get(self._store, self._key(path))
            return bytes(answer.bytes()), _mark_of(answer.meta)

        try:
            return self._again(path, get)
        except FileNotFoundError:
            return None

    def blocks(self, path: Path) -> Iterator[bytes]:
        """See `Storage`. If the file is replaced meanwhile, an OSError is raised."""
        size, etag = self._head(path)
        for start in range(0, size, _BLOCK_BYTES):
            yield self._block(path, start, min(size, start + _BLOCK_BYTES), etag)

    def sha256(self, path: Path) -> str:
        """See `Storage`."""
        digest = hashlib.sha256()
        for block in self.blocks(path):
            digest.update(block)
        return digest.hexdigest()

    def sha256_once(self, path: Path) -> str:
        """See `Storage`. Of a file that is copied here, that of the copy."""
        if self._is_copied(path):
            return sha256_once(path)
        key = (self._key(path), self._head(path)[1])
        found = self._checksums.get(key)
        if found is None:
            found = self.sha256(path)
            with self._lock:
                while len(self._checksums) >= _MOST_CHECKSUMS:
                    self._checksums.pop(next(iter(self._checksums)))
                self._checksums[key] = found
        return found

    def size(self, path: Path) -> int:
        """See `Storage`. Of a file that is copied here, that of the copy."""
        return path.stat().st_size if self._is_copied(path) else self._head(path)[0]

    def mark(self, path: Path) -> str | None:
        """See `Storage`."""
        try:
            return self._again(path, lambda: _mark_of(obstore.head(self._store, self._key(path))))
        except FileNotFoundError:
            return None

    def names(self, folder: Path) -> list[str]:
        """See `Storage`."""
        prefix = self._prefix(folder)

        def listed() -> list[str]:
            found = obstore.list_with_delimiter(self._store, prefix)
            paths = [*found["common_prefixes"], *(each["path"] for each in found["objects"])]
            return sorted({path.rstrip("/").rpartition("/")[2] for path in paths})

        return self._again(folder, listed)

    def files(self, folder: Path) -> dict[Path, int]:
        """See `Storage`."""

        def listed() -> dict[Path, int]:
            return {
                self._folder / each["path"]: each["size"]
                for batch in obstore.list(self._store, self._prefix(folder))
                for each in batch
            }

        return self._again(folder, listed)

    def write(self, path: Path, data: bytes, *, step: str | None = None) -> None:
        """See `Storage`."""
        reach(step, "write")
        self._again(path, lambda: obstore.put(self._store, self._key(path), data, use_multipart=False))
        reach(step, "renamed")

    def write_if(self, path: Path, data: bytes, mark: str | None) -> str:
        """See `Storage`.

        Where the answer to a write was lost, it is made again, and refused since it has been made: then what
        is there is equal.
        """
        mode: Any = "create" if mark is None else _of_mark(mark)
        key = self._key(path)
        try:
            return self._again(
                path,
                lambda: _mark_of(obstore.put(self._store, key, data, mode=mode, use_multipart=False)),
            )
        except (AlreadyExistsError, PreconditionError, FileNotFoundError) as error:
            found = self.read_marked(path)
            if found is not None and found[0] == data:
                return found[1]
            raise ChangedError(f"{path} was written by another process meanwhile") from error

    def remove(self, path: Path) -> None:
        """See `Storage`. A copy here goes too."""
        self._delete(path, [self._key(path)])
        path.unlink(missing_ok=True)

    def remove_folder(self, folder: Path) -> None:
        """See `Storage`. What says that a folder is complete goes first."""
        if not self._key(folder):
            raise ValueError(f"{folder} is the library itself")
        found = sorted(self.files(folder), key=lambda path: path.name != MANIFEST_FILE)
        for first, last in ((0, 1), (1, len(found))):
            self._delete(folder, [self._key(path) for path in found[first:last]])
        if folder.is_dir():
            shutil.rmtree(folder, ignore_errors=True)

    def flush(self, paths: Iterable[Path], top: Path) -> None:
        """See `Storage`. An object that was written is there."""

    def reserve(self, folder: Path) -> bool:
        """See `Storage`."""
        token = self._lease.token if self._lease else 0
        try:
            self.write_if(folder / _RESERVED, f"{token} {os.urandom(8).hex()}\n".encode(), None)
        except ChangedError:
            return False
        return True

    def snapshots(self, folder: Path) -> list[str]:
        """See `Storage`."""
        return [path.parent.name for path in self.files(folder) if path.name == MANIFEST_FILE]

    def place_folder(self, complete: Path, folder: Path, same: Mapping[str, Path]) -> None:
        """See `Storage`. The copy stays here."""
        names = sorted(path.name for path in complete.iterdir())
        for name in names:
            if name == MANIFEST_FILE:
                continue
            checkpoint("publish.upload")
            self._store_file(complete / name, folder / name, same.get(name))
        self.check_writing()
        checkpoint("publish.rename")
        self.write_if(folder / MANIFEST_FILE, (complete / MANIFEST_FILE).read_bytes(), None)
        checkpoint("publish.renamed")
        folder.mkdir(exist_ok=True)
        for name in names:
            (complete / name).replace(folder / name)
        complete.rmdir()

    def set_aside(self, folder: Path) -> Path:
        """See `Storage`. It stays where it is, without its manifest."""
        self.remove(folder / MANIFEST_FILE)
        return folder

    def leftovers(self, folder: Path) -> list[Path]:
        """See `Storage`. Of the copies here, the names of those that are being written begin with a dot."""
        complete = self.snapshots(folder)
        incomplete = [folder / name for name in self.names(folder) if name not in complete]
        written = [copy for copy in folder.iterdir() if copy.name.startswith(".")] if folder.is_dir() else []
        return incomplete + written

    def bring(self, folder: Path, files: Mapping[str, tuple[str, int]]) -> None:
        """See `Storage`."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, (sha256, size) in files.items():
            path = folder / name
            if _is_equal(path, sha256, size):
                continue
            with replacing(path, shared=True) as new:
                twin = next((p for p in folder.parent.glob(f"*/{name}") if _is_equal(p, sha256, size)), None)
                if twin is not None:
                    link_or_copy(twin, new)
                else:
                    self._fetch(path, new)
                    if not _is_equal(new, sha256, size):
                        raise OSError(0, "it differs from its manifest", os.fspath(path))
        manifest = self.read(folder / MANIFEST_FILE)
        path = folder / MANIFEST_FILE
        if not path.exists() or path.read_bytes() != manifest:
            # Who holds the copy holds its inode: it is written only if it is another one.
            with replacing(path, shared=True) as new:
                new.write_bytes(manifest)
            self._forget_copies(folder.parent)

    @contextmanager
    def writing(self, library: Path) -> Iterator[None]:
        """See `Storage`."""
        if self._lease is not None:
            raise BusyError(
                f"the library at {library} is being written by this process: wait until it is done"
            )
        current = library / CURRENT
        if self.mark(library / LEASE_FILE) is None:
            self._check_conditions(library)
        self._lease = lease = WriterLease(self, library / LEASE_FILE, library)
        try:
            self._fence(current, lease.token)
            yield
        finally:
            self._lease = None
            lease.release()

    def writer(self, library: Path) -> str | None:
        """See `Storage`."""
        return lease_holder(self, library / LEASE_FILE)

    def check_writing(self) -> None:
        """See `Storage`."""
        if self._lease is not None:
            self._lease.check()

    def serve(self, path: Path, text: str, *, step: str) -> None:
        """See `Storage`."""
        if self._lease is None:
            raise ValueError("the library is not held for writing")
        self._lease.check()
        reach(step, "write")
        data = f"{text.strip()} {self._lease.token}\n".encode()
        self._current_mark = self.write_if(path, data, self._current_mark)
        reach(step, "renamed")

    def table(self, path: Path) -> TablePlace:
        """See `Storage`."""
        key = self._key(path)
        return TablePlace(f"{self.address}/{key}", self._lance_options)

    def _forget_copies(self, folder: Path) -> None:
        """Remove the copies of snapshots that are gone, unless a process of this computer reads them."""
        kept = self.snapshots(folder)
        for copy in folder.iterdir():
            if copy.name.isdecimal() and copy.name not in kept and _is_unread(copy / MANIFEST_FILE):
                shutil.rmtree(copy, ignore_errors=True)

    def _fence(self, current: Path, token: int) -> None:
        """Write `CURRENT` again with this writer's token, so that no writer before can replace it."""
        for _ in range(5):
            found = self.read_marked(current)
            if found is None:
                self._current_mark = None
                return
            words = found[0].split()
            text = words[0].decode("utf-8", "replace") if words else ""
            if not text.isdecimal():
                # It is damaged: whoever reads it says so, and a rollback replaces it.
                self._current_mark = found[1]
                return
            with suppress(ChangedError):
                self._current_mark = self.write_if(current, f"{text} {token}\n".encode(), found[1])
                return
        raise BusyError(f"{current} is being replaced by several processes: try again")

    def _check_conditions(self, library: Path) -> None:
        """Raise a LibraryError unless the store keeps the condition of a write."""
        path = library / f".condition-{os.urandom(8).hex()}"
        try:
            first = self.write_if(path, b"1", None)
            self.write_if(path, b"2", first)
            for name, mark in (("If-None-Match", None), ("If-Match", first)):
                try:
                    self.write_if(path, b"3", mark)
                except ChangedError:
                    continue
                raise LibraryError(
                    f"the store of {library} ignores the condition {name} of a write, so that two writers "
                    "would overwrite each other: use a server that keeps such conditions"
                )
        finally:
            self.remove(path)

    def _store_file(self, source: Path, path: Path, same: Path | None) -> None:
        if same is not None:
            with suppress(OSError, StoreAwayError):
                self._again(path, lambda: obstore.copy(self._store, self._key(same), self._key(path)))
                return
        self._again(path, lambda: obstore.put(self._store, self._key(path), source))

    def _fetch(self, path: Path, target: Path) -> None:
        size, etag = self._head(path)
        with target.open("wb") as file:
            file.truncate(size)

            def part(start: int) -> None:
                block = self._block(path, start, min(size, start + _BLOCK_BYTES), etag)
                os.pwrite(file.fileno(), block, start)

            with ThreadPoolExecutor(_TRANSFERS) as pool:
                list(pool.map(part, range(0, size, _BLOCK_BYTES)))

    def _block(self, path: Path, start: int, stop: int, etag: str) -> bytes:
        def get() -> bytes:
            options: Any = {"range": (start, stop), **({"if_match": etag} if etag else {})}
            block = bytes(obstore.get(self._store, self._key(path), options=options).bytes())
            if len(block) != stop - start:
                raise BaseError(f"{len(block)} bytes of {stop - start} have come")
            return block

        try:
            return self._again(path, get)
        except PreconditionError as error:
            raise OSError(0, "it was replaced while it was read", os.fspath(path)) from error

    def _delete(self, path: Path, keys: list[str]) -> None:
        if keys:
            with suppress(FileNotFoundError):
                self._again(path, lambda: obstore.delete(self._store, keys))

    def _head(self, path: Path) -> tuple[int, str]:
        found = self._again(path, lambda: obstore.head(self._store, self._key(path)))
        return found["size"], found["e_tag"] or ""

    def _again(self, path: Path, request: Callable[[], T]) -> T:
        """Make a request, and again if it fails for a reason that may pass."""
        pauses = list(_PAUSES)
        while True:
            try:
                return request()
            except (AlreadyExistsError, PreconditionError):
                raise
            except FileNotFoundError as error:
                raise missing(path) from error
            except BaseError as error:
                if is_refused(error) or not pauses:
                    raise store_away(path, reason_of(error)) from error
            time.sleep(pauses.pop(0))

    def _key(self, path: Path) -> str:
        key = path.relative_to(self._folder).as_posix()
        return "" if key == "." else key

    def _prefix(self, folder: Path) -> str | None:
        key = self._key(folder)
        return f"{key}/" if key else None

    def _is_copied(self, path: Path) -> bool:
        return path.parent.parent.name == SNAPSHOTS and path.exists()


def _mark_of(meta: Any) -> str:
    return f"{meta.get('e_tag') or ''}\n{meta.get('version') or ''}"


def _of_mark(mark: str) -> dict[str, str]:
    etag, _, version = mark.partition("\n")
    return {name: value for name, value in (("e_tag", etag), ("version", version)) if value}


def _is_equal(path: Path, sha256: str, size: int) -> bool:
    try:
        return path.stat().st_size == size and sha256_once(path) == sha256
    except OSError:
        return False


def _is_unread(manifest: Path) -> bool:
    """Whether no process of this computer holds a copy of a snapshot; see `indexer.library.leases`."""
    try:
        handle = os.open(manifest, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(handle)
