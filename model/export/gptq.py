"""Rounds the weights of a graph to a few bits each, with little change of what it computes.

GPTQ (Frantar et al., 2023): a product's weights are rounded row by row, and the rows that are not yet rounded
make up for the error on examples of the product's inputs. Before that they are fitted to what the product
gave when nothing was rounded, so that each product makes up for the rounding of those before it (an idea of
GPTAQ, Li et al., 2025); one whose output is added to a value makes up for that value's error too. Products
with few rows of inputs, such as the last projection, are fitted and not rounded.

Shapes: K rows of a weight, the product's inputs; N columns, its outputs; G groups of rows that share a scale;
R rows of examples.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from model.arrays import Array
from model.export.partial_runs import PartialRuns
from model.progress import Report, silent
from model.runtime.bundle.low_bits import GROUP, LowBits

# Weights with fewer examples for each of their rows than this are not rounded: they would fit nothing but
# the examples.
_EXAMPLES_FOR_ROW = 4
# Share of the inputs' mean square that is added to all: when weights are rounded, rare inputs count too.
_DAMPING = 0.01
# When weights are fitted, they stay near what they were: the more, the fewer rows there are, or the less the
# inputs say of what is missing.
_FIT_DAMPING, _FEW_ROWS_DAMPING, _SUM_DAMPING = 0.1, 0.4, 0.4
# What of a group's range the scale spans: the outermost weights are cut off if the others gain by it.
_SPANS = np.linspace(1.0, 0.5, 11)


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
    bits: int,
    threads: int | None = None,
    report: Report = silent,
) -> dict[str, LowBits]:
    """Round the large weights of a graph's products.

    Args:
        model: a float32 graph, whose weights become the rounded ones, in place.
        examples: inputs of the graph.
        bits: of each weight, 2 to 7.
        threads: that run the graph; None: one for each core.
        report: told how far it is.

    Returns:
        the rounded weights by their names. Weights whose K is no multiple of `GROUP`, those of a Gemm, and
        those with too few examples are fitted only.
    """
    original = onnx.ModelProto()
    original.CopyFrom(model)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    products = _products(model, tensors)
    before, now = PartialRuns(original, examples, threads), PartialRuns(model, examples, threads)
    rounded: dict[str, LowBits] = {}
    for number, product in enumerate(products, 1):
        inputs = now.rows(product.source)
        rows, width = inputs.shape
        squares = inputs.T @ inputs
        damped = _damped(squares, _DAMPING)
        few = product.transposed or width % GROUP != 0 or rows < _EXAMPLES_FOR_ROW * width
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
        report(f"rounded to {bits} bits: {number}/{len(products)} inputs of products")
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


def round_weight(weight: Array, squares: Array, bits: int) -> LowBits:
    """Round a weight; rows with large inputs come first, and later ones make up for their error.

    Args:
        weight: float32 [K, N], K a multiple of `GROUP`.
        squares: the inputs' second moments [K, K], positive definite.
        bits: of each weight.
    """
    rows, columns = weight.shape
    groups = weight.reshape(-1, GROUP, columns)
    scales, zeros = _ranges(groups, bits)
    order = np.argsort(-squares.diagonal(), kind="stable")
    inverse = np.linalg.inv(squares[np.ix_(order, order)].astype(np.float64))
    factor = np.linalg.cholesky(inverse).T.astype(np.float32)
    remaining = weight[order].astype(np.float32)
    codes = np.zeros((rows, columns), np.uint8)
    for start in range(0, rows, GROUP):
        block = slice(start, start + GROUP)
        errors = np.zeros((GROUP, columns), np.float32)
        own = factor[block, block]
        for i in range(GROUP):
            row = order[start + i]
            scale, zero = scales[row // GROUP, 0], zeros[row // GROUP, 0]
            values = remaining[start + i]
            code = np.clip(np.rint(values / scale) + zero, 0, 2**bits - 1)
            codes[row] = code
            errors[i] = (values - (code - zero) * scale) / own[i, i]
            remaining[start + i : start + GROUP] -= own[i, i:, None] * errors[i]
        remaining[start + GROUP :] -= factor[block, start + GROUP :].T @ errors
    return LowBits(bits, codes, scales[:, 0], zeros[:, 0].astype(np.uint8))


def round_table(table: Array, bits: int) -> LowBits:
    """Round each number of a table [V, K] to the nearest code. → the transposed of the table"""
    weight = table.T
    groups = weight.reshape(-1, GROUP, weight.shape[1])
    scales, zeros = _ranges(groups, bits)
    codes = np.clip(np.rint(groups / scales) + zeros, 0, 2**bits - 1).astype(np.uint8)
    return LowBits(bits, codes.reshape(weight.shape), scales[:, 0], zeros[:, 0].astype(np.uint8))


def _ranges(groups: Array, bits: int) -> tuple[Array, Array]:
    """The scale and the code of zero of each group [G, K/G, N] that round it with the least error.

    → float32 [G, 1, N] twice
    """
    most = 2**bits - 1
    low = np.minimum(groups.min(1, keepdims=True), 0)
    high = np.maximum(groups.max(1, keepdims=True), 0)
    least = np.full(low.shape, np.inf, np.float32)
    best_scale, best_zero = np.ones_like(low), np.zeros_like(low)
    for span in _SPANS:
        # A scale is stored as float16.
        scale = np.maximum((high - low) * span / most, 1e-7).astype(np.float16).astype(np.float32)
        zero = np.clip(np.rint(-low * span / scale), 0, most)
        restored = (np.clip(np.rint(groups / scale) + zero, 0, most) - zero) * scale
        error = np.square(restored - groups).sum(1, keepdims=True)
        better = error < least
        least = np.where(better, error, least)
        best_scale, best_zero = np.where(better, scale, best_scale), np.where(better, zero, best_zero)
    return best_scale, best_zero
