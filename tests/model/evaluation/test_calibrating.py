"""Calibrations: what the searches that they are fitted on really found, known weights, and the figures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")

from model.evaluation.calibrating import (
    NONSENSE,
    Observed,
    Searches,
    first_hits,
    fit,
    fit_calibration,
    measurement_with_nonsense,
    observe,
)
from model.evaluation.calibration_figures import auroc, calibration_error, calibration_figures
from model.evaluation.corpus import Corpus, Texts
from model.evaluation.encoders import BundleEncoder
from model.evaluation.measure import Measurement, Options
from model.evaluation.nonsense import nonsense_texts
from model.runtime.bundle import Bundle, HubnessCorrection
from model.runtime.bundle.manifest import SalienceMatch
from model.runtime.bundle.references import ReferenceImages
from model.runtime.errors import InputError
from tests.support import toy_bundle as toy
from tests.support.tiny_photos import make_photos
from tests.support.toy_calibration import toy_score_calibration

ITEMS, CAPTIONS, OTHERS, SLOTS, WIDTH = 60, 2, 30, 3, 12
LAMBDA, MATCH = 1.5, SalienceMatch(scale=4, bias=-1)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> BundleEncoder:
    return BundleEncoder(
        Bundle.open(toy.make_toy_bundle(tmp_path_factory.mktemp("toy") / "bundle"), threads=1)
    )


class World:
    """Random segments, captions near their own one, and nonsense that is near none; frames near segments."""

    def __init__(self, encoder: BundleEncoder, rerank: bool = True, hubness: bool = True) -> None:
        rng = np.random.default_rng(3)
        segments = toy.unit(rng.normal(size=(ITEMS, WIDTH)))
        self.target = np.concatenate([np.repeat(np.arange(ITEMS), CAPTIONS), np.full(OTHERS, -1)])
        captions = toy.unit(segments[self.target[: ITEMS * CAPTIONS]] + rng.normal(0, 0.25, (120, WIDTH)))
        others = toy.unit(rng.normal(size=(OTHERS, WIDTH)))
        frames = toy.unit(np.repeat(segments, SLOTS, axis=0) + rng.normal(0, 0.2, (ITEMS * SLOTS, WIDTH)))
        self.kind = np.array(["caption"] * 120 + [NONSENSE[row % 3] for row in range(OTHERS)])
        self.texts = np.concatenate([captions, others]).astype(np.float32)
        self.frames = frames.astype(np.float32)
        self.references = toy.unit(rng.normal(size=(25, WIDTH)))
        correction = HubnessCorrection(0.5, 10, self.references) if hubness else None
        corpus = Corpus(
            segments.astype(np.float32),
            np.arange(ITEMS),
            np.arange(ITEMS * SLOTS).reshape(ITEMS, SLOTS),
            np.full(ITEMS, SLOTS),
            self.frames,
            None,
        )
        options = Options(
            rerank=rerank,
            match="salience",
            salience_match=MATCH,
            num_candidates=30,
            num_salient_frames=2,
            ensemble_lambda=LAMBDA,
            hubness=correction,
        )
        texts = Texts(self.texts, self.texts, ())
        self.measurement = Measurement(encoder, texts, corpus, self.target, options)
        # Not rounded: each pair has a similarity of its own.
        similarity = self.texts.astype(np.float64) @ corpus.embedding.T.astype(np.float64)
        if correction is not None:
            similarity -= 0.5 * correction.of(corpus.embedding)
        self.measurement.similarity = similarity  # type: ignore[assignment]

    def naive_final(self, text: int, segment: int) -> float:
        """The mean relevance of the two most relevant frames, as log-odds, plus the similarity's share."""
        frames = self.frames[segment * SLOTS : (segment + 1) * SLOTS] @ self.texts[text]
        match = MATCH.scale * float(np.sort(frames)[::-1][:2].mean()) + MATCH.bias
        return match + LAMBDA * float(self.measurement.similarity[text, segment])


def pair_of(table: NDArray[np.floating], value: float) -> tuple[int, int]:
    """Where a table has a value, which no other of its cells has."""
    rows, columns = np.nonzero(table == value)
    assert len(rows) == 1
    return int(rows[0]), int(columns[0])


