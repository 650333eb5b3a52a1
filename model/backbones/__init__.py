"""The encoders of frames and of texts, by their names in the settings."""

from __future__ import annotations

from model.backbones.base import ImageBackbone, TextBackbone
from model.backbones.bert import TextEncoder, TextShape
from model.backbones.efficientnet import EfficientNetLite
from model.config import ModelConfig

__all__ = ["ImageBackbone", "TextBackbone", "build_image", "build_text"]

TINY_TEXT = TextShape(vocabulary=128, hidden=32, layers=2, heads=4, intermediate=64, positions=64)


def build_image(config: ModelConfig) -> ImageBackbone:
    """The frame encoder, with random weights.

    Raises:
        ValueError: for an unknown `backbone`.
    """
    return EfficientNetLite(config.backbone, config.frozen_stages)


def build_text(config: ModelConfig) -> TextBackbone:
    """The language encoder, with random weights."""
    return TextEncoder(TINY_TEXT if config.text == "tiny" else None, config.dropout)
