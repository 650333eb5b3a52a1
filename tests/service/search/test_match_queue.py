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
from model.runtime.errors import BundleError
from service.errors import NotReadyError
from service.search import match_queue
from service.search.match_queue import MatchQueue, stack_texts
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
        following: int = 0,
    ) -> Future[NDArray[np.float32] | None]:
        waiting = self.queue.waiting
        encoding = self.bundle.encode_text([text], tokens=True)
        future = self.pool.submit(
            self.queue.match, encoding, frame_tokens, deadline=deadline, following=following
        )
        if wait:
            until(lambda: self.queue.waiting > waiting or future.done())
        return future


def logits_of(future: Future[NDArray[np.float32] | None]) -> NDArray[np.float32]:
    """The answer of a search that has no deadline."""
    logits = future.result(120)
    assert logits is not None
    return logits


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
    empty = queue.match(encoding, frames[:0])
    assert empty is not None
    assert empty.shape == (0,)


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
    assert bench.ask("red", tokens(1)).result(120) is not None, "the queue does not go on"


def test_a_deadline_that_has_passed_costs_no_call(bench: Bench) -> None:
    assert bench.ask("red", tokens(8), deadline=time.monotonic() - 1).result(120) is None
    late = bench.ask("red", tokens(8), deadline=time.monotonic() + 0.2)
    assert late.result(120) is None, "the deadline passed while the queue was busy"
    bench.gate.open.set()
    assert bench.ask("red", tokens(3), deadline=time.monotonic() + LONG).result(120) is not None
    assert bench.gate.calls == [(1, 1), (3, 1)]


def test_a_search_that_cannot_be_done_in_time_is_told_at_once(bench: Bench) -> None:
    many = 10**12
    behind = bench.ask("red", tokens(4), deadline=time.monotonic() + LONG, following=many, wait=False)
    until(behind.done)
    assert behind.result() is None
    bench.gate.open.set()
    bench.first.result(120)
    until(lambda: bench.queue.waiting == 0)
    alone = bench.ask("red", tokens(100), deadline=time.monotonic() + LONG, following=many, wait=False)
    assert alone.result(120) is None
    assert bench.gate.calls[1:] == [(8, 1)], "a queue that is idle tries once, and sees"


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
    monkeypatch.setattr(match_queue, "_IDLE_SECONDS", 0.01)
    bundle = Bundle.open(make_toy_bundle(tmp_path / "bundle"))
    queue = MatchQueue(bundle)
    encoding = bundle.encode_text(["red"], tokens=True)
    for _ in range(3):
        assert queue.match(encoding, tokens(2)) is not None
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
