"""Keys over HTTP: how they are sent, when they count, and what the log says of it."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.support.keys import WITH_KEYS, bearer, make_key, state_of
from tests.support.problems import check_problem
from tests.support.server import REELFIND, Server, clean_environment, running_server, until
from tests.support.toy_library import ToyLibrary, make_library

WRONG = f"rf_{'0' * 12}_{'a' * 43}"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_library(tmp_path_factory.mktemp("keys"), {"red.mp4": [("red", 1.0)]})


@pytest.fixture(scope="module")
def server(toy: ToyLibrary) -> Iterator[Server]:
    with running_server(*toy.options, *WITH_KEYS) as server:
        yield server


def audit(toy: ToyLibrary) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (state_of(toy) / "audit.jsonl").read_text().splitlines()]


def from_address(server: Server, address: str) -> httpx.Client:
    """A client at an address of its own, whose wrong keys nobody else's count."""
    transport = httpx.HTTPTransport(local_address=address)
    return httpx.Client(base_url=server.url, transport=transport, timeout=30, trust_env=False)


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer KEY"},
        {"Authorization": "bearer KEY"},
        {"X-API-Key": "KEY"},
        {"X-API-Key": "KEY", "Authorization": "Bearer KEY"},
        {"X-API-Key": "KEY", "Authorization": "Basic YTpi"},
    ],
)
def test_a_key_is_sent_in_either_header(server: Server, toy: ToyLibrary, headers: dict[str, str]) -> None:
    key = make_key(toy, "search", name="phone")
    sent = {name: value.replace("KEY", key) for name, value in headers.items()}
    answer = server.client.get("/v1/session", headers=sent).json()
    assert answer["name"] == "phone"
    assert answer["via"] == "key"
    assert answer["scopes"] == ["search"]
    assert server.client.get("/v1/library", headers=sent).status_code == 200


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda key: key[:-1],
        lambda key: key[:-1] + ("a" if key[-1] != "a" else "b"),
        lambda key: key.upper(),
        lambda key: key.replace("_", "%5F"),
        lambda key: f"{key},{key}",
        lambda key: f"rf_{'0' * 12}_{key.split('_', 2)[2]}",
        lambda key: key + "\u00e9",
        lambda key: "' OR 1=1 --",
        lambda key: "",
    ],
)
def test_what_is_nearly_a_key_is_refused(server: Server, toy: ToyLibrary, spoilt: Any, request: Any) -> None:
    key = make_key(toy, "admin")
    number = request.node.callspec.indices["spoilt"]
    with from_address(server, f"127.0.1.{number + 1}") as client:
        sent = {"X-API-Key": spoilt(key).encode()}
        check_problem(client.get("/v1/library", headers=sent), 401, "The key is not known")
        assert client.get("/v1/library", headers=bearer(key)).status_code == 200


def test_a_key_is_not_read_from_the_address_and_two_are_refused(server: Server, toy: ToyLibrary) -> None:
    one, other = make_key(toy, "search"), make_key(toy, "search")
    for name in ("key", "api_key", "access_token", "authorization"):
        check_problem(server.client.get("/v1/library", params={name: one}), 401, "This needs a key")
    both = {**bearer(one), "X-API-Key": other}
    check_problem(server.client.get("/v1/library", headers=both), 401, "two different keys")


def test_a_key_that_has_expired_does_not_count(server: Server, toy: ToyLibrary) -> None:
    key = make_key(toy, "search", name="short", expires_at=time.time() + 1.5)
    assert server.client.get("/v1/library", headers=bearer(key)).status_code == 200
    until(lambda: server.client.get("/v1/library", headers=bearer(key)).status_code == 401)
    check_problem(server.client.get("/v1/library", headers=bearer(key)), 401, "The key short has expired")


def test_a_key_is_revoked_at_once_while_it_is_used(server: Server, toy: ToyLibrary) -> None:
    """Every request that begins after the command has ended is refused; those of another key go on."""
    key, other = make_key(toy, "search"), make_key(toy, "search")
    begun: list[tuple[float, int]] = []
    stop = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=server.url, trust_env=False) as client:
            while not stop.is_set():
                start = time.monotonic()
                begun.append((start, client.get("/v1/library", headers=bearer(key)).status_code))
                assert client.get("/v1/library", headers=bearer(other)).status_code == 200

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask) for _ in range(4)]
        until(lambda: len(begun) > 50)
        command = [*REELFIND, "keys", "revoke", key.split("_")[1], "--state", str(state_of(toy))]
        done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, check=False)
        revoked = time.monotonic()
        assert done.returncode == 0, done.stderr
        count = len(begun)
        until(lambda: len(begun) > count + 50)
        stop.set()
        for future in asking:
            future.result()
    assert {status for start, status in begun if start > revoked} == {401}
    assert 200 in {status for start, status in begun if start < revoked}
    entry = next(entry for entry in audit(toy) if entry["action"] == "key.revoke")
    assert (entry["outcome"], entry["via"], entry["target"]) == ("done", "command", key.split("_")[1])


