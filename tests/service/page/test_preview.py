"""What the browser cannot play plays as a stream: it moves, shows the right picture, and steps exactly."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import numpy as np
import pytest
from selenium.webdriver.common.keys import Keys

from model.runtime.video import ReadingLimits
from model.runtime.video.onward import OnwardReader
from tests.support.browser import Browser
from tests.support.flashes import Films, films
from tests.support.page import find, visit
from tests.support.paths import ROOT
from tests.support.processes import children
from tests.support.server import Server, running_server, until
from tests.support.toy_library import ToyLibrary, make_library
from tests.support.toy_videos import make_video

__all__ = ["films"]
pytestmark = [pytest.mark.browser, pytest.mark.slow]
#: Files that are said to be playable.
SEEDS = (
    *("av1.mp4", "av1.webm", "h264.m4v", "h264_aac.mp4", "h264_fragments.mp4", "h264_index_first.mp4"),
    *("vp8_alpha.webm", "vp8_vorbis.webm", "vp9.mp4", "vp9.webm"),
)
#: The colour of the middle of the picture that is shown.
COLOUR = """
const video = $("#player-video");
const canvas = document.createElement("canvas");
[canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
const context = canvas.getContext("2d");
context.drawImage(video, 0, 0);
return [...context.getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data.slice(0, 3)];
"""


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory, films: Films) -> ToyLibrary:
    root = tmp_path_factory.mktemp("preview")
    media = root / "media"
    # 100 s of colours in an AVI file, so that not all of it is loaded at once.
    parts = [("red", 40.0), ("blue", 40.0), ("green", 20.0)]
    make_video(media / "colours.avi", parts=parts, codec="mpeg4", fps=25, size=(320, 180), audio=True)
    make_video(media / "yellow.mkv", parts=[("yellow", 4.0)], fps=25)
    shutil.copy(films("variable"), media / "variable.mkv")
    shutil.copy(films("h264"), media / "keys.mp4")
    for name in SEEDS:
        shutil.copy(ROOT / "tests/fuzz/seeds" / name, media)
    return make_library(root, films={})


@pytest.fixture(scope="module")
def server(toy: ToyLibrary) -> Iterator[Server]:
    with running_server(*toy.options, environment={"REELFIND_CACHE_MB": "0"}) as server:
        yield server
        assert "Traceback" not in server.log()


def play(page: Browser, server: Server, name: str, seconds: float) -> None:
    """Open the player at a time of a video, and wait for the preview."""
    page.visit("about:blank")
    page.visit(f"{server.url}/?q=red&video={server.video_id(name)}&t={seconds}")
    page.until("$('#player').open && !$('#player-note').hidden && $('#player-video').readyState >= 2")


def shown(page: Browser) -> list[int]:
    colour: list[int] = page.run(COLOUR)
    return colour


def is_like(colour: list[int], wanted: str) -> bool:
    places = {"red": (1, 0, 0), "blue": (0, 0, 1), "green": (0, 1, 0)}[wanted]
    return all((value > 90) == bool(place) for value, place in zip(colour, places, strict=True))


def test_an_avi_plays_and_says_that_it_is_a_preview(page: Browser, server: Server) -> None:
    find(page, "red")
    assert page.texts("#grid .card-name")[0] == "colours.avi"
    page.click("#grid .shot")
    page.until("$('#player').open && !$('#player-note').hidden && $('#player-video').readyState >= 2")
    assert "A preview" in page.text("#player-note")
    begun = page.run("return $('#player-video').currentTime;")
    page.until("$('#player-video').currentTime > arguments[0] + 0.5", begun)
    assert is_like(shown(page), "red")
    # Chromium counts bytes of sound that it has decoded.
    assert page.run("return $('#player-video').webkitAudioDecodedByteCount;") > 0
    # The controls show the whole length.
    assert page.run("return $('#player-video').duration;") == pytest.approx(100, abs=0.2)
    assert page.run("return $('#player-problem').hidden;")
    assert str(page.find("#player-download").get_attribute("href")).endswith("/media")
    page.press(Keys.ESCAPE)
    page.until("!$('#player').open")
    until(lambda: children(server.process.pid) == [])
    # That the file cannot be played is what the console complains about.
    page.errors()


def test_other_times_are_other_streams(page: Browser, server: Server) -> None:
    play(page, server, "colours.avi", 2.0)
    for seconds, colour in ((70.0, "blue"), (90.5, "green"), (10.0, "red")):
        page.run("$('#player-video').pause(); $('#player-video').currentTime = arguments[0];", seconds)
        page.until("!$('#player-video').seeking && $('#player-video').readyState >= 2")
        assert page.run("return $('#player-video').currentTime;") == pytest.approx(seconds, abs=0.001)
        assert is_like(shown(page), colour)
        assert len(children(server.process.pid)) <= 2
    # What is loaded needs no other stream.
    page.run("$('#player-video').currentTime = 90.6;")
    page.until("!$('#player-video').seeking")
    assert is_like(shown(page), "green")
    # To the end, where it stops.
    page.run("const video = $('#player-video'); video.currentTime = 99; video.muted = true; video.play();")
    page.until("$('#player-video').ended")
    assert is_like(shown(page), "green")
    page.errors()


def test_a_link_leads_to_the_moment(page: Browser, server: Server) -> None:
    play(page, server, "colours.avi", 45.0)
    page.run("$('#player-video').pause();")
    page.until("!$('#player-video').seeking")
    assert 45 <= page.run("return $('#player-video').currentTime;") < 60
    assert is_like(shown(page), "blue")
    assert "/stream?start=45.001" in str(page.find("#player-open").get_attribute("href"))
    page.errors()


def stepped(page: Browser, key: str) -> float:
    """When the frame appears that is shown after a key was pressed, once nothing changes any more."""
    script = """
    const [key, done] = arguments;
    const video = document.querySelector("#player-video");
    let shown = null, changed = performance.now();
    const follow = () => video.requestVideoFrameCallback((now, frame) => {
      shown = frame.mediaTime;
      changed = performance.now();
      follow();
    });
    follow();
    video.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
    const wait = () => {
      if (!video.seeking && shown !== null && performance.now() - changed > 400) done(shown);
      else setTimeout(wait, 50);
    };
    wait();
    """
    return float(page.driver.execute_async_script(script, key))


@pytest.mark.parametrize("name", ["variable.mkv", "yellow.mkv"])
def test_keys_step_through_the_frames(name: str, page: Browser, server: Server, toy: ToyLibrary) -> None:
    reader = OnwardReader(toy.media / name, ReadingLimits())
    times = [frame.pts_seconds for frame in reader.frames()]
    reader.close()
    at = 40
    play(page, server, name, times[at])
    page.until("!$('#player-video').seeking")
    found: list[int] = []
    expected: list[int] = []
    page.run("$('#player-video').pause(); $('#player-video').currentTime = arguments[0];", times[at] + 0.001)
    page.until("!$('#player-video').seeking")
    # Forward; then back, beyond where the stream began: half a second before.
    for key, count in ((".", 3), (",", 17), (".", 2)):
        for _ in range(count):
            at += 1 if key == "." else -1
            expected.append(at)
            # The first frame of a stream appears where that begins.
            found.append(int(np.searchsorted(times, stepped(page, key) + 2e-3)) - 1)
    assert found == expected
    page.errors()


def test_keys_step_through_a_file_that_the_browser_plays(page: Browser, server: Server) -> None:
    page.visit("about:blank")
    page.visit(f"{server.url}/?q=red&video={server.video_id('keys.mp4')}&t=1")
    page.until("$('#player').open && $('#player-video').readyState >= 2 && !$('#player-video').seeking")
    assert page.run("return $('#player-note').hidden;")
    page.run("$('#player-video').pause(); $('#player-video').currentTime = 1.001;")
    page.until("!$('#player-video').seeking")
    times = [stepped(page, key) for key in "..,,,"]
    np.testing.assert_allclose(times, [1.04, 1.08, 1.04, 1.0, 0.96], atol=2e-3)
    page.errors()


def test_a_busy_server_is_waited_for(browser: Browser, toy: ToyLibrary) -> None:
    environment = {"REELFIND_MAX_ENCODERS": "1", "REELFIND_CACHE_MB": "0"}
    with running_server(*toy.options, environment=environment) as server:
        address = f"/v1/videos/{server.video_id('colours.avi')}/stream"
        visit(browser, server)
        with server.client.stream("GET", address) as response:
            chunks = response.iter_bytes(1000)
            next(chunks)
            browser.visit(f"{server.url}/?q=red&video={server.video_id('colours.avi')}&t=1")
            browser.until("$('#player').open && !$('#player-note').hidden")
            until(lambda: "/stream 503" in server.log())
            assert browser.run("return $('#player-video').readyState;") == 0
        browser.until("$('#player-video').readyState >= 2")
        assert is_like(shown(browser), "red")
    browser.errors()


def test_a_server_that_makes_none_says_so(browser: Browser, toy: ToyLibrary) -> None:
    with running_server(*toy.options, environment={"REELFIND_MAX_ENCODERS": "0"}) as server:
        visit(browser, server)
        browser.visit(f"{server.url}/?q=red&video={server.video_id('colours.avi')}&t=1")
        browser.until("!$('#player-problem').hidden")
        assert "No streams and clips are made here" in browser.text("#player-problem")
        assert "Download the file" in browser.text("#player-problem")
        assert browser.run("return $('#player-note').hidden;")
        assert browser.find("#player-download").is_displayed()
    browser.errors()


@pytest.mark.parametrize("name", SEEDS)
def test_what_is_said_to_be_playable_the_browser_plays(name: str, page: Browser, server: Server) -> None:
    """Chromium's part of the table in `service/playback/playable.py`."""
    script = """
    const [address, done] = arguments;
    const video = document.createElement("video");
    video.muted = true;
    video.onerror = () => done(false);
    video.onloadeddata = () => done(video.videoWidth > 0);
    video.src = address;
    """
    video = server.client.get(f"/v1/videos/{server.video_id(f'/{name}')}").json()
    assert video["playable"] is True
    assert page.driver.execute_async_script(script, video["media_url"])
