"""Whole-number codes of weights: multiples of one step, so coarse that packing makes them small.

Columns with a number far beyond all others, as Transformers have some, get a larger step.

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
    """A weight that is rounded: values · steps.

    Attributes:
        values: int8 [K, N], each within ±`LARGEST_CODE`.
        steps: float32 [1, N], or [1, 1] if all columns have the same.
    """

    values: NDArray[np.int8]
    steps: Array

    def expanded(self) -> Array:
        """The weight. → float32 [K, N]"""
        weight: Array = self.values * self.steps
        return weight


def nearest(weight: Array, steps: Array) -> Codes:
    """The nearest code of each number [K, N]."""
    values = np.clip(np.rint(weight / steps), -LARGEST_CODE, LARGEST_CODE)
    return Codes(values.astype(np.int8), steps)


def steps_for(weight: Array, bits: float) -> Array:
    """The steps at which the nearest codes have this entropy, and no number is cut off.

    Args:
        weight: float32 [K, N].
        bits: of entropy a code.

    Returns:
        float32 [1, N], or [1, 1] if all columns have the same.
    """
    step = np.float32(_common_step(weight, bits))
    needed = np.abs(weight).max(axis=0, keepdims=True) / LARGEST_CODE
    steps: Array = np.maximum(needed, step).astype(np.float32)
    return steps[:, :1] if (steps == steps[0, 0]).all() else steps


def _common_step(weight: Array, bits: float) -> float:
    """The step at which the nearest codes have this entropy."""
    spread = float(weight.std())
    if spread == 0:
        return 1.0
    low, high = _SMALLEST_STEP * spread, _LARGEST_STEP * spread
    for _ in range(_HALVINGS):
        middle = (low * high) ** 0.5
        if entropy(nearest(weight, np.array([[middle]], np.float32)).values) > bits:
            low = middle
        else:
            high = middle
    return high


def entropy(values: NDArray[np.int8]) -> float:
    """Bits that a code needs at least, if each is packed for itself."""
    counts = np.bincount(values.reshape(-1).view(np.uint8), minlength=256)
    shares = counts[counts > 0] / values.size
    return float(-(shares * np.log2(shares)).sum())
