"""The encoders of frames and of texts, by their names in the settings."""

from __future__ import annotations

import dataclasses
from typing import Protocol, TypeVar

from model.backbones.base import ImageBackbone, TextBackbone
from model.backbones.bert import TextEncoder, TextShape
from model.backbones.clip import ClipTextEncoder, ClipTextShape, ClipVisionTransformer, ClipVitShape
from model.backbones.efficientnet import EfficientNetLite
from model.backbones.huggingface import find_folder
from model.backbones.packaged_clip import PackagedClip
from model.backbones.shapes import format_shape, parse_shape
from model.backbones.vit import VisionTransformer, VitShape
from model.runtime.errors import InputError

__all__ = [
    "EncoderSettings",
    "ImageBackbone",
    "TextBackbone",
    "TextSettings",
    "build_image",
    "build_text",
    "with_shapes",
    "with_text_shape",
]

TINY_TEXT = TextShape(vocabulary=128, hidden=32, layers=2, heads=4, intermediate=64, positions=64)
_BERT_BASE = TextShape(hidden=768, layers=12, heads=12, intermediate=3072)
_ROBERTA_BASE = dataclasses.replace(_BERT_BASE, vocabulary=50265, eps=1e-5)
# Language encoders whose weights come from a folder, and the kind of network that it must hold.
_PUBLISHED_TEXTS = ("bert", "roberta")
_IMAGE, _TEXT = "model.backbone", "model.text"


class TextSettings(Protocol):
    """The settings of a family, a frozen dataclass, that the language encoder reads."""

    @property
    def text(self) -> str:
        """Name of the language encoder."""

    @property
    def text_weights(self) -> str:
        """Hugging Face name or folder of a BERT or RoBERTa; empty: random weights."""

    @property
    def text_shape(self) -> str:
        """Sizes, such as "hidden=768,layers=12"; empty: those of the weights. MiniLM: only fewer layers."""

    @property
    def text_pooling(self) -> str:
        """What represents a text: `mean` of its tokens, or the token `cls`."""

    @property
    def context_length(self) -> int:
        """Tokens of the longest text."""

    @property
    def dropout(self) -> float:
        """Share of activations dropped in training."""

    @property
    def gradient_checkpointing(self) -> bool:
        """Compute activations again in the backward pass."""


class EncoderSettings(TextSettings, Protocol):
    """The settings of a family, a frozen dataclass, that both encoders read."""

    @property
    def backbone(self) -> str:
        """Name of the frame encoder."""

    @property
    def backbone_weights(self) -> str:
        """Hugging Face name or folder of a ViT; empty: random weights, or those to start from."""

    @property
    def backbone_shape(self) -> str:
        """Sizes of a ViT or of CLIP's, such as "hidden=768,layers=12"; empty: those of its weights."""

    @property
    def image_size(self) -> int:
        """Side of a frame in pixels."""

    @property
    def frozen_stages(self) -> int:
        """Stages of the frame encoder that never train."""


Encoders = TypeVar("Encoders", bound=EncoderSettings)
Texts = TypeVar("Texts", bound=TextSettings)


def with_shapes(config: Encoders) -> Encoders:
    """Fill in the sizes of encoders whose weights come from a folder, unless the settings have them.

    Done once before training: a checkpoint then rebuilds its model without that folder.

    Raises:
        InputError: the folder cannot be found, or holds another network.
    """
    if config.backbone == "vit" and not config.backbone_shape and config.backbone_weights:
        vit = VitShape.read(find_folder(config.backbone_weights, f"{_IMAGE}_weights"))
        config = dataclasses.replace(config, backbone_shape=format_shape(vit))  # type: ignore[type-var]
    return with_text_shape(config)


def with_text_shape(config: Texts) -> Texts:
    """As `with_shapes`, for the language encoder alone.

    Raises:
        InputError: the folder cannot be found, or holds another network.
    """
    if config.text in _PUBLISHED_TEXTS and not config.text_shape and config.text_weights:
        shape = TextShape.read(find_folder(config.text_weights, f"{_TEXT}_weights"), config.text)
        config = dataclasses.replace(config, text_shape=format_shape(shape))  # type: ignore[type-var]
    return config


def build_image(config: EncoderSettings) -> ImageBackbone:
    """The frame encoder, with random weights.

    Raises:
        InputError: an unknown backbone, or sizes that do not fit together.
    """
    config = with_shapes(config)
    options = (config.frozen_stages, config.gradient_checkpointing)
    if config.backbone == "clip_b16":
        return PackagedClip(config.image_size)
    if config.backbone == "clip":
        clip = parse_shape(ClipVitShape, config.backbone_shape, f"{_IMAGE}_shape")
        return ClipVisionTransformer(clip, config.image_size, *options)
    if config.backbone == "vit":
        vit = parse_shape(VitShape, config.backbone_shape, f"{_IMAGE}_shape")
        return VisionTransformer(vit, config.image_size, *options)
    return EfficientNetLite(config.backbone, *options)


def build_text(config: TextSettings, hand_over: int = 0) -> TextBackbone:
    """The language encoder with random weights, without its `hand_over` top layers, which the fusion takes.

    Raises:
        InputError: sizes that do not fit together.
    """
    config = with_text_shape(config)
    shape = _text_shape(config)
    if config.context_length > shape.positions:
        raise InputError(
            f"model.context_length={config.context_length} exceeds the text encoder's positions: "
            f"use at most {shape.positions}"
        )
    if isinstance(shape, ClipTextShape):
        if hand_over:
            raise InputError(
                f"model.fusion_from_text={hand_over} takes layers of a BERT: set it to 0 with model.text=clip"
            )
        return ClipTextEncoder(shape, gradient_checkpointing=config.gradient_checkpointing)
    return TextEncoder(
        shape,
        config.dropout,
        kind="roberta" if config.text == "roberta" else "bert",
        pooling=config.text_pooling,
        hand_over=hand_over,
        train_embeddings=config.text in _PUBLISHED_TEXTS,
        gradient_checkpointing=config.gradient_checkpointing,
    )


def _text_shape(config: TextSettings) -> TextShape:
    """The sizes that the settings state, or else the usual ones of the language encoder."""
    setting = f"{_TEXT}_shape"
    if config.text == "clip":
        return parse_shape(ClipTextShape, config.text_shape, setting)
    if config.text_shape and config.text != "tiny":
        return parse_shape(TextShape, config.text_shape, setting)
    return {"tiny": TINY_TEXT, "bert": _BERT_BASE, "roberta": _ROBERTA_BASE}.get(config.text, TextShape())
