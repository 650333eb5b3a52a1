"""Videos in an object store, as a user has them: indexed, found, played and kept from others."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import pytest

from tests.support.jobs import start_job, wait_for
from tests.support.object_store import (
    BUCKET,
    KEYS,
    Faults,
    delete_object,
    faulty_proxy,
    object_store,
    put_object,
)
from tests.support.server import Server, run_reelfind, running_server
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_videos import make_video

pytestmark = pytest.mark.slow
FILMS = f"s3://{BUCKET}/clips"


@dataclass(frozen=True)
class Home:
    """A bundle and a library here, and films in a store."""

    folder: Path
    store: str
    faults: Faults
    environment: dict[str, str]

    def film(self, name: str, colour: str) -> bytes:
        path = make_video(self.folder / "made" / name, parts=[(colour, 4.0)], size=(64, 48), fps=4)
        put_object(self.store, f"clips/{name}", path.read_bytes())
        return path.read_bytes()

    def reelfind(self, *arguments: str, code: int = 0) -> str:
        return run_reelfind(*arguments, environment=self.environment, code=code)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("home")
    make_toy_bundle(folder / "bundle")
    faults = Faults()
    with object_store() as store, faulty_proxy(store, faults) as proxy:
        environment = {
            **KEYS,
            "AWS_ENDPOINT_URL": proxy,
            "REELFIND_BUNDLE": str(folder / "bundle"),
            "REELFIND_LIBRARY": str(folder / "library"),
        }
        home = Home(folder, store, faults, environment)
        for name, colour in (("a red one.mp4", "red"), ("sub/green.mp4", "green"), ("blue.mp4", "blue")):
            home.film(name, colour)
        home.reelfind("index", FILMS, "--workers", "1")
        yield home


@pytest.fixture(scope="module")
def server(home: Home) -> Iterator[Server]:
    options = ("--media", FILMS, "--jobs", "--writes", "--allow-delete-media", "--reload-seconds", "0.2")
    with running_server(*options, environment=home.environment) as server:
        yield server


def test_a_video_is_found_and_played_from_the_store(home: Home, server: Server) -> None:
    hit = server.search("red")[0]
    assert hit["path"] == f"{FILMS}/a red one.mp4"
    content = (home.folder / "made/a red one.mp4").read_bytes()
    url = f"/v1/videos/{hit['video_id']}"
    assert server.client.get(f"{url}/media").content == content
    part = server.client.get(f"{url}/media", headers={"range": "bytes=100-299"})
    assert (part.status_code, part.content) == (206, content[100:300])
    etag = part.headers["etag"]
    assert server.client.get(f"{url}/media", headers={"if-none-match": etag}).status_code == 304
    assert server.client.get(url).json()["playable"] is True
    for made in (f"{url}/stream?start=1", f"{url}/clip?start=1&end=3"):
        answer = server.client.get(made)
        assert answer.status_code == 200, answer.text
        with av.open(io.BytesIO(answer.content), "r") as container:
            frame = next(container.decode(video=0)).to_ndarray(format="rgb24")
        assert frame[..., 0].mean() > 200
        assert frame[..., 1:].mean() < 60


def test_a_folder_of_the_store_limits_what_is_searched(server: Server) -> None:
    under = {"op": "under", "field": "path", "folder": f"{FILMS}/sub/"}
    assert [hit["path"] for hit in server.search("red", filter=under)] == [f"{FILMS}/sub/green.mp4"]


def test_commands_take_addresses_where_they_take_paths(home: Home) -> None:
    found = home.reelfind("search", "red", "--folder", f"{FILMS}/sub")
    assert "green.mp4" in found
    assert "red one" not in found
    assert FILMS in home.reelfind("library", "info")
    assert "intact" in home.reelfind("library", "verify")
    said = home.reelfind("index", f"s3://{BUCKET}/none", code=2)
    assert "No such file" in said
    assert "Traceback" not in said


def test_a_job_indexes_what_lies_in_the_media_folders(home: Home, server: Server) -> None:
    home.film("sub/cyan.mp4", "cyan")
    job = wait_for(server, start_job(server, f"{FILMS}/sub")["job_id"])
    assert job["state"] == "succeeded", job
    assert any(hit["path"].endswith("cyan.mp4") for hit in server.search("cyan"))
    before = home.faults.requests
    for elsewhere in (f"s3://{BUCKET}/other", "http://127.0.0.1:1/a.mp4", f"s3://{BUCKET}/clips/../x"):
        answer = server.client.post("/v1/jobs/index", json={"paths": [elsewhere]})
        assert answer.status_code == 422, answer.text
        assert "is no file or folder in the folders that you may index" in answer.json()["detail"]
    # A server that may not be named is not asked.
    assert home.faults.requests == before


def test_nothing_is_deleted_in_the_store(home: Home, server: Server) -> None:
    video_id = server.search("blue")[0]["video_id"]
    answer = server.client.delete(f"/v1/videos/{video_id}?media=true")
    assert answer.status_code == 403, answer.text
    assert "nothing is deleted over HTTP" in answer.json()["detail"]
    assert server.client.get(f"/v1/videos/{video_id}/media").status_code == 200


def test_a_file_that_changed_is_gone_or_is_away_says_so(home: Home, server: Server) -> None:
    video_id = server.search("green")[0]["video_id"]
    content = (home.folder / "made/sub/green.mp4").read_bytes()
    url = f"/v1/videos/{video_id}/media"
    home.faults.is_away = True
    try:
        answer = server.client.get(url)
        assert answer.status_code == 410
        assert "the store cannot be reached" in answer.json()["detail"]
    finally:
        home.faults.is_away = False
    put_object(home.store, "clips/sub/green.mp4", content + b"\0")
    assert "has changed since it was indexed" in server.client.get(url).json()["detail"]
    delete_object(home.store, "clips/sub/green.mp4")
    assert "is missing" in server.client.get(url).json()["detail"]


def test_a_library_cannot_make_the_service_ask_any_server(home: Home) -> None:
    options = ("--media", f"s3://{BUCKET}/other:/media")
    with running_server(*options, environment=home.environment) as server:
        video_id = server.search("red")[0]["video_id"]
        before = home.faults.requests
        answer = server.client.get(f"/v1/videos/{video_id}/media")
        assert answer.status_code == 403
        assert "lies outside of the media folders" in answer.json()["detail"]
        assert home.faults.requests == before
