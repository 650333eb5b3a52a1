"""Every loss against its equation in loops: values, and gradients with respect to every input."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor

from model.families.feel.losses import (
    HardNegatives,
    Sequences,
    contrast,
    cs,
    gmr,
    hinge,
    mfm,
    mlm,
    span,
    triplet,
)
from tests.support import naive_feel as naive
from tests.support.tiny_feel import random

D, M, L = 5, 4, 3
#: real places of videos and of texts: ragged, and some without any
MASKS = {
    "ragged": ([4, 1, 3], [2, 3, 1]),
    "one empty text": ([4, 1, 3], [2, 0, 1]),
    "one empty video": ([4, 0, 3], [2, 3, 1]),
    "full": ([4, 4, 4], [3, 3, 3]),
}


def lengths_to_mask(lengths: list[int], longest: int) -> Tensor:
    return (torch.arange(longest)[None] < torch.tensor(lengths)[:, None]).float()


def leaf(*shape: int, seed: int) -> Tensor:
    return random(*shape, seed=seed, dtype=torch.float64).requires_grad_()


def make(masks: str) -> Sequences:
    videos, texts = MASKS[masks]
    b = len(videos)
    return Sequences(
        e_v=leaf(b, M, D, seed=0),
        e_t=leaf(b, L, D, seed=1),
        once_v=leaf(b, L, D, seed=2),
        once_t=leaf(b, M, D, seed=3),
        video_mask=lengths_to_mask(videos, M),
        text_mask=lengths_to_mask(texts, L),
        twice_v=leaf(b, M, D, seed=4),
        twice_t=leaf(b, L, D, seed=5),
    )


@dataclass
class Pooled:
    """The means of one pair, from loops over its real places."""

    e_v: Tensor
    e_t: Tensor
    once_v: Tensor
    once_t: Tensor
    twice_v: Tensor
    twice_t: Tensor


def pooled_pairs(x: Sequences) -> list[Pooled]:
    assert x.twice_v is not None
    assert x.twice_t is not None
    pairs = []
    for row in range(len(x.e_v)):
        video, text = x.video_mask, x.text_mask
        if video[row].sum() and text[row].sum():
            sources = [
                (x.e_v, video), (x.e_t, text), (x.once_v, text), (x.once_t, video),
                (x.twice_v, video), (x.twice_t, text),
            ]  # fmt: skip
            pairs.append(Pooled(*(naive.pool(naive.real_rows(y, mask, row)) for y, mask in sources)))
    return pairs


def leaves_of(x: Any) -> list[Tensor]:
    values = [getattr(x, f.name) for f in fields(x)]
    return [value for value in values if isinstance(value, Tensor) and value.requires_grad]


def assert_same(fast: Tensor, slow: list[Tensor], leaves: list[Tensor]) -> None:
    assert fast.shape == (len(slow),)
    expected = torch.stack(slow) if slow else fast * 0
    torch.testing.assert_close(fast.double(), expected.double(), rtol=1e-5, atol=1e-6)
    # Other weights of the rows tell rows apart that a sum would mix up.
    weights = torch.arange(1.0, len(slow) + 1, dtype=torch.float64)
    options: dict[str, Any] = {"retain_graph": True, "materialize_grads": True, "allow_unused": True}
    found = torch.autograd.grad((fast * weights).sum(), leaves, **options)
    wanted = torch.autograd.grad((expected * weights).sum(), leaves, **options)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stop", [True, False], ids=["stop", "literal"])
@pytest.mark.parametrize("masks", MASKS)
def test_gmr_is_equations_7_and_8(masks: str, stop: bool) -> None:
    x = make(masks)
    found, pairs = gmr(x, stop_gradient=stop), pooled_pairs(x)

    def target(y: Tensor) -> Tensor:
        return y.detach() if stop else y

    assert_same(found["gmr_t2v"], [naive.mse(target(p.e_v), p.once_v) for p in pairs], leaves_of(x))
    assert_same(found["gmr_v2t"], [naive.mse(target(p.e_t), p.once_t) for p in pairs], leaves_of(x))


@pytest.mark.parametrize("stop", [True, False], ids=["stop", "literal"])
@pytest.mark.parametrize("distance", ["mse", "euclidean"])
@pytest.mark.parametrize("masks", MASKS)
def test_cs_is_equations_12_and_15(masks: str, distance: str, stop: bool) -> None:
    x = make(masks)
    # With this margin some pairs cost nothing, and others do.
    found, pairs = cs(x, margin=0.3, distance=distance, stop_gradient=stop), pooled_pairs(x)

    def anchor(y: Tensor) -> Tensor:
        return y.detach() if stop else y

    text = [naive.triplet(anchor(p.e_t), p.twice_t, p.once_t, 0.3, distance) for p in pairs]
    video = [naive.triplet(anchor(p.e_v), p.twice_v, p.once_v, 0.3, distance) for p in pairs]
    assert_same(found["cs_t2v"], text, leaves_of(x))
    assert_same(found["cs_v2t"], video, leaves_of(x))
    values = [float(value.detach()) for value in (*text, *video)]
    assert any(values)
    assert masks != "full" or not all(values)


@pytest.mark.parametrize("stop", [True, False], ids=["stop", "literal"])
def test_a_hinge_above_zero_takes_all_gradient_of_gmr_away(stop: bool) -> None:
    """With equal weights the error of what is converted once cancels: only what is converted twice learns."""
    x = make("ragged")
    assert x.twice_v is not None
    assert x.twice_t is not None
    reconstruction, contrast = gmr(x, stop_gradient=stop), cs(x, margin=1e3, stop_gradient=stop)
    summed = torch.cat(list((reconstruction | contrast).values())).sum()
    once_v, once_t, twice_v = torch.autograd.grad(summed, [x.once_v, x.once_t, x.twice_v], retain_graph=True)
    for grad in (once_v, once_t):
        torch.testing.assert_close(grad, torch.zeros_like(grad), rtol=0, atol=1e-6)
    assert twice_v.abs().max() > 1e-3
    (alone,) = torch.autograd.grad(torch.cat(list(reconstruction.values())).sum(), [x.once_v])
    assert alone.abs().max() > 1e-3


def test_a_contrast_tells_videos_of_other_owners_apart() -> None:
    target, converted = random(5, 4, seed=1).requires_grad_(), random(5, 4, seed=2).requires_grad_()
    owners = [3, 1, 3, 0, 2]
    found = contrast(target, converted, torch.tensor(owners), 0.5)
    assert_same(found, naive.contrast(list(target.detach()), list(converted), owners, 0.5), [converted])
    (still,) = torch.autograd.grad(found.sum(), [target], allow_unused=True, materialize_grads=True)
    assert not still.any(), "targets do not move"
    right = contrast(target, 3 * target.detach() + 1, torch.tensor(owners), 0.01)
    assert right.max() < 1e-3, "neither length nor a common part matters"
    nothing = contrast(target[:0], converted[:0], torch.tensor(owners[:0]))
    assert nothing.shape == (0,)


def test_what_is_masked_has_no_influence() -> None:
    x = make("ragged")
    before = gmr(x) | cs(x, stop_gradient=False)
    with torch.no_grad():
        for y, mask in ((x.e_v, x.video_mask), (x.once_v, x.text_mask), (x.twice_t, x.text_mask)):
            assert y is not None
            y[mask == 0] = 1e6
    torch.testing.assert_close(gmr(x) | cs(x, stop_gradient=False), before)
    with pytest.raises(ValueError, match="twice_v and twice_t are missing"):
        cs(Sequences(x.e_v, x.e_t, x.once_v, x.once_t, x.video_mask, x.text_mask))


def test_no_pair_that_counts_gives_no_row_and_a_zero_gradient() -> None:
    x = make("full")
    nothing = Sequences(x.e_v, x.e_t, x.once_v, x.once_t, x.video_mask, x.text_mask * 0, x.twice_v, x.twice_t)
    losses = gmr(nothing, stop_gradient=False) | cs(nothing, stop_gradient=False)
    assert [len(value) for value in losses.values()] == [0] * 4
    summed = torch.cat(list(losses.values())).sum()
    for grad in torch.autograd.grad(summed, leaves_of(x), allow_unused=True, materialize_grads=True):
        assert grad.abs().max() == 0


def test_the_euclidean_triplet_has_a_finite_gradient_where_nothing_differs() -> None:
    same = torch.ones(2, 3, requires_grad=True)
    loss = triplet(same, same, same, 0.1, "euclidean")
    torch.testing.assert_close(loss.detach(), torch.full((2,), 0.1))
    (grad,) = torch.autograd.grad(loss.sum(), [same])
    assert grad.isfinite().all()


@pytest.mark.parametrize("others", [6, 1, 0])
def test_mfm_is_equations_5_and_6(others: int) -> None:
    embedded, recovered, rest = leaf(3, D, seed=0), leaf(3, D, seed=1), leaf(others, D, seed=2)
    slow = naive.mfm(embedded, recovered, rest)
    assert_same(mfm(embedded, recovered, rest), slow, [embedded, recovered, rest])
    if not others:
        assert mfm(embedded, recovered, rest).abs().max() == 0


def test_mfm_does_not_overflow() -> None:
    large = torch.full((2, 768), 30.0, requires_grad=True)
    loss = mfm(large, -large, large.detach()[:1])
    assert loss.isfinite().all()
    (grad,) = torch.autograd.grad(loss.sum(), [large])
    assert grad.isfinite().all()


@pytest.mark.parametrize("count", [4, 0])
def test_mlm_is_equation_4(count: int) -> None:
    logits = leaf(count, 7, seed=0)
    tokens = torch.randint(7, (count,), generator=torch.Generator().manual_seed(1))
    slow = [naive.cross_entropy(logits[i], int(tokens[i])) for i in range(count)]
    assert_same(mlm(logits, tokens), slow, [logits])


ALLOWED = {
    "all others": [[0, 1, 1, 1, 1], [1, 0, 1, 1, 1], [1, 1, 0, 1, 1]],
    "ragged": [[0, 0, 1, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 1]],
    "a row without negatives": [[0, 0, 0, 0, 0], [1, 0, 1, 1, 1], [1, 1, 0, 1, 1]],
}


@pytest.mark.parametrize("hard", [None, (2, 10.0, 0.1), (20, 10.0, 0.1), (0, 10.0, 0.1)])
@pytest.mark.parametrize("allowed", ALLOWED)
def test_hinge_is_heros_ranking_loss(allowed: str, hard: tuple[int, float, float] | None) -> None:
    positive, candidates = leaf(3, seed=0), leaf(3, 5, seed=1)
    mask = torch.tensor(ALLOWED[allowed], dtype=torch.bool)
    negatives = [[candidates[i, j] for j in range(5) if mask[i, j]] for i in range(3)]
    slow = naive.hinge(list(positive), negatives, 0.4, hard)
    chosen = None if hard is None else HardNegatives(*hard)
    assert_same(hinge(positive, candidates, mask, 0.4, chosen), slow, [positive, candidates])


def test_the_hardest_negatives_weigh_most_by_hand() -> None:
    positive = torch.tensor([0.5])
    candidates = torch.tensor([[0.9, 0.45, 0.6, 0.3, 0.5]])
    allowed = torch.tensor([[True, True, True, True, False]])
    # Above the margin of 0.1: .9 costs .5, .6 costs .2, .45 costs .05, .3 costs nothing.
    plain = hinge(positive, candidates, allowed, 0.1)
    torch.testing.assert_close(plain, torch.tensor([(0.5 + 0.2 + 0.05) / 4]))
    hard = hinge(positive, candidates, allowed, 0.1, HardNegatives(2, 10.0, 0.1))
    torch.testing.assert_close(hard, torch.tensor([(5.0 + 2.0 + 0.005) / 4]))


def test_span_is_the_cross_entropy_of_start_and_end() -> None:
    start, end = leaf(4, 6, seed=0), leaf(4, 6, seed=1)
    labels = torch.tensor([[0, 3], [-1, -1], [5, 5], [2, 4]])
    slow = [
        naive.cross_entropy(start[i], int(labels[i, 0])) + naive.cross_entropy(end[i], int(labels[i, 1]))
        for i in (0, 2, 3)
    ]
    assert_same(span(start, end, labels), slow, [start, end])
    assert span(start, end, torch.full((4, 2), -1)).shape == (0,)
    same = torch.zeros(1, 4)
    assert float(span(same, same, torch.tensor([[1, 2]]))) == pytest.approx(2 * math.log(4))
