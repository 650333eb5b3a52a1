"""The picture in the player is the picture clicked, whatever time the file starts at.

Blue from the half on; Chromium plays the files and reads its pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.browser import Browser
from tests.support.clips import ffmpeg
from tests.support.page import visit
from tests.support.server import Server, running_server
from tests.support.toy_library import ToyLibrary, make_library

pytestmark = [pytest.mark.browser, pytest.mark.slow]
SECONDS = 8
SOURCE = f"color=red:s=160x120:r=25:d={SECONDS},drawbox=c=blue:t=fill:enable='gt(t\\,{SECONDS / 2})'"
VP8 = "-c:v libvpx -deadline realtime -cpu-used 8"
X264 = "-c:v libx264 -preset veryfast -bf 2 -pix_fmt yuv420p"
FILES = {
    "late.webm": f"{VP8} -output_ts_offset 7",
    "late.mp4": f"{X264} -output_ts_offset 7",
    "fragments.mp4": f"{X264} -movflags frag_keyframe+empty_moov",
    "zero.mp4": X264,
}
PIXEL = """
const pixel = (element) => {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const context = canvas.getContext("2d");
  context.drawImage(element, 0, 0, 1, 1);
  return Array.from(context.getImageData(0, 0, 1, 1).data).slice(0, 3);
};
"""


@pytest.fixture(scope="module")
def own_time(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    root = tmp_path_factory.mktemp("own_time")
    (root / "media").mkdir()
    for name, options in FILES.items():
        ffmpeg("-f", "lavfi", "-i", SOURCE, *options.split(), str(root / "media" / name))
    return make_library(root, films={})


@pytest.fixture(scope="module")
def own_server(own_time: ToyLibrary) -> Iterator[Server]:
    with running_server(*own_time.options) as server:
        yield server


def open_frame(browser: Browser, name: str, index: int) -> tuple[list[int], list[int], float]:
    """Click a frame of a hit; the colours in the player and in the card's preview, and the player's time."""
    script = """
    const card = $$("#grid .card").find((card) => card.textContent.includes(arguments[0]));
    window.cell = card.querySelectorAll(".cell")[arguments[1]];
    window.picture = card.querySelector(".shot-image");
    cell.scrollIntoView({ block: "center" });
    cell.focus();
    """
    browser.run(script, name, index)
    browser.until("picture.src.includes(cell.dataset.frameId) && picture.complete && picture.naturalWidth")
    clicked = browser.run(f"{PIXEL} return pixel(picture);")
    # The player has arrived when the strip marks a frame that is not before the one clicked. The page stops
    # it then: whoever asks from outside may come after the end of the video, where no frame is marked.
    script = """
    const index = arguments[0];
    window.video = $("#player-video");
    window.hasArrived = false;
    new MutationObserver((changes, observer) => {
      const marked = $$("#player-strip .cell").findIndex((cell) => cell.hasAttribute("aria-current"));
      if (marked < index) return;
      observer.disconnect();
      video.pause();
      window.hasArrived = true;
    }).observe($("#player-strip"), { subtree: true, attributeFilter: ["aria-current"] });
    video.muted = true;
    cell.click();
    """
    browser.run(script, index)
    browser.until("hasArrived && video.readyState >= 2 && !video.seeking")
    return (
        browser.run(f"{PIXEL} return pixel(video);"),
        clicked,
        browser.run("return video.currentTime;"),
    )


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(("colour", "first"), [("red", 0), ("blue", 8)])
def test_the_picture_clicked_is_played(
    name: str, colour: str, first: int, browser: Browser, own_server: Server
) -> None:
    visit(browser, own_server, f"?q=a+{colour}+picture")
    played, clicked, time = open_frame(browser, name, 5)
    blue = colour == "blue"
    assert (clicked[2] > 200, clicked[0] > 200) == (blue, not blue)
    assert sum(abs(a - b) for a, b in zip(played, clicked, strict=True)) < 60
    own = 7.0 if name.startswith("late") else 0.0
    start = own + (first + 5) / 2
    assert start <= time <= own + (first + 8) / 2 + 0.2
    link = browser.run("return $('#player-open').getAttribute('href');")
    assert float(link.rpartition("#t=")[2]) == pytest.approx(start + 0.25, abs=0.1)


def test_a_browser_that_counts_from_the_first_picture_is_followed(
    browser: Browser, own_server: Server
) -> None:
    """Firefox takes the file's first time off all times; here Chromium is told to seem so."""
    visit(browser, own_server, "?q=a+blue+picture")
    script = """
    const real = HTMLVideoElement.prototype.requestVideoFrameCallback;
    HTMLVideoElement.prototype.requestVideoFrameCallback = function (tell) {
      return real.call(this, (now, picture) => tell(now, { mediaTime: picture.mediaTime - 7 }));
    };
    """
    browser.run(script)
    sought = """
    window.sought = [];
    $("#player-video").addEventListener("seeking", () => window.sought.push($("#player-video").currentTime));
    const card = $$("#grid .card").find((card) => card.textContent.includes("late.webm"));
    card.querySelectorAll(".cell")[5].click();
    """
    browser.run(sought)
    browser.until("window.sought.length && window.sought.at(-1) < 7 && window.sought.at(-1) > 6.5")
    link = browser.run("return $('#player-open').getAttribute('href');")
    assert float(link.rpartition("#t=")[2]) == pytest.approx(6.75, abs=0.1)


def test_a_length_that_grows_to_just_before_the_picture_is_not_the_place(
    browser: Browser, own_server: Server
) -> None:
    """Chromium goes no further than the length it knows, which may end one picture before the one clicked."""
    visit(browser, own_server, "?q=a+blue+picture")
    script = """
    const video = window.video = $("#player-video");
    const time = Object.getOwnPropertyDescriptor(HTMLMediaElement.prototype, "currentTime");
    const length = Object.getOwnPropertyDescriptor(HTMLMediaElement.prototype, "duration");
    window.sought = null;
    window.known = 13.68; // the picture clicked is shown from 13.72 s on
    Object.defineProperty(video, "duration", { get: () => Math.min(known, length.get.call(video)) });
    Object.defineProperty(video, "currentTime", {
      get: () => time.get.call(video),
      set: (seconds) => {
        sought = seconds;
        time.set.call(video, Math.min(seconds, known));
      },
    });
    const card = $$("#grid .card").find((card) => card.textContent.includes("late.webm"));
    card.querySelectorAll(".cell")[5].click();
    """
    browser.run(script)
    browser.until("sought !== null && !video.seeking && video.currentTime === known")
    assert browser.run("return sought;") == pytest.approx(13.721, abs=0.001)
    browser.run("known = Infinity; video.dispatchEvent(new Event('durationchange'));")
    browser.until("!video.seeking && video.currentTime >= sought - 0.001")


def test_the_api_tells_the_files_own_time(own_server: Server) -> None:
    listed = own_server.client.get("/v1/videos").json()["videos"]
    found = own_server.search("a blue picture")
    for videos in (listed, found):
        starts = {Path(video["path"]).name: video["container_start_seconds"] for video in videos}
        assert starts["late.webm"] == pytest.approx(7.0, abs=0.001)
        assert starts["late.mp4"] == pytest.approx(7.0, abs=0.001)
        assert starts["fragments.mp4"] == pytest.approx(0.08, abs=0.001)
        assert starts["zero.mp4"] == 0
