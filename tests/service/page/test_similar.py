"""More like a frame, a video or a picture; clips of moments; titles and tags."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image
from selenium.webdriver.common.keys import Keys

from tests.support.browser import Browser
from tests.support.page import XSS_NAME, find, visit
from tests.support.server import Server, running_server
from tests.support.toy_bundle import COLOURS
from tests.support.toy_library import ToyLibrary, make_library

pytestmark = [pytest.mark.browser, pytest.mark.slow]
FILMS = {
    "one.mp4": [("red", 2.0), ("green", 2.0)],
    "two.mp4": [("red", 2.0)],
    "lawn.mp4": [("green", 2.0)],
    "sea.mp4": [("blue", 2.0)],
}
SHOWN = "!$('#results').ariaBusy && $('#grid .card')"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_library(tmp_path_factory.mktemp("toy"), FILMS)


@pytest.fixture(scope="module")
def server(toy: ToyLibrary) -> Iterator[Server]:
    with running_server(*toy.options, "--writes") as server:
        yield server


def asked(page: Browser) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.driver.current_url).query)


def picture(colour: str) -> str:
    """A picture of one colour as a PNG file, in base64."""
    file = io.BytesIO()
    Image.new("RGB", (1600, 900), COLOURS[colour]).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


DROP = """
const bytes = Uint8Array.from(atob(arguments[0]), (letter) => letter.charCodeAt(0));
const transfer = new DataTransfer();
transfer.items.add(new File([bytes], "picture.png", { type: arguments[1] }));
const event = (type) => new DragEvent(type, { bubbles: true, dataTransfer: transfer });
const send = (type) => document.body.dispatchEvent(event(type));
send("dragenter");
const isShown = !$("#drop-target").hidden;
send("drop");
return isShown && $("#drop-target").hidden;
"""


def test_a_card_leads_to_more_like_its_frame(page: Browser) -> None:
    find(page, "blue")
    frame = page.run("return $('#grid .shot-image').dataset.frameId;")
    page.click("#grid .similar")
    page.until(f"location.search.includes('frame=') && {SHOWN}")
    assert asked(page) == {"frame": [frame]}
    assert page.find("#query").get_attribute("value") == ""
    assert page.texts("#chips .chip span:first-of-type") == ["Like this frame"]
    page.until("$('.chip-picture').naturalWidth > 0")
    assert "sea.mp4" not in page.texts("#grid .card-name")
    # With words, both count.
    find(page, "red")
    assert asked(page) == {"q": ["red"], "frame": [frame]}
    page.click("#chips .chip")
    page.until("location.search === '?q=red'")
    page.driver.back()
    page.driver.back()
    page.until(f"location.search.startsWith('?frame=') && {SHOWN}")
    page.driver.refresh()
    page.until(SHOWN)
    assert "sea.mp4" not in page.texts("#grid .card-name")


def test_the_player_leads_to_more_like_the_frame_that_it_shows(page: Browser) -> None:
    find(page, "red")
    place = page.texts("#grid .card-name").index("one.mp4")
    page.run("$$('#grid .shot')[arguments[0]].click();", place)
    page.until("$('#player').open && $('#player-video').readyState >= 2")
    page.run("$('#player-video').pause();")
    page.click("#player-strip li:last-child .cell")
    frame = page.run("return $('#player-strip li:last-child .cell').dataset.frameId;")
    page.until("$('#player-similar').search === `?frame=${arguments[0]}`", frame)
    page.run("$('#player-similar').click();")
    page.until(f"!$('#player').open && {SHOWN}")
    assert asked(page) == {"frame": [frame]}
    page.driver.back()
    page.until("$('#player').open && location.search.includes('video=')")
    page.press(Keys.ESCAPE)
    page.until("!$('#player').open")


def test_a_picture_is_dropped_and_found_again(page: Browser) -> None:
    page.until("!$('#picture-button').hidden")
    assert page.run(DROP, picture("green"), "image/png")
    page.until(f"location.search.includes('picture=') && {SHOWN}")
    assert page.texts("#grid .card-name")[0] == "lawn.mp4"
    assert page.texts("#chips .chip span:first-of-type") == ["Like this picture"]
    page.until("$('.chip-picture').naturalWidth > 0")
    page.click("#grid .shot")
    page.until("$('#player').open && $('#player-video').readyState >= 1")
    page.driver.refresh()
    page.until("$('#player').open")
    page.press(Keys.ESCAPE)
    page.until("!$('#player').open")
    assert page.texts("#grid .card-name")[0] == "lawn.mp4"
    # Another browser does not have it.
    page.run(
        "history.pushState(null, '', '?picture=none'); history.pushState(null, '', '#'); history.back();"
    )
    page.until("!$('#notice').hidden")
    assert "is not in this browser" in page.text("#notice-text")


def test_a_picture_is_chosen_and_what_is_none_is_refused(page: Browser, toy: ToyLibrary) -> None:
    page.until("!$('#picture-button').hidden")
    file = toy.media.parent / "blue.png"
    file.write_bytes(base64.b64decode(picture("blue")))
    page.find("#picture-file").send_keys(str(file))
    page.until(f"location.search.includes('picture=') && {SHOWN}")
    assert page.texts("#grid .card-name")[0] == "sea.mp4"
    page.run(DROP, base64.b64encode(b"text").decode(), "text/plain")
    page.until("$('#query-problem').textContent.includes('not a picture')")


def test_a_clip_of_the_moment_can_be_downloaded(page: Browser, server: Server) -> None:
    find(page, "blue")
    page.click("#grid .shot")
    page.until("$('#player').open")
    link = page.find("#player-clip")
    assert link.get_attribute("download") is not None
    address = str(link.get_attribute("href"))
    assert address.startswith(f"{server.url}/v1/videos/{server.video_id('sea.mp4')}/clip?start=0&end=2")
    clip = server.client.get(address)
    assert clip.status_code == 200
    assert clip.headers["content-type"] == "video/mp4"


def test_title_and_tags_are_edited_and_found(page: Browser, server: Server) -> None:
    find(page, "green")
    assert page.texts("#grid .card-name")[0] == "lawn.mp4"
    page.click("#grid .shot")
    page.until("$('#player').open && !$('#player-edit').hidden")
    page.click("#player-edit")
    page.until("!$('#editing-save').disabled")
    assert page.focused("#editing-title")
    page.press(XSS_NAME)
    page.find("#editing-tags").send_keys("garden, <i>grass</i>")
    page.click("#editing-save")
    page.until("!$('#editing').open")
    assert page.text("#player-title") == XSS_NAME
    assert page.texts("#player-tags .tag") == ["garden", "<i>grass</i>"]
    page.press(Keys.ESCAPE)
    page.until("!$('#player').open")
    assert page.texts("#grid .card-name")[0] == XSS_NAME
    page.click("#grid .shot")
    page.until("$('#player').open")
    page.run("$('#player-tags .tag:nth-child(2)').click();")
    page.until("document.documentElement.dataset.view === 'videos'")
    assert asked(page) == {"tag": ["<i>grass</i>"]}
    assert page.texts("#videos .tile-name") == [XSS_NAME]
    assert page.texts("#videos .tag") == ["garden", "<i>grass</i>"]
    stored = server.client.get(f"/v1/videos/{server.video_id('lawn.mp4')}").json()
    assert (stored["title"], stored["tags"]) == (XSS_NAME, ["garden", "<i>grass</i>"])


def test_a_conflict_is_shown_and_can_be_settled(page: Browser, server: Server) -> None:
    video = f"/v1/videos/{server.video_id('two.mp4')}"
    for takes_theirs in (True, False):
        visit(page, server, "?q=red")
        place = next(
            i for i, name in enumerate(page.run("return $$('#grid .card-name').map((e) => e.title);"))
            if name.endswith("two.mp4")
        )  # fmt: skip
        page.run("$$('#grid .shot')[arguments[0]].click();", place)
        page.until("$('#player').open && !$('#player-edit').hidden")
        page.click("#player-edit")
        page.until("!$('#editing-save').disabled")
        page.run("$('#editing-title').value = 'Mine';")
        server.client.patch(video, json={"title": "Theirs", "tags": ["other"]}).raise_for_status()
        page.click("#editing-save")
        page.until("$('#editing-problem ul')")
        assert page.texts("#editing-problem li") == ["Title: Theirs", "Tags: other", "Note: none"]
        assert any("412" in error for error in page.errors())
        if takes_theirs:
            page.click("#editing-problem button")
            assert page.run("return $('#editing-title').value;") == "Theirs"
        page.click("#editing-save")
        page.until("!$('#editing').open")
        assert server.client.get(video).json()["title"] == ("Theirs" if takes_theirs else "Mine")
        server.client.patch(video, json={"title": None, "tags": []}).raise_for_status()


def test_without_writes_nothing_can_be_edited(browser: Browser, toy: ToyLibrary) -> None:
    with running_server(*toy.options, environment={"REELFIND_IMAGE_QUERIES": "0"}) as server:
        visit(browser, server, "?q=blue")
        browser.click("#grid .shot")
        browser.until(
            "$('#player').open && performance.getEntriesByName(`${location.origin}/v1/library`).length"
        )
        assert not browser.find("#player-edit").is_displayed()
        assert not browser.find("#picture-button").is_displayed()
        browser.errors()
