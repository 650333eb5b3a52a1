"""One client asks for as much as it can; another gets its answers all the same."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import uvicorn

from service.api.connections import ConnectionLimits, Connections, client_of, presence_of
from service.metrics import Metrics
from tests.support.server import PATIENT, Server, running_server
from tests.support.toy_library import FILMS, ToyLibrary, make_library

GREEDY, MODEST = "127.0.0.2", "127.0.0.3"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    films = {f"{number}.mp4": [("red", 0.5), ("green", number / 4)] for number in range(1, 20)}
    return make_library(tmp_path_factory.mktemp("beside"), {**FILMS, **films})


@pytest.fixture(scope="module")
def server(toy: ToyLibrary) -> Iterator[Server]:
    environment = {**PATIENT, "REELFIND_SEARCH_THREADS": "2"}
    with running_server(*toy.options, environment=environment) as server:
        yield server


def client(server: Server, address: str) -> httpx.Client:
    transport = httpx.HTTPTransport(local_address=address)
    return httpx.Client(base_url=server.url, transport=transport, timeout=120, trust_env=False)


def test_a_cheap_search_does_not_wait_for_the_dear_ones_before_it(server: Server) -> None:
    """Of 64 dear searches that were sent before, most are answered after the cheap one."""
    # A text of several parts, matched with 16 frames of each candidate.
    text = "red green blue yellow. " * 30
    dear = {"query": {"text": text}, "num_candidates": 1000, "num_salient_frames": 16, "deadline_ms": 600_000}
    answered = 0
    first = threading.Event()

    def ask(number: int) -> dict[str, Any]:
        nonlocal answered
        with client(server, GREEDY) as greedy:
            response = greedy.post("/v1/search", json=dear)
        answered += 1
        first.set()
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    with ThreadPoolExecutor(64) as pool, client(server, MODEST) as modest:
        futures = [pool.submit(ask, number) for number in range(64)]
        assert first.wait(120)
        before = answered
        cheap = modest.post("/v1/search", json={"query": {"text": "red"}, "num_candidates": 10})
        meanwhile = answered - before
        answers = [future.result() for future in futures]
    assert cheap.status_code == 200
    assert cheap.json()["num_candidates"] == 10
    assert meanwhile < 32
    assert all(answer["num_candidates"] >= 10 for answer in answers)


def test_a_client_that_leaves_is_noticed() -> None:
    """The presence that a search asks for is that of its connection."""
    seen: list[tuple[str, bool]] = []
    noticed = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        presence = presence_of(scope)
        assert presence is not None
        seen.append((client_of(scope), presence.is_here()))
        while presence.is_here():
            await asyncio.sleep(0.001)
        noticed.set()

    async def serve() -> None:
        connections = Connections(ConnectionLimits(10, 10, 60, 60), Metrics())
        config = uvicorn.Config(app, lifespan="off", log_config=None, http=connections.protocol)  # type: ignore[arg-type]
        listener = socket.socket()
        listener.bind((GREEDY, 0))
        listener.listen()
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        _, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        while not seen:
            await asyncio.sleep(0.001)
        assert not noticed.is_set()
        writer.close()
        await asyncio.wait_for(asyncio.to_thread(noticed.wait, 60), 60)
        server.should_exit = True
        await task

    asyncio.run(serve())
    assert seen == [("127.0.0.1", True)]
    assert noticed.is_set()
