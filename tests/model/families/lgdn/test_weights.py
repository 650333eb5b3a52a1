"""What a model starts from: published weights in both towers and in the fusion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

from model.families.lgdn.config import ModelConfig
from model.families.lgdn.network import LGDN
from model.families.lgdn.weights import load_published, published_tokenizer_path, sources
from tests.support.tiny_photos import make_tokenizer

SIZES: dict[str, Any] = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    parent = tmp_path_factory.mktemp("published")
    vit = transformers.ViTConfig(**SIZES, num_hidden_layers=2, image_size=32, patch_size=16)
    transformers.ViTModel(vit).save_pretrained(parent / "vit")
    bert = transformers.BertConfig(**SIZES, num_hidden_layers=5, vocab_size=50, max_position_embeddings=20)
    transformers.BertModel(bert).save_pretrained(parent / "bert")
    make_tokenizer(parent / "bert" / "tokenizer.json")
    return parent


def config(folder: Path, fusion: str = "cross_attention") -> ModelConfig:
    return ModelConfig(
        backbone="vit",
        backbone_weights=str(folder / "vit"),
        text="bert",
        text_weights=str(folder / "bert"),
        dim=8,
        frames=4,
        image_size=32,
        context_length=16,
        frozen_stages=0,
        classes=0,
        bank_size=8,
        fusion=fusion,
        fusion_from_text=2,
    )


def test_both_towers_and_the_fusion_start_from_published_weights(folder: Path) -> None:
    model = LGDN(config(folder))
    load_published(model)
    bert = transformers.BertModel.from_pretrained(folder / "bert")
    vit = transformers.ViTModel.from_pretrained(folder / "vit")
    for towers in (model.online, model.momentum):
        patches = towers.image.get_parameter("patches.weight")
        assert torch.equal(patches, vit.get_parameter("embeddings.patch_embeddings.projection.weight"))
        assert len(list(towers.text.get_submodule("layers").children())) == 3
        up = towers.text.get_parameter("layers.2.up.weight")
        assert torch.equal(up, bert.get_parameter("encoder.layer.2.intermediate.dense.weight"))
    for fusion in (model.fusion, model.fusion_average):
        assert len(list(fusion.get_submodule("layers").children())) == 2
        for number in range(2):
            layer, published = f"layers.{number}", f"encoder.layer.{3 + number}"
            up = fusion.get_parameter(f"{layer}.up.weight")
            assert torch.equal(up, bert.get_parameter(f"{published}.intermediate.dense.weight"))
            qkv = fusion.get_parameter(f"{layer}.qkv.weight")
            assert torch.equal(qkv[:16], bert.get_parameter(f"{published}.attention.self.query.weight"))


def test_a_fusion_that_takes_no_layers_refuses_them(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"fusion_from_text=2 needs model\.fusion=cross_attention"):
        load_published(LGDN(config(folder, "joint")))


def test_the_tokenizer_comes_from_the_text_encoders_folder(folder: Path, tmp_path: Path) -> None:
    assert published_tokenizer_path(config(folder)) == folder / "bert" / "tokenizer.json"
    (tmp_path / "bert").mkdir()
    with pytest.raises(ValueError, match=r"no tokenizer.json in .*bert: write one with transformers"):
        published_tokenizer_path(config(tmp_path))
    with pytest.raises(ValueError, match=r"needs a tokenizer: set model\.text_weights"):
        published_tokenizer_path(ModelConfig(text="bert"))


def test_a_bundle_names_its_sources_without_places(folder: Path) -> None:
    named = sources(config(folder))
    assert [entry["name"] for entry in named] == ["Vision Transformer vit", "BERT bert"]
    assert sources(
        ModelConfig(backbone="vit", text="bert", text_weights="google-bert/bert-base-uncased")
    ) == [
        {
            "name": "BERT google-bert/bert-base-uncased",
            "licence": "see its model card",
            "source": "Hugging Face",
        }
    ]
    assert len(sources(ModelConfig())) == 3
