"""Equations 3 to 9 of the LGDN paper in loops over single vectors: the references of the losses' tests."""

from __future__ import annotations

import torch
from torch import Tensor

Rows = list[Tensor]


def cos(a: Tensor, b: Tensor) -> Tensor:
    similarity: Tensor = (a * b).sum() / (a.norm() * b.norm())
    return similarity


def exp_cos(a: Tensor, b: Tensor, tau: Tensor) -> Tensor:
    return torch.exp(cos(a, b) / tau)


def foreign(entries: Tensor, owners: Tensor, video: int) -> Rows:
    """The entries of a bank that are negatives of a video: slots that are filled, by another video."""
    return [entry for entry, owner in zip(entries, owners.tolist(), strict=True) if owner not in (-1, video)]


def total(terms: Rows) -> Tensor:
    """The sum of terms, one by one; 0 of none."""
    return sum(terms, torch.zeros(()))


def mean(losses: Rows) -> Tensor:
    return total(losses) / len(losses)


def contrast(anchors: Tensor, positives: Tensor, negatives: list[Rows], tau: Tensor) -> Tensor:
    """Eq. 3, and eq. 4 the other way around. `negatives[i]` are those of pair i."""
    losses = []
    for anchor, positive, others in zip(anchors, positives, negatives, strict=True):
        top = exp_cos(anchor, positive, tau)
        losses.append(-torch.log(top / (top + total([exp_cos(anchor, q, tau) for q in others]))))
    return mean(losses)


def text_to_frames(texts: Tensor, sets: list[Rows], negatives: list[Rows], tau: Tensor, msl: bool) -> Tensor:
    """Eq. 6; without MSL each positive frame has a loss of its own. `sets[i]` are f̂ of S_i."""
    losses = []
    for text, frames, others in zip(texts, sets, negatives, strict=True):
        bottom = total([exp_cos(text, q, tau) for q in others])
        tops = [exp_cos(text, frame, tau) for frame in frames]
        if msl:
            losses.append(-torch.log(total(tops) / (total(tops) + bottom)))
        else:
            losses.append(mean([-torch.log(top / (top + bottom)) for top in tops]))
    return mean(losses)


def frames_to_text(sets: list[Rows], texts: Tensor, negatives: list[Rows], tau: Tensor, msl: bool) -> Tensor:
    """Eq. 7; its denominator goes over every frame of S_i with every banked text. `sets[i]` are f of S_i."""
    losses = []
    for frames, text, others in zip(sets, texts, negatives, strict=True):
        tops = [exp_cos(frame, text, tau) for frame in frames]
        bottoms = [total([exp_cos(frame, q, tau) for q in others]) for frame in frames]
        if msl:
            losses.append(-torch.log(total(tops) / (total(tops) + total(bottoms))))
        else:
            each = zip(tops, bottoms, strict=True)
            losses.append(mean([-torch.log(top / (top + bottom)) for top, bottom in each]))
    return mean(losses)


def matching(logits: Rows, labels: list[int]) -> Tensor:
    """Eq. 9: logits of single frame-text pairs [2] and whether they match."""
    return mean(
        [
            -torch.log(torch.exp(pair[y]) / (torch.exp(pair[0]) + torch.exp(pair[1])))
            for pair, y in zip(logits, labels, strict=True)
        ]
    )
