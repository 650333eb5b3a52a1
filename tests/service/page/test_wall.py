"""Somebody who is logged in with a key of one folder, at the page and in its console."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from selenium.webdriver.common.keys import Keys

from tests.support.browser import Browser
from tests.support.keys import WITH_KEYS, make_key
from tests.support.page import find
from tests.support.server import Server, running_server
from tests.support.toy_library import ToyLibrary
from tests.support.wall import (
    ABOUT_A_VIDEO,
    ABOUT_EVERYTHING,
    UNKNOWN,
    Request,
    filled,
    ids_of,
    leaks,
    make_walled_library,
    tell_secrets,
    without_ids,
)

pytestmark = [pytest.mark.browser, pytest.mark.slow]

#: Sends requests one after the other from the page, with its session. → Status and text of each answer.
SEND_ALL = """
const answers = [];
for (const [method, path, body, headers] of arguments[0]) {
  const json = body === null ? {} : {"content-type": "application/json"};
  const options = {method, headers: {...json, ...headers}};
  if (body !== null) options.body = JSON.stringify(body);
  const answer = await fetch(path, options);
  answers.push([answer.status, await answer.text()]);
}
return answers;
"""


class Wall(NamedTuple):
    """A library, its server, the ids of its videos, and the page of somebody who sees `kids`."""

    toy: ToyLibrary
    server: Server
    ids: dict[str, str]
    page: Browser


@pytest.fixture(scope="module")
def wall(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Wall]:
    toy = make_walled_library(tmp_path_factory.mktemp("wall"))
    environment = {"REELFIND_WRITES": "1", "REELFIND_ALLOW_DELETE_MEDIA": "1"}
    with running_server(*toy.options, *WITH_KEYS, environment=environment) as server:
        tell_secrets(server, toy)
        browser.open(f"{server.url}/")
        browser.until("$('#log-in').open")
        browser.until_focused("#log-in-key")
        browser.press(make_key(toy, "media", folder=toy.media / "kids"), Keys.ENTER)
        browser.until("!$('#log-in').open && $('#library').textContent")
        browser.errors()
        yield Wall(toy, server, ids_of(server, toy), browser)
        browser.driver.delete_all_cookies()
        browser.errors()


def answers_to(wall: Wall, requests: list[tuple[str, str, Any, dict[str, str]]]) -> list[tuple[int, str]]:
    """The answers that the page gets."""
    sent = [[method, wall.server.url + path, body, headers] for method, path, body, headers in requests]
    answers = [(int(status), str(text)) for status, text in wall.page.run(SEND_ALL, sent)]
    wall.page.errors()  # the browser notes each refusal
    return answers


def test_the_page_shows_the_folder_as_if_it_were_all(wall: Wall) -> None:
    for words in ("red", "green", "yellow", "blue"):
        find(wall.page, words)
        names = wall.page.run("return $$('#grid .card-name').map((name) => name.textContent);")
        assert set(names) <= {"blue.mp4", "copy.mp4"}
    shown = wall.page.run("return document.body.textContent;")
    assert leaks("", None, 200, shown, wall.toy, wall.ids) == []


def test_whatever_the_console_asks_for_tells_nothing_of_the_rest(wall: Wall) -> None:
    asked = [
        (method, *filled(path, body, wall.toy, wall.ids), dict[str, str]())
        for method, path, body in ABOUT_EVERYTHING
    ]
    assert len(asked) > 30
    for (method, path, body, _), (status, said) in zip(asked, answers_to(wall, asked), strict=True):
        assert status < 500, f"{method} {path}"
        assert leaks(path, body, status, said, wall.toy, wall.ids) == [], f"{method} {path}"


@pytest.mark.parametrize("name", ["private/red.mp4", "kids2/green.mp4"])
def test_what_is_hidden_answers_as_what_does_not_exist(wall: Wall, name: str) -> None:
    extra: list[Request] = [
        ("GET", "/v1/videos/{id}/stream?start=0", None),
        ("GET", "/v1/videos/{id}/clip?start=0&end=0.5", None),
        ("PATCH", "/v1/videos/{id}", {"title": "mine"}),
        ("DELETE", "/v1/videos/{id}?media=true", None),
        ("POST", "/v1/signed-urls", {"url": "/v1/videos/{id}/media"}),
    ]
    requests = [
        (method, path, body, headers)
        for method, path, body in [*ABOUT_A_VIDEO, *extra]
        for headers in ({}, {"Range": "bytes=0-1"}, {"If-None-Match": "*"})
    ]

    def about(video_id: str) -> list[tuple[int, str]]:
        return answers_to(
            wall,
            [
                (method, path.replace("{id}", video_id), _replaced(body, video_id), headers)
                for method, path, body, headers in requests
            ],
        )

    hidden, unknown = about(wall.ids[name]), about(UNKNOWN)
    for request, (status, said), (other_status, other) in zip(requests, hidden, unknown, strict=True):
        if request[1] == "/v1/signed-urls":
            # Whether there is anything at an address is not looked up.
            assert (status, other_status) == (200, 200)
            continue
        assert status == other_status, request
        assert without_ids(said, wall.ids[name]) == without_ids(other, UNKNOWN), request
        assert status in (403, 404, 409, 422), request


def test_pictures_and_addresses_made_by_hand_open_nothing(wall: Wall) -> None:
    hidden = wall.ids["private/red.mp4"]
    loaded = """
    const sizes = [];
    for (const path of arguments[0]) {
      const image = new Image();
      image.src = path;
      await image.decode().catch(() => null);
      sizes.push(image.naturalWidth);
    }
    return sizes;
    """
    seen = f"/v1/frames/{wall.ids['kids/blue.mp4']}-00000-00.jpg"
    tried = [f"/v1/frames/{hidden}-00000-00.jpg", f"/v1/frames/{hidden}-00000-00.jpg?snapshot=1"]
    assert [size > 0 for size in wall.page.run(loaded, [seen, *tried])] == [True, False, False]
    ((status, signed),) = answers_to(
        wall, [("POST", "/v1/signed-urls", {"url": f"/v1/videos/{hidden}/media"}, {})]
    )
    assert status == 200
    url = wall.page.run("return JSON.parse(arguments[0]).url;", signed)
    # Whoever made the address may not see the video, so the address opens nothing.
    assert wall.server.client.get(url).status_code == 404


def _replaced(body: Any, video_id: str) -> Any:
    """A request's JSON with the id in place of {id}."""
    if isinstance(body, str):
        return body.replace("{id}", video_id)
    if isinstance(body, list):
        return [_replaced(each, video_id) for each in body]
    if isinstance(body, dict):
        return {name: _replaced(each, video_id) for name, each in body.items()}
    return body
