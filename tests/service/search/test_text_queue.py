"""The text encoder's queue: what it gives equals the bundle alone, whoever shares its calls."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from model.runtime import cores as cores_module
from model.runtime.bundle import Bundle, TextEncoding, default_bundle_path
from model.runtime.cores import Cores
from model.runtime.errors import BundleError
from service.errors import NotReadyError, OverloadedError
from service.search import text_queue
from service.search.shared_calls import CallTerms
from service.search.text_queue import TextQueue
from tests.support.toy_bundle import ARTICLES, make_toy_bundle, toy_graphs

_LONG = 120.0
#: Of one token and of more than a call's, of one text and of several.
TEXTS = (
    ["red"],
    ["a green field"],
    ["the blue sky over a yellow house and a very long road that leads to the sea"],
    ["white", "black and magenta", "a cyan car"],
    ["zzz"],
    ["blue " * 40],
    ["A MAN IN A RED COAT walks, slowly, past the river; his dog runs ahead of him."],
    ["früher"],
)


class Gate:
    """Watches a queue's calls; while shut, the queue stands still after its first one."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []
        self.threads: list[str] = []
        self.reached = threading.Event()
        self.open = threading.Event()

    def __call__(self, texts: int, searches: int) -> None:
        self.calls.append((texts, searches))
        self.threads.append(threading.current_thread().name)
        self.reached.set()
        self.open.wait(_LONG)


class Held:
    """A queue that is held by a search, with threads to search in."""

    def __init__(self, bundle: Bundle, pool: ThreadPoolExecutor) -> None:
        self.gate = Gate()
        self.queue = TextQueue(bundle, self.gate)
        self.pool = pool
        self.first = pool.submit(self.queue.encode, ["red"])
        assert self.gate.reached.wait(_LONG)

    def ask(
        self,
        texts: Sequence[str],
        *,
        tokens: bool = False,
        client: str | None = None,
        deadline: float | None = None,
        is_wanted: Callable[[], bool] | None = None,
    ) -> Future[TextEncoding]:
        """A search that waits in the queue, unless it is answered or refused at once."""
        waiting = self.queue.waiting
        terms = CallTerms(client, deadline, is_wanted)
        future = self.pool.submit(self.queue.encode, texts, tokens=tokens, terms=terms)
        until(lambda: self.queue.waiting > waiting or future.done())
        return future

    def calls_after(self, *futures: Future[TextEncoding]) -> list[tuple[int, int]]:
        """The calls after the first one, once the gate is open and all of these are answered or refused."""
        self.gate.open.set()
        for future in futures:
            future.exception(_LONG)
        return self.gate.calls[1:]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _LONG
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def text_graph(change: Callable[[onnx.GraphProto], object]) -> dict[str, bytes]:
    """The toy's graphs with another text encoder."""
    graphs = toy_graphs()
    model = onnx.load_from_string(graphs["text_encoder.onnx"])
    change(model.graph)
    return {**graphs, "text_encoder.onnx": model.SerializeToString()}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_toy_bundle(tmp_path_factory.mktemp("texts") / "bundle"), max_batch=8)


@pytest.fixture(autouse=True)
def _as_large_as_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls are as large as the bundle's, however slow the machine is."""
    monkeypatch.setattr(text_queue, "_CALL_SECONDS", 1e9)


@pytest.fixture
def held(toy: Bundle) -> Iterator[Held]:
    with ThreadPoolExecutor(16) as pool:
        held = Held(toy, pool)
        yield held
        held.gate.open.set()
        held.queue.close()


def assert_same(found: TextEncoding, alone: TextEncoding) -> None:
    np.testing.assert_array_equal(found.input_ids, alone.input_ids)
    np.testing.assert_array_equal(found.attention_mask, alone.attention_mask)
    np.testing.assert_allclose(found.embedding, alone.embedding, atol=2e-6)
    np.testing.assert_allclose(found.salience, alone.salience, atol=2e-6)
    assert (found.tokens is None) == (alone.tokens is None)
    if found.tokens is not None and alone.tokens is not None:
        real = alone.attention_mask > 0
        np.testing.assert_allclose(found.tokens[real], alone.tokens[real], atol=1e-5)


