"""The address while the player is open: a moment can be linked, and Back and Forward lead to it and away."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from selenium.webdriver.common.keys import Keys

from tests.support.browser import Browser
from tests.support.page import bodies, find
from tests.support.server import Server

pytestmark = [pytest.mark.browser, pytest.mark.slow]
OPEN = "$('#player').open && $('#player-video').readyState >= 1"


def place(page: Browser) -> tuple[str, float] | None:
    """The video and the time in the address."""
    parts = parse_qs(urlsplit(page.driver.current_url).query)
    return (parts["video"][0], float(parts["t"][0])) if "video" in parts else None


def follow(page: Browser, server: Server, part: str) -> None:
    """Follow a link to the page."""
    page.visit("about:blank")
    page.visit(f"{server.url}/{part}")
    page.until("!$('#results').ariaBusy && $('#grid .card')")


def test_the_address_holds_the_moment_and_back_and_forward_work(page: Browser, server: Server) -> None:
    find(page, "red")
    hit = server.search("red")[0]
    start = next(frame["pts_seconds"] for frame in hit["frames"] if frame["salient"])
    page.click("#grid .shot")
    page.until(OPEN)
    assert place(page) == (hit["video_id"], start)
    assert parse_qs(urlsplit(page.driver.current_url).query)["q"] == ["red"]
    page.driver.back()
    page.until("!$('#player').open && !$('#player-video').hasAttribute('src')")
    assert page.driver.current_url == f"{server.url}/?q=red"
    assert page.focused("#grid li:first-child .shot")
    page.driver.forward()
    page.until(OPEN)
    assert place(page) == (hit["video_id"], start)
    page.until(
        "Math.abs($('#player-video').currentTime - arguments[0]) < 3 && !$('#player-video').seeking", start
    )
    page.driver.back()
    page.until("!$('#player').open")
    page.driver.back()
    page.until("document.documentElement.dataset.view === 'initial'")
    # All that was one search.
    assert len(bodies(page)) == 1


@pytest.mark.parametrize("by", ["button", "key"])
def test_closing_leaves_a_sane_history(page: Browser, server: Server, by: str) -> None:
    find(page, "red")
    for _ in range(2):
        page.click("#grid .shot")
        page.until(OPEN)
        if by == "button":
            page.click("#player-close")
        else:
            page.press(Keys.ESCAPE)
        page.until("!$('#player').open && !location.search.includes('video')")
        assert page.focused("#grid li:first-child .shot")
    page.driver.forward()
    page.until(OPEN)
    page.driver.back()
    page.until("!$('#player').open")
    page.driver.back()
    page.until("document.documentElement.dataset.view === 'initial'")


@pytest.mark.parametrize("later", [False, True])
def test_opening_again_at_once_keeps_the_player(page: Browser, server: Server, later: bool) -> None:
    find(page, "red")
    second = server.search("red")[1]["video_id"]
    page.click("#grid .shot")
    page.until(OPEN)
    script = """
    const open = () => $$("#grid .shot")[1].click();
    if (arguments[0]) $("#player").addEventListener("close", open, { once: true });
    $("#player-close").click();
    if (!arguments[0]) open();
    """
    page.run(script, later)
    page.until(f"{OPEN} && location.search.includes(arguments[0])", second)
    page.driver.back()
    page.until("!$('#player').open")
    assert page.run("return location.search;") == "?q=red"


def test_back_twice_in_a_hurry_leads_past_the_player(page: Browser, server: Server) -> None:
    find(page, "red")
    find(page, "blue")
    page.click("#grid .shot")
    page.until("$('#player').open")
    page.run("history.back(); history.back();")
    page.until("!$('#player').open && location.search === '?q=red' && $('#query').value === 'red'")
    page.until("!$('#results').ariaBusy && $('#grid .card')")
    page.driver.forward()
    page.until("!$('#player').open && location.search === '?q=blue' && $('#query').value === 'blue'")


def test_another_frame_changes_the_time_in_the_same_entry(page: Browser, server: Server) -> None:
    find(page, "red")
    hit = server.search("red")[0]
    page.click("#grid .shot")
    page.until(OPEN)
    entries = page.run("return history.length;")
    page.click("#player-strip li:last-child .cell")
    assert place(page) == (hit["video_id"], hit["frames"][-1]["pts_seconds"])
    assert page.run("return history.length;") == entries
    page.driver.refresh()
    page.until(OPEN)
    assert page.run("return $('#player-video').currentTime;") == pytest.approx(
        hit["frames"][-1]["pts_seconds"], abs=0.4
    )


def test_a_link_opens_the_player_there(page: Browser, server: Server) -> None:
    video = server.video_id("late.mp4")
    follow(page, server, f"?q=magenta&video={video}&t=31.75")
    page.until(f"{OPEN} && !$('#player-video').seeking")
    assert page.run("return $('#player-video').currentTime;") == pytest.approx(31.75, abs=0.5)
    assert page.text("#player-title") == "late.mp4"
    assert page.run("return $$('#player-strip .cell').length;") == 16
    entries = page.run("return history.length;")
    page.click("#player-close")
    page.until("!$('#player').open")
    assert page.driver.current_url == f"{server.url}/?q=magenta"
    assert page.run("return history.length;") == entries
    assert page.focused("#grid li:first-child .shot")


def test_a_link_to_a_video_that_is_not_among_the_hits(page: Browser, server: Server) -> None:
    hits = server.search("red", top_k=12)
    number = next(n for n in range(10) if not any(hit["path"].endswith(f"filler {n}.mp4") for hit in hits))
    video = server.video_id(f"filler {number}.mp4")
    follow(page, server, f"?q=red&video={video}&t=0.5")
    page.until(OPEN)
    assert page.text("#player-title") == f"filler {number}.mp4"
    assert page.run("return $('#player-video').currentTime;") == pytest.approx(0.5, abs=0.6)
    page.press(Keys.ESCAPE)
    page.until("!$('#player').open && location.search === '?q=red'")
    assert page.focused("#main")


def test_a_link_to_a_time_outside_the_hits_plays_there(page: Browser, server: Server) -> None:
    video = server.video_id("late.mp4")
    assert server.search("magenta")[0]["start_seconds"] == pytest.approx(20)
    follow(page, server, f"?q=magenta&video={video}&t=5")
    page.until(f"{OPEN} && !$('#player-video').seeking")
    assert page.run("return $('#player-video').currentTime;") == pytest.approx(5, abs=0.5)


def test_a_link_to_a_video_that_is_gone_is_said(page: Browser, server: Server) -> None:
    follow(page, server, "?q=red&video=0123456789abcdef&t=3")
    page.until("!$('#place-problem').hidden")
    assert page.text("#place-problem") == "The video of this link is no longer in the library."
    assert page.run("return $('#place-problem').parentElement.role;") == "alert"
    assert not page.run("return $('#player').open;")
    assert page.driver.current_url == f"{server.url}/?q=red"
    assert any("404" in error for error in page.errors())
    find(page, "yellow")
    assert page.run("return $('#place-problem').hidden;")


def test_what_is_said_of_a_link_goes_when_the_page_shows_something_else(
    page: Browser, server: Server
) -> None:
    page.open(f"{server.url}/?video=0123456789abcdef&t=3")
    page.until("!$('#place-problem').hidden && $('#home-videos .home-all')?.checkVisibility()")
    assert any("404" in error for error in page.errors())
    page.click("#home-videos .home-all")
    page.until("document.documentElement.dataset.view === 'videos'")
    assert page.run("return $('#place-problem').hidden;")


def test_options_stay_in_the_address(page: Browser, server: Server) -> None:
    follow(page, server, "?q=red&rerank=false&num_candidates=3")
    page.click("#grid .shot")
    page.until(OPEN)
    assert "&rerank=false&num_candidates=3&video=" in page.driver.current_url
    page.press(Keys.ESCAPE)
    page.until("!$('#player').open && !location.search.includes('video')")
    assert page.driver.current_url == f"{server.url}/?q=red&rerank=false&num_candidates=3"


def test_a_place_that_is_nonsense_plays_from_the_start(page: Browser, server: Server) -> None:
    follow(page, server, f"?q=red&video={server.video_id('sunset.mp4')}&t=soon")
    page.until(f"{OPEN} && !$('#player-video').seeking")
    assert page.run("return $('#player-video').currentTime;") < 2
