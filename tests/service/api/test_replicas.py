"""Two servers of one library behind a load balancer, while a snapshot is published."""

import threading
from pathlib import Path

import httpx
import pytest

from tests.support.round_robin import RoundRobin, balancing
from tests.support.server import running_server, until
from tests.support.toy_library import make_library

pytestmark = pytest.mark.slow

OPTIONS = ("--reload-seconds", "0.1")
SPREAD = {"REELFIND_RELOAD_SPREAD_SECONDS": "2"}
CLIENTS = 3


class Load:
    """Searches that several clients send one after the other, each by a connection of its own."""

    def __init__(self, balancer: RoundRobin) -> None:
        self.failures: list[str] = []
        self.answers: list[tuple[int, int]] = []
        self._url = balancer.url
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        limits = httpx.Limits(max_keepalive_connections=0)
        with httpx.Client(base_url=self._url, trust_env=False, timeout=60.0, limits=limits) as client:
            while not self._stop.is_set():
                try:
                    response = client.post("/v1/search", json={"query": {"text": "red"}})
                    response.raise_for_status()
                except httpx.HTTPError as error:
                    self.failures.append(str(error))
                    return
                answer = response.json()
                self.answers.append((answer["snapshot"], len(answer["hits"])))


def test_no_search_fails_while_a_snapshot_is_published(tmp_path: Path) -> None:
    toy = make_library(tmp_path, {"red.mp4": [("red", 1.0)]})
    with (
        running_server(*toy.options, *OPTIONS, environment=SPREAD) as first,
        running_server(*toy.options, *OPTIONS, environment=SPREAD) as second,
        balancing([first.url, second.url]) as balancer,
    ):
        servers = (first, second)
        load = Load(balancer)
        try:
            until(lambda: len(load.answers) > 20 or bool(load.failures))
            toy.film("blue.mp4", [("blue", 1.0)])
            toy.index()
            until(lambda: all(each.client.get("/readyz").json().get("snapshot") == 2 for each in servers))
            reloaded = len(load.answers)
            until(lambda: len(load.answers) > reloaded + 20 or bool(load.failures))
        finally:
            load.stop()
        assert load.failures == []
        assert set(load.answers) == {(1, 1), (2, 2)}
        assert set(balancer.connections) == {first.url, second.url}
        # Where the machine stalls for seconds, a server may say so; a reload is no reason.
        assert [text for text in balancer.refusals if "has had no answer for" not in text] == []
        assert balancer.least_ready > 0
        for server in servers:
            assert 'reelfind_reloads_total{result="loaded"} 2.0' in server.client.get("/metrics").text
