"""A busy server starts another process, which answers some of its searches: nobody can tell."""

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from service.api.search_processes.crew import _Member
from tests.support.otlp import collecting
from tests.support.processes import children, running, wait_until
from tests.support.search_load import SearchLoad
from tests.support.server import Server, running_server, until
from tests.support.toy_library import ToyLibrary, make_library

pytestmark = pytest.mark.slow

CLIENTS = 12
COLOURS = ("red", "green", "blue", "yellow")
OPTIONS = ("--reload-seconds", "0.1", "--writes")
SEARCH = "/v1/search"
TWO = {"REELFIND_SEARCH_PROCESSES": "2"}


@pytest.fixture
def toy(tmp_path: Path) -> ToyLibrary:
    return make_library(tmp_path, {f"{colour}.mp4": [(colour, 1.0)] for colour in COLOURS})


@pytest.fixture
def server(toy: ToyLibrary) -> Iterator[Server]:
    with running_server(*toy.options, *OPTIONS, environment=TWO) as server:
        yield server


@contextmanager
def busy(server: Server) -> Iterator[SearchLoad]:
    """Keep a server busy; begins when another process answers, too."""
    load = SearchLoad(server.url, CLIENTS, COLOURS)
    try:
        until(lambda: metric(server, "reelfind_searches_elsewhere_total") > 0 or bool(load.failures))
        yield load
    finally:
        load.stop()
    assert load.failures == []


