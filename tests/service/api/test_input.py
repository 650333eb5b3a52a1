"""Bad input over HTTP: each is a problem document that names the value and the remedy; the rest is served."""

import json
import socket
from collections.abc import Iterator

import pytest

from tests.support.problems import check_problem
from tests.support.server import Server, running_server
from tests.support.toy_library import make_library

GOOD = {"query": {"text": "red"}}
SEARCH = "/v1/search"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    toy = make_library(tmp_path_factory.mktemp("input"), {"red.mp4": [("red", 1.0)]})
    with running_server(*toy.options) as server:
        yield server
        assert server.search("red")[0]["path"].endswith("red.mp4"), "the server does not serve on"
        assert "Traceback" not in server.log()


@pytest.mark.parametrize(
    ("body", "pointer", "said"),
    [
        ({}, "#/query", '"query" is missing. Send'),
        ({"query": {}}, "#/query/text", '"query.text" is missing'),
        ({"query": {"text": ""}}, "#/query/text", "The query is empty. Describe"),
        ({"query": {"text": " \n\t "}}, "#/query/text", "The query is empty"),
        ({"query": {"text": "\u200b"}}, "#/query/text", "The query is empty"),
        ({"query": {"text": "x" * 5000}}, "#/query/text", "5,000 characters; at most 1,000"),
        ({"query": {"text": 5}}, "#/query/text", "query.text must be text, not 5"),
        ({"query": {"text": None}}, "#/query/text", "query.text must be text, not null"),
        ({"query": {"text": ["red"]}}, "#/query/text", r'query.text must be text, not \["red"\]'),
        (
            {"query": {"text": "a\x00b"}},
            "#/query/text",
            r"U\+0000, a control character, at position 1. Remove",
        ),
        ({"query": {"text": "\x1b[31mred"}}, "#/query/text", r"U\+001B"),
        ({"query": "red"}, "#/query", 'query must be a JSON object, not "red"'),
        ({"query": None}, "#/query", "query must be a JSON object, not null"),
        ({"query": ["red"]}, "#/query", "query must be a JSON object"),
        ({**GOOD, "limit": 5}, "#/limit", '"limit" is not a known field. Remove it'),
        ({"query": {"text": "red", "lang": "en"}}, "#/query/lang", '"query.lang" is not a known field'),
        ({**GOOD, "a/b~c": 1}, "#/a~1b~0c", "is not a known field"),
        ({**GOOD, "top_k": 0}, "#/top_k", "top_k must be at least 1, not 0"),
        ({**GOOD, "top_k": -1}, "#/top_k", "top_k must be at least 1, not -1"),
        ({**GOOD, "top_k": 1_000_000}, "#/top_k", "top_k is 1000000; ask for 1 to 1,000 hits"),
        ({**GOOD, "top_k": 10**100}, "#/top_k", "top_k "),
        ({**GOOD, "top_k": "ten"}, "#/top_k", 'top_k must be a whole number such as 10, not "ten"'),
        ({**GOOD, "top_k": "10"}, "#/top_k", 'top_k must be a whole number such as 10, not "10"'),
        ({**GOOD, "top_k": 1.5}, "#/top_k", "top_k must be a whole number such as 10, not 1.5"),
        ({**GOOD, "top_k": True}, "#/top_k", "top_k must be a whole number such as 10, not true"),
        ({**GOOD, "top_k": [10]}, "#/top_k", "top_k must be a whole number"),
        ({**GOOD, "rerank": "yes"}, "#/rerank", 'rerank must be true or false, not "yes"'),
        ({**GOOD, "rerank": 1}, "#/rerank", "rerank must be true or false, not 1"),
        ({**GOOD, "rerank": None}, "#/rerank", "rerank must be true or false, not null"),
        ({**GOOD, "explain": "all"}, "#/explain", 'explain must be true or false, not "all"'),
        ({**GOOD, "num_candidates": 0}, "#/num_candidates", "num_candidates must be at least 1, not 0"),
        ({**GOOD, "num_candidates": -5}, "#/num_candidates", "num_candidates must be at least 1, not -5"),
        ({**GOOD, "num_candidates": 1001}, "#/num_candidates", "num_candidates is 1001; 1 to 1,000"),
        ({**GOOD, "num_candidates": 10**30}, "#/num_candidates", "num_candidates is 10+; 1 to 1,000"),
        ({**GOOD, "num_candidates": "all"}, "#/num_candidates", "num_candidates must be a whole number"),
        ({**GOOD, "num_candidates": 2.5}, "#/num_candidates", "num_candidates must be .* not 2.5"),
        ({**GOOD, "num_candidates": True}, "#/num_candidates", "num_candidates must be .* not true"),
        ({**GOOD, "num_salient_frames": 0}, "#/num_salient_frames", "must be at least 1, not 0"),
        ({**GOOD, "num_salient_frames": -1}, "#/num_salient_frames", "must be at least 1, not -1"),
        (
            {**GOOD, "num_salient_frames": 17},
            "#/num_salient_frames",
            "num_salient_frames is 17; ask for 1 to 16",
        ),
        ({**GOOD, "num_salient_frames": "2"}, "#/num_salient_frames", 'must be a whole number .* not "2"'),
        ({**GOOD, "deadline_ms": 0}, "#/deadline_ms", "deadline_ms must be at least 1, not 0"),
        ({**GOOD, "deadline_ms": -1}, "#/deadline_ms", "deadline_ms must be at least 1, not -1"),
        (
            {**GOOD, "deadline_ms": 10**9},
            "#/deadline_ms",
            "deadline_ms must be at most 3600000, not 1000000000",
        ),
        ({**GOOD, "deadline_ms": 0.5}, "#/deadline_ms", "deadline_ms must be a whole number"),
        ([], "#", "The body must be a JSON object"),
        ("red", "#", "The body must be a JSON object"),
        (None, "#", "body"),
    ],
)
def test_requests_that_cannot_be_used(server: Server, body: object, pointer: str, said: str) -> None:
    problem = check_problem(server.client.post(SEARCH, json=body), 422, said)
    assert problem["errors"][0]["pointer"] == pointer
    assert problem["errors"][0]["detail"] in problem["detail"]


