"""A data set's test split, measured: the same figures as its videos give as clips with queries."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from typer.testing import CliRunner

from model.cli import app
from model.config import Config
from model.data.datasets import open_dataset
from model.evaluation.encoders import BundleEncoder
from model.evaluation.evaluate import evaluate_source, evaluate_videos, tune
from model.families.lgdn.config import ModelConfig
from model.runtime.bundle import Bundle
from model.settings import DataConfig
from tests.support.annotations import write_json
from tests.support.paths import ROOT
from tests.support.toy_bundle import COLOURS, IMAGE_SIZE, make_toy_bundle
from tests.support.toy_videos import make_video

PAIRS = [("red", "green"), ("green", "blue"), ("blue", "white"), ("yellow", "red"), ("cyan", "magenta")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MSR-VTT's full split of five videos of two colours, two captions each: all test."""
    parent = tmp_path_factory.mktemp("msrvtt")
    assert {colour for pair in PAIRS for colour in pair} <= COLOURS.keys()
    videos = [{"video_id": f"video{i}", "split": "test"} for i in range(len(PAIRS))]
    sentences, lines = [], []
    for i, (first, second) in enumerate(PAIRS):
        make_video(parent / "videos" / f"video{i}.mp4", parts=((first, 1.0), (second, 0.5)))
        for text in (f"{first} then {second}", first):
            sentences.append({"video_id": f"video{i}", "caption": text})
            lines.append(json.dumps({"video": f"video{i}.mp4", "query": text, "set": "s"}))
    write_json(parent / "MSRVTT_data.json", {"videos": videos, "sentences": sentences})
    (parent / "queries.jsonl").write_text("\n".join(lines))
    return parent


@pytest.mark.filterwarnings("ignore:.*score the same as others")
def test_a_data_set_measures_as_its_clips_do(folder: Path) -> None:
    encoder = BundleEncoder(Bundle.open(make_toy_bundle(folder / "bundle"), threads=1))
    frames = encoder.profile.frames_per_segment
    config = Config(
        model=ModelConfig(frames=frames, image_size=IMAGE_SIZE, num_salient_frames=1),
        data=DataConfig(
            kind="msrvtt",
            msrvtt="full",
            annotations=str(folder),
            videos=str(folder / "videos"),
            max_views=1,
        ),
    )
    source = open_dataset(config, "test")
    found = evaluate_source(encoder, source)
    clips = evaluate_videos(encoder, folder / "videos", folder / "queries.jsonl")
    assert found == clips["s"]["all"]
    assert found["global"]["text_to_video"]["n"] == 10
    assert found["global"]["text_to_video"]["R@5"] == 100
    assert tune(encoder, source)["ensemble_lambda"] >= 0


@pytest.mark.filterwarnings("ignore:.*score the same as others")
def test_the_command_measures_a_recipes_data_set(folder: Path, tmp_path: Path) -> None:
    bundle = make_toy_bundle(tmp_path / "bundle")
    recipe = ROOT / "model" / "recipes" / "msrvtt_full.yaml"
    words = ["evaluate", "dataset", str(bundle), "--dataset", str(recipe)]
    words += ["--output", str(tmp_path / "result.json")]
    places = ["--setting", f"data.annotations={folder}", "--setting", f"data.videos={folder / 'videos'}"]
    done = CliRunner().invoke(app, [*words, *places])
    assert done.exit_code == 0, done.output
    assert "msrvtt full test: 10 texts, 5 videos" in done.output
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["datasets"]["msrvtt full test"]["global"]["text_to_video"]["R@5"] == 100
    wrong = CliRunner().invoke(app, [*words, *places, "--split", "val"])
    assert wrong.exit_code == 2
    assert "error: msrvtt full val: the annotation files name no video" in wrong.output
