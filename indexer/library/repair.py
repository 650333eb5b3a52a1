"""Repairs a library: takes the damaged files out of its tables and moves whole videos out of them.

Videos with damaged rows lose all their rows, so that the run that follows reads their files again. All others
are kept, even where their rows are in the same files. Of damaged lines of text, the whole ones are kept; the
run that follows reads the texts of their videos again. A crash at any moment leaves tables that the next
repair, or the next run, completes.
"""

import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from dataclasses import fields, replace
from pathlib import Path
from typing import TypeVar

import lance
import numpy as np
import pyarrow as pa

from indexer.library.errors import LibraryError, storage_errors
from indexer.library.folder import Library
from indexer.library.generations import snapshots_of
from indexer.library.lance_tables import write_rows
from indexer.library.manifest import FileStamp, read_snapshot_manifest
from indexer.library.records import RepairReport, displayable
from indexer.library.row_scan import ScannedFragment, scan_rows
from indexer.library.schema import (
    FORMER_ID,
    SHORT_COLUMNS,
    TABLES,
    FileRow,
    Layout,
    SegmentRow,
    VideoRow,
    files_table,
    fixed_to_numpy,
    videos_table,
)
from indexer.library.storage.registry import storage_of
from indexer.library.tables import open_table, table_exists, table_path
from indexer.library.writer import LibraryWriter
from model.runtime.faults import checkpoint
from model.runtime.tokens import QuantisedTokens

#: Segments copied at once.
_COPIED_SEGMENTS = 16

R = TypeVar("R", VideoRow, FileRow)


def repair(library: Library, present: Set[bytes]) -> RepairReport:
    """Take the damaged files out of the latest versions of the tables. The library's lock is held.

    Args:
        library: the library.
        present: paths of the files that the run has found, so that it can read them again.

    Raises:
        LibraryError: a table cannot be opened, or the disk is full.
    """
    path = library.tables
    damaged, needs = _damaged_files(library)
    present_tables = [name for name in TABLES if table_exists(path, name)]
    scanned = {name: list(scan_rows(path, name, None, damaged)) for name in present_tables}
    bad = {name: [f for f in fragments if f.is_damaged] for name, fragments in scanned.items()}
    wrong = sorted(damaged | {f for fragments in bad.values() for each in fragments for f in each.files})
    snapshots = frozenset(number for file in wrong for number in needs.get(file, ()))
    if not any(bad.values()):
        return RepairReport(tuple(wrong), snapshots=snapshots)
    datasets = {name: open_table(path, name) for name in present_tables}
    lost_rows = sum(int(f.wrong.sum()) for name in ("videos", "files") for f in bad[name])
    rows_of_videos = _whole_rows(library, "videos", datasets["videos"], scanned["videos"], VideoRow)
    videos = {row.ingest_id: row for row in rows_of_videos}
    files = _whole_rows(library, "files", datasets["files"], scanned["files"], FileRow)
    if bad["videos"]:
        _overwrite(library, "videos", videos_table(library.layout, rows_of_videos))
    if bad["files"]:
        _overwrite(library, "files", files_table(library.layout, files))
    places = _places(files)
    incomplete = _incomplete(videos.values(), scanned)
    # A video whose place is lost cannot be kept: the run finds its file as a new one.
    left = {
        ingest
        for ingest in incomplete
        if (paths := places.get(videos[ingest].video_id)) and present.isdisjoint(paths)
    }
    dropped = {name: [f for f in bad[name] if left.isdisjoint(f.ingests)] for name in ("segments", "frames")}
    touched = {ingest for each in dropped.values() for f in each for ingest in f.ingests}
    moved = sorted(touched & videos.keys() - incomplete)
    _move(library, datasets, scanned, [videos[ingest] for ingest in moved])
    for name, fragments in dropped.items():
        _drop(library, name, fragments)
    if bad.get("texts"):
        _keep_whole_lines(library, bad["texts"])
    return RepairReport(
        files=tuple(wrong),
        read_again=_shown(places, (videos[ingest] for ingest in incomplete - left)),
        left=_shown(places, (videos[ingest] for ingest in left)),
        moved=len(moved),
        lost_rows=lost_rows,
        snapshots=frozenset() if left else snapshots,
    )


