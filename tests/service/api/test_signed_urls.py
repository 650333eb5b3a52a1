"""Signed addresses: who may have one, what it opens, and that nothing of it can be changed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import pytest

from tests.support.keys import WITH_KEYS, bearer, make_key, revoke
from tests.support.problems import check_problem
from tests.support.server import Server, running_server, until
from tests.support.toy_library import ToyLibrary, make_library

REFUSED = "The address has expired, or was changed"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    films = {"red.mp4": [("red", 1.0)], "kids/blue.mp4": [("blue", 1.0)]}
    return make_library(tmp_path_factory.mktemp("signed"), films)


@pytest.fixture(scope="module")
def server(toy: ToyLibrary) -> Iterator[Server]:
    with running_server(*toy.options, *WITH_KEYS) as server:
        yield server


@pytest.fixture(scope="module")
def ids(toy: ToyLibrary, server: Server) -> dict[str, str]:
    """The id of each video by its file's name."""
    admin = bearer(make_key(toy, "admin"))
    videos = server.client.get("/v1/videos", headers=admin).json()["videos"]
    return {Path(video["path"]).name: video["video_id"] for video in videos}


@pytest.fixture(scope="module")
def key(toy: ToyLibrary) -> str:
    return make_key(toy, "media")


def sign(server: Server, key: str, url: str, **fields: object) -> str:
    response = server.client.post("/v1/signed-urls", json={"url": url, **fields}, headers=bearer(key))
    assert response.status_code == 200, response.text
    signed: str = response.json()["url"]
    return signed


def changed(url: str, **parameters: str) -> str:
    """A signed address with other parameters."""
    parts = urlsplit(url)
    return f"{parts.path}?{urlencode({**dict(parse_qsl(parts.query)), **parameters})}"


def test_an_address_plays_a_video_anywhere(
    server: Server, toy: ToyLibrary, ids: dict[str, str], key: str
) -> None:
    path = f"/v1/videos/{ids['red.mp4']}/media"
    url = sign(server, key, path)
    embedded = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "video"}
    answer = server.client.get(url, headers={**embedded, "Range": "bytes=0-9"})
    assert (answer.status_code, answer.content) == (206, (toy.media / "red.mp4").read_bytes()[:10])
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert server.client.head(url).status_code == 200
    check_problem(server.client.get(path), 401, "This needs a key")
    check_problem(server.client.get(path, headers={**embedded, **bearer(key)}), 403, "comes from a page of")


def test_a_frame_can_be_signed_with_its_query(server: Server, ids: dict[str, str], key: str) -> None:
    frame = f"/v1/frames/{ids['red.mp4']}-00000-00.jpg"
    url = sign(server, key, f"{frame}?snapshot=1")
    answer = server.client.get(url)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    check_problem(server.client.get(changed(url, snapshot="2")), 403, REFUSED)
    check_problem(server.client.get(url.replace("snapshot=1&", "")), 403, REFUSED)
    check_problem(server.client.get(f"{url}&snapshot=1"), 403, REFUSED)
    other = f"{url.split('?')[0].replace('-00.jpg', '-01.jpg')}?{url.split('?')[1]}"
    check_problem(server.client.get(other), 403, REFUSED)


def test_a_clip_is_signed_with_its_span(server: Server, ids: dict[str, str], key: str) -> None:
    url = sign(server, key, f"/v1/videos/{ids['red.mp4']}/clip?start=0&end=0.5")
    answer = server.client.get(url)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "video/mp4")
    assert "attachment" in answer.headers["content-disposition"]
    for change in ({"start": "0.1"}, {"end": "1"}):
        check_problem(server.client.get(changed(url, **change)), 403, REFUSED)
    stream = sign(server, key, f"/v1/videos/{ids['red.mp4']}/stream?start=0")
    assert server.client.get(stream).headers["content-type"].startswith("video/mp4")
    assert server.client.get(f"{stream}&viewer=x").status_code == 403


def test_nothing_of_an_address_can_be_changed(
    server: Server, ids: dict[str, str], key: str, toy: ToyLibrary
) -> None:
    path = f"/v1/videos/{ids['red.mp4']}/media"
    url = sign(server, key, path)
    parameters = dict(parse_qsl(urlsplit(url).query))
    admin = make_key(toy, "admin").split("_")[1]
    signature = parameters["signature"]
    for change in (
        {"expires": str(int(parameters["expires"]) + 1)},
        {"by": f"key:{admin}"},
        {"by": "none"},
        {"by": "user:ann"},
        {"by": ""},
        {"signature": signature[:-1] + ("A" if signature[-1] != "A" else "B")},
        {"signature": ""},
        {"extra": "1"},
    ):
        check_problem(server.client.get(changed(url, **change)), 403, REFUSED)
    elsewhere = url.replace(ids["red.mp4"], ids["blue.mp4"])
    check_problem(server.client.get(elsewhere), 403, REFUSED)
    for malformed in (
        f"{url}&signature={signature}",
        f"{url}&expires=1",
        f"{url}&by=none",
        changed(url, expires="soon"),
        changed(url, expires="９"),
        f"{path}?signature={signature}",
        f"{url}&%ff=1",
        f"{url}&&",
    ):
        answer = server.client.get(malformed)
        check_problem(answer, 403, "The (signed address is malformed|address has expired)")
    # With a name that is encoded it is no signed address at all.
    check_problem(server.client.get(url.replace("signature=", "%73ignature=")), 401, "This needs a key")


