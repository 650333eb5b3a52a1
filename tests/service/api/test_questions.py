"""Questions about videos over HTTP, on the real server: films of colours, and a bundle that names colours."""

import asyncio
import json
import shutil
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings

from service.api.app import create_app
from service.api.context import Context
from service.api.pool import Claim
from service.settings import load_settings
from tests.service.api.test_damage import change_tokens, degraded
from tests.support.any_json import almost
from tests.support.problems import check_problem
from tests.support.server import Server, running_server
from tests.support.toy_bundle import COLOURS
from tests.support.toy_library import ToyLibrary, data_file, make_library

FILMS = {
    "two.mp4": [("red", 2.0), ("blue", 2.0)],
    "long.mp4": [("black", 24.0), ("cyan", 24.0), ("white", 24.0)],
}
GOOD: dict[str, Any] = {"question": {"text": "a red thing"}}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_library(tmp_path_factory.mktemp("questions"), FILMS, answers=True)


@pytest.fixture(scope="module")
def server(made: ToyLibrary) -> Iterator[Server]:
    with running_server(*made.options) as server:
        yield server
        assert "Traceback" not in server.log()


def post(server: Server, video_id: str, body: object = None) -> httpx.Response:
    return server.client.post(f"/v1/videos/{video_id}/answer", json=GOOD if body is None else body)


def answer(server: Server, name: str, text: str, **fields: object) -> dict[str, Any]:
    response = post(server, server.video_id(name), {"question": {"text": text}, **fields})
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def colour(body: dict[str, Any]) -> str:
    best: str = body["answers"][0]["answer"]
    return best


def test_the_answer_has_what_is_promised_and_no_more(server: Server) -> None:
    body = answer(server, "two.mp4", "what colour is the blue car")
    assert set(body) == {"answers", "frames", "snapshot", "query_warnings", "library_warnings"}
    assert colour(body) == "blue"
    shares = [each["probability"] for each in body["answers"]]
    assert len(shares) == 5
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) < 1
    every = answer(server, "two.mp4", "what colour is the blue car", top_k=1000)["answers"]
    assert every[:5] == body["answers"]
    assert {each["answer"] for each in every} == set(COLOURS)
    assert sum(each["probability"] for each in every) == pytest.approx(1, abs=1e-5)
    assert set(body["frames"][0]) == {"frame_id", "pts_seconds", "relevance"}
    assert all(2 <= frame["pts_seconds"] < 4 for frame in body["frames"])
    assert body["snapshot"] == 1
    assert [warning["kind"] for warning in body["query_warnings"]] == ["not_understood"]
    assert body["query_warnings"][0]["details"]["words"] == ["what", "colour", "is", "car"]
    assert body["library_warnings"] == []
    assert server.client.get("/v1/library").json()["cannot_answer"] is None


def test_a_moment_in_a_film_of_two_colours_gives_its_colour(server: Server) -> None:
    neutral = "a thing"
    for start, end, expected in ((0, 2, "red"), (2, 4, "blue"), (0.5, 1.5, "red"), (2.0, None, "blue")):
        body = answer(server, "two.mp4", neutral, start_seconds=start, end_seconds=end, num_salient_frames=16)
        assert colour(body) == expected
        assert all(start <= frame["pts_seconds"] < (end or 4) for frame in body["frames"])
    # The question chooses the frames of the whole film, but not those outside of the moment.
    assert colour(answer(server, "two.mp4", "the red one")) == "red"
    assert colour(answer(server, "two.mp4", "the red one", start_seconds=2)) == "blue"


def test_the_span_of_a_hit_can_be_asked_about(server: Server) -> None:
    hit = server.search("cyan", top_k=1)[0]
    body = {
        "question": {"text": "the white one"},
        "start_seconds": hit["start_seconds"],
        "end_seconds": hit["end_seconds"],
    }
    found = post(server, hit["video_id"], body).json()
    assert colour(found) == "cyan"
    frames = {frame["frame_id"]: frame for frame in hit["frames"]}
    for frame in found["frames"]:
        assert frame["pts_seconds"] == frames[frame["frame_id"]]["pts_seconds"]
        assert server.client.get(f"/v1/frames/{frame['frame_id']}.jpg").status_code == 200


