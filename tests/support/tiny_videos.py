"""A tiny data set of videos, tiny random weights of Hugging Face's kind, and a tiny model of the paper's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model.config import Config
from model.families.lgdn.config import LossConfig, ModelConfig
from model.settings import DataConfig, TrainConfig
from model.training.run import Run
from model.training.setup import start
from model.training.train import train
from tests.support.annotations import write_msrvtt
from tests.support.tiny_photos import make_tokenizer
from tests.support.toy_bundle import COLOURS
from tests.support.toy_videos import make_video

SIZES: dict[str, Any] = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}


def make_set(parent: Path) -> Path:
    """Weights of a ViT and a BERT, MSR-VTT's annotations, and its ten videos of two colours each."""
    import transformers

    vit = transformers.ViTConfig(**SIZES, num_hidden_layers=1, image_size=32, patch_size=16)
    transformers.ViTModel(vit).save_pretrained(parent / "vit")
    bert = transformers.BertConfig(**SIZES, num_hidden_layers=3, vocab_size=128, max_position_embeddings=20)
    transformers.BertModel(bert).save_pretrained(parent / "bert")
    make_tokenizer(parent / "bert" / "tokenizer.json")
    (parent / "notes").mkdir()
    write_msrvtt(parent / "notes")
    names = sorted(COLOURS)
    for i in range(10):
        parts = ((names[i % len(names)], 0.6), (names[(i + 1) % len(names)], 0.6))
        make_video(parent / "videos" / f"video{i}.mp4", parts=parts, size=(32, 32), fps=10)
    return parent


def video_config(folder: Path, output: Path, **train_settings: Any) -> Config:
    """The paper's model in the tiny, on 1k-A."""
    settings: dict[str, Any] = {
        "epochs": 2,
        "batch_size": 4,
        "precision": "float32",
        "threads": 1,
        "log_every": 1,
        "evaluate": False,
        "tensorboard": False,
        "device": "cpu",
    }
    return Config(
        output=str(output),
        model=ModelConfig(
            backbone="vit",
            backbone_weights=str(folder / "vit"),
            text="bert",
            text_weights=str(folder / "bert"),
            text_pooling="cls",
            dim=8,
            frames=4,
            image_size=32,
            context_length=16,
            frozen_stages=0,
            classes=0,
            bank_size=12,
            fusion="cross_attention",
            fusion_from_text=1,
            gradient_checkpointing=True,
        ),
        data=DataConfig(
            kind="msrvtt",
            annotations=str(folder / "notes"),
            videos=str(folder / "videos"),
            workers=2,
        ),
        loss=LossConfig(retention_weight=0.0),
        train=TrainConfig(**(settings | train_settings)),
    )


def trained(settings: Config) -> Run:
    """A whole run."""
    run = start(settings, lambda _: None)
    train(run)
    return run
