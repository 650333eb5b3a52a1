"""Who may ask: hosts, origins and kinds of bodies, as browsers and others send them to a real server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import httpx
import pytest

from service.api.access import AccessRules, is_known, read_origins
from service.settings import load_settings
from tests.support.problems import check_problem
from tests.support.server import Server, running_server
from tests.support.toy_library import ToyLibrary, make_library

QUERY = {"query": {"text": "red"}}
INTRANET = "https://intranet.example.org"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_library(tmp_path_factory.mktemp("access"), {"red.mp4": [("red", 1.0)]})


@pytest.fixture(scope="module")
def server(toy: ToyLibrary) -> Iterator[Server]:
    with running_server(*toy.options) as server:
        yield server


@pytest.fixture(scope="module")
def known(toy: ToyLibrary) -> Iterator[Server]:
    """A server with names of its own, which another site may use."""
    settings = {"REELFIND_ALLOWED_HOSTS": "Nas.local, *.example.org", "REELFIND_CORS_ORIGINS": INTRANET}
    with running_server(*toy.options, environment=settings) as server:
        yield server


def port_of(server: Server) -> str:
    return server.url.rpartition(":")[2]


@pytest.mark.parametrize("path", ["/", "/v1/videos", "/v1/library", "/healthz", "/metrics", "/static/app.js"])
def test_a_name_that_leads_here_by_rebinding_is_refused_everywhere(server: Server, path: str) -> None:
    for host in ("evil.example", f"evil.example:{port_of(server)}", "127.0.0.1.evil.example"):
        response = server.client.get(path, headers={"Host": host})
        name = host.partition(":")[0]
        said = f'for the host "{host}".*REELFIND_ALLOWED_HOSTS={name} .reelfind serve --allowed-hosts {name}'
        check_problem(response, 403, said)


def test_media_and_searches_are_refused_too(server: Server) -> None:
    video_id = server.client.get("/v1/videos").json()["videos"][0]["video_id"]
    headers = {"Host": "evil.example"}
    check_problem(server.client.get(f"/v1/videos/{video_id}/media", headers=headers), 403, "evil.example")
    check_problem(server.client.post("/v1/search", json=QUERY, headers=headers), 403, "evil.example")


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8000",
        "localhost.",
        "a.localhost",
        "127.0.0.1",
        "10.0.0.2:80",
        "[::1]:1",
        "[fe80::1]",
    ],
)
def test_the_computers_own_names_and_every_address_are_answered(server: Server, host: str) -> None:
    assert server.client.get("/v1/library", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["", "a b", "localhost@evil.example", "[::1", "localhost:99999999", "é.example"]
)
def test_what_is_no_host_is_refused(host: str) -> None:
    assert not is_known(host.encode(), frozenset({"localhost"}))


def test_two_hosts_are_refused(server: Server) -> None:
    rules = AccessRules(load_settings({}))
    hosts = [(b"host", b"localhost"), (b"host", b"evil.example")]
    refusal = rules.wrong_host(read_origins(hosts))
    assert refusal is not None
    assert "Send one Host" in refusal.detail


def test_a_proxys_word_for_the_host_does_not_count(server: Server) -> None:
    forwarded = {"X-Forwarded-Host": "localhost", "Forwarded": "host=localhost"}
    response = server.client.get("/v1/library", headers={"Host": "evil.example", **forwarded})
    check_problem(response, 403, "evil.example")
    assert server.client.get("/v1/library", headers={"X-Forwarded-Host": "evil.example"}).status_code == 200


def test_names_of_the_settings_are_answered(known: Server) -> None:
    for host in ("nas.local", "NAS.local:8000", "a.example.org", "a.b.example.org", "localhost"):
        assert known.client.get("/v1/library", headers={"Host": host}).status_code == 200
    for host in ("example.org", "evilexample.org", "nas.local.evil.example", "other.local"):
        check_problem(known.client.get("/v1/library", headers={"Host": host}), 403, "is not known")


def test_the_name_that_the_service_listens_on_is_answered() -> None:
    rules = AccessRules(load_settings({"host": "Nas.Home"}))
    assert rules.wrong_host(read_origins([(b"host", b"nas.home:8000")])) is None


@pytest.mark.parametrize("value", ["http://nas.local", "nas.local:8000", "nas/x", "*", "*.", "nas local"])
def test_a_setting_that_is_no_name_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match=r"--allowed-hosts is .*write names alone, such as nas\.local"):
        load_settings({"allowed_hosts": value})


FOREIGN: list[Mapping[str, str]] = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:1"},
    {"Origin": "http://127.0.0.1.evil.example"},
    {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    {"Origin": "http://evil.example", "Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
]


@pytest.mark.parametrize("headers", FOREIGN)
def test_another_sites_page_may_neither_change_nor_read(server: Server, headers: Mapping[str, str]) -> None:
    reload = server.client.post("/v1/library/reload", headers=headers)
    check_problem(reload, 403, "comes from a page of .*REELFIND_CORS_ORIGINS")
    check_problem(server.client.post("/v1/search", json=QUERY, headers=headers), 403, "comes from a page of")
    check_problem(server.client.get("/v1/videos", headers=headers), 403, "comes from a page of")


def test_a_form_of_another_site_changes_nothing(server: Server) -> None:
    """Its page opens the answer, as a link would, but it is no reading."""
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert server.client.get("/", headers=headers).status_code == 200
    check_problem(server.client.post("/v1/library/reload", headers=headers), 403, "comes from a page of")


def test_the_services_own_page_may(server: Server) -> None:
    own: list[Mapping[str, str]] = [
        {"Origin": server.url},
        {"Origin": server.url, "Sec-Fetch-Site": "same-origin"},
        # A proxy with TLS that changes the Host.
        {"Origin": "https://reelfind.example", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
        {},
    ]
    for headers in own:
        assert server.client.post("/v1/search", json=QUERY, headers=headers).status_code == 200
        assert server.client.post("/v1/library/reload", headers=headers).status_code == 200
        assert server.client.get("/v1/videos", headers=headers).status_code == 200


def test_the_default_port_may_be_written_or_not(known: Server) -> None:
    headers = {"Host": "nas.local", "Origin": "https://nas.local:443"}
    assert known.client.post("/v1/search", json=QUERY, headers=headers).status_code == 200
    headers = {"Host": "nas.local:80", "Origin": "http://nas.local"}
    assert known.client.post("/v1/search", json=QUERY, headers=headers).status_code == 200
    headers = {"Host": "nas.local:8000", "Origin": "http://nas.local"}
    check_problem(known.client.post("/v1/search", json=QUERY, headers=headers), 403, "nas.local")


def test_a_site_of_the_settings_may_ask_with_cors_and_no_other_way(known: Server) -> None:
    cors = {"Origin": INTRANET, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}
    response = known.client.post("/v1/search", json=QUERY, headers=cors)
    assert (response.status_code, response.headers["access-control-allow-origin"]) == (200, INTRANET)
    asked = {"Origin": INTRANET, "Access-Control-Request-Method": "POST"}
    assert known.client.options("/v1/search", headers=asked).status_code == 200
    asked["Origin"] = "https://evil.example"
    check_problem(known.client.options("/v1/search", headers=asked), 403, "evil.example")
    embedded = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    check_problem(known.client.get("/v1/videos", headers=embedded), 403, "another site")


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonp", ""],
)
def test_what_a_form_can_send_changes_nothing(server: Server, kind: str) -> None:
    headers = {"Content-Type": kind}
    for path in ("/v1/search", "/v1/search/batch", "/v1/library/reload"):
        if kind.startswith("multipart") and path == "/v1/search":
            # Taken, as a search by a picture, which changes nothing; of another site it is refused.
            evil = headers | {"Origin": "https://evil.example"}
            check_problem(server.client.post(path, content=b"x", headers=evil), 403, "evil.example")
            continue
        response = server.client.post(path, content=b'{"query": {"text": "red"}}', headers=headers)
        check_problem(response, 415, "Send it with the header Content-Type: application/json")
    response = server.client.post("/v1/search", content=b'{"query": {"text": "red"}}')
    check_problem(response, 415, "declared as JSON but as nothing")


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON; charset=utf-8", "application/x+json"]
)
def test_json_is_read(server: Server, kind: str) -> None:
    response = server.client.post(
        "/v1/search", content=b'{"query": {"text": "red"}}', headers={"Content-Type": kind}
    )
    assert response.status_code == 200


def test_every_answer_keeps_other_sites_out(server: Server, known: Server) -> None:
    for one in (server, known):
        video_id = one.client.get("/v1/videos").json()["videos"][0]["video_id"]
        for path in ("/", "/static/app.js", "/v1/library", f"/v1/videos/{video_id}/media", "/nothing"):
            headers = one.client.get(path).headers
            assert headers["cross-origin-resource-policy"] == "same-origin"
            assert headers["cross-origin-opener-policy"] == "same-origin"
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            policy = headers["content-security-policy"]
            for rule in (
                "default-src 'self'",
                "object-src 'none'",
                "base-uri 'none'",
                "frame-ancestors 'none'",
            ):
                assert rule in policy


def test_without_a_host_an_old_health_check_is_answered(server: Server) -> None:
    rules = AccessRules(load_settings({}))
    assert rules.wrong_host(read_origins([])) is None


def test_the_port_is_reachable_by_address_from_elsewhere(toy: ToyLibrary) -> None:
    """As in the container, which listens on all addresses."""
    with running_server(*toy.options, "--host", "0.0.0.0", "--insecure") as server:
        for name in ("localhost", "127.0.0.1"):
            address = f"http://{name}:{port_of(server)}/"
            assert httpx.get(address, trust_env=False).status_code == 200
