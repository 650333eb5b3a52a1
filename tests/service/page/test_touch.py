"""Fingers and phones: targets are large enough, labels are whole, and the keyboard closes after a search."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from selenium.webdriver.common.keys import Keys

from tests.support.browser import Browser
from tests.support.page import find

pytestmark = [pytest.mark.browser, pytest.mark.slow]

# What is shown and can be clicked but is less than 24 pixels wide or high. Bars in cards may be narrow: the
# player has the same frames, larger.
SMALL = """
return $$("a[href], button, input, summary")
  .filter((one) => one.checkVisibility() && !one.matches(".bars .cell, .skip"))
  .filter((one) => Math.min(one.getBoundingClientRect().width, one.getBoundingClientRect().height) < 24)
  .map((one) => one.outerHTML.slice(0, 120));
"""
# Labels whose text does not fit. Names of files are cut on purpose.
CLIPPED = """
const labels = "button, label, kbd, #count, #timeline-text, #player-facts";
const times = ".card-span, .shot-time, .cell-time";
return $$(`${labels}, ${times}`)
  .filter((one) => one.checkVisibility() && !one.closest(".unseen") && one.scrollWidth > one.clientWidth + 1)
  .filter((one) => getComputedStyle(one).display !== "inline")
  .map((one) => one.outerHTML.slice(0, 120));
"""


@contextmanager
def touch_screen(page: Browser) -> Iterator[None]:
    """A phone: the only pointer is a finger."""
    command = page.driver.execute_cdp_cmd
    metrics = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    command("Emulation.setDeviceMetricsOverride", metrics)
    command("Emulation.setTouchEmulationEnabled", {"enabled": True, "maxTouchPoints": 1})
    try:
        page.until("matchMedia('(pointer: coarse)').matches")
        yield
    finally:
        command("Emulation.setTouchEmulationEnabled", {"enabled": False})
        page.emulate()


def test_the_box_gives_the_focus_away_on_touch_screens_only(page: Browser) -> None:
    find(page, "red")
    assert page.focused("#query")
    with touch_screen(page):
        page.run("$('#query').focus();")
        find(page, "yellow")
        assert page.focused("#main")
        # A query that is missing keeps the keyboard.
        page.run("$('#query').value = ''; $('#query').focus();")
        page.press(Keys.ENTER)
        assert page.focused("#query")
        page.driver.refresh()
        page.until("!$('#results').ariaBusy && $('#grid .card')")
        assert page.focused("#main")


@pytest.mark.parametrize("width", [390, 1265])
def test_targets_are_large_enough_and_labels_whole(page: Browser, width: int) -> None:
    page.emulate(width=width, still=True)
    assert page.run(SMALL) == []
    assert page.run(CLIPPED) == []
    find(page, "green white")
    assert page.run(SMALL) == []
    assert page.run(CLIPPED) == []
    heights = page.run("return $$('.bars .cell').map((cell) => cell.getBoundingClientRect().height);")
    assert min(heights) >= 24
    for opener, closer in (
        ("#options-toggle", Keys.ESCAPE),
        ("#timing", Keys.ESCAPE),
        ("#grid .why", Keys.ESCAPE),
    ):
        page.click(opener)
        assert page.run(SMALL) == []
        assert page.run(CLIPPED) == []
        page.press(closer)
    find(page, "red")
    page.click("#grid .shot")
    page.until("$('#player-video').readyState >= 1")
    assert page.run(SMALL) == []
    assert page.run(CLIPPED) == []
