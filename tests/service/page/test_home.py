"""What the page shows when nothing is asked: videos, moments, folders, failures, examples, past searches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from selenium.webdriver.common.keys import Keys

from tests.support.browser import Browser
from tests.support.page import XSS_NAME, find, visit
from tests.support.server import Server, running_server
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_library import ToyLibrary, make_library

pytestmark = [pytest.mark.browser, pytest.mark.slow]
FILMS = {
    "coast/sea.mp4": [("blue", 2.0)],
    "coast/2024/reef.mp4": [("cyan", 2.0)],
    "town/traffic.mp4": [("red", 1.0), ("green", 1.0)],
    f"town/{XSS_NAME}": [("magenta", 1.0)],
}
READY = "!$('#home-moments').hidden && !$('#home-folders').hidden && $('#examples a')"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    toy = make_library(tmp_path_factory.mktemp("toy"), FILMS)
    toy.film("town/wall.mp4", [("red", 1.0)], title="A red wall")
    (toy.media / "town" / "broken.mp4").write_bytes(b"no video")
    toy.index()
    return toy


@pytest.fixture(scope="module")
def server(toy: ToyLibrary) -> Iterator[Server]:
    with running_server(*toy.options) as server:
        yield server


@pytest.fixture
def home(page: Browser) -> Browser:
    page.until(READY)
    return page


def part(page: Browser) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.driver.current_url).query)


def test_pictures_of_videos_and_moments_play(home: Browser, server: Server) -> None:
    assert sorted(home.texts("#home-videos .tile-name")) == sorted(
        [XSS_NAME, "sea.mp4", "reef.mp4", "Traffic lights", "A red wall"]
    )
    assert home.run("return $$('#home-videos .tile-name *').length;") == 0
    pictures = "$$('#home .tiles img').slice(0, 5).every((image) => image.naturalWidth > 0)"
    home.until(pictures)
    shots = home.driver.find_elements("css selector", "#home-videos button.tile-shot")
    shot = next(shot for shot in shots if "reef.mp4" in shot.accessible_name)
    shot.click()
    home.until("$('#player').open && $('#player-video').readyState >= 1")
    assert home.text("#player-title") == "reef.mp4"
    assert part(home) == {"video": [server.video_id("reef.mp4")], "t": ["0"]}
    assert not home.find("#player-why").is_displayed()
    home.press(Keys.ESCAPE)
    home.until("!$('#player').open && location.search === ''")
    assert home.run("return document.activeElement === arguments[0];", shot)
    home.driver.forward()
    home.until("$('#player').open")
    home.driver.refresh()
    home.until("$('#player').open && $('#player-title').textContent === 'reef.mp4'")
    home.press(Keys.ESCAPE)
    home.until("!$('#player').open")


def test_moments_are_drawn_anew(home: Browser) -> None:
    script = "return $$('#home-moments img').map((image) => image.src);"
    first = home.run(script)
    assert len(first) == 5
    for _ in range(8):
        home.click("#home-moments-others")
        home.until("$$('#home-moments img').length === 5")
        if home.run(script) != first:
            break
    home.until(f"JSON.stringify((() => {{ {script} }})()) !== JSON.stringify(arguments[0])", first)


def test_folders_lead_down_and_up(home: Browser, toy: ToyLibrary) -> None:
    assert home.texts("#home-folders .folder-name") == ["coast", "town"]
    assert home.texts("#home-folders .folder-facts")[0].startswith("2 videos")
    home.click("#home-folders a")
    home.until("document.documentElement.dataset.view === 'videos'")
    assert part(home) == {"folder": [str(toy.media / "coast")]}
    assert sorted(home.texts("#videos .tile-name")) == ["reef.mp4", "sea.mp4"]
    assert home.texts("#videos-folders .folder-name") == ["2024"]
    assert home.texts("#chips .chip span:first-of-type") == ["in coast"]
    home.click("#videos-folders a")
    home.until("$$('#videos .tile-name').length === 1")
    assert home.texts("#videos-way a") == ["All videos", "coast", "2024"]
    home.click("#videos-way a")
    home.until("$$('#videos .tile-name').length === 6")
    home.driver.back()
    home.until("$$('#videos .tile-name').length === 1")
    home.driver.refresh()
    home.until("$$('#videos .tile-name').length === 1")
    home.click("#brand")
    home.until("document.documentElement.dataset.view === 'initial' && !$('#home').hidden")


def test_failures_have_reasons(home: Browser) -> None:
    home.until("!$('#home-failures').hidden")
    assert home.texts("#home-failures a") == ["1 file"]
    assert home.text(".failure-reason")
    reason = home.text(".failure-reason")
    home.click("#home-failures a")
    home.until("document.documentElement.dataset.view === 'videos'")
    assert home.texts("#videos .tile-name") == ["broken.mp4"]
    assert home.text("#videos .tile-facts") == reason
    assert home.run("return $$('#videos button.tile-shot, #videos img').length;") == 0


def test_examples_find_something_and_searches_are_remembered(home: Browser, server: Server) -> None:
    # A title: the model knows the word of no file.
    examples = home.texts("#examples a")
    assert examples == [each["text"] for each in server.client.get("/v1/examples").json()["examples"]]
    home.click("#examples a")
    home.until("$('#grid .card')")
    assert part(home)["q"] == [examples[0]]
    find(home, "blue")
    find(home, "red")
    home.click("#brand")
    home.until("!$('#home-searches').hidden")
    assert home.texts("#home-searches a") == ["red", "blue", examples[0]]
    home.driver.refresh()
    home.until("!$('#home-searches').hidden")
    home.click("#home-searches a")
    home.until("$('#grid .card') && $('#query').value === 'red'")
    home.click("#brand")
    home.until("!$('#home-searches').hidden")
    home.click("#home-searches-clear")
    assert not home.find("#home-searches").is_displayed()
    home.driver.refresh()
    home.until(READY)
    assert not home.find("#home-searches").is_displayed()


def test_arrow_keys_lead_through_the_pictures(home: Browser) -> None:
    home.run("$('#home-videos button.tile-shot').focus();")
    home.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert home.focused("#home-videos li:nth-child(3) .tile-shot")
    home.press(Keys.END)
    assert home.focused("#home-videos li:nth-child(5) .tile-shot")
    home.press(Keys.HOME)
    assert home.focused("#home-videos li:nth-child(1) .tile-shot")
    assert home.run("return $$('#home-videos button[tabindex=\"0\"]').length;") == 1
    outline = "return getComputedStyle(document.activeElement).outlineStyle;"
    assert home.run(outline) == "solid"
    home.press("/")
    assert home.focused("#query")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_can_be_read_and_fits(home: Browser, dark: bool) -> None:
    home.emulate(width=390, dark=dark)
    home.until("!$('#home-failures').hidden")
    assert home.run("return document.documentElement.scrollWidth <= innerWidth;")
    shown = [".home h2", ".home-all", ".tile-name", ".tile-facts", ".folder-name", ".folder-facts",
             ".failure-reason", ".failures a", "#order", ".order", "#filters-toggle"]  # fmt: skip
    assert [selector for selector in shown if home.contrast(selector) < 4.5] == []


def test_a_library_without_videos_says_how_to_add_some(browser: Browser, tmp_path: Path) -> None:
    toy = ToyLibrary(tmp_path / "media", tmp_path / "library", make_toy_bundle(tmp_path / "bundle"))
    toy.media.mkdir()
    (toy.media / "broken.mp4").write_bytes(b"no video")
    toy.index()
    with running_server(*toy.options) as server:
        browser.errors()
        visit(browser, server)
        browser.until("!$('#notice').hidden && !$('#home-failures').hidden")
        assert browser.text("#notice-heading") == "The library is empty"
        assert "reelfind index" in browser.text("#notice-text code")
        for selector in ("#home-videos", "#home-moments", "#home-folders", "#asked-bar"):
            assert not browser.find(selector).is_displayed()
        assert browser.errors() == []
