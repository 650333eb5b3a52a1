"""Makes a graph multiply weights stored as int8 as they are, in place of making them float32 first.

A bundle's graph casts stored int8 weights to float32 (`model.export.storage`). ONNX Runtime's `MatMulNBits`
reads them as they are, and rounds the rows that it multiplies to int8 too, 64 values with a scale of their
own: short texts are encoded in less time, which is that of reading the weights, and in less memory. Each row
is rounded by itself, so that it does not matter which texts are encoded together.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

# Values of a row that share a scale: larger blocks round more, smaller ones take longer.
_BLOCK_SIZES = (64, 32, 16)
_DOMAIN = "com.microsoft"
# Multiply as int8, which is not the default.
_INT8 = 4
# `MatMulNBits` reads weights without sign, whose zero is 128.
_ZERO = 128
# Larger graphs are not read: what a graph above 2 GB stores beside itself, this would have to store too.
_MOST_BYTES = 512 << 20


def with_integer_products(path: Path) -> bytes | None:
    """The graph in a file, with products of int8 weights.

    Args:
        path: an ONNX graph.

    Returns:
        The new graph; None: it has no such weights, or is large.

    Raises:
        Exception: the file is no ONNX graph.
    """
    if path.stat().st_size > _MOST_BYTES:
        return None
    model = onnx.load(path, load_external_data=False)
    if not replace_products(model):
        return None
    return bytes(model.SerializeToString())


def replace_products(model: onnx.ModelProto) -> int:
    """Replace each product with an int8 weight, in place.

    Args:
        model: a graph with weights stored as int8 [K, N] and scales float32 [1, N], K a multiple of 16.

    Returns:
        How many products were replaced.
    """
    graph = model.graph
    if any(part.HasField("g") or part.graphs for node in graph.node for part in node.attribute):
        return 0  # what graphs inside read is not looked for
    producers = {name: node for node in graph.node for name in node.output}
    stored = {tensor.name: tensor for tensor in graph.initializer}
    packed: dict[str, list[onnx.TensorProto]] = {}
    nodes: list[onnx.NodeProto] = []
    replaced = 0
    for node in graph.node:
        found = _int8_weight(node, producers, stored)
        if found is None:
            nodes.append(node)
            continue
        name, values = node.input[1], numpy_helper.to_array(found[0])
        block = next(size for size in _BLOCK_SIZES if values.shape[0] % size == 0)
        if name not in packed:
            packed[name] = _packed(name, values, numpy_helper.to_array(found[1]), block)
        nodes.append(_product(node, packed[name], values.shape, block))
        replaced += 1
    if replaced:
        new = [tensor for pair in packed.values() for tensor in pair]
        _set_needed(graph, nodes, [*graph.initializer, *new])
        if all(entry.domain != _DOMAIN for entry in model.opset_import):
            model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    return replaced


def _product(
    node: onnx.NodeProto, weight: Sequence[onnx.TensorProto], shape: tuple[int, ...], block: int
) -> onnx.NodeProto:
    return helper.make_node(
        "MatMulNBits",
        [node.input[0], *(tensor.name for tensor in weight)],
        list(node.output),
        name=node.name,
        domain=_DOMAIN,
        K=shape[0],
        N=shape[1],
        bits=8,
        block_size=block,
        accuracy_level=_INT8,
    )


def _set_needed(
    graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto], tensors: Sequence[onnx.TensorProto]
) -> None:
    """Give a graph these nodes and tensors, without those that nothing reads."""
    needed = {item.name for item in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(nodes):
        if not needed.isdisjoint(node.output):
            kept.append(node)
            needed.update(node.input)
    remaining = [tensor for tensor in tensors if tensor.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(remaining)


def _int8_weight(
    node: onnx.NodeProto, producers: dict[str, onnx.NodeProto], stored: dict[str, onnx.TensorProto]
) -> tuple[onnx.TensorProto, onnx.TensorProto] | None:
    """The int8 values and scales of the weight that a product reads; None: it reads none that fits."""
    scaled = producers.get(node.input[1]) if node.op_type == "MatMul" else None
    if scaled is None or scaled.op_type != "Mul":
        return None
    cast, scales = producers.get(scaled.input[0]), stored.get(scaled.input[1])
    if cast is None or cast.op_type != "Cast" or scales is None:
        return None
    values = stored.get(cast.input[0])
    if values is None or values.data_type != onnx.TensorProto.INT8 or len(values.dims) != 2:
        return None
    fits = list(scales.dims) == [1, values.dims[1]] and values.dims[0] % _BLOCK_SIZES[-1] == 0
    return (values, scales) if fits else None


def _packed(
    name: str, values: NDArray[np.int8], scales: NDArray[np.float32], block: int
) -> list[onnx.TensorProto]:
    """A weight [K, N] as `MatMulNBits` reads it: [N, K / block, block], and the scale of each block."""
    rows, columns = values.shape
    shifted = (values.T.astype(np.int16) + _ZERO).astype(np.uint8)
    blocks = np.ascontiguousarray(shifted.reshape(columns, rows // block, block))
    of_blocks = np.repeat(scales.reshape(columns, 1), rows // block, axis=1)
    return [
        numpy_helper.from_array(blocks, f"{name}_blocks"),
        numpy_helper.from_array(of_blocks.astype(np.float32), f"{name}_scales"),
    ]
