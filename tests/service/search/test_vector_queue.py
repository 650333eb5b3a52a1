"""The vector index's queue: what it finds equals what each search finds alone, whoever shares its calls."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.library.curated import CuratedSnapshot
from indexer.library.snapshot import Snapshot
from service.errors import OverloadedError
from service.search import vector_queue
from service.search.shared_calls import CallTerms
from service.search.vector_queue import VectorQueue
from tests.support.toy_bundle import COLOURS, text_embedding
from tests.support.toy_library import make_library

_LONG = 120.0
Found = tuple[NDArray[np.float32], NDArray[np.int64]]


class Held:
    """A queue that is held by a search, with threads to search in."""

    def __init__(self, snapshot: Snapshot, pool: ThreadPoolExecutor) -> None:
        self.calls: list[int] = []
        self.open = threading.Event()
        self.snapshot = snapshot
        self.pool = pool
        self._reached = threading.Event()
        self.queue = VectorQueue(self._hold)
        self.first = self.submit("red")
        assert self._reached.wait(_LONG)

    def _hold(self, searches: int) -> None:
        self.calls.append(searches)
        self._reached.set()
        self.open.wait(_LONG)

    def submit(
        self,
        text: str,
        count: int = 3,
        allowed: NDArray[np.int64] | None = None,
        *,
        snapshot: Snapshot | None = None,
        terms: CallTerms | None = None,
    ) -> Future[Found]:
        where = snapshot or self.snapshot
        return self.pool.submit(self.queue.search, where, text_embedding(text), count, allowed, terms)

    def wait_for(self, waiting: int, last: Future[Found] | None = None) -> None:
        until = time.monotonic() + _LONG
        while self.queue.waiting < waiting and not (last is not None and last.done()):
            assert time.monotonic() < until
            time.sleep(0.001)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    films = {f"{number}.mp4": [(colour, 1.0)] for number, colour in enumerate(COLOURS)}
    toy = make_library(tmp_path_factory.mktemp("vectors"), films)
    return CuratedSnapshot.of(Snapshot.open(toy.library))


@pytest.fixture
def held(snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    monkeypatch.setattr(vector_queue, "_LEAST_SEGMENTS", 0)
    with ThreadPoolExecutor(16) as pool:
        held = Held(snapshot, pool)
        yield held
        held.open.set()
        held.queue.close()


def assert_same(found: Found, alone: Found, snapshot: Snapshot, text: str) -> None:
    """The same scores but for rounding, each of its own row: equal ones may come in another order."""
    scores, rows = found
    np.testing.assert_allclose(scores, alone[0][0], atol=2e-6)
    np.testing.assert_array_equal(rows < 0, alone[1][0] < 0)
    all_scores, all_rows = (x[0] for x in snapshot.search(text_embedding(text)[None], snapshot.num_segments))
    score_of = dict(zip(all_rows.tolist(), all_scores.tolist(), strict=True))
    is_row = rows >= 0
    assert len(set(rows[is_row].tolist())) == is_row.sum()
    expected = [score_of[row] for row in rows[is_row].tolist()]
    np.testing.assert_allclose(scores[is_row], expected, atol=2e-6)


def test_searches_share_calls_with_those_that_search_the_same(held: Held) -> None:
    """The same rows for as many segments; filters, other numbers and other views have calls of their own."""
    snapshot = held.snapshot
    some, others = np.array([0, 2, 5]), np.array([0, 2, 5])
    seen = CuratedSnapshot.of(snapshot, folder=b"/nowhere")
    texts = [*COLOURS, "red and white", "a blue car"]
    kinds: list[tuple[int, NDArray[np.int64] | None, Snapshot]] = [
        (3, None, snapshot),
        (3, some, snapshot),
        (3, others, snapshot),
        (5, None, snapshot),
        (3, None, seen),
    ]
    asked = [(texts[place % len(texts)], *kinds[place % len(kinds)]) for place in range(15)]
    futures = [held.submit(text, count, rows, snapshot=of) for text, count, rows, of in asked]
    held.wait_for(15)
    held.open.set()
    for future, (text, count, rows, of) in zip(futures, asked, strict=True):
        alone = of.search(text_embedding(text)[None], count, allowed=rows)
        assert_same(future.result(_LONG), alone, of, text)
    assert held.calls == [1, *[3] * len(kinds)]
    assert all((future.result()[1] == -1).all() for future in futures[4::5]), "the folder is empty"


def test_a_search_that_finds_the_index_idle_waits_for_nobody(
    snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_queue, "_LEAST_SEGMENTS", 0)
    calls: list[tuple[int, str]] = []
    queue = VectorQueue(lambda searches: calls.append((searches, threading.current_thread().name)))
    for colour in COLOURS:
        query = text_embedding(colour)
        assert_same(queue.search(snapshot, query, 4), snapshot.search(query[None], 4), snapshot, colour)
    assert calls == [(1, threading.current_thread().name)] * len(COLOURS)


def test_few_segments_are_searched_by_each_alone(snapshot: Snapshot) -> None:
    calls: list[int] = []
    queue = VectorQueue(calls.append)
    query = text_embedding("red")
    assert_same(queue.search(snapshot, query, 4), snapshot.search(query[None], 4), snapshot, "red")
    assert not calls


def test_an_error_reaches_only_its_own_search(held: Held) -> None:
    good, wrong, good_too = held.submit("red"), held.submit("blue", 0), held.submit("white")
    held.wait_for(3)
    held.open.set()
    for future, text in ((good, "red"), (good_too, "white")):
        alone = held.snapshot.search(text_embedding(text)[None], 3)
        assert_same(future.result(_LONG), alone, held.snapshot, text)
    with pytest.raises(ValueError, match="num_candidates is 0"):
        wrong.result(_LONG)


def test_who_waits_until_the_deadline_or_has_left_is_left_out(held: Held) -> None:
    is_here = threading.Event()
    is_here.set()
    left = held.submit("red", terms=CallTerms(is_wanted=is_here.is_set))
    stays = held.submit("white", terms=CallTerms(deadline=time.monotonic() + 3600))
    held.wait_for(2)
    too_slow = -1
    for seconds in (1, 10, 60):  # on a busy machine the first may come after its deadline, and just waits
        too_slow += 1
        deadline = time.monotonic() + seconds
        late = held.submit("blue", terms=CallTerms(deadline=deadline))
        held.wait_for(3 + too_slow, late)
        if time.monotonic() < deadline:
            break
    with pytest.raises(OverloadedError, match="deadline of this search passed"):
        late.result(_LONG)
    is_here.clear()
    held.open.set()
    with pytest.raises(OverloadedError):
        left.result(_LONG)
    alone = held.snapshot.search(text_embedding("white")[None], 3)
    assert_same(stays.result(_LONG), alone, held.snapshot, "white")
    assert sum(held.calls) == 2 + too_slow
