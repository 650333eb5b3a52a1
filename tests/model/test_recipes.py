"""Every recipe loads, and those of the paper's data sets build the paper's model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
from torch import nn

from model.backbones import build_image, build_text
from model.config import Config, load_config
from model.families.lgdn_qa.config import AnswerModelConfig
from model.settings import to_mapping
from tests.support.paths import ROOT

RECIPES = sorted((ROOT / "model" / "recipes").glob("*.yaml"))
PAPER = {
    "didemo": "didemo",
    "image_text": "image_text",
    "msrvtt_1ka": "msrvtt",
    "msrvtt_7k": "msrvtt",
    "msrvtt_full": "msrvtt",
    "msvd": "msvd",
    "vatex": "vatex",
}
#: for each recipe of FEEL's fine-tuning: kind of data, weights of the losses, seconds of a vector
FEEL = {
    "feel_tvr": ("tvr", (8.0, 8.0, 0.01), 1.5),
    "feel_how2r": ("how2r", (8.0, 8.0, 0.01), 1.5),
    "feel_didemo": ("didemo_moments", (10.0, 10.0, 0.01), 1.5),
    "feel_msrvtt_7k": ("msrvtt_asr", (10.0, 10.0, 0.0), 2.0),
    "feel_msrvtt_9k": ("msrvtt_asr", (10.0, 10.0, 0.0), 2.0),
}
QUESTIONS = {"msrvtt_qa": "msrvtt_qa", "msvd_qa": "msvd_qa"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads_under_its_own_name(path: Path) -> None:
    config = load_config(path)
    assert config.name == path.stem
    assert config.output == f"runs/{path.stem}"
    assert path.name in path.read_text().split("\nname:")[0], "its head tells the command"


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_papers_settings_for_questions(name: str) -> None:
    """As for retrieval (section 4.1), but for what only the contrastive losses read."""
    config = load_config(next(path for path in RECIPES if path.stem == name))
    retrieval = load_config(next(path for path in RECIPES if path.stem == "msrvtt_full"))
    assert (config.family, config.data.kind) == ("lgdn_qa", QUESTIONS[name])
    assert isinstance(config.model, AnswerModelConfig)
    assert (config.model.frames_read, config.model.tune_towers) == ("salient", True)
    assert (config.data.num_answers, config.loss.warmup_epochs) == (1500, 1)
    assert config.train == retrieval.train
    shared = {name: getattr(config.model, name) for name in to_mapping(retrieval.model)}
    assert shared == to_mapping(retrieval.model) | {"bank_size": 1}


def test_the_head_of_answers_has_the_model_of_lite2() -> None:
    """Its towers and its fusion load the weights of a run of that recipe."""
    lite2, questions = (
        load_config(ROOT / "model" / "recipes" / f"{name}.yaml") for name in ("lite2", "questions")
    )
    shared = {name: getattr(questions.model, name) for name in to_mapping(lite2.model)}
    assert shared == to_mapping(lite2.model) | {"bank_size": 1}
    assert not questions.model.tune_towers


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_settings(name: str) -> None:
    config = load_config(next(path for path in RECIPES if path.stem == name))
    model, train = config.model, config.train
    assert config.data.kind == PAPER[name]
    if config.data.kind == "msrvtt":
        assert config.data.msrvtt == name.removeprefix("msrvtt_")
    assert (model.frames, model.num_salient_frames, model.bank_size) == (16, 2, 9600)
    assert (model.momentum, model.temperature, model.learn_temperature) == (0.99, 0.07, False)
    assert (model.dim, model.image_size, model.salience_strategy) == (256, 224, "collaborative")
    assert model.context_length == (64 if name == "didemo" else 32)
    assert (train.batch_size, train.epochs, train.weight_decay, train.final_lr) == (24, 5, 0.02, 0.1)
    assert {train.lr_image, train.lr_text, train.lr_head} == {1e-5}
    # ALBEF's, which the paper follows: AdamW as published, no clipping, the online weights are measured.
    assert (train.beta2, train.clip, model.projection_dropout) == (0.999, 0.0, 0.0)
    assert (model.inference_weights, model.match_score) == ("online", "difference")
    assert (config.loss.mvcl, config.loss.mfcl, config.loss.lsfm) == (1.0, 1.0, 1.0)
    assert (config.loss.warmup_epochs, config.loss.batch_negatives, config.loss.retention_weight) == (
        1,
        False,
        0,
    )
    # Without the weights' folders the sizes are the paper's own.
    with torch.device("meta"):
        bare = replace(model, backbone_weights="", text_weights="")
        image, text = build_image(bare), build_text(bare, model.fusion_from_text)
    assert (image.width, text.width) == (768, 768)
    layers = [module.get_submodule("layers") for module in (image, text)]
    counts = [len(each) for each in layers if isinstance(each, nn.ModuleList)]
    assert (*counts, model.fusion_from_text) == (12, 6, 6)
    assert model.fusion == "cross_attention"


@pytest.mark.parametrize("name", ["clip4clip_msrvtt_1ka", "clip4clip_msrvtt_1ka_sfp"])
def test_the_settings_of_clip4clip(name: str) -> None:
    config = load_config(ROOT / "model" / "recipes" / f"{name}.yaml")
    model, train, loss = config.model, config.train, config.loss
    assert (config.data.kind, config.data.msrvtt) == ("msrvtt", "1ka")
    assert (model.frames, model.context_length, model.normalise_frames) == (12, 32, True)
    assert (train.batch_size, train.epochs, train.warmup, train.final_lr) == (128, 5, 0.1, 0.0)
    assert (train.lr_image, train.lr_text, train.lr_head) == (1e-7, 1e-7, 1e-4)
    assert (train.beta2, train.weight_decay, train.clip) == (0.98, 0.2, 1.0)
    # Table 8: frames are scored by the cosine, and there is no matching head.
    assert (model.salience_strategy, model.num_salient_frames, loss.lsfm) == ("simdot", 2, 0.0)
    assert (loss.sfp, loss.mfcl) == ((True, 1.0) if name.endswith("sfp") else (False, 0.0))
    # Before a model is named, the sizes are those of ViT-B/32.
    with torch.device("meta"):
        image, text = build_image(model), build_text(model)
    counts = [sum(p.numel() for p in part.parameters()) for part in (image, text)]
    assert counts == [87_456_000, 63_165_952]


@pytest.mark.parametrize("name", FEEL)
def test_the_settings_of_hero_for_fine_tuning(name: str) -> None:
    config = load_config(ROOT / "model" / "recipes" / f"{name}.yaml")
    loss, (kind, weights, every) = config.loss, FEEL[name]
    assert (config.data.kind, config.data.every_seconds) == (kind, every)
    if kind == "msrvtt_asr":
        assert config.data.msrvtt == {"feel_msrvtt_7k": "7k", "feel_msrvtt_9k": "1ka"}[name]
    assert (loss.task, loss.query_to_video, loss.video_to_query, loss.span) == ("finetuning", *weights)
    assert (loss.hinge_margin, loss.span_skip) == (0.1, 0.8)
    assert (loss.hard_after, loss.hard_count, loss.hard_weight, loss.easy_weight) == (2000, 20, 10.0, 0.1)
    check_feel(config)


def test_the_papers_settings_for_pretraining() -> None:
    config = load_config(ROOT / "model" / "recipes" / "feel_pretrain.yaml")
    loss, data = config.loss, config.data
    assert (data.kind, data.clip_seconds, data.every_seconds) == ("clips", 60.0, 1.5)
    assert (loss.task, loss.mlm, loss.mfm, loss.gmr, loss.cs) == ("pretraining", 1.0, 1.0, 1.0, 1.0)
    assert (loss.mask_share, loss.margin, loss.stop_gradient) == (0.15, 0.1, True)
    check_feel(config)


def check_feel(config: Config) -> None:
    """What pre-training and fine-tuning share: HERO's sizes and optimiser."""
    model, train, data = config.model, config.train, config.data
    assert (model.feature_dim, model.hidden, model.cross_layers, model.mcb_layers) == (4352, 768, 6, 2)
    assert (model.frames, data.max_vectors, model.context_length, model.dropout) == (100, 100, 60, 0.1)
    assert (train.beta2, train.weight_decay, train.clip) == (0.98, 0.01, 1.0)
    with torch.device("meta"):
        text = build_text(replace(model, text_weights=""))
    assert (text.width, len(text.layers)) == (768, 12)


def test_the_small_feel_needs_no_download_and_reads_features_of_any_width() -> None:
    config = load_config(ROOT / "model" / "recipes" / "feel_small.yaml")
    assert (config.model.text, config.model.feature_dim, config.data.kind) == ("minilm", 0, "clips")
    changed = ["loss.task=finetuning", "data.kind=tvr", "data.annotations=DIR"]
    tuned = load_config(ROOT / "model" / "recipes" / "feel_small.yaml", changed)
    assert tuned.model == config.model
