"""The library that the page shows, and what tests do on the page: search, listen, wait for answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selenium.webdriver.common.keys import Keys

from tests.support.browser import Browser
from tests.support.server import Server
from tests.support.toy_library import ToyLibrary, make_library
from tests.support.toy_videos import make_video

XSS_NAME = "<img src=x onerror=\"document.title='owned'\">.mp4"
RTL_NAME = "فيديو عن البحر.mp4"
LONG_NAME = "a name that goes on " * 8 + ".mp4"
NUM_FILLERS = 10

# Keeps the bodies of the searches for tests to look at.
LISTEN = """
window.sent = [];
const send = window.fetch;
window.fetch = (address, options) => {
  // A body with a picture is a form.
  const isJson = typeof options?.body === "string";
  if (isJson && String(address).endsWith("v1/search")) sent.push(JSON.parse(options.body));
  return send(address, options);
};
"""


def make_page_library(root: Path) -> ToyLibrary:
    """18 videos: one or two for each colour, awkward names, a codec that browsers lack, fillers."""
    folder = root / "media"
    make_video(folder / "sunset.mp4", parts=[("blue", 2.0), ("red", 2.0), ("blue", 1.0)], size=(320, 180))
    # Two segments of 20 s: the second is the hit.
    make_video(folder / "late.mp4", parts=[("white", 20.0), ("magenta", 20.0)], fps=4)
    make_video(
        folder / "titled.webm", parts=[("yellow", 2.0)], codec="libvpx-vp9", title="A yellow afternoon"
    )
    make_video(folder / "old.mp4", parts=[("green", 2.0), ("cyan", 1.0)], codec="mpeg4")
    make_video(folder / "gone.mp4", parts=[("cyan", 2.0)])
    for name in (XSS_NAME, RTL_NAME, LONG_NAME):
        make_video(folder / name, parts=[("green", 1.0), ("white", 1.0)])
    for number in range(NUM_FILLERS):
        make_video(folder / f"filler {number}.mp4", parts=[("black", 1.0)])
    return make_library(root, films={})


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


def best_frame(hit: dict[str, Any]) -> dict[str, Any]:
    """The salient frame of a hit that matches best, which its card shows."""
    salient = [frame for frame in hit["frames"] if frame["salient"]]
    best: dict[str, Any] = max(salient, key=lambda frame: (frame["match_score"] or 0, frame["relevance"]))
    return best


def shown_frames(page: Browser) -> list[str]:
    """The frame that each card shows."""
    frames: list[str] = page.run("return $$('#grid .shot-image').map((image) => image.dataset.frameId);")
    return frames


def shown_scores(page: Browser) -> list[float]:
    """The score of each card, as its explanation tells."""
    script = """
    return $$("#grid .why").map((why) => {
      why.click();
      const figure = $$("#why .sum tr").at(-1).querySelector("td").textContent;
      $("#why").close();
      return figure;
    });
    """
    return [number(figure) for figure in page.run(script)]


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
