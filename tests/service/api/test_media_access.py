"""Which files are played: a stranger's library, links, swaps in the middle of requests, and descriptors."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from tests.support.crafted_library import change_table, set_column, stamp_again
from tests.support.problems import check_problem
from tests.support.server import Server, running_server
from tests.support.toy_library import ToyLibrary, make_library

FILMS = {"red.mp4": [("red", 1.0)]}
_REQUESTS = 3000
_RACE_SECONDS = 120.0
#: Lets a name be in turn a link to the secret and the video itself, as fast as it can.
_SWAP = """
import os, sys
video, kept, secret, folder = sys.argv[1:]
link, copy = os.path.join(folder, "link.mp4"), os.path.join(folder, "copy.mp4")
while True:
    os.symlink(secret, link)
    os.replace(link, video)
    os.link(kept, copy)
    os.replace(copy, video)
"""


@pytest.fixture
def toy(tmp_path: Path) -> ToyLibrary:
    return make_library(tmp_path, FILMS)


def media_of(server: Server) -> str:
    return f"/v1/videos/{server.client.get('/v1/videos').json()['videos'][0]['video_id']}/media"


def as_another_user(tmp_path: Path) -> dict[str, str]:
    return {"XDG_STATE_HOME": str(tmp_path / "state of another user")}


def name_file(toy: ToyLibrary, file: Path, media_roots: list[str]) -> None:
    """Let the library's one video be `file`, exactly as it is."""
    stat = file.stat()

    def change(table: pa.Table) -> pa.Table:
        table = set_column(table, "path", [os.fsencode(file)])
        return set_column(table, "mtime_ns", [stat.st_mtime_ns])

    change_table(toy.library, "files", change)
    change_table(toy.library, "videos", lambda table: set_column(table, "bytes", [stat.st_size]))
    stamp_again(toy.library, media_roots=media_roots)


def test_the_roots_of_a_strangers_library_do_not_count(toy: ToyLibrary, tmp_path: Path) -> None:
    with running_server(*toy.options, environment=as_another_user(tmp_path)) as server:
        path = media_of(server)
        remedy = f"reelfind serve --media {toy.media}`, or set REELFIND_MEDIA_ROOTS"
        check_problem(server.client.get(path), 403, remedy)
        assert server.search("red")
    with running_server(
        *toy.options, "--media", str(toy.media), environment=as_another_user(tmp_path)
    ) as server:
        assert server.client.get(path).content == (toy.media / "red.mp4").read_bytes()
    environment = as_another_user(tmp_path) | {"REELFIND_MEDIA_ROOTS": f"/nowhere:{toy.media}"}
    with running_server(*toy.options, environment=environment) as server:
        assert server.client.get(path).status_code == 200


def test_a_file_of_the_computer_is_not_served_to_a_stranger(toy: ToyLibrary, tmp_path: Path) -> None:
    name_file(toy, Path("/etc/passwd"), ["/"])
    with running_server(*toy.options) as server:
        response = server.client.get(media_of(server))
        check_problem(response, 403, "lies outside of the media folders")
    # Even where everything may be played, text is no video.
    with running_server(*toy.options, "--media", "/") as server:
        check_problem(server.client.get(media_of(server)), 403, "is not a video")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cookies.sqlite", b"SQLite format 3\0" + bytes(100)),
        ("id.mp4", b"-----BEGIN OPENSSH PRIVATE KEY-----\n"),
    ],
)
def test_below_a_media_folder_only_videos_are_played(toy: ToyLibrary, name: str, content: bytes) -> None:
    (toy.media / name).write_bytes(content)
    name_file(toy, toy.media / name, [])
    with running_server(*toy.options) as server:
        check_problem(server.client.get(media_of(server)), 403, "is not a video")


def test_a_video_of_another_name_is_played(toy: ToyLibrary) -> None:
    (toy.media / "red.mp4").rename(toy.media / "red.bin")
    name_file(toy, toy.media / "red.bin", [])
    with running_server(*toy.options) as server:
        assert server.client.get(media_of(server)).content == (toy.media / "red.bin").read_bytes()


def test_another_file_in_its_place_is_not_the_video(toy: ToyLibrary, tmp_path: Path) -> None:
    """A hard link is the file; that it is another one shows."""
    secret = tmp_path / "secret.mp4"
    shutil.copy(toy.media / "red.mp4", secret)
    with running_server(*toy.options) as server:
        path = media_of(server)
        (toy.media / "red.mp4").unlink()
        (toy.media / "red.mp4").hardlink_to(secret)
        check_problem(server.client.get(path), 409, "has changed since it was indexed. Run `reelfind index`")
        toy.index()
        server.client.post("/v1/library/reload")
        assert server.client.get(path).content == secret.read_bytes()


