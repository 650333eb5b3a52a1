"""How the page words the levels of moments, folds the less likely ones, and says that nothing fits.

No bundle of the tests is calibrated: answers of the real server get their levels here, and a stand-in serves
them beside the page's real files. What it does not know it passes on to the real server.
"""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

import service
from tests.support.browser import Browser
from tests.support.page import find
from tests.support.server import Server, running_server
from tests.support.toy_library import ToyLibrary, make_library

pytestmark = [pytest.mark.browser, pytest.mark.slow]
STATIC = Path(service.__file__).parent / "static"
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
THRICE = [("red", 6.0), ("black", 12.0), ("red", 6.0), ("green", 12.0), ("red", 6.0)]
PAGE = 12
# Of a search, and of the three red moments of one video.
LEVELS = ["high"] * 2 + ["medium"] * 3 + ["low"] * 13
LEVELS_IN_VIDEO = ["high", "low", "medium"]
PROBABILITIES = {"high": 0.92, "medium": 0.61, "low": 0.08}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    fillers = {f"filler {number}.mp4": [("blue", 1.0)] for number in range(15)}
    return make_library(tmp_path_factory.mktemp("toy"), {"thrice.mp4": THRICE, **fillers})


@pytest.fixture(scope="module")
def server(toy: ToyLibrary) -> Iterator[Server]:
    with running_server(*toy.options) as server:
        yield server


def with_levels(answer: dict[str, Any], query: str, levels: list[str]) -> dict[str, Any]:
    """An answer as a calibrated bundle gives it; `black` finds nothing likely, `white` nothing unlikely."""
    for place, hit in enumerate(answer["hits"]):
        hit["level"] = {"black": "low", "white": "high"}.get(query, levels[place])
        hit["probability"] = PROBABILITIES[hit["level"]]
    return answer | {"best_guess": query == "black"}


