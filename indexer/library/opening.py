"""What is checked before a snapshot is opened, and what is said where there is none."""

from collections.abc import Mapping
from pathlib import Path

import faiss
import lance

from indexer.library.errors import LibraryError
from indexer.library.manifest import SnapshotManifest, snapshot_folder
from indexer.library.schema import Layout
from indexer.library.tables import VERIFY_REMEDY, table_path
from model.runtime.files import sha256_of

#: Files are hashed at opening until so many bytes are read, `segments.faiss` always; `verify` hashes all.
_HASHED_AT_OPENING = 64 << 20


def check_files(library: Path, manifest: SnapshotManifest, hash_bytes: int = _HASHED_AT_OPENING) -> None:
    """Check that a snapshot's files are there in their sizes, and hash some, the index first.

    Raises:
        LibraryError: a file is missing or differs.
    """
    hashed = 0
    # The index always comes first, then the small tables' files, so that the budget covers the most files.
    ordered = sorted(manifest.files.items(), key=lambda item: (item[0] != manifest.index_name, item[1].bytes))
    for name, stamp in ordered:
        path = library / name
        try:
            size = path.stat().st_size
            if size != stamp.bytes:
                raise LibraryError(
                    f"{path} is damaged: {size} bytes, expected {stamp.bytes}; {VERIFY_REMEDY}"
                )
            if name == manifest.index_name or hashed + size <= hash_bytes:
                hashed += size
                if sha256_of(path) != stamp.sha256:
                    raise LibraryError(f"{path} is damaged: its SHA-256 differs; {VERIFY_REMEDY}")
        except OSError as error:
            raise LibraryError(f"{path} cannot be read: {error.strerror}; {VERIFY_REMEDY}") from error


def read_layout(library: Path, tables: Mapping[str, lance.LanceDataset]) -> Layout:
    """The layout of a snapshot's tables. LibraryError when they have other columns."""
    try:
        layout = Layout.of_schema(tables["segments"].schema)
    except ValueError as error:
        raise LibraryError(f"{table_path(library, 'segments')}: {error}; {VERIFY_REMEDY}") from error
    if not tables["frames"].schema.equals(layout.schema("frames")):
        where = table_path(library, "frames")
        raise LibraryError(f"{where}: other columns than the table of segments names; {VERIFY_REMEDY}")
    return layout


def check_counts(
    library: Path,
    manifest: SnapshotManifest,
    index: faiss.Index,
    *,
    segments: int,
    named_frames: int,
    frames: int,
) -> None:
    """Check that tables and index have as many rows as the manifest says. LibraryError when they have not."""
    where = snapshot_folder(library, manifest.number)
    for what, found, expected in (
        ("index rows", index.ntotal, manifest.num_segments),
        ("segments", segments, manifest.num_segments),
        ("frames named by segments", named_frames, manifest.num_frames),
        ("frames", frames, manifest.num_frames),
    ):
        if found != expected:
            raise LibraryError(f"{where}: {found} {what}, expected {expected}; {VERIFY_REMEDY}")
    if index.d != manifest.embedding_dim:
        raise LibraryError(
            f"{where}: the index has {index.d} dimensions, not {manifest.embedding_dim}; {VERIFY_REMEDY}"
        )


def nothing_published(library: Path) -> str:
    """What to say of a library without a snapshot: what is missing, and the remedy."""
    if not library.exists():
        return f"no library at {library}: create one with `reelfind index PATH --library {library}`"
    if not library.is_dir():
        return f"{library} is not a folder: `library` names the folder that `reelfind index` writes"
    if (library / "videos.lance").exists():
        return (
            f"the library at {library} has no published snapshot: its first run was cut short; "
            "run `reelfind index` again, it continues"
        )
    return f"{library} is not a library: create one with `reelfind index PATH --library {library}`"
