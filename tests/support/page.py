"""What tests of the page do on it: search, listen to what it sends, wait for answers."""

from __future__ import annotations

from typing import Any

from selenium.webdriver.common.keys import Keys

from tests.support.browser import Browser
from tests.support.server import Server

# Keeps the bodies of the requests for tests to look at.
LISTEN = """
window.sent = [];
const send = window.fetch;
window.fetch = (address, options) => {
  if (options?.body) sent.push(JSON.parse(options.body));
  return send(address, options);
};
"""


def find(page: Browser, query: str) -> None:
    """Search as people do, and wait for the answer."""
    page.run("$('#query').select();")
    page.press(query, Keys.ENTER)
    page.until("document.title.startsWith(arguments[0])", query)
    page.until("!$('#results').ariaBusy && $('#grid .card')")


def visit(browser: Browser, server: Server, part: str = "") -> None:
    """Load the home page, or with the part of an address that holds a query its answer, and listen."""
    browser.open(f"{server.url}/{part}")
    browser.run(LISTEN)
    browser.until("!$('#results').ariaBusy && $('#grid .card')" if part else "$('#library').textContent")


def number(text: str) -> float:
    """A printed number."""
    return float(text.replace("−", "-"))


def bodies(page: Browser) -> list[dict[str, Any]]:
    """What the page has sent to the service since it was visited."""
    sent: list[dict[str, Any]] = page.run("return window.sent;")
    return sent


def settled(page: Browser, sent: int) -> None:
    """Wait until so many searches have been asked for and the last is answered."""
    page.until("window.sent.length === arguments[0] && !$('#results').ariaBusy && $('#grid .card')", sent)


def sum_terms(page: Browser) -> list[tuple[str, str]]:
    """The rows of the explanation that is open: the term's name and its printed figure."""
    rows = "return $$('#why .sum tr').map((row) => [row.dataset.term, row.querySelector('td').textContent]);"
    return [(name, figure) for name, figure in page.run(rows)]


def stop_at_the_next_seek(page: Browser) -> None:
    """Pause the player where it is sent next, and keep that time in `data-sought`."""
    script = """
    const video = $("#player-video");
    delete video.dataset.sought;
    const stop = () => { video.pause(); video.dataset.sought = video.currentTime; };
    video.addEventListener("seeking", stop, { once: true });
    """
    page.run(script)


def sought(page: Browser) -> float:
    """Where the player was sent, once it is there."""
    page.until("$('#player-video').dataset.sought && !$('#player-video').seeking")
    return float(page.run("return $('#player-video').dataset.sought;"))
