"""Every recipe of FEEL by commands alone, on tiny data in its official layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from typer.testing import CliRunner, Result

from model.cli import app
from model.data.feature_sets import open_feature_source
from model.evaluation.moments.submission import read_submission
from model.runtime.bundle import Bundle
from model.settings import DataConfig
from service.cli.app import app as service_app
from tests.support.feature_sets import (
    TinySet,
    features_of,
    write_didemo,
    write_features,
    write_howto100m,
    write_msrvtt_asr,
    write_tvr,
)
from tests.support.feel_runs import SIZES, TRAIN, as_overrides, make_mask_tokenizer
from tests.support.paths import ROOT
from tests.support.toy_bundle import DIM, make_toy_bundle
from tests.support.toy_videos import make_video

pytestmark = pytest.mark.slow

FAST = TRAIN | {"epochs": 2, "log_every": 20, "checkpoint_seconds": 1000.0}
SEARCH = ("search", "Ann sees the dog.", "--json", "--group-by", "video")


def write_how2r(parent: Path) -> TinySet:
    return write_tvr(parent, kind="how2r")


#: for each recipe: what writes its data, the kind, the split to measure, the K of its table of moments
TUNED: dict[str, tuple[Callable[[Path], TinySet], str, str, str]] = {
    "feel_tvr": (write_tvr, "tvr", "val", "1, 10, 100"),
    "feel_how2r": (write_how2r, "how2r", "val", "1, 5, 10"),
    "feel_didemo": (write_didemo, "didemo_moments", "test", "1, 5, 10"),
    "feel_msrvtt_7k": (write_msrvtt_asr, "msrvtt_asr", "test", ""),
    "feel_msrvtt_9k": (write_msrvtt_asr, "msrvtt_asr", "test", ""),
}


def run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result


def recipe(name: str) -> Path:
    return ROOT / "model" / "recipes" / f"{name}.yaml"


def data_of(tiny: TinySet, **changes: Any) -> dict[str, Any]:
    """The settings of the data that a recipe leaves to the command line; the rest is the recipe's."""
    settings = tiny.settings("", max_vectors=40, workers=0, **changes)
    return {name: value for name, value in settings.items() if name not in ("kind", "every_seconds")}


def as_wide_as_a_bundle(tiny: TinySet) -> TinySet:
    """The set with features as wide as the toy bundle's embeddings, so that it can be exported with that."""
    features = features_of(tiny.videos, width=DIM)
    return replace(tiny, features=write_features(tiny.features.parent / "narrow", features))


def train(name: str, output: Path, data: dict[str, Any], **settings: Any) -> Path:
    make_mask_tokenizer(output / "tokenizer.json")
    overrides = as_overrides("data", data) + as_overrides("model", SIZES)
    run("train", recipe(name), f"output={output}", *overrides, *as_overrides("train", FAST | settings))
    return output / "last.pt"


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrain")
    tiny = as_wide_as_a_bundle(write_howto100m(folder / "data"))
    return train("feel_pretrain", folder / "run", data_of(tiny, validation=1), epochs=3, log_every=1)


def test_pretraining_validates_its_losses(pretrained: Path) -> None:
    rows = [json.loads(line) for line in (pretrained.parent / "log.jsonl").read_text().splitlines()]
    assert {"mlm", "mfm", "gmr", "cs", "total"} <= set(rows[0])
    assert sum("validation" in row for row in rows) == 3
    result = CliRunner().invoke(
        app, ["evaluate", "features", str(pretrained), "--dataset", str(recipe("feel_tvr"))]
    )
    assert result.exit_code == 2
    assert "has not learned from queries yet: fine-tune it with loss.task=finetuning" in result.output


