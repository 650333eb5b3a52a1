"""Measures what writing a library and publishing it take, without decoding and encoding."""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from indexer.encode import EncodeSpec, TaskSegment, encode_batch
from indexer.library.folder import Library, make_layout
from indexer.library.manifest import SNAPSHOTS
from indexer.library.publish import PublishOptions, publish
from indexer.library.schema import FileRow, SegmentRow
from indexer.library.writer import LibraryWriter
from model.runtime.bundle import Bundle
from model.runtime.files import sha256_of
from service.bench.indexing import Timing, timed
from service.bench.publishing import Video, make_videos
from service.bench.stage_rates import PublishingRates
from service.bench.synthetic import now, path_of, put_video, video_row

#: A commit of the writer, see `indexer.sink`.
_SEGMENTS_A_COMMIT = 128
_CHECKSUM_BYTES = 64 << 20


def measure_writing(
    bundle: Bundle, segments: Sequence[TaskSegment], *, batch_frames: int, count: int, repeats: int
) -> Timing:
    """Least time to write `count` segments with their pictures into a new library, each as a video.

    Args:
        bundle: encodes the segments.
        segments: at least one; they are written again and again.
        batch_frames: as in `EncodeSpec`.
        count: how many are written.
        repeats: how often, into a new library each time.
    """
    spec = EncodeSpec.of(bundle, make_layout(bundle, None, None), batch_frames)
    encoded = [row for part in segments for row in encode_batch(bundle, spec, [part])]
    rows = [row for row in encoded if isinstance(row, SegmentRow)]
    timings = [_write(bundle, rows, count) for _ in range(repeats)]
    return Timing(min(each.seconds for each in timings), min(each.cpu_seconds for each in timings))


def _write(bundle: Bundle, rows: Sequence[SegmentRow], count: int) -> Timing:
    made = now()
    with tempfile.TemporaryDirectory() as name:
        library = Library.open_or_create(Path(name) / "library", bundle)
        with library.writing():
            writer = LibraryWriter(library)

            def write() -> None:
                for number in range(count):
                    row = rows[number % len(rows)]
                    video = video_row(number, made, frames_a_segment=len(row.thumbnails))
                    writer.add_segments([replace(row, ingest_id=video.ingest_id, segment_index=0)])
                    writer.finish(video)
                    writer.put_file(FileRow(path_of(video), video.video_id, 1, made))
                    if number % _SEGMENTS_A_COMMIT == _SEGMENTS_A_COMMIT - 1:
                        writer.flush()
                writer.flush()

            return timed(write)


def measure_publishing_rates(bundle: Bundle, *, segments: int, repeats: int) -> PublishingRates:
    """What publishing takes, at least: of two libraries of vectors, the larger one of `segments`, and of
    checksums.
    """
    videos = list(make_videos(bundle.manifest.embedding_dim, range(max(2, segments // 50))))
    small, large = videos[: len(videos) // 10 or 1], videos
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        first = second = math.inf
        for turn in range(repeats):
            first = min(first, _publish_vectors(root / f"small-{turn}", bundle, small)[0])
            seconds, index_bytes = _publish_vectors(root / f"large-{turn}", bundle, large)
            second = min(second, seconds)
        file = root / "file"
        file.write_bytes(bytes(_CHECKSUM_BYTES))
        checksum = min(timed(partial(sha256_of, file)).seconds for _ in range(repeats))
    few, many = (sum(video.num_segments for video, _ in part) for part in (small, large))
    per_segment = max(0.0, second - first) / (many - few)
    return PublishingRates(
        elapsed_seconds=max(0.0, first - per_segment * few),
        elapsed_seconds_per_segment=per_segment,
        elapsed_seconds_per_byte=checksum / _CHECKSUM_BYTES,
        index_bytes_per_segment=index_bytes / many,
        segments=many,
    )


def _publish_vectors(folder: Path, bundle: Bundle, videos: Sequence[Video]) -> tuple[float, int]:
    """Publish a library without pictures. → Seconds of publishing, size of its vector index."""
    library = Library.open_or_create(folder, bundle, tokens="none")
    with library.writing():
        writer = LibraryWriter(library)
        for video in videos:
            put_video(writer, *video)
        writer.flush()
        seconds = timed(lambda: publish(writer, PublishOptions(), last=True)).seconds
    return seconds, size_of(folder / SNAPSHOTS)


def size_of(folder: Path) -> int:
    """The bytes of all files in a folder and below it."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