def _damaged_files(library: Library) -> tuple[set[Path], dict[Path, set[int]]]:
    """The files that differ from what the generation's snapshots say, and which of these need each file."""
    stamps: dict[str, FileStamp] = {}
    needs: dict[str, set[int]] = {}
    for number in snapshots_of(library.path, library.generation):
        try:
            manifest = read_snapshot_manifest(library.path, number)
        except LibraryError:
            continue
        for name, stamp in manifest.files.items():
            stamps.setdefault(name, stamp)
            needs.setdefault(name, set()).add(number)
    damaged = {name for name, stamp in stamps.items() if not _is_whole(library.path / name, stamp)}
    return {library.path / name for name in damaged}, {library.path / name: n for name, n in needs.items()}


def _is_whole(path: Path, stamp: FileStamp) -> bool:
    try:
        storage = storage_of(path)
        return storage.size(path) == stamp.bytes and storage.sha256(path) == stamp.sha256
    except OSError:
        return False


def _whole_rows(
    library: Library, name: str, dataset: lance.LanceDataset, scanned: list[ScannedFragment], kind: type[R]
) -> list[R]:
    """The rows of `videos` or `files` that are whole."""
    rows = [f.first_row + i for f in scanned for i in np.flatnonzero(~f.wrong).tolist()]
    columns = [f.name for f in fields(kind) if f.name in dataset.schema.names]
    with storage_errors(table_path(library.tables, name)):
        table = dataset.take(rows, columns=columns) if rows else dataset.schema.empty_table()
    return [kind(**row) for row in table.select(columns).to_pylist()]


def _overwrite(library: Library, name: str, rows: pa.Table) -> None:
    checkpoint(f"repair.{name}")
    write_rows(table_path(library.tables, name), rows, "overwrite")
    checkpoint(f"repaired.{name}")


def _places(files: Iterable[FileRow]) -> dict[str, list[bytes]]:
    """The paths of each video, the first one first."""
    paths: dict[str, list[bytes]] = {}
    for file in sorted(files, key=lambda file: file.rank):
        paths.setdefault(file.video_id, []).append(file.path)
    return paths


def _incomplete(videos: Iterable[VideoRow], scanned: dict[str, list[ScannedFragment]]) -> set[str]:
    """The ingest ids of videos that lack whole rows."""
    counts = {
        name: Counter(
            ingest
            for f in scanned[name]
            for ingest, wrong in zip(f.ingests, f.wrong.tolist(), strict=True)
            if not wrong
        )
        for name in ("segments", "frames")
    }
    return {
        video.ingest_id
        for video in videos
        if (counts["segments"][video.ingest_id], counts["frames"][video.ingest_id])
        != (video.num_segments, video.num_frames)
    }


def _move(
    library: Library,
    datasets: dict[str, lance.LanceDataset],
    scanned: dict[str, list[ScannedFragment]],
    videos: list[VideoRow],
) -> None:
    """Write whole videos once more, under new ingest ids, as if they had been read again."""
    if not videos:
        return
    rows: dict[str, dict[str, list[int]]] = {"segments": {}, "frames": {}}
    for name, of_ingest in rows.items():
        for f in scanned[name]:
            for i, ingest in enumerate(f.ingests):
                if not f.wrong[i]:
                    of_ingest.setdefault(ingest, []).append(f.first_row + i)
    writer = LibraryWriter.without_recovery(library)
    # What the videos had is in files that are dropped, or is removed by the next `LibraryWriter`.
    writer.videos = {}
    for video in videos:
        ingest = secrets.token_hex(8)
        for stored in _stored_segments(
            library, datasets, rows["segments"][video.ingest_id], rows["frames"][video.ingest_id]
        ):
            writer.add_segments([replace(row, ingest_id=ingest) for row in stored])
        writer.finish(replace(video, ingest_id=ingest))
        writer.flush()


