"""Memory banks and momentum weights: what the losses compare with."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from model.families.lgdn.network import MemoryBank
from tests.support.tiny_lgdn import tiny_batch, tiny_model


def test_banks_are_rings_that_hold_frames_with_their_masks() -> None:
    bank = MemoryBank(5, 3, 2)
    kept: list[tuple[Any, ...]] = []
    generator = torch.Generator().manual_seed(0)
    for step in range(4):
        owners = torch.arange(3) + 3 * step
        value = owners[:, None].float().expand(3, 2)
        mask = (torch.rand(3, 3, generator=generator) < 0.6).float()
        frames = value[:, None] + 200 + torch.arange(3)[None, :, None] / 4
        bank.enqueue(value, value + 100, frames, mask, owners)
        kept = (kept + list(zip(owners.tolist(), mask.tolist(), strict=True)))[-5:]
        stored = bank.negatives()
        filled = stored.owners >= 0
        assert sorted(stored.owners[filled].tolist()) == [owner for owner, _ in kept]
        assert torch.equal(stored.videos[filled][:, 0].long(), stored.owners[filled])
        assert torch.equal(stored.texts[filled][:, 0].long(), stored.owners[filled] + 100)
        expected = {(o, o + 200 + j / 4) for o, real in kept for j in range(3) if real[j]}
        assert len(stored.frames) == len(expected)
        pairs = zip(stored.frame_owners.tolist(), stored.frames[:, 1].tolist(), strict=True)
        assert set(pairs) == expected
    assert bank.negatives().owners.tolist() == [10, 11, 7, 8, 9]


def test_what_was_read_from_a_bank_does_not_change_with_it() -> None:
    bank = MemoryBank(2, 1, 2)
    ones = torch.ones(2, 2)
    bank.enqueue(ones, ones, ones[:, None], torch.ones(2, 1), torch.tensor([1, 2]))
    before = bank.negatives()
    bank.enqueue(-ones, -ones, -ones[:, None], torch.ones(2, 1), torch.tensor([3, 4]))
    for name in ("videos", "texts", "frames"):
        assert (getattr(before, name) == 1).all()
        assert (getattr(bank.negatives(), name) == -1).all()
    assert before.owners.tolist() == before.frame_owners.tolist() == [1, 2]


def test_a_bank_names_what_does_not_fit() -> None:
    vectors = torch.zeros(3, 4)
    with pytest.raises(ValueError, match="batch of 3 does not fit a memory bank of 2: raise bank_size"):
        MemoryBank(2, 1, 4).enqueue(vectors, vectors, vectors[:, None], torch.ones(3, 1), torch.arange(3))
    with pytest.raises(ValueError, match="bank_size"):
        MemoryBank(0, 1, 4)


def test_the_momentum_step_is_equation_2_and_averages_the_fusion() -> None:
    model = tiny_model(momentum=0.8)
    pairs = ((model.momentum, model.online), (model.fusion_average, model.fusion))
    for slow, fast in pairs:
        before = {name: p.clone() for name, p in slow.named_parameters()}
        online = {name: p.detach().clone() for name, p in fast.named_parameters()}
        assert any((before[name] - online[name]).abs().max() > 0.01 for name in before)
        model.update_momentum()
        for name, parameter in slow.named_parameters():
            fixed = not fast.get_parameter(name).requires_grad
            expected = before[name] if fixed else 0.8 * before[name] + 0.2 * online[name]
            torch.testing.assert_close(parameter, expected)
            assert torch.equal(fast.get_parameter(name), online[name])
            assert not parameter.requires_grad
        with torch.no_grad():
            for name, parameter in slow.named_parameters():
                parameter.copy_(before[name])
    model.reset_momentum()
    for slow, fast in pairs:
        assert all(torch.equal(p, fast.get_parameter(name)) for name, p in slow.named_parameters())


def test_momentum_weights_never_drop_out() -> None:
    model = tiny_model(dropout=0.5).train()
    batch = tiny_batch([1, 2])
    assert model.online.training
    assert model.fusion.training
    outputs = [model.momentum.encode_text(batch.input_ids, batch.attention_mask).embedding for _ in range(2)]
    assert torch.equal(*outputs)
    online = [model.online.encode_text(batch.input_ids, batch.attention_mask).embedding for _ in range(2)]
    assert not torch.equal(*online)


def test_a_learned_temperature_stays_within_its_limits() -> None:
    model = tiny_model(learn_temperature=True, temperature=0.07)
    torch.testing.assert_close(model.temperature, torch.tensor(0.07))
    assert model.temperature.requires_grad
    assert not tiny_model().temperature.requires_grad
    for value, expected in ((1e-6, 0.001), (3.0, 0.5)):
        with torch.no_grad():
            model.log_temperature.copy_(torch.tensor(value).log())
        torch.testing.assert_close(model.temperature, torch.tensor(expected))
