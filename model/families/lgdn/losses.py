"""The losses, as pure functions of embeddings.

Shapes: B batch, N frames, F packed frames, M bank entries, C classes, D joint space. Embeddings are
L2-normalised, so a dot product is the cosine of the paper's equations.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Negatives:
    """Momentum embeddings of other pairs, and the video that each belongs to; -1 marks an empty slot.

    Shapes: videos [M, D], texts [M, D], owners int64 [M], frames [K, D], frame_owners int64 [K].
    """

    videos: Tensor
    texts: Tensor
    owners: Tensor
    frames: Tensor
    frame_owners: Tensor

    def allowed(self, video_ids: Tensor) -> Tensor:
        """Which videos and texts are negatives of each pair: those of other videos. [B] → bool [B, M]."""
        return _foreign(self.owners, video_ids)

    def allowed_frames(self, video_ids: Tensor) -> Tensor:
        """Which frames are negatives of each pair. [B] → bool [B, K]."""
        return _foreign(self.frame_owners, video_ids)

    def join(self, other: Negatives) -> Negatives:
        """These entries, followed by those of `other`."""
        return Negatives(
            torch.cat([self.videos, other.videos]),
            torch.cat([self.texts, other.texts]),
            torch.cat([self.owners, other.owners]),
            torch.cat([self.frames, other.frames]),
            torch.cat([self.frame_owners, other.frame_owners]),
        )


def _foreign(owners: Tensor, video_ids: Tensor) -> Tensor:
    return (owners[None, :] >= 0) & (owners[None, :] != video_ids[:, None])


def _masked_logsumexp(logits: Tensor, mask: Tensor) -> Tensor:
    """Over the last axis where `mask` is true; −inf, with a zero gradient, for a row without any."""
    if logits.shape[-1] == 0:
        return logits.new_full(logits.shape[:-1], float("-inf"))
    some = mask.any(-1)
    # An empty row would give NaN gradients: it is computed on zeros and replaced.
    safe = logits.masked_fill(~mask, float("-inf")).masked_fill(~some[..., None], 0.0)
    return torch.logsumexp(safe, -1).masked_fill(~some, float("-inf"))


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


def mfcl(
    frames: Tensor,
    text: Tensor,
    frames_momentum: Tensor,
    text_momentum: Tensor,
    positives: Tensor,
    video_ids: Tensor,
    negatives: Negatives,
    temperature: Tensor,
    msl: bool = True,
) -> dict[str, Tensor]:
    """Momentum frame-level contrastive learning over the positive frames S_i of each video.

    Args:
        frames: f^e, shape [B, N, D].
        text: f^l, shape [B, D].
        frames_momentum: f̂^e, shape [B, N, D].
        text_momentum: f̂^l, shape [B, D].
        positives: S_i, bool [B, N]: the salient frames, or all real ones in the warm-up; at least one a row.
        video_ids: int64 [B].
        negatives: the frame and text banks.
        temperature: τ.
        msl: multiple salient-instance learning: the positives of a text are one set, of which some must be
            near (MIL-NCE). False: every one must be near, the row "w/o MSL" of Table 2.

    Returns:
        `t2e` (eq. 6), `e2t` (eq. 7) and their sum `mfcl` (eq. 8).
    """
    t2e_pos = torch.einsum("bd,bnd->bn", text, frames_momentum) / temperature
    t2e_neg = _masked_logsumexp(
        text @ negatives.frames.T / temperature, negatives.allowed_frames(video_ids)
    )  # [B]
    e2t_pos = torch.einsum("bnd,bd->bn", frames, text_momentum) / temperature
    e2t_each = _masked_logsumexp(
        frames @ negatives.texts.T / temperature,
        negatives.allowed(video_ids)[:, None, :].expand(*positives.shape, -1),
    )  # [B, N]
    if msl:
        e2t_neg = _masked_logsumexp(e2t_each, positives & e2t_each.isfinite())
        t2e = _share_lost(_masked_logsumexp(t2e_pos, positives), t2e_neg).mean()
        e2t = _share_lost(_masked_logsumexp(e2t_pos, positives), e2t_neg).mean()
    else:
        count = positives.sum(1).clamp_min(1)
        t2e = ((_share_lost(t2e_pos, t2e_neg[:, None]) * positives).sum(1) / count).mean()
        e2t = ((_share_lost(e2t_pos, e2t_each) * positives).sum(1) / count).mean()
    return {"t2e": t2e, "e2t": e2t, "mfcl": t2e + e2t}


def _share_lost(positive: Tensor, negative: Tensor) -> Tensor:
    """-log(e^positive / (e^positive + e^negative)); 0 where there is no negative."""
    return F.softplus(negative - positive)


def lsfm(logits: Tensor, matched: Tensor) -> Tensor:
    """Language-guided salient frame matching: cross-entropy over frame-text pairs (eq. 9), one for each pair.

    Shapes logits [B, 2], matched bool [B] → [B].
    """
    return F.cross_entropy(logits, matched.long(), reduction="none")


def retention(logits: Tensor, teacher: Tensor) -> Tensor:
    """Keep what the backbone knew: cross-entropy of its class logits to the published classifier's shares.

    A small set of captions shows few things; the published classifier tells a thousand apart.
    Shapes logits [F, C], teacher [F, C], rows that sum to 1 → one loss for each frame [F].
    """
    return -(teacher * F.log_softmax(logits, -1)).sum(-1)


def distillation(frames: Tensor, taught: Tensor) -> Tensor:
    """How far frames are from where another encoder puts them: 1 − cosine.

    Shapes [F, D], [F, D] → one loss for each frame [F].
    """
    return 1 - (frames * taught).sum(-1)
