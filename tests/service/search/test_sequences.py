"""Sequences: chains against brute force, and searches of real films against a naive twin."""

import itertools
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.errors import NotFoundError, NotUnderstoodError, QueryError
from service.live import open_searcher
from service.search.asking import ask, open_query
from service.search.chains import Follows, Spans, best_chains, moments_follow, segments_may_follow
from service.search.queries import SequenceQuery, TextQuery
from service.search.results import Hit, SearchResult
from service.search.searcher import Searcher, SearchOptions
from service.search.texts import Modalities
from service.settings import load_settings
from tests.support.frame_evidence import relevance_of
from tests.support.toy_calibration import toy_calibration
from tests.support.toy_library import make_library

BY_MOMENT = SearchOptions(group_by="moment", modalities=Modalities(name=0))
FILMS = {
    "red then blue.mp4": [("black", 10.0), ("red", 6.0), ("white", 4.0), ("blue", 6.0), ("black", 10.0)],
    "blue then red.mp4": [("black", 10.0), ("blue", 6.0), ("white", 4.0), ("red", 6.0), ("black", 10.0)],
    "far apart.mp4": [("red", 6.0), ("black", 90.0), ("blue", 6.0)],
    "twice.mp4": [("red", 8.0), ("blue", 8.0), ("black", 80.0), ("red", 8.0), ("green", 8.0), ("blue", 8.0)],
    "red.mp4": [("red", 8.0)],
    "blue.mp4": [("blue", 8.0)],
}


