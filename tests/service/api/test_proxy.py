"""Users whom a trusted proxy names in a header, and all others who try to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.errors import QueryError
from service.settings import load_settings
from tests.support.problems import check_problem
from tests.support.server import Server, running_server
from tests.support.toy_library import ToyLibrary, make_library

PROXY, STRANGER = "127.0.5.1", "127.0.5.2"
HEADER = "Remote-User"
USERS = """
[users.ann]
scopes = ["admin"]
[users."bob@example.org"]
scopes = ["media"]
folder = "{folder}"
"""


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    films = {"red.mp4": [("red", 1.0)], "kids/blue.mp4": [("blue", 1.0)]}
    return make_library(tmp_path_factory.mktemp("proxy"), films)


@pytest.fixture(scope="module")
def users(toy: ToyLibrary) -> Path:
    path = toy.media.parent / "users.toml"
    path.write_text(USERS.format(folder=toy.media / "kids"))
    return path


@pytest.fixture(scope="module")
def server(toy: ToyLibrary, users: Path) -> Iterator[Server]:
    environment = {
        "REELFIND_AUTH": "proxy",
        "REELFIND_AUTH_HEADER": HEADER,
        "REELFIND_AUTH_PROXIES": f"{PROXY}, 192.0.2.0/24",
        "REELFIND_AUTH_USERS": str(users),
    }
    with running_server(*toy.options, environment=environment) as server:
        yield server


@pytest.fixture(scope="module")
def proxy(server: Server) -> Iterator[httpx.Client]:
    yield from client_at(server, PROXY)


@pytest.fixture(scope="module")
def stranger(server: Server) -> Iterator[httpx.Client]:
    yield from client_at(server, STRANGER)


def client_at(server: Server, address: str) -> Iterator[httpx.Client]:
    transport = httpx.HTTPTransport(local_address=address)
    with httpx.Client(base_url=server.url, transport=transport, timeout=30, trust_env=False) as client:
        yield client


def test_the_proxys_users_have_the_rights_of_the_file(proxy: httpx.Client, toy: ToyLibrary) -> None:
    ann, bob = {HEADER: "ann"}, {HEADER: "bob@example.org"}
    told = proxy.get("/v1/session", headers=ann).json()
    assert (told["auth"], told["via"], told["name"]) == ("proxy", "proxy", "ann")
    videos = proxy.get("/v1/videos", headers=ann).json()["videos"]
    ids = {Path(video["path"]).name: video["video_id"] for video in videos}
    assert proxy.get(f"/v1/videos/{ids['blue.mp4']}", headers=bob).json()["path"] == "kids/blue.mp4"
    check_problem(proxy.get(f"/v1/videos/{ids['red.mp4']}", headers=bob), 404, "No video has the id")
    check_problem(proxy.get("/metrics", headers=bob), 403, "needs the scope metrics")
    body = {"url": f"/v1/videos/{ids['blue.mp4']}/media"}
    url = proxy.post("/v1/signed-urls", json=body, headers=bob).json()["url"]
    assert "by=user%3Abob%40example.org" in url
    assert proxy.get(url).content == (toy.media / "kids" / "blue.mp4").read_bytes()
    check_problem(proxy.get(url.replace("bob%40example.org", "ann")), 403, "was changed")
    check_problem(proxy.post("/v1/session", json={"key": "x"}, headers=ann), 409, "its proxy says who asks")


@pytest.mark.parametrize(
    "path", ["/v1/library", "/healthz", "/", "/v1/session", "/static/app.js", "/nothing"]
)
def test_the_header_from_anybody_else_is_refused_everywhere(stranger: httpx.Client, path: str) -> None:
    for name in (HEADER, HEADER.upper(), HEADER.lower()):
        check_problem(stranger.get(path, headers={name: "ann"}), 403, "not one of the proxies")
    # Nor does it help to say that one is the proxy.
    spoofed = {HEADER: "ann", "X-Forwarded-For": PROXY, "X-Real-IP": PROXY, "Forwarded": f"for={PROXY}"}
    check_problem(stranger.get(path, headers=spoofed), 403, "not one of the proxies")


def test_who_trusts_a_forwarded_address_does_not_trust_a_forwarded_name(server: Server) -> None:
    """127.0.0.1 may say for whom it asks (REELFIND_TRUSTED_PROXIES), but is no proxy that names users."""
    headers = {HEADER: "ann", "X-Forwarded-For": PROXY}
    check_problem(server.client.get("/v1/library", headers=headers), 403, "not one of the proxies")


def test_other_ways_to_write_the_header_name_nobody(stranger: httpx.Client, proxy: httpx.Client) -> None:
    for name in ("Remote_User", "X-Remote-User", "REMOTE-USER-", "Authorization", "X-API-Key"):
        check_problem(stranger.get("/v1/library", headers={name: "ann"}), 401, "answers through its proxy")
        check_problem(proxy.get("/v1/library", headers={name: "ann"}), 401, "does not say who you are")


def test_a_proxy_that_names_nobody_or_two_is_not_believed(proxy: httpx.Client) -> None:
    two = httpx.Headers([(HEADER, "bob@example.org"), (HEADER, "ann")])
    check_problem(proxy.get("/v1/library", headers=two), 401, "must send the header remote-user once")
    for name in (b"", b"ann\xff", "a\u202enn".encode(), b"a" * 201):
        sent = httpx.Headers([(HEADER.encode(), name)])
        check_problem(proxy.get("/v1/library", headers=sent), 401, "does not say who you are")
    for name in (b"ann, bob@example.org", b"Ann", b"eve", "\u0430nn".encode()):
        sent = httpx.Headers([(HEADER.encode(), name)])
        check_problem(proxy.get("/v1/library", headers=sent), 403, "may do nothing here")


def test_a_change_of_the_file_counts_at_once_and_a_mistake_lets_nobody_in(
    server: Server, proxy: httpx.Client, users: Path
) -> None:
    ann = {HEADER: "ann"}
    before = users.read_text()
    users.write_text(before.replace('scopes = ["admin"]', 'scopes = ["index"]'))
    check_problem(proxy.get("/v1/library", headers=ann), 403, "needs the scope search")
    users.write_text("[users")
    told = check_problem(proxy.get("/v1/library", headers=ann), 503, "cannot be found out who may ask")
    assert str(users) not in told["detail"]
    assert told["instance"] in server.log()
    assert proxy.get("/healthz").status_code == 200
    users.write_text(before)
    assert proxy.get("/v1/library", headers=ann).status_code == 200


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"auth_header": ""}, "auth proxy needs REELFIND_AUTH_HEADER"),
        ({"auth_proxies": ""}, "auth proxy needs REELFIND_AUTH_PROXIES"),
        ({"auth_users": ""}, "auth proxy needs REELFIND_AUTH_USERS"),
        ({"auth_header": "Cookie"}, "is not a header that names a user"),
        ({"auth_header": "Remote User"}, "is not a header that names a user"),
        ({"auth_proxies": "proxy.local"}, "is no address or network"),
        ({"auth_proxies": "10.0.0.1/8"}, "is no address or network"),
    ],
)
def test_what_is_missing_is_named(changed: dict[str, str], said: str) -> None:
    whole = {
        "auth": "proxy",
        "auth_header": HEADER,
        "auth_proxies": PROXY,
        "auth_users": "users.toml",
    }
    assert load_settings(whole).auth_header == "remote-user"
    with pytest.raises(QueryError, match=said):
        load_settings({**whole, **changed})
