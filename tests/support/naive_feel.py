"""The equations of FEEL in loops over rows, places and entries, with gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Vectors = Sequence[Tensor]


def total(values: Sequence[Tensor]) -> Tensor:
    out = torch.zeros((), dtype=torch.float64)
    for value in values:
        out = out + value
    return out


def mean(values: Sequence[Tensor]) -> Tensor:
    return total(values) / len(values)


def pool(rows: Vectors) -> Tensor:
    """m: the mean of the real vectors of one sequence."""
    return torch.stack([mean([row[i] for row in rows]) for i in range(len(rows[0]))])


def mse(a: Tensor, b: Tensor) -> Tensor:
    return mean([(a[i] - b[i]) ** 2 for i in range(len(a))])


def euclidean(a: Tensor, b: Tensor) -> Tensor:
    return total([(a[i] - b[i]) ** 2 for i in range(len(a))]).sqrt()


def triplet(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float, kind: str) -> Tensor:
    between = {"mse": mse, "euclidean": euclidean}[kind]
    value = between(anchor, positive) - between(anchor, negative) + margin
    return value if value > 0 else value * 0


def dot(a: Tensor, b: Tensor) -> Tensor:
    return total([a[i] * b[i] for i in range(len(a))])


def contrast(
    targets: Sequence[Tensor], converted: Sequence[Tensor], owners: Sequence[int], temperature: float
) -> list[Tensor]:
    """For each row the cross-entropy of its cosine among those of other owners, in both directions."""
    one, other = mean(targets), mean(converted)
    a, b = [x - one for x in targets], [x - other for x in converted]
    cosines = [[dot(x, y) / (dot(x, x) * dot(y, y)).sqrt() / temperature for y in b] for x in a]
    out = []
    for i, owner in enumerate(owners):
        kept = [j for j, one_owner in enumerate(owners) if j == i or one_owner != owner]
        rows = total([torch.exp(cosines[i][j]) for j in kept])
        columns = total([torch.exp(cosines[j][i]) for j in kept])
        out.append((torch.log(rows) + torch.log(columns)) / 2 - cosines[i][i])
    return out


def real_rows(x: Tensor, mask: Tensor, row: int) -> list[Tensor]:
    return [x[row, place] for place in range(x.shape[1]) if mask[row, place]]


def mfm(embedded: Tensor, recovered: Tensor, others: Tensor) -> list[Tensor]:
    """Eq. 5 and 6 for each masked frame."""
    out = []
    for e, o in zip(embedded, recovered, strict=True):
        scale = len(e) ** 0.5
        positive = torch.exp(dot(e, o) / scale)
        negative = [torch.exp(dot(e, other) / scale) for other in others]
        out.append(-torch.log(positive / (positive + total(negative))))
    return out


def hinge(
    positive: Sequence[Tensor],
    negatives: Sequence[Sequence[Tensor]],
    margin: float,
    hard: tuple[int, float, float] | None,
) -> list[Tensor]:
    """HERO's loss of each row, of the scores of its negatives."""
    out = []
    for own, others in zip(positive, negatives, strict=True):
        row = []
        for rank, other in enumerate(sorted(others, key=lambda x: -float(x.detach()))):
            value = margin + other - own
            weight = 1.0 if hard is None else hard[1] if rank < hard[0] else hard[2]
            row.append(weight * value if value > 0 else value * 0)
        out.append(mean(row) if row else own * 0)
    return out


def cross_entropy(logits: Tensor, label: int) -> Tensor:
    return torch.log(total([torch.exp(logit) for logit in logits])) - logits[label]
