"""A second family of models goes through training, checkpoints, evaluation and graphs by the seam alone."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import torch
from typer.testing import CliRunner

from indexer.library.snapshot import Snapshot
from indexer.options import IndexOptions
from indexer.run import index_paths
from model.cli import app
from model.config import Config, config_from_mapping
from model.data.stills import read_stills
from model.evaluation.evaluate import evaluate_source
from model.export.tracing import check_graph, to_onnx
from model.families import get_family, register_family
from model.families.base import InferenceOptions
from model.families.lgdn.config import ModelConfig
from model.families.lgdn.family import LGDNFamily
from model.runtime.bundle import Bundle
from model.runtime.preprocessing import TextTokenizer, resize_frames
from model.runtime.video import VideoReader
from model.settings import to_mapping
from model.training.checkpoints import load_checkpoint
from model.training.run import Run
from model.training.setup import start
from model.training.train import train
from service.search.queues import SearchQueues
from service.search.searcher import Searcher
from tests.support.tiny_photos import tiny_config
from tests.support.toy_family import ToyConfig, ToyFamily, ToyLosses, ToyModel
from tests.support.toy_videos import make_video

# An untrained model may give two photos exactly the same score.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*score the same as others")]


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    register_family(ToyFamily())


@pytest.fixture
def config(data: Path, tmp_path: Path) -> Config:
    """The shared settings are those of the tiny LGDN, films and their transitions included."""
    values = to_mapping(tiny_config(data, tmp_path / "run"))
    return config_from_mapping(values | {"family": "toy", "model": {"dim": 6}, "loss": {"temperature": 0.2}})


def ready(config: Config, tokenizer: Path) -> Run:
    return start(config, lambda _: None, tokenizer)


def losses(run: Run) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (run.folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if "total" in row]


def test_settings_are_the_familys_own(config: Config) -> None:
    assert (config.model, config.loss) == (ToyConfig(dim=6), ToyLosses(0.2))
    assert config_from_mapping(to_mapping(config)) == config
    with pytest.raises(ValueError, match=r"unknown setting model\.backbone: known are model\.frames"):
        config_from_mapping({"family": "toy", "model": {"backbone": "vit"}})
    with pytest.raises(ValueError, match=r"model\.dim=0 must be positive"):
        config_from_mapping({"family": "toy", "model": {"dim": 0}})
    with pytest.raises(ValueError, match=r"data\.max_views=4 must be 1 to model\.frames=3"):
        config_from_mapping({"family": "toy", "model": {"frames": 3}})
    with pytest.raises(ValueError, match="model holds ModelConfig: family toy takes ToyConfig"):
        Config(family="toy", model=ModelConfig())


def test_families_are_known_by_name() -> None:
    assert isinstance(get_family("toy"), ToyFamily)
    assert isinstance(get_family("lgdn"), LGDNFamily)
    with pytest.raises(ValueError, match="family='clip' is not known: use one of feel, lgdn, lgdn_qa, toy"):
        get_family("clip")

    class Impostor(ToyFamily):
        pass

    for name in ("toy", "lgdn"):
        Impostor.name = name
        with pytest.raises(ValueError, match=f"a family '{name}' exists already"):
            register_family(Impostor())


def test_it_trains_and_resumes_as_if_uninterrupted(config: Config, tokenizer: Path, tmp_path: Path) -> None:
    whole = ready(config, tokenizer)
    train(whole, stop_at=4)
    in_parts = dataclasses.replace(config, output=str(tmp_path / "parts"))
    for stop in (2, 4):
        parts = ready(in_parts, tokenizer)
        train(parts, stop_at=stop)
    rows = losses(whole)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(row["contrastive"] == row["total"] > 0 for row in rows)
    assert losses(parts) == rows
    begun = torch.load(whole.folder / "start.pt", weights_only=True)["model"]
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, parts.model.state_dict()[name]), name
        assert not torch.equal(value, begun[name]), name
    assert not (whole.folder / "cache").exists(), "without frozen stages nothing is cached"


def test_checkpoints_name_the_family(config: Config, tokenizer: Path, tmp_path: Path, data: Path) -> None:
    run = ready(config, tokenizer)
    train(run, stop_at=2)
    last = run.folder / "last.pt"
    assert torch.load(last, weights_only=True)["config"]["family"] == "toy"
    loaded, model = load_checkpoint(last)
    assert loaded == run.config
    assert isinstance(model, ToyModel)
    other = tiny_config(data, run.folder)
    with pytest.raises(ValueError, match=r"belongs to other settings \(family\)"):
        start(other, lambda _: None, tokenizer)
    other = tiny_config(data, tmp_path / "other", start_from=str(last))
    with pytest.raises(ValueError, match="holds another model than the settings name: its family is toy"):
        start(other, lambda _: None, tokenizer)


def test_it_is_validated_and_evaluated_by_its_encoder(config: Config, tokenizer: Path, data: Path) -> None:
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, evaluate=True, epochs=1))
    run = ready(config, tokenizer)
    train(run)
    lines = (run.folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    (validation,) = [row["validation"] for row in map(json.loads, lines) if "validation" in row]
    assert list(validation) == ["global"], "there is no matcher to re-rank by"
    best = run.folder / "best.pt"

    saved, model = load_checkpoint(best)
    reader = TextTokenizer.from_file(tokenizer, saved.model.context_length)
    assert isinstance(model, ToyModel)
    encoder = ToyFamily().encoder(model, reader)
    metrics = evaluate_source(encoder, read_stills(data, "val"))
    assert list(metrics) == ["global"]
    assert metrics["global"]["text_to_video"]["n"] == 48
    assert metrics["global"]["text_to_video"]["R@1"] == validation["global"]["R@1"]

    command = ["evaluate", "photos", str(best), "--data", str(data), "--split", "val", "--threads", "1"]
    told = CliRunner().invoke(app, [*command, "--json"])
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout) == {"settings": {"rerank": False}, "photos": {"val": metrics}}
    refused = CliRunner().invoke(app, [*command, "--salience", "simdot"])
    assert refused.exit_code == 2
    assert "the toy family has no options" in refused.stderr


def test_its_graphs_equal_pytorch(config: Config, tokenizer: Path) -> None:
    run = ready(config, tokenizer)
    train(run, stop_at=2)
    family = get_family(run.config.family)
    graphs = family.graphs(run.model.eval())
    assert list(graphs) == ["frame_encoder.onnx", "segment_encoder.onnx", "text_encoder.onnx"]
    for name, graph in graphs.items():
        assert check_graph(name, graph, to_onnx(graph).SerializeToString(), 1e-5) <= 1e-5
    described = family.describe(run.model)
    assert (described.embedding_dim, described.tokens_per_frame) == (6, None)
    with pytest.raises(ValueError, match="the toy family has no options"):
        family.graphs(run.model, InferenceOptions(weights="online"))


def test_it_is_exported_indexed_and_searched(config: Config, tokenizer: Path, tmp_path: Path) -> None:
    """From a checkpoint to answers by the commands that every family uses."""
    run = ready(config, tokenizer)
    train(run, stop_at=2)
    bundle_folder, videos, library = tmp_path / "bundle", tmp_path / "videos", tmp_path / "library"
    exported = CliRunner().invoke(
        app, ["export", str(run.folder / "last.pt"), "--output", str(bundle_folder), "--threads", "1"]
    )
    assert exported.exit_code == 0, exported.output
    bundle = Bundle.open(bundle_folder)
    assert bundle.capabilities == {"salient_frames", "image_query"}
    for colour in ("red", "green", "blue"):
        make_video(videos / f"{colour}.mp4", parts=[(colour, 1.0)])
    summary = index_paths([videos], library, bundle, IndexOptions(workers=0), lambda _: None)
    assert summary.verdicts == {"ok": 3}

    searcher = Searcher(SearchQueues(bundle), Snapshot.open(library), max_candidates=10)
    result = searcher.search("a red block", 3)
    assert result.rerank_skipped == "no_matcher"
    # The same answer as by PyTorch: frames of one colour make segments of this colour.
    reader = TextTokenizer.from_file(tokenizer, run.config.model.context_length)
    assert isinstance(run.model, ToyModel)
    encoder = ToyFamily().encoder(run.model, reader)
    text = encoder.texts(["a red block"]).embedding[0]
    expected = {}
    for path in videos.iterdir():
        with VideoReader(path) as video:
            (segment,) = video.segments(bundle.manifest.segment_seconds, bundle.manifest.frames_per_segment)
        frames = encoder.frames(resize_frames(segment.frames.data, bundle.manifest.image.size))
        embedding = encoder.segments(frames.embedding[None], np.ones((1, len(frames.embedding)), np.float32))
        expected[path.name] = float(embedding[0] @ text)
    assert {Path(hit.path).name: hit.similarity for hit in result.hits} == pytest.approx(expected, abs=1e-3)
    assert [Path(hit.path).name for hit in result.hits] == sorted(expected, key=lambda name: -expected[name])
