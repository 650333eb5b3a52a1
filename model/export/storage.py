"""Makes ONNX files smaller: duplicates are dropped, and weights are stored with fewer bits.

Nodes of the graph cast the weights back. onnxruntime folds these nodes into constants when it loads a graph,
so they cost nothing at run time. Word embeddings are an exception: rows are gathered first, and cast then, so
that the table stays int8 in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from model.export.codes import Codes
from model.runtime.errors import InputError

Storage = Literal["float32", "float16", "int8"]
STORAGES: tuple[Storage, ...] = ("float32", "float16", "int8")
# Smaller tensors (biases, norms, depthwise kernels of narrow layers) stay as they are: they are not worth it.
_SMALLEST = 4096


def quantise_weight(weight: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric int8 with a scale for every index of `axis`; weight ≈ values · scale.

    Returns:
        int8 values of the same shape, and scales with 1 in every other dimension.
    """
    others = tuple(i for i in range(weight.ndim) if i != axis)
    scale = np.maximum(np.abs(weight).max(axis=others, keepdims=True), 1e-12).astype(np.float32) / 127
    return np.rint(weight / scale).astype(np.int8), scale.astype(np.float32)


def _channel_axis(node: onnx.NodeProto, weight: NDArray[np.float32]) -> int:
    """The axis of a weight's output channels: first for Conv, last for MatMul, by transB for Gemm."""
    if node.op_type == "Gemm":
        return 0 if any(a.name == "transB" and a.i for a in node.attribute) else weight.ndim - 1
    return weight.ndim - 1 if node.op_type == "MatMul" else 0


def share(model: onnx.ModelProto) -> onnx.ModelProto:
    """Keep one of equal weights, and one of nodes that compute the same, in place.

    Online and momentum towers share frozen stages and word embeddings; a graph of both would hold them twice.
    """
    graph = model.graph
    names: dict[str, str] = {}
    weights: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    distinct = []
    for tensor in graph.initializer:
        content = hashlib.sha256(numpy_helper.to_array(tensor).tobytes()).digest()
        first = weights.setdefault((tensor.data_type, tuple(tensor.dims), content), tensor.name)
        names[tensor.name] = first
        if first == tensor.name:
            distinct.append(tensor)
    del graph.initializer[:]
    graph.initializer.extend(distinct)
    results = {item.name for item in graph.output}
    computed: dict[tuple[object, ...], list[str]] = {}
    nodes = []
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        attributes = sorted(a.SerializeToString(deterministic=True) for a in node.attribute)
        key = (node.op_type, node.domain, tuple(node.input), tuple(attributes), len(node.output))
        first_outputs = computed.setdefault(key, list(node.output))
        # The outputs of the graph keep their names.
        if first_outputs == list(node.output) or not results.isdisjoint(node.output):
            nodes.append(node)
        else:
            names |= dict(zip(node.output, first_outputs, strict=True))
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model


def store(
    model: onnx.ModelProto,
    weights: Storage,
    words: Storage | None = None,
    rounded: Mapping[str, Codes] | None = None,
) -> onnx.ModelProto:
    """Rewrite the large weights of a graph, in place.

    Args:
        model: a float32 graph.
        weights: how weights of Conv, MatMul and Gemm are stored.
        words: how tables read by Gather are stored; None: as `weights`.
        rounded: weights and tables that are stored as rounded, as int8, by their names.

    Raises:
        InputError: a storage is unknown.
    """
    words = words or weights
    for choice in (weights, words):
        if choice not in STORAGES:
            raise InputError(f"unknown storage {choice!r}: use one of {', '.join(STORAGES)}")
    graph = model.graph
    tensors = {t.name: t for t in graph.initializer}
    added: list[onnx.NodeProto] = []
    done: set[str] = set()
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        kind = words if node.op_type == "Gather" else weights
        name = _weight_of(node, tensors)
        if name is None or kind == "float32" or tensors[name].data_type != TensorProto.FLOAT:
            nodes.append(node)
            continue
        tensor, codes = tensors[name], (rounded or {}).get(name)
        weight = numpy_helper.to_array(tensor)
        if weight.size < _SMALLEST or weight.ndim < 2 or name in done:
            nodes.append(node)
            continue
        if node.op_type == "Gather":
            nodes += _gathered(graph, node, name, codes or weight, kind)
            graph.initializer.remove(tensor)
            continue
        done.add(name)
        added += _cast_back(graph, name, codes or weight, kind, _channel_axis(node, weight))
        graph.initializer.remove(tensor)
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(added + nodes)
    onnx.checker.check_model(model)
    return model


