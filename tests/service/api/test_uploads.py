"""Uploading videos over HTTP, whole and in parts, to a real server."""

from __future__ import annotations

import hashlib
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.jobs import JOBS, wait_for
from tests.support.problems import check_problem
from tests.support.server import Server, running_server, until
from tests.support.toy_library import ToyLibrary, make_library
from tests.support.toy_videos import make_video

pytestmark = pytest.mark.slow

MOST_BYTES = 3_000_000
PART = {"Content-Type": "application/offset+octet-stream"}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_library(tmp_path_factory.mktemp("uploads"), {"red.mp4": [("red", 1.0)]})


def options_of(toy: ToyLibrary) -> list[str]:
    return [*toy.options, "--media", str(toy.media), "--upload-folder", str(toy.media / "uploads")]


@pytest.fixture(scope="module")
def server(toy: ToyLibrary) -> Iterator[Server]:
    limit = {"REELFIND_MAX_UPLOAD_BYTES": str(MOST_BYTES)}
    with running_server(*options_of(toy), environment=JOBS | limit) as server:
        yield server


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = make_video(tmp_path_factory.mktemp("film") / "a.mp4", parts=[("green", 1.0)], size=(64, 48), fps=4)
    return path.read_bytes()


@pytest.fixture
def uploads(toy: ToyLibrary) -> Iterator[Path]:
    """The upload folder, empty before and after."""
    folder = toy.media / "uploads"
    shutil.rmtree(folder, ignore_errors=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def send(server: Server, name: str, content: bytes) -> httpx.Response:
    return server.client.post("/v1/videos", files={"file": (name, content)})


def test_an_uploaded_video_is_indexed_and_overwrites_nothing(
    server: Server, uploads: Path, film: bytes
) -> None:
    first = send(server, "../../etc/Ein Film, früher.mp4", film)
    assert first.status_code == 202, first.text
    uploaded = first.json()
    assert uploaded["path"] == str(uploads / "Ein Film, früher.mp4")
    assert uploaded["video_id"] == hashlib.sha256(film).hexdigest()[:32]
    assert uploaded["bytes"] == len(film)
    assert first.headers["location"] == f"/v1/jobs/{uploaded['job']['job_id']}"
    assert uploaded["job"]["paths"] == [uploaded["path"]]
    assert wait_for(server, uploaded["job"]["job_id"])["state"] == "succeeded"
    url = f"/v1/videos/{uploaded['video_id']}"
    until(lambda: server.client.get(url).status_code == 200)
    assert server.client.get(f"{url}/media").content == film
    again = send(server, "C:\\Films\\Ein Film, früher.mp4", b"other bytes")
    assert again.json()["path"] == str(uploads / "Ein Film, früher (2).mp4")
    assert names_in(uploads) == ["Ein Film, früher (2).mp4", "Ein Film, früher.mp4"]
    assert (uploads / "Ein Film, früher.mp4").read_bytes() == film
    assert wait_for(server, again.json()["job"]["job_id"])["state"] == "failed"


def test_what_is_no_upload_leaves_nothing(server: Server, uploads: Path, film: bytes) -> None:
    for name in ("notes.txt", "no-extension", ".mp4\n", "a.mp4/"):
        check_problem(send(server, name, film), 422, "not the name of a video")
    check_problem(send(server, "empty.mp4", b""), 422, "empty")
    client = server.client
    check_problem(client.post("/v1/videos", files={"video": ("a.mp4", film)}), 422, "part 'video' is unknown")
    check_problem(client.post("/v1/videos", files={"file": (None, film)}), 422, "no file name")
    two = [("file", ("a.mp4", film)), ("file", ("b.mp4", film))]
    check_problem(client.post("/v1/videos", files=two), 422, "second part")
    check_problem(client.post("/v1/videos", json={}), 422, "multipart/form-data")
    check_problem(client.post("/v1/videos", content=film), 415, "not declared as JSON")
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    for body in (
        b"nonsense",
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\nabc',
    ):
        check_problem(client.post("/v1/videos", content=body, headers=form), 422, "multipart/form-data")
    foreign = {"Origin": "https://elsewhere.example"}
    check_problem(client.post("/v1/videos", files=two[:1], headers=foreign), 403, "another site|elsewhere")
    assert names_in(uploads) == []


def test_a_video_above_the_limit_is_refused(server: Server, uploads: Path) -> None:
    large = b"x" * (MOST_BYTES + 1)
    check_problem(send(server, "large.mp4", large), 413, "REELFIND_MAX_UPLOAD_BYTES")
    assert send(server, "fits.mp4", large[:-1]).status_code == 202
    body = {"name": "large.mp4", "bytes": MOST_BYTES + 1}
    check_problem(server.client.post("/v1/uploads", json=body), 413, "REELFIND_MAX_UPLOAD_BYTES")
    assert names_in(uploads) == ["fits.mp4"]


def test_an_upload_that_is_cut_off_leaves_nothing(server: Server, uploads: Path) -> None:
    address = urlsplit(server.url)
    head = (
        f"POST /v1/videos HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: 2000000\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
        '--x\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n'
    )
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(head.encode() + b"v" * 1_200_000)
        until(lambda: len(names_in(uploads)) == 1)
        assert names_in(uploads)[0].startswith(".reelfind-upload-")
    until(lambda: names_in(uploads) == [])


def test_a_video_in_parts_goes_on_after_a_break(server: Server, uploads: Path, film: bytes) -> None:
    client = server.client
    begun = client.post("/v1/uploads", json={"name": "x/parts.mp4", "bytes": len(film)})
    assert begun.status_code == 201
    url = begun.headers["location"]
    assert begun.json() == {
        "upload_id": url.rpartition("/")[2],
        "name": "parts.mp4",
        "bytes": len(film),
        "offset": 0,
    }
    middle = len(film) // 2
    # The first part breaks off: what has arrived stays.
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port)) as connection:
        head = f"PATCH {url} HTTP/1.1\r\nHost: {address.netloc}\r\nUpload-Offset: 0\r\n"
        head += f"Content-Length: {len(film)}\r\n"
        connection.sendall(f"{head}Content-Type: {PART['Content-Type']}\r\n\r\n".encode() + film[:middle])
        until(lambda: client.get(url).status_code == 409)
        check_problem(client.get(url), 409, "is on its way")
    until(lambda: client.head(url).headers.get("upload-offset") == str(middle))
    assert client.get(url).json()["offset"] == middle
    assert client.head(url).headers["upload-length"] == str(len(film))
    check_problem(
        client.patch(url, content=film, headers=PART | {"Upload-Offset": "0"}),
        409,
        f"Upload-Offset: {middle}",
    )
    at_middle = PART | {"Upload-Offset": str(middle)}
    check_problem(client.patch(url, content=film, headers=at_middle), 413, "that were said")
    check_problem(client.patch(url, content=film, headers=at_middle | {"Content-Type": "video/mp4"}), 415, "")
    check_problem(client.patch(url, json={}, headers={"Upload-Offset": str(middle)}), 422, "Content-Type")
    part = client.patch(url, content=film[middle : middle + 10], headers=at_middle)
    assert (part.status_code, part.headers["upload-offset"]) == (204, str(middle + 10))
    rest = PART | {"Upload-Offset": str(middle + 10)}
    whole = client.patch(url, content=film[middle + 10 :], headers=rest)
    assert whole.status_code == 202, whole.text
    assert whole.json()["path"] == str(uploads / "parts.mp4")
    assert (uploads / "parts.mp4").read_bytes() == film
    assert whole.json()["job"]["state"] in ("queued", "running")
    check_problem(client.get(url), 404, "no upload")


