"""Sessions of browsers: their cookie, when they end, and what other sites cannot do with them."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from contextlib import closing
from http.cookies import SimpleCookie

import httpx
import pytest

from service.api.sessions import PLAIN_COOKIE, SECURE_COOKIE, new_session, write_session
from service.rights.store import AccessStore
from tests.support.keys import WITH_KEYS, bearer, browser_of, log_in, make_key, revoke, state_of
from tests.support.problems import check_problem
from tests.support.server import Server, running_server, until
from tests.support.toy_library import ToyLibrary, make_library

SEARCH = {"query": {"text": "red"}}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_library(tmp_path_factory.mktemp("sessions"), {"red.mp4": [("red", 1.0)]})


@pytest.fixture(scope="module")
def server(toy: ToyLibrary) -> Iterator[Server]:
    with running_server(*toy.options, *WITH_KEYS) as server:
        yield server


def cookie_of(client: httpx.Client) -> str:
    value = client.cookies[PLAIN_COOKIE]
    assert value is not None
    return value


def with_cookie(value: str, name: str = PLAIN_COOKIE) -> dict[str, str]:
    return {"Cookie": f"{name}={value}"}


def test_logging_in_and_out(server: Server, toy: ToyLibrary) -> None:
    key = make_key(toy, "media", name="ann", expires_at=time.time() + 1000)
    with browser_of(server) as browser:
        assert browser.get("/v1/session").json()["name"] is None
        answer = browser.post("/v1/session", json={"key": f" {key}\n"})
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        told = answer.json()
        assert (told["auth"], told["via"], told["name"]) == ("keys", "session", "ann")
        assert told["scopes"] == ["media", "search"]
        assert browser.get("/v1/session").json() == told
        assert browser.post("/v1/search", json=SEARCH).status_code == 200
        copy = with_cookie(cookie_of(browser))
        assert server.client.get("/v1/library", headers=copy).status_code == 200
        ended = browser.delete("/v1/session")
        assert ended.status_code == 204
        assert not dict(browser.cookies)
        assert browser.get("/v1/session").json()["name"] is None
        # A copy of the cookie does not count either, also when the service starts again.
        check_problem(server.client.get("/v1/library", headers=copy), 401, "Your session has ended")
    assert server.client.get("/v1/library", headers=bearer(key)).status_code == 200


def test_the_cookie_is_kept_from_scripts_and_other_sites(server: Server, toy: ToyLibrary) -> None:
    key = make_key(toy, "search")
    answer = server.client.post("/v1/session", json={"key": key})
    cookie: SimpleCookie = SimpleCookie(answer.headers["set-cookie"])
    (morsel,) = cookie.values()
    assert morsel.key == PLAIN_COOKIE
    assert (morsel["path"], morsel["samesite"], morsel["domain"]) == ("/", "Strict", "")
    assert morsel["httponly"]
    assert not morsel["secure"]
    assert int(morsel["max-age"]) == pytest.approx(7 * 24 * 3600, abs=60)
    server.client.cookies.clear()


@pytest.mark.parametrize("headers", [{"X-Forwarded-Proto": "https"}, {"Origin": "https://127.0.0.1"}])
def test_behind_tls_the_cookie_is_for_tls_and_this_host_alone(
    server: Server, toy: ToyLibrary, headers: dict[str, str]
) -> None:
    headers = {**headers, "Sec-Fetch-Site": "same-origin"}
    answer = server.client.post("/v1/session", json={"key": make_key(toy, "search")}, headers=headers)
    cookie: SimpleCookie = SimpleCookie(answer.headers["set-cookie"])
    (morsel,) = cookie.values()
    assert (morsel.key, morsel["secure"], morsel["path"]) == (SECURE_COOKIE, True, "/")
    server.client.cookies.clear()
    sent = with_cookie(morsel.value, SECURE_COOKIE)
    assert server.client.get("/v1/library", headers=sent).status_code == 200
    # The cookie that no other host can have set wins.
    both = {"Cookie": f"{PLAIN_COOKIE}=x; {SECURE_COOKIE}={morsel.value}"}
    assert server.client.get("/v1/library", headers=both).status_code == 200


def test_a_session_ends_with_its_key(server: Server, toy: ToyLibrary) -> None:
    key = make_key(toy, "search")
    with log_in(server, key) as browser:
        assert browser.get("/v1/library").status_code == 200
        revoke(toy, key)
        check_problem(browser.get("/v1/library"), 401, "Your session has ended")
        check_problem(browser.post("/v1/session", json={"key": key}), 401, "was revoked")
    short = make_key(toy, "search", expires_at=time.time() + 1.5)
    with log_in(server, short) as browser:
        ends = browser.get("/v1/session").json()["expires_at"]
        assert ends is not None
        until(lambda: browser.get("/v1/library").status_code == 401)


def test_a_session_ends_by_itself(toy: ToyLibrary) -> None:
    environment = {"REELFIND_SESSION_HOURS": str(1.5 / 3600)}
    key = make_key(toy, "search")
    with running_server(*toy.options, *WITH_KEYS, environment=environment) as server:
        with log_in(server, key) as browser:
            value = cookie_of(browser)
            assert browser.get("/v1/library").status_code == 200
            kept = with_cookie(value)
            until(lambda: server.client.get("/v1/library", headers=kept).status_code == 401)
        # Also the session of a server before counts, as far as it has not ended.
        with log_in(server, key) as browser:
            assert browser.get("/v1/library").status_code == 200


def test_a_cookie_that_was_changed_or_made_up_is_refused(server: Server, toy: ToyLibrary) -> None:
    key = make_key(toy, "search")
    admin = make_key(toy, "admin").split("_")[1]
    with log_in(server, key) as browser:
        good = cookie_of(browser)
    payload, _, signature = good.rpartition(".")
    content = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert content[1] == key.split("_")[1]

    def encoded(value: object) -> str:
        return urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    session = new_session(admin, time.time() + 1000)
    for forged in (
        f"{encoded([content[0], admin, content[2]])}.{signature}",
        f"{encoded([content[0], content[1], 9e9])}.{signature}",
        write_session(session, b"another secret"),
        payload,
        f"{payload}.",
        f"{good}a",
        good.replace(".", "%2E"),
        f".{good}",
        "x" * 10_000,
        "",
    ):
        answer = server.client.get("/v1/library", headers=with_cookie(forged))
        check_problem(answer, 401, "This needs a key")
    assert server.client.get("/v1/library", headers=with_cookie(good)).status_code == 200
    # Signed by the service, but for a key that does not exist.
    secret = _secret(toy)
    nobody = with_cookie(write_session(new_session("0" * 12, time.time() + 1000), secret))
    check_problem(server.client.get("/v1/library", headers=nobody), 401, "Your session has ended")
    late = with_cookie(write_session(new_session(admin, time.time() - 1), secret))
    check_problem(server.client.get("/v1/library", headers=late), 401, "This needs a key")


def _secret(toy: ToyLibrary) -> bytes:
    with closing(AccessStore(state_of(toy))) as store:
        return store.secret()


FORGED: list[dict[str, str]] = [
    {},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:9"},
    {"Referer": "http://127.0.0.1/"},
]


@pytest.mark.parametrize("headers", FORGED)
def test_another_page_changes_nothing_with_a_session(
    server: Server, toy: ToyLibrary, headers: dict[str, str]
) -> None:
    """Pages at other ports of this host are of the same site: the browser sends them the cookie."""
    with log_in(server, make_key(toy, "admin")) as browser:
        sent = {**with_cookie(cookie_of(browser)), **headers}
    for method, path in (("POST", "/v1/library/reload"), ("DELETE", "/v1/session")):
        response = server.client.request(method, path, headers=sent)
        check_problem(response, 403, "(does not come from the service's own page|comes from a page of)")
    # A key in a header needs no page.
    key = bearer(make_key(toy, "index"))
    assert server.client.post("/v1/library/reload", headers=key).status_code == 200
    assert (
        server.client.get("/v1/library", headers=with_cookie(sent["Cookie"].split("=", 1)[1])).status_code
        == 200
    )


def test_another_site_cannot_log_a_browser_in(server: Server, toy: ToyLibrary) -> None:
    body = {"key": make_key(toy, "search")}
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = server.client.post("/v1/session", json=body, headers=headers)
        check_problem(answer, 403, "comes from a page of")
        assert "set-cookie" not in answer.headers
    form = server.client.post("/v1/session", data=body)
    check_problem(form, 415, "Content-Type: application/json")


@pytest.mark.parametrize(
    ("body", "status"),
    [({"key": "x"}, 401), ({"key": ""}, 401), ({"key": 3}, 422), ({}, 422), ({"key": "x" * 300}, 422)],
)
def test_what_is_no_key_begins_no_session(server: Server, body: dict[str, object], status: int) -> None:
    with browser_of(server, address="127.0.4.1") as browser:
        answer = browser.post("/v1/session", json=body)
        assert answer.status_code == status
        assert not dict(browser.cookies)


def test_without_keys_there_is_nothing_to_log_in_to(toy: ToyLibrary) -> None:
    with running_server(*toy.options) as server:
        told = server.client.get("/v1/session").json()
        assert (told["auth"], told["via"], told["name"]) == ("none", "none", "everybody")
        assert "admin" in told["scopes"]
        check_problem(server.client.post("/v1/session", json={"key": "x"}), 409, "There is no log-in")
        assert server.client.delete("/v1/session").status_code == 204
        # A client that is set up with a key goes on.
        sent = {**bearer("rf_x"), **with_cookie("x")}
        assert server.client.get("/v1/library", headers=sent).status_code == 200
