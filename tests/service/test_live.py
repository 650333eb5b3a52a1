"""Reloading and stopping while searches wait for the matching head, which is held in this process."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from service.errors import NotReadyError
from service.live import Engine, open_bundle
from service.metrics import Metrics
from service.search.searcher import Searcher
from service.settings import load_settings
from tests.support.server import ToyLibrary, make_library
from tests.support.toy import make_toy_bundle

# Only a failure waits so long: on a busy machine everything takes its time.
_LONG = 120.0


@pytest.fixture
def toy(tmp_path: Path) -> ToyLibrary:
    return make_library(tmp_path, {"red.mp4": [("red", 1.0)], "blue.mp4": [("blue", 1.0)]})


@pytest.fixture
def engine(toy: ToyLibrary) -> Iterator[Engine]:
    settings = load_settings({"library": toy.library, "bundle": toy.bundle})
    engine = Engine(settings, open_bundle(settings), Metrics())
    engine.reload()
    yield engine
    engine.close()


class Held:
    """Holds the matching head of a searcher, once it has answered one search."""

    def __init__(self, searcher: Searcher) -> None:
        self.release = threading.Event()
        self._reached = threading.Event()
        searcher.matcher.observe = self._hold
        self._pool = ThreadPoolExecutor(4)
        self.first = self.search(searcher)
        assert self._reached.wait(_LONG)

    def _hold(self, _pairs: int, _searches: int) -> None:
        self._reached.set()
        self.release.wait(_LONG)

    def search(self, searcher: Searcher) -> Future:
        """A search that waits for the matching head."""
        return self._pool.submit(searcher.search, "red", 10)


def test_a_reload_does_not_wait_for_searches_and_they_keep_their_snapshot(
    toy: ToyLibrary, engine: Engine
) -> None:
    before = engine.searcher
    held = Held(before)
    waiting = held.search(before)
    toy.film("green.mp4", [("green", 1.0)])
    toy.index()
    assert engine.reload().changed
    after = engine.searcher
    assert not waiting.done()
    assert after.matcher is before.matcher, "one matching head serves all snapshots of its bundle"
    behind = held.search(after)
    held.release.set()
    for future, snapshot, videos in ((held.first, 1, 2), (waiting, 1, 2), (behind, 2, 3)):
        answer = future.result(_LONG)
        assert (answer.snapshot, answer.reranked, len(answer.hits)) == (snapshot, True, videos)
        assert Path(answer.hits[0].path).name == "red.mp4"


def test_another_bundle_brings_another_matching_head(toy: ToyLibrary, engine: Engine, tmp_path: Path) -> None:
    before = engine.searcher
    held = Held(before)
    waiting = held.search(before)
    make_toy_bundle(toy.bundle, name="other", overwrite=True, ensemble_lambda=2.0)
    beside = ToyLibrary(toy.media, tmp_path / "new", toy.bundle)
    beside.index()
    toy.library.rename(tmp_path / "old")
    beside.library.rename(toy.library)
    assert engine.reload().changed
    after = engine.searcher
    assert after.matcher is not before.matcher
    after.matcher.observe = None  # which the new one took over
    first = after.search("red", 10)
    assert first.reranked, "the new head waits for the old one"
    assert not waiting.done()
    (tmp_path / "old").rename(tmp_path / "aside")
    toy.library.rename(tmp_path / "new")
    (tmp_path / "aside").rename(toy.library)  # which the old snapshot still reads
    held.release.set()
    assert waiting.result(_LONG).reranked
    assert held.first.result(_LONG).hits[0].score == pytest.approx(first.hits[0].score - 1, abs=0.01)


def test_another_bundle_may_have_no_tokens(toy: ToyLibrary, engine: Engine, tmp_path: Path) -> None:
    assert engine.searcher.search("red", 10).reranked
    make_toy_bundle(toy.bundle, overwrite=True, tokens=False)
    toy.library.rename(tmp_path / "old")
    toy.index()
    assert engine.reload().changed
    answer = engine.searcher.search("red", 10)
    assert (answer.rerank_skipped, Path(answer.hits[0].path).name) == ("no_matcher", "red.mp4")


def test_stopping_does_not_wait_for_the_searches_that_wait(engine: Engine) -> None:
    held = Held(engine.searcher)
    waiting = held.search(engine.searcher)
    while engine.searcher.matcher.waiting < 2:
        assert not waiting.done()
    closing = threading.Thread(target=engine.close)
    closing.start()
    with pytest.raises(NotReadyError, match="is stopping"):
        waiting.result(_LONG)
    held.release.set()
    closing.join(_LONG)
    with pytest.raises(NotReadyError, match="is stopping"):
        engine.searcher.search("red", 10)
