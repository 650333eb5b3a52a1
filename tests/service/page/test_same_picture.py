"""Chromium plays the stream that Reelfind reads, where a file has several."""

from pathlib import Path

import pytest

from model.runtime.video import probe
from tests.support.browser import Browser
from tests.support.several_streams import FILES, make

pytestmark = pytest.mark.browser
# Chromium takes a single picture of a codec that it can play for the film, and ignores which stream of
# Matroska is the default; mpv and VLC do not.
OTHERWISE = {("a cover of a film's codec first", "mp4"), ("a cover of a film's codec first", "mkv")}
OTHERWISE |= {("the default one last", "mkv")}
PLAYABLE = [file for file in FILES if file[1] in ("mp4", "mkv") and file not in OTHERWISE]


@pytest.mark.parametrize(("name", "extension"), PLAYABLE)
def test_chromium_plays_the_stream_that_is_read(
    name: str, extension: str, browser: Browser, tmp_path: Path
) -> None:
    path = make(tmp_path, name, extension)
    (tmp_path / "page.html").write_text(f"<body>{name}<video src=film.{extension}></video>")
    browser.visit((tmp_path / "page.html").as_uri())
    browser.until("$('video').readyState >= 2")
    assert browser.run("return $('video').videoWidth;") == probe(path).width
