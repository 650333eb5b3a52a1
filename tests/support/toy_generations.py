"""Toy bundles whose embeddings do not go together, although each ranks as the toy bundle does."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from tests.support.toy_bundle import DIM, make_toy_bundle, toy_graphs


def make_turned_bundle(folder: Path, places: int, **options: Any) -> Path:
    """The toy bundle with the dimensions of its embeddings turned by so many places.

    Its cosines are those of the toy bundle, but a text of one finds other colours in segments of the other.
    """
    graphs = dict(toy_graphs())
    for name, output in (("frame_encoder.onnx", "frame_embedding"), ("text_encoder.onnx", "text_embedding")):
        graphs[name] = _turned(graphs[name], output, places)
    return make_toy_bundle(folder, graphs=graphs, name=f"turned by {places}", **options)


def turned(embedding: NDArray[np.float32], places: int) -> NDArray[np.float32]:
    """NumPy twin: an embedding of the toy bundle as the turned one gives it. [D] → [D]."""
    return np.roll(embedding, places)


def _turned(graph: bytes, output: str, places: int) -> bytes:
    model = onnx.load_from_string(graph)
    for node in model.graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == output:
                    names[i] = f"straight_{output}"
    order = np.roll(np.arange(DIM), places).astype(np.int64)
    model.graph.initializer.append(numpy_helper.from_array(order, "order"))
    model.graph.node.append(helper.make_node("Gather", [f"straight_{output}", "order"], [output], axis=1))
    return bytes(model.SerializeToString())
