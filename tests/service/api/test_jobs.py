"""Jobs over HTTP: a real server that starts real indexing runs."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from indexer.library.lock import lock_library
from service.jobs.queue import jobs_folder
from service.settings import load_settings
from tests.support.jobs import JOBS, follow, read_job, start_job, wait_for
from tests.support.problems import check_problem
from tests.support.server import REELFIND, Server, clean_environment, running_server, until
from tests.support.toy_library import ToyLibrary, make_library

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_library(tmp_path_factory.mktemp("jobs"), {"red.mp4": [("red", 1.0)]})


@pytest.fixture(scope="module")
def server(made: ToyLibrary) -> Iterator[Server]:
    environment = JOBS | {"REELFIND_HWACCEL": "cuda"}
    with running_server(*made.options, "--media", str(made.media), environment=environment) as server:
        yield server


@pytest.fixture
def toy(made: ToyLibrary, tmp_path: Path) -> ToyLibrary:
    """A library of the test's own."""
    for folder in (made.media, made.library):
        shutil.copytree(folder, tmp_path / folder.name)
    return ToyLibrary(tmp_path / "media", tmp_path / "library", made.bundle)


def test_a_job_indexes_a_file_and_the_library_is_served_anew(server: Server, made: ToyLibrary) -> None:
    path = made.film("new/green.mp4", [("green", 1.0)])
    damaged = made.media / "new" / "damaged.mp4"
    damaged.write_bytes(b"no video")
    left_out = made.film("new/draft.mp4", [("blue", 1.0)])
    job = start_job(server, made.media / "new", exclude=["draft*"])
    assert job["state"] in ("queued", "running")
    assert (job["paths"], job["exclude"]) == ([str(path.parent)], ["draft*"])

    events = list(follow(server.client, job["job_id"]))
    names = [name for _, name, _ in events]
    assert [data["state"] for _, name, data in events if name == "state"] == [
        "queued",
        "running",
        "succeeded",
    ]
    assert names.index("scanned") < names.index("progress") < names.index("published")
    (scanned,) = (data for _, name, data in events if name == "scanned")
    assert (scanned["files"], scanned["to_read"]) == (2, 2)
    (problem,) = (data for _, name, data in events if name == "problem")
    assert problem["path"] == str(damaged)
    *_, progress = (data for _, name, data in events if name == "progress")
    assert (progress["stage"], progress["done"], progress["total"], progress["failed"]) == (
        "pictures",
        2,
        2,
        1,
    )

    ended = read_job(server, job["job_id"])
    assert (ended["state"], ended["exit_code"], ended["note"]) == ("succeeded", 0, None)
    assert ended["summary"]["verdicts"]["ok"] == 1
    assert ended["summary"]["failures"] == 1
    assert ended["progress"]["done"] == 2
    assert ended["created_at"] <= ended["started_at"] <= ended["ended_at"]
    # The event of the end comes a moment before the snapshot is opened.
    until(lambda: server.search("green", top_k=1)[0]["path"] == str(path))
    paths = {video["path"] for video in server.client.get("/v1/videos").json()["videos"]}
    assert str(left_out) not in paths

    log = server.client.get(f"/v1/jobs/{job['job_id']}/log")
    assert log.headers["content-type"] == "text/plain; charset=utf-8"
    assert "2 files found" in log.text
    assert re.search(r"decodes(, not)? \(?cuda", log.text), "the run follows REELFIND_HWACCEL"
    listed = server.client.get("/v1/jobs", params={"state": "ended", "limit": 1}).json()
    assert listed["jobs"] == [ended]
    assert server.client.get("/v1/jobs", params={"state": "running"}).json() == {"jobs": [], "total": 0}

    # A client that has lost its connection goes on where it was.
    middle = events[2][0]
    assert list(follow(server.client, job["job_id"], after=middle)) == events[3:]
    assert list(follow(server.client, job["job_id"], after="nonsense")) == events
    last = {"Last-Event-ID": events[-1][0]}
    assert server.client.get(f"/v1/jobs/{job['job_id']}/events", headers=last).status_code == 204
    check_problem(server.client.delete(f"/v1/jobs/{job['job_id']}"), 409, "has ended")


