"""From scores to probabilities that what was found shows the query.

A score alone does not say that: how high it must be depends on the query and on the library. So the log-odds
are a weighted sum of features, which are cheap in a library of any size:

    score         of the hit: the first stage's, or the final one after re-ranking
    best          the best score of this search: a hit far below it is rarely right
    background    the first stage's mean score at the ranks 21 to 100: what this library gives for this query
                  where nothing shows it
    familiarity   the query's mean cosine with the reference texts nearest to it
    strangeness   how far the familiarity is below that of almost all real queries; 0 for these
    usual         the query's mean cosine with the reference images nearest to it: what it finds in pictures
                  that nobody searches; only where the bundle has such images

The score's weight is positive, so that within a search a better score never has a lower probability.
`reelfind-model calibrate` fits the weights, separately for the two scores.

Shapes: K hits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from model.runtime.bundle.manifest import FeatureWeight, ScoreCalibration

#: How likely a hit shows the query, in words.
Level = Literal["high", "medium", "low"]
LEVELS: tuple[Level, ...] = get_args(Level)
#: The ranks of the background, from 0, the last one excluded. A search should retrieve so many segments.
BACKGROUND_RANKS = (20, 100)


@dataclass(frozen=True)
class SearchEvidence:
    """What a search knows of its query and library beyond the scores of its hits.

    Attributes:
        background: see `background_of`; None: the library is too small to have one.
        familiarity: `Bundle.hubness` of the query's embedding; None: the bundle has no reference texts.
        usual: `ReferenceImages.usual` of the query's embedding; None: the bundle has none.
    """

    background: float | None
    familiarity: float | None
    usual: float | None = None


def background_of(first_stage_scores: NDArray[np.floating]) -> float | None:
    """The mean score at the ranks 21 to 100, or as many of them as there are; None: there are at most 20.

    Args:
        first_stage_scores: of the retrieved segments, best first, shape [K].

    Raises:
        ValueError: the shape is another.
    """
    if first_stage_scores.ndim != 1:
        raise ValueError(f"first_stage_scores of shape {list(first_stage_scores.shape)}: pass [K]")
    far = first_stage_scores[slice(*BACKGROUND_RANKS)]
    return float(far.mean(dtype=np.float64)) if len(far) else None


def probabilities(
    calibration: ScoreCalibration,
    scores: NDArray[np.floating],
    evidence: SearchEvidence,
    best: float | None = None,
) -> NDArray[np.float64]:
    """The probability that each hit shows the query, float64 [K].

    Args:
        calibration: of the kind of the scores: the bundle's `first_stage` where nothing was re-ranked, else
            its `final`.
        scores: of the hits, shape [K].
        evidence: of the search.
        best: the best score of the search; None: the best of `scores`.

    Raises:
        ValueError: the scores have another shape, or a value is not finite.
    """
    if scores.ndim != 1:
        raise ValueError(f"scores of shape {list(scores.shape)}: pass [K]")
    if not len(scores):
        return np.empty(0)
    values = scores.astype(np.float64)
    highest = float(values.max()) if best is None else best
    features = (evidence.background, evidence.familiarity, evidence.usual)
    known = [value for value in features if value is not None]
    if not np.isfinite([*values, highest, *known]).all():
        raise ValueError("a score or a feature of the search is not finite: leave damaged segments out")
    c, familiarity = calibration, evidence.familiarity
    log_odds = c.bias + _term(c.best, highest) + _term(c.background, evidence.background)
    log_odds += _term(c.familiarity, familiarity)
    log_odds += _term(c.strangeness, strangeness_of(familiarity, c.strange_below))
    log_odds += 0.0 if c.usual is None else _term(c.usual, evidence.usual)
    of_score = c.score.weight * (values - c.score.offset) / c.score.scale
    # Beyond these limits the exponential has no value in double precision.
    result: NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(log_odds + of_score, -700.0, 700.0)))
    return result


def score_rise(
    calibration: ScoreCalibration, before: NDArray[np.floating] | None, after: NDArray[np.floating]
) -> NDArray[np.float64]:
    """How much higher the score of each hit must be for another probability, float64 [K].

    Args:
        calibration: of the kind of the scores.
        before: the probabilities by the scores, shape [K]; None: the rise is from a probability of a half.
        after: the other probabilities, shape [K].
    """
    slope = calibration.score.weight / calibration.score.scale
    start = 0.0 if before is None else _log_odds(before)
    rise: NDArray[np.float64] = (_log_odds(after) - start) / slope
    return rise


def _log_odds(probability: NDArray[np.floating]) -> NDArray[np.float64]:
    kept = np.clip(probability.astype(np.float64), 1e-12, 1 - 1e-12)
    return np.log(kept) - np.log1p(-kept)


def strangeness_of(familiarity: float | None, strange_below: float) -> float | None:
    """How far a query's familiarity is below a limit; 0 above it."""
    return None if familiarity is None else max(0.0, strange_below - familiarity)


def levels(calibration: ScoreCalibration, probability: NDArray[np.floating]) -> list[Level]:
    """The level of each hit. Where none is at least medium, the hits are best guesses. [K] → K levels."""
    c = calibration
    return ["high" if p >= c.high else "medium" if p >= c.medium else "low" for p in probability.tolist()]


def _term(feature: FeatureWeight, value: float | None) -> float:
    """What a feature adds to the log-odds; one that is not known adds nothing."""
    return 0.0 if value is None else feature.weight * (value - feature.offset) / feature.scale
