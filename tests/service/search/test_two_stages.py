"""Search in two stages against a naive twin in plain NumPy, over real films and the toy bundle."""

import itertools
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.library.snapshot import Snapshot
from indexer.options import IndexOptions
from indexer.run import index_paths
from model.runtime.bundle import Bundle
from service.live import open_searcher
from service.search.results import Hit
from service.search.searcher import Searcher, SearchOptions
from service.settings import load_settings
from tests.support.frame_evidence import relevance_of
from tests.support.server import Server, running_server
from tests.support.toy_bundle import match_logit, salience, text_embedding
from tests.support.toy_library import FILMS, ToyLibrary, make_library

LAMBDA = 2.5
#: Beside those of `FILMS`: films of which a part answers, so that the second stage changes the order.
MIXED = {
    "a.mp4": [("red", 1.0), ("blue", 3.0)],
    "b.mp4": [("red", 2.0), ("blue", 2.0)],
    "c.mp4": [("green", 3.0), ("yellow", 0.5), ("green", 0.5)],
    "d.mp4": [("magenta", 40.0), ("red", 24.0), ("black", 8.0)],
    "e.mp4": [("white", 1.0), ("cyan", 1.0), ("blue", 1.0), ("black", 1.0)],
    "f.mp4": [("black", 0.5)],
    **{f"g{number}.mp4": [("yellow", number / 2), ("green", 1.0)] for number in range(1, 5)},
}
TEXTS = ["red", "blue", "yellow", "green and red", "a cyan sky", "white unknown", "black", "magenta white"]
COUNTS = [1, 3, 7, 100]
SALIENT = [1, 2, 5, 16]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_library(tmp_path_factory.mktemp("rerank"), {**FILMS, **MIXED}, ensemble_lambda=LAMBDA)


@dataclass
class TwinHit:
    """What the twin finds: a segment, its place and scores, and its salient frames' relevance, best first."""

    video_id: str
    row: int
    rank: int
    similarity: float
    relevance: list[float]
    score: float
    match_score: float | None = None


