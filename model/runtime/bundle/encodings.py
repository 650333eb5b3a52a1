"""What a bundle's encoders return, and the pairs of a text and a frame that its matcher takes.

Shapes: B batch or pairs, P tokens a frame, P' as many or fewer, L text tokens, H width of frame tokens,
T of text tokens, D joint space, S salience.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class FrameEncoding:
    """Encoded frames: `embedding` [B, D], `salience` [B, S], `tokens` [B, P, H] or None.

    The segment encoder reads the embeddings. They have unit length, unless the model joins frames as they are
    projected.
    """

    embedding: NDArray[np.float32]
    salience: NDArray[np.float32]
    tokens: NDArray[np.float32] | None


@dataclass(frozen=True)
class SegmentEncoding:
    """Encoded segments with F frames in all: `embedding` [B, D] of unit length, and of the frames, in order,
    `salience` [F, S] and `tokens` [F, P, H] or None. S is 0 where the model says nothing of single frames.
    """

    embedding: NDArray[np.float32]
    salience: NDArray[np.float32]
    tokens: NDArray[np.float32] | None


@dataclass(frozen=True)
class TextEncoding:
    """Encoded texts: `embedding` [B, D] of unit length, `salience` [B, S], `tokens` [B, L, T] or None.

    `attention_mask` and `input_ids` are int64 [B, L]; the mask is 1 on tokens. S is 0 where the model says
    nothing of single frames.
    """

    embedding: NDArray[np.float32]
    salience: NDArray[np.float32]
    tokens: NDArray[np.float32] | None
    attention_mask: NDArray[np.int64]
    input_ids: NDArray[np.int64]


def checked_mask(
    frame_mask: NDArray[np.bool_] | NDArray[np.float32], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """The mask of the real frames of segments as graphs read it, float32 [B, N].

    Raises:
        ValueError: it has another shape or other values than 0 and 1, or a segment has no frame.
    """
    mask = np.asarray(frame_mask)
    if mask.shape != shape:
        raise ValueError(f"frame_mask has shape {list(mask.shape)}: pass {list(shape)}")
    if not np.isin(mask, (0, 1)).all():
        raise ValueError("frame_mask holds other values than 0 and 1: pass booleans")
    empty = np.flatnonzero(mask.sum(axis=1) == 0)
    if len(empty):
        raise ValueError(f"frame_mask[{empty[0]}] has no frame: give every segment at least one")
    return mask.astype(np.float32)


def check_pairs(
    text: TextEncoding,
    rows: NDArray[np.int64],
    frame_tokens: NDArray[np.float32],
    hidden: int,
    most: int,
) -> None:
    """Check the matcher's inputs.

    Raises:
        ValueError: there is no pair, a row is not in `text`, or a dtype or shape is wrong.
    """
    expected = f"float32 [B, P', {hidden}] with B ≥ 1 and 1 ≤ P' ≤ {most}"
    shape = np.shape(frame_tokens)
    if getattr(frame_tokens, "dtype", None) != np.float32:
        raise ValueError(f"frame_tokens is {getattr(frame_tokens, 'dtype', '?')}: pass {expected}")
    if len(shape) != 3 or shape[0] == 0 or not 1 <= shape[1] <= most or shape[2] != hidden:
        raise ValueError(f"frame_tokens has shape {list(shape)}: pass {expected}")
    check_text_rows(text, rows, shape[0])


def check_text_rows(text: TextEncoding, rows: NDArray[np.int64], count: int) -> None:
    """Check the rows of `count` texts.

    Raises:
        ValueError: a row is not in `text`, or a dtype or shape is wrong.
    """
    if rows.shape != (count,) or rows.dtype.kind not in "iu":
        raise ValueError(f"text_rows is {rows.dtype} {list(rows.shape)}: pass int64 [{count}]")
    texts = len(text.attention_mask)
    if rows.min() < 0 or rows.max() >= texts:
        wrong = rows[(rows < 0) | (rows >= texts)][0]
        raise ValueError(f"text_rows holds {wrong}: there are {texts} texts, 0 to {texts - 1}")


def text_lengths(attention_mask: NDArray[np.int64]) -> NDArray[np.int64]:
    """The number of columns up to the last token of each text. int64 [B, L] → int64 [B]."""
    width = attention_mask.shape[1]
    lengths: NDArray[np.int64] = width - np.argmax(attention_mask[:, ::-1] != 0, axis=1)
    return lengths


def stack_texts(texts: Sequence[TextEncoding]) -> TextEncoding:
    """Join encodings of texts into one, padded to the longest text."""
    length = max(text.attention_mask.shape[1] for text in texts)

    def pad(values: NDArray[np.generic]) -> NDArray[np.generic]:
        rest = [(0, 0), (0, length - values.shape[1])] + [(0, 0)] * (values.ndim - 2)
        return np.pad(values, rest)

    tokens = [text.tokens for text in texts if text.tokens is not None]
    return TextEncoding(
        np.concatenate([text.embedding for text in texts]),
        np.concatenate([text.salience for text in texts]),
        np.concatenate([pad(each) for each in tokens]).astype(np.float32, copy=False) if tokens else None,
        np.concatenate([pad(text.attention_mask) for text in texts]).astype(np.int64, copy=False),
        np.concatenate([pad(text.input_ids) for text in texts]).astype(np.int64, copy=False),
    )


def matcher_feed(
    text: TextEncoding, rows: NDArray[np.int64], frame_tokens: NDArray[np.float32], inputs: frozenset[str]
) -> dict[str, NDArray[Any]]:
    """The matcher's inputs for the pairs of one call, cut to the length of their longest text.

    The answer head reads the same, with several frames for each text.

    Raises:
        ValueError: the matcher reads text tokens, and `text` has none.
    """
    length = int(text_lengths(text.attention_mask[rows]).max())
    feed: dict[str, NDArray[Any]] = {
        "attention_mask": np.ascontiguousarray(text.attention_mask[rows, :length]),
        "frame_tokens": np.ascontiguousarray(frame_tokens),
    }
    if "input_ids" in inputs:
        feed["input_ids"] = np.ascontiguousarray(text.input_ids[rows, :length])
    elif text.tokens is None:
        raise ValueError("text has no tokens, which the matcher reads: pass encode_text(texts, tokens=True)")
    else:
        feed["text_tokens"] = np.ascontiguousarray(text.tokens[rows, :length])
    return feed
