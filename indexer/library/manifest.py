"""Reads and checks the manifest of a snapshot, and reads `CURRENT`, which names the snapshot served.

The tables of a library's first generation lie in the library itself, those of each further one in a folder of
its own. Snapshots are numbered together, and a manifest says which tables its snapshot is of.
"""

import contextlib
import hashlib
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any, get_args, get_origin

from indexer.library.errors import VERIFY_REMEDY, LibraryError, storage_errors
from indexer.library.schema import FIRST_TABLES, TABLES
from indexer.library.storage.base import CURRENT as CURRENT
from indexer.library.storage.base import MANIFEST_FILE
from indexer.library.storage.base import SNAPSHOTS as SNAPSHOTS
from indexer.library.storage.registry import storage_of
from indexer.library.vectors.base import AUTOMATIC, DEFAULT_BACKEND, SHARED
from model.runtime.messages import for_shell, shorten

#: Snapshots of libraries in which a video is a content, and a file a place where it is.
LIBRARY_FORMAT_VERSION = 4
#: Snapshots of libraries in which a video was a path, see `indexer.library.migration`: those of the first
#: generation, and those of a further one or with embeddings that are cut.
FORMER_VERSION, FORMER_LATER_VERSION = 2, 3
#: Snapshots whose index has more than one file, of which programs made before would read the first alone, or
#: of which somebody has chosen the backend.
PARTS_VERSION = 5
FORMAT_VERSIONS = (FORMER_VERSION, FORMER_LATER_VERSION, LIBRARY_FORMAT_VERSION, PARTS_VERSION)
GENERATIONS = "generations"
#: The generation whose tables lie in the library itself.
FIRST_GENERATION = ""
#: Opening a snapshot hashes the files of its index, and others up to this many bytes in all. `verify` hashes
#: all.
_HASHED_AT_OPENING = 64 << 20
_TEXT_INDEX = "texts.lance/_indices/"
_SHARED_VECTORS = f"{SHARED}/"
#: More digits than a snapshot's number ever has.
_MOST_DIGITS = 18
#: Digits of a bundle's checksum that name its generation.
_NAME_DIGITS = 12
_NAME = re.compile(rf"[0-9a-f]{{{_NAME_DIGITS}}}")


@dataclass(frozen=True)
class FileStamp:
    """The checksum and size that a file must have."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class SnapshotManifest:
    """The content of `manifest.json`. Paths in `files` are relative to the library.

    `backend_requested` is what was asked for: the name of a backend, or `AUTOMATIC`.
    `generation` says which tables the snapshot is of, see `tables_folder`. `full_embedding_dim` is D of the
    bundle where embeddings are cut to `embedding_dim`; 0: they are not.
    """

    number: int
    created: str
    bundle_name: str
    bundle_checksum: str
    embedding_dim: int
    salience_dim: int
    num_videos: int
    num_segments: int
    num_frames: int
    verdicts: dict[str, int]
    index_factory: str
    index_requested: str
    tables: dict[str, int]
    media_roots: list[str]
    files: dict[str, FileStamp]
    index_backend: str = DEFAULT_BACKEND
    backend_requested: str = AUTOMATIC
    generation: str = FIRST_GENERATION
    full_embedding_dim: int = 0

    @property
    def is_former(self) -> bool:
        """Whether it is of a library in which a video was a path."""
        return "files" not in self.tables

    @property
    def created_at(self) -> datetime:
        """When the snapshot was published."""
        return datetime.fromisoformat(self.created)

    @property
    def index_files(self) -> list[str]:
        """The files of the vector index, relative to the library: the snapshot's own, and shared ones."""
        own = f"{SNAPSHOTS}/{self.number}/"
        return [name for name in self.files if name.startswith((own, _SHARED_VECTORS))]

    @property
    def shared_index_files(self) -> list[str]:
        """Those of `index_files` that other snapshots have too, and that are not held in memory."""
        return [name for name in self.files if name.startswith(_SHARED_VECTORS)]

    @property
    def text_index_files(self) -> list[str]:
        """The files of the index of words, relative to the library."""
        return [name for name in self.files if self.in_tables(name).startswith(_TEXT_INDEX)]

    def in_tables(self, name: str) -> str:
        """The name of one of `files` relative to the folder of the tables, if it lies there."""
        return name.removeprefix(f"{tables_folder(Path(), self.generation)}/")


