"""Pages of a search: together they are one ranking, whatever is kept of it, and none repeats another."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.options import IndexOptions
from indexer.run import index_paths
from model.runtime.bundle import Bundle
from service.errors import PageGoneError, QueryError
from service.live import open_searcher
from service.search.filters import In, Not
from service.search.page_tokens import question_mark
from service.search.pages import Pages
from service.search.results import Hit, SearchResult
from service.search.searcher import OpenSearch, Searcher, SearchOptions
from service.search.sorting import Sort
from service.settings import load_settings
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_calibration import toy_calibration
from tests.support.toy_library import ToyLibrary

COLOURS = ("red", "green", "blue", "yellow", "cyan", "magenta", "white", "black")
TEXT = "red harbour"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    """Forty films, some of several segments; three are called after a word of the query."""
    folder = tmp_path_factory.mktemp("pages")
    toy = ToyLibrary(folder / "media", folder / "library", folder / "bundle")
    make_toy_bundle(toy.bundle, moments="edges", calibration=toy_calibration())
    toy.media.mkdir()
    for i in range(40):
        parts = [(COLOURS[(i + j) % 8], 2.0 + 23.0 * (i % 5 == 0)) for j in range(1 + i % 3)]
        toy.film(f"{'harbour ' * (i % 15 == 7)}{i:02d}.mp4", parts)
    toy.index()
    return toy


def options_of(**given: Any) -> SearchOptions:
    return SearchOptions(**{"group_by": "moment", "num_candidates": 7, **given})


def all_pages(
    searcher: Searcher, pages: Pages, top_k: int, options: SearchOptions, text: str = TEXT
) -> Iterator[SearchResult]:
    """Every page of a search, read to the end."""
    question = question_mark(text, top_k, replace(options, is_wanted=None))

    def ask(asked: Searcher, allowed: SearchOptions) -> OpenSearch:
        return asked.open(text, top_k, allowed)

    result = pages.first(searcher, question, options, ask)
    yield result
    while result.next_page_token is not None:
        result = pages.following(searcher, question, result.next_page_token, "", options, ask)
        yield result


def places(hits: list[Hit]) -> list[tuple[str, float, float]]:
    return [(hit.video_id, hit.start_seconds, hit.end_seconds) for hit in hits]


def hits_of(*args: Any, **given: Any) -> list[Hit]:
    return [hit for result in all_pages(*args, **given) for hit in result.hits]


@pytest.mark.parametrize("group_by", ["moment", "video"])
@pytest.mark.parametrize("rerank", [True, False])
@pytest.mark.parametrize("top_k", [1, 6])
def test_pages_are_one_ranking(searcher: Searcher, group_by: str, rerank: bool, top_k: int) -> None:
    options = options_of(group_by=group_by, rerank=rerank)
    kept = list(all_pages(searcher, Pages(), top_k, options))
    assert places(kept[0].hits) == places(searcher.search(TEXT, top_k, options).hits)
    assert all(len(result.hits) == top_k for result in kept[:-1])
    hits = [hit for result in kept for hit in result.hits]
    found = places(hits)
    assert len(set(found)) == len(found)
    assert {hit.video_id for hit in hits} == {video.video_id for video in searcher.snapshot.videos(0, 100)}
    if group_by == "video":
        assert len(hits) == 40
    by_video: dict[str, list[tuple[float, float]]] = {}
    for video_id, start, end in found:
        by_video.setdefault(video_id, []).append((start, end))
    for spans in by_video.values():
        ordered = sorted(spans)
        assert all(a[1] <= b[0] + 1e-3 for a, b in itertools.pairwise(ordered)), "moments overlap"
    # Nothing is kept: every page is computed anew, and is the same.
    forgetful = list(all_pages(searcher, Pages(most_bytes=0), top_k, options))
    assert [result.hits for result in forgetful] == [result.hits for result in kept]


def test_every_segment_is_looked_at(toy: ToyLibrary, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A bundle whose moments are segments shows that none is left out."""
    searcher = open_searcher(load_settings({"library": toy.library, "bundle": toy.bundle}))
    snapshot = searcher.snapshot
    hits = hits_of(searcher, Pages(), 3, options_of())
    for row in range(snapshot.num_segments):
        start, end = snapshot.segment_span(row)
        video_id = snapshot.video_id_of(row)
        run = snapshot.stretches([row], 1)[0]
        first, last = snapshot.segment_span(int(run[0]))[0], snapshot.segment_span(int(run[-1]))[1]
        assert any(
            hit.video_id == video_id and hit.start_seconds < last and hit.end_seconds > first for hit in hits
        ), (start, end)


def test_a_page_can_be_asked_for_again(searcher: Searcher) -> None:
    options, pages = options_of(group_by="video"), Pages()
    results = list(all_pages(searcher, pages, 4, options))
    question = question_mark(TEXT, 4, options)

    def ask(asked: Searcher, allowed: SearchOptions) -> OpenSearch:
        raise AssertionError("the ranking is kept")

    for i in (2, 0, 5, 1):
        token = results[i].next_page_token
        assert token is not None
        assert pages.following(searcher, question, token, "", options, ask).hits == results[i + 1].hits


