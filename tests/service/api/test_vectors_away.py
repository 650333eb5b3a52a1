"""The server of the vectors is slow, away, and back: searches fail at once and recover, all else works."""

import re
from collections.abc import Iterator

import pytest

from indexer.library.vectors.milvus_server import ADDRESS_VARIABLE, SECONDS_VARIABLE
from tests.support.milvus import PATIENCE_SECONDS, LiteServer
from tests.support.problems import check_problem
from tests.support.server import Server, running_server, until
from tests.support.tcp_proxy import TcpProxy
from tests.support.toy_library import ToyLibrary, make_library

pytestmark = pytest.mark.slow

QUERY = {"query": {"text": "a red thing"}}
AWAY = "The server of the vectors does not answer|cannot be reached"


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TcpProxy]:
    with LiteServer(tmp_path_factory.mktemp("milvus") / "vectors.db") as lite, TcpProxy(lite.port) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def toy(proxy: TcpProxy, tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ADDRESS_VARIABLE, f"milvus://127.0.0.1:{proxy.port}")
        patch.setenv(SECONDS_VARIABLE, str(PATIENCE_SECONDS))
        return make_library(tmp_path_factory.mktemp("library"))


def answers(server: Server) -> bool:
    """Whether a search is answered, and rightly."""
    response = server.client.post("/v1/search", json=QUERY)
    return response.status_code == 200 and response.json()["hits"][0]["path"].endswith("red.mp4")


def is_ready(server: Server) -> bool:
    return bool(server.client.get("/readyz").json()["status"] == "ready")


def is_away(server: Server) -> bool:
    """Whether `/readyz` says that the vectors are away."""
    response = server.client.get("/readyz")
    return response.status_code == 503 and re.search(AWAY, response.json()["detail"]) is not None


def check_away(server: Server) -> None:
    """A search is refused with the reason; what needs no vectors works."""
    response = server.client.post("/v1/search", json=QUERY)
    problem = check_problem(response, 503, AWAY)
    assert problem["type"] == "urn:reelfind:problem:vectors-away"
    assert 1 <= int(response.headers["retry-after"]) <= 30
    assert server.client.get("/healthz").status_code == 200
    assert len(server.client.get("/v1/videos").json()["videos"]) == 5


def test_searches_fail_at_once_while_milvus_is_away_and_recover(proxy: TcpProxy, toy: ToyLibrary) -> None:
    environment = {ADDRESS_VARIABLE: f"milvus://me:secret@127.0.0.1:{proxy.port}", SECONDS_VARIABLE: "1"}
    # It starts without Milvus.
    proxy.set("refuse")
    with running_server(
        *toy.options, "--reload-seconds", "0", environment=environment, ready=False
    ) as server:
        check_away(server)
        until(lambda: is_away(server))
        proxy.set("pass")
        until(lambda: answers(server))
        until(lambda: is_ready(server))

        # It is slow: after a few searches that wait, none waits any more.
        proxy.set("hang")
        for _ in range(4):
            check_away(server)
        problems = [check_problem(server.client.post("/v1/search", json=QUERY), 503, AWAY) for _ in range(20)]
        # The others are those that try whether it is back.
        assert sum("the next attempt is in" in problem["detail"] for problem in problems) >= 10
        until(lambda: is_away(server))
        assert server.process.poll() is None
        metrics = server.client.get("/metrics").text
        (line,) = [
            line for line in metrics.splitlines() if line.startswith('reelfind_away_total{what="vectors"}')
        ]
        assert float(line.split()[1]) >= 24
        assert "reelfind_damaged_reads_total 0.0" in metrics
        proxy.set("pass")
        until(lambda: answers(server))
        until(lambda: is_ready(server))
        assert "secret" not in server.log()
