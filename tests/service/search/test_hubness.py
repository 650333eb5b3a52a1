"""Searches with a bundle that corrects hubness, against the naive twin of both stages."""

from __future__ import annotations

import itertools
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from indexer.library.snapshot import Snapshot
from model.runtime.bundle import HubnessCorrection
from service.cli.app import app
from service.live import open_searcher
from service.search.results import Hit
from service.search.searcher import Searcher, SearchOptions
from service.settings import load_settings
from tests.model.runtime.bundle.test_hubness import naive_hubness
from tests.service.search.test_two_stages import LAMBDA, MIXED, TEXTS, Twin, check_hit
from tests.support.toy_bundle import COLOURS, DIM, text_embedding, unit
from tests.support.toy_library import FILMS, ToyLibrary, make_library

WEIGHT = 0.5
#: A film of all colours resembles any text.
HUB = {"hub.mp4": [(colour, 0.5) for colour in COLOURS]}


def references() -> NDArray[np.float32]:
    """Captions that name six of the eight colours each."""
    return unit(np.array([np.isin(np.arange(DIM), six) for six in itertools.combinations(range(DIM), 6)]))


def searcher_of(toy: ToyLibrary) -> Searcher:
    settings = {"library": toy.library, "bundle": toy.bundle}
    return open_searcher(load_settings(settings))


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_library(
        tmp_path_factory.mktemp("hub"),
        {**FILMS, **MIXED, **HUB},
        ensemble_lambda=LAMBDA,
        hubness=HubnessCorrection(WEIGHT, 10, references()),
    )


@pytest.fixture(scope="module")
def searcher(toy: ToyLibrary) -> Searcher:
    return searcher_of(toy)


class CorrectedTwin(Twin):
    """As `Twin`, with a first stage of cosine − weight × hubness."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__(snapshot)
        self.embeddings = self.vectors[:, :DIM]
        self.hubness = naive_hubness(self.embeddings, references().astype(np.float16), 10)

    def first_stage(self, query: NDArray[np.float32]) -> list[float]:
        return [
            round(float(embedding @ query) - WEIGHT * hubness, 6)
            for embedding, hubness in zip(self.embeddings, self.hubness, strict=True)
        ]


@pytest.fixture(scope="module")
def twin(searcher: Searcher) -> CorrectedTwin:
    return CorrectedTwin(searcher.snapshot)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("num_candidates", [0, 3, 7, 100])
def test_hits_are_those_of_the_twin(
    searcher: Searcher, twin: CorrectedTwin, text: str, num_candidates: int
) -> None:
    options = SearchOptions(
        rerank=num_candidates > 0, num_candidates=num_candidates or None, num_salient_frames=2, explain=True
    )
    hits = searcher.search(text, 100, options).hits
    expected = {hit.video_id: hit for hit in twin.search(text, num_candidates, 2)}
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert {hit.video_id for hit in hits} == set(expected)
    for hit in hits:
        want = expected[hit.video_id]
        # The twin's similarity is corrected; a hit tells the cosine.
        corrected = hit.similarity - WEIGHT * twin.hubness[want.row]
        assert corrected == pytest.approx(want.similarity, abs=1e-3)
        want.similarity = hit.similarity
        check_hit(hit, want)
        check_explanation(hit, reranked=num_candidates > 0)
    for top_k in range(1, len(hits)):
        assert searcher.search(text, top_k, options).hits == hits[:top_k]


def check_explanation(hit: Hit, *, reranked: bool) -> None:
    why = hit.explanation
    assert why is not None
    assert why.hubness is not None
    assert why.hubness_term is not None
    assert (why.similarity, why.hubness_weight) == (hit.similarity, WEIGHT)
    lam = LAMBDA if reranked else 1.0
    assert why.hubness_term == pytest.approx(-lam * WEIGHT * why.hubness, abs=1e-5)
    assert why.similarity_term == pytest.approx(lam * hit.similarity, abs=1e-5)
    parts = (why.match_score, why.tail_offset, why.similarity_term, why.hubness_term)
    assert hit.score == pytest.approx(sum(part for part in parts if part is not None), abs=5e-6)
    assert f"− {lam * WEIGHT:g} × {why.hubness:.4f} (hubness)" in why.formula


def test_the_similarity_of_a_hit_is_the_cosine(searcher: Searcher, twin: CorrectedTwin) -> None:
    for hit in searcher.search("red", 100, SearchOptions(rerank=False)).hits:
        cosines = twin.embeddings[searcher.snapshot.segment_rows(hit.video_id)] @ text_embedding("red")
        assert np.abs(cosines - hit.similarity).min() < 2e-6


def test_all_videos_are_ranked_as_by_searches(searcher: Searcher) -> None:
    ranking = searcher.rank_all(TEXTS)
    assert ranking.ensemble is not None
    videos = [video.video_id for video in searcher.snapshot.videos(0, 100)]
    for rerank, scores in ((False, ranking.similarity), (True, ranking.ensemble)):
        for text, row in zip(TEXTS, scores, strict=True):
            hits = searcher.search(text, 100, SearchOptions(rerank=rerank)).hits
            found = [row[videos.index(hit.video_id)] for hit in hits]
            assert [hit.score for hit in hits] == pytest.approx(found, abs=1e-4)


def test_a_hub_comes_last(tmp_path: Path) -> None:
    """A film of all colours is before every film of one of the three that a text names, unless corrected."""
    films = {**HUB, **{f"{colour}.mp4": [(colour, 0.5)] for colour in COLOURS}}
    plain = searcher_of(make_library(tmp_path / "plain", films))
    correction = HubnessCorrection(WEIGHT, 10, references())
    corrected = searcher_of(make_library(tmp_path / "corrected", films, hubness=correction))
    for text in ("red green blue", "yellow cyan magenta", "black white red"):
        found = [
            [Path(hit.path).stem for hit in searcher.search(text, 100, SearchOptions(rerank=False)).hits]
            for searcher in (plain, corrected)
        ]
        assert found[0][0] == "hub"
        assert set(found[1][:3]) == set(text.split())
        assert found[1].index("hub") >= 3
    hit = plain.search("red", 1, SearchOptions(explain=True)).hits[0]
    assert hit.explanation is not None
    explained = asdict(hit.explanation)
    assert [explained[name] for name in ("hubness", "hubness_weight", "hubness_term")] == [None] * 3
    assert "hubness" not in hit.explanation.formula


def test_the_command_line_explains_it(toy: ToyLibrary) -> None:
    search = ["search", "red", *toy.options, "--explain"]
    printed = CliRunner().invoke(app, [*search, "--no-rerank"])
    assert printed.exit_code == 0
    assert f"(similarity) − {WEIGHT:g} × " in printed.stdout
    assert "(hubness): nothing was re-ranked" in printed.stdout
