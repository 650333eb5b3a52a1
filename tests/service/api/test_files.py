"""Videos' files and frames over HTTP: ranges, conditions, and files that are gone or lead elsewhere."""

import io
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.support.problems import check_problem
from tests.support.server import Server, running_server
from tests.support.toy_library import ToyLibrary, make_library
from tests.support.toy_videos import make_video


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    films = {
        name: [(colour, 2.0)]
        for name, colour in [
            ("red.mp4", "red"),
            ("gone.mp4", "green"),
            ("swapped.mp4", "blue"),
            ("folder.mp4", "cyan"),
            ("ein Film, früher.mkv", "white"),
        ]
    }
    return make_library(tmp_path_factory.mktemp("files"), films)


@pytest.fixture(scope="module")
def server(toy: ToyLibrary) -> Iterator[Server]:
    with running_server(*toy.options) as server:
        yield server
        assert "Traceback" not in server.log()


def address(server: Server, name: str) -> str:
    return f"/v1/videos/{server.video_id(name)}/media"


def test_the_whole_file(server: Server, toy: ToyLibrary) -> None:
    response = server.client.get(address(server, "red.mp4"))
    assert response.status_code == 200
    assert response.content == (toy.media / "red.mp4").read_bytes()
    assert response.headers["content-type"] == "video/mp4"
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["content-disposition"] == 'inline; filename="red.mp4"'
    assert response.headers["cache-control"] == "private, no-cache"


def test_names_of_other_scripts_and_containers(server: Server) -> None:
    response = server.client.get(address(server, "früher.mkv"))
    assert response.headers["content-type"] == "video/x-matroska"
    assert (
        response.headers["content-disposition"] == "inline; filename*=utf-8''ein%20Film%2C%20fr%C3%BCher.mkv"
    )


@pytest.mark.parametrize(
    ("header", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=0-99", 0, 99),
        ("bytes=100-199", 100, 199),
        ("bytes=100-", 100, None),
        ("bytes=-50", -50, None),
        ("bytes=-99999999", 0, None),
        ("bytes=10-99999999", 10, None),
    ],
)
def test_one_range(server: Server, toy: ToyLibrary, header: str, first: int, last: int | None) -> None:
    data = (toy.media / "red.mp4").read_bytes()
    start = first % len(data)
    end = len(data) - 1 if last is None else last
    for method in ("GET", "HEAD"):
        response = server.client.request(method, address(server, "red.mp4"), headers={"Range": header})
        assert response.status_code == 206
        assert response.headers["content-range"] == f"bytes {start}-{end}/{len(data)}"
        assert response.headers["content-length"] == str(end - start + 1)
        assert response.content == (data[start : end + 1] if method == "GET" else b"")


@pytest.mark.parametrize(
    "header", ["bytes=5-2", "bytes=0-1,5-9", "bytes=x-y", "lines=1-2", "bytes=-", "bytes=--5"]
)
def test_what_is_no_single_range_gives_the_whole_file(server: Server, toy: ToyLibrary, header: str) -> None:
    response = server.client.get(address(server, "red.mp4"), headers={"Range": header})
    assert response.status_code == 200
    assert response.content == (toy.media / "red.mp4").read_bytes()


@pytest.mark.parametrize("header", ["bytes=99999999-", "bytes=99999999-999999999", "bytes=-0"])
def test_a_range_outside_the_file(server: Server, toy: ToyLibrary, header: str) -> None:
    response = server.client.get(address(server, "red.mp4"), headers={"Range": header})
    size = (toy.media / "red.mp4").stat().st_size
    check_problem(response, 416, f"The file has {size:,} bytes; the range .* Ask for bytes 0 to {size - 1}")
    assert response.headers["content-range"] == f"bytes */{size}"


def test_head_tells_the_size_without_the_file(server: Server, toy: ToyLibrary) -> None:
    response = server.client.head(address(server, "red.mp4"))
    assert response.status_code == 200
    assert response.headers["content-length"] == str((toy.media / "red.mp4").stat().st_size)
    assert response.content == b""


def test_a_client_with_the_same_file_gets_no_bytes(server: Server) -> None:
    path = address(server, "red.mp4")
    first = server.client.get(path)
    etag, modified = first.headers["etag"], first.headers["last-modified"]
    for headers in (
        {"If-None-Match": etag},
        {"If-Modified-Since": modified},
        {"If-None-Match": f'"x", {etag}'},
    ):
        response = server.client.get(path, headers=headers)
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["etag"] == etag
    assert server.client.get(path, headers={"If-None-Match": '"x"'}).status_code == 200
    ranged = {"Range": "bytes=0-9"}
    assert server.client.get(path, headers={**ranged, "If-Range": etag}).status_code == 206
    assert server.client.get(path, headers={**ranged, "If-Range": '"x"'}).status_code == 200


def test_a_file_that_is_gone(server: Server, toy: ToyLibrary) -> None:
    path = address(server, "gone.mp4")
    assert server.client.get(path).status_code == 200
    (toy.media / "gone.mp4").unlink()
    check_problem(
        server.client.get(path),
        410,
        "gone.mp4, is missing. Put it back, or index its folder again with `--prune`",
    )
    assert server.search("green", top_k=1)[0]["path"].endswith("gone.mp4")


