"""The ONNX graphs of a bundle: traced from PyTorch, run, and compared with it.

Shapes: B batch, N frames, P tokens a frame, L text tokens, D joint space.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from model.lgdn import Towers

FRAME, SEGMENT, TEXT = "frame_encoder.onnx", "segment_encoder.onnx", "text_encoder.onnx"
_OPSET = 20
# Rounding of float32 in kernels that differ with the batch.
_BATCH_TOLERANCE = 1e-4


class FrameGraph(nn.Module):
    """`frame_encoder.onnx`. With the strategy SimDot the salience vector is the embedding itself."""

    def __init__(self, towers: Towers) -> None:
        super().__init__()
        self.towers = towers

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """uint8 [B, h, w, 3] → frame_embedding [B, D], frame_salience [B, D], frame_tokens [B, P, D]."""
        pooled, cells = self.towers.image(self.towers.image.prepare(frames))
        embedding = self.towers.project_frames(pooled)
        # A second tensor: one value may not serve as two outputs.
        return embedding, embedding * 1.0, self.towers.frame_tokens(cells)


class SegmentGraph(nn.Module):
    """`segment_encoder.onnx`."""

    def __init__(self, towers: Towers) -> None:
        super().__init__()
        self.temporal = towers.temporal

    def forward(self, frame_embedding: Tensor, frame_mask: Tensor) -> Tensor:
        """Shapes [B, N, D], float [B, N] → segment_embedding [B, D]."""
        return F.normalize(self.temporal(frame_embedding, frame_mask), dim=-1)


class TextGraph(nn.Module):
    """`text_encoder.onnx`."""

    def __init__(self, towers: Towers) -> None:
        super().__init__()
        self.text, self.projection = towers.text, towers.text_projection

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Shapes int64 [B, L] → text_embedding [B, D], text_salience [B, D], text_tokens [B, L, D]."""
        tokens, pooled = self.text(input_ids, attention_mask)
        embedding = F.normalize(self.projection(pooled), dim=-1)
        return embedding, embedding * 1.0, self.projection(tokens)


@dataclass(frozen=True)
class Graph:
    """One graph: its module, names, example inputs and dynamic axes."""

    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    example: tuple[Tensor, ...]
    dynamic: tuple[dict[int, str], ...]


def graphs_of(towers: Towers) -> dict[str, Graph]:
    """The three graphs by file name, with examples of two rows: one row would be taken for a constant."""
    config = towers.config
    generator = torch.Generator().manual_seed(0)
    side, vocabulary = config.image_size, towers.text.vocabulary
    frames = torch.randint(0, 256, (2, side, side, 3), generator=generator, dtype=torch.uint8)
    embeddings = F.normalize(torch.randn(2, config.frames, config.dim, generator=generator), dim=-1)
    frame_mask = torch.ones(2, config.frames)
    frame_mask[1, config.frames // 2 :] = 0
    ids = torch.randint(1, vocabulary, (2, 12), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    return {
        FRAME: Graph(
            FrameGraph(towers),
            ("frames",),
            ("frame_embedding", "frame_salience", "frame_tokens"),
            (frames,),
            ({0: "B"},),
        ),
        SEGMENT: Graph(
            SegmentGraph(towers),
            ("frame_embedding", "frame_mask"),
            ("segment_embedding",),
            (embeddings, frame_mask),
            ({0: "B", 1: "N"}, {0: "B", 1: "N"}),
        ),
        TEXT: Graph(
            TextGraph(towers),
            ("input_ids", "attention_mask"),
            ("text_embedding", "text_salience", "text_tokens"),
            (ids, mask),
            ({0: "B", 1: "L"}, {0: "B", 1: "L"}),
        ),
    }


def to_onnx(graph: Graph) -> onnx.ModelProto:
    """Trace a graph to ONNX."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    shapes = tuple(dict.fromkeys(dims, torch.export.Dim.DYNAMIC) for dims in graph.dynamic)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        # The exporter warns of its own deprecations.
        warnings.simplefilter("ignore")
        path = Path(folder) / "graph.onnx"
        torch.onnx.export(
            graph.module.eval(),
            graph.example,
            str(path),
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_shapes=shapes,
            opset_version=_OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        return _without_traces(onnx.load(path))


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop the exporter's stack traces: a bundle is published, and they name files of this machine."""
    graph = model.graph
    for part in (
        model,
        graph,
        *graph.node,
        *graph.input,
        *graph.output,
        *graph.value_info,
        *graph.initializer,
    ):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return model


def run_onnx(content: bytes, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
    """Run a graph once on the CPU."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    outputs: list[NDArray[np.float32]] = session.run(None, dict(inputs))
    return outputs


def check_graph(name: str, graph: Graph, content: bytes, tolerance: float) -> float:
    """Compare a graph with PyTorch, and a batch with single rows.

    Returns:
        the largest difference from PyTorch.

    Raises:
        ValueError: an output differs by more than `tolerance`, or a batch from its rows by more than 1e-4.
    """
    with torch.no_grad():
        out = graph.module(*graph.example)
    expected = [t.numpy() for t in (out if isinstance(out, tuple) else (out,))]
    inputs = {n: t.numpy() for n, t in zip(graph.inputs, graph.example, strict=True)}
    found = run_onnx(content, inputs)
    worst = 0.0
    for label, want, got in zip(graph.outputs, expected, found, strict=True):
        if want.shape != got.shape:
            raise ValueError(
                f"{name}: {label} is {got.shape} in ONNX and {want.shape} in PyTorch; not exported"
            )
        # Tokens are not normalised: what counts is the difference beside their own size.
        difference = float(np.abs(want - got).max() / max(1.0, np.abs(want).max()))
        if not difference <= tolerance:
            raise ValueError(
                f"{name}: {label} differs from PyTorch by {difference:.2g}, more than {tolerance:.2g}; "
                "not exported: store its weights in a larger type"
            )
        worst = max(worst, difference)
    for row in range(len(graph.example[0])):
        single = run_onnx(content, {n: v[row : row + 1] for n, v in inputs.items()})
        for label, many, one in zip(graph.outputs, found, single, strict=True):
            difference = float(np.abs(many[row] - one[0]).max() / max(1.0, np.abs(many).max()))
            if not difference <= _BATCH_TOLERANCE:
                raise ValueError(f"{name}: {label} of a batch and of a single row differ by {difference:.2g}")
    return worst
