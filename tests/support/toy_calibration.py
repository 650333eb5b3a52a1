"""Calibrations with round numbers."""

from __future__ import annotations

from typing import Any

from model.runtime.bundle.manifest import Calibration, FeatureWeight, ScoreCalibration


def toy_score_calibration(**changes: Any) -> ScoreCalibration:
    """A calibration of one kind of score; `changes` are other values of its fields."""
    values: dict[str, Any] = {
        "bias": -1.5,
        "score": FeatureWeight(weight=3.0, offset=0.2, scale=0.1),
        "best": FeatureWeight(weight=-1.0, offset=0.25, scale=0.125),
        "background": FeatureWeight(weight=-0.75, offset=0.0, scale=0.1),
        "familiarity": FeatureWeight(weight=-0.5, offset=0.6, scale=0.1),
        "strangeness": FeatureWeight(weight=-1.25, offset=0.02, scale=0.05),
        "strange_below": 0.5,
        "medium": 0.1,
        "high": 0.4,
    }
    return ScoreCalibration(**(values | changes))


def toy_calibration() -> Calibration:
    """Two calibrations that differ."""
    return Calibration(first_stage=toy_score_calibration(), final=toy_score_calibration(bias=-2.0))
