"""Both objectives against their terms put together by hand: in one process, and in two."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from model.families.feel import losses as equations
from model.families.feel.batch import FeelBatch, Queries
from model.families.feel.config import FeelLossConfig
from model.families.feel.losses import Sequences
from model.families.feel.masking import mask_frames, mask_tokens
from model.families.feel.network import Feel
from model.families.feel.objective import ConversionLosses, Finetuning, Pretraining
from tests.support import naive_feel as naive
from tests.support.tiny_feel import named, tiny_batch, tiny_feel

SEED, STEP, WORLD = 3, 5, 2
PRETRAINING = FeelLossConfig(
    mlm=0.5, mfm=2.0, gmr=3.0, cs=4.0, contrast=1.5, mask_share=0.4, cs_distance="euclidean"
)
FINETUNING = FeelLossConfig(task="finetuning", span_skip=0.0, hinge_margin=0.5, hard_after=-1, span=0.3)
#: what both processes show: videos 1 and 5 are on both, and one process shows a video twice
VIDEO_IDS = [[1, 1, 5, 2], [5, 6, 7, 1]]


def parts() -> list[FeelBatch]:
    other = Queries(
        ["a red car", "rice", "a woman sings", "the beach", "guitar"],
        [1, 1, 0, 3, 2],
        [(0, 1), (2, 2), (0, 4), (-1, -1), (1, 1)],
    )
    return [tiny_batch(0, VIDEO_IDS[0]), tiny_batch(1, VIDEO_IDS[1], other)]


def generator(rank: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed((SEED * 1_000_003 + STEP) * 1024 + rank)


def naive_pretraining(model: Feel, batches: list[FeelBatch], loss: FeelLossConfig) -> dict[str, Tensor]:
    """The losses of the joint batch, of which each process has a part and draws its own masks."""
    words, recovered, embedded, others = [], [], [], []
    pairs: dict[str, list[Tensor]] = {name: [] for name in ("gmr_t2v", "gmr_v2t", "cs_t2v", "cs_v2t")}
    ids: list[int] = []
    targets: dict[str, list[Tensor]] = {"contrast_t2v": [], "contrast_v2t": []}
    converted: dict[str, list[Tensor]] = {"contrast_t2v": [], "contrast_v2t": []}
    for rank, batch in enumerate(batches):
        draws, texts, frames = generator(rank), batch.attention_mask, batch.feature_mask
        masked = mask_tokens(
            batch.input_ids, batch.maskable, batch.mask_id, model.text.vocabulary, loss.mask_share, draws
        )
        e_v, e_t = model.embed_features(batch.features), model.embed_text(batch.input_ids, texts)
        o_t = model.cross(e_v, model.embed_text(masked.input_ids, texts), frames, texts)[1]
        for row, place in masked.chosen.nonzero().tolist():
            logits = model.words(o_t[row, place][None])[0]
            words.append(F.cross_entropy(logits, batch.input_ids[row, place]))
        chosen = mask_frames(frames > 0, loss.mask_share, draws)
        features = batch.features.clone()
        features[chosen] = model.feature_mask.detach()
        # The mask embedding is put in again, so that it has a gradient.
        shown = torch.where(chosen[..., None], model.feature_mask, features)
        o_v = model.cross(model.embed_features(shown), e_t, frames, texts)[0]
        for row in range(len(frames)):
            for place in range(int(frames[row].sum())):
                if chosen[row, place]:
                    embedded.append(e_v[row, place])
                    recovered.append(o_v[row, place])
                else:
                    others.append((o_v if loss.mfm_negatives == "outputs" else e_v)[row, place])
        x = model.converter(e_v, e_t, frames, texts)
        sequences = Sequences(e_v, e_t, x.once_v, x.once_t, frames, texts, x.twice_v, x.twice_t)
        values = equations.gmr(sequences) | equations.cs(sequences, margin=0.1, distance=loss.cs_distance)
        for name, rows in values.items():
            pairs[name] += list(rows)
        own = range(len(frames)) if batch.video_ids is None else batch.video_ids.tolist()
        for row in range(len(frames)):
            if not texts[row].any():
                continue
            ids.append(own[row])
            targets["contrast_t2v"].append(naive.pool(naive.real_rows(e_v, frames, row)).detach())
            targets["contrast_v2t"].append(naive.pool(naive.real_rows(e_t, texts, row)).detach())
            converted["contrast_t2v"].append(naive.pool(naive.real_rows(x.once_v, texts, row)))
            converted["contrast_v2t"].append(naive.pool(naive.real_rows(x.once_t, frames, row)))
    for name, of_rows in targets.items():
        pairs[name] = naive.contrast(of_rows, converted[name], ids, loss.temperature)
    if loss.mfm_negatives == "inputs":
        embedded, recovered = recovered, embedded
    out = {name: naive.mean(rows).float() for name, rows in pairs.items()}
    out |= {
        "mlm": naive.mean(words).float(),
        "mfm": equations.mfm(torch.stack(embedded), torch.stack(recovered), torch.stack(others)).mean(),
        "gmr": out["gmr_t2v"] + out["gmr_v2t"],
        "cs": out["cs_t2v"] + out["cs_v2t"],
        "contrast": out["contrast_t2v"] + out["contrast_v2t"],
    }
    total = loss.mlm * out["mlm"] + loss.mfm * out["mfm"] + loss.gmr * out["gmr"] + loss.cs * out["cs"]
    total = total + loss.contrast * out["contrast"]
    return out | {"total": total}


def naive_finetuning(model: Feel, batches: list[FeelBatch], loss: FeelLossConfig) -> dict[str, Tensor]:
    """The losses of the joint batch in loops over queries and videos."""
    videos: list[tuple[int, Tensor]] = []
    queries: list[tuple[int, Tensor, list[int]]] = []
    for batch in batches:
        assert batch.query_ids is not None
        assert batch.query_mask is not None
        assert batch.query_rows is not None
        assert batch.spans is not None
        first = len(videos)
        encoded = model.encode_video(
            batch.features, batch.feature_mask, batch.input_ids, batch.attention_mask
        )
        for row, frames in enumerate(encoded):
            owner = row + first if batch.video_ids is None else int(batch.video_ids[row])
            videos.append((owner, frames[: int(batch.feature_mask[row].sum())]))
        for number, q in enumerate(model.encode_query(batch.query_ids, batch.query_mask)):
            queries.append((first + int(batch.query_rows[number]), q, batch.spans[number].tolist()))
    scores = [[F.cosine_similarity(q[None], frames).max() for _, frames in videos] for _, q, _ in queries]
    own = [row for row, _, _ in queries]
    foreign = [[videos[row][0] != owner for owner, _ in videos] for row in own]
    positive = [scores[i][row] for i, row in enumerate(own)]
    by_video = [[s for s, other in zip(scores[i], foreign[i], strict=True) if other] for i in range(len(own))]
    by_query = [[scores[k][row] for k in range(len(own)) if foreign[k][row]] for row in own]
    hard = (loss.hard_count, loss.hard_weight, loss.easy_weight) if 0 <= loss.hard_after <= STEP else None
    spans = []
    for row, q, (start, end) in queries:
        if start >= 0:
            frames = videos[row][1][None]
            logits = model.moment_head(q[None], frames, torch.ones(1, frames.shape[1]))
            spans.append(naive.cross_entropy(logits[0][0], start) + naive.cross_entropy(logits[1][0], end))
    out = {
        "query_to_video": naive.mean(naive.hinge(positive, by_video, loss.hinge_margin, hard)).float(),
        "video_to_query": naive.mean(naive.hinge(positive, by_query, loss.hinge_margin, hard)).float(),
        "span": naive.mean(spans).float(),
    }
    total = torch.stack([getattr(loss, name) * value for name, value in out.items()]).sum()
    return out | {"total": total}


def gradients(model: Feel, total: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    torch.autograd.backward(total)
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_equal(
    found: dict[str, Tensor], expected: dict[str, Tensor], grads: tuple[dict[str, Tensor], dict[str, Tensor]]
) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=named(name))
    one, other = ({n: g for n, g in each.items() if g.abs().max() > 0} for each in grads)
    assert one.keys() == other.keys()
    for name, grad in other.items():
        torch.testing.assert_close(one[name], grad, rtol=1e-3, atol=1e-5, msg=named(name))


@pytest.mark.parametrize("negatives", ["outputs", "inputs"])
def test_pretraining_is_the_weighted_sum_of_its_tasks(negatives: str) -> None:
    model, batch, losses = tiny_feel(), tiny_batch(), replace(PRETRAINING, mfm_negatives=negatives)
    found = Pretraining(model, losses, SEED)(batch, STEP, 0)
    expected = naive_pretraining(model, [batch], losses)
    grads = gradients(model, found["total"]), gradients(model, expected["total"])
    assert_equal(found, expected, grads)
    assert all(float(value.detach()) > 0 for value in found.values())


@pytest.mark.parametrize(
    ("off", "left"),
    [
        (("gmr", "cs"), {"mlm", "mfm", "total"}),
        (("cs",), {"mlm", "mfm", "gmr", "gmr_t2v", "gmr_v2t", "total"}),
        (("mlm", "mfm", "gmr"), {"cs", "cs_t2v", "cs_v2t", "total"}),
        (("mlm", "gmr", "cs"), {"mfm", "total"}),
        (("mfm", "gmr", "cs"), {"mlm", "total"}),
        (("mlm", "mfm", "gmr", "cs"), {"contrast", "contrast_t2v", "contrast_v2t", "total"}),
    ],
)
def test_rows_of_table_5_leave_losses_out(off: tuple[str, ...], left: set[str]) -> None:
    model, batch = tiny_feel(), tiny_batch()
    weights = {name: 0.0 if name in off else 1.0 for name in ("mlm", "mfm", "gmr", "cs")}
    weights["contrast"] = float("contrast" in left)
    loss = FeelLossConfig(task="pretraining", mask_share=0.4, **weights)  # type: ignore[arg-type]
    found = Pretraining(model, loss, SEED)(batch, STEP, 0)
    assert set(found) == left
    names = [n for n in weights if n in left]
    torch.testing.assert_close(found["total"], torch.stack([found[name] for name in names]).sum())
    trained = set(gradients(model, found["total"]))
    assert ("word_head.bias" in trained) == ("mlm" in left)
    assert any("to_video" in name for name in trained) == bool({"gmr", "cs", "contrast"} & left)


def test_what_is_masked_follows_from_the_seed_and_the_step() -> None:
    model, batch = tiny_feel(), tiny_batch()
    objective = Pretraining(model, PRETRAINING, SEED)
    with torch.no_grad():
        first, again = (objective(batch, 7, epoch) for epoch in (0, 1))
        other = objective(batch, 8, 0)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["mlm"], other["mlm"])
    assert not torch.equal(first["mfm"], other["mfm"])
    assert torch.equal(first["gmr"], other["gmr"]), "nothing is masked there"


def test_stop_gradient_keeps_the_targets_from_their_reconstruction() -> None:
    """With the source and the target unconnected, only the literal form moves the target."""
    model = tiny_feel(target_masked=True)
    batch = tiny_batch()
    for stop in (True, False):
        e_v = model.embed_features(batch.features).detach().requires_grad_()
        e_t = model.embed_text(batch.input_ids, batch.attention_mask).detach().requires_grad_()
        losses = ConversionLosses(cs=0, stop_gradient=stop)
        found = losses(model.converter, e_v, e_t, batch.feature_mask, batch.attention_mask)
        (grad,) = torch.autograd.grad(found["gmr_t2v"], [e_v], allow_unused=True, materialize_grads=True)
        assert (grad.abs().max() == 0) == stop


def test_a_batch_without_any_text_trains_on_frames_alone() -> None:
    model, batch = tiny_feel(), tiny_batch()
    silent = FeelBatch(
        batch.features, batch.feature_mask, batch.input_ids, batch.attention_mask * 0,
        torch.zeros_like(batch.maskable), batch.mask_id,
    )  # fmt: skip
    found = Pretraining(model, PRETRAINING, SEED)(silent, STEP, 0)
    assert float(found["mfm"].detach()) > 0
    for name in ("mlm", "gmr", "cs"):
        assert float(found[name].detach()) == 0
    assert all(grad.isfinite().all() for grad in gradients(model, found["total"]).values())


@pytest.mark.parametrize(
    "changes", [{}, {"hard_after": STEP, "hard_count": 1}, {"hard_after": STEP + 1, "hard_count": 1}]
)
def test_finetuning_is_heros_losses(changes: dict[str, Any]) -> None:
    loss = FeelLossConfig(**{**vars(FINETUNING), **changes})
    model, batch = tiny_feel(), tiny_batch(video_ids=[1, 1, 5, 2])
    found = Finetuning(model, loss, SEED)(batch, STEP, 0)
    expected = naive_finetuning(model, [batch], loss)
    grads = gradients(model, found["total"]), gradients(model, expected["total"])
    assert_equal(found, expected, grads)
    assert all(float(value.detach()) > 0 for value in found.values())


def test_each_part_of_finetuning_can_be_off() -> None:
    model, batch = tiny_feel(), tiny_batch()
    for name in ("query_to_video", "video_to_query", "span"):
        others = {"query_to_video": 0.0, "video_to_query": 0.0, "span": 0.0} | {name: 2.0}
        loss = FeelLossConfig(**{**vars(FINETUNING), **others})
        found = Finetuning(model, loss, SEED)(batch, STEP, 0)
        assert set(found) == {name, "total"}
        torch.testing.assert_close(found["total"], 2 * found[name])


def test_most_batches_leave_the_span_loss_out() -> None:
    model, batch = tiny_feel(), tiny_batch()
    objective = Finetuning(model, FeelLossConfig(task="finetuning"), SEED).train()
    left_out = [objective._leaves_span_out(step) for step in range(2000)]
    assert sum(left_out) / 2000 == pytest.approx(0.8, abs=0.03)
    with torch.no_grad():
        for step in (left_out.index(True), left_out.index(False)):
            found = objective(batch, step, 0)
            ranking = 8 * (found["query_to_video"] + found["video_to_query"])
            kept = 0.0 if left_out[step] else 0.01
            torch.testing.assert_close(found["total"], ranking + kept * found["span"])
        assert not objective.eval()._leaves_span_out(left_out.index(True))


def test_videos_of_one_id_are_no_negatives() -> None:
    model = tiny_feel()
    loss = FeelLossConfig(**{**vars(FINETUNING), "span": 0.0})
    found = Finetuning(model, loss, SEED)(tiny_batch(video_ids=[4, 4, 4, 4]), STEP, 0)
    assert float(found["total"].detach()) == 0
    assert float(Finetuning(model, loss, SEED)(tiny_batch(), STEP, 0)["total"].detach()) > 0


def test_batches_without_queries_are_refused() -> None:
    batch = tiny_batch()
    bare = FeelBatch(
        batch.features, batch.feature_mask, batch.input_ids, batch.attention_mask, batch.maskable, 4
    )
    with pytest.raises(ValueError, match="the batch has no queries"):
        Finetuning(tiny_feel(), FINETUNING)(bare, 0, 0)


TASKS: dict[str, tuple[Any, FeelLossConfig, Any]] = {
    "pretraining": (Pretraining, PRETRAINING, naive_pretraining),
    "finetuning": (
        Finetuning,
        FeelLossConfig(**{**vars(FINETUNING), "hard_after": 0, "hard_count": 2}),
        naive_finetuning,
    ),
}


def work(rank: int, folder: str) -> None:
    """One process: both tasks by DistributedDataParallel, which averages the gradients."""
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
    results = {}
    for name, (task, loss, _) in TASKS.items():
        model = tiny_feel()
        objective = DistributedDataParallel(task(model, loss, SEED), find_unused_parameters=True)
        found = objective(parts()[rank], STEP, 0)
        grads = gradients(model, found["total"])
        results[name] = {"losses": {n: v.detach() for n, v in found.items()}, "grads": grads}
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_are_one_with_the_joined_batch(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("ranks")
    spawn(work, (str(folder),), WORLD)  # type: ignore[no-untyped-call]
    ranks = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]
    for name, (_, loss, slow) in TASKS.items():
        model = tiny_feel()
        expected = slow(model, parts(), loss)
        means = {key: torch.stack([r[name]["losses"][key] for r in ranks]).mean(0) for key in expected}
        assert_equal(means, expected, (ranks[0][name]["grads"], gradients(model, expected["total"])))


@pytest.mark.parametrize("task", TASKS)
def test_half_precision_is_near(task: str) -> None:
    kind, loss, _ = TASKS[task]
    model, batch = tiny_feel(), tiny_batch()
    exact = kind(model, loss, SEED)(batch, STEP, 0)
    with torch.autocast("cpu", torch.bfloat16):
        rough = kind(model, loss, SEED)(batch, STEP, 0)
    for name, value in exact.items():
        assert rough[name].dtype == torch.float32, name
        torch.testing.assert_close(rough[name], value, rtol=0.1, atol=0.1, msg=named(name))
    assert all(grad.isfinite().all() for grad in gradients(model, rough["total"]).values())
