"""The page where the service asks for keys: the form, pictures and players of a session, logging out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium.webdriver.common.keys import Keys

from tests.support.browser import Browser
from tests.support.keys import WITH_KEYS, make_key, revoke
from tests.support.page import find
from tests.support.server import Server, running_server
from tests.support.toy_library import ToyLibrary, make_library

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_library(
        tmp_path_factory.mktemp("log in"), {"red.mp4": [("red", 2.0)], "blue.mp4": [("blue", 2.0)]}
    )


@pytest.fixture(scope="module")
def server(toy: ToyLibrary) -> Iterator[Server]:
    with running_server(*toy.options, *WITH_KEYS) as server:
        yield server


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Browser]:
    """The page as a stranger opens it; the form is there."""
    browser.driver.delete_all_cookies()
    browser.open(f"{server.url}/")
    browser.driver.delete_all_cookies()
    browser.open(f"{server.url}/")
    browser.until("$('#log-in').open")
    yield browser
    browser.driver.delete_all_cookies()
    browser.errors()


def enter(page: Browser, key: str) -> None:
    page.until_focused("#log-in-key")
    page.press(key, Keys.ENTER)


def in_session(page: Browser) -> None:
    page.until("!$('#log-in').open && !$('#log-out').hidden && $('#library').textContent")


def test_a_stranger_sees_a_form_and_nothing_of_the_library(page: Browser, server: Server) -> None:
    assert page.text("#log-in-heading") == "Log in"
    assert "reelfind keys create" in page.text("#log-in-hint")
    assert page.focused("#log-in-key")
    assert page.find("#log-in-key").get_attribute("type") == "password"
    assert page.run("return $('#library').textContent;") == ""
    page.press(Keys.ESCAPE)
    assert page.run("return $('#log-in').open;")
    page.press(Keys.ENTER)
    assert page.text("#log-in-problem") == "Paste your key, then press Enter."
    enter(page, f"rf_{'0' * 12}_{'a' * 43}")
    page.until("$('#log-in-problem').textContent === 'The key is not known. Check that it is copied whole.'")
    assert page.find("#log-in-key").get_attribute("aria-invalid") == "true"
    assert page.find("#log-in-key").get_attribute("aria-describedby") == "log-in-problem log-in-hint"
    # What was wrong is selected: the next key replaces it.
    page.press("x")
    assert page.run("return $('#log-in-key').value;") == "x"
    assert page.text("#log-in-problem") == ""
    assert page.driver.get_cookies() == []
    assert "rf_" not in page.driver.current_url


def test_log_in_search_play_and_log_out(page: Browser, server: Server, toy: ToyLibrary) -> None:
    enter(page, make_key(toy, "media", name="ann"))
    in_session(page)
    assert page.errors()  # the stranger's 401
    (cookie,) = page.driver.get_cookies()
    assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == ("reelfind_session", True, "Strict")
    assert page.run("return document.cookie;") == ""
    find(page, "red")
    page.until("$('#grid img')?.naturalWidth > 0")
    assert page.text("#grid .card-name") == "red.mp4"
    page.click("#grid .shot")
    page.until("$('#player-video').readyState > 0")
    assert page.text("#player-path") == "media/red.mp4"
    page.press(Keys.ESCAPE)
    assert page.errors() == []
    # A link to a search opens it again, and the browser still has the session.
    page.visit(f"{server.url}/?q=blue")
    page.until("$('#grid .card-name')?.textContent === 'blue.mp4'")
    page.until("!$('#log-out').hidden")
    assert page.find("#log-out").get_attribute("aria-label") == "Log out (ann)"
    page.click("#log-out")
    page.until("$('#log-in').open")
    assert page.driver.get_cookies() == []
    assert page.run("return $$('#grid .card').length;") == 0
    page.driver.back()
    page.until("$('#log-in').open")
    assert page.run("return $$('#grid .card').length;") == 0


def test_a_link_to_a_search_asks_first_and_then_shows_it(
    page: Browser, server: Server, toy: ToyLibrary
) -> None:
    page.visit(f"{server.url}/?q=red")
    page.until("$('#log-in').open")
    enter(page, make_key(toy, "search"))
    page.until("$('#grid .card-name')?.textContent === 'red.mp4'")
    assert page.driver.current_url == f"{server.url}/?q=red"


def test_a_session_that_ends_while_the_page_is_open_asks_again(
    page: Browser, server: Server, toy: ToyLibrary
) -> None:
    key = make_key(toy, "search")
    enter(page, key)
    in_session(page)
    find(page, "red")
    revoke(toy, key)
    page.run("$('#query').focus(); $('#query').select();")
    page.press("blue", Keys.ENTER)
    page.until("$('#log-in').open")
    enter(page, make_key(toy, "search"))
    page.until("$('#grid .card-name')?.textContent === 'blue.mp4'")


def test_a_key_that_may_not_play_says_so(page: Browser, server: Server, toy: ToyLibrary) -> None:
    enter(page, make_key(toy, "search"))
    in_session(page)
    find(page, "red")
    page.click("#grid .shot")
    page.until("!$('#player-problem').hidden && $('#player-problem').textContent.includes('the scope media')")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
def test_the_form_can_be_read_and_fits(page: Browser, dark: bool, width: int) -> None:
    page.emulate(width=width, dark=dark)
    page.press(Keys.ENTER)
    shown = ["#log-in-heading", "#log-in-hint", "#log-in label", "#log-in-problem", "#log-in-send"]
    ratios = {selector: page.contrast(selector) for selector in shown}
    assert {selector: ratio for selector, ratio in ratios.items() if ratio < 4.5} == {}
    box = page.run("const b = $('#log-in').getBoundingClientRect(); return [b.left, b.right];")
    assert box[0] >= 0
    assert box[1] <= width


def test_where_everybody_may_ask_there_is_no_form_and_no_button(browser: Browser, toy: ToyLibrary) -> None:
    with running_server(*toy.options) as server:
        browser.errors()
        browser.open(f"{server.url}/")
        browser.until("$('#library').textContent")
        assert browser.run("return [$('#log-in').open, $('#log-out').hidden];") == [False, True]
        assert browser.errors() == []