@pytest.fixture(
    scope="module",
    params=[
        {"moments": "edges", "calibration": toy_calibration()},
        {"matcher": False},
        {"matcher": False, "moments": "edges"},
    ],
    ids=["matching head, moment head", "first stage, rule", "first stage, moment head"],
)
def searcher(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    toy = make_library(tmp_path_factory.mktemp("sequences"), FILMS, **request.param)
    return open_searcher(load_settings({"library": toy.library, "bundle": toy.bundle}))


def sequence(*texts: str, within_seconds: float = 60.0) -> SequenceQuery:
    return SequenceQuery(tuple(map(TextQuery, texts)), within_seconds)


def find(searcher: Searcher, query: SequenceQuery, top_k: int = 20, **options: object) -> SearchResult:
    return ask(searcher, query, top_k, replace(BY_MOMENT, **options))  # type: ignore[arg-type]


def names(hits: Sequence[Hit]) -> list[str]:
    return [Path(hit.path).name for hit in hits]


def good(hits: Sequence[Hit]) -> list[Hit]:
    """Hits of which every step shows its colour."""
    return [
        hit
        for hit in hits
        if hit.steps and all(max(map(relevance_of, step.moment.frames)) > 0.9 for step in hit.steps)
    ]


def random_spans(rng: np.random.Generator, count: int) -> Spans:
    start = np.sort(rng.integers(0, 40, count)).astype(np.float64)
    return Spans(start, start + rng.integers(1, 12, count), rng.normal(size=count).round(2))


def brute_force(steps: Sequence[Spans], allowed: object, within: float) -> dict[int, float]:
    """The best score of every chain, by the place of its last span."""
    best: dict[int, float] = {}
    for places in itertools.product(*(range(len(step.start)) for step in steps)):
        spans = [(s.start[p], s.end[p]) for s, p in zip(steps, places, strict=True)]
        if all(allowed(a, b, within) for a, b in itertools.pairwise(spans)):  # type: ignore[operator]
            score = float(sum(step.score[place] for step, place in zip(steps, places, strict=True)))
            best[places[-1]] = max(best.get(places[-1], -np.inf), score)
    return best


def naive_moments(a: tuple[float, float], b: tuple[float, float], within: float) -> bool:
    overlap = max(0.0, a[1] - b[0])
    shorter = min(a[1] - a[0], b[1] - b[0])
    return a[0] < b[0] and a[1] < b[1] and overlap <= shorter / 2 and b[0] - a[1] <= within


def naive_segments(a: tuple[float, float], b: tuple[float, float], within: float) -> bool:
    return a[0] <= b[0] and b[0] - a[1] <= within


@pytest.mark.parametrize(
    ("follows", "naive"), [(moments_follow, naive_moments), (segments_may_follow, naive_segments)]
)
@pytest.mark.parametrize("num_steps", [1, 2, 3])
def test_chains_are_those_of_brute_force(follows: object, naive: object, num_steps: int) -> None:
    rng = np.random.default_rng(num_steps)
    for within in (0.0, 3.0, 100.0):
        for _ in range(20):
            steps = [random_spans(rng, int(rng.integers(1, 7))) for _ in range(num_steps)]
            rule: Follows = follows(within)  # type: ignore[operator]
            expected = brute_force(steps, naive, within)
            chains = best_chains(steps, rule, 100)
            assert {chain.places[-1]: chain.score for chain in chains} == pytest.approx(expected)
            assert [c.score for c in chains] == sorted((c.score for c in chains), reverse=True)
            assert best_chains(steps, rule, 2) == chains[:2]
            for chain in chains:
                spans = [(s.start[p], s.end[p]) for s, p in zip(steps, chain.places, strict=True)]
                assert all(naive(a, b, within) for a, b in itertools.pairwise(spans))  # type: ignore[operator]


def test_a_step_without_spans_or_scores_has_no_chain() -> None:
    spans, none = random_spans(np.random.default_rng(0), 3), Spans(*np.zeros((3, 0)))
    assert best_chains([spans, none], moments_follow(9), 5) == []
    assert best_chains([none, spans], moments_follow(9), 5) == []
    unreached = Spans(spans.start, spans.end, np.full(3, -np.inf))
    assert best_chains([spans, unreached], segments_may_follow(9), 5) == []


def test_the_order_of_the_steps_counts(searcher: Searcher) -> None:
    for texts in (("red", "blue"), ("blue", "red")):
        hits = good(find(searcher, sequence(*texts)).hits)
        other = " then ".join(reversed(texts)) + ".mp4"
        assert names(hits)[0] in (" then ".join(texts) + ".mp4", "twice.mp4")
        assert " then ".join(texts) + ".mp4" in names(hits)
        assert other not in names(hits)


def test_a_hit_has_the_span_of_each_step(searcher: Searcher) -> None:
    hits = find(searcher, sequence("red", "blue"), explain=True).hits
    hit = next(hit for hit in hits if hit.path.endswith("red then blue.mp4"))
    assert hit.steps is not None
    red, blue = (step.moment for step in hit.steps)
    assert [step.text for step in hit.steps] == ["red", "blue"]
    assert (red.start_seconds, red.end_seconds) == pytest.approx((10, 16), abs=1.2)
    assert (blue.start_seconds, blue.end_seconds) == pytest.approx((20, 26), abs=1.2)
    assert (hit.start_seconds, hit.end_seconds) == (red.start_seconds, blue.end_seconds)
    assert hit.score == pytest.approx((red.score + blue.score) / 2, abs=2e-6)
    assert hit.similarity == pytest.approx((red.similarity + blue.similarity) / 2, abs=2e-6)
    ids = {frame.frame_id for step in hit.steps for frame in step.moment.frames}
    assert {frame.frame_id for frame in hit.frames} == ids
    assert len(hit.frames) == len(ids)
    assert hit.explanation is None
    for step in hit.steps:
        assert step.explanation is not None
        assert step.explanation.similarity == step.moment.similarity
    assert all(
        step.explanation is None for step in find(searcher, sequence("red", "blue")).hits[0].steps or ()
    )


def test_a_step_begins_in_time_after_the_one_before(searcher: Searcher) -> None:
    def found(within_seconds: float) -> set[str]:
        return set(names(good(find(searcher, sequence("red", "blue", within_seconds=within_seconds)).hits)))

    assert "far apart.mp4" not in found(60)
    assert "far apart.mp4" in found(100)
    assert found(1) == {"twice.mp4"}
    assert "red then blue.mp4" in found(10)


def test_a_video_may_have_several(searcher: Searcher) -> None:
    hits = [
        hit for hit in good(find(searcher, sequence("red", "blue")).hits) if hit.path.endswith("twice.mp4")
    ]
    spans = sorted((hit.start_seconds, hit.end_seconds) for hit in hits)
    assert spans[0] == pytest.approx((0, 16), abs=1.6)
    assert spans[-1] == pytest.approx((96, 120), abs=1.6)
    for one, other in itertools.pairwise(spans):
        assert one[1] <= other[0]
    videos = find(searcher, sequence("red", "blue"), group_by="video").hits
    assert len({hit.video_id for hit in videos}) == len(videos)
    twice = next(hit for hit in videos if hit.path.endswith("twice.mp4"))
    assert twice.moments is not None
    assert twice.steps is not None
    assert twice.moments[0].score == twice.score
    assert [moment.score for moment in twice.moments] == sorted(
        (m.score for m in twice.moments), reverse=True
    )
    (only,) = find(searcher, sequence("red", "blue"), 1, group_by="video", moments_per_video=1).hits
    assert only.moments is not None
    assert len(only.moments) == 1


def test_three_steps(searcher: Searcher) -> None:
    hits = good(find(searcher, sequence("red", "green", "blue")).hits)
    assert names(hits) == ["twice.mp4"]
    assert hits[0].start_seconds == pytest.approx(96, abs=1.6)


@pytest.mark.parametrize("texts", [("red", "blue"), ("blue", "red"), ("red", "green", "blue")])
def test_hits_are_those_of_a_naive_search(searcher: Searcher, texts: tuple[str, ...]) -> None:
    """All moments of every text, as it finds them alone, in all combinations.

    Where a moment that shows nothing of its text ends, depends on the segments that are looked at together.
    """
    of_step = [
        [
            hit
            for hit in searcher.search(text, 1000, BY_MOMENT).hits
            if max(map(relevance_of, hit.frames)) > 0.9
        ]
        for text in texts
    ]
    best: dict[str, float] = {}
    for chain in itertools.product(*of_step):
        spans = [(hit.start_seconds, hit.end_seconds) for hit in chain]
        if len({hit.video_id for hit in chain}) == 1 and all(
            naive_moments(a, b, 60) for a, b in itertools.pairwise(spans)
        ):
            score = sum(hit.score for hit in chain) / len(chain)
            best[chain[0].video_id] = max(best.get(chain[0].video_id, -np.inf), score)
    found = find(searcher, sequence(*texts), 1000, group_by="video").hits
    assert names(found[:2]) == names(find(searcher, sequence(*texts), 2, group_by="video").hits)
    found = good(found)
    assert {hit.video_id: hit.score for hit in found} == pytest.approx(best, abs=1e-4)
    scores = [hit.score for hit in found]
    assert scores == sorted(scores, reverse=True)


def test_one_video_is_searched_alone(searcher: Searcher) -> None:
    tape = next(v.video_id for v in searcher.snapshot.videos(0, 99) if v.path.endswith("twice.mp4"))
    hits = open_query(searcher, sequence("red", "blue"), 20, BY_MOMENT, video_id=tape).result.hits
    assert {hit.video_id for hit in hits} == {tape}
    assert len(good(hits)) == 2
    with pytest.raises(NotFoundError):
        open_query(searcher, sequence("red", "blue"), 20, BY_MOMENT, video_id="0" * 16)


def test_a_deadline_that_has_passed_leaves_the_first_stage(searcher: Searcher) -> None:
    late = find(searcher, sequence("red", "blue"), deadline=time.monotonic() - 1)
    usual = find(searcher, sequence("red", "blue"))
    if usual.reranked:
        assert (late.reranked, late.rerank_skipped, late.num_candidates) == (False, "deadline", 0)
        assert usual.num_candidates == usual.num_candidates_wanted > 0
    assert late.hits == find(searcher, sequence("red", "blue"), rerank=False).hits


def test_there_are_no_probabilities(searcher: Searcher) -> None:
    result = find(searcher, sequence("red", "blue"))
    calibrated = searcher.bundle.manifest.calibration is not None
    assert result.probability_skipped == ("not_a_text" if calibrated else "not_calibrated")
    assert result.best_guess is None
    with pytest.raises(QueryError, match=r"no probabilities|one text"):
        searcher.check(SearchOptions(min_probability=0.5), sequence("red", "blue"))


def test_a_step_that_is_not_understood_is_named(searcher: Searcher) -> None:
    with pytest.raises(NotUnderstoodError, match='does not know "zzz"') as caught:
        find(searcher, sequence("red", "zzz"))
    assert caught.value.field == "/query/sequence/1/text"


def test_lines_of_text_count_in_their_step(searcher: Searcher) -> None:
    options = replace(BY_MOMENT, modalities=Modalities(name=1))
    hits = ask(searcher, sequence("twice red", "blue"), 20, options).hits
    twice = next(hit for hit in hits if hit.path.endswith("twice.mp4"))
    assert twice.steps is not None
    assert twice.steps[0].moment.text_matches


def test_what_is_damaged_is_left_out(tmp_path: Path) -> None:
    toy = make_library(tmp_path, FILMS, matcher=False)
    # What is kept in memory is not met when it is damaged.
    settings = load_settings({"library": toy.library, "bundle": toy.bundle, "row_cache_mb": 0})
    searcher = open_searcher(settings)
    snapshot = searcher.snapshot
    tape = next(v.video_id for v in snapshot.videos(0, 99) if v.path.endswith("red then blue.mp4"))
    before = good(find(searcher, sequence("red", "blue")).hits)
    damaged = snapshot.segment_rows(tape)
    assert snapshot._segments._checksums is not None
    checksums = snapshot._segments._checksums.copy()
    checksums[damaged] += 1
    snapshot._segments._checksums = checksums
    result = find(searcher, sequence("red", "blue"))
    assert {warning.kind for warning in result.library_warnings} == {"damaged_segments"}
    assert set(names(good(result.hits))) == set(names(before)) - {"red then blue.mp4"}


def test_a_large_library_gives_its_best_sequences_only(searcher: Searcher) -> None:
    """With few candidates, the chains that are looked into are the best of the first stage."""
    few = find(searcher, sequence("red", "blue"), 1, num_candidates=1)
    assert good(few.hits) == few.hits
    assert len(few.hits) == 1
