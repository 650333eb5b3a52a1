"""Traces PyTorch modules to ONNX graphs, and compares the two."""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from model.export.storage import share
from model.families.base import Graph
from model.runtime.errors import ReelfindError
from model.runtime.onnx import ort

_OPSET = 20
# float32 rounds differently in the kernels of different batch sizes.
_BATCH_TOLERANCE = 1e-4


class ExportError(ReelfindError):
    """A graph does not compute what the model computes, so no bundle is written."""


def to_onnx(graph: Graph) -> onnx.ModelProto:
    """Trace a graph's module to ONNX."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        _trace(graph, path, weights_apart=False)
        return share(_without_traces(onnx.load(path)))


def to_onnx_file(graph: Graph, path: Path) -> int:
    """Trace a graph's module to an ONNX file with its weights in a file beside it, of any size.

    The weights are never in memory a second time, and equal ones are not joined.

    Returns:
        The bytes of both files together.
    """
    _trace(graph, path, weights_apart=True)
    model = _without_traces(onnx.load(path, load_external_data=False))
    # Shapes of inner values are of no use, and may not fit what changes the graph later.
    del model.graph.value_info[:]
    onnx.save(model, path)
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))


def _trace(graph: Graph, path: Path, *, weights_apart: bool) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    shapes = tuple(dict.fromkeys(dims, torch.export.Dim.DYNAMIC) for dims in graph.dynamic)
    with warnings.catch_warnings():
        # The exporter warns of its own deprecations.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.module.eval(),
            graph.example,
            str(path),
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_shapes=shapes,
            opset_version=_OPSET,
            dynamo=True,
            external_data=weights_apart,
            verbose=False,
        )


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop the exporter's stack traces: they name files of this machine, and bundles are published."""
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


def check_graph(name: str, graph: Graph, content: bytes | Path, tolerance: float) -> float:
    """Compare a graph with PyTorch on its example and at other sizes, and a batch with single rows.

    Args:
        name: the graph's, for messages.
        graph: the module, and its examples.
        content: the serialised graph, or its file, which takes less memory.
        tolerance: the largest difference from PyTorch.

    Returns:
        the largest difference from PyTorch.

    Raises:
        ExportError: an output differs by more than `tolerance`, or a batch from its rows by more than 1e-4.
    """
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    worst = 0.0
    for example in (graph.example, *graph.others):
        with torch.no_grad():
            out = graph.module(*example)
        expected = [t.numpy() for t in (out if isinstance(out, tuple) else (out,))]
        inputs = {n: t.numpy() for n, t in zip(graph.inputs, example, strict=True)}
        outputs = session.run(None, inputs)
        for label, torch_output, onnx_output in zip(graph.outputs, expected, outputs, strict=True):
            if torch_output.shape != onnx_output.shape:
                raise ExportError(
                    f"{name}: {label} is {onnx_output.shape} in ONNX and {torch_output.shape} in PyTorch; "
                    "not exported"
                )
            difference = _difference(torch_output, onnx_output)
            if not difference <= tolerance:
                raise ExportError(
                    f"{name}: {label} differs from PyTorch by {difference:.2g}, more than {tolerance:.2g}; "
                    "not exported: store its weights in a larger type"
                )
            worst = max(worst, difference)
        for row in range(len(example[0])):
            single = session.run(None, {n: v[row : row + 1] for n, v in inputs.items()})
            for label, many, one in zip(graph.outputs, outputs, single, strict=True):
                difference = _difference(many[row], one[0])
                if not difference <= _BATCH_TOLERANCE:
                    raise ExportError(
                        f"{name}: {label} of a batch and of a single row differ by {difference:.2g}"
                    )
    return worst


def _difference(expected: NDArray[np.float32], actual: NDArray[np.float32]) -> float:
    """The largest difference, relative to the largest value if that is above 1, as in tokens and logits."""
    return float(np.abs(expected - actual).max() / max(1.0, np.abs(expected).max()))
