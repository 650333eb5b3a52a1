"""The networks of the two towers, and the temporal layer that joins frames to one segment.

Shapes, here and everywhere: B batch, N frames, P tokens a frame, L text tokens, H hidden, D joint space,
K results.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

# kernel, stride, expansion, output channels, repeats: the seven stages of EfficientNet-B0.
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
# variant: width, depth
_SCALES = {"lite0": (1.0, 1.0), "lite1": (1.0, 1.1), "lite2": (1.1, 1.2), "tiny": (0.1, 0.34)}
_BN_EPS = 1e-3
_STEM, _HEAD = 32, 1280


def _round_channels(channels: int, width: float) -> int:
    """Scale a channel count and round it to a multiple of 8, never losing more than a tenth."""
    if width == 1.0:
        return channels
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


class SamePadConv2d(nn.Conv2d):
    """A convolution padded like TensorFlow's SAME: an odd row goes to the bottom and the right."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  the base class's name
        """Shape [B, C, h, w] → [B, C', ceil(h/stride), ceil(w/stride)]."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:
            return F.conv2d(input, self.weight, self.bias, 1, kernel // 2, 1, self.groups)
        pads: list[int] = []
        for size in (input.shape[3], input.shape[2]):
            pad = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            pads += [pad // 2, pad - pad // 2]
        padded = F.pad(input, pads)
        if self.groups > 1 and padded.dtype == torch.bfloat16 and torch.is_grad_enabled():
            # The bfloat16 kernel for this gradient is twenty times slower than the float32 one on a CPU.
            with torch.autocast(padded.device.type, enabled=False):
                return F.conv2d(padded.float(), self.weight, self.bias, stride, 0, 1, self.groups)
        return F.conv2d(padded, self.weight, self.bias, stride, 0, 1, self.groups)


class InvertedResidual(nn.Module):
    """MBConv of EfficientNet-Lite: expand, depthwise, project; ReLU6, no squeeze-and-excitation."""

    def __init__(self, kernel: int, stride: int, expand: int, c_in: int, c_out: int) -> None:
        super().__init__()
        hidden = c_in * expand
        self.residual = stride == 1 and c_in == c_out
        self.expand = SamePadConv2d(c_in, hidden, 1) if expand != 1 else None
        self.depthwise = SamePadConv2d(hidden, hidden, kernel, stride, groups=hidden)
        self.project = SamePadConv2d(hidden, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Shape [B, C, h, w] → [B, C', h/stride, w/stride]."""
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.residual else y


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite without its classifier and without batch normalisation.

    The published statistics are folded into the convolutions when they are loaded: photos of one small set
    would spoil them, and the folded network trains twice as fast on a CPU.
    """

    def __init__(self, variant: str = "lite2") -> None:
        super().__init__()
        if variant not in _SCALES:
            raise ValueError(f"unknown backbone {variant!r}: use one of {sorted(_SCALES)}")
        width, depth = _SCALES[variant]
        stem, head = (8, 64) if variant == "tiny" else (_STEM, _HEAD)
        self.conv_stem = SamePadConv2d(3, stem, 3, 2)
        blocks: list[nn.Module] = []
        #: index of the first block of each stage, so that training can freeze and cache the early ones
        self.stage_starts: list[int] = []
        c_in = stem
        for i, (kernel, stride, expand, channels, repeats) in enumerate(_STAGES):
            # Lite keeps the first and the last stage at one block at every scale.
            count = repeats if i in (0, len(_STAGES) - 1) else math.ceil(repeats * depth)
            c_out = _round_channels(channels, width)
            self.stage_starts.append(len(blocks))
            for j in range(count):
                blocks.append(InvertedResidual(kernel, stride if j == 0 else 1, expand, c_in, c_out))
                c_in = c_out
        self.blocks = nn.ModuleList(blocks)
        self.conv_head = SamePadConv2d(c_in, head, 1)
        self.out_channels = head
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def stem(self, pixels: Tensor, end: int) -> Tensor:
        """Run the stem and blocks [0, end). Shape [B, 3, h, w] → [B, C, h', w']."""
        x = F.relu6(self.conv_stem(pixels))
        for block in self.blocks[:end]:
            x = block(x)
        return x

    def trunk(self, x: Tensor, start: int) -> Tensor:
        """Run blocks [start, …) and the head. Shape [B, C, h', w'] → [B, 1280, h/32, w/32]."""
        for block in self.blocks[start:]:
            x = block(x)
        return F.relu6(self.conv_head(x))

    def forward(self, pixels: Tensor) -> Tensor:
        """Shape [B, 3, h, w], normalised, → the final map [B, 1280, h/32, w/32]."""
        return self.trunk(self.stem(pixels, 0), 0)

    def load_package(self, path: Path) -> tuple[Tensor, Tensor]:
        """Load a published `.pth`, folding batch normalisation into the convolutions.

        Returns:
            the classifier's rows [1000, 1280] and biases [1000].

        Raises:
            ValueError: when the file holds another network.
        """
        state: dict[str, Tensor] = torch.load(path, weights_only=True)
        folded: dict[str, Tensor] = {}
        pairs = [("_conv_stem", "_bn0", "conv_stem"), ("_conv_head", "_bn1", "conv_head")]
        for i, block in enumerate(self.blocks):
            names = [("_depthwise_conv", "_bn1", "depthwise"), ("_project_conv", "_bn2", "project")]
            if block.expand is not None:
                names.append(("_expand_conv", "_bn0", "expand"))
            pairs += [
                (f"_blocks.{i}.{conv}", f"_blocks.{i}.{bn}", f"blocks.{i}.{ours}") for conv, bn, ours in names
            ]
        try:
            for conv, bn, ours in pairs:
                scale = state[f"{bn}.weight"] / (state[f"{bn}.running_var"] + _BN_EPS).sqrt()
                folded[f"{ours}.weight"] = (state[f"{conv}.weight"] * scale[:, None, None, None]).contiguous()
                folded[f"{ours}.bias"] = (
                    state[f"{bn}.bias"] - state[f"{bn}.running_mean"] * scale
                ).contiguous()
            self.load_state_dict(folded)
        except (KeyError, RuntimeError) as error:
            raise ValueError(
                f"{path} holds other weights than this backbone: choose the matching one"
            ) from error
        return state["_fc.weight"].contiguous(), state["_fc.bias"].contiguous()


@dataclass(frozen=True)
class TextShape:
    """The size of a BERT-like text encoder; the defaults are MiniLM-L6."""

    vocabulary: int = 30522
    hidden: int = 384
    layers: int = 6
    heads: int = 12
    intermediate: int = 1536
    positions: int = 512


class TextLayer(nn.Module):
    """A post-LN Transformer layer of BERT."""

    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        h = shape.hidden
        self.heads = shape.heads
        self.qkv = nn.Linear(h, 3 * h)
        self.attention_out = nn.Linear(h, h)
        self.attention_norm = nn.LayerNorm(h, eps=1e-12)
        self.up = nn.Linear(h, shape.intermediate)
        self.down = nn.Linear(shape.intermediate, h)
        self.output_norm = nn.LayerNorm(h, eps=1e-12)

    def forward(self, x: Tensor, bias: Tensor, dropout: float = 0.0) -> Tensor:
        """Shapes x [B, L, H], bias [B, 1, 1, L] added to the attention logits → [B, L, H]."""
        b, length, h = x.shape
        q, k, v = self.qkv(x).view(b, length, 3, self.heads, h // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        y = self.attention_out(y.transpose(1, 2).reshape(b, length, h))
        x = self.attention_norm(x + F.dropout(y, dropout, self.training))
        y = self.down(F.gelu(self.up(x)))
        return self.output_norm(x + F.dropout(y, dropout, self.training))


class TextEncoder(nn.Module):
    """A BERT encoder, mean-pooled over real tokens, as MiniLM's sentence embeddings were trained."""

    def __init__(self, shape: TextShape | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        shape = shape or TextShape()
        self.shape, self.dropout = shape, dropout
        self.words = nn.Embedding(shape.vocabulary, shape.hidden)
        self.positions = nn.Embedding(shape.positions, shape.hidden)
        self.norm = nn.LayerNorm(shape.hidden, eps=1e-12)
        self.layers = nn.ModuleList(TextLayer(shape) for _ in range(shape.layers))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes input_ids, attention_mask int64 [B, L] → tokens [B, L, H] and their masked mean [B, H].

        Raises:
            ValueError: when the text is longer than the learned positions.
        """
        length = input_ids.shape[1]
        if not torch.jit.is_tracing() and length > self.shape.positions:
            raise ValueError(f"{length} tokens exceed {self.shape.positions} positions: truncate the text")
        x = self.norm(self.words(input_ids) + self.positions.weight[:length])
        x = F.dropout(x, self.dropout, self.training)
        bias = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * -10000.0
        for layer in self.layers:
            x = layer(x, bias, self.dropout)
        x = x.float()
        return x, masked_mean(x, attention_mask.to(x.dtype))

    def load_package(self, path: Path) -> None:
        """Load BERT weights published as safetensors; segment 0 is folded into the positions.

        Raises:
            ValueError: when the file holds another network.
        """
        state = {k.removeprefix("bert."): v for k, v in load_file(path).items()}
        ours: dict[str, Tensor] = {}
        try:
            ours["words.weight"] = state["embeddings.word_embeddings.weight"]
            ours["positions.weight"] = (
                state["embeddings.position_embeddings.weight"]
                + state["embeddings.token_type_embeddings.weight"][0]
            )
            names = {"norm": "embeddings.LayerNorm"}
            for i in range(len(self.layers)):
                theirs = f"encoder.layer.{i}"
                names[f"layers.{i}.attention_out"] = f"{theirs}.attention.output.dense"
                names[f"layers.{i}.attention_norm"] = f"{theirs}.attention.output.LayerNorm"
                names[f"layers.{i}.up"] = f"{theirs}.intermediate.dense"
                names[f"layers.{i}.down"] = f"{theirs}.output.dense"
                names[f"layers.{i}.output_norm"] = f"{theirs}.output.LayerNorm"
                for kind in ("weight", "bias"):
                    parts = [state[f"{theirs}.attention.self.{p}.{kind}"] for p in ("query", "key", "value")]
                    ours[f"layers.{i}.qkv.{kind}"] = torch.cat(parts)
            ours |= {
                f"{a}.{kind}": state[f"{b}.{kind}"] for a, b in names.items() for kind in ("weight", "bias")
            }
            self.load_state_dict(ours)
        except (KeyError, RuntimeError) as error:
            raise ValueError(
                f"{path} holds other weights than this text encoder: choose the matching one"
            ) from error


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over the second axis; no entries give zeros. Shapes x [B, N, H], mask [B, N] → [B, H]."""
    weight = mask[:, :, None].to(x.dtype)
    return (x * weight).sum(1) / weight.sum(1).clamp_min(1.0)


class TemporalLayer(nn.Module):
    """One pre-LN Transformer layer over frame embeddings with learned positions (the T of eq. 1).

    Both residual branches end in zeros, so an untrained layer is the plain masked mean.
    """

    def __init__(self, dim: int, frames: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.positions = nn.Parameter(torch.zeros(frames, dim))
        nn.init.normal_(self.positions, std=0.02)
        self.attention_norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.attention_out = nn.Linear(dim, dim)
        self.feed_norm = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, 2 * dim)
        self.down = nn.Linear(2 * dim, dim)
        for layer in (self.attention_out, self.down):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Shapes frames [B, N, D], mask [B, N], 1 for real frames → [B, D], not normalised."""
        b, n, d = frames.shape
        x = self.attention_norm(frames + self.positions[:n])
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        bias = (1.0 - mask[:, None, None, :].to(q.dtype)) * -10000.0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        x = frames + self.attention_out(y.transpose(1, 2).reshape(b, n, d))
        x = x + self.down(F.gelu(self.up(self.feed_norm(x))))
        return masked_mean(x, mask)
