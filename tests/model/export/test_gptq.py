"""Rounding to coarse codes: against a naive twin, and by what a graph then computes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from model.export.codes import entropy, nearest, steps_for
from model.export.gptq import round_graph, round_weight
from model.export.partial_runs import PartialRuns
from model.runtime.onnx import ort

WIDTH, LAYERS = 128, 3
Example = Mapping[str, NDArray[np.generic]]


def correlated(rows: int, width: int, seed: int) -> NDArray[np.float32]:
    """Inputs as networks have them: a few directions hold most of what differs."""
    random = np.random.default_rng(seed)
    mix = np.random.default_rng(7).normal(size=(width, width)) * np.geomspace(3, 0.05, width)
    return np.asarray(random.normal(size=(rows, width)) @ mix.T, np.float32)


def model_of(
    nodes: list[onnx.NodeProto], tensors: list[onnx.TensorProto], width: int = WIDTH
) -> onnx.ModelProto:
    """A graph that makes y [B, L, width] of x."""
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", "L", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", "L", width])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def graph_of(seed: int = 0) -> onnx.ModelProto:
    """Residual layers x + tanh(x · w) and a head, behind an addition that all examples need."""
    random = np.random.default_rng(seed)
    nodes, tensors, last = [], [], "x"
    for layer in range(LAYERS):
        weight = random.normal(size=(WIDTH, WIDTH)).astype(np.float32) / WIDTH**0.5
        tensors.append(numpy_helper.from_array(weight, f"w{layer}"))
        nodes += [
            helper.make_node("MatMul", [last, f"w{layer}"], [f"p{layer}"]),
            helper.make_node("Tanh", [f"p{layer}"], [f"t{layer}"]),
            helper.make_node("Add", [last, f"t{layer}"], [f"h{layer}"]),
        ]
        last = f"h{layer}"
    tensors.append(numpy_helper.from_array(random.normal(size=(100, 5)).astype(np.float32), "narrow"))
    nodes += [
        helper.make_node("Slice", [last, "from", "to", "axis"], ["part"]),
        helper.make_node("MatMul", ["part", "narrow"], ["y"]),
    ]
    numbers = {"from": 0, "to": 100, "axis": 2}
    tensors += [numpy_helper.from_array(np.array([value], np.int64), name) for name, value in numbers.items()]
    return model_of(nodes, tensors, 5)


def residual_graph() -> onnx.ModelProto:
    """Layers x + (tanh(x · a) · b + c), as in a Transformer's feed-forward parts."""
    random = np.random.default_rng(5)
    nodes, tensors, last = [], [], "x"
    for layer in range(2 * LAYERS):
        for name in ("a", "b"):
            weight = 0.5 * random.normal(size=(WIDTH, WIDTH)).astype(np.float32) / WIDTH**0.5
            tensors.append(numpy_helper.from_array(weight, f"{name}{layer}"))
        tensors.append(numpy_helper.from_array(random.normal(size=WIDTH).astype(np.float32), f"c{layer}"))
        nodes += [
            helper.make_node("MatMul", [last, f"a{layer}"], [f"p{layer}"]),
            helper.make_node("Tanh", [f"p{layer}"], [f"t{layer}"]),
            helper.make_node("MatMul", [f"t{layer}", f"b{layer}"], [f"q{layer}"]),
            helper.make_node("Add", [f"c{layer}", f"q{layer}"], [f"r{layer}"]),
            helper.make_node("Add", [last, f"r{layer}"], [f"h{layer}"]),
        ]
        last = f"h{layer}"
    nodes.append(helper.make_node("Identity", [last], ["y"]))
    return model_of(nodes, tensors)


def examples_of(seed: int, count: int = 40) -> list[Example]:
    return [{"x": correlated(32, WIDTH, seed * 1000 + number)[None]} for number in range(count)]


def weight_named(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    found: onnx.TensorProto = next(item for item in model.graph.initializer if item.name == name)
    return found


def outputs(model: onnx.ModelProto, examples: list[Example], name: str = "y") -> NDArray[np.float32]:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.append(onnx.ValueInfoProto(name=name))
    session = ort.InferenceSession(copy.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run([name], dict(example))[0] for example in examples])


