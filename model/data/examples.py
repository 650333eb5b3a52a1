"""The examples of one training step, before a family makes its own batch of them.

Shapes: B videos, F packed frames, N frame slots.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from model.arrays import Array, Rows


@dataclass(frozen=True)
class Examples:
    """Captioned videos. Frames are packed: a frame that several videos show is there once."""

    frames: Tensor
    """Distinct frames: uint8 [F, h, w, 3], or the outputs of frozen stages, float [F, C, h', w']."""
    slots: Rows
    """int64 [B, N]: the packed frame that each slot shows; any of them where masked."""
    frame_mask: Array
    """float32 [B, N], 1 for real frames; some in every row."""
    texts: tuple[str, ...]
    """A caption of each video, B of them."""
    video_ids: Rows
    """int64 [B]: pairs with the same id show the same video."""
    teacher: Tensor | None = None
    """[F, classes]: what a published classifier says of the frames; rows of zeros do not count."""
