"""The page, in a real browser on the real server: coloured videos are found, played and linked to."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from selenium.webdriver.common.keys import Keys

from tests.support.browser import Browser
from tests.support.page import (
    LONG_NAME,
    RTL_NAME,
    XSS_NAME,
    best_frame,
    find,
    shown_scores,
    sought,
    stop_at_the_next_seek,
)
from tests.support.server import Server

pytestmark = [pytest.mark.browser, pytest.mark.slow]
SHOTS = "$$('#grid .shot').length"


def video(page: Browser, name: str) -> Any:
    return page.run("return $('#player-video')[arguments[0]];", name)


def test_opens_with_the_library_and_the_box_focused(page: Browser) -> None:
    assert page.focused("#query")
    assert page.text("#library") == "18 videos, 1 minute of footage"
    assert page.text("h1") == "Find a moment by describing it"
    assert page.run("return $('label[for=query]').textContent;")


def test_finds_a_video_and_shows_its_most_relevant_frame(page: Browser, server: Server) -> None:
    find(page, "red")
    hit = server.search("red")[0]
    best = best_frame(hit)

    assert hit["path"].endswith("sunset.mp4")
    assert page.texts("#grid .card-name")[0] == "sunset.mp4"
    assert page.texts("#grid .card-span")[0] == "0:00–0:05"
    assert page.find("#grid .meter").aria_role == "meter"
    shares = page.run("return $$('#grid .meter').map((meter) => Number(meter.ariaValueNow));")
    assert shares[0] == 100
    assert shares == sorted(shares, reverse=True)
    assert page.text("#count") == "12 results"
    assert page.text("#timing").endswith(" ms")
    image = page.find("#grid .shot-image")
    assert image.get_attribute("data-frame-id") == best["frame_id"]
    assert f"/v1/frames/{best['frame_id']}.jpg" in str(image.get_attribute("src"))
    page.until("$('#grid .shot-image').naturalWidth > 0")
    assert page.text("#grid .shot-time") == "0:02.0"
    assert is_red(middle_pixel(page, "#grid .shot-image"))


def middle_pixel(page: Browser, selector: str) -> list[int]:
    script = """
    const picture = $(arguments[0]);
    const width = picture.naturalWidth || picture.videoWidth;
    const height = picture.naturalHeight || picture.videoHeight;
    const context = Object.assign(document.createElement("canvas"), { width, height }).getContext("2d");
    context.drawImage(picture, 0, 0);
    return [...context.getImageData(width / 2, height / 2, 1, 1).data];
    """
    pixel: list[int] = page.run(script, selector)
    return pixel


def is_red(pixel: list[int]) -> bool:
    red, green, blue, _ = pixel
    return red > 200 and green < 60 and blue < 60


def test_strip_shows_every_frame_with_its_relevance(page: Browser, server: Server) -> None:
    find(page, "red")
    frames = server.search("red")[0]["frames"]
    script = """
    return [...$("#grid .strip").querySelectorAll(".cell")].map((cell) => [
      cell.dataset.frameId, cell.querySelector(".cell-bar span").getBoundingClientRect().height,
      cell.hasAttribute("data-best"),
    ]);
    """
    cells = page.run(script)
    assert [frame_id for frame_id, _, _ in cells] == [frame["frame_id"] for frame in frames]
    red = [frame["relevance"] > 0.5 for frame in frames]
    assert any(red)
    assert not all(red)
    low = max(height for (_, height, _), is_red in zip(cells, red, strict=True) if not is_red)
    high = min(height for (_, height, _), is_red in zip(cells, red, strict=True) if is_red)
    assert high > 3 * low > 0
    assert [best for *_, best in cells].count(True) == 1
    assert cells[max(range(len(frames)), key=lambda i: frames[i]["relevance"])][2]


def test_hovering_over_a_frame_shows_it_large(page: Browser) -> None:
    find(page, "red")
    before = page.find("#grid .shot-image").get_attribute("src")
    page.hover("#grid .strip li:last-child .cell")
    page.until("$('#grid .shot-image').src !== arguments[0]", before)
    assert page.text("#grid .shot-time") == "0:04.8"
    page.hover("#count")
    page.until("$('#grid .shot-image').src === arguments[0]", before)


def test_player_starts_at_the_frame_that_the_card_shows(page: Browser, server: Server) -> None:
    find(page, "magenta")
    hit = server.search("magenta")[0]
    assert hit["start_seconds"] == pytest.approx(20)
    shown = page.find("#grid .shot-image").get_attribute("data-frame-id")
    start = next(frame["pts_seconds"] for frame in hit["frames"] if frame["frame_id"] == shown)
    page.click("#grid .shot")
    page.until("$('#player-video').readyState >= 2")
    page.until("$('#player-video').played.length")
    assert page.run("return $('#player-video').played.start(0);") == pytest.approx(start, abs=0.1)
    assert page.text("#player-title") == "late.mp4"
    assert page.text("#player-path") == hit["path"]
    assert page.text("#player-facts") == "0:20–0:40"
    assert page.run("return $('#player-problem').hidden;")
    link = page.run("return $('#player-open').hash;")
    assert float(link.removeprefix("#t=")) == pytest.approx(start, abs=0.01)
    page.click("#player-strip li:last-child .cell")
    link = page.run("return $('#player-open').hash;")
    assert float(link.removeprefix("#t=")) == pytest.approx(hit["frames"][-1]["pts_seconds"], abs=0.01)


def test_a_frame_starts_the_player_there(page: Browser, server: Server) -> None:
    find(page, "red")
    frames = server.search("red")[0]["frames"]
    page.click("#grid .strip [data-best]")
    page.until("$('#player-video').played.length")
    best = next(frame for frame in frames if frame["salient"])
    start = pytest.approx(best["pts_seconds"], abs=0.1)
    assert page.run("return $('#player-video').played.start(0);") == start
    page.run("$('#player-video').currentTime = 0;")
    page.until("!$('#player-video').seeking")
    stop_at_the_next_seek(page)
    page.click(f"#player-strip [data-frame-id='{best['frame_id']}']")
    assert sought(page) == start
    assert is_red(middle_pixel(page, "#player-video"))
    page.until("$('#player-strip [aria-current]')")
    bars = "return $$('{} .cell').map((cell) => cell.style.getPropertyValue('--relevance'));"
    assert page.run(bars.format("#player-strip")) == page.run(bars.format("#likely-grid > li:first-child"))
    page.press(Keys.ESCAPE)
    page.until_focused("#grid li:first-child .shot")


def test_the_picture_clicked_stands_there_until_the_video_has_loaded(page: Browser, server: Server) -> None:
    find(page, "red")
    hit = server.search("red")[0]
    page.click("#grid .shot")
    assert f"/{best_frame(hit)['frame_id']}.jpg" in page.run("return $('#player-video').poster;")
    page.press(Keys.ESCAPE)
    page.until("!$('#player').open && !$('#player-video').hasAttribute('poster')")
    page.click("#grid .cell")
    assert f"/{hit['frames'][0]['frame_id']}.jpg" in page.run("return $('#player-video').poster;")


def test_everything_with_the_keyboard(page: Browser) -> None:
    page.press("red", Keys.ENTER)
    page.until(f"{SHOTS} === 12")
    page.press(Keys.ARROW_DOWN)
    assert page.focused("#grid li:nth-child(1) .shot")
    columns = page.run("return getComputedStyle($('#likely-grid')).gridTemplateColumns.split(' ').length;")
    page.press(Keys.ARROW_RIGHT)
    assert page.focused("#grid li:nth-child(2) .shot")
    page.press(Keys.ARROW_DOWN)
    assert page.focused(f"#grid li:nth-child({2 + columns}) .shot")
    page.press(Keys.ARROW_UP, Keys.ARROW_LEFT)
    assert page.focused("#grid li:nth-child(1) .shot")
    page.press(Keys.END)
    page.until(f"{SHOTS} === 18")  # The end came into view, and more was loaded.
    assert page.focused("#grid li:nth-child(12) .shot")
    page.press(Keys.END)
    assert page.focused("#grid li:last-child .shot")
    page.press(Keys.HOME)
    assert page.run("return $$('#grid .shot[tabindex=\"0\"]').length;") == 1

    page.press(Keys.ENTER)
    page.until("$('#player').open")
    assert page.focused("#player *")
    page.press(Keys.ESCAPE)
    page.until("!$('#player').open")
    page.until_focused("#grid li:nth-child(1) .shot")
    page.until("!$('#player-video').hasAttribute('src')")

    page.press(Keys.ARROW_UP)
    assert page.focused("#query")
    page.press(Keys.ESCAPE)
    assert page.find("#query").get_attribute("value") == ""
    page.press(Keys.TAB)
    page.press("/")
    assert page.focused("#query")
    page.press("a/b")
    assert page.find("#query").get_attribute("value") == "a/b"


def test_skip_link_leads_past_the_header_without_searching_again(page: Browser) -> None:
    find(page, "red")
    page.run("$('#grid .card').dataset.same = 'yes'; $('.skip').focus();")
    page.press(Keys.ENTER)
    page.until_focused("#main")
    assert page.run("return $('#grid .card').dataset.same;") == "yes"


def test_address_holds_the_query_and_back_goes_back(page: Browser, server: Server) -> None:
    find(page, "red")
    assert page.driver.current_url == f"{server.url}/?q=red"
    assert page.driver.title == "red – Reelfind"
    find(page, "yellow")
    assert page.texts("#grid .card-name")[0] == "A yellow afternoon"
    scores = [hit["score"] for hit in server.search("yellow", top_k=12)]
    assert shown_scores(page) == pytest.approx(scores, abs=0.0051)
    page.driver.back()
    page.until("$('#grid .card-name')?.textContent === 'sunset.mp4'")
    assert page.find("#query").get_attribute("value") == "red"
    page.driver.back()
    page.until("document.documentElement.dataset.view === 'initial'")
    assert page.driver.title == "Reelfind"
    page.driver.forward()
    page.until("$('#grid .card-name')?.textContent === 'sunset.mp4'")


def test_a_link_with_a_query_searches(page: Browser, server: Server) -> None:
    page.visit(f"{server.url}/?q={quote('yellow')}")
    page.until("$('#grid .card-name')?.textContent === 'A yellow afternoon'")


def test_more_results(page: Browser) -> None:
    find(page, "black")
    assert page.run(f"return {SHOTS};") == 12
    # By the keyboard; what comes into view is loaded without it, too.
    page.run("$('#more').focus();")
    page.until(f"{SHOTS} === 18")
    page.until("document.activeElement.closest('#grid li:nth-child(13)')")
    assert page.text("#count") == "18 results"
    assert page.run("return $('#more').hidden;")


def test_file_names_are_text(page: Browser) -> None:
    find(page, "green white")
    names = page.texts("#grid .card-name")
    assert XSS_NAME in names
    assert page.run("return $$('#grid h3 *').length;") == 0
    page.run("$$('#grid .shot')[arguments[0]].click();", names.index(XSS_NAME))
    page.until("$('#player-video').readyState >= 1")
    assert page.text("#player-title") == XSS_NAME
    assert page.driver.title == "green white – Reelfind"


def test_long_names_and_other_scripts(page: Browser) -> None:
    find(page, "green white")
    cards = page.driver.find_elements("css selector", "#grid .card-name")
    by_name = {card.get_attribute("textContent"): card for card in cards}
    long = by_name[LONG_NAME]
    assert str(long.get_attribute("title")).startswith(LONG_NAME)
    assert page.run("return arguments[0].scrollHeight > arguments[0].clientHeight;", long)
    assert page.run("return getComputedStyle(arguments[0]).direction;", by_name[RTL_NAME]) == "rtl"
