"""Searches with a bundle that re-ranks by the relevance of salient frames, against the naive twin."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from model.runtime.bundle import Bundle, HubnessCorrection
from model.runtime.bundle.manifest import SalienceMatch
from model.runtime.errors import BundleError
from service.cli.app import app
from service.search.encoded_query import EncodedQuery
from service.search.searcher import Searcher, SearchOptions
from tests.model.runtime.bundle.test_damage import change_manifest
from tests.service.search.test_hubness import WEIGHT, CorrectedTwin, references, searcher_of
from tests.service.search.test_two_stages import LAMBDA, MIXED, TEXTS, Twin, check_hit, check_search
from tests.support.frame_evidence import relevance_of
from tests.support.server import running_server
from tests.support.toy_bundle import DIM, make_toy_bundle, salience, text_embedding
from tests.support.toy_library import FILMS, ToyLibrary, make_library

MATCH = SalienceMatch(scale=12.0, bias=-6.0)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    folder = tmp_path_factory.mktemp("salience")
    return make_library(
        folder, {**FILMS, **MIXED}, matcher=False, salience_match=MATCH, ensemble_lambda=LAMBDA
    )


@pytest.fixture(scope="module")
def searcher(toy: ToyLibrary) -> Searcher:
    return searcher_of(toy)


class SalienceTwin(Twin):
    """As `Twin`, with scale · relevance + bias for the logit of a frame."""

    reads_tokens = False

    def logit(self, text: str, row: int, frame: int) -> float:
        relevance = float(self.segments[row].frame_salience[frame] @ salience(text_embedding(text)))
        return MATCH.scale * relevance + MATCH.bias


@pytest.fixture(scope="module")
def twin(searcher: Searcher) -> SalienceTwin:
    return SalienceTwin(searcher.snapshot)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("num_candidates", [0, 1, 7, 100])
def test_hits_are_those_of_the_twin(
    searcher: Searcher, twin: SalienceTwin, text: str, num_candidates: int
) -> None:
    for num_salient in (1, 2, 5, 16):
        for hit in check_search(searcher, twin, text, num_candidates, num_salient):
            for frame in hit.frames:
                if frame.match_score is not None:
                    assert frame.match_score == pytest.approx(12 * relevance_of(frame) - 6, abs=1e-3)


def test_all_videos_are_ranked_as_by_searches(searcher: Searcher) -> None:
    ranking = searcher.rank_all(TEXTS)
    assert ranking.ensemble is not None
    videos = [video.video_id for video in searcher.snapshot.videos(0, 100)]
    for text, row in zip(TEXTS, ranking.ensemble, strict=True):
        hits = searcher.search(text, 100).hits
        assert [hit.score for hit in hits] == pytest.approx(
            [row[videos.index(hit.video_id)] for hit in hits], abs=1e-4
        )


def test_the_second_stage_changes_the_order(searcher: Searcher) -> None:
    first = searcher.search("red", 6, SearchOptions(rerank=False)).hits
    second = searcher.search("red", 6, SearchOptions(num_salient_frames=1)).hits
    assert [hit.path for hit in first] != [hit.path for hit in second]


def test_no_token_is_stored_or_needed(searcher: Searcher, toy: ToyLibrary) -> None:
    assert searcher.snapshot.tokens_per_frame == 0
    assert searcher.cannot_rerank is None
    assert searcher.most_pairs(SearchOptions()) == 0
    assert Bundle.open(toy.bundle).capabilities == {"image_query", "salient_frames", "salience_match"}
    # A query that is no text is re-ranked too.
    embedding = text_embedding("red")
    image = searcher.search_encoded(EncodedQuery(embedding, salience(embedding)), 5)
    assert (image.reranked, image.rerank_skipped) == (True, None)
    assert image.hits == searcher.search("red", 5).hits


def test_the_cost_of_a_search_is_not_counted_in_pairs(searcher: Searcher) -> None:
    answer = searcher.search("red", 5, SearchOptions(num_candidates=15, max_pairs=1))
    assert (answer.num_candidates, answer.rerank_reduced) == (15, None)


def test_a_deadline_that_has_passed_leaves_the_first_stage(searcher: Searcher) -> None:
    late = searcher.search("red", 5, SearchOptions(deadline=time.monotonic() - 1))
    assert (late.reranked, late.rerank_skipped, late.num_candidates) == (False, "deadline", 0)
    first = searcher.search("red", 5, SearchOptions(rerank=False)).hits
    assert [hit.score for hit in late.hits] == [hit.score for hit in first]


class CorrectedSalienceTwin(CorrectedTwin, SalienceTwin):
    """Both at once."""


def test_it_goes_with_the_correction_of_hubness(tmp_path: Path) -> None:
    correction = HubnessCorrection(WEIGHT, 10, references())
    searcher = searcher_of(
        make_library(
            tmp_path,
            {**FILMS, **MIXED},
            matcher=False,
            salience_match=MATCH,
            ensemble_lambda=LAMBDA,
            hubness=correction,
        )
    )
    assert searcher.snapshot.index.vectors(np.arange(1)).shape == (1, DIM + 1)  # type: ignore[union-attr]
    twin = CorrectedSalienceTwin(searcher.snapshot)
    for text in TEXTS:
        expected = {hit.video_id: hit for hit in twin.search(text, 7, 2)}
        for hit in searcher.search(text, 100, SearchOptions(num_candidates=7, num_salient_frames=2)).hits:
            want = expected[hit.video_id]
            want.similarity = hit.similarity
            check_hit(hit, want)


LIMITS = (0.6, 0.95)


class BlendedTwin(SalienceTwin):
    """The similarity takes the relevance's place in segments whose frames are alike."""

    def share(self, row: int) -> float:
        units = [vector / np.linalg.norm(vector) for vector in self.segments[row].frame_salience]
        alike = float(np.linalg.norm(np.mean(units, axis=0)))
        return min(1.0, max(0.0, (alike - LIMITS[0]) / (LIMITS[1] - LIMITS[0])))

    def match(self, row: int, mean_logit: float, similarity: float) -> float:
        share = self.share(row)
        return (1 - share) * mean_logit + share * (MATCH.scale * similarity + MATCH.bias)


