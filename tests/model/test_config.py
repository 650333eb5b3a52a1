"""Recipes: YAML, then key=value words; what is unknown is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("yaml")

from model.config import Config, config_from_mapping, load_config
from model.families.lgdn.config import ModelConfig
from model.settings import to_mapping
from tests.support.paths import ROOT

RECIPES = sorted((ROOT / "model" / "recipes").glob("*.yaml"))


def recipe(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_words_override_the_recipe_which_overrides_defaults(tmp_path: Path) -> None:
    path = recipe(tmp_path, "model: {dim: 64, temperature: 7e-2}\ntrain: {epochs: 3, lr_image: 1e-4}\n")
    config = load_config(path, ["train.epochs=5", "data=photos", "loss.batch_negatives=true", "output=out"])
    assert (config.model.dim, config.train.epochs, config.data.path) == (64, 5, "photos")
    # YAML 1.1 reads 1e-4 as text.
    assert (config.train.lr_image, config.model.temperature) == (1e-4, 0.07)
    assert config.loss.batch_negatives is True
    assert config.model.frames == Config().model.frames
    assert config.output == "out"


def test_settings_of_no_family_are_lgdns(tmp_path: Path) -> None:
    old = to_mapping(Config(model=ModelConfig(dim=32)))
    del old["family"]
    assert config_from_mapping(old) == Config(family="lgdn", model=ModelConfig(dim=32))
    assert to_mapping(Config())["family"] == "lgdn"
    assert load_config(recipe(tmp_path, "family: lgdn"), []) == Config()
    assert load_config(recipe(tmp_path, ""), ["family=lgdn"]) == Config()


def test_videos_that_are_held_out_are_validated_on() -> None:
    text = {"train": {"evaluate": False}, "data": {"kind": "msrvtt"}}
    assert not config_from_mapping(text).validates
    assert config_from_mapping({**text, "data": {"kind": "msrvtt", "validation": 500}}).validates
    with pytest.raises(ValueError, match=r"data.validation=500 is for video data sets"):
        config_from_mapping({"data": {"validation": 500}})


def test_a_saved_config_reads_back() -> None:
    config = config_from_mapping({"model": {"dim": 32}, "train": {"batch_size": 8}})
    assert config_from_mapping(to_mapping(config)) == config


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        ("modle: {dim: 3}", [], "unknown setting modle: known are name, output, model"),
        ("model: {dims: 3}", [], r"unknown setting model\.dims: known are model\.backbone"),
        ("", ["train.epoch=3"], r"unknown setting train\.epoch: known are"),
        ("", ["name.first=3"], r"name=.* must be one value"),
        ("", ["train.epochs"], "'train.epochs' is not key=value"),
        ("", ["train.epochs=many"], "train.epochs='many' must be of type int"),
        ("", ["train.epochs=2.5"], "train.epochs=2.5 must be of type int"),
        ("", ["train.epochs=0"], "must be positive"),
        ("", ["loss.msl=3"], "loss.msl=3 must be true or false"),
        ("", ["train.seed=true"], "train.seed=True must be a number"),
        ("", ["model=3"], "model=3 must be a group of settings"),
        ("", ["family=clip"], r"family='clip' is not known: use one of feel, lgdn"),
        ("", ["family=7"], r"family=7 is not known: use one of feel, lgdn"),
        ("", ["model.bank_size=4"], "model.bank_size=4 must hold train.batch_size"),
        ("", ["loss.gmr=1"], "need a converter: set model.converter_layers=2, or both losses to 0"),
        ("", ["model.converter_layers=2"], "model.converter_layers=2: the converter would not train"),
        ("", ["loss.cs_margin=-1"], "loss.cs_margin=-1.0 must be 0 or more"),
        ("", ["model.momentum=1"], r"model.momentum=1.0 must be in \[0, 1\)"),
        (
            "",
            ["model.salience_strategy=best"],
            "model.salience_strategy='best' is not known: use one",
        ),
        ("", ["data.kind=films"], "data.kind='films' is not known: use one of photos, questions, msrvtt"),
        ("", ["train.precision=int8"], "use one of float32, bfloat16, float16"),
        ("", ["train.precision=float16", "train.device=cpu"], "float16 needs a GPU: use bfloat16"),
        ("", ["train.processes=5"], "train.batch_size=96 must be a multiple of train.processes=5"),
        ("", ["train.accumulate=0"], "train.accumulate=0 must be positive"),
        ("", ["model.num_salient_frames=17"], "model.num_salient_frames=17 must be 1 to model.frames=16"),
        ("", ["data.film_share=1.5"], r"data.film_share=1.5 must be in \[0, 1\]"),
        (
            "",
            ["data.film_share=0.5", "data.film_frames=17"],
            "data.film_frames=17 must be 2 to model.frames",
        ),
        ("", ["data.film_share=0.5", "data.noise_pool=0"], "data.noise_pool=0 must be 2 or more for films"),
        ("", ["loss.mvcl=0", "loss.mfcl=0", "loss.lsfm=0"], "all off: nothing to learn"),
        ("", ["loss.lsfm=-1"], r"loss.lsfm=-1.0 must be 0 \(off\) or more"),
        ("- 1", [], "must hold settings, not list"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_config(recipe(tmp_path, text), words)


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no recipe .*none\.yaml"):
        load_config(tmp_path / "none.yaml")


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_that_ships_is_valid(path: Path) -> None:
    assert load_config(path, ["data=somewhere"]).name == path.stem
