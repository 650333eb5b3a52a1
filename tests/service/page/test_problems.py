"""What the page says and does when something is wrong: queries, the network, files, the library."""

from __future__ import annotations

from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from tests.support.browser import Browser
from tests.support.page import find
from tests.support.server import Server, running_server
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_library import ToyLibrary

pytestmark = [pytest.mark.browser, pytest.mark.slow]
SHOTS = "$$('#grid .shot').length"


def test_empty_query_says_what_to_do(page: Browser, server: Server) -> None:
    page.press("   ", Keys.ENTER)
    assert page.text("#query-problem") == "Describe what you are looking for, then press Enter."
    assert page.driver.current_url == f"{server.url}/"
    assert page.focused("#query")
    page.press("r")
    assert page.text("#query-problem") == ""


def test_query_too_long_shows_the_servers_words(page: Browser) -> None:
    page.run("$('#query').value = 'red '.repeat(300);")
    page.press(Keys.ENTER)
    page.until("$('#notice h2')")
    assert page.text("#notice h2") == "That search did not work"
    assert "1,000 are allowed" in page.text("#notice p")
    assert page.run(f"return {SHOTS};") == 0
    assert any("422" in error for error in page.errors())


def test_offline_says_so_and_recovers(page: Browser) -> None:
    with page.network(offline=True):
        page.press("red", Keys.ENTER)
        page.until("$('#notice h2')?.textContent === 'You are offline'")
    page.until("$('#grid .card-name')?.textContent === 'sunset.mp4'")
    assert page.run("return $('#notice').hidden;")
    assert page.errors()


def test_a_slow_answer_shows_skeletons(page: Browser) -> None:
    watch = """
    new MutationObserver(() => {
      const number = $$("#grid .skeleton").length;
      if (number) window.busy = [number, $("#count").textContent, $("#results").getAttribute("aria-busy")];
    }).observe($("#likely-grid"), { childList: true });
    """
    page.run(watch)
    with page.network(latency_ms=700):
        find(page, "red")
    assert page.run("return window.busy;") == [12, "Searching…", "true"]


def test_a_newer_query_wins(page: Browser) -> None:
    search = """
    window.seen = [];
    const note = () => seen.push($(".card-name")?.textContent);
    new MutationObserver(note).observe($("#likely-grid"), { childList: true });
    for (const query of ["red", "yellow"]) {
      $("#query").value = query;
      $("#search-form").requestSubmit();
    }
    """
    with page.network(latency_ms=300):
        page.run(search)
        page.until("!$('#results').ariaBusy && $('#grid .card')")
    assert page.texts("#grid .card-name")[0] == "A yellow afternoon"
    assert "sunset.mp4" not in page.run("return seen;")


def test_a_codec_that_the_browser_lacks_and_no_stream(page: Browser) -> None:
    # A browser without Media Source Extensions gets no stream either.
    page.run("delete window.MediaSource;")
    find(page, "green")
    assert page.texts("#grid .card-name")[0] == "old.mp4"
    page.click("#grid .shot")
    page.until("!$('#player-problem').hidden")
    assert page.text("#player-problem p") == "This browser cannot play this kind of video."
    download = page.find("#player-download")
    assert download.get_attribute("download") == "old.mp4"
    assert page.focused("#player-download")
    assert str(download.get_attribute("href")).endswith("/media")
    page.press(Keys.ESCAPE)
    page.until("!$('#player').open")
    page.until_focused("#grid li:nth-child(1) .shot")
    page.errors()


def test_a_file_that_is_gone(page: Browser, toy: ToyLibrary) -> None:
    (toy.media / "gone.mp4").unlink()
    find(page, "cyan")
    assert page.texts("#grid .card-name")[0] == "gone.mp4"
    page.click("#grid .shot")
    page.until("!$('#player-problem').hidden")
    assert "is missing" in page.text("#player-problem p")
    assert page.focused("#player-close")
    assert not page.find("#player-download").is_displayed()
    page.press(Keys.ESCAPE)
    assert any("410" in error for error in page.errors())


def test_a_library_that_is_not_there_yet(browser: Browser, tmp_path: Path) -> None:
    toy = ToyLibrary(tmp_path / "media", tmp_path / "library", make_toy_bundle(tmp_path / "bundle"))
    toy.film("red.mp4", [("red", 1.0)])
    with running_server(*toy.options, "--reload-seconds", "0.2", ready=False) as server:
        browser.open(f"{server.url}/")
        browser.until("$('#notice-heading').textContent === 'The library is not ready'")
        assert "reelfind index" in browser.text("#notice-text code")
        browser.press("red", Keys.ENTER)
        browser.until("document.documentElement.dataset.view === 'problem'")
        assert browser.text("#notice-heading") == "The library is not ready"
        assert browser.text("#notice-wait") == "Trying again in 2 seconds."
        toy.index()
        browser.until("$('#grid .card-name')?.textContent === 'red.mp4'")
        assert browser.run("return $('#notice').hidden;")
    browser.errors()
