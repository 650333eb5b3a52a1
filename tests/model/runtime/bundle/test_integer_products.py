"""Products with int8 weights: those of float32 within what rounding costs, each row by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer

from model.export.storage import Storage, store
from model.runtime.bundle import Bundle, default_bundle_path
from model.runtime.bundle.graphs import TEXT_ENCODER
from model.runtime.bundle.integer_products import replace_products, with_integer_products
from model.runtime.onnx import ort

BLOCK = 64
MINI = default_bundle_path()


def graph_of(weight: NDArray[np.float32], kind: Storage = "int8", products: int = 1) -> onnx.ModelProto:
    """x [n, K] → y0, y1, …: each the product with the same weight, stored as the bundle's graphs store it."""
    rows, columns = weight.shape
    outputs = [f"y{number}" for number in range(products)]
    nodes = [helper.make_node("MatMul", ["x", "weight"], [name], name=f"make_{name}") for name in outputs]
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", rows])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", columns]) for name in outputs],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return store(model, kind)


def run(model: onnx.ModelProto | bytes, **inputs: NDArray[np.generic]) -> list[NDArray[np.float32]]:
    content = model if isinstance(model, bytes) else model.SerializeToString()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    results: list[NDArray[np.float32]] = session.run(None, inputs)
    return results


def rounded(rows: NDArray[np.float32], block: int = BLOCK) -> NDArray[np.float32]:
    """Each block of a row as whole numbers of -127…127 and one scale."""
    blocks = rows.reshape(len(rows), -1, block)
    scales = np.abs(blocks).max(axis=2, keepdims=True) / 127
    return np.asarray(np.rint(blocks / scales) * scales, np.float32).reshape(rows.shape)


@pytest.fixture
def weight() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(384, 96)).astype(np.float32)


@pytest.fixture
def rows() -> NDArray[np.float32]:
    return np.random.default_rng(1).standard_t(3, size=(13, 384)).astype(np.float32)


def test_a_product_is_that_of_rounded_rows_with_the_stored_weight(
    weight: NDArray[np.float32], rows: NDArray[np.float32]
) -> None:
    model = graph_of(weight)
    (exact,) = run(model, x=rows)
    stored = run(model, x=np.eye(384, dtype=np.float32))[0]
    assert replace_products(model) == 1
    (product,) = run(model, x=rows)
    # A CPU without such instructions multiplies by floats. Rounding halves may differ by one step.
    twins = (rounded(rows) @ stored, exact)
    assert min(np.abs(product - twin).max() for twin in twins) < 0.05
    assert np.linalg.norm(product - exact) < 0.02 * np.linalg.norm(exact)


def test_a_row_does_not_depend_on_the_others(weight: NDArray[np.float32], rows: NDArray[np.float32]) -> None:
    model = graph_of(weight)
    replace_products(model)
    alone = [run(model, x=row[None])[0][0] for row in rows]
    np.testing.assert_allclose(run(model, x=rows)[0], alone, rtol=1e-5, atol=1e-4)


def test_products_share_a_weight_and_float_weights_are_gone(weight: NDArray[np.float32]) -> None:
    model = graph_of(weight, products=2)
    assert replace_products(model) == 2
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["MatMulNBits"] * 2
    assert sum(len(tensor.raw_data) for tensor in model.graph.initializer) == 384 * 96 + 6 * 96 * 4


def test_a_weight_that_is_read_otherwise_stays_too(weight: NDArray[np.float32]) -> None:
    model = graph_of(weight)
    model.graph.node.append(helper.make_node("Transpose", ["weight"], ["turned"], perm=[1, 0]))
    model.graph.output.append(helper.make_tensor_value_info("turned", TensorProto.FLOAT, [96, 384]))
    before = run(model, x=np.ones((1, 384), np.float32))
    assert replace_products(model) == 1
    after = run(model, x=np.ones((1, 384), np.float32))
    np.testing.assert_array_equal(after[1], before[1])
    np.testing.assert_allclose(after[0], before[0], rtol=1e-3, atol=0.02)


@pytest.mark.parametrize("rows_of_weight", [96, 80])
def test_smaller_blocks_where_the_length_asks_for_them(rows_of_weight: int) -> None:
    random = np.random.default_rng(2)
    model = graph_of(random.normal(size=(rows_of_weight, 64)).astype(np.float32))
    x = random.normal(size=(3, rows_of_weight)).astype(np.float32)
    (exact,) = run(model, x=x)
    assert replace_products(model) == 1
    assert np.linalg.norm(run(model, x=x)[0] - exact) < 0.02 * np.linalg.norm(exact)


@pytest.mark.parametrize(
    ("shape", "kind"), [((384, 96), "float16"), ((384, 96), "float32"), ((90, 64), "int8")]
)
def test_other_weights_stay(shape: tuple[int, int], kind: Storage, tmp_path: Path) -> None:
    model = graph_of(np.ones(shape, np.float32), kind)
    before = model.SerializeToString(deterministic=True)
    assert replace_products(model) == 0
    assert model.SerializeToString(deterministic=True) == before
    onnx.save(model, tmp_path / "graph.onnx")
    assert with_integer_products(tmp_path / "graph.onnx") is None


def test_the_shipped_text_encoder_reads_texts_as_before() -> None:
    stored = Bundle.open(MINI).read_graph(TEXT_ENCODER)
    content = with_integer_products(MINI / TEXT_ENCODER, stored)
    assert content is not None
    before = ort.InferenceSession(stored, providers=["CPUExecutionProvider"])
    after = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(MINI / "tokenizer.json"))
    tokenizer.no_padding()
    for text in ("a dog", "two men in red shirts are playing tennis", "x" * 40, "snow " * 60):
        ids = np.array([tokenizer.encode(text).ids[:64]])
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        for old, new in zip(before.run(None, inputs), after.run(None, inputs), strict=True):
            cosines = (old * new).sum(-1) / np.linalg.norm(old, axis=-1) / np.linalg.norm(new, axis=-1)
            assert cosines.min() > 0.998
