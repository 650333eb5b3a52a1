"""Tiny random ViT, BERT and RoBERTa, saved by transformers, and settings that name them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn

from model.backbones import TextSettings, build_image, build_text
from model.backbones.bert import TextEncoder
from model.backbones.vit import VisionTransformer
from model.families.lgdn.config import ModelConfig

VIT_SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "image_size": 32,
    "patch_size": 8,
}
BERT_SIZES = {
    "vocab_size": 60,
    "hidden_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 20,
}
ROBERTA_SIZES = BERT_SIZES | {"max_position_embeddings": 22, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
#: byte-level pieces and the merges that make them, in RoBERTa's two files; "Ġ" is a space
_PLAIN = ["<s>", "<pad>", "</s>", "<unk>", *"abcdegiklmnorstuwy.hĠ,"]
_JOINED = ["Ġa", "an", "Ġc", "at", "og", "Ġd", "ed", "er", "in", "on", "he", "Ġt", "Ġthe", "ing", "Ġcat"]
PIECES = [*_PLAIN, *_JOINED, "Ġdog", "Ġr", "re", "ad", "<mask>"]
_FIRST = ["Ġ a", "a n", "Ġ c", "a t", "o g", "Ġ d", "e d", "e r", "i n", "o n"]
MERGES = [*_FIRST, "h e", "Ġ t", "Ġt he", "in g", "Ġc at", "Ġd og", "Ġ r", "r e", "a d"]


M = TypeVar("M", bound=nn.Module)


def stir(module: M, share: float = 0.2) -> M:
    """Random values everywhere: a bias or a norm that is left at its start would hide a mistake."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * share)
    return module.eval()


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("vit")
    model = stir(transformers.ViTModel(transformers.ViTConfig(**VIT_SIZES)))
    model.save_pretrained(folder)
    statistics = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.3]}
    (folder / "preprocessor_config.json").write_text(json.dumps(statistics))
    return model, folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("bert")
    model = stir(transformers.BertModel(transformers.BertConfig(**BERT_SIZES)))
    model.save_pretrained(folder)
    return model, folder


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """With `vocab.json` and `merges.txt`, and without a `tokenizer.json`."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("roberta")
    model = stir(transformers.RobertaModel(transformers.RobertaConfig(**ROBERTA_SIZES)))
    model.save_pretrained(folder)
    save_byte_pairs(folder)
    return model, folder


def save_byte_pairs(folder: Path) -> None:
    """RoBERTa's two files of a small vocabulary."""
    vocabulary = {piece: number for number, piece in enumerate(PIECES)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]), encoding="utf-8")


def config(vit: Path | str = "", bert: Path | str = "", **settings: Any) -> ModelConfig:
    values = {"image_size": 32, "context_length": 16, "classes": 0, "frozen_stages": 0, "dropout": 0.0}
    return ModelConfig(
        backbone="vit", backbone_weights=str(vit), text="bert", text_weights=str(bert), **(values | settings)
    )


def frames_of(size: int, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=generator)


def pixels_of(frames: Tensor) -> Tensor:
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.25, 0.3])
    return ((frames / 255.0 - mean) / std).permute(0, 3, 1, 2)


def load_vit(folder: Path, **settings: Any) -> VisionTransformer:
    image = build_image(config(folder, **settings))
    assert isinstance(image, VisionTransformer)
    image.load(folder)
    return image.eval()


def build_bert(settings: TextSettings, hand_over: int = 0) -> TextEncoder:
    text = build_text(settings, hand_over)
    assert isinstance(text, TextEncoder)
    return text
