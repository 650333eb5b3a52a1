"""Every loss against a naive twin in loops: values and gradients."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402

from model.lgdn import MemoryBank  # noqa: E402
from model.losses import Negatives, info_nce, mvcl, retention  # noqa: E402


def unit(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def naive_info_nce(
    anchor: Tensor,
    positive: Tensor,
    negatives: Tensor,
    owners: Tensor,
    video_ids: Tensor,
    temperature: Tensor,
) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(anchor)):
        pos = sum(a * b for a, b in zip(anchor[i], positive[i], strict=True)) / temperature
        denominator = torch.exp(pos)
        for j in range(len(negatives)):
            if int(owners[j]) != -1 and int(owners[j]) != int(video_ids[i]):
                neg = sum(a * b for a, b in zip(anchor[i], negatives[j], strict=True)) / temperature
                denominator = denominator + torch.exp(neg)
        total = total - torch.log(torch.exp(pos) / denominator)
    return total / len(anchor)


@pytest.mark.parametrize("filled", [0, 3, 7])
def test_mvcl_equals_loops_with_half_filled_banks_and_shared_videos(filled: int) -> None:
    video, text = unit(4, 5, seed=0).requires_grad_(), unit(4, 5, seed=1).requires_grad_()
    video_m, text_m = unit(4, 5, seed=2), unit(4, 5, seed=3)
    bank_videos, bank_texts = unit(7, 5, seed=4), unit(7, 5, seed=5)
    video_ids = torch.tensor([10, 11, 12, 10])
    owners = torch.tensor([10, 12, 30, 11, 40, 10, 50])
    owners[filled:] = -1
    tau = torch.tensor(0.07, dtype=torch.float64, requires_grad=True)

    fast = mvcl(video, text, video_m, text_m, video_ids, Negatives(bank_videos, bank_texts, owners), tau)
    fast_grads = torch.autograd.grad(fast["mvcl"], (video, text, tau))
    v2t = naive_info_nce(video, text_m, bank_texts, owners, video_ids, tau)
    t2v = naive_info_nce(text, video_m, bank_videos, owners, video_ids, tau)
    naive_grads = torch.autograd.grad(v2t + t2v, (video, text, tau), allow_unused=True)

    torch.testing.assert_close(fast["v2t"], v2t)
    torch.testing.assert_close(fast["t2v"], t2v)
    torch.testing.assert_close(fast["mvcl"], v2t + t2v)
    for fast_grad, naive_grad in zip(fast_grads, naive_grads, strict=True):
        torch.testing.assert_close(fast_grad, naive_grad)


def test_the_loss_is_zero_without_negatives_and_finite_in_its_gradient() -> None:
    anchor = unit(2, 3, seed=0).requires_grad_()
    allowed = torch.zeros(2, 4, dtype=torch.bool)
    loss = info_nce(anchor, unit(2, 3, seed=1), unit(4, 3, seed=2), allowed, torch.tensor(0.07))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert torch.equal(anchor.grad, torch.zeros_like(anchor))


def test_batch_negatives_exclude_the_pair_itself_and_its_video() -> None:
    empty = Negatives(torch.zeros(2, 5), torch.zeros(2, 5), torch.full((2,), -1))
    video_ids = torch.tensor([1, 2, 1])
    joined = empty.join(unit(3, 5, seed=0).float(), unit(3, 5, seed=1).float(), video_ids)
    expected = torch.tensor([[0, 0, 0, 1, 0], [0, 0, 1, 0, 1], [0, 0, 0, 1, 0]], dtype=torch.bool)
    assert torch.equal(joined.allowed(video_ids), expected)


def test_retention_equals_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    teacher = torch.rand(3, 6, generator=generator, dtype=torch.float64)
    teacher[:, 4] = 0
    teacher = teacher / teacher.sum(-1, keepdim=True)
    fast = retention(logits, teacher)
    naive = torch.zeros((), dtype=torch.float64)
    for i in range(3):
        norm = torch.log(sum(torch.exp(v) for v in logits[i]))
        for c in range(6):
            naive = naive - teacher[i, c] * (logits[i, c] - norm) / 3
    torch.testing.assert_close(fast, naive)
    fast_grad = torch.autograd.grad(fast, logits)[0]
    torch.testing.assert_close(fast_grad, torch.autograd.grad(naive, logits)[0])


def test_the_bank_is_a_ring_that_wraps_within_a_batch() -> None:
    bank, kept = MemoryBank(5, 3), []
    for step in range(4):
        owners = torch.arange(3) + 3 * step
        rows = owners[:, None].float().expand(3, 3)
        bank.enqueue(rows, rows + 100, owners)
        kept = (kept + owners.tolist())[-5:]
        stored = bank.negatives()
        assert sorted(o for o in stored.owners.tolist() if o >= 0) == sorted(kept)
        filled = stored.owners >= 0
        assert torch.equal(stored.videos[filled][:, 0].long(), stored.owners[filled])
        assert torch.equal(stored.texts[filled][:, 0].long(), stored.owners[filled] + 100)
    assert bank.negatives().owners.tolist() == [10, 11, 7, 8, 9]


def test_the_bank_names_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="batch of 3 does not fit a memory bank of 2: raise bank_size"):
        MemoryBank(2, 4).enqueue(torch.zeros(3, 4), torch.zeros(3, 4), torch.arange(3))
    with pytest.raises(ValueError, match="bank_size"):
        MemoryBank(0, 4)


def test_a_uniform_choice_costs_the_logarithm_of_the_candidates() -> None:
    same = torch.ones(2, 4) / 2
    negatives = Negatives(torch.ones(6, 4) / 2, torch.ones(6, 4) / 2, torch.arange(6) + 100)
    losses = mvcl(same, same, same, same, torch.tensor([0, 1]), negatives, torch.tensor(0.07))
    assert float(losses["mvcl"]) == pytest.approx(2 * math.log(7), rel=1e-5)