def test_several_faults_are_all_named(server: Server) -> None:
    body = {"query": {"text": 5, "extra": 1}, "top_k": "ten"}
    problem = check_problem(server.client.post(SEARCH, json=body), 422, "query.text.*top_k")
    assert {error["pointer"] for error in problem["errors"]} == {"#/query/text", "#/query/extra", "#/top_k"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "The request has no body. Send"),
        (b"{", "The body is not JSON"),
        (b"query=red", "The body is not JSON"),
        (b'{"query": {"text": "red"}', "The body is not JSON.*at character"),
        (b'{"query": {"text": "\xff"}}', "cannot be read as JSON in UTF-8"),
        (b'{"query": {"text": "\\ud800"}}', "half of a surrogate pair"),
        (b'{"query": {"text": "red"}, "top_k": NaN}', "top_k must be a whole number"),
        (b'{"query": {"text": "red"}, "top_k": 1e999}', "top_k must be a whole number"),
        (b'{"query": {"text": "red"}, "top_k": ' + b"9" * 5000 + b"}", "cannot be read as JSON|whole number"),
        (b"[" * 20_000, "JSON"),
        (b"\x00", "The body is not JSON"),
    ],
)
def test_bodies_that_are_no_json(server: Server, content: bytes, said: str) -> None:
    response = server.client.post(SEARCH, content=content, headers={"content-type": "application/json"})
    check_problem(response, 422, said)


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", None])
def test_a_body_that_is_not_declared_as_json(server: Server, content_type: str | None) -> None:
    headers = {"content-type": content_type} if content_type else {}
    response = server.client.post(SEARCH, content=json.dumps(GOOD).encode(), headers=headers)
    check_problem(response, 415, "not declared as JSON but as .* Send it with the header Content-Type")


