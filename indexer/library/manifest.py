"""`snapshots/<n>/manifest.json`: what a snapshot is made of, and `CURRENT`, which names the one served."""

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from indexer.library.errors import LibraryError
from indexer.library.schema import TABLES

FORMAT_VERSION = 2
CURRENT = "CURRENT"
SNAPSHOTS = "snapshots"
INDEX_FILE = "segments.faiss"
MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True)
class FileStamp:
    """What a file must be."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class SnapshotManifest:
    """The content of `manifest.json`. Paths in `files` are relative to the library."""

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

    @property
    def created_at(self) -> datetime:
        """When the snapshot was published."""
        return datetime.fromisoformat(self.created)

    @property
    def index_name(self) -> str:
        """The index file, relative to the library."""
        return f"{SNAPSHOTS}/{self.number}/{INDEX_FILE}"


def snapshot_folder(library: Path, number: int) -> Path:
    """The folder of a snapshot."""
    return library / SNAPSHOTS / str(number)


def snapshot_numbers(library: Path) -> list[int]:
    """The numbers of the snapshots that are there, ascending."""
    folder = library / SNAPSHOTS
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdecimal() and p.is_dir())


def current_number(library: Path) -> int | None:
    """The number in `CURRENT`; None when nothing has been published. LibraryError when it is not a number."""
    try:
        text = (library / CURRENT).read_text(encoding="utf-8", errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise LibraryError(f"{library / CURRENT} cannot be read: {error.strerror}") from error
    if not (text.isascii() and text.isdecimal()):
        raise LibraryError(
            f"{library / CURRENT} does not name a snapshot ({text[:40]!r}); "
            "`reelfind library rollback --to N` names one again"
        )
    return int(text)


def to_json(manifest: SnapshotManifest) -> str:
    """The manifest's text, with a checksum over all else in it."""
    body = {"format_version": FORMAT_VERSION, **asdict(manifest)}
    return json.dumps({"checksum": _checksum(body), **body}, indent=1) + "\n"


def read_manifest(library: Path, number: int) -> SnapshotManifest:
    """Read and check a snapshot's manifest. LibraryError names the file and the remedy."""
    path = snapshot_folder(library, number) / MANIFEST_FILE
    remedy = "`reelfind library rollback` serves an earlier snapshot"
    try:
        body = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise LibraryError(f"snapshot {number} is missing: no {path}; {remedy}") from error
    except OSError as error:
        raise LibraryError(f"{path} cannot be read: {error.strerror}; {remedy}") from error
    except ValueError as error:
        raise LibraryError(f"{path} is damaged: not JSON; {remedy}") from error
    if not isinstance(body, dict) or body.pop("checksum", None) != _checksum(body):
        raise LibraryError(f"{path} is damaged: its checksum differs; {remedy}")
    version = body.pop("format_version")
    if version != FORMAT_VERSION:
        raise LibraryError(
            f"{path} has format version {version}, this program reads {FORMAT_VERSION}: "
            "use the version of Reelfind that wrote it, or index into a new folder"
        )
    try:
        files = {name: FileStamp(**stamp) for name, stamp in body.pop("files").items()}
        manifest = SnapshotManifest(files=files, **body)
    except (KeyError, TypeError, AttributeError) as error:
        raise LibraryError(f"{path} is damaged: {error}; {remedy}") from error
    if manifest.number != number or set(manifest.tables) != set(TABLES):
        raise LibraryError(f"{path} is damaged: it describes another snapshot; {remedy}")
    return manifest


def _checksum(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
