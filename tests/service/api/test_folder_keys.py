"""A key with a folder: nothing else is there, whatever is tried."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.keys import WITH_KEYS, bearer, make_key
from tests.support.problems import check_problem
from tests.support.server import Server, running_server
from tests.support.toy_library import ToyLibrary, make_library

UNKNOWN = "0" * 32


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    films = {
        "kids/blue.mp4": [("blue", 1.0)],
        "kids2/green.mp4": [("green", 1.0)],
        "private/red.mp4": [("red", 1.0)],
        "kid.mp4": [("yellow", 1.0)],
        "private/shared.mp4": [("white", 1.0)],
    }
    toy = make_library(tmp_path_factory.mktemp("wall"), films)
    # The place that was found first is the first one of a video.
    shutil.copy2(toy.media / "private" / "shared.mp4", toy.media / "kids" / "copy.mp4")
    toy.index()
    return toy


@pytest.fixture(scope="module")
def server(toy: ToyLibrary) -> Iterator[Server]:
    with running_server(*toy.options, *WITH_KEYS) as server:
        yield server


@pytest.fixture(scope="module")
def ids(toy: ToyLibrary, server: Server) -> dict[str, str]:
    admin = bearer(make_key(toy, "admin"))
    videos = server.client.get("/v1/videos", headers=admin).json()["videos"]
    return {
        os.path.relpath(file["path"], toy.media): video["video_id"]
        for video in videos
        for file in video["files"]
    }


@pytest.fixture(scope="module")
def key(toy: ToyLibrary) -> dict[str, str]:
    return bearer(make_key(toy, "media", folder=toy.media / "kids"))


def without_ids(text: str, video_id: str) -> str:
    """The text of a problem without what differs in each."""
    return text.replace(video_id, "ID").partition('"instance"')[0]


def test_what_lies_in_the_folder_is_there(server: Server, ids: dict[str, str], key: dict[str, str]) -> None:
    video = ids["kids/blue.mp4"]
    assert server.client.get(f"/v1/videos/{video}", headers=key).json()["path"] == "kids/blue.mp4"
    assert server.client.get(f"/v1/videos/{video}/media", headers=key).status_code == 200
    assert server.client.get(f"/v1/frames/{video}-00000-00.jpg", headers=key).status_code == 200
    moments = server.client.post(
        f"/v1/videos/{video}/moments", json={"query": {"text": "blue"}}, headers=key
    ).json()
    assert moments["hits"][0]["path"] == "kids/blue.mp4"


def test_of_a_video_in_several_places_only_those_in_the_folder_are_there(
    server: Server, toy: ToyLibrary, ids: dict[str, str], key: dict[str, str]
) -> None:
    video = ids["kids/copy.mp4"]
    assert ids["private/shared.mp4"] == video
    admin = bearer(make_key(toy, "admin"))
    whole = server.client.get(f"/v1/videos/{video}", headers=admin).json()
    assert whole["path"] == str(toy.media / "private" / "shared.mp4")
    assert len(whole["files"]) == 2
    seen = server.client.get(f"/v1/videos/{video}", headers=key).json()
    assert seen["path"] == "kids/copy.mp4"
    assert [file["path"] for file in seen["files"]] == ["kids/copy.mp4"]
    media = server.client.get(f"/v1/videos/{video}/media", headers=key)
    assert "copy.mp4" in media.headers["content-disposition"]
    # Its name in the other place would show as a line that fits.
    query = {"query": {"text": "white shared"}, "group_by": "video"}
    by_name = server.client.post("/v1/search", json=query, headers=admin).json()["hits"][0]["text_matches"]
    assert [match["text"] for match in by_name] == ["shared"]
    found = server.client.post("/v1/search", json=query, headers=key)
    hits = found.json()["hits"]
    assert hits[0]["path"] == "kids/copy.mp4"
    assert "private" not in found.text
    assert "shared" not in json.dumps(hits)


REQUESTS = [
    ("GET", "/v1/videos/{id}", None),
    ("GET", "/v1/videos/{id}/media", None),
    ("HEAD", "/v1/videos/{id}/media", None),
    ("GET", "/v1/frames/{id}-00000-00.jpg", None),
    ("GET", "/v1/frames/{id}-00000-00.jpg?snapshot=1", None),
    ("GET", "/v1/frames/{id}-00099-00.jpg", None),
    ("POST", "/v1/videos/{id}/moments", {"query": {"text": "red"}}),
    ("POST", "/v1/videos/{id}/moments", {"query": {"text": ""}}),
    ("POST", "/v1/videos/{id}/moments", {"query": {"text": "red"}, "top_k": 0}),
    ("POST", "/v1/videos/{id}/answer", {"question": {"text": "red"}}),
]


@pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
@pytest.mark.parametrize("name", ["private/red.mp4", "kids2/green.mp4", "kid.mp4"])
def test_what_lies_elsewhere_answers_as_what_does_not_exist(
    server: Server,
    ids: dict[str, str],
    key: dict[str, str],
    method: str,
    path: str,
    body: dict[str, object] | None,
    name: str,
) -> None:
    tricks: list[dict[str, str]] = [
        {},
        {"Range": "bytes=0-1"},
        {"If-None-Match": "*"},
        {"Accept": "text/html"},
    ]
    for headers in tricks:
        hidden, unknown = (
            server.client.request(method, path.format(id=video), json=body, headers={**key, **headers})
            for video in (ids[name], UNKNOWN)
        )
        assert hidden.status_code == unknown.status_code
        assert without_ids(hidden.text, ids[name]) == without_ids(unknown.text, UNKNOWN)
        differing = {"content-length", "date"}
        assert {h: v for h, v in hidden.headers.items() if h not in differing} == {
            h: v for h, v in unknown.headers.items() if h not in differing
        }
        assert hidden.status_code in (404, 409, 422)


def test_ids_that_are_written_otherwise_open_nothing_else(
    server: Server, ids: dict[str, str], key: dict[str, str]
) -> None:
    hidden, own = ids["private/red.mp4"], ids["kids/blue.mp4"]
    encoded = "".join(f"%{ord(character):02x}" for character in hidden)
    for video in (
        encoded,
        hidden.upper(),
        f"{own}%2F..%2F{hidden}",
        f"{own}/../{hidden}",
        f"{hidden}%00",
        f"{hidden} ",
        f"%20{hidden}",
        hidden.translate({ord("0") + n: 0xFF10 + n for n in range(10)}),
    ):
        for path in (f"/v1/videos/{video}", f"/v1/videos/{video}/media"):
            answer = server.client.get(path, headers=key)
            assert answer.status_code in (404, 200)
            assert "red" not in answer.text
            assert "private" not in answer.text
            if answer.status_code == 200:
                assert own in answer.text
    for frame in (f"{own}-00000-00.jpg/../{hidden}-00000-00", f"{own}%2D00000-00", f"{encoded}-00000-00"):
        answer = server.client.get(f"/v1/frames/{frame}.jpg", headers=key)
        assert answer.status_code in (200, 404)
        if answer.status_code == 200:
            own_frame = server.client.get(f"/v1/frames/{own}-00000-00.jpg", headers=key)
            assert answer.content == own_frame.content


def test_a_link_out_of_the_folder_plays_nothing(
    server: Server, toy: ToyLibrary, ids: dict[str, str], key: dict[str, str]
) -> None:
    film, kept = toy.media / "kids" / "blue.mp4", toy.media / "kids" / "kept"
    film.rename(kept)
    try:
        film.symlink_to(toy.media / "private" / "red.mp4")
        answer = server.client.get(f"/v1/videos/{ids['kids/blue.mp4']}/media", headers=key)
        check_problem(answer, 403, "may not be played")
    finally:
        film.unlink()
        kept.rename(film)


def test_a_folder_that_does_not_exist_shows_nothing(
    server: Server, toy: ToyLibrary, ids: dict[str, str]
) -> None:
    for folder in (toy.media / "kid", toy.media / "KIDS", Path("/nowhere"), toy.media / "kids" / "blue.mp4"):
        key = bearer(make_key(toy, "media", folder=folder))
        for video in ids.values():
            assert server.client.get(f"/v1/videos/{video}", headers=key).status_code == 404
