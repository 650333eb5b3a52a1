"""How many pictures the page loads, and how large they are.

The films are noisy, so that their pictures are as large as those of real films.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.browser import Browser
from tests.support.clips import ffmpeg
from tests.support.page import visit
from tests.support.server import Server, running_server
from tests.support.toy_library import ToyLibrary, make_library

pytestmark = [pytest.mark.browser, pytest.mark.slow]
NUM_FILMS = 12
FRAMES_OF_A_FILM = 16
SOURCE = "color=red:size=320x180:rate=2:duration=8,noise=alls=20:all_seed={number}"
LOADED = """
const resources = performance.getEntriesByType("resource");
const entries = resources.filter((entry) => entry.name.includes("/v1/frames/"));
return [entries.length, entries.reduce((sum, entry) => sum + entry.encodedBodySize, 0)];
"""


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    root = tmp_path_factory.mktemp("pictures")
    (root / "media").mkdir()
    for number in range(NUM_FILMS):
        file = str(root / "media" / f"{number}.mp4")
        ffmpeg("-f", "lavfi", "-i", SOURCE.format(number=number), "-pix_fmt", "yuv420p", "-crf", "18", file)
    return make_library(root, films={})


@pytest.fixture(scope="module")
def server(toy: ToyLibrary) -> Iterator[Server]:
    with running_server(*toy.options) as server:
        yield server


def see_all(page: Browser) -> None:
    """Scroll past every card, and wait for its pictures."""
    for place in range(NUM_FILMS):
        page.run("$$('#grid .card')[arguments[0]].scrollIntoView();", place)
        page.until(
            "[...$$('#grid .card')[arguments[0]].querySelectorAll('img')].every((one) => one.complete)", place
        )


@pytest.mark.parametrize(("options", "pictures"), [("", 24), ("&num_salient_frames=12", 36)])
def test_a_page_of_twelve_hits_loads_few_pictures(
    page: Browser, server: Server, options: str, pictures: int
) -> None:
    visit(page, server, f"?q=red{options}")
    see_all(page)
    assert page.run("return $$('#grid .card').length;") == NUM_FILMS
    assert page.run("return $$('#grid .cell').length;") == FRAMES_OF_A_FILM * NUM_FILMS
    number, size = page.run(LOADED)
    assert number == pictures <= 40
    # As large as those of real films, which have 10 kB on average.
    assert 8_000 * number < size < 500_000


@pytest.mark.parametrize("width", [390, 1265])
def test_no_picture_is_larger_than_a_fine_screen_shows(page: Browser, server: Server, width: int) -> None:
    page.emulate(width=width)
    page.visit(f"{server.url}/?q=red&num_salient_frames=12")
    page.until("!$('#results').ariaBusy && $('#grid .card')")
    see_all(page)
    script = """
    return $$("#grid img:not([hidden])").map((one) => [one.naturalWidth, one.getBoundingClientRect().width]);
    """
    sizes = page.run(script)
    assert len(sizes) == 36
    assert [(stored, shown) for stored, shown in sizes if not 0 < stored <= 2 * shown] == []


def test_a_frame_that_is_pointed_at_is_loaded_then(page: Browser, server: Server) -> None:
    visit(page, server, "?q=red")
    see_all(page)
    before, _ = page.run(LOADED)
    frame = page.run("return $('#grid .cell:not([data-salient])').dataset.frameId;")
    page.run("scrollTo(0, 0);")
    page.hover("#grid .cell:not([data-salient])")
    page.until(
        "$('#grid .shot-image').src.includes(arguments[0]) && $('#grid .shot-image').naturalWidth", frame
    )
    page.until(
        "performance.getEntriesByType('resource').some((entry) => entry.name.includes(arguments[0]))", frame
    )
    assert page.run(LOADED)[0] == before + 1


def test_the_player_loads_the_frames_of_its_moment(page: Browser, server: Server) -> None:
    visit(page, server, "?q=red")
    see_all(page)
    before, _ = page.run(LOADED)
    page.run("$('#grid .shot').click();")
    page.until("$('#player').open")
    frames = page.run("return $$('#player-strip .cell').length;")
    assert frames == FRAMES_OF_A_FILM
    new = frames - page.run("return $('#grid .card').querySelectorAll('img:not([hidden])').length;")
    for place in range(frames):
        page.run("$$('#player-strip .cell')[arguments[0]].scrollIntoView();", place)
    page.until("$$('#player-strip img').every((image) => image.complete && image.naturalWidth)")
    assert page.run(LOADED)[0] == before + new
