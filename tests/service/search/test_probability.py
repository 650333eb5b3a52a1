"""Probabilities of hits: against the formula in plain Python, in process and over HTTP."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from model.runtime.bundle.manifest import Calibration, FeatureWeight, ScoreCalibration
from model.runtime.bundle.references import ReferenceImages
from service.errors import QueryError
from service.search.results import Hit, SearchResult
from service.search.searcher import Searcher, SearchOptions
from service.search.texts import Modalities
from tests.service.search.test_hubness import searcher_of
from tests.service.search.test_texts import spoken_library
from tests.support.command_line import invoke
from tests.support.server import Server
from tests.support.toy_bundle import text_embedding
from tests.support.toy_library import ToyLibrary, make_library

ABSENT = FeatureWeight(weight=0.0, offset=0.0, scale=1.0)


def calibration(weight: float, offset: float) -> ScoreCalibration:
    return ScoreCalibration(
        bias=-0.5,
        score=FeatureWeight(weight=weight, offset=offset, scale=0.5),
        best=FeatureWeight(weight=1.0, offset=offset, scale=2.0),
        background=ABSENT,
        familiarity=ABSENT,
        strangeness=ABSENT,
        strange_below=0.0,
        medium=0.4,
        high=0.8,
    )


FIRST, FINAL = calibration(1.0, 0.5), calibration(0.75, 2.0)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    both = Calibration(first_stage=FIRST, final=FINAL)
    return spoken_library(tmp_path_factory.mktemp("probable"), calibration=both)


def ask(searcher: Searcher, text: str, **options: Any) -> SearchResult:
    return searcher.search(text, 10, SearchOptions(**{"group_by": "moment", "explain": True, **options}))


def expected(hits: list[Hit], fitted: ScoreCalibration) -> list[float]:
    """Of hits without text: the logistic function of two features."""
    best = max(hit.score for hit in hits)
    return [
        1
        / (
            1
            + math.exp(
                -fitted.bias
                - fitted.score.weight * (hit.score - fitted.score.offset) / fitted.score.scale
                - (best - fitted.best.offset) / fitted.best.scale
            )
        )
        for hit in hits
    ]


@pytest.mark.parametrize("rerank", [True, False])
def test_probabilities_are_those_of_the_formula(searcher: Searcher, rerank: bool) -> None:
    only_pictures = Modalities(speech=0, name=0)
    for text in ("red", "black", "green and blue"):
        hits = ask(searcher, text, rerank=rerank, modalities=only_pictures).hits
        fitted = FINAL if rerank else FIRST
        found = [hit.probability for hit in hits]
        assert found == pytest.approx(expected(hits, fitted), abs=1e-3)
        for hit in hits:
            assert hit.probability is not None
            level = "high" if hit.probability >= 0.8 else "medium" if hit.probability >= 0.4 else "low"
            assert hit.level == level


def test_what_a_query_finds_in_reference_images_counts(tmp_path: Path) -> None:
    """A bundle's images are red: a query is less likely to be right as far as it is near to red."""
    usual = FeatureWeight(weight=-2.0, offset=0.1, scale=0.3)
    images = ReferenceImages.of(text_embedding("red")[None].repeat(12, axis=0), 1)
    both = Calibration(first_stage=FIRST.model_copy(update={"usual": usual}), final=FINAL)
    searcher = searcher_of(spoken_library(tmp_path, calibration=both, reference_images=images))
    pictures = Modalities(speech=0, name=0)
    for text in ("red", "black", "green and blue"):
        near = float(text_embedding(text) @ text_embedding("red"))
        shift = FIRST.bias - 2.0 * (near - 0.1) / 0.3
        hits = ask(searcher, text, rerank=False, modalities=pictures).hits
        found = [hit.probability for hit in hits]
        shifted = FIRST.model_copy(update={"bias": shift})
        assert found == pytest.approx(expected(hits, shifted), abs=2e-3)


def test_a_line_makes_a_moment_likely(searcher: Searcher) -> None:
    without = ask(searcher, "red balloon", modalities=Modalities(speech=0, name=0)).hits
    with_lines = ask(searcher, "red balloon").hits
    said = next(hit for hit in with_lines if hit.text_matches)
    assert said.probability is not None
    assert said.probability >= 0.9
    assert said.level == "high"
    alone = ask(searcher, "red balloon", modalities=Modalities(visual=0)).hits
    assert [hit.probability for hit in alone] == [pytest.approx(0.9)]
    assert all(hit.probability is not None for hit in without)


