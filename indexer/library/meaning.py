"""Checks what a library says, beyond its checksums, which whoever made the library could write as well.

Each check names the first row that is wrong; a table with a thousand such rows has one line.
"""

import io
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from indexer.library.errors import storage_errors
from indexer.library.manifest import SnapshotManifest
from indexer.library.records import SEARCHABLE, VERDICTS, displayable, video_id_of
from indexer.library.schema import CONTAINER_START, CUTS, LINE_KINDS, Layout, fixed_to_numpy
from indexer.library.tables import read_layout, table_path
from model.runtime.captured import CAPTURED_SOURCES, MOST_OFFSET_MINUTES
from model.runtime.places import Place
from model.runtime.remote.path import RemotePath, media_path
from model.runtime.timed_text import language_code, plain_text

_SEGMENT_ROWS = 4096
_FRAME_ROWS = 1024
#: Embeddings are of unit length but for rounding.
_UNIT_TOLERANCE = 1e-2
#: Times of frames are rounded apart from those of their segment.
_TIME_TOLERANCE = 0.1
_LONGEST_THUMBNAIL_SIDE = 1024
_SHA256 = re.compile(r"[0-9a-f]{64}|")


def wrong_meaning(
    folder: Path, manifest: SnapshotManifest, tables: Mapping[str, lance.LanceDataset]
) -> Iterator[str]:
    """What of a snapshot cannot be true: its manifest, videos, segments and frames.

    Args:
        folder: holds the tables.
        manifest: the snapshot's.
        tables: the tables at the versions that it names.

    Raises:
        LibraryError: a table cannot be read.
    """
    layout = read_layout(folder, tables)
    with storage_errors(table_path(folder, "videos")):
        videos = tables["videos"].to_table()
    with storage_errors(table_path(folder, "files")):
        files = tables["files"].to_table()
    yield from _wrong_manifest(manifest, layout, videos)
    yield from _wrong_videos(videos, files)
    yield from _wrong_files(files, manifest)
    with storage_errors(table_path(folder, "segments")):
        yield from _wrong_segments(tables["segments"], layout)
    with storage_errors(table_path(folder, "frames")):
        yield from _wrong_frames(tables["frames"])
    if "texts" in tables:
        with storage_errors(table_path(folder, "texts")):
            yield from _wrong_lines(tables["texts"])


def _wrong_manifest(manifest: SnapshotManifest, layout: Layout, videos: pa.Table) -> Iterator[str]:
    for root in manifest.media_roots:
        path = media_path(root)
        is_plain = isinstance(path, RemotePath) or os.path.normpath(root) == root
        if not path.is_absolute() or not is_plain:
            yield f"the manifest's media root {root!r} is not the path of a folder"
    counts = Counter(videos["verdict"].to_pylist())
    if counts != Counter({verdict: n for verdict, n in manifest.verdicts.items() if n}):
        yield f"the manifest counts the verdicts {manifest.verdicts}, the table of videos {dict(counts)}"
    for what, said, is_so in (
        ("embedding_dim", manifest.embedding_dim, layout.embedding_dim),
        ("salience_dim", manifest.salience_dim, layout.salience_dim),
        ("bundle_checksum", manifest.bundle_checksum, layout.bundle_checksum),
        ("full_embedding_dim", manifest.full_embedding_dim, layout.full_embedding_dim or 0),
    ):
        if said != is_so:
            yield f"the manifest's {what} is {said}, that of the tables {is_so}"


def _wrong_files(files: pa.Table, manifest: SnapshotManifest) -> Iterator[str]:
    roots = [media_path(root) for root in manifest.media_roots]
    seen: set[str] = set()
    for stored in files["path"].to_pylist():
        path = media_path(stored)
        if not path.is_absolute():
            problem = "is not absolute"
        elif not any(path.is_relative_to(root) for root in roots):
            problem = "is outside of the manifest's media roots"
        else:
            continue
        if problem not in seen:
            seen.add(problem)
            yield f"the path {displayable(path)!r} {problem}"
    if len(set(files["path"].to_pylist())) != files.num_rows:
        yield "a path occurs twice in the table of files"


def _wrong_videos(videos: pa.Table, files: pa.Table) -> Iterator[str]:
    paths: dict[str, list[bytes]] = {}
    for video_id, path in zip(files["video_id"].to_pylist(), files["path"].to_pylist(), strict=True):
        paths.setdefault(video_id, []).append(path)
    seen: set[str] = set()
    for row in videos.to_pylist():
        for problem in _wrong_video(row, paths.get(row["video_id"], [])):
            # One line for each kind.
            kind = problem.partition(" is ")[0]
            if kind not in seen:
                seen.add(kind)
                yield f"video {row['video_id']}: {problem}"


