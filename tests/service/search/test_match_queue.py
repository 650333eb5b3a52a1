"""The matching head's queue: what it gives equals the model alone, whoever shares its calls."""

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model.runtime.bundle import Bundle
from model.runtime.bundle.encodings import stack_texts
from model.runtime.errors import BundleError
from service.errors import NotReadyError
from service.search import match_queue, shared_calls
from service.search.match_queue import MatchQueue, MatchTerms
from tests.support.toy_bundle import make_toy_bundle, match_logit

LONG = 3600.0


@pytest.fixture(scope="module", params=[True, "ids"], ids=["tokens", "ids"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = make_toy_bundle(tmp_path_factory.mktemp("matching") / "bundle", matcher=request.param)
    return Bundle.open(folder, max_pairs=8)


class Gate:
    """Watches a queue's calls of the model; while shut, the queue stands still after its first one.

    Attributes:
        calls: of each call, its pairs and its searches.
        unfinished: of each call, the searches that had no answer yet when the model was done with it.
    """

    def __init__(self) -> None:
        self.queue: MatchQueue | None = None
        self.calls: list[tuple[int, int]] = []
        self.unfinished: list[int] = []
        self.reached = threading.Event()
        self.open = threading.Event()

    def __call__(self, pairs: int, searches: int) -> None:
        assert self.queue is not None
        self.calls.append((pairs, searches))
        self.unfinished.append(self.queue.waiting)
        self.reached.set()
        self.open.wait(120)


class Bench:
    """A queue whose thread is held, with threads to search in."""

    def __init__(self, bundle: Bundle, pool: ThreadPoolExecutor) -> None:
        self.gate = Gate()
        self.queue = self.gate.queue = MatchQueue(bundle, self.gate)
        self.bundle = bundle
        self.pool = pool
        self.first = self.ask("red", tokens(1), wait=False)
        assert self.gate.reached.wait(120)

    def ask(
        self,
        text: str,
        frame_tokens: NDArray[np.float32],
        *,
        wait: bool = True,
        deadline: float | None = None,
        client: str | None = None,
        is_wanted: Callable[[], bool] | None = None,
    ) -> Future[NDArray[np.float32]]:
        waiting = self.queue.waiting
        encoding = self.bundle.encode_text([text], tokens=True)
        terms = MatchTerms(client, deadline, is_wanted=is_wanted)
        future = self.pool.submit(self.queue.match, encoding, frame_tokens, terms)
        if wait:
            until(lambda: self.queue.waiting > waiting or future.done())
        return future


def logits_of(future: Future[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The answer of a search that has no deadline."""
    return future.result(120)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture
def bench(bundle: Bundle) -> Iterator[Bench]:
    with ThreadPoolExecutor(16) as pool:
        bench = Bench(bundle, pool)
        yield bench
        bench.gate.open.set()
        bench.queue.close()


def tokens(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 4, 3)).astype(np.float32)


def test_a_search_alone_gets_what_the_model_says(bundle: Bundle) -> None:
    queue = MatchQueue(bundle)
    queue.warm()
    frames = tokens(30)
    encoding = bundle.encode_text(["a blue car"], tokens=True)
    logits = queue.match(encoding, frames)
    np.testing.assert_array_equal(logits, bundle.match(encoding, np.zeros(30, np.int64), frames))
    assert logits == pytest.approx([match_logit("a blue car", frame) for frame in frames], abs=1e-4)
    assert queue.match(encoding, frames[:0]).shape == (0,)


def test_searches_that_share_calls_get_what_they_get_alone(bench: Bench) -> None:
    texts = ["red", "a very long text about something blue and green", "yellow car", "zzz", "white"]
    asked = [(text, tokens(count, count)) for text, count in zip(texts, (3, 20, 1, 9, 33), strict=True)]
    futures = [bench.ask(text, frames) for text, frames in asked]
    bench.gate.open.set()
    for future, (text, frames) in zip(futures, asked, strict=True):
        alone = bench.bundle.match(
            bench.bundle.encode_text([text], tokens=True), np.zeros(len(frames), np.int64), frames
        )
        np.testing.assert_allclose(logits_of(future), alone, atol=1e-5)
    calls = bench.gate.calls[1:]
    assert sum(pairs for pairs, _ in calls) == 3 + 20 + 1 + 9 + 33
    assert all(pairs <= 8 for pairs, _ in calls)
    assert calls[0] == (8, 2), "the first call did not take from two searches"
    assert len(calls) == np.ceil(66 / 8), "calls ran less than full"


def test_a_small_search_does_not_wait_for_a_large_one(bench: Bench) -> None:
    large = bench.ask("red", tokens(800))
    small = bench.ask("blue", tokens(4))
    bench.gate.open.set()
    assert len(logits_of(large)) == 800
    assert len(logits_of(small)) == 4
    assert bench.gate.calls[1:3] == [(8, 1), (8, 2)]
    assert bench.gate.unfinished[1:] == [2, 2, *[1] * 99], "the small search has its answer after two calls"


def test_large_searches_take_turns(bench: Bench) -> None:
    futures = [bench.ask("red", tokens(count)) for count in (32, 24, 16)]
    bench.gate.open.set()
    assert [len(logits_of(future)) for future in futures] == [32, 24, 16]
    assert bench.gate.calls[1:] == [(8, 1)] * 9
    # Of 4, 3 and 2 calls each: the last to come is done after 2 rounds of 3 calls, the first after all 9.
    assert bench.gate.unfinished[1:] == [3, 3, 3, 3, 3, 3, 2, 2, 1]


def test_small_searches_fill_a_call_together(bench: Bench) -> None:
    futures = [bench.ask("green", tokens(2, seed)) for seed in range(12)]
    bench.gate.open.set()
    encoding = bench.bundle.encode_text(["green"], tokens=True)
    for seed, future in enumerate(futures):
        alone = bench.bundle.match(encoding, np.zeros(2, np.int64), tokens(2, seed))
        np.testing.assert_allclose(logits_of(future), alone, atol=1e-5)
    assert bench.gate.calls[1:] == [(8, 4), (8, 4), (8, 4)]


def test_a_failure_reaches_only_its_own_search(bench: Bench) -> None:
    nan = np.full((3, 4, 3), np.nan, np.float32)
    narrow = np.zeros((2, 4, 2), np.float32)
    good, broken, other, good_too = (
        bench.ask(text, frames)
        for text, frames in (("red", tokens(5)), ("red", nan), ("blue", narrow), ("blue", tokens(5)))
    )
    bench.gate.open.set()
    for future, text in ((good, "red"), (good_too, "blue")):
        expected = [match_logit(text, frame) for frame in tokens(5)]
        assert future.result(120) == pytest.approx(expected, abs=1e-4)
    with pytest.raises(BundleError, match=r"matcher\.onnx.*NaN"):
        broken.result(120)
    with pytest.raises(ValueError, match="frame_tokens has shape"):
        other.result(120)
    assert len(bench.ask("red", tokens(1)).result(120)) == 1, "the queue does not go on"


def test_clients_have_equal_turns_whatever_each_asks_for(bench: Bench) -> None:
    """Of three searches of one client and one of another, each as large: the single one is done first."""
    crowd = [bench.ask("red", tokens(32), client="crowd") for _ in range(3)]
    single = bench.ask("blue", tokens(32), client="single")
    bench.gate.open.set()
    assert [len(logits_of(future)) for future in (*crowd, single)] == [32] * 4
    # Every other call of 8 pairs is the single one's until it is done; the crowd's then take turns.
    assert bench.gate.unfinished[1:] == [4] * 8 + [3] * 6 + [2, 1]


def test_a_client_that_comes_waits_for_one_turn_of_a_large_one(bench: Bench) -> None:
    large = [bench.ask("red", tokens(8000), client="large") for _ in range(5)]
    small = bench.ask("blue", tokens(6), client="small")
    bench.gate.open.set()
    assert len(logits_of(small)) == 6
    bench.queue.close()
    assert bench.gate.calls[1:3] == [(8, 1), (8, 2)]
    assert bench.gate.unfinished[1:3] == [6, 6], "all of the large ones are still at work"
    for future in large:
        with pytest.raises(NotReadyError):
            future.result(120)


def test_a_deadline_that_has_passed_costs_no_call(bench: Bench) -> None:
    assert len(bench.ask("red", tokens(8), deadline=time.monotonic() - 1).result(120)) == 0
    late = bench.ask("red", tokens(8), deadline=time.monotonic() + 0.2)
    assert len(late.result(120)) == 0, "the deadline passed while the queue was busy"
    bench.gate.open.set()
    assert len(bench.ask("red", tokens(3), deadline=time.monotonic() + LONG).result(120)) == 3
    assert bench.gate.calls == [(1, 1), (3, 1)]


def test_what_was_matched_before_the_deadline_is_answered(bundle: Bundle) -> None:
    reached, release = threading.Event(), threading.Event()
    calls = 0

    def hold(_pairs: int, _searches: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            reached.set()
            release.wait(120)

    queue = MatchQueue(bundle, hold)
    frames = tokens(80)
    encoding = bundle.encode_text(["red"], tokens=True)
    passed = threading.Event()
    terms = MatchTerms(is_wanted=lambda: not passed.is_set())
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(queue.match, encoding, frames, terms)
        assert reached.wait(120)
        passed.set()
        release.set()
        logits = future.result(120)
    assert len(logits) == 24
    np.testing.assert_array_equal(logits, bundle.match(encoding, np.zeros(80, np.int64), frames)[:24])
    assert calls == 3, "nothing is matched for a client that has left"


def test_a_search_that_nobody_waits_for_is_given_up(bench: Bench) -> None:
    is_here = threading.Event()
    is_here.set()
    left = bench.ask("red", tokens(80), is_wanted=is_here.is_set)
    stays = bench.ask("blue", tokens(8))
    is_here.clear()
    bench.gate.open.set()
    assert len(logits_of(left)) == 0
    assert len(logits_of(stays)) == 8
    assert bench.gate.calls[1:] == [(8, 1)]


class Planned:
    """A queue that stands still, whose time per pair is known, and what waits in it."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bench = bench
        # A second a pair, and a clock that stands still: what fits is arithmetic.
        monkeypatch.setattr(bench.queue, "_pair_seconds", 1.0)
        monkeypatch.setattr(match_queue, "_PLANNED", 1.0)

    def pairs(self, wanted: int, seconds: float, *, least: int = 1, client: str | None = None) -> int:
        now = time.monotonic()
        terms = MatchTerms(client, now + seconds + 0.5)
        return self.bench.queue.pairs_in_time(wanted, least, terms)


def test_as_many_pairs_as_are_in_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = Planned(bench, monkeypatch)
    assert planned.pairs(1000, 2000) == 1000
    assert planned.pairs(1000, 300) == 300
    waiting = [bench.ask("red", tokens(100)), bench.ask("red", tokens(40))]
    # 40 + 40 + 40, then turns of two: 60 more, of which 30 are its own.
    assert planned.pairs(1000, 120) == 40
    assert planned.pairs(1000, 180) == 70
    assert planned.pairs(1000, 300) == 160
    # Another client has half of all turns.
    assert planned.pairs(1000, 120, client="other") == 60
    assert planned.pairs(1000, 400, client="other") == 260
    bench.gate.open.set()
    for future in waiting:
        logits_of(future)


def test_fewer_than_the_least_are_none_but_an_idle_queue_tries(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = Planned(bench, monkeypatch)
    assert planned.pairs(1000, 30, least=40) == 40, "an idle queue tries, and sees"
    waiting = bench.ask("red", tokens(100))
    assert planned.pairs(1000, 30, least=40) == 0
    assert planned.pairs(1000, 80, least=40) == 40
    assert planned.pairs(1000, -1, least=40) == 0
    bench.gate.open.set()
    logits_of(waiting)


def test_a_share_of_the_time_bounds_the_pairs_but_leaves_the_least(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.queue, "_pair_seconds", 1.0)
    terms = MatchTerms(deadline=time.monotonic() + LONG, seconds=50.0)
    assert bench.queue.pairs_in_time(1000, 20, terms) == 50
    assert bench.queue.pairs_in_time(1000, 60, terms) == 60
    assert bench.queue.pairs_in_time(30, 20, terms) == 30
    monkeypatch.setattr(bench.queue, "_pair_seconds", None)
    assert bench.queue.pairs_in_time(1000, 20, terms) == 1000, "nothing is known yet"


def test_closing_ends_who_waits_and_refuses_who_comes(bench: Bench) -> None:
    waiting = [bench.ask("red", tokens(100)) for _ in range(3)]
    closing = bench.pool.submit(bench.queue.close)
    for future in waiting:
        with pytest.raises(NotReadyError, match="is stopping"):
            future.result(120)
    bench.gate.open.set()
    closing.result(120)
    assert len(bench.gate.calls) == 1
    with pytest.raises(NotReadyError, match="is stopping"):
        bench.ask("red", tokens(1), wait=False).result(120)


def test_an_idle_queue_holds_no_thread_and_no_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_calls, "_IDLE_SECONDS", 0.01)
    bundle = Bundle.open(make_toy_bundle(tmp_path / "bundle"))
    queue = MatchQueue(bundle)
    encoding = bundle.encode_text(["red"], tokens=True)
    for _ in range(3):
        assert len(queue.match(encoding, tokens(2))) == 2
        until(lambda: not any(thread.name == "reelfind-matcher" for thread in threading.enumerate()))
    gone = weakref.ref(bundle)
    del bundle, queue
    gc.collect()
    assert gone() is None


def test_texts_are_padded_to_the_longest_of_the_batch(bundle: Bundle) -> None:
    texts = ["red", "one two three four blue", "a b"]
    stacked = stack_texts([bundle.encode_text([text], tokens=True) for text in texts])
    together = bundle.encode_text(texts, tokens=True)
    np.testing.assert_array_equal(stacked.input_ids, together.input_ids)
    np.testing.assert_array_equal(stacked.attention_mask, together.attention_mask)
    assert stacked.tokens is not None
    assert together.tokens is not None
    real = together.attention_mask.astype(bool)
    np.testing.assert_allclose(stacked.tokens[real], together.tokens[real], atol=1e-6)
    assert stacked.tokens.dtype == np.float32
