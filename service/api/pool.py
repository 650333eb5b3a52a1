"""A pool of threads for searches: fair turns for clients, a limit to those that wait, and their deadlines.

All methods are called in the event loop's thread.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

from model.runtime.cores import Cores
from model.runtime.tracing import span
from service.errors import OverloadedError
from service.search.fair_turns import FairTurns

Result = TypeVar("Result")

#: Decides where a call is made. It gets the call's share of the machine, and what makes the call here.
Route = Callable[[float, Callable[[], Awaitable[Result]]], Awaitable[Result]]

# Weight of one start in the running estimate of the time between starts.
_LEARNING = 0.2


@dataclass(frozen=True)
class Claim:
    """What a call of the pool asks for.

    Attributes:
        client: whose call it is: clients that wait take turns.
        cost: what a turn costs its client, in any unit that is the same for all.
        deadline: in seconds of `time.monotonic()`; a call that waits longer is refused. None: none.
        is_wanted: whether somebody still waits for the result; None: somebody does.
    """

    client: str = ""
    cost: float = 1.0
    deadline: float | None = None
    is_wanted: Callable[[], bool] | None = None


class _Turn:
    """A call that waits; `granted` is set when it may start, or gets the error that refuses it."""

    def __init__(self, claim: Claim, granted: asyncio.Future[None]) -> None:
        self.claim = claim
        self.granted = granted


class SearchPool:
    """Runs functions in threads so that the event loop never waits for a model.

    One client runs at most `threads` at once; one thread more is kept for clients that run none. They
    take turns on `cores`: the others wait for those, or for what they have asked for. Where calls may also be
    made elsewhere (see `Route`), `capacity` says how many of one client run at once, here and there.
    """

    def __init__(
        self,
        threads: int,
        max_waiting: int,
        cores: Cores | None = None,
        capacity: Callable[[], int] | None = None,
    ) -> None:
        self._cores = cores or Cores()
        self._capacity = capacity or (lambda: threads)
        self._max_waiting = max_waiting
        self._limiter = CapacityLimiter(threads + 1)
        self._running: Counter[str] = Counter()
        self._num_running = 0
        self._waiting: dict[str, deque[_Turn]] = {}
        self._turns: FairTurns[str] = FairTurns()
        self._last_start: float | None = None
        # Seconds between starts, by the number of calls that wait, in powers of two: searches cost less when
        # more wait, so that an estimate made with few would refuse many for nothing.
        self._intervals: dict[int, float] = {}

    @property
    def waiting(self) -> int:
        """Number of calls that wait for a thread."""
        return sum(map(len, self._waiting.values()))

    @property
    def running(self) -> int:
        """Number of calls that have a thread."""
        return self._num_running

    async def run(
        self,
        function: Callable[[float], Result],
        claim: Claim | None = None,
        route: Route[Result] | None = None,
    ) -> Result:
        """Call the function in a thread and return its result; or what the `route` comes to, see there.

        It gets its share of the machine, from 0 to 1: that of its client among all that run or wait here,
        divided among the client's own calls.

        Raises:
            OverloadedError: as many calls as may wait are waiting already; or the deadline would pass, or has
                passed, before the call's turn comes.
        """
        claim = claim or Claim()
        if not self._may_start(claim.client):
            with span("wait"):
                await self._wait(claim)
        else:
            self._start(claim)
        share = self._share(claim.client)

        def compute() -> Result:
            with self._cores.taken():
                return function(share)

        async def here() -> Result:
            return await to_thread.run_sync(compute, limiter=self._limiter)

        try:
            return await (here() if route is None else route(share, here))
        finally:
            self._end(claim)

    def _may_start(self, client: str) -> bool:
        return self._num_running < self._capacity() + (self._running[client] == 0)

    def _start(self, claim: Claim) -> None:
        self._turns.charge(claim.client, claim.cost)
        self._num_running += 1
        self._running[claim.client] += 1

    def _end(self, claim: Claim) -> None:
        self._num_running -= 1
        self._running[claim.client] -= 1
        if not self._running[claim.client]:
            del self._running[claim.client]
        self._start_waiting()

    def _share(self, client: str) -> float:
        clients = len(self._running.keys() | self._waiting.keys())
        return 1 / (clients * (self._running[client] + len(self._waiting.get(client, ()))))

    async def _wait(self, claim: Claim) -> None:
        """Return once the call may start, and has been counted as running."""
        loop = asyncio.get_running_loop()
        seconds_left = None if claim.deadline is None else claim.deadline - time.monotonic()
        if self.waiting >= self._max_waiting:
            self._make_room(claim.client)
        if seconds_left is not None:
            wait = self._expected_wait(claim.client)
            if wait > seconds_left:
                raise OverloadedError(
                    f"{self.waiting} searches are waiting, so that this one would begin in about {wait:.1f} "
                    "s, after its deadline. Try again later, or raise deadline_ms.",
                    retry_seconds=wait,
                )
        turn = _Turn(claim, loop.create_future())
        self._waiting.setdefault(claim.client, deque()).append(turn)
        timer = None
        if seconds_left is not None:
            timer = loop.call_later(
                seconds_left, self._refuse, turn, "The deadline of this search has passed"
            )
        try:
            await turn.granted
        except asyncio.CancelledError:
            if turn.granted.cancelled():
                self._remove(turn)
            elif turn.granted.exception() is None:  # it was granted just before
                self._end(claim)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _make_room(self, client: str) -> None:
        """Refuse the latest call of the client with most that wait: that may be the one who asks."""
        fullest = max(self._waiting, key=lambda each: len(self._waiting[each]), default=client)
        waiting = self.waiting
        text = f"{waiting} searches are waiting already, which is the limit"
        if len(self._waiting.get(fullest, ())) <= len(self._waiting.get(client, ())) + 1:
            raise _overloaded(text)
        self._refuse(self._waiting[fullest][-1], text)

    def _refuse(self, turn: _Turn, reason: str) -> None:
        if not turn.granted.done():
            turn.granted.set_exception(_overloaded(reason))
            self._remove(turn)

    def _remove(self, turn: _Turn) -> None:
        turns = self._waiting.get(turn.claim.client, deque())
        if turn in turns:
            turns.remove(turn)
        if not turns:
            self._waiting.pop(turn.claim.client, None)

    def _expected_wait(self, client: str) -> float:
        """Seconds until a new call of a client would start; 0 while as many have never waited."""
        own = len(self._waiting.get(client, ()))
        ahead = sum(min(len(turns), own) for turns in self._waiting.values())
        return ahead * self._intervals.get(self.waiting.bit_length(), 0.0)

    def _start_waiting(self) -> None:
        now = time.monotonic()
        while clients := [client for client in self._waiting if self._may_start(client)]:
            turn = self._waiting[self._turns.next(clients)][0]
            self._remove(turn)
            if turn.claim.is_wanted is not None and not turn.claim.is_wanted():
                turn.granted.set_exception(_overloaded("Nobody waits for this search any more"))
                continue
            if turn.granted.done():
                continue
            self._start(turn.claim)
            turn.granted.set_result(None)
            if self._last_start is not None:
                interval, size = now - self._last_start, (self.waiting + 1).bit_length()
                before = self._intervals.get(size, interval)
                self._intervals[size] = before + _LEARNING * (interval - before)
            self._last_start = now
        if not self._waiting:
            self._last_start = None
            if not self._num_running:
                self._turns.reset()


def _overloaded(reason: str) -> OverloadedError:
    return OverloadedError(
        f"{reason}. Try again in a moment, or raise REELFIND_SEARCH_THREADS or REELFIND_MAX_WAITING_SEARCHES."
    )
