"""Adding a folder on the page, from a server without a library to what is found in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from tests.support.browser import Browser
from tests.support.jobs import JOBS
from tests.support.page import find
from tests.support.server import Server, running_server
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_library import ToyLibrary

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    """Media, and no library."""
    root = tmp_path_factory.mktemp("toy")
    toy = ToyLibrary(root / "media", root / "library", make_toy_bundle(root / "bundle"))
    toy.film("red/red.mp4", [("red", 1.0)])
    toy.film("green/green.mp4", [("green", 1.0)])
    (toy.media / "green" / "broken.mp4").write_bytes(b"no video")
    return toy


@pytest.fixture(scope="module")
def server(toy: ToyLibrary) -> Iterator[Server]:
    options = [*toy.options, "--media", str(toy.media)]
    with running_server(*options, environment=JOBS, ready=False) as server:
        yield server


def add(page: Browser, folder: Path) -> None:
    page.until("!$('#home-jobs').hidden")
    page.find("#job-path").send_keys(str(folder), Keys.ENTER)


def test_a_folder_is_added_and_found(browser: Browser, server: Server, toy: ToyLibrary) -> None:
    browser.open(f"{server.url}/")
    browser.until("$('#notice-heading').textContent === 'The library is not ready'")
    add(browser, toy.media / "red")
    browser.until("$('.job')")
    assert browser.text(".job-path") == str(toy.media / "red")
    browser.until("$('.job').dataset.state === 'succeeded'")
    browser.until("$('.job-words').textContent === 'Done: 1 file, 0 unchanged.'")
    browser.until("$('#notice').hidden && $$('#home-videos .tile-name').length === 1")
    browser.errors()

    add(browser, toy.media / "green")
    browser.until("$$('.job').length === 2 && $('.job').dataset.state === 'succeeded'")
    browser.until("$('.job-words').textContent.includes('1 file not or not wholly indexed')")
    browser.until("$$('#home-videos .tile-name').length === 2 && !$('#home-failures').hidden")
    assert browser.errors() == []
    find(browser, "green")
    assert browser.texts("#grid .card-name")[0] == "green.mp4"
    browser.click("#brand")
    browser.until("$$('.job').length === 2")
    browser.driver.refresh()
    browser.until("$$('.job').length === 2")


def test_a_video_that_is_watched_goes_on_while_a_run_publishes(
    browser: Browser, server: Server, toy: ToyLibrary
) -> None:
    toy.film("long/blue.mp4", [("blue", 30.0)])
    browser.open(f"{server.url}/")
    add(browser, toy.media / "long")
    browser.until("$$('#home-videos .tile-name')[0]?.textContent === 'blue.mp4'")
    later = toy.film("later/white.mp4", [("white", 1.0)])
    browser.until("$('.job').dataset.state === 'succeeded'")
    browser.run("$('#home-videos .tile-shot').click();")
    browser.until("$('#player').open && $('#player-video').readyState > 1")
    browser.run(
        """
        window.loads = 0;
        $('#player-video').addEventListener('loadstart', () => { window.loads += 1; });
        $('#job-path').value = arguments[0];
        $('#job-form').requestSubmit();
        """,
        str(later.parent),
    )
    browser.until("$$('#home-videos .tile-name')[0].textContent === 'white.mp4'")
    assert browser.run("return [$('#player').open, window.loads];") == [True, 0]
    assert browser.errors() == []


def test_what_may_not_be_added_is_said(browser: Browser, server: Server) -> None:
    browser.open(f"{server.url}/")
    add(browser, Path("/proc"))
    browser.until("$('#job-problem').textContent")
    assert "/proc" in browser.text("#job-problem")
    assert browser.focused("#job-path")
    assert any("422" in error for error in browser.errors())
