"""Searches in libraries whose cuts are known: moments are shots, with a moment head and by the rule."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.options import IndexOptions
from indexer.run import index_paths
from model.runtime.bundle import Bundle
from service.search.searcher import Searcher
from tests.service.search.test_hubness import searcher_of
from tests.service.search.test_moments import MATCH, find, name_of
from tests.support.paths import ROOT
from tests.support.toy_library import ToyLibrary, make_library
from tests.support.toy_shots import film_of_shots, write_frames

#: Two segments of 31 s, whose frames are 2 s apart; red is shown across their border too.
FILMS = {
    "tape.mp4": [
        ("blue", 7.25),
        ("red", 4.5),
        ("black", 14.5),
        ("red", 9.75),
        ("white", 16.0),
        ("red", 10.0),
    ],
    "plain.mp4": [("green", 6.0)],
}
RED = [(7.25, 11.75), (26.25, 36.0), (52.0, 62.0)]
KINDS: dict[str, dict[str, Any]] = {
    "head": {"moments": "edges"},
    "rule": {"matcher": False, "salience_match": MATCH},
}


def with_cuts(folder: Path, kind: str) -> Searcher:
    toy: ToyLibrary = make_library(folder, FILMS, **KINDS[kind])
    options = IndexOptions(workers=0, shots=True, threads=1)
    summary = index_paths([toy.media], toy.library, Bundle.open(toy.bundle), options, lambda _: None)
    assert summary.stages["shots"].cuts == 5
    return searcher_of(toy)


@pytest.fixture(scope="module", params=list(KINDS))
def searcher(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    return with_cuts(tmp_path_factory.mktemp(request.param), request.param)


MINI = ROOT / "model" / "bundles" / "mini"


def test_a_scene_that_comes_three_times_on_a_real_tape_is_found_each_time(tmp_path: Path) -> None:
    """Coffee, the astronaut, coffee, the cat, coffee, a rocket: with the bundle that ships."""
    lengths = (90, 75, 110, 65, 80, 70)
    write_frames(
        tmp_path / "tape.mp4", film_of_shots(lengths, (0,) * 6, (320, 180), pictures=(1, 0, 1, 2, 1, 3))
    )
    toy = ToyLibrary(tmp_path / "tape.mp4", tmp_path / "library", MINI)
    options = IndexOptions(workers=0, shots=True, threads=1)
    index_paths([toy.media], toy.library, Bundle.open(MINI, threads=1), options, lambda _: None)
    hits = find(searcher_of(toy), "a cup of coffee on a table")
    ends = np.cumsum(lengths) / 25
    coffee = [(float(end - length / 25), float(end)) for end, length in zip(ends, lengths, strict=True)][::2]
    spans = [(hit.start_seconds, hit.end_seconds) for hit in hits]
    assert len(spans) <= 5
    for span in coffee:
        assert any(span == pytest.approx(found, abs=2e-3) for found in spans), spans


def test_each_shot_of_a_scene_is_a_moment_to_the_frame(searcher: Searcher) -> None:
    hits = [hit for hit in find(searcher, "red") if name_of(hit) == "tape.mp4"]
    assert sorted((hit.start_seconds, hit.end_seconds) for hit in hits[:3]) == RED


def test_moments_hold_their_frames_and_do_not_touch(searcher: Searcher) -> None:
    for text in ("red", "black", "white", "green", "a blue sky"):
        by_video: dict[str, list[tuple[float, float]]] = {}
        for hit in find(searcher, text, 20):
            by_video.setdefault(hit.video_id, []).append((hit.start_seconds, hit.end_seconds))
            times = np.array([frame.pts_seconds for frame in hit.frames])
            assert hit.start_seconds < hit.end_seconds
            assert ((hit.start_seconds - 2e-3 <= times) & (times < hit.end_seconds)).all()
        for spans in by_video.values():
            assert all(end < start for (_, end), (start, _) in pairwise(sorted(spans)))


def test_a_video_without_cuts_is_one_shot(searcher: Searcher) -> None:
    (hit,) = [hit for hit in find(searcher, "green") if name_of(hit) == "plain.mp4"]
    assert (hit.start_seconds, hit.end_seconds) == (0.0, 6.0)
