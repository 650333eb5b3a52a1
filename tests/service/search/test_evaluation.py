"""`reelfind eval` without its command: query files, matching of videos, and figures against plain NumPy."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from model.runtime.errors import InputError
from model.runtime.queries import LabelledQuery
from service.live import open_searcher
from service.search.evaluation import evaluate_library, read_clean_queries
from service.search.searcher import Searcher, SearchOptions
from service.search.video_finder import VideoFinder
from service.settings import load_settings
from tests.support.toy_bundle import text_embedding
from tests.support.toy_library import ToyLibrary, make_library

FILMS = {
    "a/one.mp4": [("red", 2.0)],
    "b/one.mp4": [("green", 2.0)],
    "b/two.mp4": [("blue", 1.0), ("red", 1.0)],
    "three.mp4": [("yellow", 2.0)],
    "long.mp4": [("black", 40.0), ("cyan", 40.0)],
    "drei Filme.mp4": [("magenta", 1.0), ("white", 1.0)],
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    toy = make_library(tmp_path_factory.mktemp("eval"), FILMS)
    (toy.media / "broken.mp4").write_bytes(b"This is no video.")
    toy.index()
    return toy


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def queries_of(path: Path, *rows: object, only_set: str | None = None) -> list[LabelledQuery]:
    return read_clean_queries(write(path, *rows), only_set, 1000)


def test_figures_equal_those_of_plain_numpy(searcher: Searcher, tmp_path: Path) -> None:
    rows = [
        ("red", "a/one.mp4"),
        ("red and blue", "two.mp4"),
        ("cyan", "long.mp4"),
        ("green", "three.mp4"),
        ("yellow", "three.mp4"),
        ("white magenta", "drei Filme.mp4"),
        ("black", "b/one.mp4"),
        ("blue", "two.mp4"),
    ]
    file = tmp_path / "queries.jsonl"
    queries = queries_of(file, *({"query": text, "video": video} for text, video in rows))
    first_stage = evaluate_library(searcher, queries, SearchOptions(rerank=False))
    assert (first_stage.ensemble, first_stage.rerank_skipped) == (None, "not_requested")
    figures = first_stage.similarity
    assert evaluate_library(searcher, queries).similarity == figures

    snapshot = searcher.snapshot
    vectors = snapshot.index.vectors(np.arange(snapshot.num_segments))
    assert vectors is not None
    files = [video.path for video in snapshot.videos(0, 100)]
    ranks = []
    for text, name in rows:
        similarity = vectors @ text_embedding(text)
        best = [
            max(
                (similarity[i] for i in range(len(vectors)) if snapshot.video_rows[i] == row), default=-np.inf
            )
            for row in range(len(files))
        ]
        right = next(row for row, path in enumerate(files) if path.endswith("/" + name))
        ranks.append(1 + sum(score > best[right] for score in best))
    assert figures == {
        "n": len(rows),
        "R@1": pytest.approx(100 * np.mean(np.array(ranks) <= 1)),
        "R@5": pytest.approx(100 * np.mean(np.array(ranks) <= 5)),
        "R@10": pytest.approx(100.0),
        "MdR": pytest.approx(np.median(ranks)),
        "MnR": pytest.approx(np.mean(ranks)),
    }
    assert 1 < figures["MnR"] < 6, "the case must tell good from bad"


@pytest.mark.parametrize(
    "name", ["a/one.mp4", "three.mp4", "drei Filme.mp4", "./three.mp4", "media/three.mp4"]
)
def test_a_video_is_named_by_the_end_of_its_path(searcher: Searcher, name: str) -> None:
    row = VideoFinder(searcher.snapshot).row_of(name)
    assert searcher.snapshot.videos(row, 1)[0].path.endswith("/" + name.removeprefix("./"))


def test_a_whole_path_names_a_video_too(searcher: Searcher, toy: ToyLibrary) -> None:
    path = os.fspath((toy.media / "b" / "one.mp4").resolve())
    assert searcher.snapshot.videos(VideoFinder(searcher.snapshot).row_of(path), 1)[0].path == path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("four.mp4", 'the library has no video "four.mp4"'),
        ("ree.mp4", 'the library has no video "ree.mp4"'),
        ("c/one.mp4", "the library has no video"),
        ("/one.mp4", "the library has no video"),
        ("three", "the library has no video"),
        ("/", "the library has no video"),
        ("one.mp4", '2 videos of the library match "one.mp4". Give more of the path'),
        ("broken.mp4", "is in the library but cannot be searched .(corrupt|unsupported)"),
    ],
)
def test_a_name_that_fits_no_single_video(searcher: Searcher, tmp_path: Path, name: str, said: str) -> None:
    file = tmp_path / "queries.jsonl"
    rows = queries_of(file, {"query": "red", "video": "a/one.mp4"}, "\n", {"query": "red", "video": name})
    with pytest.raises(InputError, match=said) as caught:
        evaluate_library(searcher, rows)
    assert str(caught.value).startswith("line 3: ")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('{"query": "", "video": "one.mp4"}', 'line 2: "query" must be text, not ""'),
        ('{"query": "\\u200b", "video": "one.mp4"}', "line 2: The query is empty"),
        ('{"query": "' + "x" * 1001 + '", "video": "one.mp4"}', "line 2: The query has 1,001 characters"),
    ],
)
def test_a_text_that_cannot_be_a_query_is_named_by_its_line(tmp_path: Path, row: str, said: str) -> None:
    with pytest.raises(InputError, match=rf"queries\.jsonl, {said}"):
        queries_of(tmp_path / "queries.jsonl", {"query": "red", "video": "one.mp4"}, row)


def test_texts_are_cleaned_as_a_search_cleans_them_and_those_of_other_sets_are_not_read(
    tmp_path: Path,
) -> None:
    rows = [
        {"query": " red\tcar\n", "video": "a.mp4", "set": "x"},
        {"query": "\u200b", "video": "b.mp4", "set": "y"},
    ]
    (query,) = queries_of(tmp_path / "queries.jsonl", *rows, only_set="x")
    assert query == LabelledQuery(1, "red car", "a.mp4", "x")


def test_videos_that_score_the_same_share_their_rank(tmp_path: Path) -> None:
    toy = make_library(tmp_path, {f"{name}.mp4": [("red", 1.0)] for name in "abcdefgh"})
    twins = open_searcher(load_settings({"library": toy.library, "bundle": toy.bundle}))
    rows = queries_of(tmp_path / "queries.jsonl", {"query": "red", "video": "c.mp4"})
    with pytest.warns(UserWarning, match="score the same"):
        figures = evaluate_library(twins, rows)
    assert figures.similarity["MnR"] == 4.5
    assert figures.ensemble is not None
    assert figures.ensemble["MnR"] == 4.5
    # A search lists them in one order, however many are asked for.
    order = [hit.video_id for hit in twins.search("red", 8).hits]
    for top_k in range(1, 8):
        for options in (SearchOptions(), SearchOptions(rerank=False), SearchOptions(num_candidates=3)):
            assert [hit.video_id for hit in twins.search("red", top_k, options).hits] == order[:top_k]


def test_a_video_that_fills_the_first_candidates_does_not_crowd_out_others(tmp_path: Path) -> None:
    films = {
        "long.mp4": [("red", 12 * 32.0)],
        "less.mp4": [("red", 3.0), ("yellow", 1.0)],
        "least.mp4": [("blue", 1.0)],
    }
    toy = make_library(tmp_path, films)
    crowded = open_searcher(load_settings({"library": toy.library, "bundle": toy.bundle}))
    assert crowded.snapshot.num_segments == 14
    for top_k in (1, 2, 3):
        for options in (SearchOptions(rerank=False), SearchOptions(num_candidates=2)):
            hits = crowded.search("red", top_k, options).hits
            assert [Path(hit.path).name for hit in hits] == list(films)[:top_k]