@pytest.fixture(scope="module")
def world(encoder: BundleEncoder) -> World:
    return World(encoder)


@pytest.fixture(scope="module")
def observed(world: World) -> Observed:
    return observe(world.measurement, world.kind, draws=2, seed=5)


def test_searches_are_those_of_libraries(world: World, observed: Observed) -> None:
    found, similarity = observed.first_stage, world.measurement.similarity
    best_anywhere = similarity.argmax(axis=1)
    familiarity = [float(np.sort(world.references @ text)[::-1][:10].mean()) for text in world.texts]
    seen = {"present": 0, "absent": 0}
    for row in range(len(found)):
        text, first = pair_of(similarity, found.score[row, 0])
        kind, own = str(found.kind[row]), int(world.target[text])
        hits = [int(np.argmin(np.abs(similarity[text] - score))) for score in found.score[row]]
        assert hits[0] == first
        assert (np.diff(found.score[row]) < 0).all()
        assert found.right[row].tolist() == [hit == own for hit in hits]
        assert found.familiarity[row] == pytest.approx(familiarity[text], abs=1e-6)
        if kind in seen:
            seen[kind] += 1
            # The text's own item is among the segments or not: where it is the nearest of all, it is first.
            if best_anywhere[text] == own:
                assert found.right[row, 0] == (kind == "present")
            if kind == "absent":
                assert not found.right[row].any()
        else:
            assert kind == world.kind[text]
            assert not found.right[row].any()
    # Libraries of 30 and of 54 items, twice each: as many captions of the one kind as of the other.
    assert seen == {"present": 2 * (60 + 12), "absent": 2 * (60 + 12)}
    # There are ten texts of each kind of nonsense.
    assert (found.kind == "letters").sum() == 2 * (10 + 8)
    assert (found.kind == "words").sum() == 2 * (10 + 2)


def test_the_background_is_that_of_the_library(world: World) -> None:
    """All of the library but the 20 nearest segments, which here are known: nine tenths of the items."""
    found = observe(world.measurement, world.kind, draws=1, seed=2).first_stage
    similarity = world.measurement.similarity
    for row in np.flatnonzero(found.kind == "present")[-10:]:
        text, _ = pair_of(similarity, found.score[row, 0])
        everything = np.sort(similarity[text])[::-1]
        # Six of the sixty items are missing, anywhere.
        assert everything[26:].mean() - 1e-9 <= found.background[row] <= everything[20:54].mean() + 1e-9


def test_the_final_scores_order_the_candidates_anew(world: World, observed: Observed) -> None:
    assert observed.final is not None
    final, first = observed.final, observed.first_stage
    assert final.kind.tolist() == first.kind.tolist()
    np.testing.assert_array_equal(final.background, first.background)
    moved = 0
    similarity = world.measurement.similarity
    for row in range(0, len(final), 7):
        text, nearest = pair_of(similarity, first.score[row, 0])
        naive = np.array([world.naive_final(text, segment) for segment in range(ITEMS)])
        hits = [int(np.argmin(np.abs(naive - score))) for score in final.score[row]]
        np.testing.assert_allclose(naive[hits], final.score[row], atol=2e-4)
        assert final.right[row].tolist() == [hit == world.target[text] for hit in hits]
        assert final.score[row, 0] >= naive[nearest] - 2e-4
        moved += hits[0] != nearest
    assert moved


def test_without_re_ranking_and_reference_texts(encoder: BundleEncoder) -> None:
    plain = World(encoder, rerank=False, hubness=False)
    found = observe(plain.measurement, plain.kind, draws=1)
    assert found.final is None
    assert np.isnan(found.first_stage.familiarity).all()
    calibration = fit_calibration([found])
    assert calibration.final is None
    assert calibration.first_stage.familiarity.weight == calibration.first_stage.strangeness.weight == 0
    assert np.isfinite(first_hits(calibration.first_stage, found.first_stage)).all()


