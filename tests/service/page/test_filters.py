"""Filters as chips, the order, pages by scrolling: all of it stands in the address."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from selenium.webdriver.common.keys import Keys

from tests.support.browser import Browser
from tests.support.page import bodies, find, visit
from tests.support.server import Server, running_server
from tests.support.toy_library import ToyLibrary, make_library

pytestmark = [pytest.mark.browser, pytest.mark.slow]
NUM_FILMS = 60
SHOWN = "!$('#results').ariaBusy && $('#grid .card')"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    """60 videos in two folders; those of the first have 3 s, those of the second 1 s."""
    films = {f"a/{n:02}.mp4": [("red", 3.0)] for n in range(20)}
    films |= {f"b/{n:02}.mp4": [("red", 0.5), ("blue", 0.5)] for n in range(20, NUM_FILMS)}
    return make_library(tmp_path_factory.mktemp("toy"), films)


@pytest.fixture(scope="module")
def server(toy: ToyLibrary) -> Iterator[Server]:
    with running_server(*toy.options, "--writes") as server:
        for name in ("03.mp4", "30.mp4"):
            change = {"tags": ["Holiday <b>"]}
            server.client.patch(f"/v1/videos/{server.video_id(name)}", json=change).raise_for_status()
        yield server


def asked(page: Browser) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.driver.current_url).query)


def chips(page: Browser) -> list[str]:
    return page.texts("#chips .chip span:first-of-type")


def fill(page: Browser, **values: str) -> None:
    """Fill the form, and apply it."""
    page.click("#filters-toggle")
    for name, value in values.items():
        page.run("$(arguments[0]).value = arguments[1];", f"#filter-{name}", value)
    page.click("#filters-panel [type=submit]")


def paths(page: Browser) -> list[str]:
    found: list[str] = page.run(
        "return $$('#grid .card-name, #videos .tile-name').map((each) => each.title);"
    )
    return [path.splitlines()[-1] for path in found]


def test_filters_are_chips_that_can_be_removed(page: Browser, toy: ToyLibrary) -> None:
    find(page, "red")
    folder = str(toy.media / "b")
    fill(page, folder=folder, tags="holiday <b>", longest="0.5")
    page.until(f"{SHOWN} && $$('#grid .card').length === 1")
    assert paths(page) == [str(toy.media / "b" / "30.mp4")]
    assert asked(page) == {"q": ["red"], "folder": [folder], "max": ["30"], "tag": ["holiday <b>"]}
    assert chips(page) == ["in b", "at most 0:30 long", "#holiday <b>"]
    sent: dict[str, Any] = bodies(page)[-1]["filter"]
    assert sent["op"] == "and"
    assert {"op": "under", "field": "path", "folder": folder} in sent["filters"]

    page.click("#chips li:first-child .chip")
    page.until("$$('#grid .card').length === 2")
    assert chips(page) == ["at most 0:30 long", "#holiday <b>"]
    assert page.focused("#chips .chip")
    page.driver.back()
    page.until("$$('#grid .card').length === 1")
    page.driver.refresh()
    page.until("$$('#grid .card').length === 1")
    assert chips(page) == ["in b", "at most 0:30 long", "#holiday <b>"]
    page.click("#filters-toggle")
    page.click("#filters-clear")
    page.until("$$('#grid .card').length > 2")
    assert asked(page) == {"q": ["red"]}


def test_a_filter_without_a_query_lists_videos_and_an_order_sorts_them(
    page: Browser, toy: ToyLibrary
) -> None:
    page.until("!$('#asked-bar').hidden")
    fill(page, shortest="0.04")
    page.until("$$('#videos .tile-name').length === 20")
    assert page.text("#videos-count").startswith("20 videos")
    page.run("$('#order').value = '-indexed_at'; $('#order').dispatchEvent(new Event('change'));")
    page.until("location.search.includes('sort=-indexed_at') && $$('#videos .tile-name').length === 20")
    page.visit(f"{page.driver.current_url.partition('?')[0]}?{urlencode({'sort': '-title', 'tag': 'none'})}")
    page.until("!$('#notice').hidden")
    assert page.text("#notice-heading") == "No videos"
    assert page.run("return $('#order').value;") == "-title"


def test_what_cannot_be_is_said_in_the_form(page: Browser) -> None:
    page.until("!$('#asked-bar').hidden")
    fill(page, **{"from": "2024-05-02", "to": "2024-05-01"})
    assert page.text("#filters-problem") == "The first day is after the last one."
    assert asked(page) == {}
    page.press(Keys.ESCAPE)
    assert not page.find("#filters-panel").is_displayed()
    assert page.focused("#filters-toggle")


def test_search_goes_on_by_scrolling_and_reloading_shows_as_much(page: Browser) -> None:
    find(page, "red")
    assert len(paths(page)) == 12
    first = paths(page)
    while page.run("return !$('#more').hidden;"):
        # Counted before: what scrolling loads may be here already when the script returns.
        count = len(paths(page))
        page.run("$('#more').scrollIntoView();")
        page.until("$('#more').hidden || $$('#grid .card').length > arguments[0]", count)
        if count > 40:
            break
    found = paths(page)
    assert found[:12] == first
    assert len(found) == len(set(found)) > 40
    tokens = [body.get("page_token") for body in bodies(page)]
    assert tokens[0] is None
    assert all(tokens[1:])
    page.run("$$('#grid .shot')[30].click();")
    page.until("$('#player').open")
    page.driver.back()
    page.until("!$('#player').open")
    page.driver.refresh()
    page.until(SHOWN)
    assert paths(page)[: len(found)] == found
    # Where it was scrolled to is kept, too.
    page.run("scrollTo(0, 900);")
    page.until("history.state.scroll === 900")
    page.driver.refresh()
    page.until(f"{SHOWN} && scrollY === 900")
    find(page, "blue")
    page.until("scrollY === 0")
    page.driver.back()
    page.until(f"document.title.startsWith('red') && {SHOWN} && scrollY === 900")


def test_a_list_goes_on_by_scrolling(page: Browser, server: Server) -> None:
    visit_list = f"{server.url}/?list=videos"
    page.visit(visit_list)
    page.until("$$('#videos .tile-name').length >= 48")
    page.run("$('#videos-more').scrollIntoView();")
    page.until("$$('#videos .tile-name').length === arguments[0]", NUM_FILMS)
    assert page.run("return $('#videos-more').hidden;")
    assert len(set(paths(page))) == NUM_FILMS
    assert page.run("return history.state.pages;") == 2


def test_a_page_that_cannot_be_had_is_said(page: Browser) -> None:
    find(page, "red")
    with page.network(offline=True):
        page.run("$('#more').click();")
        page.until("$('#more-problem').textContent")
    assert len(paths(page)) == 12
    page.run("$('#more').click();")
    page.until("$$('#grid .card').length > 12")
    assert page.text("#more-problem") == ""
    page.errors()


@pytest.mark.parametrize("width", [390, 1400])
def test_the_form_fits_the_window(page: Browser, server: Server, width: int) -> None:
    visit(page, server, "?q=red&tag=holiday+%3Cb%3E&min=1")
    page.emulate(width=width, dark=True)
    page.click("#filters-toggle")
    box = page.run("return $('#filters-panel').getBoundingClientRect().toJSON();")
    assert box["left"] >= 0
    assert box["right"] <= width
    assert page.run("return document.documentElement.scrollWidth <= innerWidth;")
    shown = [".chip", "#filters-panel label", "#filter-folder", "#filters-panel .primary"]
    assert [selector for selector in shown if page.contrast(selector) < 4.5] == []
