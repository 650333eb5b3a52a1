"""Encoding decoded segments in batches across files."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from indexer.plan import Task
from indexer.schema import SegmentRow
from indexer.worker import DecodedSegment
from model.runtime.bundle import Bundle


def encode_segments(
    bundle: Bundle, batch: Sequence[tuple[Task, DecodedSegment]], pad_to: int | None = None
) -> list[SegmentRow]:
    """Encode segments of any files together.

    Args:
        bundle: the library's.
        batch: at least one segment, each with the task it belongs to.
        pad_to: fill the frames up to a multiple of this with black ones, so that a GPU sees one shape.

    Returns:
        A row a segment, in order.
    """
    counts = [len(segment.frames) for _, segment in batch]
    frames = np.concatenate([segment.frames for _, segment in batch])
    total = len(frames)
    if pad_to and total % pad_to:
        missing = pad_to - total % pad_to
        frames = np.concatenate([frames, np.zeros((missing, *frames.shape[1:]), np.uint8)])
    encoding = bundle.encode_frames(frames)
    ends = np.cumsum(counts)
    embedding, mask = _padded(encoding.embedding[:total], counts, bundle.manifest.frames_per_segment)
    joined = bundle.encode_segments(embedding, mask)
    rows = []
    for i, (task, segment) in enumerate(batch):
        rows.append(
            SegmentRow(
                video_id=task.video_id,
                ingest_id=task.ingest_id,
                segment_index=segment.index,
                start_seconds=segment.start_seconds,
                end_seconds=segment.end_seconds,
                frame_pts_seconds=segment.pts_seconds,
                frame_salience=encoding.salience[ends[i] - counts[i] : ends[i]],
                embedding=joined[i],
                thumbnails=segment.thumbnails,
            )
        )
    return rows


def _padded(
    embedding: NDArray[np.float32], counts: Sequence[int], most: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Frames one after the other to segments: [ΣN, D] → [B, N, D] and which are real, [B, N]."""
    out = np.zeros((len(counts), most, embedding.shape[1]), np.float32)
    mask = np.arange(most)[None, :] < np.asarray(counts)[:, None]
    out[mask] = embedding
    return out, mask
