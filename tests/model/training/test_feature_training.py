"""Training FEEL on tiny sets of features: pre-training, fine-tuning from it, resuming, several processes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from model.config import Config, config_from_mapping
from model.data.feature_sets import open_feature_source
from model.data.record import data_of
from model.evaluation.moments.features import evaluate_features
from model.families.base import FeatureFamily
from model.training.checkpoints import read_state
from model.training.launch import launch
from model.training.run import Run
from model.training.setup import start
from model.training.train import train
from tests.support.feature_sets import TinySet, write_howto100m, write_msrvtt_asr, write_tvr
from tests.support.feel_runs import feel_run, make_mask_tokenizer

FINE = {"task": "finetuning", "span": 1.0, "span_skip": 0.5, "hard_after": 2, "hard_count": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("feel")
    make_mask_tokenizer(folder / "tokenizer.json")
    return folder


@pytest.fixture(scope="module")
def tvr(folder: Path) -> TinySet:
    return write_tvr(folder / "tvr")


@pytest.fixture(scope="module")
def clips(folder: Path) -> TinySet:
    return write_howto100m(folder / "clips")


@pytest.fixture(scope="module")
def pretrained(folder: Path, clips: TinySet) -> Run:
    config = feel_run(
        clips, "clips", folder / "pretrained", data={"validation": 1}, epochs=6, log_every=1, lr_head=5e-3
    )
    return trained(config, folder)


def trained(config: Config, folder: Path, stop_at: int | None = None) -> Run:
    run = start(config, lambda _: None, folder / "tokenizer.json")
    train(run, stop_at)
    return run


def log(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def test_pretraining_lowers_its_losses_also_on_clips_of_other_videos(pretrained: Run) -> None:
    rows = log(pretrained)
    steps = [row for row in rows if "mlm" in row]
    validations = [row["validation"]["losses"] for row in rows if "validation" in row]
    assert len(validations) == 6
    for name in ("mlm", "mfm", "gmr", "cs"):
        assert {name} <= set(steps[0]) & set(validations[0])
    assert validations[-1]["total"] < 0.9 * validations[0]["total"]
    best = min(range(6), key=lambda i: validations[i]["total"])
    assert read_state(pretrained.folder / "best.pt")["step"] == (best + 1) * pretrained.steps


def test_fine_tuning_keeps_the_weights_of_pretraining(pretrained: Run, tvr: TinySet, folder: Path) -> None:
    best = pretrained.folder / "best.pt"
    config = feel_run(tvr, "tvr", folder / "tuned", loss=FINE, start_from=str(best), evaluate=True)
    run = trained(config, folder)
    before, after = (read_state(path)["model"] for path in (best, run.folder / "start.pt"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    rows = log(run)
    assert {"query_to_video", "video_to_query", "span"} <= set(rows[0])
    measured = [row["validation"] for row in rows if "validation" in row][-1]
    assert set(measured) == {"videos", "SVMR", "VCMR"}
    assert {"R@1", "R@5", "R@10"} <= set(measured["videos"])
    assert set(measured["SVMR"]) == {"0.5-r1", "0.7-r1", "0.7-r10"}
    lines = data_of(read_state(run.folder / "best.pt")).lines()
    assert lines == (
        'tvr "annotations" with "npz", split train: 4 videos, 12 descriptions',
        'start_from pretrained/best.pt: clips "HowTo100M_v1.csv" with "npz", split train: 6 clips, 75 lines',
    )


def test_a_resumed_run_equals_an_uninterrupted_one(tvr: TinySet, folder: Path, tmp_path: Path) -> None:
    config = feel_run(tvr, "tvr", tmp_path / "whole", loss=FINE)
    whole = trained(config, folder)
    for stop in (2, 4, None):
        torch.manual_seed(999)
        parts = trained(dataclasses.replace(config, output=str(tmp_path / "parts")), folder, stop)
    assert parts.step == whole.step == 6
    assert log(parts) == log(whole)
    others = parts.model.state_dict()
    assert all(torch.equal(value, others[name]) for name, value in whole.model.state_dict().items())


@pytest.mark.slow
def test_fine_tuning_finds_the_moments_of_its_queries(tvr: TinySet, folder: Path) -> None:
    """A query names a topic, and so do a scene's vectors; several videos have a scene of the same topic."""
    loss = {"task": "finetuning", "span": 1.0, "span_skip": 0.0}
    run = trained(feel_run(tvr, "tvr", folder / "learned", loss=loss, epochs=60), folder)
    family, source = run.family, open_feature_source(run.config.data, "train")
    assert isinstance(family, FeatureFamily)
    found = evaluate_features(family.encoder(run.model, run.tokenizer), source)
    assert found.tasks["SVMR"]["0.5-r1"] > 70
    assert found.tasks["SVMR"]["0.7-r5"] > 85
    assert found.tasks["VCMR"]["0.7-r10"] > 60