def test_pipes_and_devices_are_not_opened(toy: ToyLibrary) -> None:
    with running_server(*toy.options) as server:
        path = media_of(server)
        (toy.media / "red.mp4").unlink()
        os.mkfifo(toy.media / "red.mp4")
        check_problem(server.client.get(path, timeout=5), 410, "is no file any more")
        (toy.media / "red.mp4").unlink()
        (toy.media / "red.mp4").symlink_to("/dev/zero")
        check_problem(server.client.get(path, timeout=5), 403, "through a link out")


def test_folders_that_are_indexed_meanwhile_count_at_once(toy: ToyLibrary, tmp_path: Path) -> None:
    with running_server(*toy.options) as server:
        more = ToyLibrary(tmp_path / "more", toy.library, toy.bundle)
        film = more.film("blue.mp4", [("blue", 1.0)])
        more.index()
        server.client.post("/v1/library/reload")
        videos = server.client.get("/v1/videos").json()["videos"]
        assert len(videos) == 2
        for video in videos:
            content = server.client.get(f"/v1/videos/{video['video_id']}/media").content
            assert content == Path(video["path"]).read_bytes()
        assert film.exists()


@pytest.mark.slow
def test_no_byte_of_another_file_leaves_while_names_are_swapped(toy: ToyLibrary, tmp_path: Path) -> None:
    video, secret = toy.media / "red.mp4", tmp_path / "secret.mp4"
    whole = video.read_bytes()
    secret.write_bytes(b"\0\0\0\x20ftyp" + b"SECRET" * 200)
    stat = video.stat()
    # Same size and time, in the same folder: where a file lies is what tells.
    secret.write_bytes(secret.read_bytes()[: stat.st_size].ljust(stat.st_size, b"S"))
    os.utime(secret, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    kept = tmp_path / "kept.mp4"
    kept.hardlink_to(video)
    # A process of its own: a thread of this one would swap only while no request is on its way.
    swap = subprocess.Popen([sys.executable, "-c", _SWAP, video, kept, secret, tmp_path])
    with running_server(*toy.options) as server:
        path = media_of(server)
        counts = {200: 0, 206: 0, 403: 0, 410: 0}
        deadline = time.monotonic() + _RACE_SECONDS
        try:
            while (
                sum(counts.values()) < _REQUESTS
                or min(counts[200], counts[206], counts[403]) < _REQUESTS / 100
            ):
                assert time.monotonic() < deadline, f"the race did not come about: {counts}"
                headers = {"Range": "bytes=4-99"} if sum(counts.values()) % 2 else {}
                response = server.client.get(path, headers=headers)
                counts[response.status_code] += 1
                if response.status_code < 300:
                    assert response.content in (whole, whole[4:100]), "bytes of another file"
        finally:
            swap.kill()
            swap.wait()


def descriptors(server: Server) -> int:
    return sum(1 for _ in Path(f"/proc/{server.process.pid}/fd").iterdir())


@pytest.mark.slow
def test_requests_that_end_early_leave_no_open_file(toy: ToyLibrary) -> None:
    with (toy.media / "red.mp4").open("ab") as file:
        file.write((8_000_000).to_bytes(4, "big") + b"free" + bytes(8_000_000 - 8))
    toy.index()
    with running_server(*toy.options, "--no-access-log") as server:
        server.client.post("/v1/library/reload")
        path = media_of(server)
        host, port = server.url.removeprefix("http://").split(":")
        etag = server.client.head(path).headers["etag"]
        before = descriptors(server)
        for number in range(2000):
            extra = (
                "",
                "Range: bytes=9999999999-\r\n",
                f"If-None-Match: {etag}\r\n",
                "Range: bytes=0-9\r\n",
            )[number % 4]
            method = "HEAD" if number % 5 == 0 else "GET"
            with socket.create_connection((host, int(port)), 10) as connection:
                connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{extra}\r\n".encode())
                if number % 3:
                    connection.recv(1000)
        deadline = time.monotonic() + 20
        while descriptors(server) > before and time.monotonic() < deadline:
            time.sleep(0.1)
        assert descriptors(server) <= before
        assert server.client.get(path).status_code == 200
        assert "Traceback" not in server.log()
