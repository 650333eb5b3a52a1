"""Opens and creates a library on disk."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from indexer.library.curation import CURATION_FILES
from indexer.library.errors import LibraryError, storage_errors
from indexer.library.generations import (
    generations,
    has_tables,
    remove_snapshot,
    served_generation,
    snapshots_of,
)
from indexer.library.lock import LOCK_FILE, lock_library
from indexer.library.manifest import (
    CURRENT,
    FIRST_GENERATION,
    GENERATIONS,
    SNAPSHOTS,
    generation_name,
    is_published,
    snapshot_folder,
    tables_folder,
)
from indexer.library.mounts import MOUNTS_FILE
from indexer.library.schema import FIRST_TABLES, TABLES, Layout, TokenKind
from indexer.library.snapshot import Snapshot
from indexer.library.storage.lease import LEASE_FILE
from indexer.library.storage.registry import storage_of
from indexer.library.tables import create_table, open_table, table_exists, table_path
from model.runtime.bundle import Bundle, BundleManifest
from model.runtime.errors import InputError
from model.runtime.faults import checkpoint
from model.runtime.files import flush
from model.runtime.messages import for_shell
from model.runtime.tokens import check_count

_LIBRARY_FILES = {f"{name}.lance" for name in TABLES} | {
    CURRENT,
    GENERATIONS,
    MOUNTS_FILE,
    SNAPSHOTS,
    LOCK_FILE,
    LEASE_FILE,
}
_LIBRARY_FILES |= CURATION_FILES


class Library:
    """A folder with tables and snapshots, seen with the tables of one of its generations.

    Opening it changes nothing; `writing` holds its lock.

    Attributes:
        path: the library's folder.
        layout: what the columns of the generation's tables depend on.
        generation: which generation; see `tables_folder`.
    """

    def __init__(self, path: Path, layout: Layout, generation: str = FIRST_GENERATION) -> None:
        self.path = path
        self.layout = layout
        self.generation = generation

    @property
    def tables(self) -> Path:
        """The folder of the generation's tables."""
        return tables_folder(self.path, self.generation)

    @property
    def generation_name(self) -> str:
        """What people call the generation, the first one too: the beginning of its bundle's checksum."""
        return generation_name(self.layout.bundle_checksum)

    @classmethod
    def open(cls, path: Path | str, generation: str | None = None) -> "Library":
        """Open an existing library.

        Args:
            path: the library's folder.
            generation: which of its generations; None: the one that is served.

        Raises:
            LibraryError: the library or the generation is missing, half-written, or of another version.
        """
        folder = _folder(path)
        if not cls.exists(folder) and not folder.is_dir():
            raise LibraryError(
                f"no library at {folder}: create one with `reelfind index PATH --library {for_shell(folder)}`"
            )
        if generation is None:
            generation = served_generation(folder)
        tables = tables_folder(folder, generation)
        missing = [name for name in FIRST_TABLES if not table_exists(tables, name)]
        if len(missing) == len(FIRST_TABLES) and not is_published(folder):
            raise LibraryError(
                f"{folder} is not a library: create one with "
                f"`reelfind index PATH --library {for_shell(folder)}`"
            )
        if missing:
            raise LibraryError(f"{tables} lacks its table {missing[0]}.lance; {_remedy(folder, generation)}")
        try:
            layout = Layout.of_schema(open_table(tables, "segments").schema)
        except ValueError as error:
            raise LibraryError(
                f"{table_path(tables, 'segments')}: {error}; use the version of Reelfind that wrote it, "
                "or index into a new folder"
            ) from error
        return cls(folder, layout, generation)

    @staticmethod
    def exists(path: Path | str) -> bool:
        """Whether a folder, or the prefix of an object store, holds a library, complete or not.

        Raises:
            LibraryError: the store cannot be reached.
        """
        folder = Path(path)
        with storage_errors(folder):
            return not _LIBRARY_FILES.isdisjoint(storage_of(folder).names(folder))

    @classmethod
    def open_or_create(
        cls,
        path: Path | str,
        bundle: Bundle,
        tokens: TokenKind | None = None,
        tokens_per_frame: int | None = None,
        embedding_dim: int | None = None,
    ) -> "Library":
        """Open a library for writing with a bundle: its generation of that bundle, created if there is none.

        Args:
            path: the library's folder; created if it does not exist.
            bundle: the bundle.
            tokens: how frame tokens are stored. None: as the generation stores them; in a new one int8, or
                none where no graph of the bundle reads them (it has no matcher and no answer head).
            tokens_per_frame: tokens stored per frame. None: as many as the generation stores; in a new one
                as many as the bundle recommends.
            embedding_dim: to how many dimensions embeddings of segments are cut. None: as the generation cuts
                them; in a new one not at all.

        Raises:
            LibraryError: the library is damaged, or the folder holds other files.
            BusyError: another process is creating or writing the library.
            InputError: the library stores tokens or embeddings differently, or the bundle has no such tokens
                or cannot be cut so.
        """
        folder = _folder(path)
        layout = make_layout(bundle, tokens, tokens_per_frame, embedding_dim)
        if not is_published(folder) and GENERATIONS not in storage_of(folder).names(folder):
            _create(folder, layout)
        generation = generation_of(folder, bundle.checksum)
        if generation != FIRST_GENERATION:
            _create_generation(folder, generation, layout)
        library = cls.open(folder, generation)
        library.check_bundle(bundle)
        library.check_options(tokens, tokens_per_frame, embedding_dim)
        return library

    def check_options(
        self, tokens: TokenKind | None, tokens_per_frame: int | None, embedding_dim: int | None
    ) -> None:
        """Check options against how the library stores tokens and embeddings; None fits any library.

        Raises:
            InputError: the library stores them differently.
        """
        for field, requested, stored in (
            ("tokens", tokens, self.layout.tokens),
            ("tokens_per_frame", tokens_per_frame, self.layout.tokens_per_frame),
            ("embedding_dim", embedding_dim, self.layout.embedding_dim),
        ):
            if requested is not None and requested != stored:
                raise InputError(
                    f"{field} is {requested}, but the library at {self.path} was made with {stored}: "
                    "leave the option out, or index into a new folder",
                    field=field,
                )

    def check_bundle(self, bundle: Bundle) -> None:
        """Check that the generation is this bundle's: vectors of two bundles cannot be compared.

        Raises:
            LibraryError: it was made with another one.
        """
        layout = self.layout
        if layout.bundle_checksum != bundle.checksum:
            raise LibraryError(
                f"{self.tables} was made with the bundle {layout.bundle_name!r} "
                f"({layout.bundle_checksum[:16]}), not with {bundle.manifest.name!r} "
                f"({bundle.checksum[:16]}): name its bundle with `bundle`, or index into a new folder"
            )

    def current(self) -> Snapshot:
        """Open the snapshot that is served.

        Raises:
            LibraryError: there is none, or it is damaged; the message says what to do.
        """
        return Snapshot.open(self.path)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the library's lock.

        Raises:
            BusyError: another process holds it; the message names the process.
        """
        with lock_library(self.path):
            yield


def generation_of(library: Path, bundle_checksum: str) -> str:
    """The generation of a library that has a bundle's tables, or is to get them.

    Args:
        library: the library's folder; it may hold nothing yet.
        bundle_checksum: the bundle's.

    Raises:
        LibraryError: the tables in the library itself cannot be opened.
    """
    name = generation_name(bundle_checksum)
    present = generations(library)
    if name in present:
        return name
    if present == [FIRST_GENERATION] and not is_published(library):
        return FIRST_GENERATION
    if FIRST_GENERATION in present:
        first = Library.open(library, FIRST_GENERATION)
        return FIRST_GENERATION if first.layout.bundle_checksum == bundle_checksum else name
    return name if present else FIRST_GENERATION


def make_layout(
    bundle: Bundle,
    tokens: TokenKind | None,
    tokens_per_frame: int | None,
    embedding_dim: int | None = None,
) -> Layout:
    """The layout of a new library; for the arguments, see `Library.open_or_create`.

    Raises:
        InputError: the bundle has no such tokens, or may not be cut so.
    """
    manifest = bundle.manifest
    dim = check_dim(manifest, embedding_dim)
    sizes = manifest.tokens if manifest.reads_tokens else None
    kind: TokenKind = tokens or ("none" if sizes is None else "int8")
    count = width = 0
    if kind != "none":
        if sizes is None:
            raise InputError(
                f"tokens is {kind}, but the bundle {manifest.name!r} has no matcher and no answer head to "
                "read tokens: leave the option out, or choose a bundle with one",
                field="tokens",
            )
        count = sizes.stored_tokens_per_frame if tokens_per_frame is None else tokens_per_frame
        width = sizes.hidden_dim
        try:
            check_count(count, sizes.tokens_per_frame)
        except ValueError as error:
            raise InputError(f"tokens_per_frame: {error}", field="tokens_per_frame") from error
    elif tokens_per_frame is not None:
        reason = (
            "`tokens` is none"
            if tokens
            else f"the bundle {manifest.name!r} has no matcher and no answer head"
        )
        raise InputError(
            f"tokens_per_frame is {tokens_per_frame}, but {reason}: leave the option out",
            field="tokens_per_frame",
        )
    return Layout(
        bundle_checksum=bundle.checksum,
        bundle_name=manifest.name,
        embedding_dim=dim,
        salience_dim=manifest.salience_dim or 0,
        frames_per_segment=manifest.frames_per_segment,
        tokens=kind,
        tokens_per_frame=count,
        token_dim=width,
        hubness_weight=None if manifest.hubness is None else manifest.hubness.weight,
        full_embedding_dim=manifest.embedding_dim if dim < manifest.embedding_dim else None,
    )


def check_dim(manifest: BundleManifest, embedding_dim: int | None) -> int:
    """The size of stored embeddings, if that is asked for; None: D of the bundle.

    Raises:
        InputError: the bundle does not allow it.
    """
    full, allowed = manifest.embedding_dim, manifest.embedding_dims or ()
    if embedding_dim is None or embedding_dim == full:
        return full
    if embedding_dim not in allowed:
        sizes = ", ".join(map(str, (*allowed, full)))
        remedy = f"choose one of {sizes}" if allowed else f"it gives {full} dimensions and cannot be cut"
        raise InputError(
            f"embedding_dim is {embedding_dim}, which the bundle {manifest.name!r} does not allow: {remedy}",
            field="embedding_dim",
        )
    return embedding_dim


def _folder(path: Path | str) -> Path:
    folder = Path(os.path.abspath(path))  # noqa: PTH100  Path.absolute keeps `..`
    try:
        os.fspath(folder).encode("utf-8")
    except UnicodeEncodeError as error:
        raise LibraryError(
            f"the library's path {os.fspath(folder)!r} is not UTF-8: choose another name"
        ) from error
    return folder


def _create(folder: Path, layout: Layout) -> None:
    """Create a library, or complete one whose creation was interrupted."""
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        names = storage_of(folder).names(folder)
        foreign = [name for name in names if name not in _LIBRARY_FILES and name[0] != "."]
    if foreign and foreign != ["lost+found"]:
        raise LibraryError(
            f"{folder} is not a library and not empty (it holds {foreign[0]!r}): choose another folder"
        )
    with lock_library(folder):
        _create_tables(folder, layout)
        (folder / SNAPSHOTS).mkdir(exist_ok=True)
        checkpoint("create.done")
        flush(folder)


def _create_generation(library: Path, generation: str, layout: Layout) -> None:
    """Create the tables of a further generation, or those that an interrupted creation has left out."""
    folder = tables_folder(library, generation)
    if all(table_exists(folder, name) for name in FIRST_TABLES):
        return
    with lock_library(library):
        with storage_errors(folder):
            if not has_tables(library, generation):
                # Snapshots of tables that somebody has deleted: new files would be taken for theirs.
                for number in snapshots_of(library, generation):
                    remove_snapshot(snapshot_folder(library, number))
            folder.mkdir(parents=True, exist_ok=True)
        _create_tables(folder, layout)
        checkpoint("create.done")
        for path in (folder, folder.parent, library):
            flush(path)


def _create_tables(folder: Path, layout: Layout) -> None:
    _remove_other_layouts(folder, layout)
    for name in reversed(TABLES):
        if not table_exists(folder, name):
            create_table(folder, name, layout)


def _remedy(library: Path, generation: str) -> str:
    """What to do about a table that is missing."""
    if not is_published(library):
        return "run `reelfind index` again: it continues"
    if generations(library) in ([], [generation]):
        return "restore the table from a backup, or index into a new folder"
    command = f"reelfind library drop NAME --library {for_shell(library)}"
    return f"restore the table from a backup, or remove its generation with `{command}`"


def _remove_other_layouts(folder: Path, layout: Layout) -> None:
    """Remove tables of another layout that an interrupted creation left, if no table has a row."""
    tables = {name: open_table(folder, name) for name in TABLES if table_exists(folder, name)}
    if any(table.count_rows() for table in tables.values()):
        return
    for name, table in tables.items():
        if not table.schema.equals(layout.schema(name), check_metadata=True):
            with storage_errors(table_path(folder, name)):
                storage_of(folder).remove_folder(table_path(folder, name))