def _stored_segments(
    library: Library, datasets: dict[str, lance.LanceDataset], segments: list[int], frames: list[int]
) -> Iterator[list[SegmentRow]]:
    """The segments in some rows of a video with their frames, as they were written."""
    at = 0
    for start in range(0, len(segments), _COPIED_SEGMENTS):
        with storage_errors(library.path):
            table = datasets["segments"].take(segments[start : start + _COPIED_SEGMENTS])
            count = sum(table["num_frames"].to_pylist())
            stored = datasets["frames"].take(frames[at : at + count])
        at += count
        yield list(_segment_rows(library.layout, table, stored))


def _segment_rows(layout: Layout, segments: pa.Table, frames: pa.Table) -> Iterator[SegmentRow]:
    pts, embedding = (fixed_to_numpy(segments[name]) for name in ("frame_pts_seconds", "embedding"))
    shape_of_salience = (segments.num_rows, layout.frames_per_segment, layout.salience_dim)
    salience = np.zeros(shape_of_salience, np.float32)
    if layout.salience_dim:
        salience = fixed_to_numpy(segments["frame_salience"]).reshape(shape_of_salience).astype(np.float32)
    names = [name for name in SHORT_COLUMNS if name in segments.column_names and name != FORMER_ID]
    short = segments.select(names).to_pylist()
    thumbnails = frames["thumbnail"].to_pylist()
    shape = (frames.num_rows, layout.tokens_per_frame, layout.token_dim)
    tokens = None if layout.tokens == "none" else fixed_to_numpy(frames["tokens"]).reshape(shape)
    scale = fixed_to_numpy(frames["token_scale"]) if layout.tokens == "int8" else None
    first = 0
    for i, row in enumerate(short):
        count = row.pop("num_frames")
        part = slice(first, first + count)
        first += count
        stored = None if tokens is None else tokens[part]
        yield SegmentRow(
            **row,
            frame_pts_seconds=pts[i, :count],
            frame_salience=salience[i, :count],
            embedding=embedding[i],
            thumbnails=tuple(thumbnails[part]),
            tokens=stored if scale is None or stored is None else QuantisedTokens(stored, scale[part]),
        )


def _keep_whole_lines(library: Library, fragments: list[ScannedFragment]) -> None:
    """Write the whole rows of damaged fragments of `texts` once more, and take the fragments out.

    A crash between the two leaves some rows twice: `LibraryWriter` then removes the lines of these videos.
    """
    dataset = open_table(library.tables, "texts")
    rows = [f.first_row + i for f in fragments for i in np.flatnonzero(~f.wrong).tolist()]
    if rows:
        with storage_errors(table_path(library.tables, "texts")):
            whole = dataset.take(rows)
        write_rows(table_path(library.tables, "texts"), whole, "append")
    _drop(library, "texts", fragments)


def _drop(library: Library, name: str, fragments: list[ScannedFragment]) -> None:
    """Take fragments out of a table without reading them."""
    if not fragments:
        return
    dataset = open_table(library.tables, name)
    checkpoint(f"repair.{name}")
    with storage_errors(table_path(library.tables, name)):
        operation = lance.LanceOperation.Delete([], [f.fragment_id for f in fragments], "damaged")
        lance.LanceDataset.commit(dataset, operation, read_version=dataset.version)
    checkpoint(f"repaired.{name}")


def _shown(places: dict[str, list[bytes]], videos: Iterable[VideoRow]) -> tuple[str, ...]:
    """The first path of each video."""
    return tuple(
        sorted(displayable(places.get(video.video_id, [video.video_id.encode()])[0]) for video in videos)
    )