def test_a_run_without_anything_to_search_fails_and_says_why(server: Server, made: ToyLibrary) -> None:
    (made.media / "empty").mkdir()
    job = wait_for(server, start_job(server, made.media / "empty")["job_id"])
    assert (job["state"], job["exit_code"]) == ("failed", 1)
    assert "Nothing that was found" in job["note"]


def test_paths_elsewhere_are_refused_in_the_same_words(
    server: Server, made: ToyLibrary, tmp_path: Path
) -> None:
    (made.media / "link").symlink_to(tmp_path)
    refused = [tmp_path, made.media.parent, made.media / "missing", made.media / "link", "/etc/passwd"]
    refused += [f"{made.media}/../media", "elsewhere", "media/../media", "", f"{made.media}\0"]
    for path in refused:
        body = {"paths": [str(made.media), str(path)]}
        problem = check_problem(server.client.post("/v1/jobs/index", json=body), 422, "")
        assert problem["errors"][0]["pointer"] == "#/paths/1"
        if str(path):
            assert "is no file or folder in the folders that you may index" in problem["detail"]
    bodies: list[dict[str, object]] = [{}, {"paths": []}, {"paths": [str(made.media)], "prune_all": True}]
    for invalid in bodies:
        check_problem(server.client.post("/v1/jobs/index", json=invalid), 422, "")
    (made.media / "link").unlink()


def test_unknown_jobs_are_not_found(server: Server) -> None:
    for path in ("", "/events", "/log"):
        check_problem(server.client.get(f"/v1/jobs/0123456789abcdef{path}"), 404, "no job")
    check_problem(server.client.delete("/v1/jobs/0123456789abcdef"), 404, "no job")


def test_jobs_are_off_unless_they_are_turned_on(made: ToyLibrary) -> None:
    with running_server(*made.options) as server:
        requests = [("POST", "/v1/jobs/index"), ("GET", "/v1/jobs"), ("DELETE", "/v1/jobs/1")]
        for method, path in requests:
            body = {"paths": [str(made.media)]} if method == "POST" else None
            check_problem(server.client.request(method, path, json=body), 403, "REELFIND_JOBS=1")
        video = {"file": ("a.mp4", b"video")}
        check_problem(server.client.post("/v1/videos", files=video), 403, "REELFIND_JOBS=1")


def test_jobs_wait_for_the_library_run_in_turn_and_are_cancelled(toy: ToyLibrary) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(
            running_server(*toy.options, "--media", str(toy.media), environment=JOBS)
        )
        with lock_library(toy.library):
            first = start_job(server, toy.film("first/blue.mp4", [("blue", 1.0)]))["job_id"]
            second = start_job(server, toy.film("second/cyan.mp4", [("cyan", 1.0)]))["job_id"]
            third = start_job(server, toy.media)["job_id"]
            until(lambda: read_job(server, first)["waits_for_library"])
            job = read_job(server, first)
            assert f"process {os.getpid()}" in job["note"]
            assert (job["state"], job["attempts"]) == ("queued", 0)
            assert read_job(server, second)["waits_for_library"] is False
            cancelled = server.client.delete(f"/v1/jobs/{third}")
            assert (cancelled.status_code, cancelled.json()["state"]) == (202, "cancelled")
            assert [data["state"] for _, _, data in follow(server.client, third)] == ["queued", "cancelled"]
        ended = [wait_for(server, each) for each in (first, second)]
        assert [job["state"] for job in ended] == ["succeeded", "succeeded"]
        assert ended[0]["ended_at"] <= ended[1]["started_at"]
        assert read_job(server, third)["state"] == "cancelled"


def test_a_job_makes_a_library_where_there_is_none(toy: ToyLibrary, tmp_path: Path) -> None:
    """With so little memory as a job may have at least."""
    options = ["--library", str(tmp_path / "none"), "--bundle", str(toy.bundle), "--media", str(toy.media)]
    environment = JOBS | {"REELFIND_JOB_MEMORY_MB": "1024", "REELFIND_STATE": str(tmp_path / "kept")}
    with running_server(*options, environment=environment, ready=False) as server:
        assert server.client.get("/readyz").status_code == 503
        assert wait_for(server, start_job(server, toy.media)["job_id"])["state"] == "succeeded"
        until(lambda: server.client.get("/readyz").status_code == 200)
        assert server.search("red", top_k=1)[0]["path"] == str(toy.media / "red.mp4")
    assert list((tmp_path / "kept" / "jobs").glob("*/jobs.sqlite"))
    assert not (tmp_path / "none-state").exists()


