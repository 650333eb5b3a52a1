"""Whole-number codes of weights: multiples of one step, so coarse that packing makes them small.

Codes near 0 are frequent and take few bits in a packed file, rare large ones take many: for the same size,
the steps are smaller than those of codes that all have as many bits (entropy-coded scalar quantisation, see
Gray and Neuhoff, 1998, "Quantization").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.arrays import Array
from model.runtime.bundle.integer_products import LARGEST_CODE

# Larger steps leave nothing of a weight; smaller ones, in standard deviations, would cut off too much of it.
_LARGEST_STEP, _SMALLEST_STEP = 8.0, 3 / LARGEST_CODE
_HALVINGS = 24


@dataclass(frozen=True, eq=False)
class Codes:
    """A weight that is rounded: values · step.

    Attributes:
        values: int8, each within ±`LARGEST_CODE`.
        step: a float32 number.
    """

    values: NDArray[np.int8]
    step: float

    def expanded(self) -> Array:
        """The weight, float32."""
        weight: Array = self.values * np.float32(self.step)
        return weight


def nearest(weight: Array, step: float) -> Codes:
    """The nearest code of each number."""
    values = np.clip(np.rint(weight / np.float32(step)), -LARGEST_CODE, LARGEST_CODE)
    return Codes(values.astype(np.int8), step)


def step_for(weight: Array, bits: float) -> float:
    """The step at which the nearest codes have this entropy.

    Args:
        weight: float32, of any shape.
        bits: of entropy a code.

    Returns:
        a float32 number.
    """
    spread = float(weight.std())
    if spread == 0:
        return 1.0
    low, high = _SMALLEST_STEP * spread, _LARGEST_STEP * spread
    for _ in range(_HALVINGS):
        middle = (low * high) ** 0.5
        if entropy(nearest(weight, middle).values) > bits:
            low = middle
        else:
            high = middle
    return float(np.float32(high))


def entropy(values: NDArray[np.int8]) -> float:
    """Bits that a code needs at least, if each is packed for itself."""
    counts = np.bincount(values.reshape(-1).view(np.uint8), minlength=256)
    shares = counts[counts > 0] / values.size
    return float(-(shares * np.log2(shares)).sum())
