"""The moment head and its loss: padding, length, order, gradients, and the loss against loops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor

from model.families.moment_head.losses import moment_losses
from model.families.moment_head.network import FilmMomentHead, MomentHeadConfig
from model.runtime.errors import InputError

SMALL = MomentHeadConfig(dim=12, channels=8, layers=2, heads=2)


def head(config: MomentHeadConfig = SMALL) -> FilmMomentHead:
    torch.manual_seed(0)
    model = FilmMomentHead(config).eval()
    # Parameters that start as constants would hide errors.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def film(rows: int, frames: int, seed: int = 0) -> tuple[Any, Any]:
    generator = torch.Generator().manual_seed(seed)
    query = torch.nn.functional.normalize(torch.randn(rows, 12, generator=generator), dim=-1)
    shown = torch.nn.functional.normalize(torch.randn(rows, frames, 12, generator=generator), dim=-1)
    return query, shown


def test_padding_changes_nothing() -> None:
    query, shown = film(3, 9)
    model = head()
    mask = torch.ones(3, 9)
    mask[0, 4:], mask[1, 1:] = 0, 0
    noise = torch.where(mask[..., None] > 0, shown, torch.randn(3, 9, 12))
    with torch.no_grad():
        padded = model(query, noise, mask)
        for row, count in enumerate((4, 1, 9)):
            alone = model(query[row : row + 1], shown[row : row + 1, :count], torch.ones(1, count))
            for many, one, outside in zip(padded, alone, (-1e4, -1e4, 1e4), strict=True):
                torch.testing.assert_close(many[row, :count], one[0], atol=1e-5, rtol=1e-4)
                assert (many[row, count:] == outside).all()


def test_no_absolute_position() -> None:
    # The logits of a film's middle do not change if what is far away is moved: there, the same frames stay
    # beside each other. A film twice, after a cut, has the same logits up to what attention mixes in.
    query, shown = film(1, 6)
    model = head(MomentHeadConfig(dim=12, channels=8, layers=1, heads=2, kernel=1))
    with torch.no_grad():
        cast(Tensor, model.blocks[0].relation).zero_()
        twice = torch.cat([shown, shown], dim=1)
        start, _, rejection = model(query, twice, torch.ones(1, 12))
    # Frames 1 to 4 and 7 to 10 have the same neighbours up to two frames away, except at the ends.
    torch.testing.assert_close(start[0, 2:4], start[0, 8:10], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(rejection[0, 2:4], rejection[0, 8:10], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("frames", [1, 2, 300])
def test_any_number_of_frames(frames: int) -> None:
    query, shown = film(2, frames)
    with torch.no_grad():
        logits = head()(query, shown, torch.ones(2, frames))
    assert all(values.shape == (2, frames) and values.isfinite().all() for values in logits)


def test_all_weights_learn() -> None:
    query, shown = film(4, 10)
    model = head().train()
    start, end = torch.tensor([0, 3, 5, -1]), torch.tensor([2, 4, 9, -1])
    losses_of(model(query, shown, torch.ones(4, 10)), start, end, torch.ones(4, 10))["total"].backward()
    gradients = {name: cast(Tensor, weight.grad) for name, weight in model.named_parameters()}
    assert [name for name, gradient in gradients.items() if not gradient.abs().sum() > 0] == []


def losses_of(logits: Sequence[Tensor], *labels: Tensor, **weights: float) -> dict[str, Any]:
    """The losses of logits, labels and a mask."""
    start_logit, end_logit, rejection_logit = logits
    start, end, mask = labels
    return moment_losses(start_logit, end_logit, rejection_logit, start, end, mask, **weights)


def naive_losses(logits: Sequence[Tensor], start: Tensor, end: Tensor, mask: Tensor) -> tuple[Any, Any, Any]:
    """The parts in loops over rows and frames, in double precision."""
    start_logit, end_logit, rejection_logit = logits
    spans, rejections, films = list[Any](), list[Any](), list[Any]()
    for row in range(len(start)):
        count = int(mask[row].sum())
        if start[row] >= 0:
            for values, label in ((start_logit, start), (end_logit, end)):
                total = torch.stack([torch.exp(values[row, t]) for t in range(count)]).sum()
                spans.append(torch.log(total) - values[row, int(label[row])])
        parts = []
        for t in range(count):
            inside = start[row] >= 0 and start[row] <= t <= end[row]
            probability = torch.sigmoid(rejection_logit[row, t])
            parts.append(-torch.log(1 - probability if inside else probability))
        rejections.append(sum(parts) / count)
        least = torch.sigmoid(min(rejection_logit[row, t] for t in range(count)))
        films.append(-torch.log(1 - least if start[row] >= 0 else least))
    answered = max(1, int((start >= 0).sum()))
    return sum(spans) / answered, sum(rejections) / len(start), sum(films) / len(start)


def test_losses_are_those_of_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(5, 7, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(3)]
    mask = torch.ones(5, 7, dtype=torch.float64)
    mask[1, 4:], mask[4, 1:] = 0, 0
    start, end = torch.tensor([2, 0, -1, 6, 0]), torch.tensor([4, 3, -1, 6, 0])
    outside = (1 - mask) * 1e4
    masked = [logits[0] * mask - outside, logits[1] * mask - outside, logits[2] * mask + outside]
    losses = losses_of(masked, start, end, mask, rejection_weight=0.7, film_weight=0.3)
    span, rejection, film_loss = naive_losses(logits, start, end, mask)
    expected = span + 0.7 * rejection + 0.3 * film_loss
    torch.testing.assert_close(losses["span"], span)
    torch.testing.assert_close(losses["rejection"], rejection)
    torch.testing.assert_close(losses["film"], film_loss)
    torch.testing.assert_close(losses["total"], expected)
    gradients = torch.autograd.grad(losses["total"], logits)
    for ours, theirs in zip(gradients, torch.autograd.grad(expected, logits), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_batch_without_answers_has_no_span_loss() -> None:
    logits = [torch.randn(2, 4) for _ in range(3)]
    none = torch.full((2,), -1)
    losses = losses_of(logits, none, none, torch.ones(2, 4))
    assert losses["span"] == 0
    assert losses["rejection"] > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 9}, "channels 9 must be a multiple of heads 2"),
        ({"kernel": 4}, "kernel is 4: it must be odd"),
        ({"layers": 0}, "layers is 0: it must be at least 1"),
        ({"dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_wrong_sizes_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MomentHeadConfig(**({"dim": 12, "channels": 8, "heads": 2} | changes))