@pytest.mark.parametrize("kind", ["toy", "mini"])
def test_many_searches_at_once_get_what_each_gets_alone(kind: str, toy: Bundle) -> None:
    """Mixed texts from 16 threads, with the tokens of some, while calls are shared."""
    bundle = toy if kind == "toy" else Bundle.open(default_bundle_path(), max_batch=8)
    asked = [(texts, tokens) for texts in TEXTS for tokens in (False, kind == "toy")] * 3
    alone = [bundle.encode_text(texts, tokens=tokens) for texts, tokens in asked]
    with ThreadPoolExecutor(16) as pool:
        held = Held(bundle, pool)
        futures = [pool.submit(held.queue.encode, texts, tokens=tokens) for texts, tokens in asked]
        until(lambda: held.queue.waiting == 15)
        calls = held.calls_after(*futures)
        for future, expected in zip(futures, alone, strict=True):
            assert_same(future.result(), expected)
        held.queue.close()
    assert sum(texts for texts, _ in calls) == sum(len(texts) for texts, _ in asked)
    assert max(searches for _, searches in calls) > 1, "no call was shared"


def test_a_search_that_finds_the_encoder_idle_waits_for_nobody(toy: Bundle) -> None:
    """Each has a call at once, in its own thread; no thread is started."""
    gate = Gate()
    gate.open.set()
    queue = TextQueue(toy, gate)
    for texts in TEXTS:
        assert_same(queue.encode(texts), toy.encode_text(texts))
    assert gate.calls == [(len(texts), 1) for texts in TEXTS]
    assert set(gate.threads) == {threading.current_thread().name}
    with pytest.raises(OverloadedError):
        queue.encode(["red"], terms=CallTerms(is_wanted=lambda: False))
    assert not any(thread.name == "reelfind-texts" for thread in threading.enumerate())


def test_what_waits_while_the_encoder_works_is_encoded_by_its_next_call(held: Held) -> None:
    futures = [held.ask([text]) for text in ("blue", "a red car", "zzz")]
    assert held.calls_after(*futures) == [(3, 3)]
    assert held.gate.threads[1:] == ["reelfind-texts"]


def test_texts_share_calls_with_those_of_their_length_and_kind(tmp_path: Path) -> None:
    folder = make_toy_bundle(tmp_path / "bundle", context_length=64)
    with ThreadPoolExecutor(16) as pool:
        held = Held(Bundle.open(folder), pool)
        short, longer, long, longest = ("red " * count for count in (2, 16, 33, 60))
        futures = [held.ask([text]) for text in (short, long, longer, longest)]
        futures.append(held.ask([short], tokens=True))
        assert held.calls_after(*futures) == [(2, 2), (2, 2), (1, 1)]
        held.queue.close()


def test_a_large_search_does_not_hold_up_a_small_one(held: Held) -> None:
    large = held.ask(["red"] * 40, client="large")
    small = held.ask(["blue"], client="small")
    # The small one and 7 of the large one fill the second call of 8.
    assert held.calls_after(large, small) == [(8, 1), (8, 2), (8, 1), (8, 1), (8, 1), (1, 1)]
    assert_same(large.result(), held.queue.bundle.encode_text(["red"] * 40))


