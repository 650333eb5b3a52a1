"""What a model starts from: published weights in both towers and in the fusion."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from model.families.lgdn.config import ModelConfig  # noqa: E402
from model.families.lgdn.network import LGDN  # noqa: E402
from model.families.lgdn.weights import load_published, published_tokenizer_path, sources  # noqa: E402
from tests.support.tiny_training import make_tokenizer  # noqa: E402

SIZES = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}


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
        assert torch.equal(towers.image.patches.weight, vit.embeddings.patch_embeddings.projection.weight)
        assert len(towers.text.layers) == 3
        assert torch.equal(towers.text.layers[2].up.weight, bert.encoder.layer[2].intermediate.dense.weight)
    for fusion in (model.fusion, model.fusion_average):
        for layer, published in zip(fusion.layers, bert.encoder.layer[3:], strict=True):
            assert torch.equal(layer.up.weight, published.intermediate.dense.weight)
            assert torch.equal(layer.qkv.weight[:16], published.attention.self.query.weight)


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