def naive_codes(
    weight: NDArray[np.float32], squares: NDArray[np.float64], steps: NDArray[np.float32]
) -> NDArray[np.int8]:
    """GPTQ by its definition: after each row, the inverse of what is left is computed anew."""
    left, codes = weight.astype(np.float64), np.zeros(weight.shape, np.int8)
    remaining = list(np.argsort(-squares.diagonal(), kind="stable"))
    while remaining:
        row = remaining[0]
        inverse = np.linalg.inv(squares[np.ix_(remaining, remaining)])
        codes[row] = np.clip(np.rint(left[row] / steps), -63, 63)
        error = (left[row] - codes[row] * steps) / inverse[0, 0]
        left[remaining] -= inverse[:, :1] * error
        remaining = remaining[1:]
    return codes


@pytest.mark.parametrize("rows", [256, 80])
@pytest.mark.parametrize("bits", [2.0, 3.1, 4.0])
def test_codes_are_those_of_the_naive_twin(bits: float, rows: int) -> None:
    inputs = correlated(2000, rows, 1).astype(np.float64)
    squares = inputs.T @ inputs + np.eye(rows)
    weight = np.random.default_rng(0).normal(size=(rows, 6)).astype(np.float32)
    rounded = round_weight(weight, squares.astype(np.float32), bits)
    # A value halfway between two codes may fall to either.
    assert (rounded.values == naive_codes(weight, squares, rounded.steps[0])).mean() > 0.98
    # What makes up for errors spreads the codes.
    assert bits - 0.1 < entropy(rounded.values) < bits + 0.5


@pytest.mark.parametrize("bits", [2.0, 3.1, 4.0])
def test_products_change_less_than_with_the_nearest_codes(bits: float) -> None:
    inputs = correlated(2000, 256, 1)
    weight = np.random.default_rng(0).normal(size=(256, 20)).astype(np.float32)
    squares = inputs.T @ inputs
    fresh = correlated(500, 256, 2)
    exact = fresh @ weight
    rounded = round_weight(weight, squares, bits)
    error = np.linalg.norm(fresh @ rounded.expanded() - exact)
    plain = np.linalg.norm(fresh @ nearest(weight, rounded.steps).expanded() - exact)
    assert error < 0.75 * plain


def test_a_graph_keeps_what_it_computes() -> None:
    model, examples, fresh = graph_of(), examples_of(1), examples_of(2, 8)
    original = onnx.ModelProto()
    original.CopyFrom(model)
    exact = outputs(original, fresh)
    lines: list[str] = []
    rounded = round_graph(model, examples, 3, report=lines.append)
    assert set(rounded) == {"w0", "w1", "w2"}, "100 rows are no multiple of 16"
    assert lines[-1].endswith(f"{LAYERS + 1}/{LAYERS + 1} inputs of products")
    for tensor in model.graph.initializer:
        if tensor.name in rounded:
            np.testing.assert_array_equal(numpy_helper.to_array(tensor), rounded[tensor.name].expanded())
    plain = onnx.ModelProto()
    plain.CopyFrom(original)
    for tensor in plain.graph.initializer:
        if tensor.name in rounded:
            values = numpy_helper.to_array(tensor)
            codes = nearest(values, steps_for(values, 3))
            tensor.CopyFrom(numpy_helper.from_array(codes.expanded(), tensor.name))
    assert np.linalg.norm(outputs(model, fresh) - exact) < 0.7 * np.linalg.norm(outputs(plain, fresh) - exact)


