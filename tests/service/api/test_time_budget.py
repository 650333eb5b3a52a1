"""The time that a proxy leaves to a search bounds its deadline."""

import pytest

from service.api.time_budget import HEADER
from tests.support.problems import check_problem
from tests.support.server import Server
from tests.support.toy_library import ToyLibrary, make_library


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_library(tmp_path_factory.mktemp("library"), {"red.mp4": [("red", 1.0)]})


@pytest.mark.parametrize(
    ("budget", "deadline_ms", "skipped"),
    [("1", 60_000, "deadline"), ("60000", 1, "deadline"), ("60000", 60_000, None), ("9" * 16, None, None)],
)
def test_the_shorter_of_budget_and_deadline_counts(
    server: Server, budget: str, deadline_ms: int | None, skipped: str | None
) -> None:
    body = {"query": {"text": "red"}, "deadline_ms": deadline_ms}
    response = server.client.post("/v1/search", json=body, headers={HEADER: budget})
    assert response.status_code == 200
    assert response.json()["rerank_skipped"] == skipped


def test_a_batch_ends_with_the_budget(server: Server) -> None:
    body = {"searches": [{"query": {"text": "red"}}] * 200}
    response = server.client.post("/v1/search/batch", json=body, headers={HEADER: "1"})
    if response.status_code == 200:
        last = response.json()["results"][-1]
        assert last["problem"]["status"] == 503
    else:
        check_problem(response, 503, "deadline")


@pytest.mark.parametrize("budget", ["0", "-5", "1.5", "2s", "", "９"])
def test_what_is_no_number_of_milliseconds_is_refused(server: Server, budget: str) -> None:
    headers = {HEADER.encode(): budget.encode()}
    response = server.client.post("/v1/search", json={"query": {"text": "red"}}, headers=headers)
    check_problem(response, 422, f"{HEADER} must be a whole number of milliseconds such as 1500")
