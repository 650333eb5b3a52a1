"""The pool of searches: whose turn it is, who is refused, and when. Searches end when the test says so."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

import pytest

from model.runtime import cores as cores_module
from model.runtime.cores import Cores
from service.api.pool import Claim, SearchPool
from service.errors import OverloadedError


class Bench:
    """A pool, and searches that run until they are let go; `started` has their names in order."""

    def __init__(self, threads: int, max_waiting: int = 100) -> None:
        # Searches that wait for the test take cores, too.
        self.pool = SearchPool(threads, max_waiting, Cores(1000))
        self.started: list[str] = []
        self.shares: dict[str, float] = {}
        self._release: dict[str, threading.Event] = {}
        self.tasks: dict[str, asyncio.Task[str]] = {}

    async def ask(
        self,
        name: str,
        client: str = "",
        cost: float = 1.0,
        deadline: float | None = None,
        is_wanted: Callable[[], bool] | None = None,
    ) -> None:
        """Begin a search, and wait until it runs or waits."""
        release = self._release[name] = threading.Event()

        def search(share: float) -> str:
            self.started.append(name)
            self.shares[name] = share
            assert release.wait(60)
            return name

        before = self._state()
        task = asyncio.create_task(self.pool.run(search, Claim(client, cost, deadline, is_wanted)))
        self.tasks[name] = task
        await until(lambda: self._state() != before)

    def _state(self) -> tuple[int, int, int]:
        return self.pool.waiting, len(self.started), sum(task.done() for task in self.tasks.values())

    async def end(self, name: str) -> None:
        """Let a search end, and the one whose turn it is begin."""
        started, waiting = len(self.started), self.pool.waiting
        self._release[name].set()
        assert await self.tasks[name] == name
        await until(lambda: len(self.started) > started or self.pool.waiting == waiting)

    async def end_all(self) -> None:
        for release in self._release.values():
            release.set()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


def run(scene: Callable[[Bench], Awaitable[None]], threads: int = 1, max_waiting: int = 100) -> None:
    async def play() -> None:
        bench = Bench(threads, max_waiting)
        try:
            await scene(bench)
        finally:
            await bench.end_all()

    asyncio.run(play())


def test_no_more_searches_wait_than_may() -> None:
    async def scene(bench: Bench) -> None:
        for name in "abc":
            await bench.ask(name)
        await bench.ask("d")
        with pytest.raises(OverloadedError, match=r"2 searches are waiting already.*REELFIND_SEARCH_THREADS"):
            await bench.tasks["d"]
        await bench.end("a")
        await bench.ask("e")
        assert bench.started == ["a", "b"]
        assert bench.pool.waiting == 2

    run(scene, max_waiting=2)


def test_a_client_with_no_search_does_not_wait_for_the_threads_of_another() -> None:
    async def scene(bench: Bench) -> None:
        for number in range(6):
            await bench.ask(f"crowd {number}", "crowd")
        assert len(bench.started) == 2
        await bench.ask("single", "single")
        assert bench.started[-1] == "single"
        await bench.ask("second", "second")
        assert bench.pool.waiting == 5, "one thread more, not one for each client"

    run(scene, threads=2)


def test_clients_that_wait_take_turns_and_pay_for_what_they_ask() -> None:
    async def scene(bench: Bench) -> None:
        await bench.ask("first", "dear", cost=10)
        await bench.ask("reserve", "cheap")
        for number in range(3):
            await bench.ask(f"dear {number}", "dear", cost=10)
        for number in range(4):
            await bench.ask(f"cheap {number}", "cheap")
        await bench.end("first")
        assert bench.started[2:] == [], "the last thread is for a client that runs none"
        await bench.end("reserve")
        for name in ("cheap 0", "cheap 1", "cheap 2"):
            assert bench.started[-1] == name
            await bench.end(name)
        assert bench.started[-1] == "cheap 3"

    async def in_order(bench: Bench) -> None:
        await bench.ask("held", "other")
        await bench.ask("dear", "dear", cost=10)
        for number in range(3):
            await bench.ask(f"dear {number}", "dear", cost=10)
            await bench.ask(f"cheap {number}", "cheap")
        await bench.end("dear")
        order = []
        for _ in range(6):
            order.append(bench.started[-1])
            await bench.end(bench.started[-1])
        assert order == ["cheap 0", "cheap 1", "cheap 2", "dear 0", "dear 1", "dear 2"]

    run(in_order)


def test_a_full_queue_refuses_the_client_with_most_in_it() -> None:
    async def scene(bench: Bench) -> None:
        for number in range(5):
            await bench.ask(f"crowd {number}", "crowd")
        await bench.ask("kept", "other")
        await bench.ask("single", "single")
        assert bench.pool.waiting == 4
        with pytest.raises(OverloadedError, match="the limit"):
            await bench.tasks["crowd 4"]
        await bench.ask("crowd 5", "crowd")
        with pytest.raises(OverloadedError, match="the limit"):
            await bench.tasks["crowd 5"]

    run(scene, max_waiting=4)


def test_a_search_gets_its_share_of_the_machine() -> None:
    async def scene(bench: Bench) -> None:
        await bench.ask("alone", "crowd")
        for number in range(3):
            await bench.ask(f"crowd {number}", "crowd")
        await bench.ask("single", "single")
        assert bench.shares["alone"] == 1
        assert bench.shares["crowd 0"] == 1 / 2
        assert bench.shares["single"] == 1 / 2
        await bench.end("alone")
        await bench.end("crowd 0")
        # Two clients; "crowd" runs one and has one waiting.
        assert bench.shares["crowd 1"] == 1 / 2 / 2

    run(scene, threads=2)


def test_a_deadline_that_passes_in_the_queue_ends_the_wait() -> None:
    async def scene(bench: Bench) -> None:
        await bench.ask("long")
        await bench.ask("late", deadline=time.monotonic() + 0.05)
        with pytest.raises(OverloadedError, match="deadline of this search has passed"):
            await bench.tasks["late"]
        assert bench.pool.waiting == 0
        await bench.end("long")
        assert bench.started == ["long"]

    run(scene)


def test_who_cannot_be_in_time_is_refused_at_once() -> None:
    async def scene(bench: Bench) -> None:
        bench.pool._intervals[2] = 3.0  # as if a search had begun every 3 s while two or three waited
        for name in "abc":
            await bench.ask(name)
        await bench.ask("late", deadline=time.monotonic() + 5)
        with pytest.raises(OverloadedError, match=r"2 searches.*would begin in about 6\.0 s") as caught:
            await bench.tasks["late"]
        assert caught.value.retry_seconds == 6.0
        await bench.ask("in time", deadline=time.monotonic() + 60)
        await bench.ask("of another client", "other", deadline=time.monotonic() + 5)
        assert bench.started == ["a", "of another client"]
        assert bench.pool.waiting == 3

    run(scene)


def test_the_time_between_starts_is_learnt() -> None:
    async def scene(bench: Bench) -> None:
        for name in "abcd":
            await bench.ask(name)
        await bench.end("a")
        assert bench.pool._intervals == {}, "one start has no distance to another"
        began = time.monotonic()
        await asyncio.sleep(0.02)
        await bench.end("b")
        assert list(bench.pool._intervals) == [2], "two waited"
        assert 0.02 <= bench.pool._intervals[2] <= time.monotonic() - began + 0.02

    run(scene)


def test_a_search_whose_client_left_never_starts() -> None:
    async def scene(bench: Bench) -> None:
        await bench.ask("long")
        await bench.ask("left", is_wanted=lambda: False)
        await bench.ask("stays")
        await bench.end("long")
        with pytest.raises(OverloadedError, match="Nobody waits"):
            await bench.tasks["left"]
        assert bench.started == ["long", "stays"]

    run(scene)


def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    async def scene(bench: Bench) -> None:
        await bench.ask("long")
        for name in ("cancelled", "stays"):
            await bench.ask(name)
        bench.tasks["cancelled"].cancel()
        with pytest.raises(asyncio.CancelledError):
            await bench.tasks["cancelled"]
        assert bench.pool.waiting == 1
        await bench.end("long")
        await bench.end("stays")
        assert bench.started == ["long", "stays"]
        await bench.ask("after")
        assert bench.started[-1] == "after"

    run(scene)


def test_searches_take_turns_on_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores_module, "_PATIENCE_SECONDS", 60.0)
    cores = Cores(1)

    async def scene(bench: Bench) -> None:
        bench.pool = SearchPool(2, 100, cores)
        await bench.ask("first")
        second = asyncio.create_task(bench.pool.run(lambda _share: cores.num_waiting))
        await until(lambda: cores.num_waiting == 1)
        assert bench.pool.running == 2
        await bench.end("first")
        assert await second == 0

    run(scene)