def test_wrong_keys_are_limited_by_address_and_right_ones_are_not(server: Server, toy: ToyLibrary) -> None:
    known, fresh = make_key(toy, "search"), make_key(toy, "search")
    with from_address(server, "127.0.2.1") as client:
        assert client.get("/v1/library", headers=bearer(known)).status_code == 200
        for _ in range(10):
            assert client.get("/v1/library", headers=bearer(WRONG)).status_code == 401
        refused = client.get("/v1/library", headers=bearer(WRONG))
        check_problem(refused, 429, "Too many wrong keys came from your address")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        # A guess that is right is not told from a wrong one now.
        assert client.get("/v1/library", headers=bearer(fresh)).status_code == 429
        assert client.post("/v1/session", json={"key": fresh}).status_code == 429
        assert client.get("/v1/library", headers=bearer(known)).status_code == 200
    assert server.client.get("/v1/library", headers=bearer(fresh)).status_code == 200


def test_the_log_says_who_did_what_and_what_was_refused(server: Server, toy: ToyLibrary) -> None:
    key = make_key(toy, "index", name="cron")
    before = len(audit(toy))
    assert server.client.post("/v1/library/reload", headers=bearer(key)).status_code == 200
    assert server.client.get("/v1/library", headers=bearer(key)).status_code == 403
    with from_address(server, "127.0.3.1") as client:
        assert client.post("/v1/library/reload", headers=bearer(WRONG)).status_code == 401
        assert client.get("/v1/library").status_code == 401
    entries = audit(toy)[before:]
    for entry in entries:
        assert entry.pop("time")
    key_id = key.split("_")[1]
    known = {"who": "cron", "key_id": key_id, "via": "key", "address": "127.0.0.1"}
    assert entries == [
        {
            "action": "library.reload",
            "outcome": "done",
            "target": "POST /v1/library/reload",
            "status": 200,
            **known,
        },
        {
            "action": "request",
            "outcome": "refused",
            "target": "GET /v1/library",
            "reason": "needs the scope search",
            "status": 403,
            **known,
        },
        {
            "action": "library.reload",
            "outcome": "refused",
            "address": "127.0.3.1",
            "target": "POST /v1/library/reload",
            "reason": "a wrong key with the id 000000000000",
            "status": 401,
        },
    ]


def test_no_secret_is_in_any_log(server: Server, toy: ToyLibrary) -> None:
    key = make_key(toy, "admin")
    server.client.get("/v1/library", headers=bearer(key), params={"key": key})
    server.client.post("/v1/session", json={"key": key})
    secret = key.split("_", 2)[2]
    assert secret not in server.log()
    assert secret not in (state_of(toy) / "audit.jsonl").read_text()
    assert secret.encode() not in (state_of(toy) / "access.sqlite").read_bytes()


def test_who_is_no_administrator_sees_no_path_of_the_server(toy: ToyLibrary, server: Server) -> None:
    admin, media = bearer(make_key(toy, "admin")), bearer(make_key(toy, "media", "index"))
    (video,) = server.client.get("/v1/videos", headers=admin).json()["videos"]
    assert video["path"] == str(toy.media / "red.mp4")
    address = f"/v1/videos/{video['video_id']}"
    film = toy.media / "red.mp4"
    kept = film.rename(film.with_suffix(".kept"))
    try:
        answers = [
            server.client.get("/v1/videos", headers=media),
            server.client.get(address, headers=media),
            server.client.post("/v1/search", json={"query": {"text": "red"}}, headers=media),
            server.client.get("/v1/library", headers=media),
            server.client.get("/readyz"),
            server.client.get(f"{address}/media", headers=media),
            server.client.post("/v1/library/reload", headers=media),
        ]
        gone = server.client.get(f"{address}/media", headers=admin)
    finally:
        kept.rename(film)
    check_problem(gone, 410, str(film))
    check_problem(answers[5], 410, "^The video's file is missing, or cannot be read.")
    assert answers[0].json()["videos"][0]["path"] == "media/red.mp4"
    assert answers[1].json()["path"] == "media/red.mp4"
    assert answers[2].json()["hits"][0]["path"] == "media/red.mp4"
    for answer in answers:
        assert str(toy.media.parent) not in answer.text, answer.url
