"""Weights of graphs are shared and stored smaller."""

from __future__ import annotations

import copy
from typing import cast

import numpy as np
import onnx
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

import torch
from onnx import TensorProto, helper, numpy_helper

from model.export.codes import nearest
from model.export.storage import Storage, halve_rest, quantise_weight, restore, share, store
from model.export.tracing import to_onnx
from model.families.lgdn.graphs import graphs_of
from model.families.lgdn.inference import InferenceModel
from model.runtime.bundle.graphs import FRAME_ENCODER
from tests.support.exported_lgdn import exportable_model, run_onnx


@pytest.mark.slow
def test_what_the_twins_share_is_stored_and_computed_once() -> None:
    model = exportable_model()
    both = graphs_of(InferenceModel(model, "momentum", "collaborative"))
    alone = graphs_of(InferenceModel(model, "momentum", "simdot"))
    sizes, convolutions = {}, {}
    for name, graphs in (("both", both), ("alone", alone)):
        made = to_onnx(graphs[FRAME_ENCODER])
        sizes[name] = sum(numpy_helper.to_array(t).size for t in made.graph.initializer)
        convolutions[name] = sum(node.op_type == "Conv" for node in made.graph.node)
    frozen = {id(p) for p in model.online.image.parameters() if not p.requires_grad}
    assert frozen
    assert sizes["both"] < 2 * sizes["alone"]
    stem = convolutions["alone"] * 2 - convolutions["both"]
    prepared = [m for m in model.online.image.modules() if isinstance(m, torch.nn.Conv2d)]
    # All convolutions of the first two stages, which `prepare` runs.
    assert 0 < stem < len(prepared)


def test_sharing_keeps_what_a_graph_computes() -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(size=(3, 3)).astype(np.float32)
    other = one + 1
    node = helper.make_node
    graph = helper.make_graph(
        [
            node("MatMul", ["x", "a"], ["p"]),
            node("MatMul", ["x", "b"], ["q"]),  # the same as p, by an equal weight
            node("MatMul", ["x", "c"], ["r"]),
            node("Relu", ["p"], ["rp"]),
            node("Relu", ["q"], ["rq"]),  # the same, once q is p
            node("Softmax", ["p"], ["s0"], axis=0),
            node("Softmax", ["q"], ["s1"], axis=1),  # another attribute
            node("Sum", ["rp", "rq", "r", "s0", "s1"], ["y"]),
            node("Identity", ["rp"], ["z"]),
            node("Identity", ["rq"], ["w"]),  # an output keeps its name
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", 3]) for name in ("y", "z", "w")],
        [numpy_helper.from_array(value, name) for name, value in (("a", one), ("b", one), ("c", other))],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    x = rng.normal(size=(4, 3)).astype(np.float32)
    before = run_onnx(made.SerializeToString(), {"x": x})
    shared = share(copy.deepcopy(made))
    for have, want in zip(run_onnx(shared.SerializeToString(), {"x": x}), before, strict=True):
        np.testing.assert_array_equal(have, want)
    assert [t.name for t in shared.graph.initializer] == ["a", "c"]
    kinds = [n.op_type for n in shared.graph.node]
    assert kinds == ["MatMul", "MatMul", "Relu", "Softmax", "Softmax", "Sum", "Identity", "Identity"]


@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 2, 2)])
@pytest.mark.parametrize("axis", [0, 1])
def test_int8_is_within_half_a_step_of_each_channel(shape: tuple[int, ...], axis: int) -> None:
    weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    weight[0] = 0
    values, scale = quantise_weight(weight, axis)
    assert values.dtype == np.int8
    assert scale.shape == tuple(n if i == axis else 1 for i, n in enumerate(shape))
    assert (np.abs(values * scale - weight) <= scale / 2 + 1e-7).all()


