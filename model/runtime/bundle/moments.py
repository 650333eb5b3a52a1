"""The moment head of a bundle: its inputs, and its logits for every frame.

Shapes: B pairs of a text and a video, F consecutive frames, D joint space.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.runtime.bundle.running import run_parts
from model.runtime.bundle.sessions import Session

# Pairs of frames that a part holds at once, at most: attention compares each frame with each other.
_FRAME_PAIRS = 1 << 20
_NEGLIGIBLE = 1e4


@dataclass(frozen=True)
class MomentLogits:
    """What a moment head says about each frame. A softmax over the frames gives p_start and p_end.

    Padding has −10⁴ in `start` and `end`, and 10⁴ in `rejection`.

    Attributes:
        start: that the moment starts here, float32 [B, F].
        end: that it ends here, float32 [B, F].
        rejection: the log-odds that the frame is part of no answer, float32 [B, F].
    """

    start: NDArray[np.float32]
    end: NDArray[np.float32]
    rejection: NDArray[np.float32]

    @property
    def film_rejection(self) -> NDArray[np.float32]:
        """The log-odds that no frame is part of an answer: the lowest of the frames. float32 [B]"""
        lowest: NDArray[np.float32] = self.rejection.min(axis=1)
        return lowest


def check_moments(
    text_query: NDArray[np.float32],
    frame_embedding: NDArray[np.float32],
    frame_mask: NDArray[np.bool_] | NDArray[np.float32],
    dim: int,
) -> None:
    """Check the inputs of `Bundle.moments`.

    Raises:
        ValueError: a dtype or shape is wrong, a number is not finite, there is no row, or a row has no frame.
    """
    expected = f"float32 [B, F, {dim}] with B ≥ 1 and F ≥ 1"
    for name, value in (("text_query", text_query), ("frame_embedding", frame_embedding)):
        if getattr(value, "dtype", None) != np.float32:
            raise ValueError(f"{name} is {getattr(value, 'dtype', '?')}: pass float32")
        if not np.isfinite(value).all():
            raise ValueError(f"{name} holds NaN or infinity: put zeros where there is no frame")
    shape = frame_embedding.shape
    if len(shape) != 3 or 0 in shape[:2] or shape[2] != dim:
        raise ValueError(f"frame_embedding has shape {list(shape)}: pass {expected}")
    if text_query.shape != (shape[0], dim):
        raise ValueError(f"text_query has shape {list(text_query.shape)}: pass {[shape[0], dim]}")
    # Booleans need no look: it takes longer than all else here.
    is_mask = frame_mask.dtype == np.bool_ or bool(np.isin(frame_mask, (0, 1)).all())
    if frame_mask.shape != shape[:2] or not is_mask:
        raise ValueError(
            f"frame_mask has shape {list(frame_mask.shape)}: pass booleans of shape {list(shape[:2])}"
        )
    empty = np.flatnonzero(~(frame_mask > 0).any(axis=1))
    if len(empty):
        raise ValueError(f"frame_mask[{empty[0]}] has no frame: give every row at least one")


def run_moment_head(
    session: Session,
    text_query: NDArray[np.float32],
    frame_embedding: NDArray[np.float32],
    frame_mask: NDArray[np.bool_],
    max_batch: int,
) -> MomentLogits:
    """Run the moment head on inputs that passed `check_moments`, in parts of at most `max_batch` rows.

    Raises:
        BundleError: the graph fails, or an output has a wrong shape.
        OutputError: an output is not finite.
    """
    frames = frame_embedding.shape[1]
    inputs = {
        "text_query": text_query,
        "frame_embedding": frame_embedding,
        "frame_mask": frame_mask.astype(np.float32),
    }
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(
        ("start_logit", "end_logit", "rejection_logit"), (frames,)
    )
    rows = max(1, min(max_batch, _FRAME_PAIRS // frames**2))
    out = run_parts(session, inputs, shapes, rows)
    # The format fixes what padding has, whatever a graph returns there.
    padding = {"start_logit": -_NEGLIGIBLE, "end_logit": -_NEGLIGIBLE, "rejection_logit": _NEGLIGIBLE}
    start, end, rejection = (
        np.where(frame_mask, out[name], np.float32(value)) for name, value in padding.items()
    )
    return MomentLogits(start, end, rejection)
