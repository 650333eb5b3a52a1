"""The Vision Transformer (Dosovitskiy et al., 2021), the paper's frame encoder f^e.

Shapes: F frames, P patches a frame, H width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.backbones.attention import attention
from model.backbones.base import ImageBackbone
from model.backbones.huggingface import read_config, read_json_object, read_weights, size_of
from model.backbones.shapes import check_sizes
from model.runtime.errors import InputError

# Names of a layer's parts in files: in published ones, and in those that newer libraries save.
_NAMES = (
    ("encoder.layer.{}.attention.attention.", ("query", "key", "value")),
    ("layers.{}.attention.", ("q_proj", "k_proj", "v_proj")),
)
_PARTS = {
    "attention_norm": ("encoder.layer.{}.layernorm_before", "layers.{}.layernorm_before"),
    "attention_out": ("encoder.layer.{}.attention.output.dense", "layers.{}.attention.o_proj"),
    "feed_norm": ("encoder.layer.{}.layernorm_after", "layers.{}.layernorm_after"),
    "up": ("encoder.layer.{}.intermediate.dense", "layers.{}.mlp.fc1"),
    "down": ("encoder.layer.{}.output.dense", "layers.{}.mlp.fc2"),
}


#: means and standard deviations of three colours
PixelStatistics = tuple[tuple[float, float, float], tuple[float, float, float]]
_HALF: PixelStatistics = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True)
class VitShape:
    """The size of a Vision Transformer; the defaults are ViT-B/16."""

    hidden: int = 768
    layers: int = 12
    heads: int = 12
    intermediate: int = 3072
    patch: int = 16
    eps: float = 1e-12
    qkv_bias: bool = True

    def __post_init__(self) -> None:
        check_sizes(self, "ViT")

    @classmethod
    def read(cls, folder: Path) -> VitShape:
        """The sizes in a folder's `config.json`.

        Raises:
            InputError: the file is missing, or describes another network.
        """
        config, path = read_config(folder, "vit"), folder / "config.json"
        if config.get("num_channels", 3) != 3:
            raise InputError(f"{path}: num_channels is {config['num_channels']}; frames have 3")
        return cls(
            hidden=size_of(config, "hidden_size", path),
            layers=size_of(config, "num_hidden_layers", path),
            heads=size_of(config, "num_attention_heads", path),
            intermediate=size_of(config, "intermediate_size", path),
            patch=size_of(config, "patch_size", path),
            eps=float(config.get("layer_norm_eps", 1e-12)),
            qkv_bias=bool(config.get("qkv_bias", True)),
        )


def quick_gelu(x: Tensor) -> Tensor:
    """The approximation x · σ(1.702 x) of GELU, with which OpenAI trained CLIP."""
    return x * torch.sigmoid(1.702 * x)


class LayerSizes(Protocol):
    """The sizes of a layer."""

    @property
    def hidden(self) -> int:
        """H."""

    @property
    def heads(self) -> int:
        """Heads of the attention."""

    @property
    def intermediate(self) -> int:
        """Width within the feed-forward network."""

    @property
    def eps(self) -> float:
        """Of the norms."""


class VitLayer(nn.Module):
    """A pre-LN Transformer layer; `quick` ones compute `quick_gelu` in place of GELU."""

    def __init__(self, shape: LayerSizes, *, qkv_bias: bool = True, quick: bool = False) -> None:
        super().__init__()
        h = shape.hidden
        self.heads = shape.heads
        self.activation = quick_gelu if quick else F.gelu
        self.attention_norm = nn.LayerNorm(h, eps=shape.eps)
        self.qkv = nn.Linear(h, 3 * h, bias=qkv_bias)
        self.attention_out = nn.Linear(h, h)
        self.feed_norm = nn.LayerNorm(h, eps=shape.eps)
        self.up = nn.Linear(h, shape.intermediate)
        self.down = nn.Linear(shape.intermediate, h)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Shapes x [F, L, H], bias added to the attention logits, [F, 1, L, L] or less → [F, L, H]."""
        b, length, h = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(b, length, 3, self.heads, h // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = attention(q, k, v, bias)
        x = x + self.attention_out(y.transpose(1, 2).reshape(b, length, h))
        out: Tensor = x + self.down(self.activation(self.up(self.feed_norm(x))))
        return out


class VisionTransformer(ImageBackbone):
    """A ViT without its head. With `frozen_layers` > 0, patches and the first layers stay as published."""

    below = frozenset({"patches", "cls", "positions"})
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        shape: VitShape,
        image_size: int = 224,
        frozen_layers: int = 0,
        gradient_checkpointing: bool = False,
        *,
        quick: bool = False,
    ) -> None:
        super().__init__()
        if image_size % shape.patch:
            raise InputError(
                f"model.image_size={image_size} must be a multiple of {shape.patch}, this ViT's patch"
            )
        if not 0 <= frozen_layers <= shape.layers:
            raise InputError(
                f"model.frozen_stages={frozen_layers} must be 0 to this ViT's {shape.layers} layers"
            )
        self.shape, self.width = shape, shape.hidden
        self.grid = image_size // shape.patch
        self.frozen_layers, self.gradient_checkpointing = frozen_layers, gradient_checkpointing
        self.register_buffer("mean", torch.full((3,), 0.5))
        self.register_buffer("std", torch.full((3,), 0.5))
        self.patches = nn.Conv2d(3, shape.hidden, shape.patch, shape.patch)
        self.cls = nn.Parameter(torch.zeros(1, 1, shape.hidden))
        self.positions = nn.Parameter(torch.zeros(1, 1 + self.grid**2, shape.hidden))
        self.layers = nn.ModuleList(
            VitLayer(shape, qkv_bias=shape.qkv_bias, quick=quick) for _ in range(shape.layers)
        )
        self.norm = nn.LayerNorm(shape.hidden, eps=shape.eps)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for parameter in (self.cls, self.positions):
            nn.init.trunc_normal_(parameter, std=0.02)

    def _embed(self, pixels: Tensor) -> Tensor:
        """Shape [F, 3, h, w] → [F, 1 + P, H]."""
        x = self.patches(pixels).flatten(2).transpose(1, 2)
        return torch.cat([self.cls.to(x.dtype).expand(x.shape[0], -1, -1), x], 1) + self.positions

    def prepare(self, frames: Tensor) -> Tensor:
        """Normalise pixels, and run the frozen layers if there are any.

        Shape uint8 [F, h, w, 3] → [F, 3, h, w], or [F, 1 + P, H] with frozen layers.
        """
        pixels = (frames.float() / 255.0 - self.mean.float()) / self.std.float()
        pixels = pixels.permute(0, 3, 1, 2).to(self.patches.weight.dtype)
        if not self.frozen_layers:
            return pixels
        x = self._embed(pixels)
        for layer in self.layers[: self.frozen_layers]:
            x = layer(x)
        return x

    def forward(self, prepared: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes as `prepare` gives them → the token [CLS] [F, H], and the patches [F, P, H]."""
        x = prepared if self.frozen_layers else self._embed(prepared)
        recompute = self.gradient_checkpointing and self.training and torch.is_grad_enabled()
        for layer in self.layers[self.frozen_layers :]:
            x = checkpoint(layer, x, use_reentrant=False) if recompute else layer(x)
        x = self.norm(x).float()
        return x[:, 0], x[:, 1:]

    def freeze(self) -> None:
        """Train all but the patches and the first `frozen_layers`."""
        self.requires_grad_(True)
        if self.frozen_layers:
            for part in self.below:
                getattr(self, part).requires_grad_(False)
            self.layers[: self.frozen_layers].requires_grad_(False)

    def load(self, folder: Path) -> None:
        """Load a folder saved by transformers (ViTModel, or a model around it).

        Positions of another image size are interpolated.

        Raises:
            InputError: the folder holds another network, or a file is damaged.
        """
        state = read_weights(folder, "vit.")
        try:
            weights = {
                "patches.weight": state["embeddings.patch_embeddings.projection.weight"],
                "patches.bias": state["embeddings.patch_embeddings.projection.bias"],
                "cls": state["embeddings.cls_token"],
                "positions": interpolate(state["embeddings.position_embeddings"], self.grid),
                "norm.weight": state["layernorm.weight"],
                "norm.bias": state["layernorm.bias"],
            }
            for i in range(self.shape.layers):
                weights |= self._layer_state(state, i)
            mean, std = pixel_statistics(folder)
            self.load_state_dict(weights | {"mean": mean, "std": std})
        except (KeyError, RuntimeError) as error:
            raise InputError(
                f"{folder} holds other weights than this ViT: choose the matching one"
            ) from error

    def _layer_state(self, state: dict[str, Tensor], i: int) -> dict[str, Tensor]:
        style = 0 if _NAMES[0][0].format(i) + "query.weight" in state else 1
        stem, names = _NAMES[style]
        kinds = ("weight", "bias")
        out = {
            f"layers.{i}.{name}.{kind}": state[f"{published[style].format(i)}.{kind}"]
            for name, published in _PARTS.items()
            for kind in kinds
        }
        for kind in kinds if self.shape.qkv_bias else kinds[:1]:
            out[f"layers.{i}.qkv.{kind}"] = torch.cat([state[f"{stem.format(i)}{n}.{kind}"] for n in names])
        return out


def interpolate(positions: Tensor, grid: int) -> Tensor:
    """Learned positions, interpolated (bicubic) for a grid of another size; that of [CLS] stays.

    Shape [1, 1 + P, H] → [1, 1 + grid², H].

    Raises:
        KeyError: P is not a square.
    """
    side = math.isqrt(positions.shape[1] - 1)
    if side * side != positions.shape[1] - 1:
        raise KeyError(f"{positions.shape[1] - 1} positions are not a square")
    if side == grid:
        return positions
    plane = positions[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    plane = F.interpolate(plane, (grid, grid), mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1], plane.flatten(2).transpose(1, 2)], 1)


def pixel_statistics(folder: Path, default: PixelStatistics = _HALF) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the pixels (0 to 1) that the weights were trained with.

    Args:
        folder: holds them in `preprocessor_config.json`.
        default: mean and deviation of the three colours where it does not.

    Raises:
        InputError: `preprocessor_config.json` names something else than three numbers, or a deviation of 0.
    """
    path = folder / "preprocessor_config.json"
    values = read_json_object(path) if path.is_file() else {}
    out = []
    for key, usual in zip(("image_mean", "image_std"), default, strict=True):
        numbers = values.get(key, list(usual))
        good = isinstance(numbers, list) and len(numbers) == 3
        if not good or not all(
            isinstance(n, int | float) and (n > 0 or key == "image_mean") for n in numbers
        ):
            raise InputError(f"{path}: {key} is {numbers!r}: it must be three numbers")
        out.append(torch.tensor(numbers, dtype=torch.float32))
    return out[0], out[1]
