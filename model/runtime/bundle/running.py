"""Runs open graphs on any number of rows, a part at a time, and checks their outputs.

Shapes: B batch or pairs, P' tokens a frame, H width of frame tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.runtime.bundle.encodings import TextEncoding, matcher_feed, text_lengths
from model.runtime.bundle.files import EXPORT_AGAIN
from model.runtime.bundle.sessions import Session
from model.runtime.errors import BundleError, OutputError

# Embeddings whose dot products are similarities. Those of frames may be joined as they are projected.
_COMPARED = frozenset({"segment_embedding", "text_embedding"})


def run_parts(
    session: Session, inputs: dict[str, NDArray[Any]], shapes: dict[str, tuple[int, ...]], max_batch: int
) -> dict[str, NDArray[np.float32]]:
    """Run a graph in parts of at most `max_batch` rows.

    Args:
        session: the open graph.
        inputs: by name, each [B, …].
        shapes: the shape of each wanted output without the batch dimension, by name.
        max_batch: rows of a part.

    Returns:
        The outputs by name, float32, each [B, …].

    Raises:
        BundleError: the graph fails, or an output has a wrong shape.
        OutputError: an output is not finite, or is an embedding of a segment or a text without unit length.
    """
    total = len(next(iter(inputs.values())))
    out = {name: np.empty((total, *shape), np.float32) for name, shape in shapes.items()}
    for start in range(0, total, max_batch):
        part = slice(start, start + max_batch)
        feed = {name: np.ascontiguousarray(value[part]) for name, value in inputs.items()}
        session.run_into({name: value[part] for name, value in out.items()}, feed)
    for name, value in out.items():
        if name in _COMPARED:
            _check_unit_length(session.path, name, value)
        elif not np.isfinite(value).all():
            raise OutputError(f"{session.path}: {name} holds NaN or infinity: {EXPORT_AGAIN}")
    return out


def run_matcher(
    session: Session,
    text: TextEncoding,
    text_rows: NDArray[np.int64],
    frame_tokens: NDArray[np.float32],
    max_pairs: int,
) -> NDArray[np.float32]:
    """Run the matcher on pairs that passed `check_pairs`, in parts of at most `max_pairs`.

    Args:
        session: the open matcher.
        text: the texts.
        text_rows: int64, shape [B]: each pair's text.
        frame_tokens: float32, shape [B, P', H]: each pair's frame.
        max_pairs: pairs of a part.

    Returns:
        float32, shape [B].

    Raises:
        ValueError: the matcher reads text tokens, and `text` has none.
        BundleError: the graph fails, or its output has a wrong shape or is not finite.
    """
    # Group texts of similar length: a part is padded to its longest text.
    order = np.argsort(text_lengths(text.attention_mask)[text_rows], kind="stable")
    in_order = bool((np.diff(order) == 1).all())
    out = np.empty(len(order), np.float32)
    for start in range(0, len(order), max_pairs):
        piece = slice(start, start + max_pairs)
        part = piece if in_order else order[piece]  # a slice copies nothing
        feed = matcher_feed(text, text_rows[part], frame_tokens[part], session.inputs)
        (logits,) = session.run(["match_logit"], feed)
        if logits.shape != out[part].shape or not np.isfinite(logits).all():
            raise BundleError(
                f"{session.path}: match_logit has shape {list(logits.shape)} or holds NaN or infinity, not "
                f"{list(out[part].shape)} finite numbers: {EXPORT_AGAIN}"
            )
        out[part] = logits
    return out


def _check_unit_length(path: Path, name: str, embedding: NDArray[np.float32]) -> None:
    """Check embeddings [B, D], for NaN too: scores are dot products, so they need vectors of unit length."""
    worst = np.abs(np.linalg.norm(embedding, axis=1) - 1).max()
    if not worst < 1e-2:
        raise OutputError(f"{path}: {name} is not of unit length (off by {worst:.3g}): {EXPORT_AGAIN}")
