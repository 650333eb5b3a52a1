"""The interface through which evaluation uses a model: a checkpoint in memory, or an exported bundle.

Shapes: B batch or pairs, N frame slots, P tokens a frame, H width of frame tokens, D joint space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.arrays import Array, Frames
from model.runtime.bundle import FrameEncoding, TextEncoding
from model.runtime.preprocessing import ResizeRule


@dataclass(frozen=True)
class Profile:
    """How videos are sampled and ranked for a model, unless options say otherwise."""

    image_size: int
    resize: ResizeRule
    frames_per_segment: int
    segment_seconds: float
    num_salient_frames: int
    num_candidates: int
    ensemble_lambda: float
    #: tokens of a frame that the index keeps, merged; None: all
    tokens_per_frame: int | None


class Encoder(Protocol):
    """A model, as evaluation uses it."""

    @property
    def profile(self) -> Profile:
        """How videos are sampled and ranked."""

    @property
    def has_matcher(self) -> bool:
        """Whether `match` works."""

    def frames(self, frames: Frames, *, tokens: bool = False) -> FrameEncoding:
        """Encode frames uint8 [B, size, size, 3]; `tokens`: with their tokens, if the model has any."""

    def segments(self, frames: Array, mask: Array) -> Array:
        """Embed segments. Shapes frame embeddings [B, N, D], mask [B, N], 1 for real frames → [B, D]."""

    def texts(self, texts: Sequence[str], *, tokens: bool = False) -> TextEncoding:
        """Encode B texts; `tokens`: with their tokens, if the model has any."""

    def match(self, text: TextEncoding, text_rows: NDArray[np.int64], frame_tokens: Array) -> Array:
        """Match pairs: int64 [B], each one's row in `text`, and frames [B, P, H] → logits [B]."""
