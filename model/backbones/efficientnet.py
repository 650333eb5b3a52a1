"""EfficientNet-Lite (Liu et al., 2020): small convolutional backbones that run well on a CPU."""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.backbones.base import ImageBackbone
from model.runtime.errors import InputError

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
# EfficientNet-Lite was trained on (pixel - 127) / 128.
_PIXEL_MEAN, _PIXEL_SCALE = 127.0, 128.0


def _round_channels(channels: int, width: float) -> int:
    """Scale a channel count and round it to a multiple of 8, never down by more than a tenth."""
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
        if self.groups > 1 and _slow_on_cpu(padded):
            # On a CPU the bfloat16 kernel for this gradient is twenty times slower than the float32 one.
            with torch.autocast(padded.device.type, enabled=False):
                return F.conv2d(padded.float(), self.weight, self.bias, stride, 0, 1, self.groups)
        return F.conv2d(padded, self.weight, self.bias, stride, 0, 1, self.groups)


def _slow_on_cpu(x: Tensor) -> bool:
    return x.dtype == torch.bfloat16 and x.device.type == "cpu" and torch.is_grad_enabled()


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
        inner = x if self.expand is None else F.relu6(self.expand(x))
        y: Tensor = self.project(F.relu6(self.depthwise(inner)))
        return x + y if self.residual else y


class EfficientNetLite(ImageBackbone):
    """EfficientNet-Lite without its classifier and without batch normalisation.

    The published statistics are folded into the convolutions when they are loaded: photos of one small set
    would spoil them, and the folded network trains twice as fast on a CPU.
    The stem and the first `frozen_stages` of seven stages stay as published.
    """

    stack = "blocks"
    below = frozenset({"conv_stem"})

    def __init__(
        self, variant: str = "lite2", frozen_stages: int = 0, gradient_checkpointing: bool = False
    ) -> None:
        super().__init__()
        if variant not in _SCALES:
            raise InputError(f"unknown backbone {variant!r}: use one of {sorted(_SCALES)}")
        width, depth = _SCALES[variant]
        stem, head = (8, 64) if variant == "tiny" else (_STEM, _HEAD)
        self.conv_stem = SamePadConv2d(3, stem, 3, 2)
        blocks: list[nn.Module] = []
        #: first block of each stage, and the number of blocks: training freezes and caches the early ones
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
        self.stage_starts.append(len(blocks))
        self.blocks = nn.ModuleList(blocks)
        self.conv_head = SamePadConv2d(c_in, head, 1)
        self.width = head
        self.frozen_blocks = self.stage_starts[frozen_stages]
        self.gradient_checkpointing = gradient_checkpointing
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def stem(self, pixels: Tensor, end: int) -> Tensor:
        """Run the stem and blocks [0, end). Shape [B, 3, h, w] → [B, C, h', w']."""
        x = F.relu6(self.conv_stem(pixels))
        for block in self.blocks[:end]:
            x = block(x)
        return x

    def trunk(self, x: Tensor, start: int) -> Tensor:
        """Run blocks [start, …) and the head. Shape [B, C, h', w'] → [B, 1280, h/32, w/32]."""
        recompute = self.gradient_checkpointing and self.training and torch.is_grad_enabled()
        for block in self.blocks[start:]:
            x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
        return F.relu6(self.conv_head(x))

    def prepare(self, frames: Tensor) -> Tensor:
        """Outputs of the frozen stages. Shape uint8 [F, h, w, 3] → [F, C, h', w']."""
        pixels = (frames.permute(0, 3, 1, 2).float() - _PIXEL_MEAN) / _PIXEL_SCALE
        pixels = pixels.to(self.conv_stem.weight.dtype).contiguous(memory_format=torch.channels_last)
        return self.stem(pixels, self.frozen_blocks)

    def forward(self, prepared: Tensor) -> tuple[Tensor, Tensor]:
        """Shape [F, C, h', w'] → the mean of the final map [F, 1280], and its cells [F, P, 1280]."""
        final = self.trunk(prepared, self.frozen_blocks).float()
        return final.mean((2, 3)), final.flatten(2).transpose(1, 2)

    def freeze(self) -> None:
        """Freeze the stem, the first stages and every depthwise convolution."""
        self.requires_grad_(True)
        self.conv_stem.requires_grad_(False)
        for index, block in enumerate(self.blocks):
            if index < self.frozen_blocks:
                block.requires_grad_(False)
            # These are few weights, and on a CPU their gradient costs more than all others together.
            block.depthwise.requires_grad_(False)

    def load_package(self, path: Path) -> tuple[Tensor, Tensor]:
        """Load a published `.pth`, folding batch normalisation into the convolutions.

        Returns:
            the classifier's rows [1000, 1280] and biases [1000].

        Raises:
            InputError: the file holds another network.
        """
        state: dict[str, Tensor] = torch.load(path, weights_only=True)
        folded: dict[str, Tensor] = {}
        pairs = [("_conv_stem", "_bn0", "conv_stem"), ("_conv_head", "_bn1", "conv_head")]
        for i, block in enumerate(self.blocks):
            names = [("_depthwise_conv", "_bn1", "depthwise"), ("_project_conv", "_bn2", "project")]
            if block.expand is not None:
                names.append(("_expand_conv", "_bn0", "expand"))
            pairs += [
                (f"_blocks.{i}.{conv}", f"_blocks.{i}.{bn}", f"blocks.{i}.{name}") for conv, bn, name in names
            ]
        try:
            for conv, bn, name in pairs:
                scale = state[f"{bn}.weight"] / (state[f"{bn}.running_var"] + _BN_EPS).sqrt()
                folded[f"{name}.weight"] = (state[f"{conv}.weight"] * scale[:, None, None, None]).contiguous()
                folded[f"{name}.bias"] = (
                    state[f"{bn}.bias"] - state[f"{bn}.running_mean"] * scale
                ).contiguous()
            self.load_state_dict(folded)
        except (KeyError, RuntimeError) as error:
            raise InputError(
                f"{path} holds other weights than this backbone: choose the matching one"
            ) from error
        return state["_fc.weight"].contiguous(), state["_fc.bias"].contiguous()
