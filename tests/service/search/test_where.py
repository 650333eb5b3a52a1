"""Searches among chosen videos: as if the library held no others, whatever a hit rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.errors import NotFoundError, NotUnderstoodError
from service.live import open_searcher
from service.search.filters import Contains, Filter, Not, Or, Under
from service.search.folders import facets, folder_level
from service.search.results import Hit
from service.search.searcher import Searcher, SearchOptions
from service.search.sorting import Sort
from service.search.views import View
from service.settings import load_settings
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_calibration import toy_calibration
from tests.support.toy_library import Parts, ToyLibrary

FILMS: dict[str, Parts] = {
    "here/one.mp4": [("red", 20.0), ("green", 20.0), ("blue", 24.0)],
    "here/two.mp4": [("black", 30.0)],
    "here/deep/harbour.mp4": [("white", 12.0), ("yellow", 2.0)],
    "there/red.mp4": [("red", 30.0), ("magenta", 10.0)],
    "there/harbour festival.mp4": [("cyan", 3.0)],
    "hereafter/blue.mp4": [("blue", 4.0), ("red", 4.0)],
}
SAID = {
    "here/one.srt": ["look at the red balloon", "elephants sing"],
    "there/red.srt": ["elephants sing in the harbour", "zebra crossing"],
    "hereafter/blue.srt": ["a red balloon at the harbour"],
}
TEXTS = ["red", "blue and white", "red balloon", "harbour", "green elephants sing", "black"]


def library_of(folder: Path, *parts: str) -> ToyLibrary:
    """The films of some folders, with what is said in them."""
    toy = ToyLibrary(folder / "media", folder / "library", folder / "bundle")
    make_toy_bundle(toy.bundle, moments="edges", calibration=toy_calibration())
    for name, film in FILMS.items():
        if name.startswith(parts):
            (toy.media / name).parent.mkdir(parents=True, exist_ok=True)
            toy.film(name, film)
    for name, lines in SAID.items():
        if name.startswith(parts):
            cues = [
                f"{i}\n00:00:{3 * i:02d},000 --> 00:00:{3 * i + 2:02d},000\n{x}\n"
                for i, x in enumerate(lines)
            ]
            (toy.media / name).write_text("\n".join(cues))
    toy.index()
    return toy


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return library_of(tmp_path_factory.mktemp("where"), "")


@pytest.fixture(scope="module")
def smaller(tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    """A library with the films of `here` alone."""
    toy = library_of(tmp_path_factory.mktemp("smaller"), "here/")
    return open_searcher(load_settings({"library": toy.library, "bundle": toy.bundle}))


def under(toy: ToyLibrary, *folders: str) -> Filter:
    return Or(tuple(Under("path", str(toy.media / folder)) for folder in folders))


def find(searcher: Searcher, text: str, **options: Any) -> list[Hit]:
    usual = {"group_by": "moment", "num_candidates": 100, "moments_per_video": 100}
    return searcher.search(text, 100, SearchOptions(**{**usual, **options})).hits


def same(hits: Sequence[Hit], expected: Sequence[Hit]) -> None:
    """The same hits in the same order, of libraries whose paths may differ."""
    assert [plain(hit) for hit in hits] == [plain(hit) for hit in expected]
    for hit, other in zip(hits, expected, strict=True):
        assert hit.score == pytest.approx(other.score, abs=1e-5)
        assert hit.probability == pytest.approx(other.probability, abs=1e-4)


def same_pictures(hits: Sequence[Hit], expected: Sequence[Hit]) -> None:
    """The same hits, in any order, with the same scores of their pictures."""
    pairs = zip(sorted(hits, key=plain), sorted(expected, key=plain), strict=True)
    for hit, other in pairs:
        assert plain(hit) == plain(other)
        assert hit.explanation is not None
        assert other.explanation is not None
        visual = hit.score - hit.explanation.text_term
        assert visual == pytest.approx(other.score - other.explanation.text_term, abs=1e-5)


def plain(hit: Hit) -> tuple[object, ...]:
    spans = [(moment.start_seconds, moment.end_seconds) for moment in hit.moments or ()]
    said = [(line.kind, line.text) for line in hit.text_matches]
    return Path(hit.path).name, hit.start_seconds, hit.end_seconds, spans, said, len(hit.frames)


@pytest.mark.parametrize("group_by", ["moment", "video"])
@pytest.mark.parametrize("rerank", [True, False])
def test_hits_are_those_of_the_chosen_videos_and_nothing_else_changes(
    searcher: Searcher, toy: ToyLibrary, group_by: str, rerank: bool
) -> None:
    """Where the best hit is among them: neither order nor score nor probability; else not the pictures'
    score. Probabilities compare with the best hit of the search, and with the whole library.
    """
    asked: dict[str, Any] = {"group_by": group_by, "rerank": rerank, "explain": True}
    for text in TEXTS:
        everything = find(searcher, text, **asked)
        for folders in (["here"], ["there", "here/deep"], ["hereafter"]):
            chosen = find(searcher, text, **asked, where=under(toy, *folders))
            roots = [toy.media / folder for folder in folders]
            kept = [hit for hit in everything if any(Path(hit.path).is_relative_to(root) for root in roots)]
            assert kept
            same_pictures(chosen, kept)
            if kept[0] is everything[0]:
                same(chosen, kept)


@pytest.mark.parametrize("group_by", ["moment", "video", "segment"])
def test_what_is_not_in_the_view_might_as_well_not_be_there(
    searcher: Searcher, smaller: Searcher, toy: ToyLibrary, group_by: str
) -> None:
    """Probabilities included: nothing tells that there is more."""
    here = searcher.seen_by(View(toy.media / "here"))
    for text in TEXTS:
        if group_by == "segment" and text == "harbour":  # understood by lines of text alone
            continue
        for rerank in (True, False):
            options = SearchOptions(group_by=group_by, rerank=rerank, explain=True, num_candidates=100)  # type: ignore[arg-type]
            expected, seen = smaller.search(text, 100, options), here.search(text, 100, options)
            same(seen.hits, expected.hits)
            for hit, other in zip(seen.hits, expected.hits, strict=True):
                assert hit.explanation is not None
                assert other.explanation is not None
                assert hit.explanation.first_stage_rank == other.explanation.first_stage_rank
            assert seen.num_videos == expected.num_videos
            assert seen.num_candidates_wanted == expected.num_candidates_wanted
            assert seen.query_warnings == expected.query_warnings
    whole, same_but_smaller = under(toy, "here/deep"), Not(Under("folder", "/no/such/folder"))
    chosen = find(here, "white", group_by=group_by, where=Not(whole))
    assert chosen
    everything = find(smaller, "white", group_by=group_by, where=same_but_smaller)
    same(chosen, [hit for hit in everything if not hit.path.endswith("deep/harbour.mp4")])


def test_one_video_is_found_only_in_a_view_that_has_it(
    searcher: Searcher, smaller: Searcher, toy: ToyLibrary
) -> None:
    here, there = (searcher.seen_by(View(toy.media / name)) for name in ("here", "there"))
    videos = {Path(video.path).name: video.video_id for video in searcher.snapshot.videos(0, 10)}
    options = SearchOptions(group_by="moment", num_candidates=100)
    seen = here.search_video(videos["one.mp4"], "red balloon", 10, options)
    others = {Path(video.path).name: video.video_id for video in smaller.snapshot.videos(0, 10)}
    expected = smaller.search_video(others["one.mp4"], "red balloon", 10, options)
    same(seen.hits, expected.hits)
    with pytest.raises(NotFoundError, match="No video has the id"):
        here.search_video(videos["red.mp4"], "red", 10, options)
    with pytest.raises(NotFoundError, match="No video has the id"):
        searcher.search_video(videos["red.mp4"], "red", 10, replace(options, where=under(toy, "here")))
    assert there.search_video(videos["red.mp4"], "red", 10, options).hits


def test_what_can_be_counted_in_a_view_is_that_of_a_library_without_the_rest(
    searcher: Searcher, smaller: Searcher, toy: ToyLibrary
) -> None:
    here = searcher.seen_by(View(toy.media / "here", whole_paths=False))
    less = smaller.seen_by(View(smaller.snapshot.media_roots[0] / "here", whole_paths=False))
    assert folder_level(here.selections.facts, None) == folder_level(less.selections.facts, None)
    assert folder_level(here.selections.facts, "here/deep").folder.num_videos == 1
    assert facets(here.selections.facts) == facets(less.selections.facts)
    for sort in (None, Sort("path"), Sort("duration_seconds", descending=True)):
        shown = [
            [video.path.rpartition("/")[2] for video in each.snapshot.catalog.records(rows)]
            for each in (here, less)
            for rows in [each.selections.ordered(sort)]
        ]
        assert shown[0] == shown[1]
        assert len(shown[0]) == 3
    assert here.selections.hours(here.selections.ordered(None)) == pytest.approx(less.snapshot.hours)
    assert (here.snapshot.num_videos, here.snapshot.hours) == (less.snapshot.num_videos, less.snapshot.hours)
    assert here.snapshot.num_visible_segments == less.snapshot.num_visible_segments
    for path in (str(toy.media / "here"), str(toy.media), "there", "hereafter"):
        with pytest.raises(NotFoundError):
            folder_level(here.selections.facts, path)
        assert not len(here.selections.ordered(None, Under("path", path)))
    assert not len(here.selections.ordered(None, Contains("path", toy.media.parent.name)))
    assert len(here.selections.ordered(None, Under("path", "here/deep"))) == 1


def test_a_view_is_kept_and_is_not_made_of_another(searcher: Searcher, toy: ToyLibrary) -> None:
    here = searcher.seen_by(View(toy.media / "here"))
    assert searcher.seen_by(View(toy.media / "here")) is here
    assert here.seen_by(here.view) is here
    with pytest.raises(ValueError, match="says nothing of"):
        here.seen_by(View())
    everything, nothing = searcher.seen_by(View(whole_paths=False)), searcher.seen_by(View(Path("/nowhere")))
    assert everything.snapshot is searcher.snapshot
    assert find(nothing, "red") == []
    assert (nothing.snapshot.num_videos, nothing.snapshot.videos(0, 10)) == (0, [])


@pytest.mark.parametrize("rerank", [True, False])
def test_a_filter_may_leave_nothing(searcher: Searcher, toy: ToyLibrary, rerank: bool) -> None:
    for group_by in ("moment", "video", "segment"):
        assert find(searcher, "red", group_by=group_by, rerank=rerank, where=under(toy, "nowhere")) == []


def test_words_that_only_other_videos_have_are_not_understood(searcher: Searcher, toy: ToyLibrary) -> None:
    assert {Path(hit.path).name for hit in find(searcher, "zebra crossing")} == {"red.mp4"}
    with pytest.raises(NotUnderstoodError):
        find(searcher, "zebra crossing", where=under(toy, "here"))


def test_selections_are_kept(searcher: Searcher, toy: ToyLibrary) -> None:
    assert searcher.selections.of(under(toy, "here")) is searcher.selections.of(under(toy, "here"))
