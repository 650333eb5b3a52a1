"""Jobs of clients with keys: a key with a folder starts and sees what is in it, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.jobs import JOBS, follow, wait_for
from tests.support.keys import WITH_KEYS, bearer, make_key
from tests.support.problems import check_problem
from tests.support.server import Server, running_server
from tests.support.toy_library import ToyLibrary, make_library

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    toy = make_library(tmp_path_factory.mktemp("job-keys"), {"kids/blue.mp4": [("blue", 1.0)]})
    toy.film("kids/new/cyan.mp4", [("cyan", 1.0)])
    toy.film("private/red.mp4", [("red", 1.0)])
    return toy


@pytest.fixture(scope="module")
def server(toy: ToyLibrary) -> Iterator[Server]:
    options = (*toy.options, *WITH_KEYS, "--media", str(toy.media))
    options += ("--upload-folder", str(toy.media / "uploads"))
    with running_server(*options, environment=JOBS) as server:
        yield server


@pytest.fixture(scope="module")
def admin(toy: ToyLibrary) -> dict[str, str]:
    return bearer(make_key(toy, "admin", name="Ada"))


@pytest.fixture(scope="module")
def kids(toy: ToyLibrary) -> dict[str, str]:
    return bearer(make_key(toy, "index", folder=toy.media / "kids"))


def start(server: Server, key: dict[str, str], path: Path | str) -> str:
    response = server.client.post("/v1/jobs/index", json={"paths": [str(path)]}, headers=key)
    assert response.status_code == 202, response.text
    job_id: str = response.json()["job_id"]
    return job_id


def test_a_job_elsewhere_is_not_there(
    server: Server, toy: ToyLibrary, admin: dict[str, str], kids: dict[str, str]
) -> None:
    job_id = start(server, admin, toy.media / "private")
    ended = wait_for(server, job_id, admin)
    assert (ended["state"], ended["created_by"]) == ("succeeded", "Ada")
    start(server, admin, toy.media)
    client = server.client
    for method, path in (("GET", ""), ("GET", "/events"), ("DELETE", "")):
        there = client.request(method, f"/v1/jobs/{job_id}{path}", headers=kids)
        nowhere = client.request(method, f"/v1/jobs/{'0' * 16}{path}", headers=kids)
        check_problem(there, 404, f"no job '{job_id}'")
        assert there.json()["detail"].replace(job_id, "0" * 16) == nowhere.json()["detail"]
    assert client.get("/v1/jobs", headers=kids).json() == {"jobs": [], "total": 0}
    assert client.get("/v1/jobs", headers=admin).json()["total"] == 2
    wait_for(server, client.get("/v1/jobs", headers=admin).json()["jobs"][0]["job_id"], admin)


def test_a_folder_is_a_wall_for_paths(server: Server, toy: ToyLibrary, kids: dict[str, str]) -> None:
    details = set()
    outside = [toy.media, toy.media / "private", toy.media / "private" / "red.mp4", toy.media / "missing"]
    for path in [*map(str, outside), "private", "media/kids", f"{toy.media}/kids/../private", "kids/missing"]:
        response = server.client.post("/v1/jobs/index", json={"paths": [path]}, headers=kids)
        problem = check_problem(response, 422, "is no file or folder in the folders that you may index")
        details.add(problem["detail"].partition(" is no ")[2])
    assert len(details) == 1


@pytest.mark.parametrize("path", ["kids", "kids/new/cyan.mp4", None])
def test_a_job_in_the_folder_shows_paths_from_it_on(
    server: Server, toy: ToyLibrary, kids: dict[str, str], path: str | None
) -> None:
    """None: the absolute path."""
    job_id = start(server, kids, toy.media / "kids" if path is None else path)
    events = list(follow(server.client, job_id, key=kids))
    job = wait_for(server, job_id, kids)
    assert (job["state"], job["paths"], job["created_by"]) == ("succeeded", [path or "kids"], None)
    assert str(toy.media) not in str(events)
    assert str(toy.media) not in str(job)
    assert "num_videos" not in str(events)
    check_problem(server.client.get(f"/v1/jobs/{job_id}/log", headers=kids), 403, "needs the scope admin")


def test_who_is_no_administrator_is_told_no_path_of_the_server(
    server: Server, toy: ToyLibrary, admin: dict[str, str]
) -> None:
    everywhere = bearer(make_key(toy, "index"))
    (toy.media / "empty").mkdir()
    job_id = start(server, everywhere, "media/empty")
    job = wait_for(server, job_id, everywhere)
    assert (job["state"], job["paths"]) == ("failed", ["media/empty"])
    assert job["note"].startswith("The job failed. An administrator")
    assert str(toy.media) not in str(list(follow(server.client, job_id, key=everywhere)))
    whole = wait_for(server, job_id, admin)
    assert whole["paths"] == [str(toy.media / "empty")]
    assert whole["note"].startswith("Nothing that was found")
    assert "0 files found" in server.client.get(f"/v1/jobs/{job_id}/log", headers=admin).text


def test_uploads_go_to_the_folder_or_nowhere(
    server: Server, toy: ToyLibrary, kids: dict[str, str], admin: dict[str, str]
) -> None:
    begin = {"name": "a.mp4", "bytes": 3}
    check_problem(server.client.post("/v1/uploads", json=begin, headers=kids), 403, "limited to a folder")
    ann = bearer(make_key(toy, "index", folder=toy.media / "uploads" / "ann"))
    url = server.client.post("/v1/uploads", json=begin, headers=ann).headers["location"]
    check_problem(server.client.get(url, headers=kids), 404, "no upload")
    part = {"Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
    whole = server.client.patch(url, content=b"abc", headers={**part, **ann})
    assert (whole.status_code, whole.json()["path"]) == (202, "ann/a.mp4")
    assert (toy.media / "uploads" / "ann" / "a.mp4").read_bytes() == b"abc"
    assert wait_for(server, whole.json()["job"]["job_id"], ann)["state"] == "failed"
    check_problem(server.client.get(f"/v1/jobs/{whole.json()['job']['job_id']}", headers=kids), 404, "no job")