def generation_name(bundle_checksum: str) -> str:
    """The name of a bundle's generation."""
    return bundle_checksum[:_NAME_DIGITS]


def is_generation_name(name: str) -> bool:
    """Whether a further generation may have this name."""
    return _NAME.fullmatch(name) is not None


def tables_folder(library: Path, generation: str) -> Path:
    """Where the tables of a generation lie."""
    return library if generation == FIRST_GENERATION else library / GENERATIONS / generation


def snapshot_folder(library: Path, number: int) -> Path:
    """The folder of a snapshot."""
    return library / SNAPSHOTS / str(number)


def snapshot_numbers(library: Path) -> list[int]:
    """The numbers of the existing snapshots, ascending."""
    folder = library / SNAPSHOTS
    with storage_errors(folder):
        return sorted(int(name) for name in storage_of(folder).snapshots(folder) if name.isdecimal())


def current_number(library: Path) -> int | None:
    """The number in `CURRENT`; None when nothing has been published.

    Raises:
        LibraryError: `CURRENT` cannot be read or holds no number.
    """
    try:
        text = storage_of(library).read(library / CURRENT).decode("utf-8", "replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise LibraryError(f"{library / CURRENT} cannot be read: {error.strerror}") from error
    # In an object store, the token of who wrote it follows: see `indexer.library.storage.objects`.
    number, *token = text.split(" ", 1) if text else ("",)
    is_right = all(
        each.isascii() and each.isdecimal() and len(each) <= _MOST_DIGITS for each in (number, *token)
    )
    if not is_right:
        raise LibraryError(
            f"{library / CURRENT} does not name a snapshot ({text[:40]!r}); "
            f"`reelfind library rollback --library {for_shell(library)} --to N` repairs it"
        )
    return int(number)


def is_published(library: Path) -> bool:
    """Whether a library has a snapshot that is served.

    Raises:
        LibraryError: its storage cannot be read.
    """
    with storage_errors(library / CURRENT):
        return storage_of(library).mark(library / CURRENT) is not None


def published_number(library: Path) -> int:
    """The number in `CURRENT`.

    Raises:
        LibraryError: there is none; the message says what is missing and what to do.
    """
    number = current_number(library)
    if number is None:
        raise LibraryError(_nothing_published(library))
    return number


def _nothing_published(library: Path) -> str:
    """The message for a library without a snapshot: what is missing, and what to do."""
    names = storage_of(library).names(library)
    if not (names or library.exists()):
        return (
            f"no library at {library}: create one with `reelfind index PATH --library {for_shell(library)}`"
        )
    if not library.is_dir():
        return f"{library} is not a folder: `library` names the folder that `reelfind index` writes"
    if "videos.lance" in names or GENERATIONS in names:
        return (
            f"the library at {library} has no published snapshot: its first run was interrupted; "
            "run `reelfind index` again: it continues"
        )
    return f"{library} is not a library: create one with `reelfind index PATH --library {for_shell(library)}`"


def to_json(manifest: SnapshotManifest) -> str:
    """The manifest's text, with a checksum of all its other fields."""
    body = {"format_version": _version_of(manifest), **asdict(manifest)}
    # What is as in libraries made before is left out.
    if manifest.generation == FIRST_GENERATION:
        del body["generation"]
    if not manifest.full_embedding_dim:
        del body["full_embedding_dim"]
    if manifest.index_backend == DEFAULT_BACKEND:
        # As in libraries made before there were other backends.
        del body["index_backend"]
    if manifest.backend_requested == AUTOMATIC:
        del body["backend_requested"]
    return json.dumps({"checksum": _checksum(body), **body}, indent=1) + "\n"


def _version_of(manifest: SnapshotManifest) -> int:
    if not manifest.is_former:
        is_new = len(manifest.index_files) > 1 or manifest.backend_requested != AUTOMATIC
        return PARTS_VERSION if is_new else LIBRARY_FORMAT_VERSION
    is_later = manifest.generation != FIRST_GENERATION or manifest.full_embedding_dim
    return FORMER_LATER_VERSION if is_later else FORMER_VERSION


def check_not_former(library: Path, manifest: SnapshotManifest) -> None:
    """Raise a LibraryError for a snapshot in which a video was a path: it says how to migrate the library."""
    if manifest.is_former:
        raise LibraryError(
            f"snapshot {manifest.number} of {library} is of an earlier version of Reelfind: "
            f"`reelfind library migrate --library {shlex.quote(str(library))}` brings it to this version in "
            "place, without reading any video again"
        )


def read_snapshot_manifest(library: Path, number: int) -> SnapshotManifest:
    """Read and check a snapshot's manifest.

    Raises:
        LibraryError: it is missing, damaged or of another version; the message names the file and the remedy.
    """
    path = snapshot_folder(library, number) / MANIFEST_FILE
    remedy = f"`reelfind library rollback --library {for_shell(library)}` serves an earlier snapshot"
    try:
        body = json.loads(storage_of(path).read(path))
        checksum = _checksum({key: value for key, value in body.items() if key != "checksum"})
    except FileNotFoundError as error:
        raise LibraryError(f"snapshot {number} is missing: no {path}; {remedy}") from error
    except OSError as error:
        raise LibraryError(f"{path} cannot be read: {error.strerror}; {remedy}") from error
    except (ValueError, AttributeError, RecursionError) as error:
        raise LibraryError(f"{path} is damaged: not a JSON object; {remedy}") from error
    if body.pop("checksum", None) != checksum:
        raise LibraryError(f"{path} is damaged: its checksum differs; {remedy}")
    version = body.pop("format_version", None)
    if version not in FORMAT_VERSIONS:
        raise LibraryError(
            f"{path} has format version {shorten(version)}, this program reads "
            f"{min(FORMAT_VERSIONS)} to {max(FORMAT_VERSIONS)}: "
            "use the version of Reelfind that wrote it, or index into a new folder"
        )
    try:
        files = {name: FileStamp(**stamp) for name, stamp in body.pop("files").items()}
        manifest = SnapshotManifest(files=files, **body)
    except (KeyError, TypeError, AttributeError) as error:
        raise LibraryError(f"{path} is damaged: {shorten(str(error))}; {remedy}") from error
    wrong = _wrong_field(manifest)
    if wrong is None and version != _version_of(manifest):
        wrong = "format_version"
    if wrong is not None:
        raise LibraryError(f"{path} is damaged: {wrong} is no value that it can have; {remedy}")
    if manifest.number != number or not set(FIRST_TABLES) <= set(manifest.tables) <= set(TABLES):
        raise LibraryError(f"{path} is damaged: it describes another snapshot; {remedy}")
    return manifest


def readable_manifests(library: Path) -> Iterator[SnapshotManifest]:
    """The manifests of all snapshots that can be read, the newest first."""
    for number in reversed(snapshot_numbers(library)):
        with contextlib.suppress(LibraryError):
            yield read_snapshot_manifest(library, number)


def _wrong_field(manifest: SnapshotManifest) -> str | None:
    """The first field that has a value of another type, or one that no snapshot has; None when all are right.

    The checksum does not say so: whoever writes a manifest can write its checksum too.
    """
    for field in fields(manifest):
        # There may be thousands of files: they are checked below.
        if field.name != "files" and not _is_of(getattr(manifest, field.name), field.type):
            return field.name
    for name, stamp in manifest.files.items():
        if not (type(name) is str and type(stamp.sha256) is str and type(stamp.bytes) is int):
            return "files"
    counts = {field.name: getattr(manifest, field.name) for field in fields(manifest) if field.type is int}
    for name, count in counts.items():
        if count < 0:
            return name
    if manifest.generation != FIRST_GENERATION and not is_generation_name(manifest.generation):
        return "generation"
    if any(version < 1 for version in manifest.tables.values()):
        return "tables"
    if any(name.startswith("/") or ".." in name.split("/") for name in manifest.files):
        return "files"
    try:
        return None if manifest.created_at.tzinfo else "created"
    except ValueError:
        return "created"


def _is_of(value: object, kind: Any) -> bool:
    """Whether a value from JSON is an int, a str, or a list or dict of such."""
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_is_of(item, get_args(kind)[0]) for item in value)
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(_is_of(item, get_args(kind)[1]) for item in value.values())
    return type(value) is kind


