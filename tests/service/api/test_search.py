"""Search over HTTP on the real server: generated videos, toy bundle, so that hits and relevance are known."""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.api.answers import search_body
from service.search.query import clean_text
from service.search.searcher import Searcher, SearchOptions
from tests.support.server import Server, running_server
from tests.support.toy_bundle import colour_embedding, salience, segment_embedding, text_embedding
from tests.support.toy_library import ToyLibrary, make_library


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_library(tmp_path_factory.mktemp("search"))


def names(hits: list[dict[str, Any]]) -> list[str]:
    return [Path(hit["path"]).name for hit in hits]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("red", "red.mp4"),
        ("something green", "green.mp4"),
        ("BLUE", "ein Film, früher.mp4"),
        ("white", "long.mp4"),
    ],
)
def test_a_colour_finds_its_video(server: Server, text: str, first: str) -> None:
    assert names(server.search(text))[0] == first


def test_every_video_comes_once_best_first(server: Server) -> None:
    hits = server.search("red", top_k=100)
    assert sorted(names(hits)) == sorted(
        ["red.mp4", "green.mp4", "ein Film, früher.mp4", "traffic.mp4", "long.mp4"]
    )
    scores = [hit["score"] for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert names(hits)[:2] == ["red.mp4", "traffic.mp4"]


@pytest.mark.parametrize(("text", "start", "end"), [("black", 0, 24), ("cyan", 24, 48), ("white", 48, 72)])
def test_a_long_video_comes_at_its_best_segment(server: Server, text: str, start: float, end: float) -> None:
    hit = server.search(text, top_k=1)[0]
    assert Path(hit["path"]).name == "long.mp4"
    assert (hit["start_seconds"], hit["end_seconds"]) == pytest.approx((start, end))
    times = [frame["pts_seconds"] for frame in hit["frames"]]
    assert times == sorted(times)
    assert len(times) == 16
    assert start <= times[0] < times[-1] < end


def test_score_and_relevance_are_those_of_the_model(server: Server) -> None:
    hit = next(hit for hit in server.search("yellow") if hit["path"].endswith("traffic.mp4"))
    frames = hit["frames"]
    colours = [("red", "yellow", "green")[int(frame["pts_seconds"])] for frame in frames]
    embedding = np.stack([colour_embedding(colour) for colour in colours])
    query = text_embedding("yellow")
    # Video codecs and half precision move colours and salience a little.
    expected = salience(embedding) @ salience(query)
    assert [frame["relevance"] for frame in frames] == pytest.approx(expected.tolist(), abs=0.03)
    whole = segment_embedding(embedding[None], np.ones((1, len(colours)), np.bool_))[0]
    assert hit["similarity"] == pytest.approx(float(whole @ query), abs=0.03)
    assert hit["score"] == pytest.approx(hit["match_score"] + hit["similarity"], abs=2e-6)
    best = max(frames, key=lambda frame: frame["relevance"])
    assert 1.0 <= best["pts_seconds"] < 2.0


def test_the_answer_has_what_is_promised_and_no_more(server: Server) -> None:
    body = server.client.post("/v1/search", json={"query": {"text": "red"}, "top_k": 1}).json()
    told = {
        "hits",
        "best_guess",
        "probability_skipped",
        "snapshot",
        "reranked",
        "rerank_skipped",
        "num_candidates",
        "num_candidates_wanted",
        "rerank_reduced",
        "query_warnings",
        "library_warnings",
        "timings_ms",
        "num_videos",
        "next_page_token",
    }
    assert set(body) == told
    assert body["snapshot"] == 1
    stages = {"encode_text", "retrieve", "salience", "tokens", "match", "moments", "texts", "fetch", "total"}
    assert set(body["timings_ms"]) == stages | {"encode_image"}
    assert all((value > 0) == (stage in stages) for stage, value in body["timings_ms"].items())
    hit = body["hits"][0]
    place = {"video_id", "path", "missing", "title", "file_title", "tags"}
    place |= {"captured_at", "captured_source", "place", "camera", "has_sound"}
    place |= {"start_seconds", "end_seconds", "container_start_seconds"}
    told = {"score", "similarity", "match_score", "probability", "level", "frames", "text_matches"}
    assert set(hit) == place | told | {"moments", "steps", "explanation"}
    assert set(hit["frames"][0]) == {"frame_id", "pts_seconds", "relevance", "salient", "match_score"}


def test_titles_come_from_the_files(server: Server) -> None:
    titles = {Path(hit["path"]).name: hit["title"] for hit in server.search("red")}
    assert titles["traffic.mp4"] == "Traffic lights"
    assert titles["red.mp4"] is None


@pytest.mark.parametrize("text", ["12 % of … red", "zzz red", "a\nred\tcar", "red собака 犬 👩‍👩‍👧"])
def test_unknown_words_leave_the_others_searched(server: Server, text: str) -> None:
    assert len(server.search(text, top_k=3)) == 3


def test_top_k_is_ten_unless_told_and_null_is_unset(server: Server, toy: ToyLibrary) -> None:
    everything = server.search("red")
    assert everything == server.search("red", top_k=None) == server.search("red", top_k=1000)
    assert server.search("red", top_k=2) == everything[:2]


def test_the_server_and_the_searcher_give_the_same_hits(server: Server, searcher: Searcher) -> None:
    for text in ("red", "cyan car", "unknown white"):
        local = searcher.search(clean_text(text, 100), 10, SearchOptions(group_by="moment"))
        assert server.search(text) == json.loads(search_body(local))["hits"]


def test_a_batch_ranks_as_single_queries_do(searcher: Searcher) -> None:
    texts = ["red", "green car", "blue and yellow", "zzz white"]
    batch = searcher.rank_all(texts)
    assert batch.ensemble is not None
    for row, text in enumerate(texts):
        single = searcher.rank_all([text])
        assert single.ensemble is not None
        np.testing.assert_allclose(batch.similarity[row : row + 1], single.similarity, atol=2e-6)
        np.testing.assert_allclose(batch.ensemble[row : row + 1], single.ensemble, atol=2e-4)
    snapshot = searcher.snapshot
    ids = [video.video_id for video in snapshot.videos(0, snapshot.count_videos())]
    for rerank, scores in ((False, batch.similarity), (True, batch.ensemble)):
        for row, text in zip(scores, texts, strict=True):
            found = searcher.search(text, 100, SearchOptions(rerank=rerank)).hits
            expected = {ids[i]: float(score) for i, score in enumerate(row)}
            assert {hit.video_id: hit.score for hit in found} == pytest.approx(expected, abs=2e-4)


def test_concurrent_searches_answer_as_one_does(server: Server) -> None:
    texts = ["red", "green", "blue", "cyan", "white", "black"] * 4
    expected = {text: server.search(text) for text in set(texts)}
    found: dict[int, list[dict[str, Any]]] = {}

    def ask(position: int) -> None:
        found[position] = server.search(texts[position])

    threads = [threading.Thread(target=ask, args=(position,)) for position in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[position] for position in range(len(texts))] == [expected[text] for text in texts]


def test_a_library_says_what_it_is(server: Server) -> None:
    info = server.client.get("/v1/library").json()
    assert (info["snapshot"], info["num_videos"], info["num_segments"]) == (1, 5, 7)
    assert info["hours"] == pytest.approx((2 + 2 + 2 + 3 + 72) / 3600, abs=1e-3)
    assert (info["problem"], info["cannot_rerank"]) == (None, None)
    assert info["bundle"]["name"] == "toy"
    assert len(info["bundle"]["checksum"]) == 64
    assert info["bundle"]["provenance"]["recipe"] == "tests/support/toy_bundle.py"


def test_videos_are_listed_by_page(server: Server) -> None:
    whole = server.client.get("/v1/videos").json()
    assert whole["total"] == 5
    paths = [video["path"] for video in whole["videos"]]
    assert paths == sorted(paths)
    page = server.client.get("/v1/videos", params={"offset": 1, "limit": 2}).json()
    assert (page["videos"], page["total"]) == (whole["videos"][1:3], 5)
    for asked, total in (({"offset": 5}, 5), ({"verdict": "corrupt"}, 0)):
        page = server.client.get("/v1/videos", params=asked).json()
        assert (page["videos"], page["total"], page["next_page_token"]) == ([], total, None)


def test_one_video(server: Server) -> None:
    hit = server.search("white", top_k=1)[0]
    video = server.client.get(f"/v1/videos/{hit['video_id']}").json()
    assert video["path"] == hit["path"]
    assert (video["verdict"], video["num_segments"]) == ("ok", 3)
    assert (video["width"], video["height"], video["codec"]) == (64, 48, "h264")
    assert video["duration_seconds"] == pytest.approx(72)


def test_alive_and_ready(server: Server) -> None:
    assert server.client.get("/healthz").json() == {"status": "alive"}
    ready = server.client.get("/readyz").json()
    assert (ready["status"], ready["snapshot"], ready["degraded"]) == ("ready", 1, [])
    assert ready["scrub"]["round_hours"] == 24
    assert server.client.head("/healthz").status_code == 200


def test_metrics_count_requests_by_route_and_stages_of_searches(server: Server) -> None:
    server.search("red")
    server.client.get("/v1/videos/0123456789abcdef")
    server.client.get("/no/such/page")
    text = server.client.get("/metrics").text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    ok = values['reelfind_http_requests_total{method="POST",route="/v1/search",status="200"}']
    assert float(ok) >= 1
    assert 'reelfind_http_requests_total{method="GET",route="/v1/videos/{video_id}",status="404"}' in values
    assert 'reelfind_http_requests_total{method="GET",route="unmatched",status="404"}' in values
    for stage in ("encode_text", "retrieve", "salience", "tokens", "match", "fetch", "total"):
        assert float(values[f'reelfind_search_stage_seconds_count{{stage="{stage}"}}']) >= 1
    assert float(values["reelfind_snapshot_number"]) == 1
    assert float(values["reelfind_videos"]) == 5
    assert float(values["reelfind_segments"]) == 7


def test_the_page_and_its_files_are_served_with_security_headers(server: Server) -> None:
    page = server.client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    style = server.client.get("/static/style.css")
    assert style.headers["content-type"].startswith("text/css")
    assert style.headers["cache-control"] == "no-cache"
    fresh = server.client.get("/static/style.css", headers={"If-None-Match": style.headers["etag"]})
    assert (fresh.status_code, fresh.headers["cache-control"]) == (304, "no-cache")
    assert (
        "access-control-allow-origin"
        not in server.client.get("/", headers={"Origin": "https://a.example"}).headers
    )


def test_other_sites_may_call_where_it_is_allowed(toy: ToyLibrary) -> None:
    environment = {"REELFIND_CORS_ORIGINS": "https://a.example"}
    with running_server(*toy.options, environment=environment) as server:
        allowed = server.client.get("/v1/library", headers={"Origin": "https://a.example"})
        assert allowed.headers["access-control-allow-origin"] == "https://a.example"
        other = server.client.get("/v1/library", headers={"Origin": "https://b.example"})
        assert "access-control-allow-origin" not in other.headers