class Twin:
    """Both stages, one segment and one frame at a time, from what the library holds."""

    reads_tokens = True

    def __init__(self, snapshot: Snapshot) -> None:
        self.segments = snapshot.segments(range(snapshot.num_segments))
        vectors = snapshot.index.vectors(np.arange(snapshot.num_segments))
        assert vectors is not None
        self.vectors = vectors
        self.tokens = [
            snapshot.frame_tokens([segment.row] * len(segment.frame_ids), range(len(segment.frame_ids)))
            for segment in self.segments
            if self.reads_tokens
        ]

    def match(self, row: int, mean_logit: float, similarity: float) -> float:
        """The match of a segment."""
        return mean_logit

    def logit(self, text: str, row: int, frame: int) -> float:
        """How well a frame of a segment matches a text."""
        return match_logit(text, self.tokens[row][frame])

    def candidates(self, by_similarity: list[int], count: int) -> list[int]:
        """The best segments; of one video at most two or a tenth of them, while others are left."""
        most = max(2, -(-count // 10))
        chosen: list[int] = []
        for row in by_similarity[: 8 * count]:
            same = [other for other in chosen if self.segments[other].video_id == self.segments[row].video_id]
            if len(same) < most and len(chosen) < count:
                chosen.append(row)
        left_out = [row for row in by_similarity if row not in chosen]
        chosen += left_out[: count - len(chosen)]
        return sorted(chosen, key=by_similarity.index)

    def first_stage(self, query: NDArray[np.float32]) -> list[float]:
        """The score of each segment."""
        return [round(float(vector @ query), 6) for vector in self.vectors]

    def search(self, text: str, num_candidates: int, num_salient_frames: int) -> list[TwinHit]:
        """A hit a video, best first; `num_candidates` 0 is the first stage."""
        query = text_embedding(text)
        similarity = self.first_stage(query)
        by_similarity = sorted(range(len(similarity)), key=lambda row: (-similarity[row], row))
        ranks = {row: rank for rank, row in enumerate(by_similarity)}
        candidates = self.candidates(by_similarity, num_candidates)
        order = candidates + [row for row in by_similarity if row not in candidates]
        scored: list[TwinHit] = []
        for place, row in enumerate(order):
            relevance = [float(frame @ salience(query)) for frame in self.segments[row].frame_salience]
            salient = sorted(range(len(relevance)), key=lambda i: (-relevance[i], i))[:num_salient_frames]
            hit = TwinHit(
                video_id=self.segments[row].video_id,
                row=row,
                rank=ranks[row] + 1,
                similarity=similarity[row],
                relevance=[relevance[frame] for frame in salient],
                score=similarity[row],
            )
            if place < len(candidates):
                logits = [self.logit(text, row, frame) for frame in salient]
                hit.match_score = self.match(row, sum(logits) / len(logits), float(similarity[row]))
                hit.score = hit.match_score + LAMBDA * similarity[row]
            elif num_candidates:
                lowest = min(other.score for other in scored[:num_candidates])
                distance = similarity[order[num_candidates]] - similarity[row]
                hit.score = lowest - 0.001 - LAMBDA * distance
            scored.append(hit)
        best: dict[str, TwinHit] = {}
        for hit in sorted(scored, key=lambda hit: (-hit.score, hit.rank)):
            best.setdefault(hit.video_id, hit)
        return list(best.values())


@pytest.fixture(scope="module")
def twin(searcher: Searcher) -> Twin:
    return Twin(searcher.snapshot)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("num_candidates", [0, *COUNTS])
def test_hits_are_those_of_the_twin(searcher: Searcher, twin: Twin, text: str, num_candidates: int) -> None:
    for num_salient in SALIENT:
        check_search(searcher, twin, text, num_candidates, num_salient)


def check_search(
    searcher: Searcher, twin: Twin, text: str, num_candidates: int, num_salient: int
) -> list[Hit]:
    """Compare a search with the twin's. → Its hits."""
    options = SearchOptions(
        rerank=num_candidates > 0,
        num_candidates=num_candidates or None,
        num_salient_frames=num_salient,
        explain=True,
    )
    answer = searcher.search(text, 100, options)
    expected = twin.search(text, num_candidates, num_salient)
    assert answer.reranked == (num_candidates > 0)
    assert answer.num_candidates == min(num_candidates, searcher.snapshot.num_segments)
    assert sorted(hit.video_id for hit in answer.hits) == sorted(hit.video_id for hit in expected)
    scores = [hit.score for hit in answer.hits]
    assert scores == sorted(scores, reverse=True)
    by_video = {hit.video_id: hit for hit in expected}
    for hit in answer.hits:
        check_hit(hit, by_video[hit.video_id])
    return answer.hits


def check_hit(hit: Hit, expected: TwinHit) -> None:
    assert hit.score == pytest.approx(expected.score, abs=1e-3)
    assert hit.match_score == pytest.approx(expected.match_score, abs=1e-3)
    # Of segments that score the same either may be shown.
    assert hit.similarity == pytest.approx(expected.similarity, abs=1e-3)
    chosen = sorted((relevance_of(frame) for frame in hit.frames if frame.salient), reverse=True)
    assert chosen == pytest.approx(expected.relevance, abs=1e-4)
    assert min(chosen) >= max((relevance_of(f) for f in hit.frames if not f.salient), default=-1) - 1e-6
    matched = [frame.match_score for frame in hit.frames if frame.match_score is not None]
    assert len(matched) == (len(chosen) if hit.match_score is not None else 0)
    if matched:
        assert hit.match_score == pytest.approx(sum(matched) / len(matched), abs=1e-5)


def test_the_second_stage_changes_the_order(searcher: Searcher) -> None:
    first = searcher.search("magenta", 4, SearchOptions(rerank=False))
    second = searcher.search("magenta", 4)
    assert (first.reranked, first.rerank_skipped) == (False, "not_requested")
    assert (second.reranked, second.rerank_skipped) == (True, None)
    assert [hit.path for hit in first.hits] != [hit.path for hit in second.hits]
    assert first.hits[0].video_id == second.hits[0].video_id
    hit = second.hits[0]
    assert Path(hit.path).name == "d.mp4"
    assert hit.match_score == pytest.approx(4, abs=0.3)
    assert all(frame.pts_seconds < 40 for frame in hit.frames if frame.salient)


@pytest.mark.parametrize("text", TEXTS[:4])
@pytest.mark.parametrize("num_candidates", [*COUNTS, None])
def test_fewer_hits_are_the_first_of_more(searcher: Searcher, text: str, num_candidates: int | None) -> None:
    options = SearchOptions(num_candidates=num_candidates)
    everything = searcher.search(text, 100, options).hits
    assert len(everything) == len(FILMS) + len(MIXED)
    for top_k in range(1, len(everything)):
        assert searcher.search(text, top_k, options).hits == everything[:top_k]


def test_what_was_not_reranked_follows_in_the_order_of_the_first_stage(searcher: Searcher) -> None:
    hits = searcher.search("green", 100, SearchOptions(num_candidates=3)).hits
    tail = [hit for hit in hits if hit.match_score is None]
    assert 0 < len(hits) - len(tail) <= 3
    assert hits[len(hits) - len(tail) :] == tail
    assert tail[0].score < hits[len(hits) - len(tail) - 1].score
    assert [hit.similarity for hit in tail] == sorted((hit.similarity for hit in tail), reverse=True)
    whole = searcher.search("green", 100, SearchOptions(rerank=False)).hits
    ids = {hit.video_id for hit in tail}
    assert [hit.video_id for hit in tail] == [hit.video_id for hit in whole if hit.video_id in ids]


def test_every_term_of_a_score_is_told_and_they_add_up(server: Server) -> None:
    seen = set()
    for text, count in itertools.product(("red", "yellow sun"), (0, 2, 100)):
        fields = {"num_candidates": count} if count else {"rerank": False}
        for hit in server.search(text, top_k=100, num_salient_frames=3, explain=True, **fields):
            why = hit["explanation"]
            kind = "first" if not count else "tail" if hit["match_score"] is None else "block"
            seen.add(kind)
            terms = [why["match_score"], why["tail_offset"]]
            assert [term is not None for term in terms] == [kind == "block", kind == "tail"]
            total = (
                sum(term for term in terms if term is not None) + why["similarity_term"] + why["text_term"]
            )
            assert hit["score"] == pytest.approx(total, abs=3e-6)
            assert why["ensemble_lambda"] == (LAMBDA if count else 1)
            assert why["similarity_term"] == pytest.approx(
                why["ensemble_lambda"] * why["similarity"], abs=2e-6
            )
            assert (why["similarity"], why["match_score"]) == (hit["similarity"], hit["match_score"])
            assert why["first_stage_rank"] >= 1
            salient = {frame["frame_id"]: frame for frame in hit["frames"] if frame["salient"]}
            assert {term["frame_id"] for term in why["frames"]} == set(salient)
            assert [term["relevance"] for term in why["frames"]] == sorted(
                (frame["relevance"] for frame in salient.values()), reverse=True
            )
            for term in why["frames"]:
                frame = salient[term["frame_id"]]
                assert (term["relevance"], term["match_logit"]) == (frame["relevance"], frame["match_score"])
            if kind == "block":
                mean = np.mean([term["match_logit"] for term in why["frames"]])
                assert why["match_score"] == pytest.approx(mean, abs=1e-6)
            assert "similarity" in why["formula"]
    assert seen == {"first", "tail", "block"}
    assert all(hit["explanation"] is None for hit in server.search("red"))


def test_a_deadline_that_cannot_be_kept_gives_the_first_stage_and_says_so(server: Server) -> None:
    late = server.ask("red", deadline_ms=1)
    assert (late["reranked"], late["rerank_skipped"], late["num_candidates"]) == (False, "deadline", 0)
    assert late["hits"] == server.search("red", rerank=False)
    in_time = server.ask("red", deadline_ms=60_000)
    assert (in_time["reranked"], in_time["rerank_skipped"]) == (True, None)
    assert in_time["hits"] == server.search("red") != late["hits"]


def test_a_deadline_that_has_passed_costs_no_work_of_the_second_stage(searcher: Searcher) -> None:
    late = searcher.search("red", 10, SearchOptions(deadline=time.monotonic() - 1))
    assert (late.reranked, late.rerank_skipped, late.num_candidates) == (False, "deadline", 0)
    assert late.hits == searcher.search("red", 10, SearchOptions(rerank=False)).hits
    assert (late.timings_ms.salience, late.timings_ms.tokens, late.timings_ms.match) == (0, 0, 0)


def test_a_deadline_that_passes_while_the_model_works(searcher: Searcher) -> None:
    reached, release = threading.Event(), threading.Event()

    def hold(_pairs: int, _searches: int) -> None:
        reached.set()
        release.wait(120)

    expected = searcher.search("red", 10, SearchOptions(rerank=False)).hits
    searcher.match_queue.observe = hold
    try:
        held = threading.Thread(target=searcher.search, args=("blue", 10))
        held.start()
        assert reached.wait(120)
        answer = searcher.search("red", 10, SearchOptions(deadline=time.monotonic() + 0.3))
    finally:
        searcher.match_queue.observe = None
        release.set()
    held.join()
    assert (answer.reranked, answer.rerank_skipped) == (False, "deadline")
    assert answer.hits == expected
    assert searcher.search("red", 10).reranked


@pytest.fixture
def slow_searcher(searcher: Searcher, monkeypatch: pytest.MonkeyPatch) -> Searcher:
    """Its matching head is thought to take a second for a pair: what is in time is arithmetic."""
    monkeypatch.setattr(searcher.match_queue, "_pair_seconds", 1.0)
    return searcher


def test_under_pressure_fewer_candidates_are_reranked(slow_searcher: Searcher) -> None:
    """What can be matched in four fifths of the time left: 13.9 pairs, each of one candidate."""
    options = SearchOptions(num_salient_frames=1, deadline=time.monotonic() + 13.9 / 0.8)
    answer = slow_searcher.search("green and red", 100, options)
    assert (answer.reranked, answer.rerank_skipped) == (True, None)
    assert (answer.num_candidates, answer.rerank_reduced) == (13, "deadline")
    assert answer.num_candidates_wanted == slow_searcher.snapshot.num_segments > 16
    same = slow_searcher.search("green and red", 100, SearchOptions(num_candidates=13, num_salient_frames=1))
    assert answer.hits == same.hits
    assert (same.num_candidates_wanted, same.rerank_reduced) == (13, None)


def test_a_share_of_the_time_gives_fewer_candidates_but_ten(slow_searcher: Searcher) -> None:
    for seconds, count in ((24.5, 12), (3.0, 10)):
        options = SearchOptions(num_salient_frames=2, match_seconds=seconds)
        # Each search corrects the estimate.
        slow_searcher.match_queue._pair_seconds = 1.0
        answer = slow_searcher.search("blue", 100, options)
        assert (answer.num_candidates, answer.rerank_reduced) == (count, "deadline")


def test_a_search_has_a_budget_of_pairs(searcher: Searcher) -> None:
    answer = searcher.search("blue", 100, SearchOptions(num_salient_frames=2, max_pairs=27))
    assert (answer.num_candidates, answer.rerank_reduced) == (13, "cost")
    assert answer.hits == searcher.search("blue", 100, SearchOptions(num_candidates=13)).hits
    answer = searcher.search("blue", 100, SearchOptions(num_salient_frames=16, max_pairs=27))
    assert (answer.num_candidates, answer.rerank_reduced) == (10, "cost")


def test_what_was_matched_when_the_client_left_or_time_ran_out_counts(searcher: Searcher) -> None:
    """The model matches 32 pairs a call: two candidates with 16 frames, or 16 with 2."""
    called = threading.Event()
    searcher.match_queue.observe = lambda _pairs, _searches: called.set()
    try:
        for num_salient, count in ((2, 16), (16, 0)):
            called.clear()
            options = SearchOptions(num_salient_frames=num_salient, is_wanted=lambda: not called.is_set())
            answer = searcher.search("yellow", 100, options)
            assert answer.num_candidates == count
            assert (answer.rerank_skipped, answer.rerank_reduced) == (
                (None, "deadline") if count else ("deadline", None)
            )
            reranked = [hit for hit in answer.hits if hit.match_score is not None]
            assert answer.hits[: len(reranked)] == reranked
            whole = searcher.search("yellow", 100, SearchOptions(num_salient_frames=num_salient)).hits
            score = {(hit.video_id, hit.start_seconds): hit.score for hit in whole}
            assert all(hit.score == score[hit.video_id, hit.start_seconds] for hit in reranked)
            assert (len(reranked) > 5) == (count > 0)
    finally:
        searcher.match_queue.observe = None


def test_the_deadline_of_the_settings(toy: ToyLibrary) -> None:
    with running_server(*toy.options, "--deadline-ms", "1") as server:
        assert server.ask("red")["rerank_skipped"] == "deadline"
        assert server.ask("red", deadline_ms=60_000)["reranked"]


def test_the_longest_deadline_of_the_settings(toy: ToyLibrary) -> None:
    environment = {"REELFIND_DEADLINE_MS": "1", "REELFIND_MAX_DEADLINE_MS": "1"}
    with running_server(*toy.options, environment=environment) as server:
        assert server.ask("red", deadline_ms=60_000)["rerank_skipped"] == "deadline"


def test_the_most_candidates_of_the_settings(toy: ToyLibrary) -> None:
    with running_server(*toy.options, environment={"REELFIND_MAX_CANDIDATES": "4"}) as server:
        assert server.ask("red")["num_candidates"] == 4
        assert server.ask("red", num_candidates=3)["num_candidates"] == 3
        body = {"query": {"text": "red"}, "num_candidates": 5}
        problem = server.client.post("/v1/search", json=body).json()
        assert problem["detail"] == "num_candidates is 5; 1 to 4 can be re-ranked."


def test_concurrent_searches_answer_as_each_does_alone(server: Server) -> None:
    asked = [
        (text, {"num_candidates": count, "num_salient_frames": frames, "explain": True})
        for text, (count, frames) in itertools.product(TEXTS, [(100, 2), (5, 16), (2, 1)])
    ]
    alone = [server.ask(text, **fields)["hits"] for text, fields in asked]
    answers: dict[int, dict[str, Any]] = {}

    def ask(part: int) -> None:
        for position in range(part, len(asked), 8):
            text, fields = asked[position]
            answers[position] = server.ask(text, **fields)

    threads = [threading.Thread(target=ask, args=(part,)) for part in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for position, hits in enumerate(alone):
        assert answers[position]["reranked"]
        assert answers[position]["hits"] == hits


def test_metrics_count_what_became_of_reranking(server: Server) -> None:
    def values() -> dict[str, float]:
        lines = server.client.get("/metrics").text.splitlines()
        return {
            key: float(value) for key, value in (s.rsplit(" ", 1) for s in lines if not s.startswith("#"))
        }

    before = values()
    server.ask("red", num_candidates=3, num_salient_frames=2, deadline_ms=60_000)
    server.ask("red", rerank=False)
    in_time = values()
    # At which step its deadline passes is chance: the model may have been called.
    server.ask("red", deadline_ms=1)
    late = values()
    change = {key: value - before.get(key, 0.0) for key, value in in_time.items()}
    # Two frames of each candidate, and those that only the moments around the candidates need.
    assert 6 <= change["reelfind_match_call_pairs_sum"] <= 6 + 2 * 5
    assert 1 <= change["reelfind_match_call_searches_count"] <= 2
    for name in ("texts", "searches"):
        assert change[f"reelfind_text_call_{name}_count"] == change[f"reelfind_text_call_{name}_sum"] == 2
    assert change["reelfind_vector_call_searches_count"] == 0, "few segments are searched by each alone"
    assert change['reelfind_search_stage_seconds_count{stage="match"}'] == 1
    change = {key: value - before.get(key, 0.0) for key, value in late.items()}
    for result in ("done", "not_requested", "deadline"):
        assert change[f'reelfind_reranks_total{{result="{result}"}}'] == 1
    for result in ("no_matcher", "no_tokens"):
        assert change[f'reelfind_reranks_total{{result="{result}"}}'] == 0
    assert change["reelfind_reranked_segments_total"] == 3
    assert change['reelfind_search_stage_seconds_count{stage="retrieve"}'] == 3


@pytest.mark.parametrize("missing", ["no_matcher", "no_tokens"])
def test_where_nothing_can_be_reranked_the_first_stage_answers_and_says_why(
    tmp_path: Path, toy: ToyLibrary, searcher: Searcher, missing: str
) -> None:
    if missing == "no_matcher":
        other = make_library(tmp_path, {**FILMS, **MIXED}, matcher=False, ensemble_lambda=LAMBDA)
    else:
        other = ToyLibrary(toy.media, tmp_path / "library", toy.bundle)
        options = IndexOptions(workers=0, tokens="none")
        index_paths([toy.media], other.library, Bundle.open(toy.bundle), options, lambda _event: None)
    lacking = open_searcher(load_settings({"library": other.library, "bundle": other.bundle}))
    assert (searcher.cannot_rerank, lacking.cannot_rerank) == (None, missing)
    answer = lacking.search("red", 100, SearchOptions(explain=True))
    assert (answer.reranked, answer.rerank_skipped, answer.num_candidates) == (False, missing, 0)
    expected = searcher.search("red", 100, SearchOptions(rerank=False)).hits
    assert [hit.score for hit in answer.hits] == [hit.score for hit in expected]
    assert [Path(hit.path).name for hit in answer.hits] == [Path(hit.path).name for hit in expected]
    assert all(sum(frame.salient for frame in hit.frames) == 2 for hit in answer.hits)
    ranking = lacking.rank_all(["red"])
    assert (ranking.ensemble, ranking.rerank_skipped) == (None, missing)
    assert lacking.search("red", 1, SearchOptions(rerank=False)).rerank_skipped == "not_requested"


def test_tokens_of_many_frames_are_fetched_in_parts(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = searcher.search("red", 100, SearchOptions(num_salient_frames=16, explain=True)).hits
    monkeypatch.setattr("service.search.rerank._TOKEN_BYTES", 1)
    in_parts = searcher.search("red", 100, SearchOptions(num_salient_frames=16, explain=True)).hits
    assert in_parts == whole
