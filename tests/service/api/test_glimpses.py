"""Random moments, pictures of videos and examples of queries over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.server import Server, running_server
from tests.support.toy_library import ToyLibrary, make_library


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    """Five videos of seven segments, and a file that is no video."""
    toy = make_library(tmp_path_factory.mktemp("toy"))
    (toy.media / "broken.mp4").write_bytes(b"no video")
    toy.index()
    return toy


@pytest.fixture(scope="module")
def server(toy: ToyLibrary) -> Iterator[Server]:
    with running_server(*toy.options, "--writes") as server:
        yield server


def drawn(server: Server, seed: int, limit: int = 12) -> list[dict[str, Any]]:
    answer = server.client.get("/v1/moments/random", params={"limit": limit, "seed": seed}).json()
    moments: list[dict[str, Any]] = answer["moments"]
    return moments


def test_every_moment_may_be_drawn_and_each_once(server: Server) -> None:
    moments = drawn(server, 1)
    assert len(moments) == 7
    assert len({(each["video_id"], each["start_seconds"]) for each in moments}) == 7
    # Each video once before any comes again.
    assert len({each["video_id"] for each in moments[:5]}) == 5
    for each in moments:
        assert each["start_seconds"] <= each["pts_seconds"] < each["end_seconds"]
        picture = server.client.get(f"/v1/frames/{each['frame_id']}.jpg")
        assert picture.headers["content-type"] == "image/jpeg"
    assert drawn(server, 1, 3) == moments[:3]
    firsts = {drawn(server, seed, 1)[0]["path"] for seed in range(40)}
    assert len(firsts) == 5


def test_a_video_has_a_picture_and_a_failure_has_none(server: Server) -> None:
    snapshot = server.client.get("/v1/library").json()["snapshot"]
    address = f"/v1/videos/{server.video_id('green.mp4')}/poster.jpg"
    asked = server.client.get(address)
    assert asked.content[:3] == b"\xff\xd8\xff"
    assert asked.headers["cache-control"] == "private, no-cache"
    again = server.client.get(address, headers={"if-none-match": asked.headers["etag"]})
    assert again.status_code == 304
    lasting = server.client.get(address, params={"snapshot": snapshot})
    assert lasting.headers["cache-control"] == "private, max-age=31536000, immutable"
    failure = server.client.get(f"/v1/videos/{server.video_id('broken.mp4')}/poster.jpg")
    assert failure.status_code == 404
    assert server.client.get(f"/v1/videos/{'0' * 32}/poster.jpg").status_code == 404


def test_examples_are_the_librarys_own_words_and_searches_find_something(server: Server) -> None:
    video = server.video_id("red.mp4")
    given = {"title": "A red wall", "tags": ["red"]}
    assert server.client.patch(f"/v1/videos/{video}", json=given).status_code == 200
    examples = server.client.get("/v1/examples").json()["examples"]
    assert {"text": "red", "source": "tag"} in examples
    assert {"text": "A red wall", "source": "title"} in examples
    # The model of these tests knows no word of it.
    assert "Traffic lights" not in [each["text"] for each in examples]
    for each in examples:
        assert server.search(each["text"])


def test_the_library_tells_whether_clients_may_write(server: Server, toy: ToyLibrary) -> None:
    assert server.client.get("/v1/library").json()["writes"] is True
    with running_server(*toy.options) as other:
        assert other.client.get("/v1/library").json()["writes"] is False