def test_products_make_up_for_the_rounding_of_those_before() -> None:
    """Against GPTQ alone, which rounds each weight for itself on the inputs that the rounded graph gives."""
    model, alone, examples, fresh = residual_graph(), residual_graph(), examples_of(1, 160), examples_of(2, 8)
    exact = outputs(model, fresh)
    round_graph(model, examples, 2)
    runs = PartialRuns(alone, examples)
    for node in alone.graph.node:
        if node.op_type == "MatMul":
            inputs = runs.rows(node.input[0])
            squares = inputs.T @ inputs
            squares[np.diag_indices(WIDTH)] += 0.01 * squares.diagonal().mean()
            tensor = weight_named(alone, node.input[1])
            kept = round_weight(numpy_helper.to_array(tensor), squares, 2).expanded()
            tensor.CopyFrom(numpy_helper.from_array(kept, tensor.name))
    error, error_alone = (np.linalg.norm(outputs(one, fresh) - exact) for one in (model, alone))
    assert error < 0.9 * error_alone


def test_branches_that_are_added_to_each_other_are_rounded() -> None:
    """x · a + tanh(tanh(x) · b) · c: the first branch does not wait for the other one's weights."""
    random = np.random.default_rng(0)
    weights = [random.normal(size=(WIDTH, WIDTH)).astype(np.float32) / WIDTH**0.5 for _ in range(4)]
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["p"]),
        helper.make_node("Tanh", ["x"], ["t"]),
        helper.make_node("MatMul", ["t", "w1"], ["q"]),
        helper.make_node("Tanh", ["q"], ["u"]),
        helper.make_node("MatMul", ["u", "w2"], ["v"]),
        helper.make_node("Add", ["p", "v"], ["s"]),
        helper.make_node("MatMul", ["s", "w3"], ["y"]),
    ]
    tensors = [numpy_helper.from_array(weight, f"w{number}") for number, weight in enumerate(weights)]
    model = model_of(nodes, tensors)
    fresh = examples_of(2, 8)
    exact = outputs(model, fresh)
    assert set(round_graph(model, examples_of(1), 4)) == {"w0", "w1", "w2", "w3"}
    assert np.linalg.norm(outputs(model, fresh) - exact) < 0.1 * np.linalg.norm(exact)


def test_weights_with_few_examples_are_not_rounded() -> None:
    model, fresh = graph_of(), examples_of(2, 8)
    exact = outputs(model, fresh)
    assert not round_graph(model, examples_of(1, 8), 3)
    np.testing.assert_allclose(outputs(model, fresh), exact, rtol=1e-3, atol=1e-3)


def test_what_is_not_rounded_makes_up_for_what_is() -> None:
    """The last weight, of 100 rows, is fitted to what the rounded layers give."""
    model, examples, fresh = graph_of(), examples_of(1), examples_of(2, 8)
    exact, last = outputs(model, fresh), numpy_helper.to_array(weight_named(model, "narrow"))
    round_graph(model, examples, 1.5)
    fitted = np.linalg.norm(outputs(model, fresh) - exact)
    weight_named(model, "narrow").CopyFrom(numpy_helper.from_array(last, "narrow"))
    assert fitted < 0.97 * np.linalg.norm(outputs(model, fresh) - exact)


def test_values_in_parts_are_those_of_whole_runs() -> None:
    model, examples = graph_of(), examples_of(3, 4)
    runs = PartialRuns(model, examples)
    for name in ("x", "p0", "t0", "h0", "p1", "h1", "t2", "part", "y"):
        whole = np.concatenate([e["x"] for e in examples]) if name == "x" else outputs(model, examples, name)
        np.testing.assert_allclose(runs.rows(name), whole.reshape(-1, whole.shape[-1]), rtol=1e-5, atol=1e-5)


def test_weights_that_change_behind_what_was_read_count() -> None:
    model, examples = graph_of(), examples_of(3, 4)
    runs = PartialRuns(model, examples)
    runs.rows("h0")
    weight_named(model, "w1").CopyFrom(numpy_helper.from_array(np.zeros((WIDTH, WIDTH), np.float32), "w1"))
    np.testing.assert_allclose(runs.rows("h1"), runs.rows("h1"))
    changed = outputs(model, examples, "h1")
    np.testing.assert_allclose(runs.rows("h1"), changed.reshape(-1, WIDTH), rtol=1e-5, atol=1e-5)
