"""Questions about a video's frames: the answers that a bundle knows, and how likely each is.

Shapes: B questions, n salient frames, P' tokens a frame, H width of frame tokens, L text tokens, A answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

from model.runtime.bundle.encodings import TextEncoding, check_text_rows, matcher_feed
from model.runtime.bundle.files import EXPORT_AGAIN
from model.runtime.bundle.graphs import ANSWERS
from model.runtime.bundle.sessions import Session
from model.runtime.errors import BundleError, OutputError


@dataclass(frozen=True)
class Answers:
    """What a bundle answers to B questions.

    Attributes:
        vocabulary: the A answers that it knows.
        logits: float32 [B, A].
    """

    vocabulary: tuple[str, ...]
    logits: NDArray[np.float32]

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """The share of each answer, the softmax of its logits. float32 [B, A], each row sums to 1."""
        shifted = np.exp(self.logits - self.logits.max(axis=1, keepdims=True))
        shares: NDArray[np.float32] = shifted / shifted.sum(axis=1, keepdims=True)
        return shares

    def best(self, count: int = 1) -> list[list[tuple[str, float]]]:
        """The likeliest answers to each question with their probabilities, the likeliest first.

        Raises:
            ValueError: `count` is below 1.
        """
        if count < 1:
            raise ValueError(f"count is {count}: ask for at least 1 answer")
        shares = self.probabilities
        order = np.argsort(-shares, axis=1, kind="stable")[:, :count]
        return [
            [(self.vocabulary[place], float(row[place])) for place in places]
            for row, places in zip(shares, order, strict=True)
        ]


def read_answers(folder: Path) -> tuple[str, ...]:
    """The answers of a bundle, in the order of its answer head's logits.

    Raises:
        BundleError: the file is not a JSON list of different texts.
    """
    path = folder / ANSWERS
    try:
        values = from_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read as JSON ({error}): {EXPORT_AGAIN}") from error
    if not isinstance(values, list) or not values:
        raise BundleError(f"{path} must be a list of answers that is not empty: {EXPORT_AGAIN}")
    for number, value in enumerate(values):
        if not isinstance(value, str) or not value.strip():
            raise BundleError(f"{path}: entry {number} is {value!r}, not a text: {EXPORT_AGAIN}")
    if len(set(values)) < len(values):
        twice = next(value for place, value in enumerate(values) if value in values[:place])
        raise BundleError(f"{path} holds {twice!r} twice: {EXPORT_AGAIN}")
    return tuple(values)


def check_questions(
    text: TextEncoding,
    rows: NDArray[np.int64],
    frame_tokens: NDArray[np.float32],
    frame_mask: NDArray[np.float32],
    hidden: int,
    most: int,
) -> None:
    """Check the inputs of `Bundle.answer`.

    Raises:
        ValueError: there is no question, a row is not in `text`, a question has no frame, or a dtype or shape
            is wrong.
    """
    expected = f"float32 [B, n, P', {hidden}] with B ≥ 1, n ≥ 1 and 1 ≤ P' ≤ {most}"
    shape = np.shape(frame_tokens)
    if getattr(frame_tokens, "dtype", None) != np.float32:
        raise ValueError(f"frame_tokens is {getattr(frame_tokens, 'dtype', '?')}: pass {expected}")
    if len(shape) != 4 or 0 in shape[:2] or not 1 <= shape[2] <= most or shape[3] != hidden:
        raise ValueError(f"frame_tokens has shape {list(shape)}: pass {expected}")
    if frame_mask.shape != shape[:2] or not np.isin(frame_mask, (0, 1)).all():
        raise ValueError(
            f"frame_mask has shape {list(frame_mask.shape)}: pass booleans of shape {list(shape[:2])}"
        )
    empty = np.flatnonzero(frame_mask.sum(axis=1) == 0)
    if len(empty):
        raise ValueError(f"frame_mask[{empty[0]}] has no frame: give every question at least one")
    check_text_rows(text, rows, len(frame_tokens))


def run_answer_head(
    session: Session,
    text: TextEncoding,
    text_rows: NDArray[np.int64],
    frame_tokens: NDArray[np.float32],
    frame_mask: NDArray[np.float32],
    answers: int,
    max_pairs: int,
) -> NDArray[np.float32]:
    """Run the answer head on inputs that passed `check_questions`, in parts.

    Args:
        session: the open graph.
        text: the questions.
        text_rows: int64, shape [B]: the text of each.
        frame_tokens: float32, shape [B, n, P', H].
        frame_mask: 0 or 1, shape [B, n].
        answers: A.
        max_pairs: pairs of a question and a frame in one part, at most, but at least one question.

    Returns:
        float32, shape [B, A].

    Raises:
        ValueError: the graph reads text tokens, and `text` has none.
        BundleError: the graph fails, or its output has a wrong shape.
        OutputError: its output is not finite.
    """
    step = max(1, max_pairs // frame_tokens.shape[1])
    out = np.empty((len(text_rows), answers), np.float32)
    for start in range(0, len(text_rows), step):
        part = slice(start, start + step)
        feed = matcher_feed(text, text_rows[part], frame_tokens[part], session.inputs)
        feed["frame_mask"] = np.ascontiguousarray(frame_mask[part])
        (logits,) = session.run(["answer_logit"], feed)
        if logits.shape != out[part].shape:
            raise BundleError(
                f"{session.path}: answer_logit has shape {list(logits.shape)} instead of "
                f"{list(out[part].shape)}: {EXPORT_AGAIN}"
            )
        out[part] = logits
    if not np.isfinite(out).all():
        raise OutputError(f"{session.path}: answer_logit holds NaN or infinity: {EXPORT_AGAIN}")
    return out