def test_what_is_not_to_be_kept_takes_no_other_ranking_away(searcher: Searcher) -> None:
    pages, options, question = Pages(), options_of(), question_mark(TEXT)
    asked = []

    def ask(seen: Searcher, allowed: SearchOptions) -> OpenSearch:
        asked.append(allowed)
        return seen.open(TEXT, 3, allowed)

    first = pages.first(searcher, question, options, ask)
    assert pages.first(searcher, question, options, ask, keep=False).hits == first.hits
    assert first.next_page_token is not None
    pages.following(searcher, question, first.next_page_token, "", options, ask)
    assert len(asked) == 2


def test_tokens_of_something_else(searcher: Searcher) -> None:
    options, pages = options_of(), Pages()
    token = next(all_pages(searcher, pages, 4, options)).next_page_token
    assert token is not None

    def ask(asked: Searcher, allowed: SearchOptions) -> OpenSearch:
        return asked.open("blue", 4, allowed)

    with pytest.raises(QueryError, match="was given for another request"):
        pages.following(searcher, question_mark("blue", 4, options), token, "", options, ask)
    question = question_mark(TEXT, 4, options)
    for place in range(0, len(token), 7):
        forged = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
        with pytest.raises(QueryError, match="is not a page_token"):
            pages.following(searcher, question, forged, "", options, ask)
    with pytest.raises(PageGoneError, match="comes to another"):
        Pages().following(searcher, question, token, "", options, ask)


@pytest.mark.parametrize("group_by", ["moment", "video"])
def test_sorted_hits_are_those_of_the_best_segments(searcher: Searcher, group_by: str) -> None:
    rows = {video.video_id: video for video in searcher.snapshot.videos(0, 100)}
    for sort in (Sort("duration_seconds"), Sort("path", descending=True)):
        options = options_of(group_by=group_by, sort=sort, num_candidates=12)
        hits = hits_of(searcher, Pages(), 5, options)
        plain = hits_of(searcher, Pages(), 40, options_of(group_by=group_by, num_candidates=12))
        assert set(places(hits)) <= set(places(plain))
        assert len(hits) >= 10
        values = [getattr(rows[hit.video_id], sort.field) for hit in hits]
        assert len(set(values)) > 1
        assert values == sorted(values, reverse=sort.descending)


def test_a_threshold_ends_the_ranking(searcher: Searcher) -> None:
    whole = hits_of(searcher, Pages(), 5, options_of())
    for field in ("score", "similarity", "probability"):
        least = float(np.median([getattr(hit, field) for hit in whole]))
        found = hits_of(searcher, Pages(), 5, options_of(**{f"min_{field}": least}))
        assert found
        assert all(getattr(hit, field) >= least for hit in found)
        assert len(found) >= 0.5 * sum(getattr(hit, field) >= least for hit in whole)


def test_an_answer_says_how_many_videos_were_searched(searcher: Searcher) -> None:
    some = Not(In("duration_seconds", (2.0,)))
    expected = sum(video.duration_seconds != 2.0 for video in searcher.snapshot.videos(0, 100))
    assert searcher.search(TEXT, 3, options_of()).num_videos == 40
    assert searcher.search(TEXT, 3, options_of(where=some)).num_videos == expected


def test_rankings_and_snapshots_are_let_go_of(searcher: Searcher, toy: ToyLibrary) -> None:
    now = [0.0]
    pages = Pages(kept_seconds=10, clock=lambda: now[0])
    token = next(all_pages(searcher, pages, 4, options_of())).next_page_token
    toy.film("later.mp4", [("red", 1.0)])
    toy.index()
    other = open_searcher(load_settings({"library": toy.library, "bundle": toy.bundle}))
    assert token is not None
    assert pages.searcher_of(token, other, "") is searcher
    now[0] = 11.0
    pages.expire()
    with pytest.raises(PageGoneError, match="The library has changed"):
        pages.searcher_of(token, other, "")


@pytest.mark.parametrize("group_by", ["moment", "video"])
def test_missing_videos_come_last(toy: ToyLibrary, group_by: str, tmp_path: Path) -> None:
    """Also those that fit best, and those whose name is asked for, on whatever page."""
    library = tmp_path / "library"
    shutil.copytree(toy.library, library)
    settings = load_settings({"library": library, "bundle": toy.bundle})
    searcher = open_searcher(settings)
    best = {hit.path for hit in searcher.search(TEXT, 12, options_of(group_by="video")).hits}
    for path in best:
        Path(path).rename(tmp_path / Path(path).name)
    try:
        options = IndexOptions(workers=0)
        index_paths([toy.media], library, Bundle.open(toy.bundle), options, lambda _event: None)
    finally:
        for path in best:
            (tmp_path / Path(path).name).rename(path)
    hits = hits_of(open_searcher(settings), Pages(), 5, options_of(group_by=group_by))
    assert [hit.missing for hit in hits] == sorted(hit.missing for hit in hits)
    assert {hit.path for hit in hits if hit.missing} == best
    assert len({hit.video_id for hit in hits}) == searcher.snapshot.num_videos
