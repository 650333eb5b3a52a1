"""Streams and clips over HTTP, from a real server: what they are, their limits, and how they end."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.support.copies import distinct_copy
from tests.support.flashes import Films, decode, films
from tests.support.problems import check_problem
from tests.support.processes import children, running
from tests.support.server import Server, running_server, until
from tests.support.toy_library import ToyLibrary, make_library
from tests.support.toy_videos import make_video

__all__ = ["films"]
pytestmark = pytest.mark.slow
#: Names in the library, and of which films they are.
NAMES = {
    "film.avi": "avi",
    "hevc.mp4": "hevc",
    "keys.mp4": "h264",
    "keys.mkv": "h264 in mkv",
    'a "quoted"; name\u202e.mp4': "h264",
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory, films: Films) -> ToyLibrary:
    root = tmp_path_factory.mktemp("playback")
    (root / "media").mkdir()
    for name, film in NAMES.items():
        copy = distinct_copy if name.endswith(".mp4") else shutil.copy
        copy(films(film), root / "media" / name)
    shutil.copy(films.long("avi", 100), root / "media/long.avi")
    make_video(root / "media/gone.avi", codec="mpeg4")
    make_video(root / "media/changed.avi", codec="mpeg4", parts=[("green", 2.0)])
    make_video(root / "media/damaged.avi", codec="mpeg4", parts=[("cyan", 2.0)])
    toy = make_library(root, films={})
    (root / "media/gone.avi").unlink()
    (root / "media/changed.avi").write_bytes(b"another")
    damaged = root / "media/damaged.avi"
    status, size = damaged.stat(), damaged.stat().st_size
    damaged.write_bytes(damaged.read_bytes()[:64] + os.urandom(size - 64))
    os.utime(damaged, ns=(status.st_atime_ns, status.st_mtime_ns))
    return toy


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def server(toy: ToyLibrary, cache: Path) -> Iterator[Server]:
    environment = {"REELFIND_CACHE": str(cache), "REELFIND_MAX_CLIP_SECONDS": "60"}
    with running_server(*toy.options, environment=environment) as server:
        yield server
        assert "Traceback" not in server.log()


def details(server: Server, name: str) -> dict[str, Any]:
    answer: dict[str, Any] = server.client.get(f"/v1/videos/{server.video_id(name)}").json()
    return answer


def ask(server: Server, what: str, name: str, **parameters: Any) -> httpx.Response:
    return server.client.get(f"/v1/videos/{server.video_id(name)}/{what}", params=parameters, timeout=120)


def encoders(server: Server) -> list[int]:
    """The processes that encode for a server."""
    return children(server.process.pid)


def decoded(response: httpx.Response, folder: Path) -> Any:
    assert response.status_code == 200, response.content[:1000]
    path = folder / "answer.mp4"
    path.write_bytes(response.content)
    return decode(path)


def test_a_video_says_whether_it_is_playable_and_where(server: Server) -> None:
    for name, why in (
        ("film.avi", "browsers do not play mpeg4"),
        ("hevc.mp4", "browsers do not play hevc"),
        ("keys.mp4", None),
        ("keys.mkv", "browsers do not play files of the format matroska"),
    ):
        video = details(server, name)
        assert (video["playable"], video["not_playable_because"]) == (why is None, why)
        assert server.client.get(video["media_url"]).status_code == 200
        assert video["stream_url"] == f"/v1/videos/{video['video_id']}/stream"
        assert video["clip_url"] == f"/v1/videos/{video['video_id']}/clip"
    assert "playable" not in server.client.get("/v1/videos").json()["videos"][0]


def test_what_cannot_be_opened_is_not_said_to_be_playable(server: Server) -> None:
    for name, why in (("gone.avi", "is missing"), ("changed.avi", "has changed")):
        video = details(server, name)
        assert video["playable"] is None
        assert why in video["not_playable_because"]
    assert details(server, "damaged.avi")["playable"] is False


def test_a_stream_plays_the_film_from_a_time_on(server: Server, tmp_path: Path) -> None:
    response = ask(server, "stream", "film.avi", start=1.5)
    assert response.headers["content-type"] == 'video/mp4; codecs="avc1.64001e, mp4a.40.2"'
    assert response.headers["cache-control"] == "no-store"
    assert "content-length" not in response.headers
    made = decoded(response, tmp_path)
    np.testing.assert_allclose(made.tones(), [0.523, 1.523], atol=0.025)
    assert made.times[0] == 0
    assert len(made.times) == 64
    # A box of white is shown from each second on: in AVI, a picture later.
    shown = [float(picture[:16, :16].mean()) > 180 for picture in made.pictures]
    assert made.times[shown.index(True)] == pytest.approx(0.54, abs=0.05)


def test_a_stream_that_was_made_before_is_the_same_bytes_and_needs_no_encoder(
    server: Server, toy: ToyLibrary, cache: Path
) -> None:
    first = ask(server, "stream", "hevc.mp4", start=0.52)
    again = ask(server, "stream", "hevc.mp4", start=0.52, viewer="another")
    assert again.content == first.content
    assert again.headers["content-type"] == first.headers["content-type"]
    assert again.headers["content-length"] == str(len(first.content))
    assert all(path.suffix == ".mp4" for path in cache.iterdir())
    # Also by another server, which makes nothing itself.
    environment = {"REELFIND_CACHE": str(cache), "REELFIND_MAX_ENCODERS": "0"}
    with running_server(*toy.options, environment=environment) as other:
        assert ask(other, "stream", "hevc.mp4", start=0.52).content == first.content
        check_problem(ask(other, "stream", "hevc.mp4", start=0.53), 503, "REELFIND_MAX_ENCODERS is 0")
        refused = ask(other, "clip", "hevc.mp4", start=0, end=1)
        assert check_problem(refused, 503, "No streams and clips")["type"].endswith(":no-encoders")
        assert "retry-after" not in refused.headers


@pytest.mark.parametrize(
    ("parameters", "pointer", "said"),
    [
        ({"start": 4.2}, "?start", r"start 4.2 is not in the video, which is 4.04 s long"),
        ({"start": -1}, "?start", "must be at least 0"),
        ({"start": "soon"}, "?start", "must be a number"),
        ({"start": "nan"}, "?start", "must be a number"),
        ({"start": "inf"}, "?start", "must be a number"),
        ({"viewer": "a b"}, "?viewer", "viewer"),
        ({"end": 3}, "?end", "not a known field"),
    ],
)
def test_where_a_stream_cannot_start(
    server: Server, parameters: dict[str, Any], pointer: str, said: str
) -> None:
    problem = check_problem(ask(server, "stream", "film.avi", **parameters), 422, said)
    assert problem["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize("what", ["stream", "clip"])
def test_files_that_cannot_be_played(server: Server, what: str) -> None:
    times = {"start": 0, "end": 1} if what == "clip" else {"start": 0}
    check_problem(ask(server, what, "gone.avi", **times), 410, "is missing")
    check_problem(ask(server, what, "changed.avi", **times), 409, "has changed")
    begun = time.monotonic()
    problem = check_problem(ask(server, what, "damaged.avi", **times), 409, r"\S")
    assert problem["type"].endswith(":media-unreadable")
    assert time.monotonic() - begun < 30
    missing = server.client.get(f"/v1/videos/0123456789abcdef/{what}", params=times)
    check_problem(missing, 404, "No video has the id")
    until(lambda: encoders(server) == [])


def test_a_client_that_leaves_ends_the_encoder(server: Server) -> None:
    with server.client.stream("GET", f"/v1/videos/{server.video_id('long.avi')}/stream") as response:
        assert response.status_code == 200
        chunks = response.iter_bytes(1000)
        assert next(chunks)[4:8] == b"ftyp"
        (encoder,) = encoders(server)
        assert "\nreelfind_encoders 1.0\n" in server.client.get("/metrics").text
    until(lambda: not running(encoder))
    until(lambda: "\nreelfind_encoders 0.0\n" in server.client.get("/metrics").text)


def test_an_encoder_waits_for_a_client_that_reads_slowly(server: Server) -> None:
    with server.client.stream("GET", f"/v1/videos/{server.video_id('long.avi')}/stream") as response:
        chunks = response.iter_bytes(1000)
        next(chunks)
        (encoder,) = encoders(server)

        def cpu() -> float:
            fields = Path(f"/proc/{encoder}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

        def is_waiting() -> bool:
            before = cpu()
            time.sleep(0.5)
            return cpu() - before < 0.05

        # The whole would take it much longer.
        until(is_waiting)
        assert running(encoder)


def test_there_is_a_limit_and_each_viewer_has_one_stream(server: Server, toy: ToyLibrary) -> None:
    address = f"/v1/videos/{server.video_id('long.avi')}/stream"
    with (
        server.client.stream("GET", address, params={"start": 1}) as first,
        server.client.stream("GET", address, params={"start": 2, "viewer": "tab-1"}) as second,
    ):
        assert (first.status_code, second.status_code) == (200, 200)
        for what, times in (("stream", {"start": 3}), ("clip", {"start": 3, "end": 4})):
            refused = ask(server, what, "long.avi", **times)
            problem = check_problem(refused, 503, "2 streams and clips are being made, which is the limit")
            assert problem["type"].endswith(":encoders-busy")
            assert int(refused.headers["retry-after"]) >= 1
        # Another viewer is refused too; the same one goes to another time.
        check_problem(ask(server, "stream", "long.avi", start=3, viewer="tab-2"), 503, "which is the limit")
        with server.client.stream("GET", address, params={"start": 3, "viewer": "tab-1"}) as third:
            assert third.status_code == 200
            chunks = third.iter_bytes(1000)
            assert next(chunks)
            until(lambda: len(encoders(server)) == 2)
            with pytest.raises(httpx.HTTPError):
                second.read()
    until(lambda: encoders(server) == [])
    assert ask(server, "stream", "film.avi", start=3.5).status_code == 200


def end_and_wait(server: Server, number: signal.Signals) -> None:
    """End a server that makes a stream: nothing of it may live longer."""
    address = f"/v1/videos/{server.video_id('long.avi')}/stream"
    with server.client.stream("GET", address) as response:
        chunks = response.iter_bytes(1000)
        next(chunks)
        (encoder,) = encoders(server)
        server.process.send_signal(number)
        until(lambda: not running(encoder))
        server.process.wait(30)


def test_no_encoder_outlives_a_server_that_is_killed(toy: ToyLibrary) -> None:
    with running_server(*toy.options) as server:
        end_and_wait(server, signal.SIGKILL)


def test_confinement_may_be_required_and_a_cache_have_no_size(toy: ToyLibrary, tmp_path: Path) -> None:
    environment = {
        "REELFIND_CACHE": str(tmp_path / "cache"),
        "REELFIND_CACHE_MB": "0",
        "REELFIND_SANDBOX": "required",
        "REELFIND_ENCODER_MEMORY_MB": "600",
        "REELFIND_SHUTDOWN_SECONDS": "1",
    }
    with running_server(*toy.options, environment=environment) as server:
        first = ask(server, "stream", "film.avi", start=3)
        if first.status_code == 503:
            check_problem(first, 503, "REELFIND_SANDBOX=auto")
            pytest.skip("the kernel cannot confine a process")
        assert first.content == ask(server, "stream", "film.avi", start=3).content
        clips = [ask(server, "clip", "keys.mp4", start=1, end=2) for _ in range(2)]
        assert clips[0].status_code == 200
        assert clips[0].content == clips[1].content
        assert not (tmp_path / "cache").exists()
        end_and_wait(server, signal.SIGTERM)


def test_a_clip_is_a_file_to_save(server: Server, toy: ToyLibrary, tmp_path: Path) -> None:
    response = ask(server, "clip", "keys.mp4", start=1, end=3)
    made = decoded(response, tmp_path)
    assert response.headers["content-type"] == "video/mp4"
    assert response.headers["content-disposition"] == 'attachment; filename="keys_0.00.01-0.00.03.mp4"'
    # Copied: the very pictures of the file.
    original = decode(toy.media / "keys.mp4")
    np.testing.assert_array_equal(made.pictures, original.pictures[25:75])
    np.testing.assert_allclose(made.tones()[:2], [0.0, 1.0], atol=0.025)
    quoted = ask(server, "clip", "name\u202e.mp4", start=1, end=2).headers["content-disposition"]
    name = "a%20_quoted_%3B%20name_u202e_0.00.01-0.00.02.mp4"
    assert quoted == f"attachment; filename*=utf-8''{name}"


def test_a_clip_that_has_to_be_encoded_is_as_exact(server: Server, toy: ToyLibrary, tmp_path: Path) -> None:
    response = ask(server, "clip", "keys.mp4", start=1.36, end=2.52)
    made = decoded(response, tmp_path)
    original = decode(toy.media / "keys.mp4")
    assert len(made.times) == 29
    np.testing.assert_allclose(made.times, original.times[34:63] - 1.36, atol=1e-3)
    difference = np.abs(made.pictures.astype(int) - original.pictures[34:63])
    assert difference.mean() < 8
    np.testing.assert_allclose(made.tones(), [0.64], atol=0.02)


def test_a_part_of_a_clip_and_one_that_the_client_has(server: Server) -> None:
    whole = ask(server, "clip", "film.avi", start=1, end=2)
    address = f"/v1/videos/{server.video_id('film.avi')}/clip?start=1&end=2"
    part = server.client.get(address, headers={"Range": "bytes=100-199"})
    assert part.status_code == 206
    assert part.content == whole.content[100:200]
    fresh = server.client.get(address, headers={"If-None-Match": whole.headers["etag"]})
    assert (fresh.status_code, fresh.content) == (304, b"")
    outside = server.client.get(address, headers={"Range": "bytes=99999999-"})
    check_problem(outside, 416, "has none of them")
    other = ask(server, "clip", "film.avi", start=1, end=2.2)
    assert other.headers["etag"] != whole.headers["etag"]


@pytest.mark.parametrize(
    ("parameters", "pointer", "said"),
    [
        ({"start": 1}, "?end", '"end" is missing'),
        ({"start": 2, "end": 2}, "?end", "end 2 is not after start 2"),
        ({"start": 2, "end": 1}, "?end", "end 1 is not after start 2"),
        ({"start": 500, "end": 510}, "?start", "start 500 is not in the video"),
        ({"start": 0, "end": 61}, "?end", r"61 s long; the limit is 60 s.*REELFIND_MAX_CLIP_SECONDS"),
        ({"start": 0, "end": "nan"}, "?end", "must be a number"),
        ({"start": -1, "end": 1}, "?start", "must be at least 0"),
    ],
)
def test_where_there_is_no_clip(server: Server, parameters: dict[str, Any], pointer: str, said: str) -> None:
    problem = check_problem(ask(server, "clip", "long.avi", **parameters), 422, said)
    assert problem["errors"][0]["pointer"] == pointer


def test_a_clip_ends_with_the_video(server: Server, tmp_path: Path) -> None:
    response = ask(server, "clip", "film.avi", start=3, end=50)
    assert response.headers["content-disposition"].endswith('film_0.00.03-0.00.04.04.mp4"')
    assert decoded(response, tmp_path).times[-1] == pytest.approx(0.96, abs=0.05)


def test_a_client_that_waits_for_a_clip_and_leaves_ends_it(server: Server) -> None:
    address = f"/v1/videos/{server.video_id('long.avi')}/clip"
    with pytest.raises(httpx.ReadTimeout):
        server.client.get(address, params={"start": 100, "end": 160}, timeout=1.5)
    until(lambda: encoders(server) == [])
    until(lambda: "/clip 499" in server.log())
