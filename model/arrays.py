"""Names for the NumPy arrays that data and evaluation pass around."""

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