def check_files(
    library: Path, manifest: SnapshotManifest, hash_bytes: int = _HASHED_AT_OPENING
) -> dict[str, str]:
    """Check the sizes of all files of a snapshot, and the checksums of some.

    Always hashed are the files that are held in memory or say where rows are: the index's own ones, the table
    of videos, and of the other tables all but their data files.

    Args:
        library: the library's folder.
        manifest: the snapshot's.
        hash_bytes: hash other files until this many bytes are read, the smallest first.

    Returns:
        What is wrong with data files of `segments`, `frames` and `texts`, whose rows have checksums of their
        own, and with the index of words.

    Raises:
        LibraryError: another file is missing or differs.
    """
    storage = storage_of(library)
    sizes: dict[Path, int] = {}
    with storage_errors(library):
        bring_index(library, manifest)
        if not storage.is_local:
            # One request lists many. What Lance reads of a store is compared with the rows' own checksums.
            sizes, hash_bytes = _listed_sizes(library, manifest), 0
    hashed = 0
    damaged = {}
    dispensable = {name for name in manifest.files if _is_dispensable(manifest.in_tables(name))}
    large = dispensable.union(manifest.shared_index_files)
    ordered = sorted(manifest.files.items(), key=lambda item: (item[0] in large, item[1].bytes))
    for name, stamp in ordered:
        path = library / name
        problem = None
        try:
            size = sizes[path] if path in sizes else storage.size(path)
            if size != stamp.bytes:
                problem = f"{path} is damaged: {size} bytes, expected {stamp.bytes}"
            elif name not in large or hashed + size <= hash_bytes:
                hashed += size
                if storage.sha256_once(path) != stamp.sha256:
                    problem = f"{path} is damaged: its SHA-256 differs"
        except OSError as error:
            problem = f"{path} cannot be read: {error.strerror}"
        if problem is not None and name not in dispensable:
            raise LibraryError(f"{problem}; {VERIFY_REMEDY}")
        if problem is not None:
            damaged[name] = problem
    return damaged


