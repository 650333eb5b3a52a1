"""Coarse codes: the step that gives them their entropy, and how near they are to what they stand for."""

from __future__ import annotations

import numpy as np
import pytest

from model.export.codes import Codes, entropy, nearest, steps_for
from model.runtime.bundle.packing import packed


def weight_of(kind: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    random = np.random.default_rng(0)
    drawn = random.normal(size=(300, 200)) if kind == "normal" else random.standard_t(4, size=(300, 200))
    return np.asarray(0.02 * drawn, np.float32)


@pytest.mark.parametrize("kind", ["normal", "heavy tails"])
@pytest.mark.parametrize("bits", [1.5, 3.1, 4.0, 5.0])
def test_the_step_gives_the_entropy_that_was_asked_for(kind: str, bits: float) -> None:
    weight = weight_of(kind)
    codes = nearest(weight, steps_for(weight, bits))
    assert entropy(codes.values) == pytest.approx(bits, abs=0.05)
    # Each code has a whole number of bits in the file.
    assert bits - 0.05 < len(packed(codes.values.tobytes())) * 8 / weight.size < bits + 0.2


def test_the_entropy_is_that_of_its_definition() -> None:
    # A half, a quarter and two eighths: 1.75 bits.
    values = np.repeat(np.array([0, -3, 63, -63], np.int8), [4, 2, 1, 1])
    assert entropy(values) == 1.75


def test_codes_are_the_nearest_ones_within_their_limits() -> None:
    weight = np.array([[0.0, 0.9, -0.4], [1000.0, -1000.0, 6.24]], np.float32)
    codes = nearest(weight, np.full((1, 1), 0.5, np.float32))
    np.testing.assert_array_equal(codes.values, [[0, 2, -1], [63, -63, 12]])
    np.testing.assert_array_equal(codes.expanded(), codes.values * np.float32(0.5))
    assert codes.expanded().dtype == np.float32


def test_steps_of_one_size_round_less_than_as_many_bits_for_each_code() -> None:
    """What 4 bits a code and the same 4 bits of entropy lose of a weight."""
    weight = weight_of("heavy tails")
    step = 2 * np.abs(weight).max(axis=0) / 15
    each = np.rint(weight / step) * step
    coarse = nearest(weight, steps_for(weight, 4)).expanded()
    assert np.linalg.norm(coarse - weight) < 0.7 * np.linalg.norm(each - weight)


def test_columns_with_far_outliers_have_larger_steps() -> None:
    weight = weight_of("normal")
    weight[7, 3] = 200 * weight.std()
    codes = nearest(weight, steps_for(weight, 4))
    assert codes.steps.shape == (1, 200)
    larger = codes.steps[0] > codes.steps.min()
    assert list(np.flatnonzero(larger)) == [3]
    assert (np.abs(codes.expanded() - weight) <= codes.steps / 2 * 1.001).all(), "nothing is cut off"
    assert entropy(codes.values) == pytest.approx(4, abs=0.03)
    weight[7, 3] = 0
    assert steps_for(weight, 4).shape == (1, 1)


def test_a_weight_of_zeros_stays_zero() -> None:
    zeros = np.zeros((32, 16), np.float32)
    codes = nearest(zeros, steps_for(zeros, 3))
    assert isinstance(codes, Codes)
    assert not codes.expanded().any()
