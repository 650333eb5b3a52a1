"""Rounds the weights of a graph to coarse codes, with little change of what it computes.

GPTQ (Frantar et al., 2023): a product's weights are rounded row by row, and the rows that are not yet rounded
make up for the error on examples of the product's inputs. Before that they are fitted to what the product
gave when nothing was rounded, so that each product makes up for the rounding of those before it (an idea of
GPTAQ, Li et al., 2025); one whose output is added to a value makes up for that value's error too. Products
with few rows of inputs, such as the last projection, are fitted and not rounded.

Shapes: K rows of a weight, the product's inputs; N columns, its outputs; R rows of examples.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from model.arrays import Array
from model.export.codes import Codes, steps_for
from model.export.partial_runs import PartialRuns
from model.progress import Report, silent
from model.runtime.bundle.integer_products import LARGEST_CODE, ROWS_MULTIPLE

# Weights with fewer examples for each of their rows than this are not rounded: they would fit nothing but
# the examples.
_EXAMPLES_FOR_ROW = 4
# Share of the inputs' mean square that is added to all: when weights are rounded, rare inputs count too.
_DAMPING = 0.01
# When weights are fitted, they stay near what they were: the more, the fewer rows there are, or the less the
# inputs say of what is missing.
_FIT_DAMPING, _FEW_ROWS_DAMPING, _SUM_DAMPING = 0.1, 0.4, 0.4
# Rows that are rounded before all others make up for their error: one product is faster than many.
_BLOCK = 128


@dataclass(frozen=True)
class _Product:
    """Products of one input.

    Attributes:
        source: the name of the input.
        weights: the names of the weights [K, N], those of a Gemm [N, K], each with the name of the value that
            its product is added to; None: to none, or to one that is computed later.
        transposed: whether they are those of a Gemm.
    """

    source: str
    weights: tuple[tuple[str, str | None], ...]
    transposed: bool


def round_graph(
    model: onnx.ModelProto,
    examples: Sequence[Mapping[str, NDArray[np.generic]]],
    bits: float,
    threads: int | None = None,
    report: Report = silent,
) -> dict[str, Codes]:
    """Round the large weights of a graph's products.

    Args:
        model: a float32 graph, whose weights become the rounded ones, in place.
        examples: inputs of the graph.
        bits: of entropy of each weight's codes.
        threads: that run the graph; None: one for each core.
        report: told how far it is.

    Returns:
        the rounded weights by their names. Weights whose K is no multiple of `ROWS_MULTIPLE`, those of a
        Gemm, and those with too few examples are fitted only.
    """
    original = onnx.ModelProto()
    original.CopyFrom(model)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    products = _products(model, tensors)
    before, now = PartialRuns(original, examples, threads), PartialRuns(model, examples, threads)
    rounded: dict[str, Codes] = {}
    for number, product in enumerate(products, 1):
        inputs = now.rows(product.source)
        rows, width = inputs.shape
        squares = inputs.T @ inputs
        damped = _damped(squares, _DAMPING)
        few = product.transposed or width % ROWS_MULTIPLE != 0 or rows < _EXAMPLES_FOR_ROW * width
        lost = before.rows(product.source) - inputs
        drift = _fitted(squares, inputs.T @ lost, _FEW_ROWS_DAMPING if few else _FIT_DAMPING)
        for name, added_to in product.weights:
            stored = numpy_helper.to_array(tensors[name])
            own = stored.T if product.transposed else stored
            weight = own + drift @ own
            if added_to is not None and not few:
                lost_there = before.rows(added_to) - now.rows(added_to)
                if len(lost_there) == rows:
                    weight += _fitted(squares, inputs.T @ lost_there, _SUM_DAMPING)
            if few:
                _set(tensors[name], weight.T if product.transposed else weight)
            else:
                rounded[name] = round_weight(weight, damped, bits)
                _set(tensors[name], rounded[name].expanded())
        report(f"rounded to {bits:g} bits: {number}/{len(products)} inputs of products")
    return rounded


def _products(model: onnx.ModelProto, tensors: Mapping[str, onnx.TensorProto]) -> list[_Product]:
    """The products with weights, in the order of the graph."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    places = {item.name: -1 for item in model.graph.input}
    for place, node in enumerate(model.graph.node):
        places.update((name, place) for name in node.output)
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found: dict[tuple[str, bool], list[tuple[str, str | None]]] = {}
    taken: set[str] = set()
    for node in model.graph.node:
        transposed = any(part.name == "transB" and part.i for part in node.attribute)
        if node.op_type != "MatMul" and not (node.op_type == "Gemm" and transposed):
            continue
        source, name = node.input[:2]
        if name in tensors and name not in taken and len(tensors[name].dims) == 2:
            taken.add(name)
            added_to = _added_to(node.output[0], readers, tensors)
            # What is computed later may depend on weights that are not rounded yet.
            is_known = added_to is not None and places[added_to] <= places[source]
            found.setdefault((source, transposed), []).append((name, added_to if is_known else None))
    return [_Product(source, tuple(weights), transposed) for (source, transposed), weights in found.items()]


def _added_to(
    output: str, readers: Mapping[str, Sequence[onnx.NodeProto]], stored: Collection[str]
) -> str | None:
    """The computed value that an output is added to, perhaps behind a bias; None: it is used otherwise."""
    reading = readers.get(output, [])
    if len(reading) != 1 or reading[0].op_type != "Add":
        return None
    (added,) = reading
    other = next((name for name in added.input if name != output), None)
    return _added_to(added.output[0], readers, stored) if other in stored else other


def _damped(squares: Array, share: float) -> Array:
    """Second moments [K, K] with a share of their mean added to the diagonal."""
    damped = squares.copy()
    damped[np.diag_indices(len(damped))] += share * squares.diagonal().mean()
    return damped


def _fitted(squares: Array, products: Array, damping: float) -> Array:
    """The weight that makes of inputs most nearly what is missing, by their products with it [K, N].

    → float32 [K, N]
    """
    weight: Array = np.linalg.solve(_damped(squares, damping), products).astype(np.float32)
    return weight


def _set(tensor: onnx.TensorProto, weight: Array) -> None:
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(weight, np.float32), tensor.name))


def round_weight(weight: Array, squares: Array, bits: float) -> Codes:
    """Round a weight; rows with large inputs come first, and later ones make up for their error.

    Args:
        weight: float32 [K, N].
        squares: the inputs' second moments [K, K], positive definite.
        bits: of entropy that the nearest codes would have.
    """
    rows, columns = weight.shape
    steps = steps_for(weight, bits)
    order = np.argsort(-squares.diagonal(), kind="stable")
    inverse = np.linalg.inv(squares[np.ix_(order, order)].astype(np.float64))
    factor = np.linalg.cholesky(inverse).T.astype(np.float32)
    remaining = weight[order].astype(np.float32)
    codes = np.zeros((rows, columns), np.int8)
    for start in range(0, rows, _BLOCK):
        block = slice(start, min(start + _BLOCK, rows))
        own = factor[block, block]
        errors = np.zeros((len(own), columns), np.float32)
        for i in range(len(own)):
            values = remaining[start + i]
            code = np.clip(np.rint(values / steps[0]), -LARGEST_CODE, LARGEST_CODE)
            codes[order[start + i]] = code
            errors[i] = (values - code * steps[0]) / own[i, i]
            remaining[start + i : block.stop] -= own[i, i:, None] * errors[i]
        remaining[block.stop :] -= factor[block, block.stop :].T @ errors
    return Codes(codes, steps)