def test_asking_how_much_has_arrived_refuses_no_part(server: Server, uploads: Path) -> None:
    url = server.client.post("/v1/uploads", json={"name": "a.mp4", "bytes": 1000}).headers["location"]
    done = threading.Event()

    def ask() -> set[int]:
        codes = set()
        with httpx.Client(base_url=server.url, trust_env=False) as client:
            while not done.is_set():
                codes.add(client.head(url).status_code)
        return codes

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask) for _ in range(4)]
        try:
            for offset in range(300):
                part = server.client.patch(url, content=b"v", headers=PART | {"Upload-Offset": str(offset)})
                assert part.status_code == 204, part.text
        finally:
            done.set()
        assert set().union(*(each.result() for each in asked)) <= {200, 409}
    assert server.client.head(url).headers["upload-offset"] == "300"
    assert server.client.delete(url).status_code == 204


def test_an_upload_in_parts_can_be_given_up(server: Server, uploads: Path) -> None:
    client = server.client
    url = client.post("/v1/uploads", json={"name": "a.mp4", "bytes": 10}).headers["location"]
    assert len(names_in(uploads)) == 1
    assert client.delete(url).status_code == 204
    assert names_in(uploads) == []
    for method in ("GET", "HEAD", "DELETE"):
        assert client.request(method, url).status_code == 404
    check_problem(client.get("/v1/uploads/..%2f..%2fjobs"), 404, "")
    for body in ({"name": "a.txt", "bytes": 1}, {"name": "a.mp4", "bytes": 0}, {"name": "a.mp4"}):
        check_problem(client.post("/v1/uploads", json=body), 422, "")


def test_a_slow_upload_has_its_time_and_a_full_disk_is_told(toy: ToyLibrary, uploads: Path) -> None:
    limits = {"REELFIND_MAX_UPLOAD_BYTES": str(10**18), "REELFIND_RECEIVE_SECONDS": "1"}

    def slowly() -> Iterator[bytes]:
        for _ in range(4):
            yield b"v" * 1_100_000
            time.sleep(0.6)

    with running_server(*options_of(toy), environment=JOBS | limits) as server:
        body = {"name": "a.mp4", "bytes": 10**17}
        check_problem(server.client.post("/v1/uploads", json=body), 507, "disk has room for")
        url = server.client.post("/v1/uploads", json=body | {"bytes": 10**7}).headers["location"]
        part = server.client.patch(url, content=slowly(), headers=PART | {"Upload-Offset": "0"})
        assert (part.status_code, part.headers["upload-offset"]) == (204, "4400000")
    # What has arrived survives a restart.
    with running_server(*options_of(toy), environment=JOBS | limits) as server:
        assert server.client.get(url).json()["offset"] == 4_400_000


def test_uploads_are_off_without_a_folder_in_a_media_folder(
    toy: ToyLibrary, tmp_path: Path, film: bytes
) -> None:
    media = ["--media", str(toy.media)]
    outside = ["--upload-folder", str(tmp_path)]
    for options, said in (
        (media, "REELFIND_UPLOAD_FOLDER"),
        ([*media, *outside], "in none of the media folders"),
    ):
        with running_server(*toy.options, *options, environment=JOBS) as server:
            check_problem(send(server, "a.mp4", film), 403, said)
            begun = server.client.post("/v1/uploads", json={"name": "a.mp4", "bytes": 1})
            check_problem(begun, 403, said)
    assert names_in(tmp_path) == []