@pytest.mark.parametrize(
    ("damaged", "code", "said"),
    [("", 2, "state /.* cannot be used: File exists"), ("jobs.sqlite", 3, "move the file away")],
)
def test_a_state_folder_that_cannot_be_used_ends_the_start_with_a_remedy(
    toy: ToyLibrary, tmp_path: Path, damaged: str, code: int, said: str
) -> None:
    state = tmp_path / "state"
    if damaged:
        file = jobs_folder(load_settings({"library": toy.library, "state": state})) / damaged
        file.write_bytes(b"nonsense" * 1000)
    else:
        state.write_text("a file")
    run = subprocess.run(
        [*REELFIND, "serve", *toy.options, "--port", "0"],
        env=clean_environment() | JOBS | {"REELFIND_STATE": str(state)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == code, run.stderr
    assert re.search(said, run.stderr)
    assert "Traceback" not in run.stderr


#: A run that does not end by itself: it waits for files to come to rest.
ENDLESS = JOBS | {"REELFIND_SETTLE_SECONDS": "3600"}


def test_a_job_that_runs_is_cancelled_in_order(toy: ToyLibrary) -> None:
    with running_server(*toy.options, "--media", str(toy.media), environment=ENDLESS) as server:
        job_id = start_job(server, toy.film("slow/blue.mp4", [("blue", 1.0)]))["job_id"]
        for _, name, _ in follow(server.client, job_id):
            if name == "scanned":
                break
        response = server.client.delete(f"/v1/jobs/{job_id}")
        assert response.json()["is_cancelling"] is True
        job = wait_for(server, job_id)
        assert (job["state"], job["exit_code"], job["is_cancelling"]) == ("cancelled", 130, False)
        assert "stopping after the current batch" in server.client.get(f"/v1/jobs/{job_id}/log").text
        # Nothing holds the library any more.
        with lock_library(toy.library):
            pass


def test_a_queue_survives_the_server(toy: ToyLibrary) -> None:
    first_film = toy.film("first/blue.mp4", [("blue", 1.0)])
    second_film = toy.film("second/cyan.mp4", [("cyan", 1.0)])
    options = (*toy.options, "--media", str(toy.media))
    with running_server(*options, environment=ENDLESS) as server:
        first = start_job(server, first_film)["job_id"]
        second = start_job(server, second_film)["job_id"]
        for _, name, _ in follow(server.client, first):
            if name == "scanned":
                break
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
    with running_server(*options, environment=JOBS) as server:
        events = [data for _, name, data in follow(server.client, first) if name == "state"]
        states = [data["state"] for data in events]
        assert states[:3] == ["queued", "running", "interrupted"]
        assert states[-2:] == ["running", "succeeded"]
        assert events[-2]["attempt"] == 2
        assert [wait_for(server, each)["state"] for each in (first, second)] == ["succeeded"] * 2
        until(lambda: server.search("blue", top_k=1)[0]["path"] == str(first_film))
        until(lambda: server.search("cyan", top_k=1)[0]["path"] == str(second_film))


def test_a_server_that_stops_lets_its_job_go_on_later(toy: ToyLibrary) -> None:
    film = toy.film("slow/blue.mp4", [("blue", 1.0)])
    options = (*toy.options, "--media", str(toy.media))
    with running_server(*options, environment=ENDLESS) as server:
        job_id = start_job(server, film)["job_id"]
        stream = follow(server.client, job_id)
        for _, name, _ in stream:
            if name == "scanned":
                break
        server.process.send_signal(signal.SIGTERM)
        # Those who follow a job do not hold up the stop.
        assert "interrupted" not in [name for _, name, _ in stream]
        assert server.process.wait(20) == 0
    run = subprocess.run(["pgrep", "-f", str(film)], capture_output=True, text=True, check=False)
    assert run.stdout == ""
    with running_server(*options, environment=JOBS) as server:
        job = wait_for(server, job_id)
        assert (job["state"], job["attempts"]) == ("succeeded", 1)
