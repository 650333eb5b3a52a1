"""Jobs and uploads of both clients: a real server that starts real runs, and one that loses connections."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.client import ConflictError, InvalidRequestError, NoAnswerError, NotFoundError, uploading
from tests.service.client.test_retries import Script, problem
from tests.support.both_clients import BothClients
from tests.support.jobs import JOBS
from tests.support.server import Server, running_server
from tests.support.toy_library import ToyLibrary, make_library
from tests.support.toy_videos import make_video

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_library(tmp_path_factory.mktemp("jobs"), {"red.mp4": [("red", 1.0)]})


@pytest.fixture(scope="module")
def server(toy: ToyLibrary) -> Iterator[Server]:
    folders = ["--media", str(toy.media), "--upload-folder", str(toy.media / "uploads")]
    with running_server(*toy.options, *folders, environment=JOBS) as server:
        yield server
        assert "Traceback" not in server.log()


def test_a_job_is_started_followed_and_listed(ask: BothClients, server: Server, toy: ToyLibrary) -> None:
    toy.film(f"{ask.kind}/green.mp4", [("green", 1.0 if ask.kind == "Client" else 1.5)])
    started = ask(lambda client: client.index([toy.media / ask.kind], exclude=["draft*"]))
    assert (started.exclude, started.ended_at) == (["draft*"], None)
    events = ask(lambda client: client.job_events(started.job_id))
    assert [event.data["state"] for event in events if event.name == "state"][-1] == "succeeded"
    assert any(event.name == "progress" for event in events)
    middle = events[1].event_id
    assert ask(lambda client: client.job_events(started.job_id, after=middle)) == events[2:]
    ended = ask(lambda client: client.job(started.job_id))
    assert (ended.state, ended.summary.verdicts) == ("succeeded", {"ok": 1})
    assert ended in ask(lambda client: client.jobs(state="ended", limit=5)).jobs
    assert "to read" in ask(lambda client: client.job_log(started.job_id))
    with pytest.raises(NotFoundError):
        ask(lambda client: client.job_events("0" * 16))


def test_a_job_is_cancelled(ask: BothClients, server: Server, toy: ToyLibrary) -> None:
    first, second = (ask(lambda client: client.index([toy.media], retry_failed=True)) for _ in range(2))
    cancelled = ask(lambda client: client.cancel_job(second.job_id))
    assert cancelled.state == "cancelled" or cancelled.is_cancelling
    ask(lambda client: client.job_events(first.job_id))


def test_a_video_is_uploaded_in_parts(
    ask: BothClients, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploading, "PART_BYTES", 1000)
    path = make_video(tmp_path / f"of {ask.kind}.mp4", parts=[("blue", 1.0)], size=(64, 48), fps=4)
    size = path.stat().st_size
    seen: list[tuple[int, int | None]] = []

    def saw(done: int, total: int | None) -> None:
        seen.append((done, total))

    uploaded = ask(lambda client: client.upload_video(path, progress=saw))
    assert uploaded.bytes == size
    assert Path(uploaded.path).name == path.name
    assert Path(uploaded.path).read_bytes() == path.read_bytes()
    assert seen == [(min(end, size), size) for end in range(1000, size + 1000, 1000)]
    ask(lambda client: client.job_events(uploaded.job.job_id))
    assert ask(lambda client: client.job(uploaded.job.job_id)).state == "succeeded"
    named = ask(lambda client: client.upload_video(path, name="other.mp4"))
    assert Path(named.path).stem.startswith("other")
    ask(lambda client: client.job_events(named.job.job_id))
    with pytest.raises(InvalidRequestError, match="not the name of a video"):
        ask(lambda client: client.upload_video(path, name="notes.txt"))


UPLOAD = {"upload_id": "u", "name": "a.mp4", "bytes": 10}
JOB = {
    "job_id": "j",
    "state": "queued",
    "waits_for_library": False,
    "is_cancelling": False,
    "paths": ["a.mp4"],
    "prune": False,
    "retry_failed": False,
    "include": [],
    "exclude": [],
    "attempts": 0,
    "created_at": "2024-05-01T00:00:00Z",
    "events_url": "",
    "log_url": "",
}


def said(status: int, body: object, **headers: str) -> Any:
    return (
        status,
        {name.replace("_", "-"): value for name, value in headers.items()},
        json.dumps(body).encode(),
    )


def state(offset: int) -> Any:
    return said(200, {**UPLOAD, "offset": offset})


@pytest.fixture(params=["Client", "AsyncClient"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(uploading, "_PAUSE_SECONDS", 0.01)
    return request.param


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"0123456789")
    return path


def test_an_upload_goes_on_where_the_connection_was_lost(kind: Any, file: Path) -> None:
    uploaded = said(202, {"path": "a.mp4", "bytes": 10, "video_id": "v", "job": JOB})
    script = Script(state(0), "cut", problem(409, "upload-offset"), state(4), uploaded)
    assert script.ask(kind, lambda client: client.upload_video(file)).video_id == "v"
    sent = [(line.split()[0], headers.get("upload-offset"), body) for line, headers, body in script.requests]
    assert sent[1:] == [
        ("PATCH", "0", b"0123456789"),
        ("GET", None, b""),
        ("GET", None, b""),
        ("PATCH", "4", b"456789"),
    ]


def test_an_upload_that_fails_is_given_up(kind: Any, file: Path) -> None:
    for answers, error in (
        ([problem(413, "body-too-large")], InvalidRequestError),
        (["cut"] + [problem(409, "upload-offset")] * 5, ConflictError),
        (["cut", problem(404, "not-found")], NoAnswerError),
    ):
        script = Script(state(0), *answers, (204, {}, b""))
        with pytest.raises(error):
            script.ask(kind, lambda client: client.upload_video(file))
        assert script.requests[-1][0] == "DELETE /v1/uploads/u"


def test_events_go_on_after_the_last_one_that_came(kind: Any) -> None:
    def stream(*numbers: int) -> Any:
        lines = ": nothing new\n\n" + "".join(
            f'id: {number}\nevent: progress\ndata: {{"done": {number}}}\n\n' for number in numbers
        )
        return 200, {"content-type": "text/event-stream"}, lines.encode()

    script = Script(stream(1, 2), "cut", problem(503), stream(3), (204, {}, b""))
    events = script.ask(kind, lambda client: client.job_events("j"))
    assert [(event.event_id, event.data["done"]) for event in events] == [("1", 1), ("2", 2), ("3", 3)]
    asked = [headers.get("last-event-id") for _, headers, _ in script.requests]
    assert asked == [None, "2", "2", "2", "3"]
