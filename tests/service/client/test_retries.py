"""What is sent again, when, and what the errors say, with a server that answers as it is told."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from service.client import (
    Client,
    ClientError,
    NoAnswerError,
    NoKeyError,
    ProblemError,
    Retries,
    TimedOutError,
    TooManyRequestsError,
    UnavailableError,
    UnexpectedAnswerError,
)
from service.client.retries import Attempts
from tests.support.both_clients import BothClients

QUICK = Retries(first_seconds=0.001)
ALIVE = (200, {"content-type": "application/json"}, b'{"status": "alive"}')


def problem(status: int, slug: str = "overloaded", **headers: str) -> tuple[int, dict[str, str], bytes]:
    body = {
        "type": f"urn:reelfind:problem:{slug}",
        "title": "Busy",
        "status": status,
        "detail": "Ask again.",
        "instance": "urn:uuid:1",
    }
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, {"content-type": "application/problem+json", **names}, json.dumps(body).encode()


class Script:
    """A server that gives one answer after another, and then the last one again.

    An answer is a status, headers and a body; `"cut"` closes the connection in the middle of a body, and
    `"silent"` says nothing.
    """

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.ended = threading.Event()

    @contextmanager
    def served(self) -> Iterator[str]:
        script = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = self.rfile.read(length)
                headers = {name.lower(): value for name, value in self.headers.items()}
                script.requests.append((f"{self.command} {self.path}", headers, body))
                answer = script.answers.pop(0) if len(script.answers) > 1 else script.answers[0]
                self.close_connection = answer in ("cut", "silent")
                if answer == "silent":
                    script.ended.wait(30)
                    return
                status, more, content = (200, {}, b"half") if answer == "cut" else answer
                self.send_response(status)
                for name, value in more.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(content) * (2 if answer == "cut" else 1)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815

            def log_message(self, *_args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            self.ended.set()
            server.shutdown()
            thread.join()
            server.server_close()

    def ask(self, kind: Any, use: Any, **options: Any) -> Any:
        with self.served() as url:
            return BothClients(kind, url)(use, **{"retries": QUICK, **options})


@pytest.fixture(params=["Client", "AsyncClient"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize(
    "refusal", [problem(503), problem(429), problem(503, retry_after="0"), (503, {}, b"no backend"), "cut"]
)
def test_a_search_is_sent_again_until_it_is_answered(kind: Any, refusal: Any) -> None:
    script = Script(refusal, refusal, ALIVE)
    assert script.ask(kind, lambda client: client.health()).status == "alive"
    assert len(script.requests) == 3


@pytest.mark.parametrize(
    ("answer", "error", "requests"),
    [
        (problem(503), UnavailableError, 4),
        (problem(429), TooManyRequestsError, 4),
        (problem(503, "damaged"), UnavailableError, 1),
        (problem(503, "no-encoders"), UnavailableError, 1),
        (problem(503, retry_after="3600"), UnavailableError, 1),
        (problem(500, "internal-error"), ProblemError, 1),
        (problem(401, "no-key"), NoKeyError, 1),
        ((302, {"location": "https://elsewhere.example/"}, b""), UnexpectedAnswerError, 1),
        ((200, {}, b"<html>"), UnexpectedAnswerError, 1),
        ((200, {}, b'{"videos": []}'), UnexpectedAnswerError, 1),
        ("cut", NoAnswerError, 4),
        ("silent", TimedOutError, 1),
    ],
)
def test_what_stays_wrong_is_an_error(
    kind: Any, answer: Any, error: type[ClientError], requests: int
) -> None:
    script = Script(answer)
    with pytest.raises(error) as caught:
        script.ask(kind, lambda client: client.library(), timeout=0.5)
    assert type(caught.value) is error
    assert len(script.requests) == requests


def test_what_must_not_be_done_twice_is_sent_again_only_if_it_was_not_done(kind: Any) -> None:
    for use in (
        lambda client: client.delete_video("v"),
        lambda client: client.update_video("v", etag='"1"', title="x"),
    ):
        script = Script("cut", (204, {}, b""))
        with pytest.raises(NoAnswerError):
            script.ask(kind, use)
        assert len(script.requests) == 1
    script = Script(problem(429), (204, {}, b""))
    script.ask(kind, lambda client: client.delete_video("v"))
    assert [line for line, _, _ in script.requests] == ["DELETE /v1/videos/v"] * 2


@pytest.mark.parametrize("in_seconds", [False, True])
def test_the_wait_is_as_long_as_the_server_asks_for(kind: Any, in_seconds: bool) -> None:
    # A date has whole seconds.
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    script = Script(problem(503, retry_after="1" if in_seconds else later), ALIVE)
    started = time.monotonic()
    script.ask(kind, lambda client: client.health())
    assert 0.8 <= time.monotonic() - started < 20


def test_a_broken_download_begins_again_and_leaves_one_whole_file(kind: Any, tmp_path: Path) -> None:
    named = {"content-disposition": "attachment; filename*=UTF-8''..%2F..%2Fa%20film.mp4"}
    script = Script("cut", (200, named, b"whole"))
    saved = script.ask(kind, lambda client: client.download_media("v", tmp_path))
    assert saved == tmp_path / "a film.mp4"
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"whole"]
    nameless = Script((200, {"content-disposition": 'attachment; filename=".."'}, b"other"))
    assert nameless.ask(kind, lambda client: client.download_media("v", tmp_path)) == tmp_path / "v"


def test_the_key_is_given_or_from_the_environment(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REELFIND_KEY", "rf_environment")
    for key, sent in (("rf_given", "Bearer rf_given"), (None, "Bearer rf_environment"), ("", None)):
        script = Script(ALIVE)
        script.ask(kind, lambda client: client.health(), key=key)
        assert script.requests[0][1].get("authorization") == sent
    for key in ("two words", "rf_\n", "schlüssel"):
        with pytest.raises(ValueError, match="the key has characters") as caught:
            Client("http://localhost", key)
        assert key not in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://localhost", "", "http://", "http://a b:x"])
def test_an_address_that_cannot_be_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="give one such as http://127"):
        Client(url)


def test_an_address_where_nothing_is_says_what_to_check(kind: Any) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(NoAnswerError, match=rf"{url}/? cannot be reached .* `reelfind serve`") as caught:
            BothClients(kind, url)(lambda client: client.delete_video("v"), retries=QUICK)
    assert not caught.value.sent
    assert caught.value.__cause__ is not None


def test_waits_grow_and_are_random() -> None:
    waits = []
    for _ in range(200):
        attempts = Attempts(Retries(count=4, first_seconds=1, longest_seconds=4), is_repeatable=True)
        error = NoAnswerError("lost", sent=True)
        waits.append([attempts.wait_after(error) for _ in range(4)])
    for place, longest in enumerate((1, 2, 4, 4)):
        of_place = [wait[place] for wait in waits]
        assert 0.7 * longest < max(of_place) <= longest
        assert min(of_place) < 0.3 * longest
