"""Names for the NumPy arrays that data and evaluation pass around, and words for files that hold none."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: real numbers in single precision
Array = NDArray[np.float32]
#: real numbers of any precision
Floats = NDArray[np.floating]
#: row numbers, counts or slots
Rows = NDArray[np.int64]
#: RGB frames, the last axis holds the channels
Frames = NDArray[np.uint8]


def unit_rows(rows: Floats) -> Array:
    """Vectors along the last axis, scaled to length 1; zeros stay zeros. [..., D] → float32 [..., D]"""
    lengths = np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
    unit: Array = (rows / lengths).astype(np.float32)
    return unit


def unreadable(error: Exception) -> str:
    """Why NumPy cannot read a file. Leaves out its advice to allow pickled objects, which could run code."""
    return "it is not a NumPy file of plain numbers" if "pickle" in str(error) else str(error)
