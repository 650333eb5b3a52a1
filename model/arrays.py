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


def unreadable(error: Exception) -> str:
    """Why NumPy cannot read a file. Leaves out its advice to allow pickled objects, which could run code."""
    return "it is not a NumPy file of plain numbers" if "pickle" in str(error) else str(error)
