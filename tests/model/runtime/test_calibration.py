"""Probabilities of hits: the formula written out, their order, and what is not known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from model.runtime.bundle.manifest import FeatureWeight, ScoreCalibration
from model.runtime.calibration import (
    SearchEvidence,
    background_of,
    levels,
    probabilities,
    score_rise,
)
from tests.support.toy_calibration import toy_score_calibration

EVIDENCE = SearchEvidence(background=-0.05, familiarity=0.45)


USUAL = FeatureWeight(weight=-0.7, offset=0.25, scale=0.05)


def naive_probability(
    calibration: ScoreCalibration,
    score: float,
    best: float,
    background: float,
    familiarity: float,
    usual: float | None = None,
) -> float:
    """The sum of the features, one by one."""
    features = {
        "score": score,
        "best": best,
        "background": background,
        "familiarity": familiarity,
        "strangeness": calibration.strange_below - familiarity
        if familiarity < calibration.strange_below
        else 0.0,
    }
    if usual is not None:
        features["usual"] = usual
    total = calibration.bias
    for name, value in features.items():
        feature = getattr(calibration, name)
        total += feature.weight * (value - feature.offset) / feature.scale
    return 1 / (1 + math.exp(-total))


@pytest.mark.parametrize("familiarity", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("best", [None, 0.6])
@pytest.mark.parametrize("usual", [None, 0.2, 0.33])
def test_a_probability_is_the_logistic_of_the_features(
    familiarity: float, best: float | None, usual: float | None
) -> None:
    calibration = toy_score_calibration().model_copy(update={"usual": USUAL})
    scores = np.array([0.5, 0.31, 0.12, -0.4], np.float32)
    found = probabilities(calibration, scores, SearchEvidence(-0.05, familiarity, usual), best)
    assert found.dtype == np.float64
    for score, probability in zip(scores.tolist(), found, strict=True):
        highest = 0.5 if best is None else best
        expected = naive_probability(calibration, score, highest, -0.05, familiarity, usual)
        assert probability == pytest.approx(expected, rel=1e-9)


def test_a_better_score_is_never_less_probable() -> None:
    scores = np.random.default_rng(0).normal(0.2, 0.2, 300)
    found = probabilities(toy_score_calibration(), scores, EVIDENCE)
    order = np.argsort(scores)
    assert (np.diff(found[order]) > 0).all()
    equal = probabilities(toy_score_calibration(), np.array([0.3, 0.3, 0.2]), EVIDENCE)
    assert equal[0] == equal[1]


def test_a_rise_of_the_score_gives_the_other_probability() -> None:
    calibration = toy_score_calibration()
    scores = np.array([0.1, 0.2, 0.3])
    before = probabilities(calibration, scores, EVIDENCE, best=0.5)
    after = np.array([0.5, 0.001, 0.95])
    rise = score_rise(calibration, before, after)
    assert probabilities(calibration, scores + rise, EVIDENCE, best=0.5) == pytest.approx(after)
    even = score_rise(calibration, np.full(3, 0.5), after)
    assert score_rise(calibration, None, after) == pytest.approx(even)
    # Certainty is bounded, so that a rise has a value.
    assert np.isfinite(score_rise(calibration, np.array([0.0, 1.0]), np.array([1.0, 0.0]))).all()


def test_hits_do_not_depend_on_the_others_beside_the_best() -> None:
    """Several scenes that show the query do not share its probability; a page is as its whole ranking."""
    scores = np.array([0.5, 0.49, 0.49, 0.1])
    whole = probabilities(toy_score_calibration(), scores, EVIDENCE)
    np.testing.assert_array_equal(probabilities(toy_score_calibration(), scores[:1], EVIDENCE), whole[:1])
    np.testing.assert_array_equal(
        probabilities(toy_score_calibration(), scores[2:], EVIDENCE, 0.5), whole[2:]
    )


def test_what_is_not_known_counts_as_usual() -> None:
    calibration, scores = toy_score_calibration(), np.array([0.4, 0.1])
    unknown = probabilities(calibration, scores, SearchEvidence(None, 0.7))
    usual = probabilities(calibration, scores, SearchEvidence(calibration.background.offset, 0.7))
    np.testing.assert_array_equal(unknown, usual)
    neither = probabilities(calibration, scores, SearchEvidence(None, None))
    for score, probability in zip(scores, neither, strict=True):
        total = -1.5 + 3 * (score - 0.2) / 0.1 - (0.4 - 0.25) / 0.125
        assert probability == pytest.approx(1 / (1 + math.exp(-total)))


def test_extreme_scores_have_probabilities_too() -> None:
    with np.errstate(all="raise"):
        found = probabilities(toy_score_calibration(), np.array([1e6, 0.0, -1e6]), EVIDENCE, best=0.3)
    assert found[0] == pytest.approx(1)
    assert 0 <= found[2] < 1e-300


def test_no_hits() -> None:
    assert probabilities(toy_score_calibration(), np.empty(0), EVIDENCE).shape == (0,)


@pytest.mark.parametrize(
    ("scores", "evidence", "best"),
    [
        ([0.1, math.nan], EVIDENCE, None),
        ([0.1, 0.2], SearchEvidence(math.inf, 0.5), None),
        ([0.1, 0.2], SearchEvidence(0.1, math.nan), None),
        ([0.1, 0.2], SearchEvidence(0.1, 0.5, math.nan), None),
        ([0.1, 0.2], EVIDENCE, math.inf),
    ],
)
def test_values_that_are_not_finite(
    scores: list[float], evidence: SearchEvidence, best: float | None
) -> None:
    with pytest.raises(ValueError, match="not finite"):
        probabilities(toy_score_calibration(), np.array(scores), evidence, best)


def test_wrong_shapes() -> None:
    with pytest.raises(ValueError, match=r"scores of shape \[1, 2\]: pass \[K\]"):
        probabilities(toy_score_calibration(), np.zeros((1, 2)), EVIDENCE)
    with pytest.raises(ValueError, match=r"first_stage_scores of shape \[1, 2\]: pass \[K\]"):
        background_of(np.zeros((1, 2)))


@pytest.mark.parametrize("count", [0, 1, 20, 21, 75, 100, 500])
def test_the_background_is_the_mean_of_the_ranks_21_to_100(count: int) -> None:
    scores = np.sort(np.random.default_rng(count).normal(size=count).astype(np.float32))[::-1]
    far = [float(score) for rank, score in enumerate(scores, 1) if 21 <= rank <= 100]
    found = background_of(scores)
    if not far:
        assert found is None
    else:
        assert found == pytest.approx(sum(far) / len(far), abs=1e-6)


def test_levels() -> None:
    calibration = toy_score_calibration()
    found = levels(calibration, np.array([1.0, 0.4, 0.3999, 0.1, 0.0999, 0.0]))
    assert found == ["high", "high", "medium", "medium", "low", "low"]
