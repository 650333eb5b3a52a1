"""Moments in searches: over real films, the toy bundle and its moment head, against stored frames."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from model.runtime.bundle import HubnessCorrection
from model.runtime.bundle.manifest import SalienceMatch
from service.errors import NotFoundError
from service.search.results import Hit, VideoMoment
from service.search.searcher import Searcher, SearchOptions
from tests.service.search.test_hubness import WEIGHT, references, searcher_of
from tests.service.search.test_two_stages import LAMBDA
from tests.support.frame_evidence import relevance_of
from tests.support.server import Server
from tests.support.toy_bundle import match_logit, text_embedding, unit
from tests.support.toy_library import ToyLibrary, make_library

#: `tape.mp4` is four segments of 28 s that show red three times; once across the border of two segments.
FILMS = {
    "red.mp4": [("red", 2.0)],
    "green.mp4": [("green", 6.0)],
    "mixed.mp4": [("black", 8.0), ("yellow", 8.0), ("green", 8.0)],
    "tape.mp4": [
        ("blue", 10.0),
        ("red", 10.0),
        ("black", 26.0),
        ("red", 20.0),
        ("white", 20.0),
        ("red", 8.0),
        ("cyan", 18.0),
    ],
}
RED_IN_TAPE = [(10.0, 20.0), (46.0, 66.0), (86.0, 94.0)]
MATCH = SalienceMatch(scale=12.0, bias=-6.0)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_library(tmp_path_factory.mktemp("moments"), FILMS, moments="edges", ensemble_lambda=LAMBDA)


@pytest.fixture(scope="module")
def by_rule(tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    folder = tmp_path_factory.mktemp("rule")
    return searcher_of(make_library(folder, FILMS, matcher=False, salience_match=MATCH))


def find(searcher: Searcher, text: str, top_k: int = 5, **options: object) -> list[Hit]:
    return searcher.search(text, top_k, SearchOptions(group_by="moment", **options)).hits  # type: ignore[arg-type]


def name_of(hit: Hit) -> str:
    return Path(hit.path).name


def overlap(moment: Hit | VideoMoment, span: tuple[float, float]) -> float:
    shared = min(moment.end_seconds, span[1]) - max(moment.start_seconds, span[0])
    return max(shared, 0) / (max(moment.end_seconds, span[1]) - min(moment.start_seconds, span[0]))


@pytest.mark.parametrize("rerank", [True, False])
def test_a_scene_that_comes_three_times_is_found_three_times(searcher: Searcher, rerank: bool) -> None:
    """Across the border of segments too."""
    hits = find(searcher, "red", rerank=rerank)
    assert name_of(hits[0]) in ("red.mp4", "tape.mp4")
    in_tape = [hit for hit in hits if name_of(hit) == "tape.mp4"]
    for span in RED_IN_TAPE:
        assert max(overlap(hit, span) for hit in in_tape) > 0.7, (span, in_tape)
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert all(hit.moments is None for hit in hits)


def test_without_a_moment_head_too(by_rule: Searcher) -> None:
    hits = find(by_rule, "red")
    in_tape = [hit for hit in hits if name_of(hit) == "tape.mp4"]
    for span in RED_IN_TAPE:
        assert max(overlap(hit, span) for hit in in_tape) > 0.7, (span, in_tape)


def test_moments_of_a_video_do_not_overlap(searcher: Searcher, by_rule: Searcher) -> None:
    for each in (searcher, by_rule):
        for text in ("red", "black", "green and red", "unknown white"):
            spans: dict[str, list[tuple[float, float]]] = {}
            for hit in find(each, text, 50):
                spans.setdefault(hit.video_id, []).append((hit.start_seconds, hit.end_seconds))
            for of_video in spans.values():
                of_video.sort()
                assert all(a[1] <= b[0] for a, b in pairwise(of_video))


def test_the_frames_of_a_moment_lie_in_it_and_explain_its_score(searcher: Searcher) -> None:
    embedding = text_embedding("red")
    for hit in find(searcher, "red", 50, explain=True, num_salient_frames=2):
        assert hit.frames
        for frame in hit.frames:
            assert hit.start_seconds - 2 <= frame.pts_seconds <= hit.end_seconds + 2
            assert searcher.snapshot.thumbnail(frame.frame_id)
        fit = [relevance_of(frame) for frame in hit.frames]
        salient = [frame for frame in hit.frames if frame.salient]
        assert sorted(map(relevance_of, salient), reverse=True) == sorted(fit, reverse=True)[: len(salient)]
        assert len(salient) == min(2, len(fit))
        assert hit.match_score is not None
        assert hit.match_score == pytest.approx(np.mean([frame.match_score for frame in salient]), abs=1e-4)
        assert hit.explanation is not None
        visual = hit.match_score + LAMBDA * hit.similarity
        assert hit.score == pytest.approx(visual + hit.explanation.text_term, abs=1e-4)
        # The saliences of this bundle are embeddings: the similarity follows from the frames.
        rows = searcher.snapshot.segment_rows(hit.video_id)
        vectors = {
            frame_id: vector
            for record in searcher.snapshot.segments(rows)
            for frame_id, vector in zip(record.frame_ids, record.frame_salience, strict=True)
        }
        shown = np.stack([vectors[frame.frame_id] for frame in hit.frames])
        if len(shown) <= 16:
            own = float(unit(shown.sum(0)) @ embedding)
            within = searcher.snapshot.segment_rows(hit.video_id, hit.start_seconds, hit.end_seconds)
            wholes = searcher.snapshot.scores_of(embedding, within).tolist()
            assert any(hit.similarity == pytest.approx(max(own, each), abs=2e-3) for each in [own, *wholes])
            assert hit.similarity >= own - 2e-3


def test_a_match_equals_that_of_the_stored_tokens(searcher: Searcher) -> None:
    """Of frames that the re-ranking matched, and of those that only the moments need."""
    checked = 0
    for hit in find(searcher, "green", 50, num_salient_frames=4, num_candidates=100):
        places = {
            frame_id: (record.row, place)
            for record in searcher.snapshot.segments(searcher.snapshot.segment_rows(hit.video_id))
            for place, frame_id in enumerate(record.frame_ids)
        }
        for frame in hit.frames:
            if frame.match_score is not None:
                row, place = places[frame.frame_id]
                (tokens,) = searcher.snapshot.frame_tokens([row], [place])
                assert frame.match_score == pytest.approx(match_logit("green", tokens), abs=1e-3)
                checked += 1
    assert checked > 10


def test_videos_come_once_with_their_best_moments(searcher: Searcher) -> None:
    options = SearchOptions(group_by="video", moments_per_video=2)
    hits = searcher.search("red", 10, options).hits
    assert len(hits) == len({hit.video_id for hit in hits}) == len(FILMS)
    for hit in hits:
        assert hit.moments is not None
        assert 1 <= len(hit.moments) <= 2
        best = hit.moments[0]
        assert (hit.start_seconds, hit.end_seconds, hit.score) == (
            best.start_seconds,
            best.end_seconds,
            best.score,
        )
        assert [x.score for x in hit.moments] == sorted((x.score for x in hit.moments), reverse=True)
    tape = next(hit for hit in hits if name_of(hit) == "tape.mp4")
    assert tape.moments is not None
    assert len(tape.moments) == 2
    more = searcher.search("red", 10, SearchOptions(group_by="video", moments_per_video=9)).hits
    tape = next(hit for hit in more if name_of(hit) == "tape.mp4")
    assert tape.moments is not None
    for span in RED_IN_TAPE:
        assert max(overlap(moment, span) for moment in tape.moments) > 0.7


def test_one_video_is_searched_alone(searcher: Searcher) -> None:
    tape = next(hit for hit in find(searcher, "red", 50) if name_of(hit) == "tape.mp4").video_id
    answer = searcher.search_video(tape, "red", 3, SearchOptions(group_by="moment"))
    assert {hit.video_id for hit in answer.hits} == {tape}
    assert answer.num_candidates == 4
    for span in RED_IN_TAPE:
        assert max(overlap(hit, span) for hit in answer.hits) > 0.7
    with pytest.raises(NotFoundError, match="0000000000000000"):
        searcher.search_video("0" * 16, "red", 3)


def test_as_many_hits_come_as_are_asked_for(searcher: Searcher, by_rule: Searcher) -> None:
    """As long as there are moments; more of them leave the first ones as they are, or nearly."""
    for each in (searcher, by_rule):
        whole = find(each, "red", 50)
        for count in (1, 2, 5):
            assert len(find(each, "red", count)) == count
        assert find(each, "red", 50, num_candidates=1)[0].video_id == whole[0].video_id


def test_what_was_not_reranked_comes_behind(searcher: Searcher) -> None:
    hits = find(searcher, "red", 50, num_candidates=2, explain=True)
    reranked = [hit for hit in hits if hit.match_score is not None]
    behind = [hit for hit in hits if hit.match_score is None]
    assert reranked
    assert behind
    assert hits == reranked + behind
    assert min(hit.score for hit in reranked) > max(hit.score for hit in behind)
    for hit in behind:
        assert hit.explanation is not None
        terms = hit.explanation
        total = (terms.tail_offset or 0) + terms.similarity_term + terms.text_term
        assert hit.score == pytest.approx(total, abs=1e-4)


def test_hubness_is_corrected_as_for_segments(tmp_path: Path) -> None:
    correction = HubnessCorrection(WEIGHT, 10, references())
    corrected = searcher_of(
        make_library(
            tmp_path, FILMS, moments="edges", hubness=correction, matcher=False, salience_match=MATCH
        )
    )
    assert corrected.snapshot.hubness is not None
    for hit in find(corrected, "red", 50, explain=True):
        terms = hit.explanation
        assert terms is not None
        assert terms.hubness is not None
        assert hit.match_score is not None
        assert hit.score == pytest.approx(
            hit.match_score + terms.similarity_term + (terms.hubness_term or 0) + terms.text_term, abs=1e-4
        )
        rows = corrected.snapshot.segment_rows(hit.video_id, hit.start_seconds, hit.end_seconds)
        assert any(terms.hubness == pytest.approx(corrected.snapshot.hubness[row], abs=1e-4) for row in rows)


def test_over_http(server: Server, searcher: Searcher) -> None:
    body = {"query": {"text": "red"}, "top_k": 4, "explain": True}
    answer = server.client.post("/v1/search", json=body).json()
    assert [hit["start_seconds"] for hit in answer["hits"]] == [
        hit.start_seconds for hit in find(searcher, "red", 4)
    ]
    assert answer["timings_ms"]["moments"] > 0
    videos = server.client.post("/v1/search", json=body | {"group_by": "video"}).json()["hits"]
    assert len({hit["video_id"] for hit in videos}) == len(videos) == 4
    assert all(1 <= len(hit["moments"]) <= 3 for hit in videos)
    tape = next(hit for hit in videos if hit["path"].endswith("tape.mp4"))
    one = server.client.post(f"/v1/videos/{tape['video_id']}/moments", json=body)
    assert one.status_code == 200
    assert {hit["video_id"] for hit in one.json()["hits"]} == {tape["video_id"]}
    wrong = server.client.post(f"/v1/videos/{'0' * 16}/moments", json=body)
    assert wrong.status_code == 404
    for fields in ({"group_by": "scene"}, {"moments_per_video": 0}, {"moments_per_video": 1.5}):
        assert server.client.post("/v1/search", json=body | fields).status_code == 422
    refused = server.client.post(f"/v1/videos/{tape['video_id']}/moments", json=body | {"group_by": "video"})
    assert refused.status_code == 422
