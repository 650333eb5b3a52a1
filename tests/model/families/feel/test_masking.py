"""Masks of tokens and of frames: their shares, what may be masked, and that draws can be repeated."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch

from model.families.feel.masking import mask_frames, mask_tokens


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_shares_are_those_of_bert() -> None:
    ids = torch.randint(10, 1000, (400, 100), generator=generator(1))
    maskable = torch.rand(ids.shape, generator=generator(2)) < 0.7
    masked = mask_tokens(ids, maskable, 4, 1000, 0.15, generator())
    chosen = masked.chosen
    assert not (chosen & ~maskable).any()
    assert torch.equal(masked.input_ids[~chosen], ids[~chosen])
    count = int(chosen.sum())
    assert count / int(maskable.sum()) == pytest.approx(0.15, abs=0.01)
    seen, true = masked.input_ids[chosen], ids[chosen]
    assert float((seen == 4).float().mean()) == pytest.approx(0.8, abs=0.02)
    # A random token is the true one once in a thousand times.
    assert float((seen == true).float().mean()) == pytest.approx(0.1, abs=0.02)
    others = seen[(seen != 4) & (seen != true)]
    assert len(others) / count == pytest.approx(0.1, abs=0.02)
    assert 0 <= int(others.min()) < 50 < 950 < int(others.max()) < 1000


def test_every_text_with_a_maskable_token_has_a_masked_one() -> None:
    maskable = torch.zeros(50, 6, dtype=torch.bool)
    maskable[:, 2] = True
    maskable[7] = False
    masked = mask_tokens(torch.ones(50, 6, dtype=torch.int64), maskable, 4, 10, 0.01, generator())
    assert torch.equal(masked.chosen, maskable)
    assert torch.equal(masked.input_ids[7], torch.ones(6, dtype=torch.int64))


def test_frames_are_masked_where_they_are_real() -> None:
    real = torch.arange(20)[None] < torch.tensor([20, 1, 0, 7] * 200)[:, None]
    chosen = mask_frames(real, 0.15, generator())
    assert not (chosen & ~real).any()
    assert torch.equal(chosen.any(1), real.any(1))
    assert float(chosen[::4].float().mean()) == pytest.approx(0.15, abs=0.02)


def test_a_draw_follows_from_the_generator_alone() -> None:
    ids, maskable = torch.arange(60).reshape(3, 20), torch.ones(3, 20, dtype=torch.bool)
    first, again = (mask_tokens(ids, maskable, 4, 100, 0.3, generator(5)) for _ in range(2))
    assert torch.equal(first.input_ids, again.input_ids)
    assert torch.equal(first.chosen, again.chosen)
    other = mask_tokens(ids, maskable, 4, 100, 0.3, generator(6))
    assert not torch.equal(first.chosen, other.chosen)