@pytest.mark.parametrize("name", TUNED)
def test_fine_tuning_and_evaluation(name: str, pretrained: Path, tmp_path: Path) -> None:
    write, kind, split, recalls = TUNED[name]
    tiny = as_wide_as_a_bundle(write(tmp_path / "data"))
    data = data_of(tiny)
    tuned = train(name, tmp_path / "run", data, start_from=str(pretrained))
    settings = [part for override in as_overrides("data", data) for part in ("--setting", override)]
    files = {option: tmp_path / f"{option}.json" for option in ("output", "submission")}
    written = [part for option, path in files.items() for part in (f"--{option}", str(path))]
    check_product(tuned, tmp_path, {"image_query", "salient_frames", *(["moments"] if recalls else [])})
    result = run(
        "evaluate", "features", tuned, "--dataset", recipe(name), *settings, "--split", split, *written
    )
    measured = json.loads(files["output"].read_text(encoding="utf-8"))
    found = read_submission(files["submission"])
    source = open_feature_source(
        DataConfig(
            kind=kind, msrvtt="7k" if "7k" in name else "1ka", **data, every_seconds=tiny.videos[0].every
        ),
        split,  # type: ignore[arg-type]
    )
    count = sum(map(len, source.queries))
    assert measured["settings"]["queries"] == measured["retrieval"]["n"] == count
    assert found.video_numbers == dict(zip(source.item_ids, source.numbers, strict=True))
    assert "| R@1 | R@5 | R@10 |" in result.stdout
    if not recalls:
        assert set(found.tasks) == set(measured["moments"]) == {"VR"}
        return
    assert set(found.tasks) == {"VCMR", "SVMR", "VR"}
    assert all(len(queries) == count for queries in found.tasks.values())
    columns = [f"IoU {iou}, R@{k}" for iou in (0.5, 0.7) for k in recalls.split(", ")]
    assert f"| moments | descriptions | {' | '.join(columns)} |" in result.stdout
    by_type = [task for task in measured["moments"] if task.endswith("_by_type")]
    assert len(by_type) == (0 if kind == "didemo_moments" else 3)


def check_product(tuned: Path, folder: Path, capabilities: set[str]) -> None:
    """The model becomes a bundle, which indexes videos and answers a query with all of them."""
    toy, bundle = make_toy_bundle(folder / "toy"), folder / "bundle"
    storage = ("--text", "float32", "--words", "float32")
    run("export", tuned, "--frame-bundle", toy, "--output", bundle, *storage)
    assert Bundle.open(bundle, threads=1).capabilities == capabilities
    for name in ("red", "blue"):
        make_video(folder / "videos" / f"{name}.mp4", parts=[(name, 6.0)])
    library = ("--library", folder / "library", "--bundle", bundle)
    for command in (("index", folder / "videos", "--workers", 0), SEARCH):
        result = CliRunner().invoke(service_app, [str(part) for part in (*command, *library)])
        assert result.exit_code == 0, result.output
    hits = json.loads(result.stdout)["hits"]
    assert sorted(Path(hit["path"]).stem for hit in hits) == ["blue", "red"]
    assert all(hit["moments"] for hit in hits)


def test_presets_and_suppression_change_what_is_predicted(pretrained: Path, tmp_path: Path) -> None:
    tiny = as_wide_as_a_bundle(write_tvr(tmp_path / "data"))
    data = data_of(tiny)
    tuned = train("feel_tvr", tmp_path / "run", data, start_from=str(pretrained), epochs=1)
    settings = [part for override in as_overrides("data", data) for part in ("--setting", override)]

    def lengths(split: str, *options: str) -> list[list[float]]:
        """For each query the lengths in seconds of its moments in all videos."""
        path = tmp_path / "predictions.json"
        arguments = ["--dataset", str(recipe("feel_tvr")), *settings, "--submission", str(path)]
        said = run("evaluate", "features", tuned, *arguments, "--split", split, *options)
        assert ("no known span; moments are not measured" in said.stderr) == (split == "test")
        rows = read_submission(path).tasks["VCMR"].values()
        return [[end - start for start, end in row.span.tolist()] for row in rows]

    every = lengths("val")
    hero = lengths("val", "--span-limits", "hero")
    assert min(min(row) for row in every) <= 1.5
    assert min(min(row) for row in hero) > 3.0, "HERO's moments have three vectors or more"
    suppressed = lengths("val", "--span-limits", "hero", "--max-iou", "0.5")
    assert all(len(few) < len(many) for few, many in zip(suppressed, hero, strict=True))
    assert len(lengths("test")) > 0, "a split without published spans still gets a submission"
