"""Recalls of moments: of a library whose moments are known, against a count by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from service.search.searcher import Searcher, SearchOptions
from tests.service.search.test_moments import FILMS, RED_IN_TAPE, overlap
from tests.support.command_line import invoke
from tests.support.toy_library import ToyLibrary, make_library

#: The first is found at once, the second is of another film, the third is too long, the last not understood.
ROWS: list[dict[str, Any]] = [
    {"query": "green", "video": "mixed.mp4", "start_seconds": 16.0, "end_seconds": 24.0},
    {"query": "cyan", "video": "tape.mp4", "start_seconds": 94.0, "end_seconds": 112.0},
    {
        "query": "red",
        "video": "tape.mp4",
        "start_seconds": RED_IN_TAPE[1][0],
        "end_seconds": RED_IN_TAPE[1][1],
    },
    {"query": "yellow", "video": "mixed.mp4", "start_seconds": 0.0, "end_seconds": 24.0},
    {"query": "zzz", "video": "mixed.mp4", "start_seconds": 0.0, "end_seconds": 1.0},
    {"query": "blue", "video": "tape.mp4"},
]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_library(tmp_path_factory.mktemp("recalls"), FILMS, moments="edges")


def test_recalls_are_those_counted_by_hand(toy: ToyLibrary, searcher: Searcher, tmp_path: Path) -> None:
    file = tmp_path / "queries.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    options: tuple[str | Path, ...] = ("eval", "--queries", file, *toy.options)
    corpus = json.loads(invoke(*options, "--json").stdout)
    given = json.loads(invoke(*options, "--json", "--given-video").stdout)
    asked = [row for row in ROWS if "start_seconds" in row and row["query"] != "zzz"]
    names = {video.path.rpartition("/")[2]: video.video_id for video in searcher.snapshot.videos(0, 10)}
    for body, alone in ((corpus, False), (given, True)):
        for depth in (1, 5, 10):
            for least in (0.5, 0.7):
                found = 0
                for row in asked:
                    text, video = row["query"], names[row["video"]]
                    how = SearchOptions(group_by="moment")
                    if alone:
                        hits = searcher.search_video(video, text, 10, how).hits
                    else:
                        hits = searcher.search(text, 10, how).hits
                    span = (row["start_seconds"], row["end_seconds"])
                    found += any(
                        hit.video_id == video and overlap(hit, span) >= least for hit in hits[:depth]
                    )
                assert body[f"R@{depth},IoU={least:g}"] == pytest.approx(100 * found / 5)
    assert corpus["moments"]["n"] == 5
    assert corpus["moments"]["given_video"] is None
    assert given["moments"]["corpus"] == corpus["moments"]["corpus"]
    assert given["R@1,IoU=0.5"] >= 60
    shown = invoke(*options, "--given-video").stdout
    assert "moments, n = 5" in shown
    assert "given video" in shown


def test_without_spans_there_are_no_recalls(toy: ToyLibrary, tmp_path: Path) -> None:
    file = tmp_path / "queries.jsonl"
    file.write_text(json.dumps(ROWS[-1]))
    body = json.loads(invoke("eval", "--queries", file, *toy.options, "--json").stdout)
    assert not [name for name in body if "IoU" in name or name == "moments"]
