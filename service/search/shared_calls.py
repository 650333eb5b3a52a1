"""Lets searches that wait at the same time share the calls of a model or of an index.

Each search has a job of one unit or more, such as the pairs of a text and a frame to match. One thread fills
each call with units of the jobs that wait: clients have turns with equal shares, and so have the jobs of
each, so that a large job does not block a small one. What came while a call ran goes into the next one:
nobody waits for others to come. Jobs whose deadline has passed, or that nobody waits for any more, get no
further calls.

A search that finds nobody at work may run its job in its own thread, which costs nothing beside the call. The
thread of the calls starts with the first job that waits and ends after a while without any: so what it holds,
such as a bundle that is no longer served, is freed with the last search that holds it.

Searches take turns on the cores, and so do the calls. While all cores are taken, no call begins: what comes
until then shares it. A search that waits for its call leaves its core to others.
"""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from model.runtime.cores import Cores, elsewhere
from service.errors import NotReadyError
from service.search.fair_turns import FairTurns

Work = TypeVar("Work")

_IDLE_SECONDS = 2.0

#: Called after each call with the number of its units and of its jobs.
CallObserver = Callable[[int, int], None]


@dataclass(frozen=True)
class CallTerms:
    """On which terms a search waits for calls.

    Attributes:
        client: whose search it is: clients have turns with equal shares.
        deadline: in seconds of `time.monotonic()`; None: no deadline.
        is_wanted: whether somebody still waits for the answer; None: somebody does.
    """

    client: str | None = None
    deadline: float | None = None
    is_wanted: Callable[[], bool] | None = None

    def is_over(self, now: float) -> bool:
        """Whether further work is of no use."""
        return (self.deadline is not None and now >= self.deadline) or self.has_left

    @property
    def has_left(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self.is_wanted is not None and not self.is_wanted()


def first_stage_terms(terms: CallTerms | None) -> CallTerms:
    """The terms of the first stage, which always answers: a deadline that has passed does not count."""
    terms = terms or CallTerms()
    is_past = terms.deadline is not None and terms.deadline <= time.monotonic()
    return replace(terms, deadline=None) if is_past else terms


class Job(Generic[Work]):
    """What one search asks for: `size` units, of which the first `completed` have results.

    Attributes:
        work: what is asked for, and where its results go.
        size: the number of units.
        terms: on which terms it waits.
        key: jobs with other keys share no call with this one.
        taken: how many units calls have taken.
        completed: how many of them have results.
        error: why there are no more.
        done: set at its end.
    """

    def __init__(self, work: Work, size: int, terms: CallTerms, key: Hashable = None) -> None:
        self.work = work
        self.size = size
        self.terms = terms
        self.key = key
        self.taken = 0
        self.completed = 0
        self.error: Exception | None = None
        self.done = threading.Event()

    @property
    def units_left(self) -> int:
        """How many units no call has taken."""
        return self.size - self.taken

    def finish(self, error: Exception | None = None) -> None:
        """End it, unless it has ended."""
        if not self.done.is_set():
            self.error = error
            self.done.set()


#: A job, and which of its units a call takes.
Piece = tuple[Job[Work], slice]


class SharedCalls(ABC, Generic[Work]):
    """Batches the jobs of all searches. Every method may be called from any thread."""

    def __init__(self, name: str, cores: Cores | None = None) -> None:
        """`name` is that of the thread of the calls; `cores` are those that it takes turns on."""
        self._name = name
        self._cores = cores or Cores()
        self._wake = threading.Condition()
        # In the order of their turns; those of the call that runs are among them.
        self._jobs: list[Job[Work]] = []
        self._turns: FairTurns[str | None] = FairTurns()
        self._thread: threading.Thread | None = None
        #: Whether a search runs its job in its own thread.
        self._is_taken = False
        self._closed = False

    @abstractmethod
    def _call(self, pieces: Sequence[Piece[Work]]) -> None:
        """Run one call, and keep the results of each piece in the work of its job."""

    @abstractmethod
    def _room(self) -> int:
        """Most units of the next call, at least 1."""

    @property
    def waiting(self) -> int:
        """Number of searches with units that wait or are in a call."""
        with self._wake:
            return sum(not job.done.is_set() for job in self._jobs)

    def close(self, timeout: float = 5.0) -> None:
        """Fail the waiting searches with `NotReadyError`, and end the thread after its current call."""
        with self._wake:
            self._closed = True
            for job in self._jobs:
                job.finish(error=_closed())
            self._jobs.clear()
            self._wake.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(timeout)

    def _run(self, job: Job[Work], *, alone: bool = False) -> None:
        """Run a job: wait for its turns, or with `alone` run it in this thread if nobody is at work or waits.

        Some of its units are left without results if the deadline passes, or nobody waits for the answer any
        more. A call in this thread does not mind the deadline.

        Raises:
            NotReadyError: this was closed.
            Exception: what `_call` raises for this job.
        """
        deadline = job.terms.deadline
        with self._wake:
            if self._closed:
                raise _closed()
            is_idle = not self._is_taken and all(other.done.is_set() for other in self._jobs)
            # Whoever waits for a core may have such a job too.
            is_alone = alone and is_idle and not self._cores.num_waiting
            # What waits for nobody is not late because of this queue.
            is_over = job.terms.has_left if is_alone else job.terms.is_over(time.monotonic())
            if not job.size or is_over:
                return
            if is_alone:
                self._is_taken = True
            else:
                self._start_thread()
                self._jobs.append(job)
                self._wake.notify()
        if is_alone:
            self._run_here(job)
            return
        with elsewhere():
            job.done.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        with self._wake:
            job.finish()
            if job.error is not None:
                raise job.error

    def _run_here(self, job: Job[Work]) -> None:
        try:
            self._call([(job, slice(0, job.size))])
            job.completed = job.size
        finally:
            with self._wake:
                self._is_taken = False
                self._wake.notify()

    def _start_thread(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            thread.start()
            self._thread = thread

    def _serve(self) -> None:
        while self._wait_for_work():
            with self._cores.taken():
                # What came while it waited for the core shares the call.
                with self._wake:
                    batch = [] if self._is_taken else self._next_batch()
                if batch:
                    self._run_batch(batch)

    def _wait_for_work(self) -> bool:
        """Wait until a call can be made; False: the thread ends, since there was none for a while."""
        with self._wake:
            while self._is_taken or not self._has_work():
                if self._closed or not (self._wake.wait(_IDLE_SECONDS) or self._jobs):
                    self._thread = None
                    return False
            return True

    def _has_work(self) -> bool:
        """Whether units wait for a call. Jobs that have ended leave the queue."""
        self._drop_ended()
        if any(job.units_left for job in self._jobs):
            return True
        self._turns.reset()
        return False

    def _drop_ended(self) -> None:
        """Let jobs that are done, late, or waited for by nobody any more leave the queue."""
        now = time.monotonic()
        for job in self._jobs:
            if job.terms.is_over(now):
                job.finish()
        self._jobs = [job for job in self._jobs if not job.done.is_set()]

    def _next_batch(self) -> list[Piece[Work]]:
        """Choose the units of the next call, in turns, until it is full.

        The first turn decides on the key.
        """
        self._drop_ended()
        batch: list[Piece[Work]] = []
        room = self._room()
        while room:
            first_of_client: dict[str | None, Job[Work]] = {}
            for job in self._jobs:
                if job.units_left and (not batch or job.key == batch[0][0].key):
                    first_of_client.setdefault(job.terms.client, job)
            if not first_of_client:
                break
            client = self._turns.next(first_of_client)
            job = first_of_client[client]
            count = min(job.units_left, room)
            batch.append((job, slice(job.taken, job.taken + count)))
            job.taken += count
            room -= count
            self._turns.charge(client, count)
            self._jobs.remove(job)
            self._jobs.append(job)
        return batch

    def _run_batch(self, batch: list[Piece[Work]]) -> None:
        """Run one call. If it fails, run each job alone: only those at fault get the error."""
        try:
            self._call(batch)
        except Exception as error:
            if len(batch) == 1:
                with self._wake:
                    batch[0][0].finish(error=error)
                return
            for piece in batch:
                self._run_batch([piece])
            return
        with self._wake:
            for job, part in batch:
                job.completed = part.stop
                if part.stop == job.size:
                    job.finish()


def _closed() -> NotReadyError:
    return NotReadyError("The server is stopping. Try again when it has restarted.")
