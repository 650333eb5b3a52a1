"""Batches of searches: each answer is that of the search alone, and others do not wait for a batch."""

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from service.api.batch_turns import BatchTurns
from tests.support.problems import check_problem
from tests.support.server import PATIENT, Server, running_server
from tests.support.toy_library import FILMS, ToyLibrary, make_library

pytestmark = pytest.mark.slow
BATCH = "/v1/search/batch"
TEXTS = ["red", "a green car", "blue and white", "BLACK", "cyan magenta yellow", "red white green blue " * 8]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    films = {f"{number}.mp4": [("red", 0.5), ("green", number / 4)] for number in range(1, 20)}
    return make_library(tmp_path_factory.mktemp("batch"), {**FILMS, **films})


@pytest.fixture(scope="module")
def server(toy: ToyLibrary) -> Iterator[Server]:
    with running_server(*toy.options, environment={**PATIENT, "REELFIND_SEARCH_THREADS": "2"}) as server:
        yield server
        assert "Traceback" not in server.log()


def batch(server: Server, searches: list[dict[str, Any]], **fields: object) -> list[dict[str, Any]]:
    response = server.client.post(BATCH, json={"searches": searches, **fields}, timeout=300)
    assert response.status_code == 200, response.text
    results: list[dict[str, Any]] = response.json()["results"]
    assert len(results) == len(searches)
    assert all((result["answer"] is None) != (result["problem"] is None) for result in results)
    return results


