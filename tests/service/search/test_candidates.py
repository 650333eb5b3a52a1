"""Which segments are re-ranked: no video has more than its share, while there are others."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

from service.live import open_searcher
from service.search.retrieval import RetrievedSegments, choose_candidates
from service.search.searcher import Searcher, SearchOptions
from service.settings import load_settings
from tests.support.toy_library import ToyLibrary, make_library

LONG = "long.mp4"
COUNT = 12


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    """A long film that is red in each of its 15 segments, and short ones that are less so."""
    films = {LONG: [("red", 22.0), ("black", 2.0)] * 20}
    films |= {f"{number}.mp4": [("red", 1.0), ("blue", 0.5 + number / 4)] for number in range(9)}
    return make_library(tmp_path_factory.mktemp("share"), films)


def test_a_long_video_has_its_share_of_the_candidates(searcher: Searcher) -> None:
    first_stage = searcher.search("red", 100, SearchOptions(rerank=False))
    assert Path(first_stage.hits[0].path).name == LONG, "its segments are the most similar"
    answer = searcher.search("red", 100, SearchOptions(num_candidates=COUNT))
    assert answer.num_candidates == COUNT
    reranked = [hit for hit in answer.hits if hit.match_score is not None]
    # Ten videos: all are re-ranked. By similarity alone, the twelve best segments are of one.
    assert len(reranked) == len(answer.hits) == 10
    top = searcher.search("red", 1, SearchOptions(num_candidates=COUNT))
    assert top.hits == answer.hits[:1]


def test_the_first_stage_rank_is_that_among_all_segments(searcher: Searcher) -> None:
    answer = searcher.search("red", 100, SearchOptions(num_candidates=COUNT, explain=True))
    ranks = [hit.explanation.first_stage_rank for hit in answer.hits if hit.explanation is not None]
    assert min(ranks) == 1
    assert sorted(ranks)[1] > COUNT, "the others come behind all segments of the long film"


def test_a_library_of_one_video_gives_all_candidates(tmp_path: Path) -> None:
    films = {LONG: [("red", 22.0), ("black", 2.0)] * 20}
    toy = make_library(tmp_path, films)
    searcher = open_searcher(load_settings({"library": toy.library, "bundle": toy.bundle}))
    answer = searcher.search("red", 10, SearchOptions(num_candidates=COUNT))
    assert (answer.num_candidates, len(answer.hits)) == (COUNT, 1)


def naive(videos: list[int], count: int, share: float) -> list[int]:
    most = max(2, int(np.ceil(share * count)))
    chosen: list[int] = []
    for place, video in enumerate(videos[: 8 * count]):
        if len(chosen) < count and sum(videos[other] == video for other in chosen) < most:
            chosen.append(place)
    for place in range(len(videos[: 8 * count])):
        if len(chosen) < count and place not in chosen:
            chosen.append(place)
    return sorted(chosen)


@example_settings(max_examples=300, deadline=None)
@given(
    videos=st.lists(st.integers(0, 5), min_size=1, max_size=150),
    count=st.integers(1, 40),
    share=st.sampled_from([0.01, 0.1, 0.25, 0.5, 1.0]),
)
def test_the_choice_is_that_of_the_naive_one(videos: list[int], count: int, share: float) -> None:
    rows = np.random.default_rng(len(videos)).permutation(len(videos))
    video_rows = np.empty(len(videos), np.int32)
    video_rows[rows] = videos
    similarity = -np.arange(len(videos), dtype=np.float32)
    retrieved = RetrievedSegments(similarity, rows, np.arange(len(rows)))
    chosen = choose_candidates(retrieved, video_rows, count, share)
    assert chosen.tolist() == naive(videos, count, share)
    reordered = retrieved.with_first(chosen)
    assert reordered.ranks.tolist() == [*chosen, *(p for p in range(len(videos)) if p not in chosen)]
    np.testing.assert_array_equal(reordered.rows, rows[reordered.ranks])
    np.testing.assert_array_equal(reordered.score, similarity[reordered.ranks])
