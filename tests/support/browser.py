"""Headless Chromium for tests, without network chatter, gone when the test is.

Without a browser on the machine its tests are skipped; with REELFIND_REQUIRE_BROWSER=1 they fail instead.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DRIVERS = ("chromedriver",)
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--mute-audio",
)
DEADLINE_SECONDS = 20.0
SHORTHAND = """
const $ = (selector) => document.querySelector(selector);
const $$ = (selector) => [...document.querySelectorAll(selector)];
"""

# The contrast of an element's text with what lies behind it (WCAG 2).
CONTRAST = """
const luminance = ([r, g, b]) => {
  const part = (value) => (value <= 10.3 ? value / 3294.6 : ((value / 255 + 0.055) / 1.055) ** 2.4);
  return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
};
const parse = (colour) => {
  const numbers = colour.match(/[0-9.]+/g).map(Number);
  if (!/^rgba?[(]/.test(colour)) throw new Error(`unexpected colour ${colour}`);
  return numbers;
};
const ratio = (element, pseudo) => {
  const text = parse(getComputedStyle(element, pseudo).color);
  let behind = element;
  let ground = [0, 0, 0, 0];
  while (behind && (ground[3] ?? 1) < 1) {
    ground = parse(getComputedStyle(behind).backgroundColor);
    behind = behind.parentElement;
  }
  const [low, high] = [luminance(text), luminance(ground)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
};
return ratio($(arguments[0]), arguments[1]);
"""


def _find(names: Sequence[str]) -> str | None:
    return next((found for name in names if (found := shutil.which(name))), None)


class Browser:
    """One window of Chromium: what the tests do in it and read from it."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, address: str) -> None:
        """Load a page without emulation, and without what the page before, of the same site, has stored."""
        self.emulate()
        self.run("try { localStorage.clear(); } catch {}")
        self.visit(address)

    def visit(self, address: str) -> None:
        """Load a page, as typing its address does.

        Closing the player goes back in the history, which takes a moment: a page that is loaded meanwhile
        would be left again.
        """
        self.until("!new URLSearchParams(location.search).has('video') || $('#player')?.open !== false")
        self.driver.get(address)

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns; in it `$` finds an element by its selector, `$$` all of them."""
        return self.driver.execute_script(SHORTHAND + script, *arguments)

    def until(self, expression: str, *arguments: Any) -> Any:
        """Wait until a JavaScript expression is true, and return it."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            value = self.run(f"return ({expression});", *arguments)
            if value:
                return value
            if time.monotonic() > deadline:
                text = self.run("return document.body.innerText;")
                raise AssertionError(f"never became true: {expression}\nthe page says:\n{text}")
            time.sleep(0.02)

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return self.find(selector).text

    def texts(self, selector: str) -> list[str]:
        return [element.text for element in self.driver.find_elements(By.CSS_SELECTOR, selector)]

    def click(self, selector: str) -> None:
        self.find(selector).click()

    def press(self, *keys: str) -> None:
        """Type into whatever has the focus."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def hover(self, selector: str) -> None:
        ActionChains(self.driver).move_to_element(self.find(selector)).perform()

    def focused(self, selector: str) -> bool:
        """Whether the element that has the focus matches a selector."""
        return bool(self.run("return document.activeElement.matches(arguments[0]);", selector))

    def until_focused(self, selector: str) -> None:
        """Wait until the element that has the focus matches a selector."""
        self.until("document.activeElement.matches(arguments[0])", selector)

    def emulate(
        self, *, width: int = 1280, height: int = 900, dark: bool = False, still: bool = False
    ) -> None:
        """A viewport in CSS pixels, and what the system prefers: a dark theme, less motion."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"},
        ]
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def contrast(self, selector: str, pseudo: str | None = None) -> float:
        """The contrast of an element's text with what lies behind it (WCAG 2)."""
        return float(self.run(CONTRAST, selector, pseudo))

    @contextmanager
    def network(self, *, offline: bool = False, latency_ms: int = 0) -> Iterator[None]:
        """Cut the network, or make it slow, for a while."""
        command, rates = (
            "Network.emulateNetworkConditions",
            {"downloadThroughput": -1, "uploadThroughput": -1},
        )
        self.driver.execute_cdp_cmd("Network.enable", {})
        self.driver.execute_cdp_cmd(command, {"offline": offline, "latency": latency_ms, **rates})
        try:
            yield
        finally:
            self.driver.execute_cdp_cmd(command, {"offline": False, "latency": 0, **rates})

    def errors(self) -> list[str]:
        """What the console has had to complain about since the last call."""
        entries = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]


@contextmanager
def open_browser(profile: Path, *flags: str) -> Iterator[Browser]:
    """Chromium with a fresh profile in the folder `profile`, and with more `flags`."""
    binary, driver_binary = _find(BROWSERS), _find(DRIVERS)
    if binary is None or driver_binary is None:
        reason = f"needs one of {', '.join(BROWSERS)}, and {DRIVERS[0]}, on the PATH"
        if os.environ.get("REELFIND_REQUIRE_BROWSER") == "1":
            pytest.fail(f"REELFIND_REQUIRE_BROWSER=1, but this {reason}")
        pytest.skip(reason)
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, *flags, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(driver_binary))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