def _wrong_video(row: Mapping[str, Any], paths: list[bytes]) -> Iterator[str]:
    sha256 = str(row["sha256"])
    if not paths:
        yield "it has no file"
    elif not sha256 and (row["verdict"] in SEARCHABLE or len(paths) > 1):
        yield "its SHA-256 is missing"
    elif row["video_id"] != video_id_of(sha256, paths[0], row["bytes"]):
        yield "its id is not that of its content"
    verdict, count = row["verdict"], row["num_segments"]
    if verdict not in VERDICTS:
        yield f"its verdict is {verdict!r}"
    elif isinstance(count, int) and (count > 0) != (verdict in SEARCHABLE):
        yield f"its number of segments is {count}, and its verdict {verdict}"
    if not _SHA256.fullmatch(str(row["sha256"])):
        yield "its SHA-256 is none"
    for name in ("bytes", "duration_seconds", "fps", "width", "height", "num_frames"):
        value = row[name]
        if not isinstance(value, int | float) or not np.isfinite(value) or value < 0:
            yield f"its {name} is {value}"
    start = row.get(CONTAINER_START)
    if isinstance(start, float) and not np.isfinite(start):
        yield f"its {CONTAINER_START} is {start}"
    yield from _wrong_recording(row)
    cuts = np.array(row.get(CUTS) or [], np.float64)
    # Written so that NaN fails.
    if not ((cuts >= 0) & (cuts < np.inf)).all() or not (np.diff(cuts) > 0).all():
        yield f"its {CUTS} is not finite and rising"


def _wrong_recording(row: Mapping[str, Any]) -> Iterator[str]:
    """What cannot be of how a video was recorded; libraries made before do not say."""
    source, offset = row.get("captured_source"), row.get("captured_offset_minutes")
    if source is not None and source not in CAPTURED_SOURCES:
        yield f"its captured_source is {source!r}"
    if (source is None) != (row.get("captured_at") is None):
        yield f"its captured_at is {row.get('captured_at')}, and its captured_source {source!r}"
    if offset is not None and abs(offset) > MOST_OFFSET_MINUTES:
        yield f"its captured_offset_minutes is {offset}"
    latitude, longitude = row.get("latitude"), row.get("longitude")
    if (latitude is None) != (longitude is None):
        yield f"it was taken at {latitude}, {longitude}"
    elif latitude is not None and longitude is not None:
        try:
            Place(latitude, longitude, row.get("altitude_metres"))
        except ValueError as error:
            yield f"it was taken at no place: {error}"


def _wrong_segments(segments: lance.LanceDataset, layout: Layout) -> Iterator[str]:
    columns = ["ingest_id", "segment_index", "start_seconds", "end_seconds", "num_frames"]
    columns += ["frame_pts_seconds"]
    columns += ["embedding", *(["frame_salience"] if layout.salience_dim else [])]
    columns += [] if layout.hubness_weight is None else ["hubness"]
    seen: set[str] = set()
    ends: dict[str, tuple[int, float]] = {}
    first = 0
    for batch in segments.to_batches(columns=columns, batch_size=_SEGMENT_ROWS):
        for what, wrong in _segment_faults(batch, layout.frames_per_segment, ends).items():
            rows = np.flatnonzero(wrong)
            if len(rows) and what not in seen:
                seen.add(what)
                row = int(rows[0])
                index, ingest = batch["segment_index"][row].as_py(), batch["ingest_id"][row].as_py()
                yield f"segment {index} of ingest {ingest} (row {first + row}): {what}"
        first += batch.num_rows


