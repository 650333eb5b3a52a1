"""CLIP and BLIP as the start of LGDN: the settings that they decide, and their weights in its parts.

An untrained model computes what the published one does: frames and texts in the joint space, and as a
segment the mean of its frames, of normalised ones for CLIP (CLIP4Clip, Luo et al., 2021: meanP) and of
projected ones for BLIP. BLIP's cross-attention is the fusion; its weights are then the fusion's own, not
shared with the text encoder, so that either can be trained, averaged and exported without the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.backbones.bert import TextShape
from model.backbones.blip import blip_fusion_state, blip_image_state, blip_text_state
from model.backbones.clip import (
    CLIP_PIXELS,
    ClipTextShape,
    ClipVitShape,
    clip_image_state,
    clip_text_state,
)
from model.backbones.huggingface import read_json_object, read_scalar, read_weights
from model.backbones.shapes import format_shape, parse_shape
from model.backbones.start_model import SETTING, StartModel, find_start_model
from model.backbones.vit import VisionTransformer, VitShape, pixel_statistics
from model.families.lgdn.config import ModelConfig
from model.families.lgdn.fusion import BlipFusion
from model.families.lgdn.network import LGDN, Towers
from model.runtime.errors import InputError


@dataclass(frozen=True)
class StartSettings:
    """Settings of `ModelConfig` that a published model decides, and others that it proposes."""

    fixed: Mapping[str, Any]
    proposed: Mapping[str, Any]


def complete_settings(values: Mapping[str, Any], chosen: Collection[str]) -> Mapping[str, Any]:
    """Settings `model.*` of a recipe, with those of the model that `start_from` names.

    They are completed once: a run's own settings have all of them, and need the model no more.

    Args:
        values: the settings by name.
        chosen: names of those that were chosen together with `start_from`; it replaces the others.

    Raises:
        InputError: the model cannot be found or read, or a chosen setting contradicts it.
    """
    source = str(values.get("start_from") or "")
    is_complete = values.get("start_weights") and "start_weights" in chosen
    if not source or is_complete:
        return values
    start = find_start_model(source)
    settings = _KINDS[start.kind].settings(start)
    for name, value in settings.fixed.items():
        if name in chosen and str(values[name]) != str(value):
            raise InputError(
                f"model.{name}={values[name]} contradicts {SETTING}={source}, which has {value!r}: leave "
                f"model.{name} out"
            )
    record = [start.name, start.licence, start.origin, start.revision]
    return {
        **settings.proposed,
        **values,
        **settings.fixed,
        "start_from": start.source,
        "start_weights": record,
    }


def load_start_model(model: LGDN) -> None:
    """Load the model that `start_from` names into the online towers, and into a fusion of its kind.

    Raises:
        InputError: it cannot be found or read, or is another one than the settings describe.
    """
    config = model.config
    start = find_start_model(config.start_from)
    kind = _KINDS[start.kind]
    for name, value in kind.settings(start).fixed.items():
        own = getattr(config, name)
        if own != value:
            raise InputError(
                f"model.{name}={own!r} is not that of {SETTING}={config.start_from}, {value!r}: name the "
                "model that these settings came from"
            )
    state = read_weights(start.folder, "")
    try:
        kind.load(model, state, start.folder)
    except KeyError as error:
        raise InputError(
            f"the weights in {start.folder} lack {error.args[0]}, which its config.json promises: fetch or "
            "save it again"
        ) from error
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(
            f"the weights in {start.folder} are not those that its config.json describes: {reason}"
        ) from error


def start_tokenizer(config: ModelConfig) -> Path:
    """The `tokenizer.json` of the model that `start_from` names.

    Raises:
        InputError: the model cannot be found, or has none.
    """
    path = find_start_model(config.start_from).folder / "tokenizer.json"
    if not path.is_file():
        raise InputError(
            f"no {path.name} in {path.parent}: write one with transformers, "
            "AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
        )
    return path


# What no published model of images and texts has, and what it has in place of single encoders.
_WITHOUT = {"backbone_weights": "", "text_weights": "", "classes": 0, "fusion_from_text": 0}


def _clip_settings(start: StartModel) -> StartSettings:
    config = start.configuration()
    vision, text = config.vision_config, config.text_config
    image_shape = ClipVitShape(
        **_sizes(vision),
        patch=_number(vision.patch_size, start, "patch_size"),
        quick=_is_quick(vision.hidden_act, start),
    )
    text_shape = ClipTextShape(
        vocabulary=text.vocab_size,
        **_sizes(text),
        positions=text.max_position_embeddings,
        quick=_is_quick(text.hidden_act, start),
        end=_number(text.eos_token_id, start, "eos_token_id"),
    )
    fixed = {
        "backbone": "clip",
        "backbone_shape": format_shape(image_shape),
        "text": "clip",
        "text_shape": format_shape(text_shape),
        "dim": config.projection_dim,
    }
    proposed = {
        "image_size": _number(vision.image_size, start, "image_size"),
        "frozen_stages": 0,
        "temperature": math.exp(-read_scalar(start.folder, "logit_scale")),
    }
    return StartSettings(fixed | _WITHOUT, proposed)


def _blip_settings(start: StartModel) -> StartSettings:
    config = start.configuration()
    vision, text = config.vision_config, config.text_config
    path = start.folder / "config.json"
    if "num_attention_heads" not in (read_json_object(path).get("text_config") or {}):
        raise InputError(
            f"{path}: text_config has no num_attention_heads, and the default of transformers, "
            f"{text.num_attention_heads}, is not that of the published weights: add it, 12 for them"
        )
    for part in (vision, text):
        if _is_quick(part.hidden_act, start):
            raise InputError(f"{path}: hidden_act is quick_gelu; BLIP computes gelu")
    image_shape = VitShape(
        **_sizes(vision),
        patch=_number(vision.patch_size, start, "patch_size"),
    )
    text_shape = TextShape(
        vocabulary=text.vocab_size,
        **_sizes(text),
        positions=text.max_position_embeddings,
    )
    fixed = {
        "backbone": "vit",
        "backbone_shape": format_shape(image_shape),
        "text": "bert",
        "text_shape": format_shape(text_shape),
        "text_pooling": "cls",
        "dim": config.image_text_hidden_size,
        "token_dim": 0,
    }
    proposed = {
        "image_size": _number(vision.image_size, start, "image_size"),
        "frozen_stages": 0,
        "normalise_frames": False,
        "fusion": "blip",
        "match_score": "matched",
    }
    return StartSettings(fixed | _WITHOUT, proposed)


def _sizes(part: Any) -> dict[str, Any]:
    """The sizes that all encoders have, of a section of a configuration."""
    return {
        "hidden": part.hidden_size,
        "layers": part.num_hidden_layers,
        "heads": part.num_attention_heads,
        "intermediate": part.intermediate_size,
        "eps": part.layer_norm_eps,
    }


def _number(value: object, start: StartModel, name: str) -> int:
    """A whole number that a configuration may also state as several.

    Raises:
        InputError: there are several.
    """
    if not isinstance(value, int):
        raise InputError(f"{start.folder / 'config.json'}: {name} is {value}: it must be one number")
    return value


def _is_quick(activation: str, start: StartModel) -> bool:
    """Whether an activation is `quick_gelu`, not GELU.

    Raises:
        InputError: it is neither.
    """
    if activation not in ("gelu", "quick_gelu"):
        raise InputError(
            f"{start.folder / 'config.json'}: hidden_act is {activation!r}; training starts from gelu and "
            "quick_gelu"
        )
    return activation == "quick_gelu"


def _load_clip(model: LGDN, state: Mapping[str, Tensor], folder: Path) -> None:
    config, towers = model.config, model.online
    image_shape = parse_shape(ClipVitShape, config.backbone_shape, "model.backbone_shape")
    text_shape = parse_shape(ClipTextShape, config.text_shape, "model.text_shape")
    _load_image(towers, clip_image_state(state, image_shape, _grid(towers)), folder)
    towers.text.load_state_dict(clip_text_state(state, text_shape))
    for projection, name in (
        (towers.frame_projection, "visual_projection"),
        (towers.text_projection, "text_projection"),
    ):
        _load_projection(projection, state[f"{name}.weight"], torch.zeros(config.dim))


def _load_blip(model: LGDN, state: Mapping[str, Tensor], folder: Path) -> None:
    config, towers = model.config, model.online
    image_shape = parse_shape(VitShape, config.backbone_shape, "model.backbone_shape")
    text_shape = parse_shape(TextShape, config.text_shape, "model.text_shape")
    _load_image(towers, blip_image_state(state, image_shape, _grid(towers)), folder)
    towers.text.load_state_dict(blip_text_state(state, text_shape))
    _load_projection(towers.frame_projection, state["vision_proj.weight"], state["vision_proj.bias"])
    _load_projection(towers.text_projection, state["text_proj.weight"], state["text_proj.bias"])
    if isinstance(model.fusion, BlipFusion):
        model.fusion.load_state_dict(blip_fusion_state(state, text_shape))


def _grid(towers: Towers) -> int:
    if not isinstance(towers.image, VisionTransformer):
        raise TypeError(f"{type(towers.image).__name__} has no patches")
    return towers.image.grid


def _load_image(towers: Towers, weights: Mapping[str, Tensor], folder: Path) -> None:
    mean, std = pixel_statistics(folder, CLIP_PIXELS)
    towers.image.load_state_dict({**weights, "mean": mean, "std": std})


def _load_projection(projection: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    projection.load_state_dict({"weight": weight, "bias": bias})


@dataclass(frozen=True)
class _Kind:
    """A kind of published model: the settings that it decides, and how its tensors are loaded.

    `load` raises a KeyError for a tensor that is missing and a RuntimeError for one of another shape.
    """

    settings: Callable[[StartModel], StartSettings]
    load: Callable[[LGDN, Mapping[str, Tensor], Path], None]


_KINDS = {"clip": _Kind(_clip_settings, _load_clip), "blip": _Kind(_blip_settings, _load_blip)}
