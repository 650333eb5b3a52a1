"""A library on disk: opening it, creating it, and the lock that lets one process write."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lance

from indexer.library.errors import BusyError, LibraryError, storage_errors
from indexer.library.manifest import CURRENT, SNAPSHOTS
from indexer.library.schema import TABLES, Layout, TokenKind
from indexer.library.snapshot import Snapshot
from indexer.library.tables import open_table, table_path
from model.runtime.bundle import Bundle
from model.runtime.errors import InputError
from model.runtime.faults import checkpoint
from model.runtime.files import flush
from model.runtime.tokens import check_count

_LOCK = "LOCK"
_OURS = {f"{name}.lance" for name in TABLES} | {CURRENT, SNAPSHOTS, _LOCK}


class Library:
    """A folder with tables and snapshots. Opening it changes nothing; `writing` takes its lock."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self.path = path
        self.layout = layout

    @classmethod
    def open(cls, path: Path | str) -> "Library":
        """Open a library that exists. LibraryError when it is missing, half-written or of another version."""
        folder = _folder(path)
        if not folder.is_dir():
            raise LibraryError(
                f"no library at {folder}: create one with `reelfind index PATH --library {folder}`"
            )
        missing = [name for name in TABLES if not _table_exists(folder, name)]
        if len(missing) == len(TABLES) and not (folder / CURRENT).exists():
            raise LibraryError(
                f"{folder} is not a library: create one with `reelfind index PATH --library {folder}`"
            )
        if missing:
            remedy = (
                "bring the table back from a copy, or index into a new folder"
                if (folder / CURRENT).exists()
                else "run `reelfind index` again, it continues"
            )
            raise LibraryError(f"{folder} lacks its table {missing[0]}.lance; {remedy}")
        try:
            layout = Layout.of_schema(open_table(folder, "segments").schema)
        except ValueError as error:
            raise LibraryError(
                f"{table_path(folder, 'segments')}: {error}; use the version of Reelfind that wrote it, "
                "or index into a new folder"
            ) from error
        return cls(folder, layout)

    @staticmethod
    def exists(path: Path | str) -> bool:
        """Whether a folder holds a library, whole or not."""
        return any((Path(path) / name).exists() for name in _OURS)

    @classmethod
    def open_or_create(
        cls,
        path: Path | str,
        bundle: Bundle,
        tokens: TokenKind | None = None,
        tokens_per_frame: int | None = None,
    ) -> "Library":
        """Open a library for writing with a bundle, creating it where there is none.

        Args:
            path: the library's folder.
            bundle: what it was made with, or a new one's.
            tokens: how frame tokens are stored; None: as they are already; in a new library int8, or not at
                all where the bundle has no matcher to read them.
            tokens_per_frame: how many of each frame; None: as there are already; in a new library what the
                bundle advises.

        Raises:
            LibraryError: the library is damaged, from another bundle, or the folder holds something else.
            BusyError: another process is creating or writing it.
            InputError: the library stores tokens in another way, or the bundle has no such tokens.
        """
        folder = _folder(path)
        layout = make_layout(bundle, tokens, tokens_per_frame)
        if not (folder / CURRENT).exists():
            _create(folder, layout)
        library = cls.open(folder)
        library.check_bundle(bundle)
        library.check_tokens(tokens, tokens_per_frame)
        return library

    def check_tokens(self, tokens: TokenKind | None, tokens_per_frame: int | None) -> None:
        """Refuse to store tokens in another way than the library does. None asks for nothing."""
        ours = self.layout
        for field, wanted, stored in (
            ("tokens", tokens, ours.tokens),
            ("tokens_per_frame", tokens_per_frame, ours.tokens_per_frame),
        ):
            if wanted is not None and wanted != stored:
                raise InputError(
                    f"{field} is {wanted}, but the library at {self.path} was made with {stored}: "
                    "leave the option out, or index into a new folder",
                    field=field,
                )

    def check_bundle(self, bundle: Bundle) -> None:
        """Refuse a bundle other than the library's: their vectors cannot be compared."""
        ours = self.layout
        if ours.bundle_checksum != bundle.checksum:
            raise LibraryError(
                f"the library at {self.path} was made with the bundle {ours.bundle_name!r} "
                f"({ours.bundle_checksum[:12]}), not with {bundle.manifest.name!r} ({bundle.checksum[:12]}): "
                "name its bundle with `bundle`, or index into a new folder"
            )

    def current(self) -> Snapshot:
        """Open the snapshot that is served. LibraryError with the remedy when there is none."""
        return Snapshot.open(self.path)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the library's lock. BusyError names the process that has it."""
        with lock_library(self.path):
            yield