def test_in_coherent_segments_the_similarity_takes_the_relevances_place(tmp_path: Path) -> None:
    match = MATCH.model_copy(update={"coherence": LIMITS})
    toy = make_library(
        tmp_path, {**FILMS, **MIXED}, matcher=False, salience_match=match, ensemble_lambda=LAMBDA
    )
    searcher = searcher_of(toy)
    twin = BlendedTwin(searcher.snapshot)
    shares = []
    for text in TEXTS:
        wanted = {hit.video_id: hit for hit in twin.search(text, 100, 2)}
        options = SearchOptions(num_candidates=100, num_salient_frames=2, explain=True)
        for hit in searcher.search(text, 100, options).hits:
            expected = wanted[hit.video_id]
            assert hit.match_score == pytest.approx(expected.match_score, abs=2e-3)
            assert hit.score == pytest.approx(expected.score, abs=2e-3)
            assert hit.explanation is not None
            assert hit.explanation.similarity_share is not None
            shares.append(hit.explanation.similarity_share)
            assert shares[-1] == pytest.approx(twin.share(expected.row), abs=1e-3)
    assert min(shares) < 0.2
    assert max(shares) == 1.0
    told = CliRunner().invoke(app, ["bundle", "info", str(toy.bundle)])
    assert "(coherence 0.6 to 0.95)" in told.stdout


def test_encoders_need_no_tokens(tmp_path: Path) -> None:
    toy = make_library(tmp_path, tokens=False, salience_match=MATCH)
    with running_server(*toy.options) as server:
        assert server.ask("red")["reranked"]
        assert server.client.get("/readyz").json()["degraded"] == []


def test_the_service_and_the_command_line_re_rank(toy: ToyLibrary) -> None:
    with running_server(*toy.options) as server:
        answer = server.ask("red", explain=True)
        info = server.client.get("/v1/library").json()
        ready = server.client.get("/readyz").json()
    assert (answer["reranked"], info["cannot_rerank"]) == (True, None)
    assert not [part for part in ready.get("degraded", []) if part["kind"] == "not_reranked"]
    hit = answer["hits"][0]
    assert hit["explanation"]["match_score"] == pytest.approx(hit["match_score"], abs=1e-5)
    told = CliRunner().invoke(app, ["bundle", "info", str(toy.bundle)])
    assert "match 12 · relevance − 6" in told.stdout
    assert CliRunner().invoke(app, ["bundle", "verify", str(toy.bundle)]).exit_code == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["salience_match"].update(scale=0), "salience_match.scale"),
        (lambda c: c["salience_match"].update(scale=1e9), "salience_match.scale"),
        (lambda c: c["salience_match"].update(bias="0"), "salience_match.bias"),
        (lambda c: c["salience_match"].pop("bias"), "salience_match.bias"),
        (lambda c: c.update(salience_match="yes"), "salience_match"),
    ],
)
def test_a_strangers_manifest(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    bundle = make_toy_bundle(tmp_path / "bundle", matcher=False, salience_match=MATCH)
    change_manifest(bundle, change)
    with pytest.raises(BundleError, match=rf"bundle\.json is not valid: .*{message}"):
        Bundle.open(bundle)


def test_a_bundle_has_one_match(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"salience_match, but files lists 'matcher\.onnx': give one"):
        make_toy_bundle(tmp_path / "bundle", salience_match=MATCH)
