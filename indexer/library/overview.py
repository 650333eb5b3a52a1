"""Lists the generations of a library: their bundles, sizes and states."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from indexer.library.errors import LibraryError, storage_errors
from indexer.library.generations import generations, served_generation, snapshots_of, staged
from indexer.library.manifest import (
    SnapshotManifest,
    check_not_former,
    current_number,
    generation_name,
    read_snapshot_manifest,
    snapshot_folder,
    tables_folder,
)
from indexer.library.schema import FIRST_TABLES, TABLES, Layout
from indexer.library.storage.registry import storage_of
from indexer.library.stored import shown_places
from indexer.library.tables import open_table, table_exists, table_path

#: "complete": it can be served; "incomplete": its first run has not come to its end, or a table is missing.
State = Literal["served", "complete", "incomplete"]


@dataclass(frozen=True)
class GenerationState:
    """A generation of a library.

    Attributes:
        generation: as in the manifests of its snapshots.
        name: what people call it: the beginning of its bundle's checksum.
        bundle_name: the name of its bundle.
        bundle_checksum: the bundle's checksum; empty where no table and no snapshot says it.
        state: whether it is served, or may be.
        snapshot: the number of its newest snapshot that was complete when it was made; of the generation that
            is served, the one that is served. None: it has none.
        num_videos: videos with segments in this snapshot.
        num_segments: its segments.
        bytes: what its tables and snapshots take on the disk.
    """

    generation: str
    name: str
    bundle_name: str
    bundle_checksum: str
    state: State
    snapshot: int | None
    num_videos: int
    num_segments: int
    bytes: int


def list_generations(library: Path) -> list[GenerationState]:
    """The generations of a library, the first one first.

    Raises:
        LibraryError: it cannot be told which one is served.
    """
    served = served_generation(library)
    return [_state(library, generation, generation == served) for generation in generations(library)]


def videos_lacking(library: Path, served: int, other: int) -> list[str]:
    """Paths of the videos that a search finds in one snapshot and not in another, in order.

    Args:
        library: the library's folder.
        served: the number of the one.
        other: the number of the other.

    Raises:
        LibraryError: a table cannot be read.
    """
    found, present = (_searchable(library, number) for number in (served, other))
    return sorted(path for video_id, path in found.items() if video_id not in present)


def _searchable(library: Path, number: int) -> dict[str, str]:
    """The paths of a snapshot's videos that a search finds, by their ids."""
    manifest = read_snapshot_manifest(library, number)
    folder = tables_folder(library, manifest.generation)
    check_not_former(library, manifest)
    with storage_errors(folder):
        videos = open_table(folder, "videos", manifest.tables["videos"])
        ids = videos.to_table(columns=["video_id"], filter="num_segments > 0")["video_id"].to_pylist()
        paths = shown_places(open_table(folder, "files", manifest.tables["files"]))
    return {video_id: paths[video_id] for video_id in ids if video_id in paths}


def _state(library: Path, generation: str, is_current: bool) -> GenerationState:
    numbers = snapshots_of(library, generation)
    current = current_number(library)
    complete = [number for number in numbers if staged(library, number) != "incomplete"]
    number = current if is_current and current in numbers else complete[-1] if complete else None
    newest = numbers[-1] if number is None and numbers else number
    manifest = _manifest(library, newest)
    folder = tables_folder(library, generation)
    bundle_name, checksum = _bundle(folder, manifest)
    is_whole = all(table_exists(folder, name) for name in FIRST_TABLES)
    state: State = "complete" if is_whole and number is not None else "incomplete"
    paths = [table_path(folder, name) for name in TABLES]
    paths += [snapshot_folder(library, each) for each in numbers]
    paths += _shared_folders(library, numbers)
    return GenerationState(
        generation=generation,
        name=generation_name(checksum) or generation or "first",
        bundle_name=bundle_name,
        bundle_checksum=checksum,
        state="served" if is_current and current is not None else state,
        snapshot=number,
        num_videos=manifest.num_videos if manifest else 0,
        num_segments=manifest.num_segments if manifest else 0,
        bytes=_size(paths),
    )


def _bundle(folder: Path, manifest: SnapshotManifest | None) -> tuple[str, str]:
    """Name and checksum of a generation's bundle; empty where nothing says them."""
    try:
        layout = Layout.of_schema(open_table(folder, "segments").schema)
    except (LibraryError, ValueError):
        return ("", "") if manifest is None else (manifest.bundle_name, manifest.bundle_checksum)
    return layout.bundle_name, layout.bundle_checksum


def _manifest(library: Path, number: int | None) -> SnapshotManifest | None:
    try:
        return None if number is None else read_snapshot_manifest(library, number)
    except LibraryError:
        return None


def _shared_folders(library: Path, numbers: Iterable[int]) -> set[Path]:
    """Where snapshots have what they share of their indexes of vectors."""
    manifests = [manifest for number in numbers if (manifest := _manifest(library, number))]
    names = (PurePosixPath(name) for manifest in manifests for name in manifest.shared_index_files)
    return {library.joinpath(*name.parts[:2]) for name in names}


def _size(folders: Iterable[Path]) -> int:
    """The bytes of all files in folders; what is removed meanwhile does not count."""
    return sum(sum(storage_of(folder).files(folder).values()) for folder in folders)
