"""Runs every graph of an open bundle once: what cannot be told from its files.

Batches are of two rows: a graph with a fixed batch of one fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from model.runtime.bundle.files import EXPORT_AGAIN
from model.runtime.bundle.graphs import VIDEO_ENCODER
from model.runtime.errors import BundleError

if TYPE_CHECKING:
    from model.runtime.bundle.reader import Bundle

#: What embeddings of the same frames may differ by when other pixels follow these.
_PADDING_TOLERANCE = 1e-3


def check_graphs(bundle: Bundle) -> None:
    """Open every graph and run each once.

    Raises:
        BundleError: a graph cannot be opened or run, its outputs differ from the manifest, or pixels count
            that a segment does not have.
    """
    if bundle.manifest.has_video_encoder:
        embedding, tokens = _check_video_encoder(bundle), None
    else:
        embedding, tokens = _check_frame_and_segment_encoder(bundle)
    text = bundle.encode_text(["a", "a dog runs along the beach"], tokens=tokens is not None)
    text_rows = np.array([0, 1])
    if "match" in bundle.capabilities and tokens is not None:
        bundle.match(text, text_rows, tokens)
        bundle.match(text, text_rows, tokens[:, :1])
    if "answers" in bundle.capabilities and tokens is not None:
        pair = np.stack([tokens, tokens[::-1]])
        bundle.answer(text, text_rows, pair, np.array([[True, True], [True, False]]))
        bundle.answer(text, text_rows, pair[:, :1, :1])
    if "moments" in bundle.capabilities:
        # One frame and several, padded and not: a graph with a fixed number fails.
        shown = np.stack([embedding, embedding])
        bundle.moments(text.embedding, shown, np.array([[True, True], [False, True]]))
        bundle.moments(text.embedding[:1], shown[:1, :1])


def _pictures(size: int) -> NDArray[np.uint8]:
    """Two pictures, one black, uint8 [2, size, size, 3]."""
    pictures = np.zeros((2, size, size, 3), np.uint8)
    pictures[1] = np.arange(size * size * 3, dtype=np.uint8).reshape(size, size, 3)
    return pictures


def _check_frame_and_segment_encoder(
    bundle: Bundle,
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """The embeddings of two frames, [2, D], and their tokens, [2, P, H]."""
    manifest = bundle.manifest
    encoding = bundle.encode_frames(_pictures(manifest.image.size), tokens=manifest.tokens is not None)
    mask = np.ones((2, manifest.frames_per_segment), np.bool_)
    mask[1, 1:] = False
    bundle.encode_segments(np.repeat(encoding.embedding[:, None], mask.shape[1], axis=1), mask)
    return encoding.embedding, encoding.tokens


def _check_video_encoder(bundle: Bundle) -> NDArray[np.float32]:
    """The embeddings of two segments, [2, D]."""
    manifest = bundle.manifest
    count = manifest.frames_per_segment
    black, picture = _pictures(manifest.image.size)
    segments = np.broadcast_to(picture, (2, count, *picture.shape)).copy()
    segments[0, 1:] = black
    whole = bundle.encode_videos(segments, np.ones((2, count), np.bool_))
    one = np.zeros((2, count), np.bool_)
    one[:, 0] = True
    single = bundle.encode_videos(segments, one)
    difference = float(np.abs(single.embedding[0] - single.embedding[1]).max())
    if count > 1 and difference > _PADDING_TOLERANCE:
        raise BundleError(
            f"{bundle.folder}: {VIDEO_ENCODER} lets frames count that frame_mask leaves out (embeddings of "
            f"one frame differ by {difference:.3g}): {EXPORT_AGAIN}"
        )
    return whole.embedding
