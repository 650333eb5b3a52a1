"""How well probabilities tell right hits from wrong ones, and how true they are.

Shapes: S searches, P positive and N negative ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.arrays import Floats
from model.evaluation.calibrating import NONSENSE, Observed, Searches, first_hits
from model.runtime.bundle.manifest import Calibration, ScoreCalibration

_BINS = 10


def auroc(positive: Floats, negative: Floats) -> float:
    """The share of pairs of a positive and a negative in which the positive is higher; ties count half.

    The area under the receiver operating characteristic; NaN without any pair. Shapes [P], [N].
    """
    if not len(positive) or not len(negative):
        return float("nan")
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    not_above = np.searchsorted(ordered, positive, side="right")
    return float((below + not_above).mean() / (2 * len(negative)))


def calibration_error(probability: Floats, right: NDArray[np.bool_]) -> float:
    """The expected calibration error: how far the mean probability is from the share of right ones, by bins.

    The mean over ten bins of equal width, weighted by how many are in each; NaN without any. Shapes [S], [S].
    """
    if not len(probability):
        return float("nan")
    bins = np.minimum((probability * _BINS).astype(np.int64), _BINS - 1)
    off = np.bincount(bins, probability - right, _BINS)
    return float(np.abs(off).sum() / len(probability))


def calibration_figures(calibration: ScoreCalibration, searches: Searches) -> dict[str, Any]:
    """Figures of the first hits of some searches.

    Returns:
        `n`, the searches of each kind, and of "right" ones: captions whose first hit is their own item;
        `auroc`, present against absent, against all nonsense and each kind of it; `calibration_error` of
        captions, and of present ones with all nonsense; `medium` and `high`, the shares of right, present and
        absent captions and of nonsense that reach the level.
    """
    probability = first_hits(calibration, searches)
    right = searches.right[:, 0]
    kinds = {name: searches.kind == name for name in ("present", "absent", *NONSENSE)}
    present, absent = kinds["present"], kinds["absent"]
    kinds |= {"nonsense": ~(present | absent), "right": present & right}
    against = ("absent", "nonsense", *NONSENSE)

    def error(which: NDArray[np.bool_]) -> float:
        return calibration_error(probability[which], right[which])

    def reach(threshold: float) -> dict[str, float]:
        return {
            name: float((probability[which] >= threshold).mean()) if which.any() else float("nan")
            for name, which in kinds.items()
        }

    return {
        "n": {name: int(which.sum()) for name, which in kinds.items()},
        "auroc": {name: auroc(probability[present], probability[kinds[name]]) for name in against},
        "calibration_error": {
            "absent": error(present | absent),
            "nonsense": error(present | kinds["nonsense"]),
        },
        "medium": reach(calibration.medium),
        "high": reach(calibration.high),
    }


def figures_of_both(calibration: Calibration, observed: Observed) -> dict[str, Any]:
    """`calibration_figures` by the first stage's scores, and by the final ones where there are any."""
    figures = {"first_stage": calibration_figures(calibration.first_stage, observed.first_stage)}
    if calibration.final is not None and observed.final is not None:
        figures["final"] = calibration_figures(calibration.final, observed.final)
    return figures


def calibration_table(result: Mapping[str, Any]) -> str:
    """The figures of `calibrate` to read: a line for each set and kind of score."""
    lines = [
        "first hits of captions whose item is in the library (present) or was removed, and of nonsense",
        f"{'':32}{'AUROC, present against':^40}{'calibration error':^20}{'share from medium on':^34}",
        f"{'':32}"
        + "".join(f"{name:>8}" for name in ("absent", *NONSENSE, "all"))
        + "".join(f"{name:>10}" for name in ("absent", "nonsense"))
        + "".join(f"{name:>10}" for name in ("right", "absent", "nonsense")),
    ]
    for title, by_score in result["figures"].items():
        lines.append(title)
        for score, figures in by_score.items():
            area, error, medium = figures["auroc"], figures["calibration_error"], figures["medium"]
            cells = [f"{area[name]:8.3f}" for name in ("absent", *NONSENSE, "nonsense")]
            cells += [f"{error[name]:10.3f}" for name in ("absent", "nonsense")]
            cells += [f"{100 * medium[name]:8.1f} %" for name in ("right", "absent", "nonsense")]
            n = figures["n"]
            lines.append(f"  {score.replace('_', ' '):30}" + "".join(cells))
            lines.append(
                f"    {n['present']:,} present, {n['absent']:,} absent, {n['nonsense']:,} nonsense; "
                f"{n['right']:,} right"
            )
    for score, calibration in result["calibration"].items():
        if calibration is not None:
            lines.append(
                f"{score.replace('_', ' ')}: medium from {calibration['medium']:.4f} on, high from "
                f"{calibration['high']:.4f} on"
            )
    return "\n".join(lines)
