"""The losses, as pure functions of embeddings; every one has a naive twin in the tests.

Shapes: B batch, F frames, M bank entries, C classes, D joint space. Embeddings are L2-normalised, so a dot
product is the cosine of the paper's equations.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Negatives:
    """Stored momentum embeddings and the video each belongs to; an owner of -1 marks a slot not yet filled.

    Shapes: videos [M, D], texts [M, D], owners int64 [M].
    """

    videos: Tensor
    texts: Tensor
    owners: Tensor

    def allowed(self, video_ids: Tensor) -> Tensor:
        """Which entries are negatives of which pair: filled, and of another video. [B] → bool [B, M]."""
        return (self.owners[None, :] >= 0) & (self.owners[None, :] != video_ids[:, None])

    def join(self, videos: Tensor, texts: Tensor, owners: Tensor) -> Negatives:
        """These entries followed by others of the same kind."""
        return Negatives(
            torch.cat([self.videos, videos]), torch.cat([self.texts, texts]), torch.cat([self.owners, owners])
        )


def info_nce(
    anchor: Tensor, positive: Tensor, negatives: Tensor, allowed: Tensor, temperature: Tensor
) -> Tensor:
    """-log of the positive's share among the positive and the allowed negatives, mean over the batch.

    Shapes anchor, positive [B, D], negatives [M, D], allowed bool [B, M], temperature scalar → scalar.
    Without any allowed negative the loss is 0.
    """
    pos = (anchor * positive).sum(-1, keepdim=True) / temperature
    neg = (anchor @ negatives.T / temperature).masked_fill(~allowed, float("-inf"))
    return (torch.logsumexp(torch.cat([pos, neg], 1), 1) - pos[:, 0]).mean()


def mvcl(
    video: Tensor,
    text: Tensor,
    video_momentum: Tensor,
    text_momentum: Tensor,
    video_ids: Tensor,
    negatives: Negatives,
    temperature: Tensor,
) -> dict[str, Tensor]:
    """Momentum video-level contrastive learning.

    Shapes: the four embeddings [B, D], video_ids int64 [B].

    Returns:
        `v2t` (eq. 3), `t2v` (eq. 4) and their sum `mvcl` (eq. 5).
    """
    allowed = negatives.allowed(video_ids)
    v2t = info_nce(video, text_momentum, negatives.texts, allowed, temperature)
    t2v = info_nce(text, video_momentum, negatives.videos, allowed, temperature)
    return {"v2t": v2t, "t2v": t2v, "mvcl": v2t + t2v}


def retention(logits: Tensor, teacher: Tensor) -> Tensor:
    """Keep what the backbone knew: cross-entropy of its class logits to the published classifier's shares.

    A small caption set shows few things; the published classifier tells a thousand.
    Shapes logits [F, C], teacher [F, C], rows that sum to 1 → scalar.
    """
    return -(teacher * F.log_softmax(logits, -1)).sum(-1).mean()