def test_queries_are_compared_with_reference_images(world: World) -> None:
    images = toy.unit(np.random.default_rng(3).normal(size=(25, world.references.shape[1])))
    references = ReferenceImages.of(images, images.shape[1])
    found = observe(world.measurement, world.kind, draws=1, seed=2, reference_images=references).first_stage
    for row in range(0, len(found), 5):
        text, _ = pair_of(world.measurement.similarity, found.score[row, 0])
        nearest = sorted((float(image @ world.texts[text]) for image in images), reverse=True)[:10]
        assert found.usual[row] == pytest.approx(sum(nearest) / 10, abs=1e-5)
    assert fit(found).usual is not None
    without = observe(world.measurement, world.kind, draws=1, seed=2).first_stage
    assert np.isnan(without.usual).all()
    assert fit(without).usual is None


def test_the_same_seed_draws_the_same(world: World, observed: Observed) -> None:
    again, other = (observe(world.measurement, world.kind, draws=2, seed=seed) for seed in (5, 6))
    np.testing.assert_array_equal(again.first_stage.score, observed.first_stage.score)
    assert not np.array_equal(other.first_stage.score, observed.first_stage.score)


def searches_by(weights: list[float], bias: float, count: int = 6000, seed: int = 0) -> Searches:
    """Searches whose hits are right with the probabilities of these weights of the features."""
    rng = np.random.default_rng(seed)
    score = -np.sort(-rng.normal(0.3, 0.1, (count, 5)), axis=1)
    background, familiarity, usual = (rng.normal(mean, 0.1, count) for mean in (0.0, 0.6, 0.3))
    strange_below = float(np.quantile(familiarity, 0.05))
    features = [
        score,
        np.repeat(score[:, :1], 5, axis=1),
        np.repeat(background[:, None], 5, axis=1),
        np.repeat(familiarity[:, None], 5, axis=1),
        np.repeat(np.maximum(0, strange_below - familiarity)[:, None], 5, axis=1),
        np.repeat(usual[:, None], 5, axis=1),
    ]
    log_odds = bias + sum(w * values for w, values in zip(weights, features, strict=False))
    right = rng.random((count, 5)) < 1 / (1 + np.exp(-log_odds))
    kind = np.array(["present", "absent"] * (count // 2))
    return Searches(kind, score, right, background, familiarity, usual)


def test_the_fit_recovers_known_weights() -> None:
    weights, bias = [12.0, -4.0, -5.0, -3.0, -8.0, -6.0], 0.8
    searches = searches_by(weights, bias, 20_000)
    found = fit(searches)
    names = ["score", "best", "background", "familiarity", "strangeness", "usual"]
    per_unit = [getattr(found, name).weight / getattr(found, name).scale for name in names]
    np.testing.assert_allclose([*per_unit[:4], per_unit[5]], [*weights[:4], weights[5]], rtol=0.12)
    assert per_unit[4] == pytest.approx(weights[4], abs=6)
    offsets = [getattr(found, name).offset for name in names]
    assert found.bias - np.dot(per_unit, offsets) == pytest.approx(bias, abs=0.35)
    assert calibration_error(first_hits(found, searches), searches.right[:, 0]) < 0.02


def test_the_levels_are_where_the_rule_says() -> None:
    searches = searches_by([25.0, -4.0, -5.0, -3.0, -8.0], -8.0)
    found = fit(searches)
    probability, right = first_hits(found, searches), searches.right[:, 0]
    assert (probability[right] >= found.medium).mean() == pytest.approx(0.9, abs=0.01)
    assert right[probability >= found.high].mean() == pytest.approx(2 / 3, abs=0.01)
    assert 0 < found.medium < found.high < 1
    # Where two of three are right from "medium" on, these are "high".
    strong = fit(searches_by([25.0, -4.0, -5.0, -3.0, -8.0], -4.0))
    assert strong.high == strong.medium
    # Where right hits are rare at any probability, none is high.
    assert fit(searches_by([2.0, 0.0, 0.0, 0.0, 0.0], -4.0)).high == 1


def test_scores_that_say_nothing_are_refused() -> None:
    searches = searches_by([-12.0, 0.0, 0.0, 0.0, 0.0], 2.0)
    with pytest.raises(InputError, match="hits with better scores are less often right: train the model"):
        fit(searches)
    never = replace(searches, right=searches.right & False)
    with pytest.raises(InputError, match="no caption's own item is among the first hits"):
        fit(never)


def test_figures_are_those_of_loops() -> None:
    rng = np.random.default_rng(1)
    positive, negative = rng.integers(0, 12, 70) / 12, rng.integers(0, 9, 50) / 12
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert auroc(positive, negative) == pytest.approx(sum(pairs) / len(pairs))
    assert np.isnan(auroc(positive, np.empty(0)))
    probability, right = rng.random(500), rng.random(500) < 0.3
    probability[0] = 1.0
    error = 0.0
    for place in range(10):
        inside = [i for i in range(500) if min(9, int(probability[i] * 10)) == place]
        if inside:
            error += abs(sum(probability[i] for i in inside) - sum(right[i] for i in inside)) / 500
    assert calibration_error(probability, right) == pytest.approx(error)
    assert np.isnan(calibration_error(np.empty(0), np.empty(0, np.bool_)))


def test_figures_of_searches() -> None:
    calibration = toy_score_calibration()
    kind = np.array(["present", "present", "present", "absent", "absent", "letters", "scripts"])
    score = np.array([0.4, 0.3, 0.1, 0.3, 0.0, -0.2, -0.3])[:, None]
    right = np.array([True, True, False, False, False, False, False])[:, None]
    searches = Searches(kind, score, right, *(np.full(7, np.nan) for _ in range(3)))
    figures = calibration_figures(calibration, searches)
    assert figures["n"] == {
        "present": 3,
        "absent": 2,
        "letters": 1,
        "words": 0,
        "scripts": 1,
        "nonsense": 2,
        "right": 2,
    }
    assert figures["auroc"]["absent"] == pytest.approx((2 + 1.5 + 1) / 6)
    assert figures["auroc"]["nonsense"] == figures["auroc"]["letters"] == 1
    assert np.isnan(figures["auroc"]["words"])
    probability = first_hits(calibration, searches)
    assert figures["medium"]["absent"] == np.mean([p >= 0.1 for p in probability[3:5]])
    assert figures["high"]["right"] == np.mean([p >= 0.4 for p in probability[:2]])
    assert figures["calibration_error"]["absent"] == calibration_error(probability[:5], right[:5, 0])


def test_nonsense() -> None:
    captions = ["a red dog runs", "two cats sleep"]
    found = nonsense_texts(captions, 60, seed=4)
    assert tuple(found) == NONSENSE
    assert found == nonsense_texts(captions, 60, seed=4)
    assert found != nonsense_texts(captions, 60, seed=5)
    assert all(len(texts) == 60 for texts in found.values())
    words = {word for caption in captions for word in caption.split()}
    assert {word for text in found["words"] for word in text.split()} == words
    for text in found["letters"]:
        assert text.replace(" ", "").isascii()
        assert all(2 <= len(word) <= 8 for word in text.split())
    for text in found["scripts"]:
        assert not any(letter.isascii() for letter in text.replace(" ", ""))
    with pytest.raises(ValueError, match="the captions hold no word"):
        nonsense_texts([" "], 1)


def test_captions_and_nonsense_are_encoded_together(encoder: BundleEncoder, tmp_path: Path) -> None:
    from model.data.stills import read_stills

    photos = read_stills(make_photos(tmp_path / "photos"), "val")
    measurement, kind = measurement_with_nonsense(encoder, photos, Options())
    assert measurement.target.tolist() == [*np.repeat(np.arange(24), 2), *[-1] * 900]
    assert kind.tolist() == ["caption"] * 48 + ["letters"] * 300 + ["words"] * 300 + ["scripts"] * 300
    np.testing.assert_allclose(
        measurement.texts.embedding[:2], [toy.text_embedding(text) for text in photos.captions[0]], atol=1e-5
    )
    assert measurement.similarity.shape == (948, 24)
    with pytest.raises(InputError, match=r"split val has 7 items: probabilities need 8"):
        measurement_with_nonsense(encoder, photos.first(7), Options())
