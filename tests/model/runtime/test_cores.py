"""Threads that take turns on cores: how many compute at once, in which order, and who does meanwhile."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from model.runtime import cores as module
from model.runtime.cores import Cores, elsewhere

_LONG = 120.0


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", _LONG)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


class Turn:
    """A thread that asks for a core, and holds it until the test says so."""

    def __init__(self, cores: Cores, pool: ThreadPoolExecutor) -> None:
        self.has_begun = threading.Event()
        self.may_end = threading.Event()
        waiting = cores.num_waiting
        self._future = pool.submit(self._run, cores)
        until(lambda: self.has_begun.is_set() or cores.num_waiting > waiting)

    def _run(self, cores: Cores) -> None:
        with cores.taken():
            self.has_begun.set()
            assert self.may_end.wait(_LONG)

    def end(self) -> None:
        assert self.has_begun.wait(_LONG)
        self.may_end.set()
        self._future.result(_LONG)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _LONG
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_as_many_compute_as_there_are_cores_in_the_order_in_which_they_ask(pool: ThreadPoolExecutor) -> None:
    cores = Cores(2)
    turns = [Turn(cores, pool) for _ in range(5)]
    for number, turn in enumerate(turns):
        begun = [each.has_begun.is_set() for each in turns]
        assert begun == [place < number + 2 for place in range(5)]
        turn.end()
        if number + 2 < len(turns):
            assert turns[number + 2].has_begun.wait(_LONG)
    assert cores.num_waiting == 0


def test_another_thread_computes_while_one_waits_elsewhere(pool: ThreadPoolExecutor) -> None:
    cores = Cores(1)
    with cores.taken():
        with elsewhere():
            other = Turn(cores, pool)
            assert other.has_begun.wait(_LONG)
            with elsewhere():  # it has no core to give up by now
                other.end()
        last = Turn(cores, pool)
        assert not last.has_begun.is_set()
    last.end()


def test_a_core_is_given_up_and_taken_again_where_something_fails(pool: ThreadPoolExecutor) -> None:
    cores = Cores(1)

    def fail() -> None:
        with cores.taken(), elsewhere():
            raise LookupError("nothing there")

    for _ in range(2):
        with pytest.raises(LookupError, match="nothing there"):
            pool.submit(fail).result(_LONG)
    turn = Turn(cores, pool)
    assert turn.has_begun.is_set()
    turn.end()


def test_threads_that_hold_all_cores_and_wait_for_others_do_not_stop_them(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    cores = Cores(1)
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.01)
    is_set = threading.Event()

    def set_it() -> None:
        with cores.taken():
            is_set.set()

    with cores.taken():
        future: Future[None] = pool.submit(set_it)
        assert is_set.wait(_LONG)
        future.result(_LONG)
    # One computes at once again.
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", _LONG)
    first, second = Turn(cores, pool), Turn(cores, pool)
    assert not second.has_begun.is_set()
    first.end()
    second.end()


def test_a_thread_cannot_take_two_cores() -> None:
    cores = Cores(2)
    with cores.taken(), pytest.raises(RuntimeError, match="already"), cores.taken():
        pass
    with pytest.raises(ValueError, match="count is 0"):
        Cores(0)
