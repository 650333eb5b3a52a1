"""The losses, as pure functions, with one value for each row that they concern; the objective averages.

Shapes: B videos with texts, M feature vectors, L text tokens, d width; K masked tokens or frames, J
negatives, W words of the vocabulary; R rows, C candidates of a row; Q queries. e'_v and e″_t have the text's
length L and its mask, e'_t and e″_v the video's length M and its mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.backbones.pooling import masked_mean

# Keeps the gradient of a length finite at 0.
_TINY = 1e-12


def mlm(logits: Tensor, tokens: Tensor) -> Tensor:
    """Masked language modelling (FEEL, eq. 4): −log P of each masked token.

    Shapes logits [K, W], tokens int64 [K], the true ones → [K].
    """
    return F.cross_entropy(logits, tokens, reduction="none")


def mfm(embedded: Tensor, recovered: Tensor, others: Tensor) -> Tensor:
    """Masked frame modelling with noise contrastive estimation (FEEL, eq. 5 and 6).

    The paper's exp(a, bᵀ) is read as the exponential of the dot product, scaled by 1/√d as in attention.

    With both kinds of vectors in each other's place (o_v of the masked frames, e_v of these, and e_v of the
    unmasked ones) it is HERO's form.

    Args:
        embedded: e_v of the masked frames, made of their features unmasked, shape [K, d].
        recovered: o_v at their places, which saw the mask, shape [K, d].
        others: o_v of the unmasked frames of the batch, shape [J, d].

    Returns:
        shape [K]; zeros where there are no others.
    """
    scale = embedded.shape[-1] ** -0.5
    positive = (embedded * recovered).sum(-1, keepdim=True) * scale
    negative = embedded @ others.T * scale
    each: Tensor = torch.logsumexp(torch.cat([positive, negative], 1), 1) - positive[:, 0]
    return each


@dataclass(frozen=True)
class Sequences:
    """What GMR and CS read, of any family, with the masks of both modalities.

    Shapes e_v, twice_v [B, M, d], once_v [B, L, d]; e_t, twice_t [B, L, d], once_t [B, M, d]; video_mask
    [B, M], text_mask [B, L]. Pairs without a real vector in one of the modalities do not count.
    """

    e_v: Tensor
    e_t: Tensor
    once_v: Tensor
    once_t: Tensor
    video_mask: Tensor
    text_mask: Tensor
    twice_v: Tensor | None = None
    twice_t: Tensor | None = None

    def counts(self) -> Tensor:
        """Which pairs count, bool [B]."""
        return (self.video_mask > 0).any(1) & (self.text_mask > 0).any(1)

    def pooled(self, x: Tensor, mask: Tensor) -> Tensor:
        """m(x) of the pairs that count: the mean over real places. Shapes [B, S, d], [B, S] → [R, d]."""
        whole = self.counts()
        return masked_mean(x[whole].float(), mask[whole].float())


def gmr(x: Sequences, *, stop_gradient: bool = True) -> dict[str, Tensor]:
    """Global modality reconstruction.

    Args:
        x: the embeddings and what they were converted to once.
        stop_gradient: the targets m(e_v) and m(e_t) get no gradient, so that they cannot collapse towards
            what is reconstructed; false: as written.

    Returns:
        `gmr_t2v` (FEEL, eq. 7) and `gmr_v2t` (eq. 8), each [R] for the pairs that count; their sum is eq. 9.
    """
    video, text = x.pooled(x.e_v, x.video_mask), x.pooled(x.e_t, x.text_mask)
    if stop_gradient:
        video, text = video.detach(), text.detach()
    return {
        "gmr_t2v": _mse(video, x.pooled(x.once_v, x.text_mask)),
        "gmr_v2t": _mse(text, x.pooled(x.once_t, x.video_mask)),
    }


def cs(
    x: Sequences, *, margin: float = 0.1, distance: str = "mse", stop_gradient: bool = True
) -> dict[str, Tensor]:
    """Cross-modal self-contrasting: what was converted twice is nearer to the origin than what was once.

    Eq. 15 has e'_t where the text speaks of the video; e'_v is read, in the space of e_v.

    Args:
        x: the embeddings and what they were converted to, once and twice.
        margin: by how much it must be nearer.
        distance: `mse` as in eq. 7 and 8, or `euclidean`.
        stop_gradient: the anchors m(e_v) and m(e_t) get no gradient; false: as written.

    Returns:
        `cs_t2v` (FEEL, eq. 12) and `cs_v2t` (eq. 15), each [R] for the pairs that count; their sum is eq. 16.

    Raises:
        ValueError: nothing was converted twice.
    """
    if x.twice_v is None or x.twice_t is None:
        raise ValueError("twice_v and twice_t are missing: convert back with twice=True")
    video, text = x.pooled(x.e_v, x.video_mask), x.pooled(x.e_t, x.text_mask)
    if stop_gradient:
        video, text = video.detach(), text.detach()
    text_twice, text_once = x.pooled(x.twice_t, x.text_mask), x.pooled(x.once_t, x.video_mask)
    video_twice, video_once = x.pooled(x.twice_v, x.video_mask), x.pooled(x.once_v, x.text_mask)
    return {
        "cs_t2v": triplet(text, text_twice, text_once, margin, distance),
        "cs_v2t": triplet(video, video_twice, video_once, margin, distance),
    }


def contrast(target: Tensor, converted: Tensor, owners: Tensor, temperature: float = 0.1) -> Tensor:
    """Which video was converted, among those of a batch: ours, not of the paper.

    The losses of the paper compare a video with its own text alone. Vectors are compared by their cosine,
    after the mean of each side is taken off: what all videos share hides what tells them apart.

    Args:
        target: m(e_v) or m(e_t), without a gradient, shape [R, d].
        converted: m(e'_v) or m(e'_t), shape [R, d].
        owners: int64 [R]; rows with the same number show the same video, and are no negatives of each other.
        temperature: cosines are divided by it.

    Returns:
        shape [R]: the mean of the cross-entropies of a target among all that was converted, and of what was
        converted among all targets.
    """
    if not len(target):
        return converted.sum(1)
    one, other = (F.normalize(x - x.mean(0), dim=-1) for x in (target.detach(), converted))
    row = torch.arange(len(target), device=target.device)
    same = (owners[:, None] == owners[None, :]) & (row[:, None] != row[None, :])
    logits = (one @ other.T / temperature).masked_fill(same, float("-inf"))
    ways = [F.cross_entropy(x, row, reduction="none") for x in (logits, logits.T)]
    return (ways[0] + ways[1]) / 2


def triplet(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float, distance: str) -> Tensor:
    """δ of eq. 12 and 15: max(0, distance to the positive − distance to the negative + margin).

    Shapes [R, d] three times → [R].
    """
    between = _mse if distance == "mse" else _euclidean
    return (between(anchor, positive) - between(anchor, negative) + margin).clamp_min(0.0)


def _mse(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().mean(-1)


def _euclidean(a: Tensor, b: Tensor) -> Tensor:
    return ((a - b).square().sum(-1) + _TINY).sqrt()


@dataclass(frozen=True)
class HardNegatives:
    """The `count` negatives of a row with the highest scores weigh `weight`, its others `rest`."""

    count: int = 20
    weight: float = 10.0
    rest: float = 0.1


def hinge(
    positive: Tensor, candidates: Tensor, allowed: Tensor, margin: float, hard: HardNegatives | None = None
) -> Tensor:
    """HERO's ranking loss: the mean of max(0, margin + candidate − positive) over the allowed candidates.

    Args:
        positive: cosine of each row's query and its own video, shape [R].
        candidates: cosines with other videos, or of other queries, shape [R, C].
        allowed: bool [R, C], the candidates that are negatives of a row.
        margin: by which the positive must exceed each.
        hard: weights by how hard a negative is; None: all weigh 1.

    Returns:
        shape [R]; 0 for a row without negatives.
    """
    each = (margin + candidates - positive[:, None]).clamp_min(0.0)
    weight = allowed.to(each.dtype)
    if hard is not None:
        scores = candidates.detach().masked_fill(~allowed, float("-inf"))
        rank = scores.argsort(dim=1, descending=True, stable=True).argsort(1)
        weight = weight * torch.where(rank < hard.count, hard.weight, hard.rest)
    return (each * weight).sum(1) / allowed.sum(1).clamp_min(1)


def span(start_logits: Tensor, end_logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the start plus that of the end, among a video's frames.

    Shapes logits [Q, M], about −10⁴ at masked frames; labels int64 [Q, 2], first and last frame, −1 for a
    query without a span → [R], one for each query with a span.
    """
    known = (labels >= 0).all(1)
    start = F.cross_entropy(start_logits[known], labels[known, 0], reduction="none")
    return start + F.cross_entropy(end_logits[known], labels[known, 1], reduction="none")
