"""The published weights of BLIP (Li et al., 2022) by the names of the encoders here.

BLIP's image encoder is a ViT, and its text encoder, alone, is a BERT without segments: `VisionTransformer`
and `TextEncoder` compute the same. With cross-attention in every layer the BERT is BLIP's fusion.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from model.backbones.bert import TextShape, layer_state
from model.backbones.vit import VitShape, interpolate

_KINDS = ("weight", "bias")
_TEXT = "text_encoder."


def blip_image_state(state: Mapping[str, Tensor], shape: VitShape, grid: int) -> dict[str, Tensor]:
    """The image encoder by the names of `VisionTransformer`.

    Args:
        state: the tensors of a `BlipForImageTextRetrieval`.
        shape: the sizes of its image encoder.
        grid: patches in a row; positions of another number are interpolated.

    Raises:
        KeyError: a tensor is missing, or the published positions are no square.
    """
    stem = "vision_model."
    weights = {
        "cls": state[f"{stem}embeddings.class_embedding"],
        "positions": interpolate(state[f"{stem}embeddings.position_embedding"], grid),
    }
    parts = {"patches": "embeddings.patch_embedding", "norm": "post_layernorm"}
    for i in range(shape.layers):
        layer = f"encoder.layers.{i}"
        parts |= {
            f"layers.{i}.attention_norm": f"{layer}.layer_norm1",
            f"layers.{i}.qkv": f"{layer}.self_attn.qkv",
            f"layers.{i}.attention_out": f"{layer}.self_attn.projection",
            f"layers.{i}.feed_norm": f"{layer}.layer_norm2",
            f"layers.{i}.up": f"{layer}.mlp.fc1",
            f"layers.{i}.down": f"{layer}.mlp.fc2",
        }
    for own, published in parts.items():
        weights |= {f"{own}.{kind}": state[f"{stem}{published}.{kind}"] for kind in _KINDS}
    return weights


def blip_text_state(state: Mapping[str, Tensor], shape: TextShape) -> dict[str, Tensor]:
    """The text encoder, alone, by the names of `TextEncoder`.

    Raises:
        KeyError: a tensor is missing.
    """
    text = _text(state)
    weights = {
        "words.weight": text["embeddings.word_embeddings.weight"],
        "positions.weight": text["embeddings.position_embeddings.weight"],
        "norm.weight": text["embeddings.LayerNorm.weight"],
        "norm.bias": text["embeddings.LayerNorm.bias"],
    }
    for i in range(shape.layers):
        weights |= {f"layers.{i}.{name}": tensor for name, tensor in layer_state(text, i).items()}
    return weights


def blip_fusion_state(state: Mapping[str, Tensor], shape: TextShape) -> dict[str, Tensor]:
    """The text encoder with cross-attention, and the matching head, by the names of LGDN's `BlipFusion`.

    Raises:
        KeyError: a tensor is missing.
    """
    text = _text(state)
    weights = blip_text_state(state, shape)
    for kind in _KINDS:
        weights[f"head.{kind}"] = state[f"itm_head.{kind}"]
        for i in range(shape.layers):
            cross = f"encoder.layer.{i}.crossattention"
            keys = [text[f"{cross}.self.{part}.{kind}"] for part in ("key", "value")]
            weights |= {
                f"layers.{i}.cross_query.{kind}": text[f"{cross}.self.query.{kind}"],
                f"layers.{i}.cross_kv.{kind}": torch.cat(keys),
                f"layers.{i}.cross_out.{kind}": text[f"{cross}.output.dense.{kind}"],
                f"layers.{i}.cross_norm.{kind}": text[f"{cross}.output.LayerNorm.{kind}"],
            }
    return weights


def _text(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(_TEXT): tensor for name, tensor in state.items() if name.startswith(_TEXT)}
