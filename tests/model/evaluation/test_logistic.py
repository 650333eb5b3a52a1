"""Logistic regression: the likeliest weights, known weights, and rows that a plane separates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from model.evaluation.logistic import fit_logistic


def generated(
    rows: int, weights: list[float], seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Rows with a constant last, and labels drawn with the probabilities of these weights."""
    rng = np.random.default_rng(seed)
    inputs = np.concatenate([rng.normal(size=(rows, len(weights) - 1)), np.ones((rows, 1))], axis=1)
    return inputs, rng.random(rows) < 1 / (1 + np.exp(-(inputs @ weights)))


def naive_descent(
    inputs: NDArray[np.float64], labels: NDArray[np.bool_], ridge: NDArray[np.float64]
) -> list[float]:
    """Many small steps down the slope, one row at a time."""
    weights = [0.0] * inputs.shape[1]
    for _ in range(1500):
        slope = [float(r) * w for r, w in zip(ridge, weights, strict=True)]
        for row, label in zip(inputs.tolist(), labels.tolist(), strict=True):
            share = 1 / (1 + math.exp(-sum(w * x for w, x in zip(weights, row, strict=True))))
            for place, x in enumerate(row):
                slope[place] += (share - label) * x
        weights = [w - 0.08 * s for w, s in zip(weights, slope, strict=True)]
    return weights


def test_it_finds_what_descent_finds() -> None:
    inputs, labels = generated(30, [1.5, -1.0, 0.5])
    ridge = np.array([0.5, 0.5, 0.0])
    found = fit_logistic(inputs, labels, ridge)
    np.testing.assert_allclose(found, naive_descent(inputs, labels, ridge), atol=1e-6)


def test_it_recovers_known_weights() -> None:
    weights = [2.0, -0.7, 0.0, -1.5]
    inputs, labels = generated(40_000, weights)
    np.testing.assert_allclose(fit_logistic(inputs, labels, np.zeros(4)), weights, atol=0.08)


def test_rows_that_a_plane_separates_have_finite_weights() -> None:
    x = np.concatenate([np.linspace(-3, -1, 20), np.linspace(1, 3, 20)])
    inputs = np.stack([1000 * x, np.ones(40)], axis=1)
    scale, bias = fit_logistic(inputs, x > 0, np.full(2, 1e-3))
    assert np.isfinite([scale, bias]).all()
    assert scale > 0
    assert ((inputs @ [scale, bias] > 0) == (x > 0)).all()


def test_columns_that_never_vary_get_no_weight() -> None:
    inputs, labels = generated(200, [1.0, 0.0])
    wide = np.concatenate([inputs[:, :1], np.zeros((200, 1)), inputs[:, 1:]], axis=1)
    found = fit_logistic(wide, labels, np.array([0.1, 0.1, 0.0]))
    assert found[1] == 0
    np.testing.assert_allclose(found[[0, 2]], fit_logistic(inputs, labels, np.array([0.1, 0.0])), atol=1e-6)


def test_wrong_shapes() -> None:
    for inputs, labels, ridge in (
        (np.ones((3, 2)), np.ones(2, np.bool_), np.ones(2)),
        (np.ones((3, 2)), np.ones(3, np.bool_), np.ones(1)),
        (np.ones((0, 2)), np.ones(0, np.bool_), np.ones(2)),
    ):
        with pytest.raises(ValueError, match=r"pass \[R, F\], \[R\] and \[F\] with R ≥ 1"):
            fit_logistic(inputs, labels, ridge)
