"""What evaluation needs of a model: a checkpoint in memory and an exported bundle answer alike.

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
    """How a model wants videos read and ranked; what serving uses where nothing else is asked for."""

    image_size: int
    resize: ResizeRule
    frames_per_segment: int
    segment_seconds: float
    num_salient_frames: int
    num_candidates: int
    ensemble_lambda: float
    #: tokens that the index keeps of a frame, merged; None: all
    tokens_per_frame: int | None


class Encoder(Protocol):
    """What evaluation needs of a model."""

    @property
    def profile(self) -> Profile:
        """How videos are read and ranked."""

    @property
    def has_matcher(self) -> bool:
        """Whether `match` works."""

    def frames(self, frames: Frames, *, tokens: bool = False) -> FrameEncoding:
        """Shape uint8 [B, size, size, 3]; the encoding has tokens where they are asked for."""

    def segments(self, frames: Array, mask: Array) -> Array:
        """Shapes [B, N, D], [B, N] → [B, D]."""

    def texts(self, texts: Sequence[str], *, tokens: bool = False) -> TextEncoding:
        """B texts; the encoding has tokens where they are asked for."""

    def match(self, text: TextEncoding, text_rows: NDArray[np.int64], frame_tokens: Array) -> Array:
        """Each pair's text by its row, and its frame. int64 [B], [B, P, H] → match logits [B]."""
