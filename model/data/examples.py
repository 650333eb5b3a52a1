"""The examples of one training step, from which a family makes its batch: of pictures, or of features.

Shapes: B videos, F packed frames, N frame slots.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from model.arrays import Array, Rows
from model.data.feature_sets import FeatureItem


@dataclass(frozen=True)
class Examples:
    """Captioned videos. Frames are packed: a frame that several videos show is stored once."""

    frames: Tensor
    """Distinct frames: uint8 [F, h, w, 3], or the outputs of frozen stages, float [F, C, h', w']."""
    slots: Rows
    """int64 [B, N]: the packed frame that each slot shows; any value where masked."""
    frame_mask: Array
    """float32 [B, N], 1 for real frames; at least one in every row."""
    texts: tuple[str, ...]
    """A caption of each video, or a question about it, B of them."""
    video_ids: Rows
    """int64 [B]: pairs with the same id show the same video."""
    answers: tuple[str, ...] = ()
    """Where the texts are questions: the answer to each, B of them."""
    teacher: Tensor | None = None
    """[F, classes]: a published classifier's shares for each frame; rows of zeros do not count."""
    taught: Tensor | None = None
    """float [F, Ht]: another encoder's embedding of each frame; rows of zeros for frames without one."""
    counted: Tensor | None = None
    """With `taught`, bool [F]: false for frames that count for another process."""


@dataclass(frozen=True)
class FeatureExamples:
    """Videos or clips as features with timed text, and perhaps a query about each."""

    items: tuple[FeatureItem, ...]
    """B of them; one that several queries are about is there for each."""
    video_ids: Rows
    """int64 [B]: items with the same id are the same video."""
    queries: Rows | None = None
    """int64 [B]: the place of the query about each item among the item's; None: no queries are read."""
