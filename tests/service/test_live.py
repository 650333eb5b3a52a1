"""Reloading and stopping while searches wait for the matching head, which is held in this process."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from service.errors import NotReadyError
from service.live import LiveLibrary, open_bundle
from service.metrics import Metrics
from service.search.results import SearchResult
from service.search.searcher import Searcher
from service.settings import load_settings
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_library import ToyLibrary, make_library

# Only a failure waits so long: on a busy machine everything takes its time.
_LONG = 120.0


@pytest.fixture
def toy(tmp_path: Path) -> ToyLibrary:
    return make_library(tmp_path, {"red.mp4": [("red", 1.0)], "blue.mp4": [("blue", 1.0)]})


@pytest.fixture
def live(toy: ToyLibrary) -> Iterator[LiveLibrary]:
    settings = load_settings({"library": toy.library, "bundle": toy.bundle})
    live = LiveLibrary(settings, open_bundle(settings), Metrics())
    live.reload()
    yield live
    live.close()


class Held:
    """Holds the matching head of a searcher, once it has answered one search."""

    def __init__(self, searcher: Searcher) -> None:
        self.release = threading.Event()
        self._reached = threading.Event()
        searcher.match_queue.observe = self._hold
        self._pool = ThreadPoolExecutor(4)
        self.first = self.search(searcher)
        assert self._reached.wait(_LONG)

    def _hold(self, _pairs: int, _searches: int) -> None:
        self._reached.set()
        self.release.wait(_LONG)

    def search(self, searcher: Searcher) -> Future[SearchResult]:
        """A search that waits for the matching head."""
        return self._pool.submit(searcher.search, "red", 10)


def test_a_reload_does_not_wait_for_searches_and_they_keep_their_snapshot(
    toy: ToyLibrary, live: LiveLibrary
) -> None:
    before = live.searcher
    held = Held(before)
    waiting = held.search(before)
    toy.film("green.mp4", [("green", 1.0)])
    toy.index()
    assert live.reload().changed
    after = live.searcher
    assert not waiting.done()
    assert after.match_queue is before.match_queue, "one matching head serves all snapshots of its bundle"
    behind = held.search(after)
    held.release.set()
    for future, snapshot, videos in ((held.first, 1, 2), (waiting, 1, 2), (behind, 2, 3)):
        answer = future.result(_LONG)
        assert (answer.snapshot, answer.reranked, len(answer.hits)) == (snapshot, True, videos)
        assert Path(answer.hits[0].path).name == "red.mp4"


def test_another_bundle_brings_another_matching_head(
    toy: ToyLibrary, live: LiveLibrary, tmp_path: Path
) -> None:
    before = live.searcher
    held = Held(before)
    waiting = held.search(before)
    make_toy_bundle(toy.bundle, name="other", overwrite=True, ensemble_lambda=2.0)
    beside = ToyLibrary(toy.media, tmp_path / "new", toy.bundle)
    beside.index()
    toy.library.rename(tmp_path / "old")
    beside.library.rename(toy.library)
    assert live.reload().changed
    after = live.searcher
    assert after.match_queue is not before.match_queue
    after.match_queue.observe = None  # which the new one took over
    first = after.search("red", 10)
    assert first.reranked, "the new head waits for the old one"
    assert not waiting.done()
    (tmp_path / "old").rename(tmp_path / "aside")
    toy.library.rename(tmp_path / "new")
    (tmp_path / "aside").rename(toy.library)  # which the old snapshot still reads
    held.release.set()
    assert waiting.result(_LONG).reranked
    assert held.first.result(_LONG).hits[0].score == pytest.approx(first.hits[0].score - 1, abs=0.01)


def test_another_bundle_may_have_no_tokens(toy: ToyLibrary, live: LiveLibrary, tmp_path: Path) -> None:
    assert live.searcher.search("red", 10).reranked
    make_toy_bundle(toy.bundle, overwrite=True, tokens=False)
    toy.library.rename(tmp_path / "old")
    toy.index()
    assert live.reload().changed
    answer = live.searcher.search("red", 10)
    assert (answer.rerank_skipped, Path(answer.hits[0].path).name) == ("no_matcher", "red.mp4")


def test_stopping_does_not_wait_for_the_searches_that_wait(live: LiveLibrary) -> None:
    held = Held(live.searcher)
    waiting = held.search(live.searcher)
    while live.searcher.match_queue.waiting < 2:
        assert not waiting.done()
    closing = threading.Thread(target=live.close)
    closing.start()
    with pytest.raises(NotReadyError, match="is stopping"):
        waiting.result(_LONG)
    held.release.set()
    closing.join(_LONG)
    with pytest.raises(NotReadyError, match="is stopping"):
        live.searcher.search("red", 10)
