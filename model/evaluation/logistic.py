"""Logistic regression by Newton's method. Shapes: R rows, F inputs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.arrays import Floats

_STEPS = 60
_ENOUGH = 1e-9


def fit_logistic(inputs: Floats, labels: NDArray[np.bool_], ridge: Floats) -> NDArray[np.float64]:
    """The coefficients of the likeliest log-odds `inputs · coefficients`.

    Minimises −(log-likelihood) + ½ · Σ ridge · coefficients².

    Args:
        inputs: shape [R, F]; a constant column makes a bias.
        labels: shape [R].
        ridge: not negative, shape [F]. Rows that a plane separates have no likeliest coefficients without it.

    Returns:
        float64, shape [F].

    Raises:
        ValueError: the shapes do not fit, or there is no row.
    """
    x, label = inputs.astype(np.float64), labels.astype(np.float64)
    if x.ndim != 2 or label.shape != x.shape[:1] or ridge.shape != x.shape[1:] or not len(x):
        raise ValueError(
            f"inputs {list(x.shape)}, labels {list(label.shape)} and ridge {list(ridge.shape)}: "
            "pass [R, F], [R] and [F] with R ≥ 1"
        )
    weights = np.zeros(x.shape[1])
    loss = _loss(x, label, ridge, weights)
    for _ in range(_STEPS):
        share = 1 / (1 + np.exp(-np.clip(x @ weights, -700, 700)))
        slope = x.T @ (share - label) + ridge * weights
        curvature = x.T @ (x * (share * (1 - share))[:, None]) + np.diag(ridge)
        step = np.linalg.lstsq(curvature, slope, rcond=None)[0]
        # A whole step may lead too far where almost all shares are 0 or 1.
        length = 1.0
        while length > _ENOUGH and _loss(x, label, ridge, weights - length * step) > loss:
            length /= 2
        weights = weights - length * step
        loss = _loss(x, label, ridge, weights)
        if np.abs(length * step).max() < _ENOUGH * (1 + np.abs(weights).max()):
            break
    return weights


def _loss(
    x: NDArray[np.float64], label: NDArray[np.float64], ridge: Floats, weights: NDArray[np.float64]
) -> float:
    log_odds = x @ weights
    unlikely = np.logaddexp(0, log_odds) - label * log_odds
    return float(unlikely.sum() + 0.5 * (ridge * weights**2).sum())
