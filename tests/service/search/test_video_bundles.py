"""Bundles whose model reads whole segments, through the product: index, search, moments, figures.

Against the twins of the toy bundle in NumPy, which know the frames that the films are made of.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.runtime.bundle.manifest import SalienceMatch
from model.runtime.moment_spans import MomentRule
from model.runtime.ranking import SCORE_DECIMALS
from service.search.encoded_query import encode_text_queries
from service.search.results import Hit
from service.search.searcher import Searcher, SearchOptions
from service.search.stretches import find_moments, reach_of_moments, read_stretches
from tests.service.search.test_hubness import searcher_of
from tests.service.search.test_moments import FILMS, RED_IN_TAPE, name_of, overlap
from tests.support.command_line import invoke
from tests.support.frame_evidence import relevance_of
from tests.support.server import running_server
from tests.support.toy_bundle import text_embedding
from tests.support.toy_library import ToyLibrary, make_library

MATCH = SalienceMatch(scale=12.0, bias=-6.0)
TEXTS = ("red", "black", "green and red", "a yellow one")
_KINDS: dict[str, dict[str, Any]] = {
    "frames": {"matcher": False},
    "plain": {"video": True},
    "salience": {"video": "salience"},
    "matched": {"video": "salience", "salience_match": MATCH},
    "head": {"video": "salience", "moments": "edges"},
}


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ToyLibrary]:
    """Libraries of the same films, each with another kind of bundle; "frames" reads frame by frame."""
    home = tmp_path_factory.mktemp("video")
    return {kind: make_library(home / kind, FILMS, **options) for kind, options in _KINDS.items()}


@pytest.fixture(scope="module")
def searchers(toys: dict[str, ToyLibrary]) -> dict[str, Searcher]:
    return {kind: searcher_of(toy) for kind, toy in toys.items()}


def find(searcher: Searcher, text: str, **options: Any) -> list[Hit]:
    return searcher.search(text, 20, SearchOptions(**options)).hits


def segment_scores(searcher: Searcher, text: str) -> dict[tuple[str, float], float]:
    """The cosine of each segment's embedding with the text, by video and start."""
    snapshot = searcher.snapshot
    vectors = snapshot.index.vectors(np.arange(snapshot.num_segments))
    assert vectors is not None
    scores = (vectors @ text_embedding(text)).round(SCORE_DECIMALS)
    keys = [
        (snapshot.video_id_of(row), snapshot.segment_span(row)[0]) for row in range(snapshot.num_segments)
    ]
    return dict(zip(keys, scores.tolist(), strict=True))


@pytest.mark.parametrize("kind", ["plain", "salience", "matched", "head"])
def test_segments_are_embedded_as_frame_by_frame(searchers: dict[str, Searcher], kind: str) -> None:
    expected, found = (
        each.snapshot.index.vectors(np.arange(each.snapshot.num_segments))
        for each in (searchers["frames"], searchers[kind])
    )
    assert expected is not None
    assert found is not None
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("text", TEXTS)
def test_moments_are_whole_segments_where_nothing_is_known_of_frames(
    searchers: dict[str, Searcher], text: str
) -> None:
    searcher = searchers["plain"]
    expected = segment_scores(searcher, text)
    hits = find(searcher, text, group_by="moment", explain=True)
    assert len(hits) == len(expected) == searcher.snapshot.num_segments
    for hit in hits:
        assert hit.similarity == pytest.approx(expected[hit.video_id, hit.start_seconds], abs=1e-5)
        assert (hit.match_score, hit.score >= hit.similarity) == (None, True)
        assert hit.frames
        assert all((frame.relevance, frame.salient) == (None, False) for frame in hit.frames)
        assert hit.explanation is not None
        assert hit.explanation.frames == []
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    for grouped in find(searcher, text, group_by="video", moments_per_video=2):
        assert grouped.moments is not None
        own = [hit for hit in hits if hit.video_id == grouped.video_id][:2]
        assert [m.start_seconds for m in grouped.moments] == [hit.start_seconds for hit in own]


def test_known_cuts_do_not_change_that(searchers: dict[str, Searcher]) -> None:
    """Which of the shots of a segment a text speaks of is not known."""
    searcher = searchers["plain"]
    (query,) = encode_text_queries(searcher.bundle, ["red"], tokens=False)
    rows = np.arange(searcher.snapshot.num_segments)
    stretches = read_stretches(searcher.snapshot, rows, {}, (), reach_of_moments(searcher.bundle))
    plain = find_moments(searcher.bundle, query, stretches, MomentRule())
    cut = [replace(stretch, cuts=np.array([stretch.start_seconds + 1])) for stretch in stretches]
    assert [(x.row, x.start_seconds, x.end_seconds) for x in plain] == [
        (x.row, x.start_seconds, x.end_seconds)
        for x in find_moments(searcher.bundle, query, cut, MomentRule())
    ]
    assert sorted(moment.row for moment in plain) == rows.tolist()
    assert all(moment.is_segment for moment in plain)


