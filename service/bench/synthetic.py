"""Rows of synthetic libraries: what is measured in them does not depend on pictures."""

from collections.abc import Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from indexer.file_facts import FACTS_VERSION
from indexer.library.folder import Library
from indexer.library.schema import SegmentRow, VideoRow
from indexer.plan import text_sources

SEGMENT_SECONDS = 8.0


def video_row(
    number: int,
    now: datetime,
    *,
    sha256: str | None = None,
    size: int = 1,
    num_segments: int = 1,
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
        num_frames=num_segments,
        indexed_at=now,
        text_sources=text_sources(()),
        facts_version=FACTS_VERSION,
    )


def segment_rows(
    library: Library, video: VideoRow, embeddings: Sequence[NDArray[np.float32]]
) -> list[SegmentRow]:
    """Segments of a video, each with one frame; no tokens, and salience of zeros."""
    salience = np.zeros((1, library.layout.salience_dim), np.float32)
    return [
        SegmentRow(
            ingest_id=video.ingest_id,
            segment_index=index,
            start_seconds=index * SEGMENT_SECONDS,
            end_seconds=(index + 1) * SEGMENT_SECONDS,
            frame_pts_seconds=np.array([index * SEGMENT_SECONDS]),
            frame_salience=salience,
            embedding=embedding,
            thumbnails=(b"none",),
            tokens=None,
            hubness=None if library.layout.hubness_weight is None else 0.0,
        )
        for index, embedding in enumerate(embeddings)
    ]
