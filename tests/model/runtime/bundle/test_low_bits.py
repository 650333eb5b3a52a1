"""Weights of a few bits, as earlier bundles have them: graphs expand them, and the reader finds them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from model.runtime.bundle.integer_products import replace_products
from model.runtime.bundle.low_bits import GROUP, LowBits, holds_low_bits, read_weight
from model.runtime.onnx import ort
from tests.support.low_bits import add_table, add_weight, expanded

ROWS, COLUMNS = 3 * GROUP, 24
BITS = (1, 2, 3, 4, 7)


def weight_of(bits: int) -> LowBits:
    random = np.random.default_rng(bits)
    groups = ROWS // GROUP
    return LowBits(
        bits,
        random.integers(0, 2**bits, (ROWS, COLUMNS)).astype(np.uint8),
        random.random((groups, COLUMNS)).astype(np.float16).astype(np.float32),
        random.integers(0, 2**bits, (groups, COLUMNS)).astype(np.uint8),
    )


def naive(weight: LowBits) -> NDArray[np.float32]:
    """Each number by itself."""
    full = np.zeros((ROWS, COLUMNS), np.float32)
    for row in range(ROWS):
        for column in range(COLUMNS):
            group = row // GROUP
            steps = int(weight.codes[row, column]) - int(weight.zeros[group, column])
            full[row, column] = steps * weight.scales[group, column]
    return full


def graph_of(weight: LowBits) -> onnx.ModelProto:
    """x → its product with the weight; ids → rows of the weight as a table."""
    graph = helper.make_graph(
        [],
        "low",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", ROWS]),
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["B", "L"]),
        ],
        [
            helper.make_tensor_value_info("product", TensorProto.FLOAT, ["B", COLUMNS]),
            helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["B", "L", ROWS]),
        ],
        [
            numpy_helper.from_array(np.zeros((ROWS, COLUMNS), np.float32), "weight"),
            numpy_helper.from_array(np.zeros((COLUMNS, ROWS), np.float32), "table"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    expand = add_weight(model, "weight", weight)
    product = helper.make_node("MatMul", ["x", "weight"], ["product"])
    model.graph.node.extend([expand, product, *add_table(model, "table", weight, "ids", "rows")])
    onnx.checker.check_model(model)
    return model


@pytest.mark.parametrize("bits", BITS)
def test_a_graph_expands_what_was_rounded(bits: int) -> None:
    weight = weight_of(bits)
    full = naive(weight)
    np.testing.assert_array_equal(expanded(weight), full)
    content = graph_of(weight).SerializeToString()
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    ids = np.array([[3, 3, 0], [COLUMNS - 1, 1, 2]])
    product, rows = session.run(None, {"x": np.eye(ROWS, dtype=np.float32), "ids": ids})
    np.testing.assert_array_equal(product, full)
    np.testing.assert_array_equal(rows, full.T[ids])


@pytest.mark.parametrize("bits", BITS)
def test_what_is_read_is_what_was_stored(bits: int) -> None:
    weight = weight_of(bits)
    model = graph_of(weight)
    node = next(item for item in model.graph.node if "weight" in item.output)
    read = read_weight(node, {tensor.name: tensor for tensor in model.graph.initializer})
    assert read.bits == bits
    for own, stored in ((read.codes, weight.codes), (read.scales, weight.scales), (read.zeros, weight.zeros)):
        np.testing.assert_array_equal(own, stored)


def test_a_weight_takes_its_bits_and_little_more() -> None:
    model = graph_of(weight_of(3))
    stored = sum(len(tensor.raw_data) for tensor in model.graph.initializer if "weight" in tensor.name)
    assert stored < 1.1 * (ROWS * COLUMNS * 3 / 8 + ROWS / GROUP * COLUMNS * 2) + 64


def test_a_file_says_whether_it_has_such_weights(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    model = graph_of(weight_of(4))
    onnx.save(model, path)
    assert holds_low_bits(path)
    del model.functions[:]
    del model.graph.node[:]
    onnx.save(model, path)
    assert not holds_low_bits(path)


@pytest.mark.parametrize("many_rows", [False, True])
def test_a_product_of_whole_numbers_takes_each_row_by_itself(many_rows: bool) -> None:
    """To the last bit: the next product rounds what differs by the least bit to another number."""
    weight = weight_of(4)
    rows = np.random.default_rng(1).standard_t(3, size=(13, ROWS)).astype(np.float32)
    ids = np.zeros((1, 1), np.int64)
    model = graph_of(weight)
    assert replace_products(model, many_rows=many_rows) == 1

    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def products(x: NDArray[np.float32]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = session.run(["product"], {"x": x, "ids": ids})[0]
        return found

    exact = rows @ naive(weight)
    assert np.linalg.norm(products(rows) - exact) < 0.03 * np.linalg.norm(exact)
    for count in (1, 2, 3, 5):
        np.testing.assert_array_equal(products(rows[:count]), products(rows)[:count])
