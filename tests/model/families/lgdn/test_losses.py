"""Every loss against its equation in loops: values, and gradients with respect to every input."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

pytest.importorskip("torch")

import torch
import torch.nn.functional as F
from torch import Tensor

from model.families.lgdn.losses import Negatives, info_nce, lsfm, mfcl, mvcl, retention
from tests.support import naive_losses

VIDEO_IDS = torch.tensor([10, 11, 12, 10])
BANKS = {
    "empty": [-1] * 7,
    "half filled": [10, 12, 30, 40, -1, -1, -1],
    "full": [10, 12, 30, 11, 40, 10, 50],
    "of one video": [10] * 7,
}
POSITIVES = {
    "ragged": [[1, 0, 1, 0, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 1], [0, 1, 1, 0, 0]],
    "one each": [[1, 0, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1], [0, 1, 0, 0, 0]],
    "all": [[1, 1, 1, 1, 1]] * 4,
}


def random(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@dataclass
class Inputs:
    """Vectors of any length, whose directions the losses take; `leaves` have gradients."""

    text: Tensor
    video: Tensor
    frames: Tensor
    text_hat: Tensor
    video_hat: Tensor
    frames_hat: Tensor
    bank_videos: Tensor
    bank_texts: Tensor
    bank_frames: Tensor
    owners: Tensor
    frame_owners: Tensor
    tau: Tensor

    @property
    def leaves(self) -> list[Tensor]:
        return [x for x in vars(self).values() if x.requires_grad]

    @property
    def negatives(self) -> Negatives:
        videos, texts, frames = (
            F.normalize(x, dim=-1) for x in (self.bank_videos, self.bank_texts, self.bank_frames)
        )
        return Negatives(videos, texts, self.owners, frames, self.frame_owners)

    def foreign(self, entries: Tensor, owners: Tensor) -> list[naive_losses.Rows]:
        return [naive_losses.foreign(entries, owners, video) for video in VIDEO_IDS.tolist()]


def make(owners: list[int], tau: float = 0.07) -> Inputs:
    # Banked videos have one to three real frames, as where frames are masked.
    frame_owners = [owner for i, owner in enumerate(owners) if owner != -1 for _ in range(1 + i % 3)]

    def vectors(*shape: int, seed: int) -> Tensor:
        return random(*shape, 6, seed=seed).requires_grad_()

    return Inputs(
        vectors(4, seed=0),
        vectors(4, seed=1),
        vectors(4, 5, seed=2),
        vectors(4, seed=3),
        vectors(4, seed=4),
        vectors(4, 5, seed=5),
        vectors(7, seed=6),
        vectors(7, seed=7),
        vectors(len(frame_owners), seed=8),
        torch.tensor(owners),
        torch.tensor(frame_owners, dtype=torch.int64),
        torch.tensor(tau, dtype=torch.float64, requires_grad=True),
    )


def assert_same(fast: Tensor, slow: Tensor, leaves: list[Tensor]) -> None:
    torch.testing.assert_close(fast, slow)
    gradients = torch.autograd.grad(
        fast, leaves, retain_graph=True, materialize_grads=True, allow_unused=True
    )
    expected_gradients = torch.autograd.grad(
        slow, leaves, retain_graph=True, materialize_grads=True, allow_unused=True
    )
    for grad, expected in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(grad, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("bank", BANKS)
def test_mvcl_is_equations_3_to_5(bank: str) -> None:
    x = make(BANKS[bank])
    video, text, video_hat, text_hat = (
        F.normalize(v, dim=-1) for v in (x.video, x.text, x.video_hat, x.text_hat)
    )
    losses = mvcl(video, text, video_hat, text_hat, VIDEO_IDS, x.negatives, x.tau)

    v2t = naive_losses.contrast(x.video, x.text_hat, x.foreign(x.bank_texts, x.owners), x.tau)
    t2v = naive_losses.contrast(x.text, x.video_hat, x.foreign(x.bank_videos, x.owners), x.tau)
    assert_same(losses["v2t"], v2t, x.leaves)
    assert_same(losses["t2v"], t2v, x.leaves)
    assert_same(losses["mvcl"], v2t + t2v, x.leaves)


def frame_losses(x: Inputs, positives: list[list[int]], msl: bool) -> dict[str, Tensor]:
    chosen = torch.tensor(positives, dtype=torch.bool)
    frames, text, frames_hat, text_hat = (
        F.normalize(v, dim=-1) for v in (x.frames, x.text, x.frames_hat, x.text_hat)
    )
    return mfcl(frames, text, frames_hat, text_hat, chosen, VIDEO_IDS, x.negatives, x.tau, msl)


@pytest.mark.parametrize("msl", [True, False], ids=["msl", "no msl"])
@pytest.mark.parametrize("positives", POSITIVES)
@pytest.mark.parametrize("bank", BANKS)
def test_mfcl_is_equations_6_to_8(bank: str, positives: str, msl: bool) -> None:
    x, chosen = make(BANKS[bank]), POSITIVES[positives]
    losses = frame_losses(x, chosen, msl)

    sets = [[x.frames[i, j] for j in range(5) if chosen[i][j]] for i in range(4)]
    sets_hat = [[x.frames_hat[i, j] for j in range(5) if chosen[i][j]] for i in range(4)]
    t2e = naive_losses.text_to_frames(x.text, sets_hat, x.foreign(x.bank_frames, x.frame_owners), x.tau, msl)
    e2t = naive_losses.frames_to_text(sets, x.text_hat, x.foreign(x.bank_texts, x.owners), x.tau, msl)
    assert_same(losses["t2e"], t2e, x.leaves)
    assert_same(losses["e2t"], e2t, x.leaves)
    assert_same(losses["mfcl"], t2e + e2t, x.leaves)


def test_frames_that_are_no_positives_have_no_influence() -> None:
    x, chosen = make(BANKS["full"]), POSITIVES["ragged"]
    before = frame_losses(x, chosen, True)
    for msl in (True, False):
        grads = torch.autograd.grad(frame_losses(x, chosen, msl)["mfcl"], [x.frames, x.frames_hat])
        for grad in grads:
            assert grad[torch.tensor(chosen) == 0].abs().max() == 0
            assert (grad[torch.tensor(chosen) == 1].abs().sum(-1) > 0).all()
    out = torch.tensor(chosen)[..., None] == 0
    with torch.no_grad():
        x.frames[:] = torch.where(out, torch.full_like(x.frames, 9.0), x.frames)
        x.frames_hat[:] = torch.where(out, torch.full_like(x.frames, -9.0), x.frames_hat)
    torch.testing.assert_close(frame_losses(x, chosen, True), before)


def test_msl_forgives_a_frame_that_does_not_show_the_text() -> None:
    """What the set is for: with one frame equal to the text, an opposite one costs next to nothing."""
    x = make(BANKS["full"])
    with torch.no_grad():
        x.text_hat[:] = x.text
        for frames in (x.frames, x.frames_hat):
            frames[:, 0], frames[:, 1] = x.text, -x.text
    both = [[1, 1, 0, 0, 0]] * 4
    alone = frame_losses(x, [[1, 0, 0, 0, 0]] * 4, True)
    assert float(frame_losses(x, both, True)["t2e"].detach()) < float(alone["t2e"].detach()) + 1e-6
    assert float(frame_losses(x, both, False)["t2e"].detach()) > float(alone["t2e"].detach()) + 5


@pytest.mark.parametrize("bank", BANKS)
def test_gradients_are_finite_at_the_smallest_temperature(bank: str) -> None:
    """In float32, where a share of e^(2/τ) overflows if it is computed as written."""
    x = make(BANKS[bank], tau=0.001)
    frames, text, frames_hat, text_hat = (
        F.normalize(v.detach().float(), dim=-1).requires_grad_()
        for v in (x.frames, x.text, x.frames_hat, x.text_hat)
    )
    tau = torch.tensor(0.001, requires_grad=True)
    bank_vectors = [F.normalize(v.detach().float(), dim=-1) for v in (x.bank_videos, x.bank_frames)]
    negatives = Negatives(bank_vectors[0], bank_vectors[0], x.owners, bank_vectors[1], x.frame_owners)
    chosen = torch.tensor(POSITIVES["ragged"], dtype=torch.bool)
    for msl in (True, False):
        # Anomaly detection: no step of the backward pass is NaN either, even one that a mask would hide.
        with torch.autograd.set_detect_anomaly(True):
            losses = mfcl(frames, text, frames_hat, text_hat, chosen, VIDEO_IDS, negatives, tau, msl)
            losses |= mvcl(frames[:, 0], text, frames_hat[:, 0], text_hat, VIDEO_IDS, negatives, tau)
            total = losses["mfcl"] + losses["mvcl"]
            grads = torch.autograd.grad(total, [frames, text, frames_hat, text_hat, tau])
        assert all(torch.isfinite(loss) for loss in losses.values())
        assert all(grad.isfinite().all() for grad in grads)
        assert bank == "empty" or any(grad.abs().max() > 0 for grad in grads)


def test_without_negatives_the_contrast_is_zero_and_so_is_its_gradient() -> None:
    anchor = F.normalize(random(2, 3, seed=0), dim=-1).requires_grad_()
    others = F.normalize(random(4, 3, seed=2), dim=-1)
    allowed = torch.zeros(2, 4, dtype=torch.bool)
    loss = info_nce(anchor, F.normalize(random(2, 3, seed=1), dim=-1), others, allowed, torch.tensor(0.07))
    torch.autograd.backward(loss)
    assert float(loss.detach()) == 0.0
    assert anchor.grad is not None
    assert torch.equal(anchor.grad, torch.zeros_like(anchor))


def test_a_uniform_choice_costs_the_logarithm_of_the_candidates() -> None:
    same = torch.ones(2, 4) / 2
    negatives = Negatives(
        torch.ones(6, 4) / 2, torch.ones(6, 4) / 2, torch.arange(6) + 100,
        torch.ones(20, 4) / 2, torch.arange(20) + 100,
    )  # fmt: skip
    ids, tau = torch.tensor([0, 1]), torch.tensor(0.07)
    assert float(mvcl(same, same, same, same, ids, negatives, tau)["mvcl"]) == pytest.approx(2 * math.log(7))
    frames, three = same[:, None].expand(2, 5, 4), torch.tensor([[True] * 3 + [False] * 2] * 2)
    whole = mfcl(frames, same, frames, same, three, ids, negatives, tau)
    assert float(whole["t2e"]) == pytest.approx(math.log((3 + 20) / 3))
    assert float(whole["e2t"]) == pytest.approx(math.log((3 + 3 * 6) / 3))
    each = mfcl(frames, same, frames, same, three, ids, negatives, tau, msl=False)
    assert float(each["t2e"]) == pytest.approx(math.log(1 + 20))
    assert float(each["e2t"]) == pytest.approx(math.log(1 + 6))


def test_negatives_that_are_joined_leave_out_the_pair_and_its_video() -> None:
    def batch(owners: list[int], frame_owners: list[int]) -> Negatives:
        zeros = torch.zeros(len(owners), 5)
        frames = torch.zeros(len(frame_owners), 5)
        return Negatives(zeros, zeros, torch.tensor(owners), frames, torch.tensor(frame_owners))

    joined = batch([-1, -1], [7]).join(batch([1, 2, 1], [1, 2, 2]))
    ids = torch.tensor([1, 2, 1])
    pairs = torch.tensor([[0, 0, 0, 1, 0], [0, 0, 1, 0, 1], [0, 0, 0, 1, 0]], dtype=torch.bool)
    frames = torch.tensor([[1, 0, 1, 1], [1, 1, 0, 0], [1, 0, 1, 1]], dtype=torch.bool)
    assert torch.equal(joined.allowed(ids), pairs)
    assert torch.equal(joined.allowed_frames(ids), frames)


def test_lsfm_is_equation_9() -> None:
    logits = random(7, 2, seed=0).requires_grad_()
    matched = torch.tensor([1, 0, 0, 1, 1, 0, 1], dtype=torch.bool)
    each = lsfm(logits, matched)
    assert each.shape == (7,)
    assert_same(each.mean(), naive_losses.matching(list(logits), matched.int().tolist()), [logits])


def test_retention_is_the_cross_entropy_with_the_teacher() -> None:
    logits = random(3, 6, seed=0).requires_grad_()
    teacher = random(3, 6, seed=1).abs()
    teacher[:, 4] = 0
    teacher = teacher / teacher.sum(-1, keepdim=True)
    each = retention(logits, teacher)
    for i in range(3):
        norm = torch.log(naive_losses.total([torch.exp(v) for v in logits[i]]))
        expected = -naive_losses.total([teacher[i, c] * (logits[i, c] - norm) for c in range(6)])
        assert_same(each[i], expected, [logits])
