"""Training on generated photos and films: it learns, resumes exactly, and says what is wrong."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")

import torch
from torch import nn

from model.config import Config
from model.data.stills import read_stills
from model.families.lgdn.network import LGDN, LGDNBatch
from model.settings import DataConfig
from model.training.run import Run, choose_device
from model.training.setup import start
from model.training.train import train, train_step
from tests.support.tiny_lgdn import lgdn_of
from tests.support.tiny_photos import tiny_config


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def config(data: Path, cache: Path, tmp_path: Path) -> Config:
    base = tiny_config(data, tmp_path / "run")
    return dataclasses.replace(base, data=dataclasses.replace(base.data, cache=str(cache)))


def changed(config: Config, group: str, **settings: object) -> Config:
    return dataclasses.replace(config, **{group: dataclasses.replace(getattr(config, group), **settings)})


def ready(config: Config, tokenizer: Path, **settings: object) -> Run:
    return start(changed(config, "train", **settings), lambda _: None, tokenizer)


def log(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def same_weights(a: LGDN, b: LGDN) -> None:
    others = b.state_dict()
    for name, value in a.state_dict().items():
        assert torch.equal(value, others[name]), name


# An untrained model may give two photos exactly the same score.
@pytest.mark.filterwarnings("ignore:.*score the same as others")
@pytest.mark.slow
def test_the_loss_falls_and_recall_stays_above_chance(config: Config, tokenizer: Path) -> None:
    run = ready(config, tokenizer, epochs=10, evaluate=True, tensorboard=True)
    train(run)
    rows = log(run)
    steps = [row for row in rows if "mvcl" in row]
    # The first losses are small because the bank is empty: compare once it is full.
    for name in ("mvcl", "lsfm"):
        assert np.mean([row[name] for row in steps[-5:]]) < 0.75 * np.mean([row[name] for row in steps[3:8]])
    validations = [row["validation"] for row in rows if "validation" in row]
    assert len(validations) == 10
    for name in ("global", "ensemble"):
        assert validations[-1][name]["R@1"] > 5 * 100 / 24, "far from chance"
    assert (run.folder / "best.pt").is_file()
    assert (run.folder / "config.yaml").is_file()
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    board = events.EventAccumulator(str(run.folder / "tensorboard")).Reload()
    totals = board.Scalars("total")
    assert [event.step for event in totals] == list(range(1, 31))
    assert [event.value for event in totals] == pytest.approx([row["total"] for row in steps])
    assert [event.step for event in board.Scalars("validation/ensemble/R@1")] == list(range(3, 31, 3))


def test_a_resumed_run_equals_an_uninterrupted_one(config: Config, tokenizer: Path, tmp_path: Path) -> None:
    whole = ready(config, tokenizer)
    train(whole)
    # The second stop is inside an epoch; what was logged after the checkpoint is logged once.
    for stop in (2, 5, None):
        torch.manual_seed(999)
        parts = ready(dataclasses.replace(config, output=str(tmp_path / "parts")), tokenizer)
        train(parts, stop_at=stop)
        if stop:
            with (parts.folder / "log.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": stop + 1, "total": 0.0}) + '\n{"step"')
    assert parts.step == whole.step == 6
    assert log(parts) == log(whole)
    same_weights(lgdn_of(whole), lgdn_of(parts))
    moments, others = whole.optimizer.state_dict()["state"], parts.optimizer.state_dict()["state"]
    assert all(torch.equal(moments[i]["exp_avg_sq"], others[i]["exp_avg_sq"]) for i in moments)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_after_the_step_and_saves_it(
    config: Config, tokenizer: Path, number: signal.Signals
) -> None:
    words: list[str] = []

    def report(line: str) -> None:
        words.append(line)
        if line.startswith("step 2/"):
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        train(start(config, report, tokenizer))
    assert signal.getsignal(number) is before
    assert words[-1] == f"stopped after step 2, saved in {config.output}/last.pt"
    assert ready(config, tokenizer).step == 2


def test_accumulated_batches_are_one_step(config: Config, tokenizer: Path, tmp_path: Path) -> None:
    run = ready(config, tokenizer, accumulate=2)
    copied = copy.deepcopy(lgdn_of(run))
    run.model.train()
    copied.train()
    assert (run.steps, run.total) == (1, 2)
    batches = [lgdn_batch(run.loader.make(0, number)) for number in range(2)]
    values = train_step(run, batches)
    # Done naively: each batch by itself, the second with the first in its banks; gradients are averaged.
    objective = type(run.objective)(copied, config.loss, config.train.seed)
    totals = []
    for number, batch in enumerate(batches):
        torch.manual_seed((config.train.seed * 1_000_003 + number) * 1024)
        losses = objective(batch, number, epoch=0)
        (losses["total"] / 2).backward()
        totals.append(float(losses["total"].detach()))
    trained = [p for p in copied.parameters() if p.requires_grad]
    assert values["gradient"] == pytest.approx(float(torch.nn.utils.clip_grad_norm_(trained, 5.0)), rel=1e-5)
    assert values["total"] == pytest.approx(np.mean(totals), rel=1e-5)
    assert int(lgdn_of(run).bank.position) == int(copied.bank.position) == 16


def test_accumulation_is_a_larger_batch_where_no_pair_reads_another(
    config: Config, tokenizer: Path, tmp_path: Path
) -> None:
    """With negatives it is not: a smaller batch has fewer to draw from, and finds the one before in the bank.

    Of one video there are none: matched pairs and retention are left, which are means over pairs and frames.
    """
    config = changed(config, "model", dropout=0.0)
    config = changed(config, "data", film_share=0.0, multi_view=0.0)
    large = ready(dataclasses.replace(config, output=str(tmp_path / "large")), tokenizer)
    small = ready(config, tokenizer, accumulate=2)
    parts = [dataclasses.replace(b, video_ids=torch.zeros(8, dtype=torch.int64)) for b in map_batches(small)]
    joined = LGDNBatch(
        frames=torch.cat([b.frames for b in parts]),
        slots=torch.cat([parts[0].slots, parts[1].slots + len(parts[0].frames)]),
        **{
            name: torch.cat([getattr(b, name) for b in parts])
            for name in ("frame_mask", "input_ids", "attention_mask", "video_ids", "teacher")
        },
    )
    for run in (large, small):
        run.optimizer = torch.optim.SGD(
            [{"params": g["params"], "peak": 0.01} for g in run.optimizer.param_groups]
        )
        run.model.train()
    values, others = train_step(large, [joined]), train_step(small, parts)
    assert values["lsfm"] > 0 == values["mvcl"]
    assert others == pytest.approx(values, rel=1e-4)
    for (name, a), b in zip(large.model.named_parameters(), small.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4, msg=name)


def lgdn_batch(batch: object) -> LGDNBatch:
    assert isinstance(batch, LGDNBatch)
    return batch


def map_batches(run: Run) -> list[LGDNBatch]:
    batches = [lgdn_batch(run.loader.make(0, number)) for number in range(2)]
    length = max(b.input_ids.shape[1] for b in batches)
    return [
        dataclasses.replace(
            b,
            **{
                name: torch.nn.functional.pad(getattr(b, name), (0, length - b.input_ids.shape[1]))
                for name in ("input_ids", "attention_mask")
            },
        )
        for b in batches
    ]


def test_a_loss_that_is_not_finite_stops_with_advice(config: Config, tokenizer: Path) -> None:
    run = ready(config, tokenizer)
    train(run, stop_at=1)
    saved = (run.folder / "last.pt").read_bytes()
    with torch.no_grad():
        lgdn_of(run).online.text_projection.weight.fill_(float("nan"))
    before = lgdn_of(run).online.frame_projection.weight.clone()
    with pytest.raises(FloatingPointError) as raised:
        train(run)
    message = str(raised.value)
    # v2t reads the text's momentum embedding, which is still sound.
    assert message.startswith("step 1 (epoch 1, batch 1): t2v, mvcl, ")
    assert "lower train.lr_image" in message
    assert f"resumes from {run.folder / 'last.pt'}" in message
    assert torch.equal(lgdn_of(run).online.frame_projection.weight, before)
    assert (run.folder / "last.pt").read_bytes() == saved


def test_the_warm_up_is_without_sfp(config: Config, tokenizer: Path) -> None:
    found = {}
    for warmup in (0, 1):
        run = ready(changed(config, "loss", warmup_epochs=warmup), tokenizer)
        run.model.train()
        # The first only fills the bank.
        values = [train_step(run, [run.loader.make(0, n)]) for n in range(2)]
        found[warmup] = values[1]["mfcl"]
    assert found[0] != found[1]


def test_a_checkpoint_of_other_settings_is_refused(config: Config, tokenizer: Path) -> None:
    run = ready(config, tokenizer)
    train(run, stop_at=1)
    with pytest.raises(
        ValueError, match=r"belongs to other settings \(train.epochs\): choose another output"
    ):
        ready(config, tokenizer, epochs=9)
    (run.folder / "last.pt").write_bytes(b"PK torn")
    with pytest.raises(ValueError, match=r"last.pt cannot be resumed .*: delete it to start again"):
        ready(config, tokenizer)


def test_a_checkpoint_without_later_settings_is_resumed(config: Config, tokenizer: Path) -> None:
    run = ready(config, tokenizer)
    train(run, stop_at=1)
    state = torch.load(run.folder / "last.pt", weights_only=True)
    for group, names in {"data": ("second", "second_share", "augment"), "model": ("match_score",)}.items():
        for name in names:
            del state["config"][group][name]
    torch.save(state, run.folder / "last.pt")
    assert ready(config, tokenizer).step == 1
    with pytest.raises(ValueError, match=r"belongs to other settings \(data.second_share\)"):
        ready(changed(config, "data", second_share=0.25), tokenizer)


def test_missing_data_is_named(config: Config, tokenizer: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no captions\.csv in .*nowhere"):
        ready(changed(config, "data", path=str(tmp_path / "nowhere")), tokenizer)
    with pytest.raises(ValueError, match="pass data=DIR"):
        start(dataclasses.replace(config, data=DataConfig()), print)
    with pytest.raises(ValueError, match="no rows of split 'dev'"):
        read_stills(data, "dev")
    with pytest.raises(ValueError, match=r"train\.accumulate=4 is more than an epoch's 3 batches"):
        ready(config, tokenizer, accumulate=4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named(config: Config, tokenizer: Path) -> None:
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(ValueError, match=r"process 1 of this host finds no GPU .* train\.device=cpu"):
        choose_device("cuda")
    with pytest.raises(ValueError, match="float16 needs a GPU"):
        ready(config, tokenizer, precision="float16")


def test_the_momentum_weights_follow_by_equation_2(config: Config, tokenizer: Path) -> None:
    run = ready(config, tokenizer)
    model = lgdn_of(run).train()
    # The first step only fills the bank: without negatives there is no gradient.
    train_step(run, [run.loader.make(0, 0)])
    pairs: list[tuple[nn.Module, nn.Module]] = [
        (model.momentum, model.online),
        (model.fusion_average, model.fusion),
    ]
    slow = [[p.clone() for p in a.parameters()] for a, _ in pairs]
    train_step(run, [run.loader.make(0, 1)])
    for before, (after, fast) in zip(slow, pairs, strict=True):
        moved = 0
        for x, y, z in zip(before, after.parameters(), fast.parameters(), strict=True):
            torch.testing.assert_close(y, 0.9 * x + 0.1 * z)
            moved += not torch.equal(x, y)
        assert moved > 10


def test_what_is_cached_stays_frozen(config: Config, tokenizer: Path) -> None:
    run = ready(config, tokenizer)
    pixels = torch.from_numpy(read_stills(Path(config.data.path), "val").load(0, 48))[None]
    online = lgdn_of(run).online.eval()
    before, trained = online.image.prepare(pixels), online.encode_frames(pixels).embedding
    train(run, stop_at=3)
    online.eval()
    assert torch.equal(online.image.prepare(pixels), before)
    assert not torch.equal(online.encode_frames(pixels).embedding, trained)


def test_the_learned_temperature_is_clamped(config: Config) -> None:
    model = LGDN(dataclasses.replace(config.model, learn_temperature=True))
    assert model.log_temperature.requires_grad
    assert float(model.temperature.detach()) == pytest.approx(0.07)
    for value, expected in ((-20.0, 0.001), (5.0, 0.5)):
        with torch.no_grad():
            model.log_temperature.fill_(value)
        assert float(model.temperature.detach()) == pytest.approx(expected)
