"""The query encoder, the scores of videos and the moment head against loops over one row at a time."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor

from model.families.feel.moments import MomentHead, QueryEncoder, span_label, video_scores
from tests.support.tiny_feel import random, stir

LENGTHS, FRAMES = [4, 1, 3], [6, 2, 5]
MASK = (torch.arange(4)[None] < torch.tensor(LENGTHS)[:, None]).long()
FRAME_MASK = (torch.arange(6)[None] < torch.tensor(FRAMES)[:, None]).float()


def norm(x: Tensor, layer: torch.nn.LayerNorm) -> Tensor:
    centred = x - x.mean()
    return centred / (centred.square().mean() + layer.eps).sqrt() * layer.weight + layer.bias


def naive_query(module: QueryEncoder, tokens: Tensor) -> Tensor:
    """One query without padding. Shape [L, d] → [d]."""
    d, heads = tokens.shape[1], module.heads
    x = []
    for i, token in enumerate(tokens):
        hidden = module.input.weight @ norm(token, module.input_norm) + module.input.bias
        x.append(norm(hidden.clamp_min(0) + module.positions[i], module.position_norm))
    qkv = [module.qkv.weight @ each + module.qkv.bias for each in x]
    rows, size = [], d // heads
    for i, each in enumerate(x):
        parts = []
        for head in range(heads):
            q, k, v = (slice(n * d + head * size, n * d + (head + 1) * size) for n in range(3))
            logits = torch.stack([qkv[i][q] @ other[k] / size**0.5 for other in qkv])
            share = logits.exp() / logits.exp().sum()
            parts.append(sum((s * other[v] for s, other in zip(share, qkv, strict=True)), torch.zeros(size)))
        attended = module.attention_out.weight @ torch.cat(parts) + module.attention_out.bias
        rows.append(norm(each + attended, module.attention_norm))
    weights = torch.stack([module.weight.weight[0] @ row for row in rows]).exp()
    return sum((w / weights.sum() * row for w, row in zip(weights, rows, strict=True)), torch.zeros(d))


def test_query_encoder_is_heros() -> None:
    torch.manual_seed(0)
    module = stir(QueryEncoder(8, 2, 6, 0.1)).eval()
    tokens = random(3, 4, 8, seed=1).requires_grad_()
    found = module(tokens, MASK)
    slow = torch.stack([naive_query(module, tokens[i, :length]) for i, length in enumerate(LENGTHS)])
    torch.testing.assert_close(found, slow, rtol=1e-4, atol=1e-5)
    weight = random(3, 8, seed=2)
    leaves = [tokens, *module.parameters()]
    for one, other in zip(
        torch.autograd.grad((found * weight).sum(), leaves, retain_graph=True),
        torch.autograd.grad((slow * weight).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_the_score_of_a_video_is_that_of_its_best_real_frame() -> None:
    query, frames = random(2, 8, seed=0).requires_grad_(), random(3, 6, 8, seed=1).requires_grad_()
    found = video_scores(query, frames, FRAME_MASK)
    slow = torch.stack(
        [
            torch.stack(
                [
                    torch.stack(
                        [q @ frames[v, m] / q.norm() / frames[v, m].norm() for m in range(count)]
                    ).max()
                    for v, count in enumerate(FRAMES)
                ]
            )
            for q in query
        ]
    )
    torch.testing.assert_close(found, slow)
    weight = random(2, 3, seed=2)
    for one, other in zip(
        torch.autograd.grad((found * weight).sum(), [query, frames], retain_graph=True),
        torch.autograd.grad((slow * weight).sum(), [query, frames]),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kernel", [5, 3, 1])
def test_moment_head_is_a_product_and_two_convolutions(kernel: int) -> None:
    torch.manual_seed(0)
    head = stir(MomentHead(8, kernel))
    query, frames = random(3, 8, seed=1).requires_grad_(), random(3, 6, 8, seed=2).requires_grad_()
    found = head(query, frames, FRAME_MASK)
    for logits, conv in zip(found, (head.start, head.end), strict=True):
        assert logits.shape == (3, 6)
        for row, count in enumerate(FRAMES):
            projected = head.query.weight @ query[row] + head.query.bias
            s = [projected @ frames[row, m] for m in range(count)]
            slow = torch.stack(
                [
                    sum(
                        (
                            conv.weight[0, 0, k] * s[m + k - kernel // 2]
                            for k in range(kernel)
                            if 0 <= m + k - kernel // 2 < count
                        ),
                        torch.zeros(()),
                    )
                    for m in range(count)
                ]
            )
            torch.testing.assert_close(logits[row, :count], slow, rtol=1e-4, atol=1e-5)
            assert (logits[row, count:] == -10000).all()
            leaves = [query, frames, conv.weight]
            weight = random(count, seed=row)
            for one, other in zip(
                torch.autograd.grad((logits[row, :count] * weight).sum(), leaves, retain_graph=True),
                torch.autograd.grad((slow * weight).sum(), leaves, retain_graph=True),
                strict=True,
            ):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_padding_changes_no_moment() -> None:
    """The last real frames are beside padding, which must not reach them through the convolution."""
    torch.manual_seed(0)
    head = stir(MomentHead(8))
    query, frames = random(1, 8, seed=1), random(1, 6, 8, seed=2)
    padded = torch.cat([frames, torch.full((1, 3, 8), 50.0)], 1)
    mask = torch.cat([torch.ones(1, 6), torch.zeros(1, 3)], 1)
    with torch.no_grad():
        for short, long in zip(head(query, frames, torch.ones(1, 6)), head(query, padded, mask), strict=True):
            torch.testing.assert_close(long[:, :6], short)


@pytest.mark.parametrize(
    ("start", "end", "count", "label"),
    [
        (0.0, 3.0, 20, (0, 1)),
        (1.4, 6.1, 20, (0, 4)),
        (1.5, 6.0, 20, (1, 3)),
        # A span of one frame is made two frames long, where there is room.
        (4.6, 5.0, 20, (3, 4)),
        (27.0, 31.0, 20, (18, 19)),
        (29.9, 30.0, 20, (19, 19)),
        # A description that ends after its video, as some do.
        (40.0, 50.0, 20, (19, 19)),
        (0.0, 1.0, 1, (0, 0)),
    ],
)
def test_labels_are_heros(start: float, end: float, count: int, label: tuple[int, int]) -> None:
    assert span_label(start, end, 1.5, count) == label
    if start < 1.5 * count and count > 1:
        first = int(np.floor(start / 1.5))
        assert label == (first, min(max(int(np.ceil(end / 1.5)) - 1, first + 1), count - 1))