def _segment_faults(
    batch: pa.RecordBatch, most_frames: int, ends: dict[str, tuple[int, float]]
) -> dict[str, NDArray[np.bool_]]:
    """Which rows of a batch have which fault. `ends` holds number and start of each ingest's last segment."""
    start, end = (batch[name].to_numpy() for name in ("start_seconds", "end_seconds"))
    counts = batch["num_frames"].to_numpy()
    times = fixed_to_numpy(batch["frame_pts_seconds"])
    embedding = fixed_to_numpy(batch["embedding"]).astype(np.float64)
    salience = np.zeros((batch.num_rows, 0))
    if "frame_salience" in batch.schema.names:
        salience = fixed_to_numpy(batch["frame_salience"])
    used = np.arange(most_frames) < np.clip(counts, 0, most_frames)[:, None]
    with np.errstate(invalid="ignore", over="ignore"):
        # The frame that is shown when a segment starts may have come long before.
        outside = times > end[:, None] + _TIME_TOLERANCE
        backwards = np.diff(times, axis=1) < 0
        length = np.linalg.norm(embedding, axis=1)
    finite = np.isfinite(embedding).all(axis=1)
    hubness = np.zeros(batch.num_rows)
    if "hubness" in batch.schema.names:
        hubness = np.asarray(batch["hubness"].to_numpy(zero_copy_only=False), np.float64)
    earlier = np.zeros(batch.num_rows, np.bool_)
    names, indices = batch["ingest_id"].to_pylist(), batch["segment_index"].to_pylist()
    for row, (name, index, time) in enumerate(zip(names, indices, start.tolist(), strict=True)):
        before = ends.get(name)
        earlier[row] = before is not None and (index - before[0]) * (time - before[1]) < 0
        ends[name] = (index, time)
    return {
        "its times are not finite": ~(np.isfinite(start) & np.isfinite(end)),
        "it starts before 0, or ends before it starts": (start < 0) | (end < start),
        "its number and its start are not in one order with those before it": earlier,
        f"its number of frames is not 1 to {most_frames}": (counts < 1) | (counts > most_frames),
        "the times of its frames are not finite": (~np.isfinite(times) & used).any(axis=1),
        "a frame comes after its end": (outside & used).any(axis=1),
        "its frames are not in the order of their times": (backwards & used[:, 1:]).any(axis=1),
        "its frames' salience is not finite": ~np.isfinite(salience).all(axis=1),
        # The mean of cosines; NaN is not within, either.
        "its hubness is not within -1 to 1": ~(np.abs(hubness) <= 1 + _UNIT_TOLERANCE),
        "its embedding is not finite": ~finite,
        "its embedding is not of unit length": finite & (np.abs(length - 1) > _UNIT_TOLERANCE),
    }


def _wrong_lines(texts: lance.LanceDataset) -> Iterator[str]:
    seen: set[str] = set()
    columns = ["ingest_id", "kind", "start_seconds", "end_seconds", "language", "text"]
    first = 0
    for batch in texts.to_batches(columns=columns, batch_size=_SEGMENT_ROWS):
        for row, line in enumerate(batch.to_pylist()):
            for fault in _line_faults(line):
                if fault not in seen:
                    seen.add(fault)
                    yield f"line {first + row} of ingest {line['ingest_id']}: {fault}"
        first += batch.num_rows


def _line_faults(line: Mapping[str, Any]) -> Iterator[str]:
    if line["kind"] not in LINE_KINDS:
        yield "its kind is none that lines have"
    # Written so that NaN fails.
    if not 0 <= line["start_seconds"] <= line["end_seconds"] < float("inf"):
        yield "its times are not 0 <= start <= end"
    if language_code(line["language"]) != line["language"]:
        yield "its language is no code"
    if plain_text(line["text"], resolve=False) != line["text"] or not line["text"]:
        yield "its text is empty, too long, or cannot be shown"


def _wrong_frames(frames: lance.LanceDataset) -> Iterator[str]:
    seen: set[str] = set()
    first = 0
    before = (-1, -1)
    for batch in frames.to_batches(
        columns=["segment_index", "frame_index", "thumbnail"], batch_size=_FRAME_ROWS
    ):
        columns = (batch[name].to_pylist() for name in ("segment_index", "frame_index", "thumbnail"))
        for row, (segment, frame, thumbnail) in enumerate(zip(*columns, strict=True)):
            fault = _thumbnail_fault(thumbnail)
            if frame != 0 and (segment, frame) != (before[0], before[1] + 1):
                fault = f"frame {frame} of segment {segment} does not follow the one before"
            before = (segment, frame)
            kind = (fault or "").partition(" ")[0]
            if fault and kind not in seen:
                seen.add(kind)
                yield f"frame {frame} of segment {segment} (row {first + row} of frames): {fault}"
        first += batch.num_rows


def _thumbnail_fault(thumbnail: bytes) -> str | None:
    try:
        # Opening reads the header alone.
        with Image.open(io.BytesIO(thumbnail), formats=["JPEG"]) as image:
            if max(image.size) > _LONGEST_THUMBNAIL_SIDE:
                return f"thumbnail of {image.width} × {image.height} pixels"
    except Exception as error:  # whatever Pillow raises for it
        return f"thumbnail that is no JPEG ({type(error).__name__})"
    return None