@pytest.mark.parametrize("rerank", [False, True])
@pytest.mark.parametrize(
    "weights",
    [
        Modalities(),
        Modalities(speech=3.0, name=1.0),
        Modalities(speech=0.25),
        Modalities(visual=0.0),
    ],
)
def test_the_order_is_that_of_the_probabilities(
    searcher: Searcher, rerank: bool, weights: Modalities
) -> None:
    for text in ("red balloon", "black elephant sings", "harbour festival", "green"):
        hits = ask(searcher, text, rerank=rerank, modalities=weights).hits
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        values = [hit.probability or 0.0 for hit in hits]
        assert values == pytest.approx(sorted(values, reverse=True), abs=1e-4)


def test_a_line_adds_what_as_likely_pictures_would_have(searcher: Searcher) -> None:
    hits = ask(searcher, "red balloon", rerank=False).hits
    (first, *_) = [hit for hit in hits if hit.text_matches]
    assert first.explanation is not None
    visual = first.score - first.explanation.text_term
    best = max(hit.score - (hit.explanation.text_term if hit.explanation else 0.0) for hit in hits)
    slope = FIRST.score.weight / FIRST.score.scale
    other = FIRST.bias + FIRST.best.weight * (best - FIRST.best.offset) / FIRST.best.scale
    shown = 1 / (1 + math.exp(-other - slope * (visual - FIRST.score.offset)))
    coverage = max(line.coverage for line in first.text_matches)
    likely = 1 - (1 - shown) * (1 - 0.9 * coverage**3)
    assert first.probability == pytest.approx(likely, abs=1e-3)
    rise = (math.log(likely / (1 - likely)) - math.log(shown / (1 - shown))) / slope
    assert first.explanation.text_term == pytest.approx(rise, abs=1e-3)


def test_less_likely_hits_are_left_out_if_that_is_asked_for(searcher: Searcher) -> None:
    whole = ask(searcher, "red")
    assert whole.best_guess is False
    for least in (0.0, 0.4, 0.9, 1.0):
        some = ask(searcher, "red", min_probability=least)
        assert some.hits == [hit for hit in whole.hits if (hit.probability or 0) >= least]
        assert some.best_guess is False
    videos = ask(searcher, "red", group_by="video", min_probability=0.4).hits
    assert videos
    for hit in videos:
        assert hit.moments
        assert all((moment.probability or 0) >= 0.4 for moment in hit.moments)
        assert (hit.probability, hit.level) == (hit.moments[0].probability, hit.moments[0].level)
    with pytest.raises(QueryError, match=r"min_probability is 1\.5"):
        searcher.check(SearchOptions(min_probability=1.5))


def test_where_nothing_is_likely_the_hits_are_guesses(searcher: Searcher) -> None:
    guess = ask(searcher, "yellow")
    assert guess.best_guess is True
    assert guess.hits
    assert {hit.level for hit in guess.hits} == {"low"}


def test_over_http_and_on_the_command_line(server: Server, toy: ToyLibrary) -> None:
    body = {"query": {"text": "red"}, "min_probability": 0.4}
    answer = server.client.post("/v1/search", json=body).json()
    assert answer["best_guess"] is False
    assert answer["hits"]
    assert all(hit["probability"] >= 0.4 and hit["level"] in ("medium", "high") for hit in answer["hits"])
    for wrong in (-0.1, 1.1, "0.5"):
        assert server.client.post("/v1/search", json=body | {"min_probability": wrong}).status_code == 422
    lines = invoke("search", "red", *toy.options).stdout.splitlines()
    assert lines[0].split("\t")[5] == f"{answer['hits'][0]['probability']:.0%}"
    nothing = invoke("search", "yellow", *toy.options)
    assert "nothing here shows that: these are the closest guesses" in nothing.stderr


def test_the_bundle_tells_its_levels(toy: ToyLibrary) -> None:
    said = invoke("bundle", "info", toy.bundle).stdout
    assert "probability  medium from 40% on, high from 80% on" in said


def test_a_bundle_without_a_calibration_gives_none(tmp_path: Path) -> None:
    toy = make_library(tmp_path, {"red.mp4": [("red", 1.0)]})
    result = invoke("search", "red", *toy.options, "--json")
    assert '"probability":null,"level":null' in result.stdout
    assert '"best_guess":null' in result.stdout
