"""How the page looks: contrast, themes, motion, narrow windows, and that nothing comes from elsewhere."""

from __future__ import annotations

import pytest
from selenium.webdriver.common.keys import Keys

from tests.support.browser import Browser
from tests.support.page import find
from tests.support.server import Server

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_focus_can_be_seen(page: Browser) -> None:
    find(page, "red")
    page.press(Keys.ARROW_DOWN)
    outline = "return getComputedStyle($('#grid .film')).outlineStyle;"
    assert page.run(outline) == "solid"
    page.press(Keys.ARROW_RIGHT)
    assert page.run(outline) == "none"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_can_be_read(page: Browser, dark: bool) -> None:
    page.emulate(dark=dark)
    shown = [
        "h1",
        "#library",
        "#query",
        ".guide p",
        ".guide h2",
        ".examples a",
        ".keys dd",
        ".keys kbd",
        ".primary",
    ]
    ratios = {selector: page.contrast(selector) for selector in shown}
    ratios["placeholder"] = page.contrast("#query", "::placeholder")
    find(page, "red")
    shown = ["#count", "#timing", ".card-name", ".card-span", "#more"]
    ratios |= {selector: page.contrast(selector) for selector in shown}
    page.click("#grid .shot")
    shown = ["#player-title", "#player-path", "#player-facts", "#player-open", ".player .cell-time"]
    ratios |= {selector: page.contrast(selector) for selector in shown}
    assert {selector: ratio for selector, ratio in ratios.items() if ratio < 4.5} == {}


def test_theme_follows_the_system_and_the_toggle(page: Browser) -> None:
    ground = "return getComputedStyle(document.body).backgroundColor;"
    light = page.run(ground)
    page.emulate(dark=True)
    dark = page.run(ground)
    assert light != dark
    page.click("#theme-toggle")
    assert page.run(ground) == light
    assert page.find("#theme-toggle").get_attribute("aria-label") == "Switch to the dark theme"
    page.driver.refresh()
    assert page.run(ground) == light
    page.click("#theme-toggle")
    assert page.run(ground) == dark
    page.emulate(dark=False)
    assert page.run(ground) == light


def test_nothing_moves_for_those_who_ask(page: Browser) -> None:
    script = """
    const skeleton = document.createElement("li");
    skeleton.className = "skeleton";
    document.body.append(skeleton);
    const name = getComputedStyle(skeleton).animationName;
    skeleton.remove();
    return name;
    """
    assert page.run(script) != "none"
    page.emulate(still=True)
    assert page.run(script) == "none"


@pytest.mark.parametrize("width", [360, 768, 1920])
def test_fits_the_window(page: Browser, width: int) -> None:
    page.emulate(width=width, height=740)
    fits = "return document.documentElement.scrollWidth <= innerWidth && innerWidth === arguments[0];"
    assert page.run(fits, width)
    find(page, "green white")
    assert page.run(fits, width)
    page.click("#grid .shot")
    page.until("$('#player-video').readyState >= 1")
    assert page.run(fits, width)
    box = page.run("return $('#player').getBoundingClientRect().toJSON();")
    assert box["left"] >= 0
    assert box["right"] <= width
    assert box["bottom"] <= 740


def test_nothing_comes_from_elsewhere(page: Browser, server: Server) -> None:
    find(page, "red")
    page.click("#grid .shot")
    page.until("$('#player-video').readyState >= 1")
    names = page.run("return performance.getEntriesByType('resource').map((entry) => entry.name);")
    assert len(names) > 20
    assert [name for name in names if not name.startswith(f"{server.url}/")] == []