def metric(server: Server, name: str) -> float:
    lines = server.client.get("/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def told(answer: dict[str, Any]) -> list[tuple[object, ...]]:
    """What an answer says, but for the rounding of texts that are encoded together."""
    return [
        (hit["video_id"], hit["start_seconds"], hit["end_seconds"], round(hit["score"], 4), hit["level"])
        for hit in answer["hits"]
    ]


def test_another_process_answers_as_the_server_does(server: Server) -> None:
    alone = {colour: told(server.ask(colour)) for colour in COLOURS}
    assert (metric(server, "reelfind_search_processes"), children(server.process.pid)) == (1.0, [])
    with busy(server) as load:
        load.more(200)
        assert metric(server, "reelfind_search_processes") == 2.0
        assert len(children(server.process.pid)) == 1
    assert {colour: told(answer) for colour, answer in load.answers} == alone
    assert all(told(answer) == alone[colour] for colour, answer in load.answers)
    elsewhere = metric(server, "reelfind_searches_elsewhere_total")
    assert elsewhere > len(load.answers) / 10
    # They are counted as any other, and so are their calls of the model.
    searches = len(load.answers) + len(COLOURS)
    assert metric(server, 'reelfind_search_stage_seconds_count{stage="total"}') == searches
    assert metric(server, "reelfind_text_call_texts_sum") == searches
    # A server that is not busy answers itself.
    server.ask("red")
    assert metric(server, "reelfind_searches_elsewhere_total") == elsewhere


def test_every_kind_of_search_may_be_answered_elsewhere(server: Server) -> None:
    video = server.video_id("red.mp4")
    frame = server.search("red")[0]["frames"][0]["frame_id"]
    text = {"text": "red"}
    requests: list[tuple[str, dict[str, Any]]] = [
        (SEARCH, {"query": text, "group_by": "video", "explain": True, "sort": "-duration_seconds"}),
        (SEARCH, {"query": text, "filter": {"op": "range", "field": "duration_seconds", "gte": 0.5}}),
        (SEARCH, {"query": text, "threshold": {"score": 0.1}, "fields": ["frames"]}),
        (SEARCH, {"query": text, "rerank": False, "modalities": {"visual": 1, "name": 0}}),
        (SEARCH, {"query": {"text": "red", "not_text": "green"}}),
        (SEARCH, {"query": {"frame_id": frame}}),
        (SEARCH, {"query": {"video_id": video}}),
        (SEARCH, {"query": {"sequence": [text, {"text": "green"}]}}),
        (SEARCH, {"query": {"original": text, "like": [{"frame_id": frame}]}}),
        (f"/v1/videos/{video}/moments", {"query": text}),
    ]

    def ask(path: str, body: dict[str, Any]) -> list[tuple[object, ...]]:
        response = server.client.post(path, json=body)
        assert response.status_code == 200, response.text
        return told(response.json())

    alone = [ask(*request) for request in requests]
    with busy(server):
        for _ in range(4):
            assert [ask(*request) for request in requests] == alone
    # What another process cannot answer at all is what the server answers, and logs.
    assert "Traceback" not in server.log()
    missing = server.client.post("/v1/videos/0123456789abcdef/moments", json={"query": text})
    assert missing.status_code == 404


def test_further_pages_come_from_the_process_that_keeps_the_ranking(server: Server) -> None:
    whole = [hit["video_id"] for hit in server.search("red", top_k=len(COLOURS))]
    with busy(server) as load:
        before = len(load.answers)
        for _ in range(20):
            found: list[str] = []
            token = None
            while len(found) < len(whole):
                answer = server.ask("red", top_k=1, **({} if token is None else {"page_token": token}))
                found += [hit["video_id"] for hit in answer["hits"]]
                token = answer["next_page_token"]
            assert found == whole
        assert len(load.answers) > before


def test_what_is_removed_or_published_counts_at_once(server: Server, toy: ToyLibrary) -> None:
    blue = server.video_id("blue.mp4")
    with busy(server) as load:
        server.client.delete(f"/v1/videos/{blue}").raise_for_status()
        shown = {hit["video_id"] for _, answer in load.more() for hit in answer["hits"]}
        assert len(shown) == len(COLOURS) - 1
        assert blue not in shown
        toy.film("white.mp4", [("white", 1.0)])
        toy.index()
        until(lambda: server.client.get("/readyz").json()["snapshot"] == 2)
        before = metric(server, "reelfind_searches_elsewhere_total")
        assert {answer["snapshot"] for _, answer in load.more()} == {2}
        until(lambda: metric(server, "reelfind_searches_elsewhere_total") > before)
        load.more()
    served = [answer["snapshot"] for _, answer in load.answers]
    assert set(served) == {1, 2}


def test_no_search_is_lost_with_a_process(server: Server) -> None:
    with busy(server) as load:
        (other,) = children(server.process.pid)
        os.kill(other, signal.SIGKILL)
        load.more(200)
        until(lambda: metric(server, "reelfind_search_processes") == 1.0)
    assert f"search process {other} has ended" in server.log()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_what_a_process_that_has_ended_is_asked_is_the_servers_to_answer(run: Callable[[Any], None]) -> None:
    """Whether it ended before the question, while it is sent, or after it."""

    async def ask(member: _Member, turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        with pytest.raises(EOFError):
            await member.ask(None, 60.0)  # type: ignore[arg-type]

    async def scenario() -> None:
        ours, theirs = socket.socketpair()
        process = subprocess.Popen(["sleep", "60"])
        member = _Member(process, *await asyncio.open_unix_connection(sock=ours))
        questions = [asyncio.create_task(ask(member, turns)) for turns in range(8)]
        reading = asyncio.create_task(member.read())
        theirs.close()
        await asyncio.gather(reading, *questions)
        member.end()
        await ask(member, 0)

    run(scenario())


def test_a_server_alone_stays_alone(toy: ToyLibrary) -> None:
    alone = {"REELFIND_SEARCH_PROCESSES": "1"}
    with running_server(*toy.options, environment=alone) as server:
        load = SearchLoad(server.url, CLIENTS, COLOURS)
        load.more(400)
        load.stop()
        assert load.failures == []
        assert (metric(server, "reelfind_search_processes"), children(server.process.pid)) == (1.0, [])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_processes_end_with_the_server(toy: ToyLibrary, number: signal.Signals) -> None:
    with running_server(*toy.options, environment=TWO) as server:
        with busy(server):
            (other,) = children(server.process.pid)
        server.process.send_signal(number)
        server.process.wait(60)
        wait_until(lambda: not running(other))
        assert "Traceback" not in server.log()


def test_what_another_process_does_is_in_the_trace_of_the_search(toy: ToyLibrary) -> None:
    with collecting() as collector:
        with (
            running_server(*toy.options, environment=TWO | collector.environment) as server,
            busy(server) as load,
        ):
            load.more()
        searches = {span.span_id for span in collector.spans if span.name == "search"}
        elsewhere = [span for span in collector.spans if span.name == "search_process"]
    assert elsewhere
    assert {span.parent_span_id for span in elsewhere} <= searches
    stages = {span.name for span in collector.spans if span.parent_span_id == elsewhere[0].span_id}
    assert {"encode_text", "retrieve"} <= stages
