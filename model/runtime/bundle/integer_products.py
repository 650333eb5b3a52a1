"""Makes a graph multiply small weights as they are, in place of making them float32 first.

A bundle's graph makes float32 of weights that are stored as int8 (`model.export.storage`), those of earlier
bundles of ones with a few bits (`model.runtime.bundle.low_bits`). On a CPU, products of whole numbers take
less time and memory. Each row that is multiplied is rounded by itself, so that it does not matter which texts
or frames are encoded together.

Few rows, as in a text: ONNX Runtime's `MatMulNBits` reads the weights as stored, and rounds 16 to 64 values
of a row with a scale of their own. The time is that of reading the weights.
Many rows, as the patches of a frame: `MatMulInteger` multiplies rows of 8 bits with weights of 7 bits and a
scale for each column. Coarse codes (`model.export.codes`) are such weights already. CPUs without
instructions for 8 bits add pairs of products in 16 bits, and 7 bits never exceed these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from model.runtime.bundle.low_bits import DOMAIN, EXPAND, GROUP, holds_low_bits, read_weight

# Values of a row that share a scale: larger blocks round more, smaller ones take longer. With 128, ONNX
# Runtime adds the products of the last row of an odd number in another order: the next product rounds that.
_BLOCK_SIZES = (64, 32, 16)
_MICROSOFT = "com.microsoft"
# Multiply as int8, which is not the default.
_INT8 = 4
# Numbers without sign stand for those with one, and 128 for zero.
_ZERO = 128
_ROW_MOST = 127
#: the largest weight of 7 bits, and what the rows of a small weight must be a multiple of
LARGEST_CODE, ROWS_MULTIPLE = 63, _BLOCK_SIZES[-1]
# Larger graphs are not read: what a graph above 2 GB stores beside itself, this would have to store too.
_MOST_BYTES = 512 << 20


@dataclass(frozen=True, eq=False)
class _Weight:
    """A stored weight: values int8 [K, N], and scales float32 [K / block, N]."""

    values: NDArray[np.int8]
    scales: NDArray[np.float32]
    block: int

    @property
    def is_coarse(self) -> bool:
        """Whether the values can be multiplied as they are, with one scale for each column."""
        by_columns = bool((self.scales == self.scales[0]).all())
        return by_columns and int(np.abs(self.values.astype(np.int16)).max(initial=0)) <= LARGEST_CODE


def with_integer_products(
    path: Path, unpacked: bytes | None = None, *, many_rows: bool = False
) -> bytes | None:
    """The graph in a file, with products of whole numbers.

    Args:
        path: an ONNX graph.
        unpacked: the graph, where the file holds it packed.
        many_rows: whether the products have many rows; then only coarse codes and weights of a few bits are
            replaced.

    Returns:
        The new graph; None: it has no such weights, or is large.

    Raises:
        Exception: the file is no ONNX graph.
    """
    size = path.stat().st_size if unpacked is None else len(unpacked)
    if size > _MOST_BYTES or (many_rows and unpacked is None and not holds_low_bits(path)):
        return None
    model = onnx.load(path, load_external_data=False) if unpacked is None else onnx.load_from_string(unpacked)
    if not replace_products(model, many_rows=many_rows):
        return None
    return bytes(model.SerializeToString())


def replace_products(model: onnx.ModelProto, *, many_rows: bool = False) -> int:
    """Replace each product with a small weight, in place.

    Args:
        model: a graph with weights of a few bits, or stored as int8 [K, N] with scales float32 [1, N] or
            [1, 1], K a multiple of `ROWS_MULTIPLE`.
        many_rows: see `with_integer_products`.

    Returns:
        How many products were replaced.
    """
    graph = model.graph
    if any(part.HasField("g") or part.graphs for node in graph.node for part in node.attribute):
        return 0  # what graphs inside read is not looked for
    producers = {name: node for node in graph.node for name in node.output}
    stored = {tensor.name: tensor for tensor in graph.initializer}
    tensors: dict[str, list[onnx.TensorProto]] = {}
    nodes: list[onnx.NodeProto] = []
    replaced = 0
    for node in graph.node:
        name = node.input[1] if node.op_type == "MatMul" else ""
        if name in producers and name not in tensors:
            weight = _small_weight(producers[name], producers, stored, coarse_only=many_rows)
            if weight is not None:
                tensors[name] = _columns(name, weight) if many_rows else _blocks(name, weight)
        if name not in tensors:
            nodes.append(node)
            continue
        nodes += _by_rows(node, tensors[name]) if many_rows else [_by_blocks(node, tensors[name])]
        replaced += 1
    if replaced:
        new = [tensor for several in tensors.values() for tensor in several]
        _set_needed(graph, nodes, [*graph.initializer, *new, *_constants()])
        if not many_rows and all(entry.domain != _MICROSOFT for entry in model.opset_import):
            model.opset_import.append(helper.make_opsetid(_MICROSOFT, 1))
    return replaced


def _small_weight(
    node: onnx.NodeProto,
    producers: Mapping[str, onnx.NodeProto],
    stored: Mapping[str, onnx.TensorProto],
    *,
    coarse_only: bool,
) -> _Weight | None:
    """The small weight that a node makes float32; None: it makes something else."""
    if node.domain == DOMAIN and node.op_type == EXPAND:
        return _low_weight(node, stored)
    weight = _int8_weight(node, producers, stored)
    return None if weight is None or (coarse_only and not weight.is_coarse) else weight


def _low_weight(node: onnx.NodeProto, stored: Mapping[str, onnx.TensorProto]) -> _Weight:
    weight = read_weight(node, stored)
    groups, columns = weight.scales.shape
    codes = weight.codes.reshape(groups, -1, columns).astype(np.int16) - weight.zeros[:, None]
    scales = np.repeat(weight.scales, GROUP // _BLOCK_SIZES[0], axis=0)
    return _Weight(codes.astype(np.int8).reshape(-1, columns), scales, _BLOCK_SIZES[0])


def _int8_weight(
    scaled: onnx.NodeProto, producers: Mapping[str, onnx.NodeProto], stored: Mapping[str, onnx.TensorProto]
) -> _Weight | None:
    """The weight that a node makes of int8 values and scales; None: it is no such weight, or does not fit."""
    if scaled.op_type != "Mul":
        return None
    cast, scales = producers.get(scaled.input[0]), stored.get(scaled.input[1])
    if cast is None or cast.op_type != "Cast" or scales is None:
        return None
    values = stored.get(cast.input[0])
    if values is None or values.data_type != onnx.TensorProto.INT8 or len(values.dims) != 2:
        return None
    rows, columns = values.dims
    if list(scales.dims) not in ([1, columns], [1, 1]) or rows % ROWS_MULTIPLE:
        return None
    block = next(size for size in _BLOCK_SIZES if rows % size == 0)
    of_blocks = np.broadcast_to(numpy_helper.to_array(scales), (rows // block, columns))
    return _Weight(numpy_helper.to_array(values), of_blocks, block)


def _blocks(name: str, weight: _Weight) -> list[onnx.TensorProto]:
    """A weight as `MatMulNBits` reads it: [N, K / block, block], and the scale of each block."""
    rows, columns = weight.values.shape
    shifted = (weight.values.T.astype(np.int16) + _ZERO).astype(np.uint8)
    blocks = np.ascontiguousarray(shifted.reshape(columns, rows // weight.block, weight.block))
    scales = np.ascontiguousarray(weight.scales.T, np.float32)
    return [
        numpy_helper.from_array(blocks, f"{name}_blocks"),
        numpy_helper.from_array(scales, f"{name}_scales_of_blocks"),
    ]


def _by_blocks(node: onnx.NodeProto, weight: Sequence[onnx.TensorProto]) -> onnx.NodeProto:
    columns, blocks, size = weight[0].dims
    return helper.make_node(
        "MatMulNBits",
        [node.input[0], *(tensor.name for tensor in weight)],
        list(node.output),
        name=node.name,
        domain=_MICROSOFT,
        K=blocks * size,
        N=columns,
        bits=8,
        block_size=size,
        accuracy_level=_INT8,
    )


def _columns(name: str, weight: _Weight) -> list[onnx.TensorProto]:
    """A weight as `MatMulInteger` reads it: int8 [K, N], and the scale of each column."""
    if weight.is_coarse:
        return _named_columns(name, weight.values, weight.scales[0])
    full = weight.values.astype(np.float32) * np.repeat(weight.scales, weight.block, axis=0)
    scales = np.maximum(np.abs(full).max(axis=0), 1e-12).astype(np.float32) / LARGEST_CODE
    return _named_columns(name, np.rint(full / scales).astype(np.int8), scales)


def _named_columns(
    name: str, values: NDArray[np.int8], scales: NDArray[np.float32]
) -> list[onnx.TensorProto]:
    return [
        numpy_helper.from_array(values, f"{name}_values_of_columns"),
        numpy_helper.from_array(scales, f"{name}_scales_of_columns"),
    ]


def _constants() -> list[onnx.TensorProto]:
    constants: dict[str, NDArray[Any]] = {
        "integer_last": np.array([-1], np.int64),
        "integer_step": np.array(1 / _ROW_MOST, np.float32),
        "integer_least": np.array(1e-12, np.float32),
        "integer_one": np.array(1, np.float32),
        "integer_zero": np.array(_ZERO, np.uint8),
    }
    return [numpy_helper.from_array(array, name) for name, array in constants.items()]


def _by_rows(node: onnx.NodeProto, weight: Sequence[onnx.TensorProto]) -> list[onnx.NodeProto]:
    """Round each row to 8 bits, multiply, and scale by row and column."""
    source, output = node.input[0], node.output[0]
    values, scales = (tensor.name for tensor in weight)

    def named(part: str) -> str:
        return f"{output}_{part}"

    make = helper.make_node
    return [
        make("Abs", [source], [named("sizes")]),
        make("ReduceMax", [named("sizes"), "integer_last"], [named("most")], keepdims=1),
        make("Mul", [named("most"), "integer_step"], [named("steps")]),
        # A row of zeros has no step.
        make("Max", [named("steps"), "integer_least"], [named("row_scales")]),
        make("Div", [source, named("row_scales")], [named("steps_of_row")]),
        make("QuantizeLinear", [named("steps_of_row"), "integer_one", "integer_zero"], [named("row_values")]),
        make("MatMulInteger", [named("row_values"), values, "integer_zero"], [named("whole")]),
        make("Cast", [named("whole")], [named("float")], to=TensorProto.FLOAT),
        make("Mul", [named("float"), scales], [named("of_columns")]),
        make("Mul", [named("of_columns"), named("row_scales")], [output], name=node.name),
    ]


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
