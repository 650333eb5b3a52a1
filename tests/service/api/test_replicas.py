"""Two servers of one library behind a load balancer, while a snapshot is published."""

from pathlib import Path

import pytest

from tests.support.round_robin import balancing
from tests.support.search_load import SearchLoad
from tests.support.server import running_server, until
from tests.support.toy_library import make_library

pytestmark = pytest.mark.slow

OPTIONS = ("--reload-seconds", "0.1")
SPREAD = {"REELFIND_RELOAD_SPREAD_SECONDS": "2"}
CLIENTS = 3


def test_no_search_fails_while_a_snapshot_is_published(tmp_path: Path) -> None:
    toy = make_library(tmp_path, {"red.mp4": [("red", 1.0)]})
    with (
        running_server(*toy.options, *OPTIONS, environment=SPREAD) as first,
        running_server(*toy.options, *OPTIONS, environment=SPREAD) as second,
        balancing([first.url, second.url]) as balancer,
    ):
        servers = (first, second)
        load = SearchLoad(balancer.url, CLIENTS, ["red"], keep_alive=False)
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
        assert {(answer["snapshot"], len(answer["hits"])) for _, answer in load.answers} == {(1, 1), (2, 2)}
        assert set(balancer.connections) == {first.url, second.url}
        # Where the machine stalls for seconds, a server may say so; a reload is no reason.
        assert [text for text in balancer.refusals if "has had no answer for" not in text] == []
        assert balancer.least_ready > 0
        for server in servers:
            assert 'reelfind_reloads_total{result="loaded"} 2.0' in server.client.get("/metrics").text
