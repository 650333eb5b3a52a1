"""From CLIP and BLIP to a search, by commands alone, on tiny random weights."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("onnxscript")

import torch
from typer.testing import CliRunner, Result

from model.cli import app as model_app
from model.config import Config, load_config
from model.families.lgdn.network import LGDN
from model.runtime.bundle import Bundle
from model.training.checkpoints import load_checkpoint
from model.training.setup import start
from model.training.train import train
from service.cli.app import app as service_app
from service.live import open_searcher
from service.search.searcher import SearchOptions
from service.settings import load_settings
from tests.support.paths import ROOT
from tests.support.tiny_image_text import CONTEXT, save_blip, save_clip
from tests.support.tiny_videos import make_set

pytestmark = pytest.mark.slow

RECIPES = ROOT / "model" / "recipes"
FAST = [
    *("model.frames=4", f"model.context_length={CONTEXT - 4}", "model.bank_size=12", "data.workers=0"),
    *("train.batch_size=8", "train.epochs=1", "train.precision=float32", "train.threads=1"),
    *("train.log_every=1", "train.tensorboard=false", "train.device=cpu"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_set(tmp_path_factory.mktemp("set"))
    save_clip(folder / "clip")
    save_blip(folder / "blip")
    return folder


def overrides(folder: Path, source: str, output: Path, *changes: str) -> list[str]:
    data = [f"data.annotations={folder / 'notes'}", f"data.videos={folder / 'videos'}"]
    return [f"model.start_from={folder / source}", f"output={output}", *data, *FAST, *changes]


def run(app: Any, *arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result


def train_two_steps(recipe: str, settings: list[str], output: Path) -> set[str]:
    """Train by the command, and repeat it. → the names of the parameters that have moved."""
    command = ["train", RECIPES / f"{recipe}.yaml", *settings]
    run(model_app, *command)
    assert f"resumed {output / 'last.pt'} at step 2" in run(model_app, *command).stderr
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "total" in line]
    assert [line["step"] for line in steps] == [1, 2]
    assert all(math.isfinite(line["total"]) and line["gradient"] > 0 for line in steps)
    before, after = (load_checkpoint(output / f"{name}.pt")[1] for name in ("start", "last"))
    return {n for n, p in after.named_parameters() if not torch.equal(p, before.get_parameter(n))}


def export(output: Path, match: str) -> Bundle:
    exact = [f"--{part}=float32" for part in ("image", "text", "words", "matcher-storage")]
    words = ["export", output / "last.pt", "--output", output / "bundle", "--match", match, *exact]
    run(model_app, *words, "--salience", "simdot")
    return Bundle.open(output / "bundle", threads=1)


@pytest.mark.parametrize(
    ("recipe", "changes", "match"),
    [
        ("clip4clip_msrvtt_1ka", [], "none"),
        # The second of its epochs is the first with SFP.
        ("clip4clip_msrvtt_1ka_sfp", ["loss.warmup_epochs=0"], "salience"),
    ],
)
def test_clip_is_trained_exported_indexed_and_searched(
    folder: Path, tmp_path: Path, recipe: str, changes: list[str], match: str
) -> None:
    moved = train_two_steps(recipe, overrides(folder, "clip", tmp_path, *changes), tmp_path)
    parts = ("image.patches", "image.pre_norm", "text.words", "frame_projection", "temporal.down")
    assert {f"online.{part}.weight" for part in parts} <= moved
    manifest = export(tmp_path, match).manifest
    assert manifest.match_kind == (None if match == "none" else match)
    assert [record.name for record in manifest.provenance.weights] == ["CLIP clip"]
    places = ["--library", tmp_path / "library", "--bundle", tmp_path / "bundle"]
    run(service_app, "index", folder / "videos", *places, "--workers", 0)
    searcher = open_searcher(
        load_settings({"library": tmp_path / "library", "bundle": tmp_path / "bundle", "threads": 1})
    )
    answer = searcher.search("the second clip", 10, SearchOptions(group_by="segment"))
    assert (len(answer.hits), answer.reranked) == (10, match != "none")
    for hit in answer.hits:
        if match == "none":
            assert hit.match_score is None
            assert hit.score == pytest.approx(hit.similarity)
            continue
        # Table 8: the mean cosine of the frames nearest to the text, and the ensemble with the similarity.
        cosines = [frame.relevance for frame in hit.frames if frame.relevance is not None]
        nearest = sorted(cosines, reverse=True)[:2]
        assert hit.match_score == pytest.approx(np.mean(nearest), abs=1e-4)
        assert hit.score == pytest.approx(np.mean(nearest) + hit.similarity, abs=1e-4)


def test_blip_trains_lgdn_with_its_fusion_and_is_exported(folder: Path, tmp_path: Path) -> None:
    """By LGDN's own recipe, whose ViT and BERT it replaces."""
    settings = overrides(
        folder, "blip", tmp_path, "model.fusion=blip", "model.image_size=32", "train.layer_decay=0.8"
    )
    moved = train_two_steps("msrvtt_1ka", settings, tmp_path)
    assert {"online.text.words.weight", "fusion.words.weight", "fusion.layers.0.cross_kv.weight"} <= moved
    bundle = export(tmp_path, "matcher")
    assert "match" in bundle.capabilities
    model = load_checkpoint(tmp_path / "last.pt")[1]
    assert isinstance(model, LGDN)
    frames = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    texts = bundle.encode_text(["a red clip", "time"], tokens=True)
    shown = bundle.encode_frames(frames, tokens=True)
    assert shown.tokens is not None
    found = bundle.match(texts, np.array([0, 1]), shown.tokens)
    # BLIP's own score is the logit of a match alone, which the recipe leaves open.
    with torch.no_grad():
        inputs = (texts.input_ids, texts.attention_mask, shown.tokens)
        logits = model.fusion(*(torch.from_numpy(x) for x in inputs))
    np.testing.assert_allclose(found, logits[:, 1].numpy(), atol=1e-4)


def clip_config(folder: Path, output: Path, *changes: str) -> Config:
    return load_config(RECIPES / "clip4clip_msrvtt_1ka.yaml", overrides(folder, "clip", output, *changes))


def test_a_second_run_goes_on_from_the_first_without_the_published_model(
    folder: Path, tmp_path: Path
) -> None:
    """`model.start_from` gives the settings, `train.start_from` all weights."""
    first = start(clip_config(folder, tmp_path / "first", "train.lr_image=1e-3"), lambda _: None)
    train(first)
    again = [f"train.start_from={tmp_path / 'first' / 'last.pt'}", f"output={tmp_path / 'second'}"]
    tokenizer = tmp_path / "first" / "tokenizer.json"
    for source in (folder / "clip", ""):
        config = load_config(
            tmp_path / "first" / "config.yaml", [*again, f"model.start_from={source}", "model.dropout=0.2"]
        )
        second = start(config, lambda _: None, tokenizer)
        for name, tensor in second.model.state_dict().items():
            if not name.startswith("bank."):
                assert torch.equal(tensor, first.model.state_dict()[name]), name
        peaks = {group["peak"] for group in second.optimizer.param_groups}
        assert peaks == {1e-3, 1e-7, 1e-4}, "CLIP's weights keep their rates"