def test_a_call_is_no_larger_than_what_takes_its_time(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    futures = [held.ask(["red"]) for _ in range(6)]
    held.queue._text_seconds = 1.0
    monkeypatch.setattr(text_queue, "_LEARNING", 0.0)
    monkeypatch.setattr(text_queue, "_LEAST_ROOM", 1)
    monkeypatch.setattr(text_queue, "_CALL_SECONDS", 2.5)
    assert held.calls_after(*futures) == [(2, 2)] * 3


def test_a_slow_machine_shares_calls_too(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    futures = [held.ask(["red"]) for _ in range(6)]
    held.queue._text_seconds = 1.0
    monkeypatch.setattr(text_queue, "_LEAST_ROOM", 4)
    monkeypatch.setattr(text_queue, "_CALL_SECONDS", 0.001)
    assert held.calls_after(*futures) == [(4, 4), (2, 2)]


def test_who_waits_until_the_deadline_or_has_left_is_left_out(held: Held) -> None:
    is_here = threading.Event()
    is_here.set()
    left = held.ask(["red"], is_wanted=is_here.is_set)
    stays = held.ask(["blue"], deadline=time.monotonic() + 3600)
    too_slow = -1
    for seconds in (1, 10, 60):  # on a busy machine the first may come after its deadline, and just waits
        too_slow += 1
        deadline = time.monotonic() + seconds
        late = held.ask(["green"], deadline=deadline)
        if time.monotonic() < deadline:
            break
    with pytest.raises(OverloadedError, match="deadline of this search passed"):
        late.result(_LONG)
    is_here.clear()
    (call,) = held.calls_after(left, stays)
    assert call == (1 + too_slow, 1 + too_slow)
    with pytest.raises(OverloadedError):
        left.result()
    assert_same(stays.result(), held.queue.bundle.encode_text(["blue"]))


def test_the_first_stage_answers_a_search_whose_deadline_has_passed_before(held: Held) -> None:
    late = held.ask(["green"], deadline=time.monotonic() - 1)
    assert held.calls_after(late) == [(1, 1)]
    assert_same(late.result(), held.queue.bundle.encode_text(["green"]))


def test_an_error_reaches_only_its_own_search(tmp_path: Path) -> None:
    """The model gives NaN for a text with one word; tokenisers refuse a text without any."""

    def break_word(graph: onnx.GraphProto) -> None:
        (rows,) = [each for each in graph.initializer if each.name == "rows"]
        values = numpy_helper.to_array(rows).copy()
        values[-len(ARTICLES) + ARTICLES.index("an")] = np.nan
        rows.CopyFrom(numpy_helper.from_array(values, "rows"))

    bundle = Bundle.open(make_toy_bundle(tmp_path / "bundle", graphs=text_graph(break_word)))
    with ThreadPoolExecutor(16) as pool:
        held = Held(bundle, pool)
        good, broken, empty, good_too = (held.ask([x]) for x in ("red", "an apple", " ", "a blue car"))
        held.calls_after(good, broken, empty, good_too)
        for future, text in ((good, "red"), (good_too, "a blue car")):
            assert_same(future.result(), bundle.encode_text([text]))
        with pytest.raises(BundleError, match=r"text_encoder\.onnx"):
            broken.result()
        with pytest.raises(ValueError, match="is empty"):
            empty.result()
        held.queue.close()


def test_texts_that_change_one_another_share_no_call(tmp_path: Path) -> None:
    def mix(graph: onnx.GraphProto) -> None:
        """Let the greatest of a call count in all of its texts, as rounding to whole numbers does."""
        place = next(i for i, node in enumerate(graph.node) if node.output[0] == "sum")
        graph.node[place].output[0] = "own"
        new = [
            helper.make_node("ReduceMax", ["own", "batch"], ["greatest"], keepdims=1),
            helper.make_node("Mul", ["greatest", "little"], ["added"]),
            helper.make_node("Add", ["own", "added"], ["sum"]),
        ]
        for offset, node in enumerate(new):
            graph.node.insert(place + 1 + offset, node)
        graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), "batch"))
        graph.initializer.append(numpy_helper.from_array(np.array(0.1, np.float32), "little"))

    bundle = Bundle.open(make_toy_bundle(tmp_path / "bundle", graphs=text_graph(mix)))
    assert not bundle.encodes_texts_apart
    texts = ["red", "a blue car", "white and black"]
    assert not np.allclose(bundle.encode_text(texts).embedding[0], bundle.encode_text(["red"]).embedding[0])
    with ThreadPoolExecutor(16) as pool:
        held = Held(bundle, pool)
        futures = [held.ask([text]) for text in texts]
        assert held.calls_after(*futures) == [(1, 1)] * 3
        for future, text in zip(futures, texts, strict=True):
            assert_same(future.result(), bundle.encode_text([text]))
        held.queue.close()


def test_without_sharing_nobody_waits(toy: Bundle) -> None:
    gate = Gate()
    queue = TextQueue(toy, gate, is_shared=False)
    assert_same(queue.encode(["a red car"], tokens=True), toy.encode_text(["a red car"], tokens=True))
    assert not gate.calls


def test_closing_ends_who_waits_and_refuses_who_comes(held: Held) -> None:
    waiting = [held.ask(["red"]) for _ in range(3)]
    held.queue.close(timeout=0)
    for future in waiting:
        with pytest.raises(NotReadyError, match="is stopping"):
            future.result(_LONG)
    with pytest.raises(NotReadyError, match="is stopping"):
        held.queue.encode(["red"])
    held.gate.open.set()
    assert_same(held.first.result(_LONG), held.queue.bundle.encode_text(["red"]))


def _waits(cores: Cores, number: int) -> bool:
    return cores.num_waiting == number


def test_texts_share_a_call_that_come_while_it_waits_for_a_core(
    toy: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores_module, "_PATIENCE_SECONDS", _LONG)
    cores = Cores(1)
    calls: list[tuple[int, int]] = []
    queue = TextQueue(toy, lambda texts, searches: calls.append((texts, searches)), cores=cores)
    texts = ["red", "green green", "blue"]

    def search(text: str) -> TextEncoding:
        with cores.taken():
            return queue.encode([text])

    with ThreadPoolExecutor(len(texts)) as pool:
        with cores.taken():
            futures = []
            for number, text in enumerate(texts, 1):
                futures.append(pool.submit(search, text))
                until(partial(_waits, cores, number))
        found = [future.result(_LONG) for future in futures]
    assert calls == [(3, 3)]
    for text, encoding in zip(texts, found, strict=True):
        np.testing.assert_allclose(encoding.embedding, toy.encode_text([text]).embedding, atol=1e-6)
    # With no other search about, one is encoded in its own thread.
    search("white")
    assert calls == [(3, 3), (1, 1)]
    queue.close()
