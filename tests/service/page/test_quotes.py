"""What is said in a moment, on its card and in its explanation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tests.service.search.test_texts import spoken_library
from tests.support.browser import Browser
from tests.support.page import visit
from tests.support.server import Server, running_server
from tests.support.speech import make_spoken_video
from tests.support.toy_library import ToyLibrary
from tests.support.toy_stages import ColourStage, LoudStage

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    toy = spoken_library(tmp_path_factory.mktemp("quotes"))
    noise = np.random.default_rng(0).integers(-9000, 9000, 16000).astype(np.int16)
    make_spoken_video(toy.media / "noise.mp4", noise, colour="black")
    toy.index(LoudStage(text="thunder rolls"), ColourStage(text="concert poster"))
    return toy


@pytest.fixture(scope="module")
def server(toy: ToyLibrary) -> Iterator[Server]:
    with running_server(*toy.options) as server:
        yield server


def test_a_card_quotes_the_line_and_marks_its_words(page: Browser, server: Server) -> None:
    visit(page, server, "?q=black+elephant+sings")
    page.until("$('#grid .card-quote')")
    assert page.run("return $('#grid .card-quote').textContent;") == "Said: elephant sings in the morning"
    assert page.run("return $$('#likely-grid > li:first-child mark').map((one) => one.textContent);") == [
        "elephant",
        "sings",
    ]


def test_a_card_says_where_its_line_is_from(page: Browser, server: Server) -> None:
    for query, text, origin in (
        ("black+thunder+rolls", "Heard: thunder rolls", "Heard in the sound"),
        ("white+concert+poster", "Written: concert poster", "Read in the picture"),
        ("black+elephant+sings", "Said: elephant sings in the morning", "From subtitles"),
    ):
        visit(page, server, f"?q={query}")
        page.until("$('#grid .card-quote')")
        assert page.run("return $('#grid .card-quote').textContent;") == text
        assert page.run("return $('#grid .card-quote').title;") == origin


def test_a_line_in_another_script_is_marked_by_its_letters(page: Browser, server: Server) -> None:
    visit(page, server, "?q=大象唱歌")
    page.until("$('#grid .card-quote')")
    marks = page.run("return $$('#likely-grid > li:first-child mark').map((one) => one.textContent);")
    assert set("".join(marks)) == set("大象唱歌")


def test_a_name_is_shown_and_explained(page: Browser, server: Server) -> None:
    visit(page, server, "?q=white+harbour+festival")
    page.until("$('#grid .card-quote')")
    assert page.run("return $('#grid .card-quote').dataset.kind;") == "name"
    page.click("#grid .why")
    page.until("$('#why').open")
    assert page.run("return $$('#why .sum tr').map((row) => row.dataset.term);") == [
        "match",
        "similarity",
        "text",
        "score",
    ]
    page.click("#why-close")


def test_where_nothing_is_said_there_is_no_quote(page: Browser, server: Server) -> None:
    visit(page, server, "?q=green")
    page.until("$('#grid .card')")
    assert page.run("return $$('#grid .card-quote').length;") == 0
