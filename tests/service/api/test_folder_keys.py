"""A key with a folder: nothing else is there, whatever is tried."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.keys import WITH_KEYS, bearer, make_key
from tests.support.problems import check_problem
from tests.support.server import Server, running_server
from tests.support.toy_library import ToyLibrary, make_library
from tests.support.wall import (
    ABOUT_A_VIDEO,
    ABOUT_EVERYTHING,
    UNKNOWN,
    filled,
    ids_of,
    leaks,
    make_walled_library,
    tell_secrets,
    without_ids,
)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_walled_library(tmp_path_factory.mktemp("wall"))


@pytest.fixture(scope="module")
def server(toy: ToyLibrary) -> Iterator[Server]:
    with running_server(*toy.options, *WITH_KEYS, environment={"REELFIND_WRITES": "1"}) as server:
        tell_secrets(server, toy)
        yield server


@pytest.fixture(scope="module")
def ids(toy: ToyLibrary, server: Server) -> dict[str, str]:
    return ids_of(server, toy)


@pytest.fixture(scope="module")
def key(toy: ToyLibrary) -> dict[str, str]:
    return bearer(make_key(toy, "media", folder=toy.media / "kids"))


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


@pytest.mark.parametrize(("method", "path", "body"), ABOUT_A_VIDEO)
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
            server.client.request(
                method,
                path.format(id=video),
                json=None if body is None else json.loads(json.dumps(body).replace("{id}", video)),
                headers={**key, **headers},
            )
            for video in (ids[name], UNKNOWN)
        )
        assert hidden.status_code == unknown.status_code
        assert without_ids(hidden.text, ids[name]) == without_ids(unknown.text, UNKNOWN)
        differing = {"content-length", "date"}
        assert {h: v for h, v in hidden.headers.items() if h not in differing} == {
            h: v for h, v in unknown.headers.items() if h not in differing
        }
        assert hidden.status_code in (404, 409, 422)


@pytest.mark.parametrize(("method", "path", "body"), ABOUT_EVERYTHING)
def test_nothing_that_is_answered_tells_that_there_is_more(
    server: Server,
    toy: ToyLibrary,
    ids: dict[str, str],
    key: dict[str, str],
    method: str,
    path: str,
    body: dict[str, object] | None,
) -> None:
    path, sent = filled(path, body, toy, ids)
    answer = server.client.request(method, path, json=sent, headers=key)
    assert answer.status_code < 500
    assert leaks(path, sent, answer.status_code, answer.text, toy, ids) == []
    told = answer.json() if answer.headers["content-type"].startswith("application/json") else {}
    for count in ("total", "num_videos", "num_segments"):
        assert told.get(count, 0) <= 2
    if path in ("/v1/videos", "/v1/library", "/v1/facets"):
        assert told.get("total", told.get("num_videos")) == 2


def test_a_page_token_opens_nothing_for_another_key(
    server: Server, toy: ToyLibrary, ids: dict[str, str], key: dict[str, str]
) -> None:
    admin, other = bearer(make_key(toy, "admin")), bearer(make_key(toy, "search", folder=toy.media / "kids2"))
    everybody = bearer(make_key(toy, "search"))
    search = {"query": {"text": "red"}, "top_k": 1}
    askers = (admin, everybody, key, other)
    tokens = {
        number: (
            server.client.get("/v1/videos?limit=1", headers=each).json()["next_page_token"],
            server.client.post("/v1/search", json=search, headers=each).json()["next_page_token"],
        )
        for number, each in enumerate(askers)
    }
    assert tokens[3][0] is None
    for number, each in enumerate(askers):
        for of, (listed, found) in tokens.items():
            status = 200 if of == number else 422
            if listed is not None:
                path = f"/v1/videos?limit=1&page_token={listed}"
                assert server.client.get(path, headers=each).status_code == status
            if found is not None:
                answer = server.client.post("/v1/search", json={**search, "page_token": found}, headers=each)
                assert answer.status_code == status
    pages = []
    token = tokens[2][1]
    while token is not None:
        page = server.client.post("/v1/search", json={**search, "page_token": token}, headers=key).json()
        pages += [hit["path"] for hit in page["hits"]]
        token = page["next_page_token"]
    assert pages
    assert all(path.startswith("kids/") for path in pages)


def test_who_removes_a_video_in_a_folder_removes_it_there_alone(tmp_path: Path) -> None:
    toy = make_library(tmp_path, {"private/red.mp4": [("red", 1.0)]})
    (toy.media / "kids").mkdir()
    shutil.copy2(toy.media / "private" / "red.mp4", toy.media / "kids" / "copy.mp4")
    toy.index()
    admin = bearer(make_key(toy, "admin"))
    key = bearer(make_key(toy, "index", "media", folder=toy.media / "kids"))
    environment = {"REELFIND_WRITES": "1", "REELFIND_ALLOW_DELETE_MEDIA": "1"}
    with running_server(*toy.options, *WITH_KEYS, environment=environment) as server:
        (video,) = server.client.get("/v1/videos", headers=key).json()["videos"]
        path = f"/v1/videos/{video['video_id']}"
        assert (
            server.client.patch(path, json={"title": "Ours"}, headers=key).json()["path"] == "kids/copy.mp4"
        )
        assert server.client.delete(f"{path}?media=true", headers=key).status_code == 204
        assert server.client.get(path, headers=key).status_code == 404
        assert server.client.get("/v1/videos", headers=key).json()["total"] == 0
        left = server.client.get(path, headers=admin).json()
        assert [file["path"] for file in left["files"]] == [str(toy.media / "private" / "red.mp4")]
    assert (toy.media / "private" / "red.mp4").exists()
    assert not (toy.media / "kids" / "copy.mp4").exists()


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
