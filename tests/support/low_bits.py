"""Writes weights of a few bits each, as the bundles of earlier versions have them.

`model.runtime.bundle.low_bits` describes them. A table [V, K] is the transposed of a weight; only the rows
that a text needs are expanded. P: bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from model.runtime.bundle.low_bits import DOMAIN, EXPAND, LowBits

EXPAND_ROWS = "ExpandRows"


def expanded(weight: LowBits) -> NDArray[np.float32]:
    """The weight. → float32 [K, N]"""
    groups, columns = weight.scales.shape
    values = weight.codes.reshape(groups, -1, columns).astype(np.float32) - weight.zeros[:, None]
    full: NDArray[np.float32] = (values * weight.scales[:, None]).reshape(-1, columns)
    return full


def add_weight(model: onnx.ModelProto, name: str, weight: LowBits) -> onnx.NodeProto:
    """Store a weight in a graph, in place of the float32 one of that name.

    Args:
        model: the graph; it gets the function if it has none yet.
        name: the name of the weight.
        weight: the rounded weight.

    Returns:
        the node that expands it, which the graph does not have yet.
    """
    table = _with_zeros(weight)
    stored: dict[str, NDArray[Any]] = {
        "planes": _planes(table.reshape(-1), weight.bits),
        "values": _place_values(weight.bits),
        "scales": weight.scales[:, None].astype(np.float16),
        "grouped": np.array(table.shape, np.int64),
    }
    _replace(model, name, stored)
    _add_function(model, EXPAND, _expand)
    inputs = [f"{name}_{part}" for part in stored]
    return helper.make_node(EXPAND, inputs, [name], name=f"{name}_expand", domain=DOMAIN)


def add_table(
    model: onnx.ModelProto, name: str, weight: LowBits, ids: str, output: str
) -> list[onnx.NodeProto]:
    """Store a table [V, K] in a graph, in place of the float32 one of that name.

    Args:
        model: the graph; it gets the function if it has none yet.
        name: the name of the table.
        weight: the rounded table, transposed.
        ids: the name of the row numbers, int64 [B, L].
        output: the name of these rows, float32 [B, L, K].

    Returns:
        the nodes that read the rows and expand them, which the graph does not have yet.
    """
    rows = np.ascontiguousarray(_with_zeros(weight).transpose(2, 0, 1))
    stored: dict[str, NDArray[Any]] = {
        "planes": _planes(rows.reshape(len(rows), -1), weight.bits),
        "values": _place_values(weight.bits),
        "scales": np.ascontiguousarray(weight.scales.T.astype(np.float16)),
        "grouped": np.array([0, 0, *rows.shape[1:]], np.int64),
    }
    _replace(model, name, stored)
    _add_function(model, EXPAND_ROWS, _expand_rows)
    of_rows = {part: f"{output}_{part}" for part in ("planes", "scales")}
    gathered = [
        helper.make_node("Gather", [f"{name}_{part}", ids], [out], axis=0) for part, out in of_rows.items()
    ]
    inputs = [of_rows["planes"], f"{name}_values", of_rows["scales"], f"{name}_grouped"]
    return [
        *gathered,
        helper.make_node(EXPAND_ROWS, inputs, [output], name=f"{output}_expand", domain=DOMAIN),
    ]


def _with_zeros(weight: LowBits) -> NDArray[np.uint8]:
    """The codes, with the code of zero before each group. → uint8 [G, 1 + K/G, N]"""
    groups, columns = weight.scales.shape
    return np.concatenate([weight.zeros[:, None], weight.codes.reshape(groups, -1, columns)], axis=1)


def _planes(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """The bits of each place value, eight in a byte. Shape [..., M] → [..., b, ⌈M/8⌉]"""
    places = (codes[..., None, :] >> np.arange(bits, dtype=np.uint8)[:, None]) & 1
    return np.packbits(places, axis=-1, bitorder="little")


def _place_values(bits: int) -> NDArray[np.float32]:
    return np.exp2(np.arange(bits, dtype=np.float32))[:, None]


def _replace(model: onnx.ModelProto, name: str, stored: Mapping[str, NDArray[Any]]) -> None:
    old = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    model.graph.initializer.remove(old)
    model.graph.initializer.extend(
        numpy_helper.from_array(array, f"{name}_{part}") for part, array in stored.items()
    )


def _add_function(model: onnx.ModelProto, name: str, make: Callable[[int], onnx.FunctionProto]) -> None:
    if all(function.name != name for function in model.functions):
        opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
        model.functions.append(make(opset))
    if all(entry.domain != DOMAIN for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))


def _constant(name: str, array: NDArray[np.generic]) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array, name))


def _numbers(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def _expand(opset: int) -> onnx.FunctionProto:
    """The function (planes uint8 [b, P], values [b, 1], scales [G, 1, N], grouped [3]) → weight [K, N].

    The planes hold G · (1 + K/G) · N codes, whose shape is `grouped`.
    """
    node = helper.make_node
    body = [
        *_centred(0),
        node("Cast", ["scales"], ["factors"], to=TensorProto.FLOAT),
        node("Mul", ["centred", "factors"], ["scaled"]),
        node("Slice", ["grouped", "last", "beyond"], ["columns"]),
        node("Concat", ["last", "columns"], ["shape"], axis=0),
        node("Reshape", ["scaled", "shape"], ["weight"]),
    ]
    return _function(EXPAND, "weight", body, opset)


def _expand_rows(opset: int) -> onnx.FunctionProto:
    """The function (planes [B, L, b, P], values [b, 1], scales [B, L, G], grouped [4]) → rows [B, L, K].

    The planes hold G · (1 + K/G) codes for each row; `grouped` is (0, 0, G, 1 + K/G).
    """
    node = helper.make_node
    body = [
        *_centred(2),
        _constant("joined", _numbers(0, 0, -1)),
        node("Cast", ["scales"], ["halves"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["halves", "last"], ["factors"]),
        node("Mul", ["centred", "factors"], ["scaled"]),
        node("Reshape", ["scaled", "joined"], ["rows"]),
    ]
    return _function(EXPAND_ROWS, "rows", body, opset)


def _centred(leading: int) -> list[onnx.NodeProto]:
    """Nodes that make `centred`, the codes less those of zero, of `planes`, `values` and `grouped`.

    Args:
        leading: axes before that of the planes, which `grouped` keeps.
    """
    node = helper.make_node
    return [
        _constant("shifts", np.arange(8, dtype=np.uint8)),
        _constant("lowest", np.array(1, np.uint8)),
        _constant("last", _numbers(-1)),
        _constant("from_0", _numbers(0)),
        _constant("from_1", _numbers(1)),
        _constant("beyond", _numbers(np.iinfo(np.int64).max)),
        _constant("axis", _numbers(leading)),
        _constant("axis_in_group", _numbers(leading + 1)),
        _constant("flat", _numbers(*[0] * leading, 0, -1)),
        node("Unsqueeze", ["planes", "last"], ["bytes"]),
        node("BitShift", ["bytes", "shifts"], ["shifted"], direction="RIGHT"),
        node("BitwiseAnd", ["shifted", "lowest"], ["single"]),
        node("Reshape", ["single", "flat"], ["digits"]),
        node("Cast", ["digits"], ["numbers"], to=TensorProto.FLOAT),
        node("Mul", ["numbers", "values"], ["valued"]),
        node("ReduceSum", ["valued", "axis"], ["padded"], keepdims=0),
        node("Slice", ["grouped", "axis", "beyond"], ["sizes"]),
        node("ReduceProd", ["sizes"], ["count"], keepdims=1),
        node("Slice", ["padded", "from_0", "count", "axis"], ["codes"]),
        node("Reshape", ["codes", "grouped"], ["table"]),
        node("Slice", ["table", "from_0", "from_1", "axis_in_group"], ["zeros"]),
        node("Slice", ["table", "from_1", "beyond", "axis_in_group"], ["own"]),
        node("Sub", ["own", "zeros"], ["centred"]),
    ]


def _function(name: str, output: str, body: Sequence[onnx.NodeProto], opset: int) -> onnx.FunctionProto:
    inputs = ["planes", "values", "scales", "grouped"]
    return helper.make_function(DOMAIN, name, inputs, [output], body, [helper.make_opsetid("", opset)])
