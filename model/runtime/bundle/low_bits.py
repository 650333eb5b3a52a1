"""Reads weights of a few bits each from the graphs of earlier bundles, which expand them by functions.

A weight [K, N] is rounded to codes of b bits; each group of 128 rows of a column has a scale and the code
that stands for zero. The bits of one place value lie together, eight codes in a byte, so that b is any
number. The functions consist of ONNX's own operators: every program that runs ONNX reads such a graph.

Shapes: K rows, N columns, G groups of rows, b bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

# The functions of a graph are at the end of its file.
_END_BYTES = 1 << 16
#: the rows of a column that share a scale
GROUP = 128
#: the domain and the name of the function of a whole weight
DOMAIN, EXPAND = "reelfind", "ExpandWeight"


@dataclass(frozen=True, eq=False)
class LowBits:
    """A rounded weight: (codes - zeros) · scales.

    Attributes:
        bits: b, 1 to 7.
        codes: uint8 [K, N], each less than 2^b.
        scales: float32 [G, N], whose values float16 has.
        zeros: uint8 [G, N], the code that stands for 0.
    """

    bits: int
    codes: NDArray[np.uint8]
    scales: NDArray[np.float32]
    zeros: NDArray[np.uint8]


def holds_low_bits(path: Path) -> bool:
    """Whether a file holds a graph that expands weights, without reading it all."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _END_BYTES))
        return EXPAND.encode() in file.read()


def read_weight(node: onnx.NodeProto, stored: Mapping[str, onnx.TensorProto]) -> LowBits:
    """The weight that a node of the function expands, from the graph's tensors by name."""
    planes, values, scales, grouped = (numpy_helper.to_array(stored[name]) for name in node.input)
    groups, with_zero, columns = (int(size) for size in grouped)
    flat = np.unpackbits(planes, axis=1, count=groups * with_zero * columns, bitorder="little")
    codes = flat[0]
    for place in range(1, len(values)):
        codes |= flat[place] << place
    table = codes.reshape(groups, with_zero, columns)
    return LowBits(
        len(values),
        np.ascontiguousarray(table[:, 1:]).reshape(-1, columns),
        scales[:, 0].astype(np.float32),
        np.ascontiguousarray(table[:, 0]),
    )
