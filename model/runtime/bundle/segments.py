"""Encodes segments with any bundle, whichever graphs embed them. Indexing and evaluation both use this.

Shapes: B segments, F frames of all of them, N frames a segment at most, D joint space, S salience, P tokens a
frame, H their width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from model.runtime.bundle.encodings import SegmentEncoding
from model.runtime.bundle.reader import Bundle

_Value = TypeVar("_Value", bound=np.generic)


def encode_whole_segments(
    bundle: Bundle,
    frames: NDArray[np.uint8],
    counts: Sequence[int],
    *,
    tokens: bool = False,
    pad_to: int | None = None,
) -> SegmentEncoding:
    """Encode segments by the frames that each shows.

    A frame encoder and a segment encoder read the frames that there are. A video encoder reads N for each
    segment: one that cannot do with fewer repeats them inside its graph.

    Args:
        bundle: the model.
        frames: those of all segments in order, uint8, shape [F, size, size, 3].
        counts: how many of them each segment has, B numbers from 1 to N.
        tokens: also compute and return the tokens.
        pad_to: run multiples of so many frames (or of as many segments as have so many), so that a GPU sees
            one shape; None: as many as there are.

    Raises:
        ValueError: dtype or shape is wrong, or there is no segment.
        BundleError: `tokens` is set for a bundle without tokens, a graph fails, or its outputs differ from
            the manifest.
    """
    most = bundle.manifest.frames_per_segment
    if bundle.manifest.has_video_encoder:
        if tokens:
            bundle.token_sizes()
        shown, mask = grouped(frames, counts, most)
        total = len(shown)
        rows = None if pad_to is None else max(1, pad_to // most)
        encoding = bundle.encode_videos(_padded(shown, rows, 0), _padded(mask, rows, 1))
        return SegmentEncoding(encoding.embedding[:total], encoding.salience[: len(frames)], None)
    encoded = bundle.encode_frames(_padded(frames, pad_to, 0), tokens=tokens)
    embedding = bundle.encode_segments(*grouped(encoded.embedding[: len(frames)], counts, most))
    kept = None if encoded.tokens is None else encoded.tokens[: len(frames)]
    return SegmentEncoding(embedding, encoded.salience[: len(frames)], kept)


def grouped(
    values: NDArray[_Value], counts: Sequence[int], most: int
) -> tuple[NDArray[_Value], NDArray[np.bool_]]:
    """What belongs to frames, by segment: [F, …] → [B, N, …], and a mask [B, N], true for real frames."""
    out = np.zeros((len(counts), most, *values.shape[1:]), values.dtype)
    mask = np.arange(most)[None, :] < np.asarray(counts)[:, None]
    out[mask] = values
    return out, mask


def _padded(values: NDArray[_Value], multiple: int | None, value: int) -> NDArray[_Value]:
    """Rows of `value` added up to a multiple; None: none."""
    missing = -len(values) % multiple if multiple else 0
    if not missing:
        return values
    return np.concatenate([values, np.full((missing, *values.shape[1:]), value, values.dtype)])
