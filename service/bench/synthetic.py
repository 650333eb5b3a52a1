"""Rows of synthetic libraries: what is measured in them does not depend on pictures."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.file_facts import FACTS_VERSION
from indexer.library.folder import Library
from indexer.library.publish import PublishOptions, publish
from indexer.library.schema import FileRow, SegmentRow, VideoRow
from indexer.library.writer import LibraryWriter
from indexer.plan import text_sources
from model.runtime.bundle import Bundle

SEGMENT_SECONDS = 8.0
_VIDEOS_A_COMMIT = 2000


def video_row(
    number: int,
    now: datetime,
    *,
    sha256: str | None = None,
    size: int = 1,
    num_segments: int = 1,
    frames_a_segment: int = 1,
    fps: float = 25.0,
) -> VideoRow:
    """The row of a video that was read; `sha256` and `size`, in bytes, are those of a real file, if given."""
    checksum = f"{number:032x}{number:032x}" if sha256 is None else sha256
    return VideoRow(
        video_id=checksum[:32],
        ingest_id=f"{number:016x}",
        sha256=checksum,
        bytes=size,
        duration_seconds=num_segments * SEGMENT_SECONDS,
        fps=fps,
        width=64,
        height=48,
        codec="h264",
        container="mp4",
        title=None,
        verdict="ok",
        reason=None,
        num_segments=num_segments,
        num_frames=num_segments * frames_a_segment,
        indexed_at=now,
        text_sources=text_sources(()),
        facts_version=FACTS_VERSION,
    )


def segment_rows(
    library: Library, video: VideoRow, embeddings: Sequence[NDArray[np.float32]]
) -> list[SegmentRow]:
    """Segments of a video with its number of frames; no tokens, and salience of zeros."""
    frames = video.num_frames // max(video.num_segments, 1)
    salience = np.zeros((frames, library.layout.salience_dim), np.float32)
    return [
        SegmentRow(
            ingest_id=video.ingest_id,
            segment_index=index,
            start_seconds=index * SEGMENT_SECONDS,
            end_seconds=(index + 1) * SEGMENT_SECONDS,
            frame_pts_seconds=(index + np.arange(frames) / frames) * SEGMENT_SECONDS,
            frame_salience=salience,
            embedding=embedding,
            thumbnails=(b"none",) * frames,
            tokens=None,
            hubness=None if library.layout.hubness_weight is None else 0.0,
        )
        for index, embedding in enumerate(embeddings)
    ]


def put_video(writer: LibraryWriter, video: VideoRow, embeddings: Sequence[NDArray[np.float32]]) -> None:
    """Include a video, in a file that there is not, in the next commit."""
    writer.add_segments(segment_rows(writer.library, video, embeddings))
    writer.finish(video)
    writer.put_file(FileRow(path_of(video), video.video_id, 1, video.indexed_at))


def path_of(video: VideoRow) -> bytes:
    """The place of a video that `put_video` has added."""
    return f"/bench/{video.video_id}.mp4".encode()


def make_library(
    folder: Path, bundle: Bundle, videos: Iterable[tuple[VideoRow, Sequence[NDArray[np.float32]]]]
) -> Library:
    """A published library of videos, each with the embeddings of its segments."""
    library = Library.open_or_create(folder, bundle, tokens="none")
    with library.writing():
        writer = LibraryWriter(library)
        for number, (video, embeddings) in enumerate(videos, 1):
            put_video(writer, video, embeddings)
            if number % _VIDEOS_A_COMMIT == 0:
                writer.flush()
        writer.flush()
        publish(writer, PublishOptions(), last=True)
    return library


def now() -> datetime:
    """When the rows are said to have been made."""
    return datetime.now(UTC)