def halve_rest(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store what `store` left as large float32 tensors, such as positions, as float16, in place."""
    graph = model.graph
    casts: list[onnx.NodeProto] = []
    for tensor in list(graph.initializer):
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1:
            values = numpy_helper.to_array(tensor)
            if values.size >= _SMALLEST:
                casts += _cast_back(graph, tensor.name, values, "float16", 0)
                graph.initializer.remove(tensor)
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model


def restore(model: onnx.ModelProto) -> onnx.ModelProto:
    """Make the weights that `store` made float16 or int8 float32 again, in place."""
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    float32: set[str] = set()
    for name in list(stored):
        own, _, kind = name.rpartition("_")
        if own and kind in ("f16", "i8"):
            values = numpy_helper.to_array(stored.pop(name)).astype(np.float32)
            if kind == "i8":
                values = values * numpy_helper.to_array(stored.pop(f"{own}_scale"))
            stored[own] = numpy_helper.from_array(values, own)
            float32.add(own)
    # The names of what the nodes that `store` added compute.
    added = {part for own in float32 for part in (own, f"{own}_float")}
    nodes = []
    for node in graph.node:
        output = node.output[0]
        own = node.input[0].rpartition("_")[0] if node.input else ""
        if node.op_type == "Gather" and own in float32 and output not in added:
            rows = output.rpartition("_")[0]
            nodes.append(helper.make_node("Gather", [own, node.input[1]], [rows], axis=0))
            added |= {rows, f"{rows}_float", f"{rows}_scale"}
        elif output not in added:
            nodes.append(node)
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(stored.values())
    onnx.checker.check_model(model)
    return model


def _weight_of(node: onnx.NodeProto, tensors: Mapping[str, onnx.TensorProto]) -> str | None:
    """The name of the stored weight that a node reads; None: it reads none."""
    if node.op_type == "Gather":
        return node.input[0] if node.input[0] in tensors else None
    if node.op_type not in ("Conv", "MatMul", "Gemm"):
        return None
    return next((name for name in node.input if name in tensors), None)


def _cast_back(
    graph: onnx.GraphProto, name: str, weight: NDArray[np.float32] | Codes, kind: Storage, axis: int
) -> list[onnx.NodeProto]:
    """Add the weight in a small type, and give the nodes that compute `name` from it."""
    if kind == "float16" and not isinstance(weight, Codes):
        graph.initializer.append(numpy_helper.from_array(weight.astype(np.float16), f"{name}_f16"))
        return [helper.make_node("Cast", [f"{name}_f16"], [name], to=TensorProto.FLOAT)]
    _add_int8(graph, name, weight, axis)
    return [
        helper.make_node("Cast", [f"{name}_i8"], [f"{name}_float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{name}_float", f"{name}_scale"], [name]),
    ]


def _gathered(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    name: str,
    weight: NDArray[np.float32] | Codes,
    kind: Storage,
) -> list[onnx.NodeProto]:
    """Gather rows of a small type, then cast them, so that the whole table is never float32 in memory."""
    ids, out = node.input[1], node.output[0]
    if kind == "float16" and not isinstance(weight, Codes):
        graph.initializer.append(numpy_helper.from_array(weight.astype(np.float16), f"{name}_f16"))
        return [
            helper.make_node("Gather", [f"{name}_f16", ids], [f"{out}_f16"], axis=0),
            helper.make_node("Cast", [f"{out}_f16"], [out], to=TensorProto.FLOAT),
        ]
    _add_int8(graph, name, weight, 0)
    nodes = [
        helper.make_node("Gather", [f"{name}_i8", ids], [f"{out}_i8"], axis=0),
        helper.make_node("Cast", [f"{out}_i8"], [f"{out}_float"], to=TensorProto.FLOAT),
    ]
    if isinstance(weight, Codes):
        return [*nodes, helper.make_node("Mul", [f"{out}_float", f"{name}_scale"], [out])]
    return [
        *nodes,
        helper.make_node("Gather", [f"{name}_scale", ids], [f"{out}_scale"], axis=0),
        helper.make_node("Mul", [f"{out}_float", f"{out}_scale"], [out]),
    ]


def _add_int8(graph: onnx.GraphProto, name: str, weight: NDArray[np.float32] | Codes, axis: int) -> None:
    """Add a weight as int8, with its scales: one for every index of `axis`, or the steps of coarse codes."""
    if isinstance(weight, Codes):
        values, scale = weight.values, weight.steps
    else:
        values, scale = quantise_weight(weight, axis)
    graph.initializer.append(numpy_helper.from_array(values, f"{name}_i8"))
    graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
