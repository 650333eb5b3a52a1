"""Which queries are offered for a library."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.live import open_searcher
from service.search import example_queries
from service.search.example_queries import ExampleQuery
from service.search.searcher import Searcher, SearchOptions
from service.settings import load_settings
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_calibration import toy_calibration
from tests.support.toy_library import ToyLibrary, make_library


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    """Three red videos, two green ones, and a blue one."""
    numbers = {"red": 3, "green": 2, "blue": 1}
    names = [
        (colour, f"{colour} {place}.mp4") for colour, number in numbers.items() for place in range(number)
    ]
    films = {name: [(colour, 1.0)] for colour, name in names}
    return make_library(tmp_path_factory.mktemp("toy"), films)


def test_things_that_are_seen_most_often_come_first(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    things = ("a magenta", "a blue", "the green", "red", "a helicopter", "a yellow")
    monkeypatch.setattr(example_queries, "THINGS", things)
    monkeypatch.setattr(example_queries, "_encoded", {})
    found = example_queries.example_queries(searcher, 6)
    # Nothing is nearest to what is not there, and the model does not know a helicopter.
    assert found == [ExampleQuery(text, "seen") for text in ("red", "the green", "a blue")]
    assert example_queries.example_queries(searcher, 1) == found[:1]


def test_a_library_without_videos_has_none(tmp_path: Path) -> None:
    toy = ToyLibrary(tmp_path / "media", tmp_path / "library", make_toy_bundle(tmp_path / "bundle"))
    toy.media.mkdir()
    (toy.media / "broken.mp4").write_bytes(b"no video")
    toy.index()
    empty = open_searcher(load_settings({"library": toy.library, "bundle": toy.bundle}))
    assert empty.snapshot.num_videos == 0
    assert example_queries.example_queries(empty, 6) == []


def test_with_a_calibration_only_what_a_search_finds_is_offered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    things = ("red", "the green", "a yellow", "a blue", "a cyan", "a magenta")
    monkeypatch.setattr(example_queries, "THINGS", things)
    monkeypatch.setattr(example_queries, "_encoded", {})
    films = {f"{colour}.mp4": [(colour, 1.0)] for colour in ("red", "green", "white")}
    calibrated = make_library(tmp_path, films, calibration=toy_calibration())
    searcher = open_searcher(load_settings({"library": calibrated.library, "bundle": calibrated.bundle}))
    offered = [example.text for example in example_queries.example_queries(searcher, 6)]
    found = {
        thing: searcher.search(thing, 1, SearchOptions(group_by="moment", rerank=False)) for thing in things
    }
    assert {"red", "the green"} <= set(offered)
    assert all(found[text].best_guess is False for text in offered)
    assert any(answer.best_guess for answer in found.values())
    likely = [found[text].hits[0].probability or 0.0 for text in offered]
    assert likely == sorted(likely, reverse=True)
