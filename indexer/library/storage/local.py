"""Files of libraries that lie in folders of this computer, or on shares that are mounted."""

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from indexer.library.storage.base import MANIFEST_FILE, ChangedError, TablePlace
from model.runtime.faults import checkpoint
from model.runtime.files import flush, replacing, sha256_of, sha256_once

_BLOCK_BYTES = 1 << 20


class LocalStorage:
    """See `Storage`."""

    is_local = True

    def reading(self) -> AbstractContextManager[None]:
        """See `Storage`: a disk is always asked."""
        return nullcontext()

    def read(self, path: Path) -> bytes:
        """See `Storage`."""
        return path.read_bytes()

    def read_marked(self, path: Path) -> tuple[bytes, str] | None:
        """See `Storage`."""
        while (mark := self.mark(path)) is not None:
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                continue
            if self.mark(path) == mark:
                return data, mark
        return None

    def blocks(self, path: Path) -> Iterator[bytes]:
        """See `Storage`."""
        with path.open("rb", buffering=0) as file:
            while block := file.read(_BLOCK_BYTES):
                yield block

    def sha256(self, path: Path) -> str:
        """See `Storage`."""
        return sha256_of(path)

    def sha256_once(self, path: Path) -> str:
        """See `Storage`."""
        return sha256_once(path)

    def size(self, path: Path) -> int:
        """See `Storage`."""
        return path.stat().st_size

    def mark(self, path: Path) -> str | None:
        """See `Storage`."""
        try:
            stat = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return f"{stat.st_ino} {stat.st_mtime_ns} {stat.st_size}"

    def names(self, folder: Path) -> list[str]:
        """See `Storage`."""
        try:
            return sorted(path.name for path in folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def files(self, folder: Path) -> dict[Path, int]:
        """See `Storage`. What is removed meanwhile does not count."""
        found = {}
        for path in sorted(folder.rglob("*")):
            try:
                if path.is_file():
                    found[path] = path.lstat().st_size
            except OSError:
                continue
        return found

    def write(self, path: Path, data: bytes, *, step: str | None = None) -> None:
        """See `Storage`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, step=step) as temporary:
            temporary.write_bytes(data)

    def write_if(self, path: Path, data: bytes, mark: str | None) -> str:
        """See `Storage`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if self.mark(path) != mark:
                raise ChangedError(f"{path} was written by another process meanwhile")
            with replacing(path, shared=True) as temporary:
                temporary.write_bytes(data)
            return self.mark(path) or ""
        finally:
            os.close(handle)

    def remove(self, path: Path) -> None:
        """See `Storage`."""
        path.unlink(missing_ok=True)

    def remove_folder(self, folder: Path) -> None:
        """See `Storage`."""
        if folder.exists():
            shutil.rmtree(folder)

    def flush(self, paths: Iterable[Path], top: Path) -> None:
        """See `Storage`."""
        written = list(paths)
        for path in written:
            flush(path)
        folders = {folder for path in written for folder in path.parents if folder.is_relative_to(top)}
        for folder in sorted(folders | {top}, reverse=True):
            flush(folder)

    def reserve(self, folder: Path) -> bool:
        """See `Storage`. Who writes the library holds its lock, so nobody else takes the place."""
        return not folder.exists()

    def snapshots(self, folder: Path) -> list[str]:
        """See `Storage`. Folders get their places when they are complete."""
        return [name for name in self.names(folder) if not name.startswith(".") and (folder / name).is_dir()]

    def place_folder(self, complete: Path, folder: Path, same: Mapping[str, Path]) -> None:  # noqa: ARG002
        """See `Storage`."""
        checkpoint("publish.fsync")
        flush(complete / MANIFEST_FILE)
        flush(complete)
        checkpoint("publish.rename")
        complete.rename(folder)
        checkpoint("publish.renamed")
        flush(folder.parent)
        flush(folder.parent.parent)

    def set_aside(self, folder: Path) -> Path:
        """See `Storage`."""
        aside = folder.with_name(f".{folder.name}.removed")
        folder.rename(aside)
        return aside

    def leftovers(self, folder: Path) -> list[Path]:
        """See `Storage`. Their names begin with a dot."""
        return [folder / name for name in self.names(folder) if name.startswith(".")]

    def bring(self, folder: Path, files: Mapping[str, tuple[str, int]]) -> None:
        """See `Storage`. They are there."""

    def writing(self, library: Path) -> AbstractContextManager[None]:  # noqa: ARG002
        """See `Storage`. The lock of processes is enough."""
        return nullcontext()

    def writer(self, library: Path) -> str | None:  # noqa: ARG002
        """See `Storage`. The lock of processes names it."""
        return None

    def check_writing(self) -> None:
        """See `Storage`. The kernel does not give the lock to another process."""

    def serve(self, path: Path, text: str, *, step: str) -> None:
        """See `Storage`."""
        self.write(path, text.encode(), step=step)

    def table(self, path: Path) -> TablePlace:
        """See `Storage`."""
        return TablePlace(str(path))