@pytest.mark.slow
@pytest.mark.parametrize("task", ["pretraining", "finetuning"])
def test_two_processes_train_as_one_with_the_joined_batch(
    tvr: TinySet, folder: Path, tmp_path: Path, task: str
) -> None:
    """What is masked at random is drawn by each process for its own rows: the losses that mask are off."""
    loss = FINE if task == "finetuning" else {"mlm": 0.0, "mfm": 0.0}
    changed = {"dropout": 0.0}
    base = feel_run(tvr, "tvr", tmp_path / "one", loss=loss, epochs=1, evaluate=True)
    one = dataclasses.replace(base, model=dataclasses.replace(base.model, **changed))
    two = dataclasses.replace(
        one,
        output=str(tmp_path / "two"),
        train=dataclasses.replace(one.train, processes=2, threads=2),
    )
    for config in (one, two):
        launch(lambda config=config: config, lambda _: None, folder / "tokenizer.json")  # type: ignore[misc]
    rows = [
        [json.loads(line) for line in (Path(c.output) / "log.jsonl").read_text().splitlines()]
        for c in (one, two)
    ]
    assert len(rows[0]) == len(rows[1]) > 1
    for alone, joined in zip(*rows, strict=True):
        alone, joined = ({k: v for k, v in row.items() if k != "validation"} for row in (alone, joined))
        assert joined == pytest.approx(alone, rel=5e-3)
    (measured, also) = (of_run[-1]["validation"] for of_run in rows)
    for group, figures in measured.items():
        assert also[group] == pytest.approx(figures, rel=5e-3), group


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"data": {"kind": "photos"}}, "data.kind=photos has captions, and family=feel learns from features"),
        ({"family": "lgdn", "data": {"kind": "tvr"}}, "has features, and family=lgdn learns from captions"),
        (
            {"data": {"kind": "clips"}, "loss": {"task": "finetuning"}},
            "data.kind=clips has no queries: set loss.task=pretraining",
        ),
        (
            {"data": {"kind": "msrvtt_asr"}, "loss": {"task": "finetuning"}},
            "data.kind=msrvtt_asr describes whole videos: set loss.span=0",
        ),
        (
            {"data": {"kind": "tvr", "max_vectors": 200}},
            "data.max_vectors=200 must be at most model.frames=100",
        ),
        (
            {"data": {"kind": "clips"}, "loss": {"task": "pretraining", "contrast": 1.0}},
            "loss.contrast=1.0 would tell copies: set model.target_masked=true",
        ),
    ],
)
def test_data_that_the_task_cannot_learn_from_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config_from_mapping({"family": "feel", **values})


def test_features_of_another_width_are_refused(tvr: TinySet, folder: Path, tmp_path: Path) -> None:
    config = feel_run(tvr, "tvr", tmp_path / "run", loss=FINE)
    wider = dataclasses.replace(config, model=dataclasses.replace(config.model, feature_dim=13))
    with pytest.raises(ValueError, match=r"feature_dim=13, but the vectors of tvr train have 12 numbers: se"):
        start(wider, lambda _: None, folder / "tokenizer.json")
    assert start(config, lambda _: None, folder / "tokenizer.json").config.model.feature_dim == 12


def test_whole_videos_are_learned_without_spans(folder: Path, tmp_path: Path) -> None:
    tiny = write_msrvtt_asr(tmp_path / "msrvtt")
    config = feel_run(
        tiny,
        "msrvtt_asr",
        tmp_path / "run",
        data={"validation": 2},
        loss=FINE | {"span": 0.0},
        epochs=1,
    )
    rows = log(trained(config, folder))
    assert "span" not in rows[0]
    assert set(rows[-1]["validation"]) == {"videos"}
