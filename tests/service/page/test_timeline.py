"""The player's timeline: the moments of the query in the video, with those before and after."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

from tests.support.browser import Browser
from tests.support.page import best_frame, find, visit
from tests.support.server import Server, running_server
from tests.support.toy_library import ToyLibrary, make_library

pytestmark = [pytest.mark.browser, pytest.mark.slow]
SECONDS = 42.0
FILMS = {
    "thrice.mp4": [("red", 6.0), ("black", 12.0), ("red", 6.0), ("green", 12.0), ("red", 6.0)],
    "once.mp4": [("blue", 3.0)],
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_library(tmp_path_factory.mktemp("toy"), FILMS)


@pytest.fixture(scope="module")
def server(toy: ToyLibrary) -> Iterator[Server]:
    with running_server(*toy.options) as server:
        yield server


@pytest.fixture
def moments(server: Server) -> list[dict[str, Any]]:
    """The moments of `thrice.mp4` that show red, in time order; the first is the best hit of a search."""
    address = f"/v1/videos/{server.video_id('thrice.mp4')}/moments"
    hits = server.client.post(address, json={"query": {"text": "red"}}).json()["hits"]
    assert len(hits) == 3
    return sorted(hits, key=lambda hit: hit["start_seconds"])


def play_first(page: Browser) -> None:
    """Play the first hit, and wait for all marks."""
    find(page, "red")
    page.click("#grid .shot")
    page.until("$('#player-video').played.length && $$('.mark').length === 3")


def shows(page: Browser, moments: list[dict[str, Any]], place: int) -> None:
    """Wait until a moment is shown: its mark, its frames, its times; and the player has gone to it."""
    page.until("$$('.mark').findIndex((mark) => mark.hasAttribute('aria-current')) === arguments[0]", place)
    moment = moments[place]
    frames = page.run("return $$('#player-strip .cell').map((cell) => cell.dataset.frameId);")
    assert frames == [frame["frame_id"] for frame in moment["frames"]]
    assert page.text("#timeline-text") == f"Moment {place + 1} of 3"
    page.until("!$('#player-video').seeking")
    now = page.run("return $('#player-video').currentTime;")
    assert moment["start_seconds"] <= now <= moment["end_seconds"] + 1


def test_all_moments_of_the_video_are_marked(page: Browser, moments: list[dict[str, Any]]) -> None:
    play_first(page)
    shows(page, moments, 0)
    script = """
    const track = $("#timeline-track").getBoundingClientRect();
    return $$(".mark").map((mark) => {
      const { left, right } = mark.firstElementChild.getBoundingClientRect();
      return [left, right].map((edge) => (edge - track.left) / track.width);
    });
    """
    page.until("$('#timeline-track').style.getPropertyValue('--now') < 0.2")
    marks = page.run(script)
    for mark, moment in zip(marks, moments, strict=True):
        assert mark[0] * SECONDS == pytest.approx(moment["start_seconds"], abs=0.5)
        assert mark[1] * SECONDS == pytest.approx(moment["end_seconds"], abs=0.5)
    names = page.run("return $$('.mark').map((mark) => mark.ariaLabel);")
    assert names[1] == "Play moment 2, 0:18–0:24"


def test_a_later_moment_is_marked_first_and_stays_in_its_place(
    page: Browser, moments: list[dict[str, Any]]
) -> None:
    find(page, "red")
    page.run("$$('#grid .shot')[2].click(); window.own = $('.mark'); own.focus();")
    assert page.run("return $$('.mark').length === 1 && own.hasAttribute('aria-current');")
    page.until("$$('.mark').length === 3")
    assert page.run("return document.activeElement === own;")
    shown = page.run("return $$('.mark').map((mark) => [Number(mark.dataset.start), mark === own]);")
    spans = page.run("return $$('#grid .card-span').map((span) => span.textContent);")
    assert [start for start, _ in shown] == [moment["start_seconds"] for moment in moments]
    (own,) = [place for place, (_, is_own) in enumerate(shown) if is_own]
    assert page.run("return own.title;") == spans[2]
    assert page.text("#timeline-text") == f"Moment {own + 1} of 3"


def test_next_and_previous_with_buttons_and_keys(page: Browser, moments: list[dict[str, Any]]) -> None:
    play_first(page)
    off = "return ['previous', 'next'].map((name) => $(`#moment-${name}`).ariaDisabled);"
    assert page.run(off) == ["true", "false"]
    page.click("#moment-next")
    shows(page, moments, 1)
    assert page.run(off) == ["false", "false"]
    page.press("n")
    shows(page, moments, 2)
    assert page.run(off) == ["false", "true"]
    page.press("n")
    shows(page, moments, 2)
    page.press("p")
    shows(page, moments, 1)
    page.click("#moment-previous")
    shows(page, moments, 0)
    assert page.focused("#moment-previous")
    page.press("p")
    shows(page, moments, 0)


def test_a_mark_plays_its_moment_from_its_best_frame(page: Browser, moments: list[dict[str, Any]]) -> None:
    play_first(page)
    page.run("$('#player-video').pause();")
    page.click(".mark:nth-of-type(3)")
    shows(page, moments, 2)
    page.until("!$('#player-video').paused")
    start = best_frame(moments[2])["pts_seconds"]
    address = f"return Number(new URLSearchParams(location.search).get('t')) - {start};"
    assert page.run(address) == pytest.approx(0, abs=0.001)
    assert page.run("return $('#player-facts').textContent;") == "0:35–0:42"
    # The explanation is that of the moment.
    page.click("#player-why")
    assert page.run("return $('#why-span').textContent;") == "0:35–0:42"
    page.press(Keys.ESCAPE)
    page.press(Keys.ESCAPE)
    page.until_focused("#grid li:first-child .shot")


def test_the_strip_follows_what_is_played(page: Browser, moments: list[dict[str, Any]]) -> None:
    play_first(page)
    page.run("$('#player-video').currentTime = 37;")
    shows(page, moments, 2)
    page.run("$('#player-video').currentTime = 20;")
    shows(page, moments, 1)
    hand = "Number($('#timeline-track').style.getPropertyValue('--now'))"
    page.until(f"Math.abs({hand} * {SECONDS} - $('#player-video').currentTime) < 0.6")


def test_other_moments_are_asked_for_once_the_video_plays(page: Browser) -> None:
    find(page, "red")
    script = """
    const before = window.fetch;
    window.fetch = (address, options) => {
      if (String(address).endsWith("/moments")) {
        window.asked = [$("#player-video").readyState, JSON.parse(options.body)];
      }
      return before(address, options);
    };
    """
    page.run(script)
    page.click("#grid .shot")
    page.until("window.asked")
    state, body = page.run("return window.asked;")
    assert state >= 2
    assert (body["query"]["text"], body["rerank"]) == ("red", True)


def test_without_an_answer_the_hits_own_moment_is_marked(page: Browser) -> None:
    find(page, "red")
    script = """
    window.refused = [];
    const before = window.fetch;
    window.fetch = (address, options) => {
      const answer = before(address, options);
      answer.catch(() => refused.push(address));
      return answer;
    };
    """
    page.run(script)
    page.driver.execute_cdp_cmd("Network.enable", {})
    page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/moments"]})
    try:
        page.click("#grid .shot")
        page.until("window.refused.length")
        page.until("$('#player-video').played.length")
        page.until("$('#player-video').currentTime > $('#player-video').played.start(0) + 0.5")
        assert page.run("return $$('.mark').length;") == 1
        assert page.text("#timeline-text") == "1 moment"
        assert page.run("return $('#player-problem').hidden;")
    finally:
        page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
    page.errors()


def test_a_search_by_similarity_finds_the_moments_so_too(page: Browser, server: Server) -> None:
    visit(page, server, "?q=red&rerank=false")
    script = """
    const before = window.fetch;
    window.fetch = (address, options) => {
      if (String(address).endsWith("/moments")) window.asked = JSON.parse(options.body);
      return before(address, options);
    };
    """
    page.run(script)
    page.click("#grid .shot")
    page.until("window.asked")
    assert page.run("return window.asked.rerank;") is False
