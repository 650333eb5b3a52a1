"""The total objective (eq. 10) against a naive one, and everything that it is made of."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor, nn

from model.families.lgdn.config import LossConfig
from model.families.lgdn.fusion import Fusion
from model.families.lgdn.network import LGDN
from model.families.lgdn.objective import Objective, choose_pairs
from model.families.lgdn.salience import frame_salience, select_salient_tensor, text_salience
from tests.support.naive_objective import NaiveObjective
from tests.support.tiny_lgdn import FRAMES, tiny_batch, tiny_model

pytestmark = pytest.mark.slow

VIT = "hidden=32,layers=1,heads=2,intermediate=32,patch=16"
VIDEOS = [[3, 7, 3, 9, 11], [7, 20, 21, 22, 7], [9, 9, 9, 30, 31]]


def gradients(model: LGDN, total: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    torch.autograd.backward(total)
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("settings", "loss", "sfp"),
    [
        ({}, LossConfig(), True),
        ({"normalise_frames": False}, LossConfig(msl=False, hard_negatives=False), False),
        ({"fusion": "cross_attention", "backbone": "vit", "backbone_shape": VIT}, LossConfig(), True),
        (
            {"salience_strategy": "crossmom", "num_salient_frames": 1, "learn_temperature": True},
            LossConfig(batch_negatives=True, mvcl=0.5, mfcl=2.0, lsfm=3.0, retention_weight=0.25),
            True,
        ),
        ({"teacher_dim": 6}, LossConfig(teacher_mfcl=0.5, distillation=3.0, lsfm=0), True),
        ({"teacher_dim": 6}, LossConfig(teacher_mfcl=1.0, msl=False, batch_negatives=True), False),
        ({"converter_layers": 1}, LossConfig(gmr=0.5, cs=3.0, cs_margin=1.0, lsfm=0), True),
        (
            {"converter_layers": 2, "converter_target_masked": True, "fusion": "cross_attention"},
            LossConfig(gmr=2.0, mvcl=0),
            False,
        ),
    ],
    ids=[
        "sfp",
        "warm-up",
        "paper's encoders and fusion",
        "weighted, batch negatives",
        "another encoder",
        "another encoder, warm-up",
        "GMR and CS",
        "GMR from one modality, paper's fusion",
    ],
)
def test_the_objective_is_the_naive_one(settings: dict[str, object], loss: LossConfig, sfp: bool) -> None:
    """Three steps, so that banks are empty, half filled and wrapped around; losses and all gradients."""
    model = tiny_model(**settings)
    fast, slow = Objective(model, loss, seed=5), NaiveObjective(model, loss, seed=5)
    for step, video_ids in enumerate(VIDEOS):
        batch = tiny_batch(video_ids, seed=step, taught=model.config.teacher_dim)
        expected = slow(batch, step, sfp)
        expected_grads = gradients(model, expected["total"])
        losses = fast(batch, step, epoch=int(sfp))
        grads = gradients(model, losses["total"])
        assert losses.keys() == expected.keys()
        torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)
        assert grads.keys() == expected_grads.keys()
        torch.testing.assert_close(grads, expected_grads, rtol=1e-3, atol=2e-4)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in grads:
                    parameter.sub_(0.01 * grads[name])
        model.update_momentum()


def test_a_weight_of_zero_turns_a_loss_off() -> None:
    model = tiny_model()
    whole = {"v2t", "t2v", "mvcl", "t2e", "e2t", "mfcl", "lsfm", "retention", "total"}
    for loss, names in (
        ("mvcl", {"v2t", "t2v", "mvcl"}),
        ("mfcl", {"t2e", "e2t", "mfcl"}),
        ("lsfm", {"lsfm"}),
    ):
        without: dict[str, Any] = {loss: 0.0}
        losses = Objective(model, LossConfig(**without))(tiny_batch([1, 2, 3]), 0, epoch=1)
        assert losses.keys() == whole - names
    losses = Objective(model, LossConfig())(tiny_batch([1, 2, 3], teacher=False), 0, epoch=1)
    assert losses.keys() == whole - {"retention"}


def test_gradients_reach_all_that_trains_and_nothing_else() -> None:
    model = tiny_model(learn_temperature=True)
    objective = Objective(model, LossConfig())
    objective(tiny_batch([1, 2, 3, 4]), 0, epoch=1)
    grads = gradients(model, objective(tiny_batch([5, 6, 7, 8], seed=1), 1, epoch=1)["total"])
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert grads.keys() == trained
    assert all(grad.isfinite().all() and grad.abs().max() > 0 for grad in grads.values())
    assert not any(name.startswith(("momentum.", "fusion_average.")) for name in trained)


def test_a_few_steps_lower_every_loss() -> None:
    torch.manual_seed(0)
    model = tiny_model(bank_size=16)
    objective = Objective(model, LossConfig())
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    # Frames of its own for nearly every video: what several show, no loss can tell apart.
    batch, history = tiny_batch(range(6), packed=24), []
    for step in range(16):
        losses = objective(batch, step, epoch=int(step > 2))
        optimiser.zero_grad()
        losses["total"].backward()
        optimiser.step()
        model.update_momentum()
        history.append({name: float(value.detach()) for name, value in losses.items()})
    # From step 3 on the bank is full.
    for name in ("mvcl", "mfcl", "lsfm", "retention", "total"):
        begin, end = (sum(row[name] for row in rows) / 3 for rows in (history[3:6], history[-3:]))
        assert end < begin, name
    assert history[-1]["total"] < 0.6 * history[3]["total"]


# Pairs of LSFM


def drawn(
    similarity: Tensor, owners: list[int], hard: bool = True, seed: int = 0, mine: slice | None = None
) -> list[tuple[int, int, bool]]:
    generator = torch.Generator().manual_seed(seed)
    whole = slice(0, len(owners))
    pairs = choose_pairs(similarity, torch.tensor(owners), mine or whole, hard, generator)
    return list(zip(pairs.texts.tolist(), pairs.videos.tolist(), pairs.matched.tolist(), strict=True))


def similarities(count: int) -> Tensor:
    return torch.randn(count, count, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("hard", [True, False])
def test_pairs_are_one_match_and_two_foreign_ones(hard: bool) -> None:
    owners = [4, 5, 4, 6, 5, 4]
    for seed in range(20):
        pairs = drawn(similarities(6), owners, hard, seed)
        assert len(pairs) == 18
        assert pairs[:6] == [(i, i, True) for i in range(6)]
        assert [text for text, _, _ in pairs[6:12]] == list(range(6))
        assert [video for _, video, _ in pairs[12:]] == list(range(6))
        for text, video, matched in pairs[6:]:
            assert not matched
            assert owners[text] != owners[video]


def test_without_foreign_partners_there_are_matches_only() -> None:
    assert drawn(similarities(3), [8, 8, 8]) == [(i, i, True) for i in range(3)]
    assert drawn(similarities(1), [8]) == [(0, 0, True)]


@pytest.mark.parametrize("hard", [True, False])
def test_hard_negatives_are_drawn_by_similarity(hard: bool) -> None:
    """Shares of 600 draws lie within four standard deviations of the softmax over foreign partners."""
    owners, similarity, draws = [0, 1, 2, 0], similarities(4), 600
    foreign = torch.tensor(owners)[:, None] != torch.tensor(owners)
    weight = similarity if hard else torch.zeros(4, 4)
    of_texts = weight.masked_fill(~foreign, -torch.inf).softmax(1)
    of_videos = weight.masked_fill(~foreign, -torch.inf).softmax(0)
    counts = torch.zeros(2, 4, 4)
    for seed in range(draws):
        for i, (text, video, _) in enumerate(drawn(similarity, owners, hard, seed)[4:]):
            counts[i // 4, text, video] += 1
    for share, expected in zip(counts / draws, (of_texts, of_videos), strict=True):
        deviation = (expected * (1 - expected) / draws).sqrt()
        assert ((share - expected).abs() <= 4 * deviation).all()


def test_pairs_depend_on_the_generator_alone() -> None:
    one, same = (drawn(similarities(8), list(range(8)), seed=3) for _ in range(2))
    assert one == same
    assert one != drawn(similarities(8), list(range(8)), seed=4)


def test_processes_share_the_pairs_by_their_videos() -> None:
    owners = [4, 5, 4, 6, 5, 4]
    joint = drawn(similarities(6), owners)
    for mine in (slice(0, 2), slice(2, 4), slice(4, 6)):
        part = drawn(similarities(6), owners, mine=mine)
        assert [(t, v + mine.start, m) for t, v, m in part] == [
            p for p in joint if p[1] // 2 == mine.start // 2
        ]


def test_the_step_and_the_seed_choose_the_negatives() -> None:
    def lsfm(seed: int, step: int) -> float:
        objective = Objective(tiny_model(), LossConfig(mvcl=0.0, mfcl=0.0), seed)
        return float(objective(tiny_batch(range(6)), step, epoch=1)["lsfm"].detach())

    assert lsfm(0, 1) == lsfm(0, 1)
    assert len({lsfm(0, 0), lsfm(0, 1), lsfm(0, 2), lsfm(1, 0)}) > 2


# In half precision, and broken down


class Recorder(Fusion):
    """A fusion that keeps what it was given to read."""

    reads: ClassVar[Literal["tokens", "ids"]] = "tokens"

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.LazyLinear(2)
        self.seen = torch.zeros(0)

    def fuse(self, text: Tensor, attention_mask: Tensor, frame_tokens: Tensor) -> Tensor:
        self.seen = frame_tokens.detach()
        return frame_tokens.mean(1)


def test_half_precision_does_not_change_which_frames_are_salient() -> None:
    """Frames that differ by less than bfloat16 can tell are ranked as search ranks them: in float32."""
    model = tiny_model(num_salient_frames=1)
    model.fusion = Recorder()
    batch = tiny_batch(range(6), packed=24)
    near = batch.frames[:1].expand(24, -1, -1, -1).clone()
    near[:, ::16] += torch.arange(24, dtype=torch.uint8)[:, None, None, None] // 4
    batch = type(batch)(**(vars(batch) | {"frames": near, "frame_mask": torch.ones(6, FRAMES)}))
    with torch.autocast("cpu", torch.bfloat16):
        Objective(model, LossConfig(mvcl=0.0, mfcl=0.0))(batch, 0, epoch=1)
        frames = model.online.encode_frames(near)
        text = model.online.encode_text(batch.input_ids, batch.attention_mask)
        with torch.no_grad():
            slow = model.momentum.encode_frames(near).embedding
            text_slow = model.momentum.encode_text(batch.input_ids, batch.attention_mask).embedding
    stored = frame_salience("collaborative", frames.embedding, slow)[batch.slots]
    asked = text_salience("collaborative", text.embedding, text_slow)
    scores = torch.einsum("bns,bs->bn", stored, asked)
    index, _ = select_salient_tensor(scores, batch.frame_mask, 1)
    # Each text's own video comes first.
    expected = frames.tokens[batch.slots.gather(1, index)[:, 0]]
    torch.testing.assert_close(model.fusion.seen[:6], expected.detach())
    coarse, _ = select_salient_tensor(scores.bfloat16(), batch.frame_mask, 1)
    assert not torch.equal(coarse, index), "the frames are not near enough for this test to mean anything"


def test_a_model_that_broke_down_gives_nan_losses() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.online.text_projection.bias[0] = torch.nan
    losses = Objective(model, LossConfig())(tiny_batch(range(4)), 0, epoch=1)
    assert losses["lsfm"].isnan()
    assert losses["total"].isnan()