def test_other_ways_to_write_the_same_path_open_the_same_video(
    server: Server, toy: ToyLibrary, ids: dict[str, str], key: str
) -> None:
    path = f"/v1/videos/{ids['red.mp4']}/media"
    url = sign(server, key, path)
    encoded = url.replace("/v1/videos/", "/v1/%76ideos/", 1)
    assert server.client.get(encoded).content == (toy.media / "red.mp4").read_bytes()
    for trick in (
        f"/v1/videos/{ids['blue.mp4']}/../{ids['red.mp4']}/media",
        f"/v1/videos/{ids['red.mp4']}%2Fmedia",
    ):
        query = url.split("?")[1]
        assert server.client.get(f"{trick}?{query}").status_code in (200, 403, 404)
    double = quote(quote(ids["red.mp4"], safe=""), safe="")
    assert server.client.get(f"/v1/videos/{double}/media?{url.split('?')[1]}").status_code in (200, 403)


def test_an_address_opens_nothing_but_reading(server: Server, ids: dict[str, str], key: str) -> None:
    url = sign(server, key, f"/v1/videos/{ids['red.mp4']}/media")
    query = url.split("?")[1]
    assert server.client.post(url).status_code == 405
    for path in ("/v1/videos", "/v1/library", f"/v1/videos/{ids['red.mp4']}", "/metrics"):
        check_problem(server.client.get(f"{path}?{query}"), 403, REFUSED)
    check_problem(server.client.post(f"/v1/library/reload?{query}"), 401, "This needs a key")


def test_an_address_ends_with_its_time_and_with_its_key(
    server: Server, ids: dict[str, str], toy: ToyLibrary
) -> None:
    path = f"/v1/videos/{ids['red.mp4']}/media"
    key = make_key(toy, "media")
    short, long = sign(server, key, path, expires_seconds=1), sign(server, key, path)
    until(lambda: server.client.get(short).status_code == 403)
    check_problem(server.client.get(short), 403, REFUSED)
    assert server.client.get(long).status_code == 200
    revoke(toy, key)
    check_problem(server.client.get(long), 403, REFUSED)
    ends = make_key(toy, "media", expires_at=time.time() + 1.5)
    url = sign(server, ends, path)
    until(lambda: server.client.get(url).status_code == 403)


def test_an_address_of_a_key_with_a_folder_shows_no_more_than_that(
    server: Server, toy: ToyLibrary, ids: dict[str, str]
) -> None:
    key = make_key(toy, "media", folder=toy.media / "kids")
    assert server.client.get(sign(server, key, f"/v1/videos/{ids['blue.mp4']}/media")).status_code == 200
    hidden = sign(server, key, f"/v1/videos/{ids['red.mp4']}/media")
    unknown = sign(server, key, f"/v1/videos/{'0' * 32}/media")
    check_problem(server.client.get(hidden), 404, "No video has the id")
    check_problem(server.client.get(unknown), 404, "No video has the id")


@pytest.mark.parametrize(
    "url",
    [
        "/v1/videos",
        "/v1/videos/0123456789abcdef0123456789abcdef",
        "/v1/library/reload",
        "/v1/session",
        "/metrics",
        "/",
        "",
        "v1/videos/0123456789abcdef0123456789abcdef/media",
        "//evil.example/v1/videos/0123456789abcdef0123456789abcdef/media",
        "http://evil.example/v1/videos/0123456789abcdef0123456789abcdef/media",
        "/v1/videos/0123456789abcdef0123456789abcdef/media#x",
        "/v1/videos/0123456789abcdef0123456789abcdef/media?expires=1",
        "/v1/videos/0123456789abcdef0123456789abcdef/media?signature=1",
        "/v1/videos/0123456789abcdef0123456789abcdef/media?&&",
        "/v1/videos/%ff/media",
        "/static/app.js",
    ],
)
def test_only_videos_and_frames_are_signed(server: Server, key: str, url: str) -> None:
    response = server.client.post("/v1/signed-urls", json={"url": url}, headers=bearer(key))
    check_problem(response, 422, "url .*(cannot be signed|no path of this service)")


def test_the_time_is_limited_and_the_scope_is_needed(server: Server, toy: ToyLibrary, key: str) -> None:
    body = {"url": f"/v1/videos/{'0' * 32}/media", "expires_seconds": 86_401}
    response = server.client.post("/v1/signed-urls", json=body, headers=bearer(key))
    check_problem(response, 422, "above the server's maximum. Send at most 86400")
    search = bearer(make_key(toy, "search"))
    response = server.client.post("/v1/signed-urls", json={"url": body["url"]}, headers=search)
    check_problem(response, 403, "needs the scope media; yours: search")


def test_without_keys_addresses_are_signed_too(toy: ToyLibrary) -> None:
    """A page that asks for one works with every setting."""
    with running_server(*toy.options) as server:
        path = f"/v1/videos/{server.video_id('red.mp4')}/media"
        url: str = server.client.post("/v1/signed-urls", json={"url": path}).json()["url"]
        embedded = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
        assert server.client.get(url, headers=embedded).status_code == 200
        check_problem(server.client.get(changed(url, expires="9999999999"), headers=embedded), 403, REFUSED)
