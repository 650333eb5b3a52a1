"""Searches for what is said in videos and for their names, beside what they show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.library.records import TextLine
from indexer.library.schema import LINE_KINDS
from service.errors import NotUnderstoodError
from service.search.results import Hit
from service.search.searcher import Searcher, SearchOptions
from service.search.texts import Modalities, TextEvidence, strongest
from tests.service.search.test_hubness import searcher_of
from tests.service.search.test_salience_match import MATCH
from tests.support.server import Server
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_library import ToyLibrary

FILMS = {
    "one.mp4": [("red", 20.0), ("green", 20.0), ("blue", 24.0)],
    "two.mp4": [("black", 30.0)],
    "Harbour_Festival-2019.mp4": [("white", 12.0)],
}
#: Lines of the films: start and end in seconds, and what is said.
LINES = {
    "one.srt": [(4, 6, "Look at the red balloon."), (30, 32, "Elephants sing."), (50, 53, "Red, red wine.")],
    "two.srt": [(10, 12, "A red"), (13, 15, "elephant sings in the morning"), (25, 27, "大象在唱歌")],
}


def stamp(seconds: float) -> str:
    return f"00:00:{seconds:02d},000"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return spoken_library(tmp_path_factory.mktemp("texts"))


def spoken_library(folder: Path, **bundle: Any) -> ToyLibrary:
    toy = ToyLibrary(folder / "media", folder / "library", folder / "bundle")
    make_toy_bundle(toy.bundle, moments="edges", **bundle)
    toy.media.mkdir()
    for name, parts in FILMS.items():
        toy.film(name, parts)
    for name, lines in LINES.items():
        rows = [
            f"{i}\n{stamp(start)} --> {stamp(end)}\n{text}\n" for i, (start, end, text) in enumerate(lines, 1)
        ]
        (toy.media / name).write_text("\n".join(rows), encoding="utf-8")
    toy.index()
    return toy


@pytest.fixture(scope="module")
def by_salience(tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    folder = tmp_path_factory.mktemp("salience_texts")
    return searcher_of(spoken_library(folder, matcher=False, salience_match=MATCH))


def find(searcher: Searcher, text: str, **options: Any) -> list[Hit]:
    return searcher.search(text, 10, SearchOptions(group_by="moment", explain=True, **options)).hits


def name_of(hit: Hit) -> str:
    return Path(hit.path).name


def test_what_is_said_is_found_when_it_is_said(searcher: Searcher, by_salience: Searcher) -> None:
    """Lines that follow each other are one moment."""
    for each in (searcher, by_salience):
        first = find(each, "black elephant sings")[0]
        assert name_of(first) == "two.mp4"
        assert first.start_seconds < 13
        assert first.end_seconds > 15
        (line,) = first.text_matches
        assert (line.kind, line.text) == ("speech", "elephant sings in the morning")
        assert [line.text[start:stop] for start, stop in line.marks] == ["elephant", "sings"]
        assert line.coverage == pytest.approx(13 / 18, abs=1e-3)
        assert first.frames


def test_what_is_said_and_shown_comes_before_what_is_only_shown(searcher: Searcher) -> None:
    hits = [hit for hit in find(searcher, "red balloon") if name_of(hit) == "one.mp4"]
    assert hits[0].text_matches[0].text == "Look at the red balloon."
    assert hits[0].start_seconds < 6
    assert hits[0].end_seconds > 4
    terms = hits[0].explanation
    assert terms is not None
    assert terms.text_term > 0
    assert "(text)" in terms.formula


def test_small_words_alone_are_no_evidence(searcher: Searcher) -> None:
    assert not any(hit.text_matches for hit in find(searcher, "the green in the background"))


def test_names_are_found_in_their_parts(searcher: Searcher) -> None:
    first = find(searcher, "harbour festival")[0]
    assert name_of(first) == "Harbour_Festival-2019.mp4"
    assert {line.kind for line in first.text_matches} == {"name"}
    black = find(searcher, "black festival", modalities=Modalities(name=0))
    assert name_of(black[0]) == "two.mp4"
    assert not any(hit.text_matches for hit in black)


def test_what_is_said_counts_once_and_what_is_written_beside_it() -> None:
    def line(kind: Any, coverage: float) -> TextLine:
        return TextLine("v", kind, 0.0, 1.0, "en", "a line", coverage=coverage)

    lines = [line("speech", 0.8), line("transcript", 1.0), line("screen", 0.5), line("name", 0.9)]
    assert strongest(lines) == pytest.approx({"speech": 1.0, "screen": 0.25, "name": 0.81})
    evidence = TextEvidence(Modalities(speech=2.0, screen=0.5, name=0.0))
    assert evidence.term(lines, 1.0) == pytest.approx(2.0 + 0.125)
    assert [kind for kind in LINE_KINDS if Modalities(speech=0).counts(kind)] == ["name", "screen"]


def test_weights_decide(searcher: Searcher) -> None:
    spoken = find(searcher, "black elephants", modalities=Modalities(visual=0))
    assert spoken
    assert all(hit.text_matches for hit in spoken)
    shown = find(searcher, "black elephants", modalities=Modalities(speech=0, name=0))
    assert name_of(shown[0]) == "two.mp4"
    assert not any(hit.text_matches for hit in shown)
    twice = find(searcher, "red balloon", modalities=Modalities(visual=1, speech=2))
    once = find(searcher, "red balloon")
    terms = [hits[0].explanation.text_term for hits in (twice, once) if hits[0].explanation]
    assert terms[0] == pytest.approx(2 * terms[1], abs=1e-4)


def test_words_that_the_model_does_not_know_are_found_in_lines(searcher: Searcher) -> None:
    with pytest.raises(NotUnderstoodError):
        find(searcher, "zebra")
    answer = searcher.search("elephant sings", 5, SearchOptions(group_by="moment"))
    assert [warning.kind for warning in answer.query_warnings] == ["not_understood"]
    assert name_of(answer.hits[0]) == "two.mp4"
    assert all(hit.text_matches for hit in answer.hits)
    chinese = find(searcher, "大象唱歌")
    assert name_of(chinese[0]) == "two.mp4"
    assert chinese[0].start_seconds <= 25 < chinese[0].end_seconds + 1


def test_scores_are_the_sum_of_their_terms(searcher: Searcher, by_salience: Searcher) -> None:
    for each in (searcher, by_salience):
        for text in ("red wine", "white festival", "blue elephant"):
            for weights in (Modalities(), Modalities(visual=0.5, speech=3)):
                hits = find(each, text, modalities=weights)
                assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
                for hit in hits:
                    x = hit.explanation
                    assert x is not None
                    match = x.match_score if x.match_score is not None else x.tail_offset
                    shown = (match or 0) + x.similarity_term + (x.hubness_term or 0)
                    assert hit.score == pytest.approx(x.visual_weight * shown + x.text_term, abs=1e-4)


def test_one_video_is_searched_for_its_own_lines(searcher: Searcher) -> None:
    two = next(hit for hit in find(searcher, "black") if name_of(hit) == "two.mp4").video_id
    hits = searcher.search_video(two, "elephant sings", 5, SearchOptions(group_by="moment")).hits
    assert {hit.video_id for hit in hits} == {two}
    assert hits[0].text_matches[0].text == "elephant sings in the morning"


def test_moments_of_a_video_do_not_share_a_line_that_neither_shows(searcher: Searcher) -> None:
    for hit in find(searcher, "red elephant"):
        for line in hit.text_matches:
            if line.kind == "speech":
                assert line.start_seconds < hit.end_seconds
                assert line.end_seconds > hit.start_seconds


def test_over_http(server: Server) -> None:
    body = {"query": {"text": "elephant sings"}, "modalities": {"speech": 2.0}}
    answer = server.client.post("/v1/search", json=body)
    assert answer.status_code == 200
    hit = answer.json()["hits"][0]
    assert hit["text_matches"][0]["text"] == "elephant sings in the morning"
    assert np.isfinite(hit["score"])
    for wrong in ({"speech": -1.0}, {"speech": 1e6}, {"smell": 1.0}):
        refused = server.client.post("/v1/search", json=body | {"modalities": wrong})
        assert refused.status_code == 422
