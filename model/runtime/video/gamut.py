"""Primaries of colour spaces, and the matrices between them for linear light."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

# Chromaticities x, y of red, green and blue, by AVColorPrimaries (ITU-T H.273, table 2). The white is D65.
BT709, BT2020 = 1, 9
CHROMATICITIES = {
    BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    5: ((0.640, 0.330), (0.290, 0.600), (0.150, 0.060)),  # BT.601, 625 lines
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),  # BT.601, 525 lines
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),  # SMPTE 240M
    BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),  # Display P3
}
WHITE_D65 = (0.3127, 0.3290)
LUMINANCE_BT2020 = (0.2627, 0.6780, 0.0593)


@cache
def to_bt709(primaries: int) -> Matrix:
    """The matrix [3, 3] from linear RGB of some primaries to BT.709's; unknown ones are read as BT.2020's."""
    return np.linalg.inv(_to_xyz(BT709)) @ _to_xyz(primaries if primaries in CHROMATICITIES else BT2020)


def _to_xyz(primaries: int) -> Matrix:
    columns = np.array([_xyz(*point) for point in CHROMATICITIES[primaries]]).T
    return columns * np.linalg.solve(columns, _xyz(*WHITE_D65))


def _xyz(x: float, y: float) -> Matrix:
    return np.array([x / y, 1.0, (1 - x - y) / y])