def test_moments_inside_one_video(searchers: dict[str, Searcher]) -> None:
    searcher = searchers["plain"]
    tape = next(hit for hit in find(searcher, "red", group_by="moment") if name_of(hit) == "tape.mp4")
    answer = searcher.search_video(tape.video_id, "red", 10, SearchOptions(group_by="moment"))
    spans = sorted((hit.start_seconds, hit.end_seconds) for hit in answer.hits)
    rows = searcher.snapshot.segment_rows(tape.video_id)
    expected = [searcher.snapshot.segment_span(int(row)) for row in rows]
    np.testing.assert_allclose(spans, expected, atol=1e-3)
    # A name alone finds the best segment of its video.
    named = searcher.search("tape", 10, SearchOptions(group_by="video")).hits
    assert named[0].text_matches


@pytest.mark.parametrize("kind", ["salience", "matched", "head"])
def test_moments_within_segments_where_frames_have_salience(
    searchers: dict[str, Searcher], kind: str
) -> None:
    hits = find(searchers[kind], "red", group_by="moment")
    in_tape = [hit for hit in hits if name_of(hit) == "tape.mp4"]
    for span in RED_IN_TAPE:
        assert max(overlap(hit, span) for hit in in_tape) > 0.7, (span, in_tape)
    # A video encoder embeds whole segments alone: a moment has the similarity of its segment.
    known = set(segment_scores(searchers[kind], "red").values())
    for hit in hits:
        assert min(abs(hit.similarity - score) for score in known) < 1e-5
        salient = [frame for frame in hit.frames if frame.salient]
        assert salient
        best = max(relevance_of(frame) for frame in hit.frames)
        assert max(map(relevance_of, salient)) == best


@pytest.mark.parametrize(
    ("kind", "skipped"),
    [("plain", "no_matcher"), ("salience", "no_matcher"), ("head", "no_matcher"), ("matched", None)],
)
def test_what_cannot_re_rank_says_so(
    searchers: dict[str, Searcher], toys: dict[str, ToyLibrary], kind: str, skipped: str | None
) -> None:
    for group_by in ("moment", "video", "segment"):
        options = SearchOptions(group_by=group_by, rerank=True, num_candidates=5, num_salient_frames=3)
        answer = searchers[kind].search("red", 5, options)
        assert (answer.rerank_skipped, answer.reranked) == (skipped, skipped is None)
        assert all((hit.match_score is None) == (skipped is not None) for hit in answer.hits[:1])
    shown = invoke("search", "red", "--explain", *toys[kind].options)
    assert shown.exit_code == 0
    assert ("note: not re-ranked: the bundle has no match" in shown.stderr) == (skipped is not None)


def test_evaluation(toys: dict[str, ToyLibrary], tmp_path: Path) -> None:
    queries = tmp_path / "queries.jsonl"
    rows = [
        ("red", "red.mp4"),
        ("green", "green.mp4"),
        ("yellow and black", "mixed.mp4"),
        ("cyan", "tape.mp4"),
    ]
    queries.write_text("".join(json.dumps({"query": q, "video": v}) + "\n" for q, v in rows))
    figures = {}
    for kind in ("frames", "plain"):
        result = invoke("eval", "--queries", queries, "--json", *toys[kind].options)
        assert result.exit_code == 0, result.stderr
        figures[kind] = json.loads(result.stdout)
        assert figures[kind]["rerank_skipped"] == "no_matcher"
    assert figures["plain"]["global"] == figures["frames"]["global"]
    moments = tmp_path / "moments.jsonl"
    row = {"query": "red", "video": "tape.mp4", "start_seconds": 46.0, "end_seconds": 66.0}
    moments.write_text(json.dumps(row) + "\n")
    assert invoke("eval", "--queries", moments, *toys["plain"].options).exit_code == 0


def test_over_http_and_in_reports(toys: dict[str, ToyLibrary]) -> None:
    toy = toys["plain"]
    assert invoke("library", "info", *toy.options[:2]).exit_code == 0
    report = invoke("doctor", *toy.options)
    assert report.exit_code == 0, report.output
    with running_server(*toy.options) as server:
        answer = server.ask("red", top_k=3)
        assert {frame["relevance"] for hit in answer["hits"] for frame in hit["frames"]} == {None}
        assert (answer["reranked"], answer["rerank_skipped"]) == (False, "no_matcher")
        assert server.client.get("/v1/library").json()["cannot_rerank"] == "no_matcher"
