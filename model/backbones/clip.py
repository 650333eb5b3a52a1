"""CLIP (Radford et al., 2021) as frame encoder f^e and language encoder f^l.

Shapes: F frames, P patches a frame, B texts, L text tokens, H width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.backbones.base import TextBackbone
from model.backbones.bert import TextShape
from model.backbones.vit import PixelStatistics, VisionTransformer, VitLayer, VitShape, interpolate

#: mean and standard deviation of the pixels that CLIP, and after it BLIP, was trained with
CLIP_PIXELS: PixelStatistics = (
    (0.48145466, 0.4578275, 0.40821073),
    (0.26862954, 0.26130258, 0.27577711),
)
_NEGLIGIBLE = -10000.0
# The end token that early configurations state; there the largest id of a text is its end.
_UNTRUE_END = 2


@dataclass(frozen=True)
class ClipVitShape(VitShape):
    """The size of CLIP's image encoder; the defaults are ViT-B/32."""

    patch: int = 32
    eps: float = 1e-5
    #: `quick_gelu` in place of GELU
    quick: bool = True


@dataclass(frozen=True)
class ClipTextShape(TextShape):
    """The size of CLIP's text encoder; the defaults are those that go with ViT-B/32.

    A text is represented by its first token with the id `end`; where that is 2, by that with the largest id.
    """

    vocabulary: int = 49408
    hidden: int = 512
    layers: int = 12
    heads: int = 8
    intermediate: int = 2048
    positions: int = 77
    eps: float = 1e-5
    quick: bool = True
    end: int = 49407


class ClipVisionTransformer(VisionTransformer):
    """CLIP's image encoder: a norm below the layers, patches without bias.

    As published, the last norm is for the token [CLS] alone; here the patches pass through it too, so that
    they can be projected into the joint space.
    """

    below = VisionTransformer.below | {"pre_norm"}

    def __init__(
        self,
        shape: ClipVitShape,
        image_size: int = 224,
        frozen_layers: int = 0,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(shape, image_size, frozen_layers, gradient_checkpointing, quick=shape.quick)
        self.patches = nn.Conv2d(3, shape.hidden, shape.patch, shape.patch, bias=False)
        nn.init.trunc_normal_(self.patches.weight, std=0.02)
        self.pre_norm = nn.LayerNorm(shape.hidden, eps=shape.eps)

    def _embed(self, pixels: Tensor) -> Tensor:
        """Shape [F, 3, h, w] → [F, 1 + P, H]."""
        embedded: Tensor = self.pre_norm(super()._embed(pixels))
        return embedded


class ClipTextEncoder(TextBackbone):
    """CLIP's text encoder, whose tokens read those before them alone."""

    below = frozenset({"words", "positions"})

    def __init__(self, shape: ClipTextShape, *, gradient_checkpointing: bool = False) -> None:
        super().__init__()
        self.shape: ClipTextShape = shape
        self.gradient_checkpointing = gradient_checkpointing
        self.width, self.vocabulary = shape.hidden, shape.vocabulary
        self.words = nn.Embedding(shape.vocabulary, shape.hidden)
        self.positions = nn.Embedding(shape.positions, shape.hidden)
        self.layers = nn.ModuleList(VitLayer(shape, quick=shape.quick) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.hidden, eps=shape.eps)
        for table in (self.words, self.positions):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes input_ids, attention_mask int64 [B, L] → tokens [B, L, H], and the end of each text [B, H].

        Texts are padded at their end, so that no token sees the padding.
        """
        length = input_ids.shape[1]
        place = torch.arange(length, device=input_ids.device)
        x = self.words(input_ids) + self.positions.weight[:length]
        bias = (place[None, :] > place[:, None]).to(x.dtype)[None, None] * _NEGLIGIBLE
        recompute = self.gradient_checkpointing and self.training and torch.is_grad_enabled()
        for layer in self.layers:
            x = checkpoint(layer, x, bias, use_reentrant=False) if recompute else layer(x, bias)
        x = self.norm(x).float()
        ends = input_ids if self.shape.end == _UNTRUE_END else input_ids == self.shape.end
        end = (ends * attention_mask).to(torch.int32).argmax(1)
        return x, x.gather(1, end[:, None, None].expand(-1, 1, x.shape[2]))[:, 0]

    def freeze(self) -> None:
        """Train all weights."""
        self.requires_grad_(True)


def clip_image_state(state: Mapping[str, Tensor], shape: ClipVitShape, grid: int) -> dict[str, Tensor]:
    """The published weights of CLIP's image encoder by the names of `ClipVisionTransformer`.

    Args:
        state: the tensors of a `CLIPModel`.
        shape: its sizes.
        grid: patches in a row; positions of another number are interpolated.

    Raises:
        KeyError: a tensor is missing, or the published positions are no square.
    """
    stem = "vision_model."
    positions = state[f"{stem}embeddings.position_embedding.weight"]
    weights = {
        "patches.weight": state[f"{stem}embeddings.patch_embedding.weight"],
        "cls": state[f"{stem}embeddings.class_embedding"].reshape(1, 1, -1),
        "positions": interpolate(positions[None], grid),
    }
    for own, published in (("pre_norm", "pre_layrnorm"), ("norm", "post_layernorm")):
        weights |= {f"{own}.{kind}": state[f"{stem}{published}.{kind}"] for kind in ("weight", "bias")}
    for i in range(shape.layers):
        weights |= _layer_state(state, f"{stem}encoder.layers.{i}", i)
    return weights


def clip_text_state(state: Mapping[str, Tensor], shape: ClipTextShape) -> dict[str, Tensor]:
    """The published weights of CLIP's text encoder by the names of `ClipTextEncoder`.

    Raises:
        KeyError: a tensor is missing.
    """
    stem = "text_model."
    weights = {
        "words.weight": state[f"{stem}embeddings.token_embedding.weight"],
        "positions.weight": state[f"{stem}embeddings.position_embedding.weight"],
    }
    weights |= {f"norm.{kind}": state[f"{stem}final_layer_norm.{kind}"] for kind in ("weight", "bias")}
    for i in range(shape.layers):
        weights |= _layer_state(state, f"{stem}encoder.layers.{i}", i)
    return weights


def _layer_state(state: Mapping[str, Tensor], stem: str, i: int) -> dict[str, Tensor]:
    """Layer `i` by the names of `VitLayer`."""
    names = {
        "attention_norm": "layer_norm1",
        "attention_out": "self_attn.out_proj",
        "feed_norm": "layer_norm2",
        "up": "mlp.fc1",
        "down": "mlp.fc2",
    }
    out = {}
    for kind in ("weight", "bias"):
        for own, published in names.items():
            out[f"layers.{i}.{own}.{kind}"] = state[f"{stem}.{published}.{kind}"]
        parts = [state[f"{stem}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
        out[f"layers.{i}.qkv.{kind}"] = torch.cat(parts)
    return out
