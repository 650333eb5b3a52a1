"""Searches for what is written in the pictures, beside what is said and shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.search.results import Hit
from service.search.searcher import Searcher, SearchOptions
from service.search.texts import Modalities
from tests.support.server import Server
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_library import ToyLibrary
from tests.support.toy_stages import ScriptStage

FILMS = {"street.mp4": [("red", 20.0), ("green", 20.0)], "news.mp4": [("blue", 60.0), ("white", 60.0)]}
SAID = "1\n00:00:30,000 --> 00:00:32,000\nTurn left at the bakery.\n"
#: What a stage reads in the pictures; the channel's mark is there all the time.
WRITTEN = {
    "street.mp4": [(4.0, 8.0, "Harbour Bakery"), (22.0, 26.0, "NO PARKING")],
    "news.mp4": [(0.0, 120.0, "Channel Nine News"), (70.0, 74.0, "Storm warning for the coast")],
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return written_library(tmp_path_factory.mktemp("written"))


def written_library(folder: Path) -> ToyLibrary:
    toy = ToyLibrary(folder / "media", folder / "library", folder / "bundle")
    make_toy_bundle(toy.bundle, moments="edges")
    toy.media.mkdir()
    for name, parts in FILMS.items():
        toy.film(name, parts)
    (toy.media / "street.srt").write_text(SAID, encoding="utf-8")
    toy.index(ScriptStage({(toy.media / name).stat().st_size: lines for name, lines in WRITTEN.items()}))
    return toy


def find(searcher: Searcher, text: str, **options: Any) -> list[Hit]:
    return searcher.search(text, 10, SearchOptions(group_by="moment", explain=True, **options)).hits


def test_what_is_written_is_found_when_it_is_shown(searcher: Searcher) -> None:
    first = find(searcher, "storm warning")[0]
    assert Path(first.path).name == "news.mp4"
    assert (first.start_seconds < 74, first.end_seconds > 70) == (True, True)
    line = first.text_matches[0]
    assert (line.kind, line.source, line.text) == ("screen", "seen", "Storm warning for the coast")
    assert [line.text[start:stop] for start, stop in line.marks] == ["Storm", "warning"]


def test_what_stands_in_the_picture_all_the_time_makes_no_moment_of_its_own(searcher: Searcher) -> None:
    hits = [hit for hit in find(searcher, "channel nine") if hit.text_matches]
    assert {Path(hit.path).name for hit in hits} == {"news.mp4"}
    # Not the 120 s for which it is there.
    assert all(hit.end_seconds - hit.start_seconds < 90 for hit in hits)


def test_what_is_written_and_what_is_said_have_weights_of_their_own(searcher: Searcher) -> None:
    def kinds(**weights: float) -> set[str]:
        modalities = Modalities(**{"visual": 0.0, **weights})
        hits = find(searcher, "bakery", modalities=modalities)
        return {line.kind for hit in hits for line in hit.text_matches}

    assert kinds() == {"speech", "screen"}
    assert kinds(screen=0.0) == {"speech"}
    assert kinds(speech=0.0) == {"screen"}


def test_over_http(server: Server) -> None:
    modalities = {"visual": 1, "speech": 1, "screen": 1, "name": 0.5}
    (line,) = server.search("no parking", modalities=modalities)[0]["text_matches"]
    assert (line["kind"], line["source"]) == ("screen", "seen")
    assert [line["text"][start:stop] for start, stop in line["marks"]] == ["NO", "PARKING"]
    hits = server.search("no parking red", modalities=modalities | {"screen": 0})
    assert not any(hit["text_matches"] for hit in hits)
    wrong = {"query": {"text": "no parking"}, "modalities": {"screen": -1}}
    refused = server.client.post("/v1/search", json=wrong)
    assert refused.status_code == 422
    assert "/modalities/screen" in refused.text
