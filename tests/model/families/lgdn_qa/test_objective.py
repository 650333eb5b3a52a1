"""The loss of the answer head against a naive one, where its gradient goes, and where its weights start."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor

from model.families import get_family
from model.families.lgdn.network import LGDN
from model.families.lgdn_qa.config import AnswerLossConfig, AnswerModelConfig
from model.families.lgdn_qa.network import AnsweringLGDN
from model.families.lgdn_qa.objective import AnswerObjective
from model.runtime.errors import InputError
from tests.support.tiny_lgdn import tiny_model
from tests.support.tiny_lgdn_qa import ANSWERS, answer_batch, answer_config, answer_model, naive_logits

pytestmark = pytest.mark.slow

GIVEN = ("two", "man", "run", "two", "stage")
VIT = {
    "fusion": "cross_attention",
    "backbone": "vit",
    "backbone_shape": "hidden=32,layers=1,heads=2,intermediate=32,patch=16",
}


def naive_loss(model: AnsweringLGDN, rows: list[Tensor]) -> Tensor:
    losses = []
    for logits, answer in zip(rows, GIVEN, strict=True):
        shares = logits.exp() / logits.exp().sum()
        losses.append(-shares[ANSWERS.index(answer)].log())
    return torch.stack(losses).mean()


def gradients(model: AnsweringLGDN, total: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    torch.autograd.backward(total)
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_salient_frames": 1, "normalise_frames": False},
        VIT,
        {"tune_towers": False},
        {"tune_towers": False, "inference_weights": "momentum"},
        {**VIT, "tune_towers": False, "inference_weights": "momentum"},
    ],
    ids=["tuned", "one frame", "paper's fusion", "frozen", "frozen momentum", "paper's fusion, frozen"],
)
def test_the_loss_is_the_naive_one(settings: dict[str, object]) -> None:
    model = answer_model(**settings).train()
    batch = answer_batch(GIVEN)
    # Outside training, tokens of the joint space are normalised once more: only rounding differs.
    rows = [naive_logits(model, batch, row) for row in range(len(GIVEN))]
    expected = naive_loss(model, rows)
    expected_grads = gradients(model, expected)
    losses = AnswerObjective(model, AnswerLossConfig())(batch, step=0, epoch=0)
    torch.testing.assert_close(losses["answers"], expected, rtol=1e-4, atol=1e-5)
    assert losses["total"] is losses["answers"]
    right = [int(row.argmax()) == ANSWERS.index(answer) for row, answer in zip(rows, GIVEN, strict=True)]
    assert float(losses["accuracy"]) == pytest.approx(sum(right) / len(right))
    grads = gradients(model, losses["total"])
    trained = {name for name in expected_grads if model.get_parameter(name).requires_grad}
    assert grads.keys() == trained
    torch.testing.assert_close(grads, {name: expected_grads[name] for name in trained}, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("tuned", [True, False])
def test_gradients_reach_what_trains_and_nothing_else(tuned: bool) -> None:
    model = answer_model(tune_towers=tuned).train()
    losses = AnswerObjective(model, AnswerLossConfig())(answer_batch(GIVEN), 0, 0)
    grads = gradients(model, losses["total"])
    assert all(grad.isfinite().all() and grad.abs().max() > 0 for grad in grads.values())
    head = {
        name
        for name, parameter in model.named_parameters()
        if name.startswith("answer_head.") and parameter.requires_grad
    }
    matching = {
        f"answer_head.fusion.{name}" for name in ("bias", "word_weight", "whole_weight", "head.weight")
    }
    assert not head & matching, "what only a match reads does not train"
    towers = {"online.frame_projection.weight", "online.text_projection.weight"} if tuned else set()
    assert head | towers <= grads.keys()
    if not tuned:
        assert grads.keys() == head
        assert not model.online.training
        assert model.answer_head.training


def test_which_frames_are_read() -> None:
    """In the warm-up and by the baselines: all frames, other frames, or none."""
    batch = answer_batch(GIVEN)
    real = [[int(s) for s in row.nonzero()[:, 0]] for row in batch.videos.frame_mask]
    model = answer_model(tune_towers=False).eval()

    def loss(kind: str, warmup: int = 0, epoch: int = 0, step: int = 0, seed: int = 0) -> float:
        torch.manual_seed(1)
        one = AnsweringLGDN(answer_config(tune_towers=False, frames_read=kind))
        one.load_state_dict(model.state_dict())
        objective = AnswerObjective(one.eval(), AnswerLossConfig(warmup), seed)
        return float(objective(batch, step, epoch)["total"].detach())

    def naive(slots: list[list[int]]) -> float:
        rows = [naive_logits(model, batch, row, frames) for row, frames in enumerate(slots)]
        return float(naive_loss(model, rows).detach())

    assert loss("all") == pytest.approx(naive(real), abs=1e-4)
    assert loss("salient", warmup=2, epoch=1) == pytest.approx(loss("all"), abs=1e-6)
    assert loss("salient", warmup=2, epoch=2) == pytest.approx(loss("salient"), abs=1e-6)
    drawn = {round(loss("random", step=step), 5) for step in range(6)}
    assert len(drawn) > 1
    assert loss("random", step=3) == loss("random", step=3)
    assert loss("random", seed=1) != loss("random", seed=2)
    other = answer_batch(GIVEN, seed=0)
    other.videos.frames.random_(0, 255)
    before = loss("none")
    batch.videos.frames.copy_(other.videos.frames)
    assert loss("none") == before, "the question alone sees no frame"
    assert loss("all") != pytest.approx(naive(real), abs=1e-9) or math.isfinite(before)


@pytest.mark.parametrize("weights", ["online", "momentum"])
def test_it_starts_from_a_model_of_captions(weights: str) -> None:
    source = tiny_model()
    family = get_family("lgdn_qa")
    model = AnsweringLGDN(answer_config(inference_weights=weights, tune_towers=False))
    classifier = model.get_parameter("answer_head.classifier.1.weight").detach().clone()
    family.load_start(model, source.state_dict())
    for name, value in source.state_dict().items():
        if not name.startswith("bank."):
            assert torch.equal(model.state_dict()[name], value), name
    start = source.fusion_average if weights == "momentum" else source.fusion
    for name, value in start.state_dict().items():
        assert torch.equal(model.answer_head.fusion.state_dict()[name], value), name
    assert torch.equal(model.get_parameter("answer_head.classifier.1.weight"), classifier)


def test_it_starts_from_a_model_of_other_questions() -> None:
    other = answer_model()
    model = AnsweringLGDN(answer_config(answers=("yes", "no")))
    get_family("lgdn_qa").load_start(model, other.state_dict())
    assert torch.equal(
        model.answer_head.fusion.get_parameter("head.weight"),
        other.answer_head.fusion.get_parameter("head.weight"),
    )
    assert torch.equal(model.online.frame_projection.weight, other.online.frame_projection.weight)
    assert len(model.get_parameter("answer_head.classifier.4.weight")) == 2
    state = other.state_dict()
    del state["online.frame_projection.weight"]
    with pytest.raises(InputError, match=r"1 weights such as online\.frame_projection\.weight differ"):
        get_family("lgdn_qa").load_start(model, state)


def test_momentum_follows_only_towers_that_train() -> None:
    family = get_family("lgdn_qa")
    for tuned in (True, False):
        model = answer_model(tune_towers=tuned)
        before = model.momentum.frame_projection.weight.clone()
        family.after_step(model)
        expected = before.lerp(model.online.frame_projection.weight, 1 - model.config.momentum)
        torch.testing.assert_close(model.momentum.frame_projection.weight, expected if tuned else before)


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"model\.frames_read='some' is not known: use one of salient, random"
    ):
        AnswerModelConfig(frames_read="some")
    with pytest.raises(InputError, match=r"tune_towers=true trains the online weights: set model\.inference"):
        AnswerModelConfig(tune_towers=True, inference_weights="momentum")
    with pytest.raises(InputError, match=r"model\.num_salient_frames=0 must be 1 to"):
        AnswerModelConfig(num_salient_frames=0)
    with pytest.raises(InputError, match=r"loss\.warmup_epochs=-1 must be 0 or more"):
        AnswerLossConfig(-1)
    with pytest.raises(InputError, match=r"model\.answers is empty: train first"):
        AnsweringLGDN(AnswerModelConfig(backbone="tiny", text="tiny"))
    assert isinstance(answer_model(), LGDN)
