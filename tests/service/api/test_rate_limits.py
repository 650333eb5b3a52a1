"""How often a key and an address may ask."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest

from service.api import rate_limits
from service.api.rate_limits import RateLimit
from service.errors import QueryError
from service.settings import load_settings
from tests.support.keys import WITH_KEYS, bearer, log_in, make_key
from tests.support.problems import check_problem
from tests.support.server import Server, running_server
from tests.support.toy_library import ToyLibrary, make_library


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_library(tmp_path_factory.mktemp("limits"), {"red.mp4": [("red", 1.0)]})


@pytest.fixture(scope="module")
def server(toy: ToyLibrary) -> Iterator[Server]:
    environment = {"REELFIND_RATE_LIMIT": "20/minute", "REELFIND_ADDRESS_RATE_LIMIT": "60/minute"}
    with running_server(*toy.options, *WITH_KEYS, environment=environment) as server:
        yield server


def at(server: Server, address: str) -> httpx.Client:
    transport = httpx.HTTPTransport(local_address=address)
    return httpx.Client(base_url=server.url, transport=transport, timeout=30, trust_env=False)


def test_a_key_may_ask_so_often_wherever_it_is_used(server: Server, toy: ToyLibrary) -> None:
    one, other = make_key(toy, "search"), make_key(toy, "search")
    with at(server, "127.0.6.1") as here, at(server, "127.0.6.2") as there:
        statuses = [
            (here, there)[n % 2].get("/v1/library", headers=bearer(one)).status_code for n in range(20)
        ]
        assert statuses == [200] * 20
        refused = there.get("/v1/library", headers=bearer(one))
        check_problem(refused, 429, "Too many requests came from you. Try again in [0-9]+ s")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert there.get("/v1/library", headers=bearer(other)).status_code == 200
        # What is open to everybody asks for no key.
        assert there.get("/healthz").status_code == 200


def test_a_session_counts_for_its_key(server: Server, toy: ToyLibrary) -> None:
    key = make_key(toy, "search")
    with log_in(server, key) as browser:
        statuses = {browser.get("/v1/library").status_code for _ in range(15)}
        assert statuses == {200}
    with at(server, "127.0.6.3") as client:
        statuses = {client.get("/v1/library", headers=bearer(key)).status_code for _ in range(6)}
        assert statuses == {200, 429}


def test_an_address_may_ask_so_often_whoever_asks(server: Server, toy: ToyLibrary) -> None:
    with at(server, "127.0.6.4") as client:
        statuses = [client.get("/healthz").status_code for _ in range(61)]
        assert statuses == [200] * 60 + [429]
        key = bearer(make_key(toy, "search"))
        refused = client.get("/v1/library", headers=key)
        check_problem(refused, 429, "came from your address")
        # A client cannot say that it is another one.
        assert client.get("/healthz", headers={"X-Forwarded-For": "127.0.6.9"}).status_code == 429
        with at(server, "127.0.6.5") as other:
            assert other.get("/v1/library", headers=key).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_this_computer_is_not_limited_where_everybody_may_ask(toy: ToyLibrary, host: str) -> None:
    environment = {"REELFIND_RATE_LIMIT": "2/minute", "REELFIND_ADDRESS_RATE_LIMIT": "5/minute"}
    with running_server(*toy.options, "--host", host, environment=environment) as server:
        assert {server.client.get("/v1/library").status_code for _ in range(20)} == {200}
        forwarded = {"X-Forwarded-For": "192.0.2.7"}
        statuses = [server.client.get("/v1/library", headers=forwarded).status_code for _ in range(6)]
        assert statuses == [200] * 5 + [429]


def test_several_limits_hold_together(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    limit = RateLimit("2/second; 5/minute")
    waits = []
    for _ in range(5):
        waits.append([limit.count("ann") for _ in range(3)])
        now += 1.1
    # Also a request that is refused counts: who goes on asking goes on waiting.
    assert waits[0] == [None, None, 1]
    assert waits[1][:2] == [None, None]
    assert waits[2] == [58, 58, 58]
    assert limit.wait("bob") is None
    now += 60
    assert limit.count("ann") is None
    assert RateLimit("").count("ann") is None


def test_memory_is_bounded_and_old_counters_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "_FEW", 100)
    monkeypatch.setattr(rate_limits, "_MOST", 150)
    now = 1_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    limit = RateLimit("1/minute")
    counters = limit._limiter.storage
    assert isinstance(counters, rate_limits._Counters)
    for number in range(1000):
        limit.count(f"address {number}")
    assert 100 <= len(counters._counts) <= 400
    assert limit.count("address 999") == 60
    now += 61
    for number in range(400):
        limit.count(f"later {number}")
    assert not any("address" in name for name in counters._counts)


@pytest.mark.parametrize("text", ["often", "0/minute", "10", "10/fortnight", "-1/minute", "10/minute; x"])
@pytest.mark.parametrize("name", ["rate_limit", "address_rate_limit", "failure_rate_limit"])
def test_what_is_no_limit_is_refused(name: str, text: str) -> None:
    with pytest.raises(QueryError, match=r"write a number and a time, such as 100/second"):
        load_settings({name: text})