def same(one: Any, other: Any) -> bool:
    """Whether two answers are equal, but for the last decimals, in which a batch of texts may differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = one.keys() | other.keys()
        return all(same(one.get(key), other.get(key)) for key in keys if key not in ("timings_ms", "formula"))
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= 2e-4
    return bool(one == other)


def test_each_answer_is_that_of_the_search_alone(server: Server) -> None:
    frame = server.search("red")[0]["frames"][0]["frame_id"]
    searches: list[dict[str, Any]] = [
        *({"query": {"text": text}, "top_k": 3 + place, "explain": True} for place, text in enumerate(TEXTS)),
        {"query": {"text": "red", "not_text": "green"}, "group_by": "video"},
        {"query": {"text": "red"}, "rerank": False},
        {"query": {"frame_id": frame}},
        {"query": {"text": "blue", "example": {"frame_id": frame}}},
        {"query": {"original": {"text": "white"}, "like": [{"frame_id": frame}]}},
        {"query": {"sequence": [{"text": "black"}, {"text": "cyan"}]}},
        {"query": {"video_id": server.video_id("/long.mp4")}, "num_candidates": 3},
    ]
    results = batch(server, searches)
    for search, result in zip(searches, results, strict=True):
        alone = server.client.post("/v1/search", json=search).json()
        assert same(result["answer"], alone), (search, result, alone)
    assert results[0]["answer"]["hits"]
    assert results[0]["answer"]["reranked"]


def test_pages_follow_as_those_of_a_search_alone(server: Server) -> None:
    search: dict[str, Any] = {"query": {"text": "red"}, "top_k": 2}
    (first,) = batch(server, [search])
    token = first["answer"]["next_page_token"]
    assert token
    alone = server.client.post("/v1/search", json={**search, "page_token": token}).json()
    (second,) = batch(server, [{**search, "page_token": token}])
    assert same(second["answer"], alone)
    ids = [hit["frames"][0]["frame_id"] for answer in (first["answer"], alone) for hit in answer["hits"]]
    assert len(set(ids)) == len(ids) == 4
    (wrong,) = batch(server, [{"query": {"text": "green"}, "top_k": 2, "page_token": token}])
    assert "given for another request" in wrong["problem"]["detail"]


def test_searches_that_fail_have_their_own_problem(server: Server) -> None:
    searches: list[dict[str, Any]] = [
        {"query": {"text": "red"}},
        {"query": {"text": ""}},
        {"query": {"text": "zzz"}},
        {"query": {"frame_id": "x"}},
        {"query": {"image": "upload"}},
        {"query": {"text": "red"}, "top_k": 5000},
        {"query": {"text": "red"}, "min_probability": 0.5},
        {"query": {"text": "green"}},
    ]
    results = batch(server, searches)
    said = [
        None,
        "The query is empty",
        'does not know "zzz"',
        "No stored frame",
        "a batch takes no pictures",
        "top_k is 5000",
        "no probabilities",
        None,
    ]
    for result, message in zip(results, said, strict=True):
        if message is None:
            assert result["answer"]["hits"]
            continue
        problem = result["problem"]
        assert message in problem["detail"]
        assert problem["status"] == 422
        assert problem["type"].startswith("urn:reelfind:problem:")
        assert problem["errors"][0]["pointer"].startswith("#/")


@pytest.mark.parametrize(
    ("body", "pointer", "said"),
    [
        ({}, "#/searches", '"searches" is missing'),
        ({"searches": []}, "#/searches", "searches has 0 values; give at least 1"),
        ({"searches": [{"query": {"text": "red"}}] * 257}, "#/searches", "too many values; give at most 256"),
        ({"searches": [{"query": {"text": "red"}, "top_k": 0}]}, "#/searches/0/top_k", "at least 1"),
        ({"searches": [{"query": {"text": 5}}]}, "#/searches/0/query/text", "must be text, not 5"),
        (
            {"searches": [{"query": {"text": "red"}, "top_k": 1000}] * 11},
            "#/searches",
            "ask for 11,000 hits together; at most 10,000",
        ),
        ({"searches": [{"query": {"text": "red"}}], "deadline_ms": 0}, "#/deadline_ms", "at least 1"),
    ],
)
def test_batches_that_cannot_be_used(server: Server, body: object, pointer: str, said: str) -> None:
    problem = check_problem(server.client.post(BATCH, json=body), 422, said)
    assert problem["errors"][0]["pointer"] == pointer


def test_the_body_of_a_batch_may_be_larger(server: Server) -> None:
    long = [{"query": {"text": f"red {'very ' * 190}{number}"}, "rerank": False} for number in range(80)]
    assert all(result["answer"] for result in batch(server, long))
    body = {"searches": [{"query": {"text": "x" * 1_100_000}}]}
    check_problem(server.client.post(BATCH, json=body), 413, "larger than the limit of 1,048,576 bytes")


def test_a_deadline_of_the_batch_refuses_what_has_not_begun(server: Server) -> None:
    dear = {"query": {"text": TEXTS[-1]}, "num_candidates": 1000, "num_salient_frames": 16}
    results = batch(server, [dear] * 200, deadline_ms=200)
    problems = [result["problem"] for result in results if result["problem"]]
    assert problems
    assert {problem["status"] for problem in problems} == {503}
    assert {problem["type"] for problem in problems} == {"urn:reelfind:problem:overloaded"}
    assert "passed before this search's turn came" in problems[-1]["detail"]
    in_time = [result["answer"] for result in results if result["answer"]]
    assert all(answer["hits"] for answer in in_time)


def test_the_deadline_of_a_search_counts_from_its_turn(server: Server) -> None:
    """However many come before it, a search that takes no longer than its deadline is answered."""
    searches = [{"query": {"text": text}, "rerank": False, "deadline_ms": 20_000} for text in TEXTS * 40]
    assert all(result["answer"] for result in batch(server, searches))


def test_a_search_does_not_wait_for_a_batch_of_the_same_client(server: Server) -> None:
    dear = {"query": {"text": TEXTS[-1]}, "num_candidates": 1000, "num_salient_frames": 16}
    answered: list[float] = []

    def send() -> None:
        with httpx.Client(base_url=server.url, trust_env=False, timeout=300) as client:
            assert client.post(BATCH, json={"searches": [dear] * 64}).status_code == 200
        answered.append(time.monotonic())

    def searches_run() -> float:
        lines = server.client.get("/metrics").text.splitlines()
        return sum(
            float(line.rpartition(" ")[2]) for line in lines if line.startswith("reelfind_reranks_total")
        )

    before = searches_run()
    thread = threading.Thread(target=send)
    thread.start()
    while searches_run() < before + 2:
        time.sleep(0.01)
    begun = searches_run()
    for _ in range(5):
        server.search("red", num_candidates=10)
    meanwhile = searches_run() - begun - 5
    assert not answered, "the batch is too short for this test"
    thread.join()
    # Two threads: a batch has one of them, so about as many of its searches ran as of the others.
    assert meanwhile < 32


def test_batches_alternate_and_leave_room() -> None:
    """Of four threads, batches take two; two batches that wait have turns in equal shares."""
    running = most = 0
    order: list[str] = []

    async def search(item: str) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        order.append(item[0])
        await asyncio.sleep(0.001)
        running -= 1
        return item.upper()

    async def both() -> list[list[str]]:
        turns = BatchTurns(4)
        batches = [[f"{name}{number}" for number in range(20)] for name in "ab"]
        return await asyncio.gather(*(turns.run(items, search) for items in batches))

    results = asyncio.run(both())
    assert results == [[f"{name}{number}" for number in range(20)] for name in "AB"]
    assert most == 2
    for start in range(4, 36):
        assert abs(order[:start].count("a") - order[:start].count("b")) <= 2


def test_openapi_tells_batches(server: Server) -> None:
    document = server.client.get("/openapi.json").json()
    result = document["components"]["schemas"]["BatchResult"]["properties"]
    assert {"$ref": "#/components/schemas/Problem"} in result["problem"]["anyOf"]
    assert {"$ref": "#/components/schemas/SearchResponse"} in result["answer"]["anyOf"]
