"""How two generations agree: against counting by hand, over the answers of searches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from indexer.options import IndexOptions
from indexer.run import index_paths
from model.runtime.bundle import Bundle
from model.runtime.queries import AnyQuery, read_queries
from service.live import open_searcher, searcher_of
from service.search import agreement
from service.search.agreement import measure_agreement
from service.search.evaluation import evaluate_library
from service.search.searcher import Searcher
from service.settings import load_settings
from tests.support.toy_bundle import COLOURS
from tests.support.toy_generations import make_turned_bundle
from tests.support.toy_library import ToyLibrary, make_library


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_library(
        tmp_path_factory.mktemp("agreement"), {f"{colour}.mp4": [(colour, 0.5)] for colour in COLOURS}
    )


@pytest.fixture(scope="module")
def searchers(toy: ToyLibrary) -> Iterator[tuple[Searcher, Searcher]]:
    """Of the toy bundle, and of one whose matching head is of no weight beside the similarity."""
    settings = load_settings({"library": toy.library, "bundle": toy.bundle})
    before = open_searcher(settings)
    beside = toy.library.with_name("beside")
    bundle = make_turned_bundle(toy.bundle.with_name("turned"), 3, matcher=False)
    index_paths([toy.media], beside, Bundle.open(bundle), IndexOptions(workers=0), lambda _event: None)
    after = open_searcher(load_settings({"library": beside, "bundle": bundle}))
    yield before, after
    for searcher in (before, after):
        searcher.match_queue.close()


def top(searcher: Searcher, text: str, count: int) -> list[str]:
    """The ids of the best videos, as a search for them gives them."""
    ranking = searcher.rank_all([text])
    scores = ranking.similarity[0] if ranking.ensemble is None else ranking.ensemble[0]
    return [searcher.snapshot.video_id_at(int(row)) for row in np.argsort(-scores, kind="stable")[:count]]


def test_the_share_of_the_best_that_both_have(
    searchers: tuple[Searcher, Searcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = searchers
    monkeypatch.setattr(agreement, "TOP", 3)
    texts = ["red", "a green thing", "white and black", "cyan magenta", "yellow the blue"]
    shared, same = [], []
    for text in texts:
        first, second = top(before, text, 3), top(after, text, 3)
        shared.append(len(set(first) & set(second)) / 3)
        same.append(first[0] == second[0])
    assert 0 < np.mean(shared) < 1, "the two must differ for this test to tell anything"
    counted: list[None] = []
    queries = [AnyQuery(i + 1, text) for i, text in enumerate(texts)]
    measured = measure_agreement(before, after, queries, lambda: counted.append(None))
    assert measured.overlap == pytest.approx(np.mean(shared))
    assert measured.same_first == pytest.approx(np.mean(same))
    assert (measured.queries, measured.top, measured.unknown) == (5, 3, 0)
    assert measured.before is measured.after is None, "no answer is known"
    assert len(counted) == 2 * len(texts)


def test_recall_where_answers_are_known(searchers: tuple[Searcher, Searcher], tmp_path: Path) -> None:
    before, after = searchers
    queries = [AnyQuery(1, "red", "red.mp4"), AnyQuery(2, "red red green", "green.mp4"), AnyQuery(3, "white")]
    file = tmp_path / "queries.jsonl"
    file.write_text(
        '{"query": "red", "video": "red.mp4"}\n{"query": "red red green", "video": "green.mp4"}\n'
    )
    measured = measure_agreement(before, after, [*queries, AnyQuery(4, "blue", "nowhere.mp4")])
    for searcher, metrics in ((before, measured.before), (after, measured.after)):
        result = evaluate_library(searcher, read_queries(file))
        assert metrics == (result.ensemble or result.similarity)
    assert measured.unknown == 1


def test_a_generation_agrees_with_itself(searchers: tuple[Searcher, Searcher], toy: ToyLibrary) -> None:
    before = searchers[0]
    again = searcher_of(load_settings({"bundle": toy.bundle}), before.snapshot, before.queues)
    measured = measure_agreement(before, again, [AnyQuery(1, colour) for colour in COLOURS])
    assert (measured.overlap, measured.same_first) == (1.0, 1.0)