@pytest.fixture(scope="module")
def calibrated(server: Server) -> Iterator[str]:
    """The address of the stand-in."""

    class StandIn(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/static/"):
                file = STATIC / self.path.removeprefix("/static/")
                self.answer(file.read_bytes(), TYPES[file.suffix])
            elif self.path.startswith("/?"):
                self.answer((STATIC / "index.html").read_bytes(), "text/html")
            else:
                real = server.client.get(self.path)
                self.answer(real.content, real.headers["content-type"])

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            real = server.client.post(self.path, json=body).json()
            levels = LEVELS_IN_VIDEO if self.path.endswith("/moments") else LEVELS
            # A page that follows is the second one, here.
            following = levels[PAGE:] if "page_token" in body else levels
            answer = with_levels(real, body["query"]["text"], following)
            self.answer(json.dumps(answer).encode(), "application/json")

        def answer(self, content: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class names it
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), StandIn) as stand_in:
        threading.Thread(target=stand_in.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{stand_in.server_port}"
        stand_in.shutdown()


@pytest.fixture
def page(browser: Browser, calibrated: str) -> Iterator[Browser]:
    browser.errors()
    browser.open(f"{calibrated}/?q=red")
    browser.until("!$('#results').ariaBusy && $('#grid .card')")
    yield browser
    assert browser.errors() == []


def cards(page: Browser, grid: str) -> int:
    return int(page.run("return $$(`${arguments[0]} .card`).length;", grid))


def test_words_stand_for_levels(page: Browser) -> None:
    assert page.texts("#likely-grid .level") == ["Strong match"] * 2 + ["Likely"] * 3
    assert page.run("return $$('.meter').length;") == 0
    assert page.find("#grid .shot").accessible_name == "Play thrice.mp4, 0:00–0:07, Strong match"
    page.click("#grid .why")
    words = page.run("return $('#why-body').textContent;")
    assert "Strong match: of 100 moments that score like this one, about 92 show what was described." in words
    page.press(Keys.ESCAPE)
    page.click("#grid .shot")
    assert page.text("#player-facts") == "0:00–0:07 · Strong match"


def test_the_less_likely_are_folded(page: Browser) -> None:
    assert page.text("#count") == "5 results"
    assert page.run("return $('#guess').hidden;")
    assert (cards(page, "#likely-grid"), cards(page, "#fold-grid")) == (5, 7)
    button = page.find("#fold-button")
    assert button.accessible_name == "7 less likely"
    assert button.get_attribute("aria-expanded") == "false"
    assert not page.find("#fold-grid").is_displayed()
    # Their pictures are not loaded.
    page.until("$$('#likely-grid img').every((image) => image.complete)")
    assert page.run("return $$('#fold-grid img').every((image) => image.naturalWidth === 0);")


def test_the_fold_opens_with_the_keyboard(page: Browser) -> None:
    page.press(Keys.ARROW_DOWN, Keys.END)
    assert page.focused("#grid li:nth-child(5) .shot")
    page.press(Keys.TAB, Keys.TAB, Keys.TAB)
    assert page.focused("#fold-button")
    page.press(Keys.ENTER)
    assert page.find("#fold-button").get_attribute("aria-expanded") == "true"
    assert page.texts("#fold-grid .level") == ["Less likely"] * 7
    # The arrow keys lead from one grid into the other and back.
    page.run("$('#grid li:nth-child(5) .shot').focus();")
    page.press(Keys.ARROW_RIGHT)
    assert page.focused("#fold-grid li:nth-child(1) .shot")
    page.press(Keys.ARROW_DOWN)
    assert page.focused("#fold-grid .shot")
    page.press(Keys.HOME)
    assert page.focused("#grid li:nth-child(1) .shot")
    assert page.run("return $$('.grid .shot[tabindex=\"0\"]').length;") == 1
    page.click("#fold-button")
    assert not page.find("#fold-grid").is_displayed()
    assert page.run("return $$('#grid .shot[tabindex=\"0\"]').length;") == 1


def test_a_folded_moment_that_is_linked_plays(page: Browser, calibrated: str) -> None:
    hit = page.run("return $('#fold-grid .shot-image').dataset.frameId;")
    page.visit("about:blank")
    page.visit(f"{calibrated}/?q=red&video={hit.partition('-')[0]}&t=0")
    page.until("$('#player').open")
    assert page.run("return $('#player-strip .cell').dataset.frameId.split('-')[0];") == hit.partition("-")[0]
    page.press(Keys.ESCAPE)
    page.until("!$('#player').open")
    page.until_focused("#fold-button")


def test_more_results_may_all_be_folded(page: Browser) -> None:
    page.click("#more")
    page.until("$('#fold-button').textContent === '13 less likely'")
    assert page.focused("#fold-button")
    assert page.text("#count") == "5 results"


def test_nothing_likely_is_said_above_the_closest_guesses(page: Browser) -> None:
    find(page, "black")
    assert page.text("#guess h2") == "Nothing here shows that"
    assert page.text("#guess p") == "These moments come closest."
    assert page.run("return $('#guess').parentElement.role;") == "status"
    assert page.text("#count") == "12 guesses"
    assert (cards(page, "#likely-grid"), cards(page, "#fold-grid")) == (12, 0)
    assert page.run("return $('#fold').hidden;")
    assert page.texts("#likely-grid .level") == ["Less likely"] * 12
    assert page.contrast("#guess p") >= 4.5
    find(page, "red")
    assert page.run("return $('#guess').hidden && !$('#fold').hidden;")


def test_without_an_unlikely_moment_there_is_no_fold(page: Browser) -> None:
    find(page, "white")
    assert page.text("#count") == "12 results"
    assert page.run("return $('#fold').hidden && $('#guess').hidden;")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_levels_can_be_read(page: Browser, dark: bool) -> None:
    page.emulate(dark=dark)
    page.click("#fold-button")
    shown = [
        "#likely-grid .level",
        "#likely-grid li:nth-child(3) .level",
        "#fold-grid .level",
        "#fold-button",
    ]
    assert [selector for selector in shown if page.contrast(selector) < 4.5] == []


def test_the_timeline_leaves_out_what_is_unlikely(page: Browser) -> None:
    page.click("#grid .shot")
    page.until("$$('.mark').length === 2")
    names = page.run("return $$('.mark').map((mark) => mark.ariaLabel);")
    assert names == ["Play moment 1, 0:00–0:07, Strong match", "Play moment 2, 0:35–0:42, Likely"]
