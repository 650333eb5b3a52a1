"""The protocol of a library's storage.

A file is named by its path in the library's folder on this computer. The folder of a library in an object
store is its *working folder*: it holds copies of the small files of snapshots, and locks. The tables are read
and written in the store.
"""

import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from indexer.library.errors import LibraryError

#: The file that names the snapshot that is served, and the folder of all snapshots.
CURRENT, SNAPSHOTS = "CURRENT", "snapshots"
#: The file that says of a snapshot's folder that it is complete.
MANIFEST_FILE = "manifest.json"


class ChangedError(LibraryError):
    """A file was to be written only if nobody else had changed it, but somebody had."""


@dataclass(frozen=True)
class TablePlace:
    """Where Lance finds a table.

    Attributes:
        uri: a path or an address.
        options: Lance's `storage_options`; None: it is a path.
    """

    uri: str
    options: dict[str, str] | None = None


class Storage(Protocol):
    """The files of one library, or of all that lie in folders. Many threads may use it at once.

    Where a file is missing, a FileNotFoundError is raised; where a disk fails, another OSError; where an
    object store cannot be reached or refuses, a StoreAwayError.
    """

    @property
    def is_local(self) -> bool:
        """Whether the files lie in the folder itself."""
        ...

    def reading(self) -> AbstractContextManager[None]:
        """Wraps a read of rows for whoever waits for them.

        Where a store has failed to answer several times, it raises StoreAwayError at once for a while.
        """
        ...

    def read(self, path: Path) -> bytes:
        """The content of a small file."""
        ...

    def read_marked(self, path: Path) -> tuple[bytes, str] | None:
        """The content of a small file and its mark, see `mark`; None: there is none."""
        ...

    def blocks(self, path: Path) -> Iterator[bytes]:
        """The content of a file of any size, in parts."""
        ...

    def sha256(self, path: Path) -> str:
        """The SHA-256 of a file in hex, read anew."""
        ...

    def sha256_once(self, path: Path) -> str:
        """As `sha256`, of a file that is written once: what this process has read it does not read again."""
        ...

    def size(self, path: Path) -> int:
        """The size of a file in bytes."""
        ...

    def mark(self, path: Path) -> str | None:
        """What changes whenever the file is written; None: there is none."""
        ...

    def names(self, folder: Path) -> list[str]:
        """The names of the files and folders in a folder, in order; empty where there is no folder."""
        ...

    def files(self, folder: Path) -> dict[Path, int]:
        """All files in a folder and in folders in it, with their sizes; empty where there is no folder."""
        ...

    def write(self, path: Path, data: bytes, *, step: str | None = None) -> None:
        """Write a small file whole: a reader sees what was there before, or all that is new.

        Args:
            path: the file. Its folder is made where there is none.
            data: its content.
            step: names the fault points around it, see `model.runtime.faults`; None: there are none.
        """
        ...

    def write_if(self, path: Path, data: bytes, mark: str | None) -> str:
        """Write a small file whole if it still has a mark. Of several who try at once, one succeeds.

        Args:
            path: the file. Its folder is made where there is none.
            data: its content.
            mark: what `mark` gave for what is to be replaced; None: there was no file.

        Returns:
            The new mark.

        Raises:
            ChangedError: the file has another mark.
        """
        ...

    def remove(self, path: Path) -> None:
        """Remove a file, if there is one."""
        ...

    def remove_folder(self, folder: Path) -> None:
        """Remove a folder with all that is in it, if there is one. Interrupted, it leaves a part of it."""
        ...

    def flush(self, paths: Iterable[Path], top: Path) -> None:
        """Make sure that files which Lance or FAISS have written survive a power cut.

        Args:
            paths: the files.
            top: a folder that they are in, and that may be new itself.
        """
        ...

    def reserve(self, folder: Path) -> bool:
        """Take the place of a new snapshot, which no other writer can take then. → Whether it was free."""
        ...

    def snapshots(self, folder: Path) -> list[str]:
        """The names of the complete folders in a folder, in any order."""
        ...

    def place_folder(self, complete: Path, folder: Path, same: Mapping[str, Path]) -> None:
        """Give a complete folder of this computer its place in the library, as one step.

        Args:
            complete: the folder, beside `folder`; it is gone afterwards.
            folder: its place, which was reserved.
            same: files of the library that are equal to some of the folder's, by the names of these.
        """
        ...

    def set_aside(self, folder: Path) -> Path:
        """Take a complete folder out of its place, as one step. → Where its files are, to be removed."""
        ...

    def leftovers(self, folder: Path) -> list[Path]:
        """The folders in a folder that never were complete, or are set aside."""
        ...

    def bring(self, folder: Path, files: Mapping[str, tuple[str, int]]) -> None:
        """Make sure that files of a snapshot's folder can be opened by their paths on this computer.

        Args:
            folder: the folder.
            files: the names of the files in it, with the SHA-256 and size of each.

        Raises:
            OSError: a file is missing, cannot be fetched, or differs.
        """
        ...

    def writing(self, library: Path) -> AbstractContextManager[None]:
        """Hold the library for writing, beyond the lock that processes of this computer take.

        Raises:
            BusyError: a process on another computer writes the library.
        """
        ...

    def writer(self, library: Path) -> str | None:
        """Which process elsewhere writes the library, such as "process 12 on 'host'"; None: none does."""
        ...

    def check_writing(self) -> None:
        """Check that the library is still held for writing.

        Raises:
            BusyError: another process has taken it over.
        """
        ...

    def serve(self, path: Path, text: str, *, step: str) -> None:
        """Replace the file that names what is served, while the library is held for writing.

        Args:
            path: the file.
            text: one line.
            step: names the fault points around it.

        Raises:
            ChangedError: another process has replaced it.
        """
        ...

    def table(self, path: Path) -> TablePlace:
        """Where Lance finds the table in a folder."""
        ...


def missing(path: Path) -> FileNotFoundError:
    """The error for a file that is not there."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))
