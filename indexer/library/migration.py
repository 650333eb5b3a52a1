"""Brings a library in which a video was a path to one in which it is a content, in place.

No media are read, and neither segments nor frames are written again: rows of these tables name the ingest of
their video, not the video. `videos` gets a row for each content instead of each path, and `files` a row for
each path. Of copies, one keeps its segments; those of the others are removed.

A crash at any moment leaves a library that the next migration completes; until then, the version of Reelfind
that wrote the snapshot from before serves it. `undo_migration` returns to that snapshot while it is kept.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import lance

from indexer.library.errors import LibraryError, storage_errors
from indexer.library.folder import Library
from indexer.library.generations import (
    base_manifest,
    complete,
    generations,
    is_served,
    remove_snapshot,
    restore_tables,
    served_generation,
    snapshots_of,
    staged,
)
from indexer.library.lance_tables import write_rows
from indexer.library.lock import lock_library
from indexer.library.manifest import (
    CURRENT,
    SnapshotManifest,
    read_snapshot_manifest,
    snapshot_folder,
    tables_folder,
)
from indexer.library.publish import PublishOptions, publish
from indexer.library.records import SEARCHABLE, video_id_of
from indexer.library.schema import (
    PATH_COLUMNS,
    FileRow,
    Layout,
    VideoRow,
    files_table,
    videos_table,
)
from indexer.library.storage.registry import storage_of
from indexer.library.stored import checked_rows
from indexer.library.tables import open_table, table_exists, table_path
from indexer.library.writer import LibraryWriter
from model.runtime.faults import checkpoint


@dataclass(frozen=True)
class MigratedGeneration:
    """What a migration has done with the tables of one bundle.

    Attributes:
        name: the generation's.
        files: how many files there were.
        videos: how many contents they are.
        snapshot: the number of the new snapshot; None: there was none before, either.
    """

    name: str
    files: int
    videos: int
    snapshot: int | None


def is_former(library: Path | str) -> bool:
    """Whether a part of a library is of an earlier version."""
    path = Path(library)
    return any(
        _has_paths(path, generation) or _lacks_snapshot(path, generation) for generation in generations(path)
    )


def migrate(library: Path | str) -> list[MigratedGeneration]:
    """Bring all generations of a library to this version, and publish or stage the result.

    Returns:
        What was done; nothing for a library that is of this version.

    Raises:
        LibraryError: a table cannot be read, a row is damaged, or the disk is full.
        BusyError: another process is writing the library.
    """
    path = Path(library)
    if not is_former(path):
        return []
    done = []
    with lock_library(path):
        for generation in generations(path):
            if not _has_paths(path, generation) and not _lacks_snapshot(path, generation):
                continue
            opened = Library.open(path, generation)
            _migrate_tables(opened.tables, opened.layout)
            writer = LibraryWriter(opened)
            number = _publish(writer)
            done.append(
                MigratedGeneration(opened.generation_name, len(writer.files), len(writer.videos), number)
            )
    return done


def undo_migration(library: Path | str) -> int:
    """Return to the newest snapshot from before the migration, for the version of Reelfind that wrote it.

    What was indexed since is lost from the library. No program may be reading the library.

    Returns:
        The number of the snapshot that is served now.

    Raises:
        LibraryError: there is no such snapshot any more, or a program reads a newer one.
        BusyError: another process is writing the library.
    """
    path = Path(library)
    Library.open(path)
    with lock_library(path):
        served = served_generation(path)
        targets = {generation: _newest_former(path, generation) for generation in generations(path)}
        target = targets.get(served)
        if target is None:
            raise LibraryError(
                f"{path} has no snapshot from before a migration: it was never migrated, or they were removed"
            )
        with storage_errors(path / CURRENT):
            storage_of(path).serve(path / CURRENT, f"{target.number}\n", step="undo.current")
        for generation, manifest in targets.items():
            _undo(path, generation, manifest)
    return target.number


def former_rows(folder: Path, videos: lance.LanceDataset) -> tuple[list[VideoRow], list[FileRow]]:
    """The rows of contents and of places that a former table of videos amounts to.

    Of paths with the same content, the one with a better verdict gives the content's row; then the one that
    was indexed first.

    Args:
        folder: holds the table.
        videos: the table.

    Raises:
        LibraryError: it cannot be read, or a row is damaged.
    """
    names = [field.name for field in fields(VideoRow)]
    stored = list(checked_rows(folder, "videos", videos, [*names, *PATH_COLUMNS]))
    stored.sort(
        key=lambda row: (row["verdict"] not in SEARCHABLE, row["verdict"], row["indexed_at"], row["path"])
    )
    contents: dict[str, VideoRow] = {}
    places = []
    for row in stored:
        path, mtime_ns = row.pop("path"), row.pop("mtime_ns")
        video_id = video_id_of(row["sha256"], path, row["bytes"])
        contents.setdefault(video_id, VideoRow(**{**row, "video_id": video_id}))
        places.append(FileRow(path, video_id, mtime_ns, row["indexed_at"]))
    return list(contents.values()), places


def _migrate_tables(folder: Path, layout: Layout) -> None:
    videos = open_table(folder, "videos")
    if not set(PATH_COLUMNS) <= set(videos.schema.names):
        return
    contents, places = former_rows(folder, videos)
    # `files` first: until `videos` is of this version, the next migration writes both anew.
    for name, rows in (("files", files_table(layout, places)), ("videos", videos_table(layout, contents))):
        checkpoint(f"migrate.{name}")
        with storage_errors(table_path(folder, name)):
            mode: Literal["overwrite", "create"] = "overwrite" if table_exists(folder, name) else "create"
            write_rows(table_path(folder, name), rows, mode)
            storage = storage_of(folder)
            storage.flush(storage.files(table_path(folder, name)), table_path(folder, name))
        checkpoint(f"migrated.{name}")


def _publish(writer: LibraryWriter) -> int | None:
    """Publish the tables as the snapshot before was: served, staged, or not at all."""
    library, generation = writer.library.path, writer.library.generation
    base = base_manifest(library, generation)
    if base is None:
        return None
    serve = is_served(library, generation)
    was_complete = serve or staged(library, base.number) != "incomplete"
    manifest = publish(writer, PublishOptions(serve=serve), last=True)
    if was_complete and not serve:
        complete(library, manifest.number)
    return manifest.number


def _has_paths(library: Path, generation: str) -> bool:
    """Whether the videos of a generation are paths."""
    folder = tables_folder(library, generation)
    if not table_exists(folder, "videos"):
        return False
    return set(PATH_COLUMNS) <= set(open_table(folder, "videos").schema.names)


def _lacks_snapshot(library: Path, generation: str) -> bool:
    """Whether the newest snapshot of a generation is of an earlier version, so that it cannot be opened."""
    base = base_manifest(library, generation)
    return base is not None and base.is_former


def _newest_former(library: Path, generation: str) -> SnapshotManifest | None:
    for number in reversed(snapshots_of(library, generation)):
        try:
            manifest = read_snapshot_manifest(library, number)
        except LibraryError:
            continue
        if manifest.is_former:
            return manifest
    return None


def _undo(library: Path, generation: str, former: SnapshotManifest | None) -> None:
    folder = tables_folder(library, generation)
    for number in snapshots_of(library, generation):
        if former is not None and number <= former.number:
            continue
        if not remove_snapshot(snapshot_folder(library, number)):
            raise LibraryError(
                f"snapshot {number} of {library} is being read by a program on this computer: stop `reelfind "
                "serve`, then run this again"
            )
    if former is None:
        # Nothing of it was published before: the next run with its bundle builds it anew.
        if generation:
            storage_of(folder).remove_folder(folder)
        return
    restore_tables(library, former, step="undo")
    checkpoint("undo.files")
    with storage_errors(folder):
        if table_exists(folder, "files"):
            storage_of(folder).remove_folder(table_path(folder, "files"))
        storage_of(folder).flush((), folder)