def test_stored_weights_are_small_and_read_back() -> None:
    rng = np.random.default_rng(0)
    table, matrix = rng.normal(size=(100, 64)), rng.normal(size=(64, 80))
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "ids"], ["rows"]),
            helper.make_node("MatMul", ["rows", "m"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["B"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", 80])],
        [
            numpy_helper.from_array(table.astype(np.float32), "table"),
            numpy_helper.from_array(matrix.astype(np.float32), "m"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    ids = np.array([3, 99, 0, 3])
    exact = table[ids] @ matrix
    sizes: dict[Storage, int] = {}
    tolerances: dict[Storage, float] = {"float32": 1e-5, "float16": 2e-2, "int8": 0.5}
    for kind, tolerance in tolerances.items():
        content = store(copy.deepcopy(model), kind).SerializeToString()
        sizes[kind] = len(content)
        np.testing.assert_allclose(run_onnx(content, {"ids": ids})[0], exact, atol=tolerance)
    assert sizes["int8"] < 0.6 * sizes["float16"] < 0.36 * sizes["float32"]
    mixed = store(copy.deepcopy(model), "float32", "int8")
    kinds = {t.name: t.data_type for t in mixed.graph.initializer}
    assert kinds["m"] == TensorProto.FLOAT
    assert kinds["table_i8"] == TensorProto.INT8
    with pytest.raises(ValueError, match="unknown storage 'int4': use one of float32, float16, int8"):
        store(model, cast(Storage, "int4"))


def layered() -> onnx.ModelProto:
    """ids → rows of a table, plus a large constant, times a matrix, through a convolution of one row."""
    rng = np.random.default_rng(0)
    tensors = {
        "table": rng.normal(size=(1100, 128)),
        "positions": rng.normal(size=(1, 40, 128)),
        "matrix": rng.normal(size=(128, 80)),
        "kernel": rng.normal(size=(64, 1, 80, 1)),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "ids"], ["rows"]),
            helper.make_node("Add", ["rows", "positions"], ["placed"]),
            helper.make_node("MatMul", ["placed", "matrix"], ["product"]),
            helper.make_node("Reshape", ["product", "shape"], ["image"]),
            helper.make_node("Conv", ["image", "kernel"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["B", 40])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["C", 64, 1, 1])],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in tensors.items()]
        + [numpy_helper.from_array(np.array([-1, 1, 80, 1]), "shape")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


IDS = np.random.default_rng(1).integers(0, 1100, (2, 40))


@pytest.mark.parametrize("kind", ["float16", "int8"])
def test_restored_weights_are_those_that_were_stored(kind: Storage) -> None:
    model = layered()
    names = {tensor.name for tensor in model.graph.initializer}
    operations = [node.op_type for node in model.graph.node]
    stored = store(copy.deepcopy(model), kind)
    (expected,) = run_onnx(stored.SerializeToString(), {"ids": IDS})
    restored = restore(stored)
    assert {tensor.name for tensor in restored.graph.initializer} == names
    assert [node.op_type for node in restored.graph.node] == operations
    np.testing.assert_allclose(run_onnx(restored.SerializeToString(), {"ids": IDS})[0], expected, atol=1e-4)


def test_float32_weights_are_restored_as_they_are() -> None:
    model = layered()
    before = model.SerializeToString(deterministic=True)
    assert restore(model).SerializeToString(deterministic=True) == before


def test_rounded_weights_are_stored_as_rounded_and_the_rest_is_small() -> None:
    model = layered()
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    rounded = {name: nearest(tensors[name], np.full((1, 1), 0.3, np.float32)) for name in ("table", "matrix")}
    small = halve_rest(store(copy.deepcopy(model), "int8", "int8", rounded))
    for tensor in model.graph.initializer:
        if tensor.name in rounded:
            tensor.CopyFrom(numpy_helper.from_array(rounded[tensor.name].expanded(), tensor.name))
    (expected,) = run_onnx(model.SerializeToString(), {"ids": IDS})
    (found,) = run_onnx(small.SerializeToString(), {"ids": IDS})
    assert np.linalg.norm(found - expected) < 0.01 * np.linalg.norm(expected)
    kinds = {tensor.name: tensor.data_type for tensor in small.graph.initializer}
    assert kinds["positions_f16"] == TensorProto.FLOAT16
    assert kinds["kernel_i8"] == TensorProto.INT8
    assert not kinds.keys() & {"table", "matrix", "positions", "kernel"}