def test_a_question_and_a_search_take_the_same_frames(server: Server) -> None:
    """Of a film of one segment, those that are matched with a text are those that answer it."""
    for text in ("the red one", "blue", "an unknown red blue thing"):
        for count in (1, 2, 5):
            hits = server.search(text, num_salient_frames=count)
            hit = next(hit for hit in hits if hit["path"].endswith("two.mp4"))
            body = answer(server, "two.mp4", text, num_salient_frames=count)
            salient = {f["frame_id"]: f["relevance"] for f in hit["frames"] if f["salient"]}
            assert {f["frame_id"] for f in body["frames"]} == set(salient)
            for frame in body["frames"]:
                assert frame["relevance"] == pytest.approx(salient[frame["frame_id"]], abs=2e-6)


def test_concurrent_questions_answer_as_each_does_alone(server: Server) -> None:
    asked = [(name, f"the {each}") for name in FILMS for each in COLOURS]
    alone = [answer(server, *each) for each in asked]
    found: dict[int, dict[str, Any]] = {}

    def ask(part: int) -> None:
        for position in range(part, len(asked), 4):
            found[position] = answer(server, *asked[position])

    threads = [threading.Thread(target=ask, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[position] for position in range(len(asked))] == alone


@pytest.mark.parametrize(
    ("body", "pointer", "said"),
    [
        ({}, "#/question", r'"question" is missing. Send {"question": {"text": "what colour is the car"}}'),
        ({"question": {}}, "#/question/text", '"question.text" is missing'),
        ({"question": "red"}, "#/question", 'question must be a JSON object, not "red"'),
        ({"question": {"text": " "}}, "#/question/text", "The question is empty. Ask about the video, for"),
        ({"question": {"text": 5}}, "#/question/text", "question.text must be text, not 5"),
        ({"question": {"text": "a\x00b"}}, "#/question/text", r"The question holds U\+0000"),
        (
            {"question": {"text": "x" * 1001}},
            "#/question/text",
            "The question has 1,001 characters; at most 1,000",
        ),
        ({"query": {"text": "red"}, **GOOD}, "#/query", '"query" is not a known field'),
        ({**GOOD, "start_seconds": -1}, "#/start_seconds", "start_seconds must be at least 0, not -1"),
        ({**GOOD, "start_seconds": "0"}, "#/start_seconds", 'must be a number such as 2.5, not "0"'),
        ({**GOOD, "start_seconds": None}, "#/start_seconds", "must be a number such as 2.5, not null"),
        ({**GOOD, "end_seconds": True}, "#/end_seconds", "must be a number such as 2.5, not true"),
        (
            {**GOOD, "start_seconds": 2, "end_seconds": 1.5},
            "#/end_seconds",
            "end_seconds 1.5 is before start_seconds 2. Choose a later end",
        ),
        ({**GOOD, "top_k": 0}, "#/top_k", "top_k must be at least 1, not 0"),
        ({**GOOD, "top_k": 1001}, "#/top_k", "top_k must be at most 1000, not 1001"),
        ({**GOOD, "num_salient_frames": 17}, "#/num_salient_frames", "is 17; ask for 1 to 16"),
        ({**GOOD, "num_salient_frames": 0}, "#/num_salient_frames", "must be at least 1, not 0"),
        ({**GOOD, "deadline_ms": 0}, "#/deadline_ms", "deadline_ms must be at least 1, not 0"),
        ([], "#", r'The body must be a JSON object, not \[\]. Send {"question"'),
    ],
)
def test_requests_that_cannot_be_used(server: Server, body: object, pointer: str, said: str) -> None:
    problem = check_problem(post(server, server.video_id("two.mp4"), body), 422, said)
    assert problem["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400])
def test_seconds_that_are_not_finite(server: Server, value: str) -> None:
    body = f'{{"question": {{"text": "red"}}, "end_seconds": {value}}}'
    headers = {"content-type": "application/json"}
    path = f"/v1/videos/{server.video_id('two.mp4')}/answer"
    problem = check_problem(server.client.post(path, content=body, headers=headers), 422, "end_seconds must")
    assert problem["errors"][0]["pointer"] == "#/end_seconds"


def test_other_errors_are_those_of_a_search(server: Server) -> None:
    video_id = server.video_id("two.mp4")
    check_problem(post(server, "0123456789abcdef"), 404, 'No video has the id "0123456789abcdef"')
    check_problem(post(server, "..%2F..%2Fetc"), 404, "No video has the id|There is nothing at")
    beyond = {**GOOD, "start_seconds": 4.5}
    check_problem(
        post(server, video_id, beyond), 422, "No stored frame of the video lies from 4.5 s to its end"
    )
    problem = check_problem(post(server, video_id, {"question": {"text": "zzz"}}), 422, "nothing to answer")
    assert problem["type"] == "urn:reelfind:problem:query-not-understood"
    assert problem["errors"][0]["pointer"] == "#/question/text"
    path = f"/v1/videos/{video_id}/answer"
    check_problem(server.client.get(path), 405, "GET is not allowed at|Use POST")
    check_problem(server.client.post(path, content=b"{}"), 415, "not declared as JSON")
    json_type = {"content-type": "application/json"}
    large = json.dumps({"question": {"text": "x" * 70_000}})
    check_problem(server.client.post(path, content=large, headers=json_type), 413, "larger than the limit")
    said = r'not JSON: .* Send {"question"'
    check_problem(server.client.post(path, content=b"{", headers=json_type), 422, said)
    late = post(server, video_id, {**GOOD, "deadline_ms": 1})
    problem = check_problem(late, 503, "raise deadline_ms")
    assert problem["type"] == "urn:reelfind:problem:overloaded"
    assert late.headers["retry-after"] == "1"


@settings(deadline=None, max_examples=150)
@given(document=almost({**GOOD, "start_seconds": 0.5, "end_seconds": 3, "top_k": 3, "num_salient_frames": 2}))
def test_a_question_with_changed_values(server: Server, document: dict[str, Any]) -> None:
    response = post(server, server.video_id("two.mp4"), document)
    if response.status_code == 200:
        assert colour(response.json()) in COLOURS
    else:
        assert response.status_code in (413, 422), response.text
        check_problem(response, response.status_code, r"\S")


def test_metrics_count_questions(server: Server) -> None:
    def values() -> dict[str, float]:
        lines = server.client.get("/metrics").text.splitlines()
        return {
            key: float(value) for key, value in (s.rsplit(" ", 1) for s in lines if not s.startswith("#"))
        }

    video_id = server.video_id("two.mp4")
    before = values()
    for text in ("the red", "zzz red", "zzz"):
        post(server, video_id, {"question": {"text": text}})
    change = {key: value - before.get(key, 0.0) for key, value in values().items()}
    route = 'method="POST",route="/v1/videos/{video_id}/answer"'
    assert change[f'reelfind_http_requests_total{{{route},status="200"}}'] == 2
    assert change['reelfind_query_warnings_total{kind="not_understood"}'] == 1
    assert change['reelfind_query_warnings_total{kind="nothing_understood"}'] == 1


def test_damaged_tokens_are_named_and_a_newer_snapshot_answers(made: ToyLibrary, tmp_path: Path) -> None:
    toy = ToyLibrary(tmp_path / "media", tmp_path / "library", made.bundle)
    toy.film("two.mp4", FILMS["two.mp4"])
    toy.index()
    # What is kept in memory is not met when it is damaged.
    environment = {"REELFIND_SCRUB_HOURS": "0", "REELFIND_ROW_CACHE_MB": "0"}
    with running_server(*toy.options, "--reload-seconds", "0", environment=environment) as server:
        whole = answer(server, "two.mp4", "the red one")
        path = data_file(toy.library, "frames")
        content = path.read_bytes()
        change_tokens(toy)
        problem = check_problem(post(server, server.video_id("two.mp4")), 503, r"frames\.lance is damaged")
        assert problem["type"] == "urn:reelfind:problem:damaged"
        assert "frames.lance" in degraded(server)["damaged_rows"]
        path.write_bytes(content)
        assert answer(server, "two.mp4", "the red one") == whole
        toy.film("two.mp4", [("green", 2.0), ("red", 2.0)])
        toy.index()
        assert answer(server, "two.mp4", "the red one") == whole
        path.unlink()
        gone = server.video_id("two.mp4")
        assert post(server, gone).status_code == 404, "snapshot 2 has another content there"
        newer = answer(server, "two.mp4", "the red one")
        assert newer["snapshot"] == 2
        assert all(frame["pts_seconds"] >= 2 for frame in newer["frames"])


def in_process(
    library: ToyLibrary, use: Callable[[httpx.AsyncClient, Context], Awaitable[None]], **changes: object
) -> None:
    """Serve a library in this process, and let `use` talk to the app."""
    settings = {"library": library.library, "bundle": library.bundle, "scrub_hours": 0, "deadline_ms": 60_000}
    app = create_app(load_settings({**settings, **changes}))

    async def run() -> None:
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
        ):
            await use(client, app.state.context)

    asyncio.run(run())


async def ask(client: httpx.AsyncClient, name: str) -> httpx.Response:
    videos = (await client.get("/v1/videos")).json()["videos"]
    video_id = next(video["video_id"] for video in videos if video["path"].endswith(name))
    return await client.post(f"/v1/videos/{video_id}/answer", json=GOOD)


def test_a_full_pool_refuses_questions_too(made: ToyLibrary) -> None:
    release = threading.Event()

    async def use(client: httpx.AsyncClient, context: Context) -> None:
        # One thread for any client, and one for a client that has none.
        held = [
            asyncio.create_task(context.pool.run(lambda _: release.wait(60), Claim(client=name)))
            for name in ("one", "other")
        ]
        await asyncio.sleep(0)
        try:
            response = await ask(client, "two.mp4")
            problem = check_problem(response, 503, "searches are waiting already, which is the limit")
            assert problem["type"] == "urn:reelfind:problem:overloaded"
            assert response.headers["retry-after"] == "1"
        finally:
            release.set()
            assert await asyncio.gather(*held) == [True, True]
        assert (await ask(client, "two.mp4")).status_code == 200

    in_process(made, use, search_threads=1, max_waiting_searches=0)


def test_a_bundle_without_an_answer_head_says_so(tmp_path: Path) -> None:
    plain = make_library(tmp_path, {"red.mp4": [("red", 1.0)]})

    async def use(client: httpx.AsyncClient, _context: Context) -> None:
        info = (await client.get("/v1/library")).json()
        assert (info["cannot_answer"], info["cannot_rerank"]) == ("no_answer_head", None)
        said = "'toy' has no answer head. Index into a new library with a bundle"
        problem = check_problem(await ask(client, "red.mp4"), 409, said)
        assert problem["type"] == "urn:reelfind:problem:cannot-answer"

    in_process(plain, use)


def test_the_answer_head_is_opened_before_the_first_question(made: ToyLibrary, tmp_path: Path) -> None:
    """A bundle's folder may change while it is served."""
    folder = Path(shutil.copytree(made.bundle, tmp_path / "bundle"))

    async def use(client: httpx.AsyncClient, _context: Context) -> None:
        (folder / "answer_head.onnx").unlink()
        response = await ask(client, "two.mp4")
        assert (response.status_code, colour(response.json())) == (200, "red")

    in_process(made, use, bundle=folder)