@pytest.mark.parametrize("size", [10, 100_000, 5_000_000])
def test_a_form_with_a_file_is_not_declared_as_json_however_large(server: Server, size: int) -> None:
    # Searches take a picture so; nothing else takes a form.
    response = server.client.post("/v1/library/reload", files={"file": ("clip.mp4", b"x" * size)})
    check_problem(response, 415, "not declared as JSON but as .?multipart/form-data")


def test_a_large_body_is_refused(server: Server) -> None:
    body = {"query": {"text": "x" * 70_000}}
    check_problem(server.client.post(SEARCH, json=body), 413, "larger than the limit of 65,536 bytes")


def test_a_large_body_of_unknown_length_is_refused(server: Server) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * 4096

    response = server.client.post(SEARCH, content=endless(), headers={"content-type": "application/json"})
    check_problem(response, 413, "larger than the limit of 65,536 bytes")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/videos/0123456789abcdef",
        "/v1/videos/0123456789abcdef/media",
        "/v1/videos/short",
        "/v1/videos/short/media",
        "/v1/videos/%2e%2e%2f%2e%2e%2fetc%2fpasswd/media",
        "/v1/videos/..%2f..%2fetc%2fpasswd",
        "/v1/videos/%00/media",
        "/v1/videos/%ff%fe",
        "/v1/frames/0123456789abcdef-00000-00.jpg",
        "/v1/frames/0123456789abcdef.jpg",
        "/v1/frames/..%2f..%2fCURRENT.jpg",
        "/v1/frames/x.png",
        "/v1/nothing",
        "/v2/search",
        "/static/../settings.py",
        "/static/%2e%2e/settings.py",
        "/static/nothing.js",
        "/etc/passwd",
        "/redoc",
    ],
)
def test_what_does_not_exist(server: Server, path: str) -> None:
    check_problem(server.client.get(path), 404, ".")


def test_a_path_that_leaves_the_library_as_it_is_typed(server: Server) -> None:
    """Clients tidy dots away, so this one is sent by hand."""
    host, port = server.url.removeprefix("http://").split(":")
    for path in ("/v1/videos/../../etc/passwd/media", "/static/../../etc/passwd", "//etc/passwd"):
        with socket.create_connection((host, int(port)), 10) as connection:
            request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
            connection.sendall(request.encode())
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 404 "), head
        assert json.loads(body)["status"] == 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", SEARCH, "POST"),
        ("PUT", SEARCH, "POST"),
        ("POST", "/v1/facets", "GET"),
        ("DELETE", "/v1/library", "GET"),
        ("GET", "/v1/library/reload", "POST"),
    ],
)
def test_other_methods_are_told_which_is_right(server: Server, method: str, path: str, allowed: str) -> None:
    response = server.client.request(method, path)
    check_problem(response, 405, f"is not allowed at .*Use {allowed}")
    assert response.headers["allow"] == allowed


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("limit=0", "limit must be at least 1"),
        ("limit=1001", "limit must be at most 1000"),
        ("limit=ten", "limit must be a whole number"),
        ("offset=-1", "offset must be at least 0"),
        ("offset=99999999999999999999", "offset must be at most"),
        ("verdict=good", "verdict must be 'ok', 'partial'.*not \"good\""),
        ("page=2", '"page" is not a known field'),
    ],
)
def test_parameters_of_the_list(server: Server, query: str, said: str) -> None:
    problem = check_problem(server.client.get(f"/v1/videos?{query}"), 422, said)
    assert problem["errors"][0]["pointer"] == "?" + query.partition("=")[0]


def test_a_snapshot_that_is_no_number(server: Server) -> None:
    check_problem(
        server.client.get("/v1/frames/0123456789abcdef-00000-00.jpg?snapshot=new"),
        422,
        "snapshot must be a whole",
    )