def make_layout(bundle: Bundle, tokens: TokenKind | None, tokens_per_frame: int | None) -> Layout:
    """The layout of a new library, see `Library.open_or_create`. InputError when it cannot be."""
    manifest = bundle.manifest
    sizes = manifest.tokens if "match" in bundle.capabilities else None
    kind: TokenKind = tokens or ("none" if sizes is None else "int8")
    count = width = 0
    if kind != "none":
        if sizes is None:
            raise InputError(
                f"tokens is {kind}, but the bundle {manifest.name!r} has no matcher to read tokens: "
                "leave the option out, or choose a bundle with a matcher",
                field="tokens",
            )
        count = sizes.stored_tokens_per_frame if tokens_per_frame is None else tokens_per_frame
        width = sizes.hidden_dim
        try:
            check_count(count, sizes.tokens_per_frame)
        except ValueError as error:
            raise InputError(f"tokens_per_frame: {error}", field="tokens_per_frame") from error
    elif tokens_per_frame is not None:
        why = "`tokens` is none" if tokens else f"the bundle {manifest.name!r} has no matcher"
        raise InputError(
            f"tokens_per_frame is {tokens_per_frame}, but {why}: leave the option out",
            field="tokens_per_frame",
        )
    return Layout(
        bundle_checksum=bundle.checksum,
        bundle_name=manifest.name,
        embedding_dim=manifest.embedding_dim,
        salience_dim=manifest.salience_dim,
        frames_per_segment=manifest.frames_per_segment,
        tokens=kind,
        tokens_per_frame=count,
        token_dim=width,
    )


def _folder(path: Path | str) -> Path:
    folder = Path(os.path.abspath(path))  # noqa: PTH100  Path.absolute keeps `..`
    try:
        os.fspath(folder).encode("utf-8")
    except UnicodeEncodeError as error:
        raise LibraryError(
            f"the library's path {os.fspath(folder)!r} is not UTF-8: choose another name"
        ) from error
    return folder


def _table_exists(folder: Path, name: str) -> bool:
    return any((table_path(folder, name) / "_versions").glob("*.manifest"))


def _create(folder: Path, layout: Layout) -> None:
    """Create a library, or complete one whose creation was cut short."""
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        foreign = sorted(p.name for p in folder.iterdir() if p.name not in _OURS and p.name[0] != ".")
    if foreign and foreign != ["lost+found"]:
        raise LibraryError(
            f"{folder} is not a library and not empty (it holds {foreign[0]!r}): choose another folder"
        )
    with lock_library(folder):
        _clear_unlike(folder, layout)
        for name in reversed(TABLES):
            if not _table_exists(folder, name):
                checkpoint(f"create.{name}")
                with storage_errors(table_path(folder, name)):
                    empty = layout.schema(name).empty_table()
                    lance.write_dataset(empty, str(table_path(folder, name)), mode="create")
        (folder / SNAPSHOTS).mkdir(exist_ok=True)
        checkpoint("create.done")
        flush(folder)


def _clear_unlike(folder: Path, layout: Layout) -> None:
    """Remove tables of another layout that an unfinished creation left: only where no table has a row."""
    tables = {name: open_table(folder, name) for name in TABLES if _table_exists(folder, name)}
    if any(table.count_rows() for table in tables.values()):
        return
    for name, table in tables.items():
        if not table.schema.equals(layout.schema(name), check_metadata=True):
            with storage_errors(table_path(folder, name)):
                shutil.rmtree(table_path(folder, name))


@contextmanager
def lock_library(folder: Path) -> Iterator[None]:
    """Hold the lock of the library in `folder`. BusyError names the process that has it."""
    path = folder / _LOCK
    with storage_errors(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.pread(handle, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise BusyError(
                f"the library at {folder} is being written by process {pid}: wait until it is done"
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        # Closing drops the lock; the kernel does it for a killed process.
        os.close(handle)
