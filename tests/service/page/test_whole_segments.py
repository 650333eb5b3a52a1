"""The page on a library whose model reads whole segments and says nothing of single frames."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.browser import Browser
from tests.support.page import find, shown_frames
from tests.support.server import Server, running_server
from tests.support.toy_library import ToyLibrary, make_library

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    films = {"red.mp4": [("red", 2.0), ("black", 2.0)], "lawn.mp4": [("green", 2.0)]}
    return make_library(tmp_path_factory.mktemp("toy"), films, video=True)


@pytest.fixture(scope="module")
def server(toy: ToyLibrary) -> Iterator[Server]:
    with running_server(*toy.options) as server:
        yield server


def test_cards_and_explanations_do_without_frames(page: Browser, server: Server) -> None:
    find(page, "red")
    hits = server.search("red", top_k=12)
    assert shown_frames(page) == [hit["frames"][0]["frame_id"] for hit in hits]
    bars = page.run("return $$('#grid .cell').map((cell) => cell.style.getPropertyValue('--relevance'));")
    assert bars == ["0.000"] * sum(len(hit["frames"]) for hit in hits)
    page.click("#grid .why")
    assert page.run("return [$$('#why .proof').length, $$('#why .numbers').length];") == [0, 0]
    assert "cannot re-rank" in page.run("return $('#why-body').textContent;")