def test_a_file_that_became_a_folder(server: Server, toy: ToyLibrary) -> None:
    path = address(server, "folder.mp4")
    (toy.media / "folder.mp4").unlink()
    (toy.media / "folder.mp4").mkdir()
    check_problem(server.client.get(path), 410, "folder.mp4, cannot be read")


def test_a_link_out_of_the_media_is_not_followed(server: Server, toy: ToyLibrary, tmp_path: Path) -> None:
    path = address(server, "swapped.mp4")
    secret = tmp_path / "secret.mp4"
    shutil.copy(toy.media / "red.mp4", secret)
    inside = toy.media / "swapped.mp4"
    inside.unlink()
    inside.symlink_to(secret)
    check_problem(server.client.get(path), 403, "is reached through a link out of the media folders")
    check_problem(server.client.get(path, headers={"Range": "bytes=0-9"}), 403, "through a link out")
    inside.unlink()
    inside.symlink_to(toy.media / "red.mp4")
    check_problem(server.client.get(path), 409, "has changed since it was indexed. Run `reelfind index`")


def test_videos_that_were_found_through_links_play(tmp_path: Path) -> None:
    linked = make_library(tmp_path, {"red.mp4": [("red", 1.0)]})
    elsewhere = tmp_path / "elsewhere"
    for name in ("shelf/blue.mp4", "green.mp4"):
        make_video(elsewhere / name, parts=[(Path(name).stem, 1.0)])
    (linked.media / "shelf").symlink_to(elsewhere / "shelf")
    (linked.media / "green.mp4").symlink_to(elsewhere / "green.mp4")
    linked.index()
    with running_server(*linked.options) as server:
        for name, real in (("shelf/blue.mp4", "shelf/blue.mp4"), ("green.mp4", "green.mp4")):
            assert server.client.get(address(server, name)).content == (elsewhere / real).read_bytes()


def test_every_frame_of_a_hit_has_a_picture(server: Server) -> None:
    hit = server.search("red", top_k=1)[0]
    assert hit["frames"]
    for frame in hit["frames"]:
        response = server.client.get(f"/v1/frames/{frame['frame_id']}.jpg")
        assert response.status_code == 200
        assert response.headers["content-type"] == "image/jpeg"
        picture = Image.open(io.BytesIO(response.content))
        assert picture.size == (64, 48)
        red, green, blue = np.asarray(picture.convert("RGB"))[24, 32]
        assert (red > 200, green < 60, blue < 60) == (True, True, True)


def test_pictures_are_kept_for_ever_only_at_an_address_with_the_snapshot(server: Server) -> None:
    frame_id = server.search("red", top_k=1)[0]["frames"][0]["frame_id"]
    path = f"/v1/frames/{frame_id}.jpg"
    plain = server.client.get(path)
    assert plain.headers["cache-control"] == "private, no-cache"
    named = server.client.get(path, params={"snapshot": 1})
    assert re.fullmatch(r"private, max-age=\d{8}, immutable", named.headers["cache-control"])
    assert server.client.get(path, params={"snapshot": 2}).headers["cache-control"] == "private, no-cache"
    again = server.client.get(path, headers={"If-None-Match": plain.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    head = server.client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(plain.content))


@pytest.mark.parametrize("change", ["99", "segment"])
def test_a_frame_that_is_not_stored(server: Server, change: str) -> None:
    frame_id = server.search("red", top_k=1)[0]["frames"][0]["frame_id"]
    video_id = frame_id[:16]
    missing = f"{video_id}-00000-99" if change == "99" else f"{video_id}-00007-00"
    check_problem(
        server.client.get(f"/v1/frames/{missing}.jpg"), 404, f'No stored frame has the id "{missing}"'
    )


@pytest.fixture
def large(tmp_path: Path) -> Iterator[Server]:
    """A server of one video of 40 MB: more than the sockets' buffers hold."""
    toy = make_library(tmp_path, {"large.mp4": [("red", 1.0)]})
    with (toy.media / "large.mp4").open("ab") as file:
        file.write((40_000_000).to_bytes(4, "big") + b"free" + bytes(40_000_000 - 8))
    toy.index()
    with running_server(*toy.options) as server:
        yield server
        assert "Traceback" not in server.log()


def accepts_connections(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", trust_env=False).is_success
    except httpx.TransportError:
        return False


def test_a_download_in_flight_finishes_when_the_server_is_told_to_stop(large: Server) -> None:
    with large.client.stream("GET", address(large, "large.mp4")) as response:
        chunks = response.iter_raw()
        received = len(next(chunks))
        large.process.terminate()
        while accepts_connections(large.url):
            time.sleep(0.01)
        received += sum(map(len, chunks))
        assert received == int(response.headers["content-length"]) > 40_000_000
    assert large.process.wait(30) == 0


def test_a_client_that_leaves_in_the_middle_harms_nobody(large: Server) -> None:
    path = address(large, "large.mp4")
    for headers in ({}, {"Range": "bytes=1000-"}):
        with large.client.stream("GET", path, headers=headers) as response:
            assert next(response.iter_raw())
    assert large.client.get("/healthz").status_code == 200
    assert len(large.client.get(path).content) > 40_000_000