def bring_index(library: Path, manifest: SnapshotManifest) -> None:
    """Make sure that a snapshot's own files can be opened on this computer.

    Raises:
        OSError: one is missing, differs, or cannot be fetched.
    """
    folder = snapshot_folder(library, manifest.number)
    own = f"{SNAPSHOTS}/{manifest.number}/"
    files = {
        name.removeprefix(own): (stamp.sha256, stamp.bytes)
        for name, stamp in manifest.files.items()
        if name.startswith(own)
    }
    storage_of(library).bring(folder, files)


def _listed_sizes(library: Path, manifest: SnapshotManifest) -> dict[Path, int]:
    """The sizes of the files of a snapshot's tables, and of others in them."""
    paths = [library / name for name in manifest.files]
    tables = {parent for path in paths for parent in path.parents if parent.suffix == ".lance"}
    sizes: dict[Path, int] = {}
    for table in sorted(tables):
        sizes |= storage_of(library).files(table)
    return sizes


def _is_dispensable(name: str) -> bool:
    """Whether searches do without a file where it is damaged. The name is that in the folder of the tables.

    Rows of these tables are compared with their checksums when they are read, and the index of words serves
    the search in texts alone.
    """
    rows = ("segments.lance/data/", "frames.lance/data/", "texts.lance/data/")
    return name.startswith((*rows, _TEXT_INDEX))


def index_is_whole(library: Path, manifest: SnapshotManifest) -> bool:
    """Whether the files of a snapshot's vector index are as they were written; of shared ones, the size."""
    try:
        bring_index(library, manifest)
    except OSError:
        return False
    return _are_whole(library, manifest, manifest.index_files)


def text_index_is_whole(library: Path, manifest: SnapshotManifest) -> bool:
    """Whether the files of a snapshot's index of words are as they were written, if it has one."""
    return _are_whole(library, manifest, manifest.text_index_files)


def _are_whole(library: Path, manifest: SnapshotManifest, names: list[str]) -> bool:
    storage = storage_of(library)
    try:
        return all(
            storage.size(library / name) == manifest.files[name].bytes
            and (
                name.startswith(_SHARED_VECTORS)
                or storage.sha256_once(library / name) == manifest.files[name].sha256
            )
            for name in names
        )
    except OSError:
        return False


def _checksum(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
