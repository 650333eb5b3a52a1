"""T_cross and the Modality Converting Blocks against rows without padding, and who attends to whom."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor

from model.families.feel.conversion import Converted, Converter, ConverterShape, CrossModalTransformer
from tests.support.tiny_feel import named, random, stir

SHAPE = ConverterShape(
    hidden=8, heads=2, intermediate=12, positions=6, cross_layers=2, mcb_layers=1, dropout=0.0
)
VIDEOS, TEXTS = [5, 2, 3, 1], [2, 4, 0, 3]
VIDEO_MASK = (torch.arange(5)[None] < torch.tensor(VIDEOS)[:, None]).float()
TEXT_MASK = (torch.arange(4)[None] < torch.tensor(TEXTS)[:, None]).long()


def converter(**changes: object) -> Converter:
    torch.manual_seed(0)
    return stir(Converter(replace(SHAPE, **changes))).eval()  # type: ignore[arg-type]


def inputs() -> tuple[Tensor, Tensor]:
    return random(4, 5, 8, seed=1), random(4, 4, 8, seed=2)


def run_layers(x: Tensor, layers: torch.nn.ModuleList, bias: Tensor | None = None) -> Tensor:
    for layer in layers:
        x = layer(x, torch.zeros(1, 1, 1, 1) if bias is None else bias)
    return x


def naive_cross(
    cross: CrossModalTransformer, video: Tensor, text: Tensor, apart: bool
) -> tuple[Tensor, Tensor]:
    """Eq. 1 for one pair without padding: places are added in loops. Shapes [M, d], [L, d]."""
    x = torch.stack(
        [cross.norm(v + cross.positions[0, i] + cross.modalities[0]) for i, v in enumerate(video)]
        + [cross.norm(t + cross.positions[1, i] + cross.modalities[1]) for i, t in enumerate(text)]
    )
    count = len(video)
    if apart:
        parts = [
            run_layers(part[None], cross.stack.layers)[0] for part in (x[:count], x[count:]) if len(part)
        ]
        out = torch.cat(parts)
    else:
        out = run_layers(x[None], cross.stack.layers)[0]
    return out[:count], out[count:]


def naive_conversion(module: Converter, video: Tensor, text: Tensor) -> dict[str, Tensor]:
    """Eq. 1 to 3, 10, 11, 13 and 14 for one pair without padding."""
    apart = module.shape.target_masked
    to_text, to_video = module.video_to_text.layers, module.text_to_video.layers
    again_text = (module.video_to_text_again or module.video_to_text).layers
    again_video = (module.text_to_video_again or module.text_to_video).layers
    o_v, o_t = naive_cross(module.cross, video, text, apart)
    once_t, once_v = run_layers(o_v[None], to_text)[0], run_layers(o_t[None], to_video)[0]
    o_v_text, _ = naive_cross(module.cross, once_v, text, apart)
    _, o_t_video = naive_cross(module.cross, video, once_t, apart)
    return {
        "once_t": once_t,
        "once_v": once_v,
        "twice_t": run_layers(o_v_text[None], again_text)[0],
        "twice_v": run_layers(o_t_video[None], again_video)[0],
    }


@pytest.mark.parametrize(("shared", "apart"), list(product([True, False], [True, False])))
def test_padded_pairs_are_converted_as_each_alone(shared: bool, apart: bool) -> None:
    module = converter(shared_mcb=shared, target_masked=apart)
    e_v, e_t = inputs()
    with torch.no_grad():
        found = module(e_v, e_t, VIDEO_MASK, TEXT_MASK)
        for row, (frames, tokens) in enumerate(zip(VIDEOS, TEXTS, strict=True)):
            if not tokens:
                continue
            expected = naive_conversion(module, e_v[row, :frames], e_t[row, :tokens])
            for name, value in expected.items():
                real = getattr(found, name)[row, : len(value)]
                torch.testing.assert_close(real, value, rtol=1e-4, atol=1e-5, msg=named(name))
    assert found.once_v.shape == found.twice_t.shape == e_t.shape
    assert found.once_t.shape == found.twice_v.shape == e_v.shape


def test_own_blocks_of_the_second_hop_are_used_there_alone() -> None:
    module = converter(shared_mcb=False)
    assert module.video_to_text_again is not None
    e_v, e_t = inputs()
    with torch.no_grad():
        before = module(e_v, e_t, VIDEO_MASK, TEXT_MASK)
        stir(module.video_to_text_again)
        after = module(e_v, e_t, VIDEO_MASK, TEXT_MASK)
    assert torch.equal(before.once_t, after.once_t)
    assert torch.equal(before.twice_v, after.twice_v)
    assert not torch.equal(before.twice_t, after.twice_t)


def depends(module: Converter, name: str, on_video: bool) -> bool:
    """Whether what a conversion gives changes with one of its inputs."""
    e_v, e_t = (x.requires_grad_() for x in inputs())
    out: Converted = module(e_v, e_t, VIDEO_MASK, TEXT_MASK)
    summed = getattr(out, name)[0].square().sum()
    (grad,) = torch.autograd.grad(summed, [e_v if on_video else e_t], materialize_grads=True)
    return bool(grad.abs().max() > 0)


@pytest.mark.parametrize(("name", "target_is_video"), [("once_v", True), ("once_t", False)])
def test_the_leak_and_the_option_against_it(name: str, target_is_video: bool) -> None:
    """By eq. 1 a reconstruction has seen its target; with the option it has not, but still its source."""
    assert depends(converter(), name, target_is_video)
    closed = converter(target_masked=True)
    assert not depends(closed, name, target_is_video)
    assert depends(closed, name, not target_is_video)


def test_with_the_option_what_is_converted_twice_comes_from_the_once_converted_alone() -> None:
    closed = converter(target_masked=True)
    for name, source_is_video in (("twice_t", False), ("twice_v", True)):
        assert depends(closed, name, source_is_video)
        assert not depends(closed, name, not source_is_video)


def test_a_pair_without_a_text_is_a_video_alone() -> None:
    module, (e_v, e_t) = converter(), inputs()
    with torch.no_grad():
        o_v, _ = module.cross(e_v, e_t, VIDEO_MASK, TEXT_MASK)
        alone = module.cross.video_alone(e_v, VIDEO_MASK)
        torch.testing.assert_close(o_v[2, :3], alone[2, :3], rtol=1e-5, atol=1e-6)
        assert not torch.allclose(o_v[0], alone[0])
        _, o_t = module.cross(e_v, e_t, VIDEO_MASK * 0, TEXT_MASK)
        text = module.cross.text_alone(e_t, TEXT_MASK)
        torch.testing.assert_close(o_t[1], text[1], rtol=1e-5, atol=1e-6)


def test_without_the_way_back_nothing_is_converted_twice() -> None:
    e_v, e_t = inputs()
    with torch.no_grad():
        once = converter()(e_v, e_t, VIDEO_MASK, TEXT_MASK, twice=False)
        both = converter()(e_v, e_t, VIDEO_MASK, TEXT_MASK)
    assert once.twice_t is None
    assert once.twice_v is None
    assert torch.equal(once.once_v, both.once_v)
    assert torch.equal(once.once_t, both.once_t)


def test_gradient_checkpointing_changes_nothing() -> None:
    found = []
    for again in (False, True):
        module = converter(gradient_checkpointing=again, dropout=0.2).train()
        torch.manual_seed(1)
        e_v, e_t = (x.requires_grad_() for x in inputs())
        out = module(e_v, e_t, VIDEO_MASK, TEXT_MASK)
        grads = torch.autograd.grad(out.twice_t.sum() + out.twice_v.square().sum(), [e_v, e_t])
        found.append((out.twice_t.detach(), *grads))
    for plain, saved in zip(*found, strict=True):
        torch.testing.assert_close(plain, saved)


def test_a_sequence_that_is_too_long_is_named() -> None:
    with pytest.raises(ValueError, match="a sequence of 7 exceeds 6 positions"):
        converter().cross.text_alone(torch.zeros(1, 7, 8), torch.ones(1, 7))
