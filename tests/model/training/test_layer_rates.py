"""The learning rate of each parameter, with `train.layer_decay`, by rules that are spelled out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from model.config import Config, load_config
from model.families import register_family
from model.families.lgdn.network import LGDN
from model.runtime.errors import InputError
from model.settings import TrainConfig
from model.training.run import make_optimizer
from tests.support.paths import ROOT
from tests.support.tiny_image_text import CONTEXT, save_blip, save_clip
from tests.support.tiny_lgdn import tiny_model_config
from tests.support.toy_family import ToyConfig, ToyFamily, ToyLosses

RECIPES = ROOT / "model" / "recipes"
RATES: dict[str, Any] = {"lr_image": 1e-3, "lr_text": 3e-3, "lr_head": 7e-3}


def peaks(config: Config) -> dict[str, float]:
    """The peak rate of each parameter that trains, by its name."""
    model = LGDN(config.model)
    optimizer = make_optimizer(model, config)
    found = {id(p): group["peak"] for group in optimizer.param_groups for p in group["params"]}
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert len(found) == len(trained)
    return {name: found[id(parameter)] for name, parameter in trained.items()}


def started(folder: Path, recipe: str, *changes: str) -> Config:
    sizes = [f"model.context_length={CONTEXT - 4}", "model.image_size=32", "model.bank_size=128"]
    return load_config(RECIPES / f"{recipe}.yaml", [f"model.start_from={folder}", *sizes, *changes])


def naive_rate(name: str, *, blip: bool) -> tuple[str, int]:
    """The setting of a parameter's rate, and how many of two layers stand above it, spelled out."""
    lowest = ("patches", "cls", "positions", "pre_norm", "words")
    for prefix, rate in (("online.image.", "lr_image"), ("online.text.", "lr_text"), ("fusion.", "lr_text")):
        if not name.startswith(prefix) or (prefix == "fusion." and not blip):
            continue
        part = name.removeprefix(prefix)
        if part.startswith("layers.0."):
            return rate, 1
        if part.startswith("layers.1."):
            return rate, 0
        # In a BERT the norm stands above the embeddings, in the others above the layers.
        bert = blip and prefix != "online.image."
        return rate, 2 if part.startswith(lowest) or (bert and part.startswith("norm.")) else 0
    if name.startswith("online.frame_projection."):
        return "lr_image", 0
    if name.startswith(("online.text_projection.", "log_temperature")):
        return "lr_text", 0
    return "lr_head", 0


@pytest.mark.parametrize("source", ["clip", "blip"])
def test_a_layer_learns_at_the_decayed_rate_of_the_layer_above_it(tmp_path: Path, source: str) -> None:
    rates = [f"train.{name}={rate}" for name, rate in RATES.items()]
    if source == "clip":
        save_clip(tmp_path)
        config = started(tmp_path, "clip4clip_msrvtt_1ka", "train.layer_decay=0.5", *rates)
    else:
        save_blip(tmp_path)
        config = started(tmp_path, "msrvtt_1ka", "model.fusion=blip", "train.layer_decay=0.5", *rates)
    found = peaks(config)
    for name, peak in found.items():
        rate, above = naive_rate(name, blip=source == "blip")
        assert peak == pytest.approx(RATES[rate] * 0.5**above), name
    assert len(set(found.values())) == 7


def test_layers_that_the_fusion_took_stand_above_those_of_the_text() -> None:
    """And blocks of a convolutional backbone are layers too."""
    model = tiny_model_config(fusion="cross_attention", fusion_from_text=1)
    config = Config(model=model, train=TrainConfig(layer_decay=0.5, batch_size=8, **RATES))
    found = peaks(config)
    assert found["fusion.layers.0.up.weight"] == 3e-3
    assert found["online.text.layers.0.up.weight"] == 1.5e-3
    blocks = sorted(int(name.split(".")[3]) for name in found if name.startswith("online.image.blocks."))
    for number in set(blocks):
        rate = found[f"online.image.blocks.{number}.project.weight"]
        assert rate == pytest.approx(1e-3 * 0.5 ** (blocks[-1] - number))
    assert found["online.image.conv_head.weight"] == 1e-3
    assert found["online.temporal.up.weight"] == 7e-3


def test_one_rate_for_all_layers_by_default(tmp_path: Path) -> None:
    save_clip(tmp_path)
    assert set(peaks(started(tmp_path, "clip4clip_msrvtt_1ka")).values()) == {1e-7, 1e-4}
    with pytest.raises(InputError, match=r"train\.layer_decay=1\.5 must be above 0, and at most 1"):
        TrainConfig(layer_decay=1.5)


def test_a_family_without_layers_refuses_the_decay() -> None:
    register_family(ToyFamily())
    config = Config(family="toy", model=ToyConfig(), loss=ToyLosses(), train=TrainConfig(layer_decay=0.5))
    with pytest.raises(
        InputError, match=r"layer_decay=0\.5 lowers .* family=toy tells none apart: set it to 1"
    ):
        make_optimizer(ToyFamily().build(config.model), config)
