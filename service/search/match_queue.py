"""Runs a bundle's matching head for all searches: pairs of concurrent searches share its calls.

One thread fills each call of the model with pairs of the waiting searches: clients have turns with equal
shares, and so have the searches of each, so that a large search does not block a small one. What is matched
when a search's deadline passes is not lost: its first pairs are answered. The thread starts with the first
pair and ends after a while without pairs: so a bundle that is no longer served is freed with the last search
that holds it.

Shapes: B pairs of a text and a frame, P' tokens a frame, L text tokens, H and T widths of the tokens.
"""

import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.runtime.bundle import Bundle, TextEncoding
from service.errors import NotReadyError
from service.search.fair_turns import FairTurns

_IDLE_SECONDS = 2.0
# Weight of one full call in the running estimate of the time per pair; high, so that the estimate follows a
# machine that slows down.
_LEARNING = 0.5
# Share of the time until a deadline that pairs are planned for: later searches take turns too.
_PLANNED = 0.8

#: Called after each call of the model with the number of its pairs and of its searches.
BatchObserver = Callable[[int, int], None]


@dataclass(frozen=True)
class MatchTerms:
    """On which terms a search uses the matching head.

    Attributes:
        client: whose search it is: clients have turns with equal shares.
        deadline: in seconds of `time.monotonic()`; None: no deadline.
        seconds: of the model's time that the search may take, so that others are in time too; None: any.
        is_wanted: whether somebody still waits for the answer; None: somebody does.
    """

    client: str | None = None
    deadline: float | None = None
    seconds: float | None = None
    is_wanted: Callable[[], bool] | None = None

    def is_over(self, now: float) -> bool:
        """Whether further work is of no use."""
        if self.deadline is not None and now >= self.deadline:
            return True
        return self.is_wanted is not None and not self.is_wanted()


class _Job:
    """The pairs of one search, of which the first `matched` have logits. `done` is set at its end."""

    def __init__(self, text: TextEncoding, frame_tokens: NDArray[np.float32], terms: MatchTerms) -> None:
        self.text = text
        self.frame_tokens = frame_tokens
        self.terms = terms
        self.taken = 0
        self.matched = 0
        self.logits = np.empty(len(frame_tokens), np.float32)
        self.error: Exception | None = None
        self.done = threading.Event()

    @property
    def pairs_left(self) -> int:
        return len(self.frame_tokens) - self.taken

    def finish(self, error: Exception | None = None) -> None:
        if not self.done.is_set():
            self.error = error
            self.done.set()


#: A job, and which of its pairs a call of the model takes.
_Piece = tuple[_Job, slice]


class MatchQueue:
    """Batches the pairs of all searches for the matching head of one bundle.

    Every method may be called from any thread.
    """

    def __init__(self, bundle: Bundle, observe: BatchObserver | None = None) -> None:
        self.bundle = bundle
        self.observe = observe
        self._wake = threading.Condition()
        # In the order of their turns.
        self._jobs: list[_Job] = []
        self._turns: FairTurns[str | None] = FairTurns()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._pair_seconds: float | None = None

    @property
    def waiting(self) -> int:
        """Number of searches with pairs in the queue or in the model."""
        with self._wake:
            return sum(not job.done.is_set() for job in self._jobs)

    def match(
        self, text: TextEncoding, frame_tokens: NDArray[np.float32], terms: MatchTerms | None = None
    ) -> NDArray[np.float32]:
        """Match one text with frames. Waits for its turns in the model's calls.

        Args:
            text: one text, encoded with tokens.
            frame_tokens: tokens of the frames, float32, shape [B, P', H].
            terms: whose turns it takes, and how long.

        Returns:
            The logits, float32 [B]. Fewer, those of the first frames, if the deadline passes before the
            last is matched, or nobody waits for the answer any more.

        Raises:
            BundleError: the model fails on these pairs.
            NotReadyError: the queue was closed.
        """
        job = _Job(text, frame_tokens, terms or MatchTerms())
        deadline = job.terms.deadline
        with self._wake:
            if self._closed:
                raise _closed()
            if len(frame_tokens) == 0 or job.terms.is_over(time.monotonic()):
                return job.logits[:0]
            self._start_thread()
            self._jobs.append(job)
            self._wake.notify()
        job.done.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        with self._wake:
            job.finish()
            if job.error is not None:
                raise job.error
            return job.logits[: job.matched]

    def pairs_in_time(self, wanted: int, least: int, terms: MatchTerms) -> int:
        """How many of `wanted` pairs to match, judged by the recent time per pair and the pairs that wait.

        Args:
            wanted: number of pairs, 0 or more.
            least: fewer are of no use; at most `wanted`. The share `terms.seconds` does not go below it.
            terms: whose turns they take, and how long.

        Returns:
            From `least` to `wanted`; or 0 if not even `least` can be matched before the deadline.
        """
        with self._wake:
            now = time.monotonic()
            if terms.is_over(now):
                return 0
            cost = self._pair_seconds
            if cost is None:
                return wanted
            pairs = wanted
            if terms.deadline is not None:
                waiting = [job for job in self._jobs if job.pairs_left and not job.done.is_set()]
                time_left = _PLANNED * (terms.deadline - now)

                def seconds(pairs: int) -> float:
                    return cost * (pairs + _pairs_before(pairs, terms.client, waiting))

                pairs = bisect_right(range(1, wanted + 1), time_left, key=seconds)
                if pairs < least:
                    # An idle queue accepts every search: a bad estimate would never be corrected otherwise.
                    return 0 if waiting else least
            if terms.seconds is not None:
                pairs = min(pairs, max(least, int(terms.seconds / cost)))
            return pairs

    def warm(self) -> None:
        """Open the matching head and run it once, so that the first search does not wait for that.

        Raises:
            BundleError: the bundle has no matcher, or the graph cannot be opened or run.
        """
        sizes = self.bundle.token_sizes()
        tokens = np.zeros((1, sizes.stored_tokens_per_frame, sizes.hidden_dim), np.float32)
        text = self.bundle.encode_text(["a dog runs on a beach"], tokens=True)
        self.bundle.match(text, np.zeros(1, np.int64), tokens)

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

    def _start_thread(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._serve, name="reelfind-matcher", daemon=True)
            thread.start()
            self._thread = thread

    def _serve(self) -> None:
        while True:
            with self._wake:
                while not (batch := self._next_batch()):
                    if self._closed or not (self._wake.wait(_IDLE_SECONDS) or self._jobs):
                        self._thread = None
                        return
            self._run(batch)

    def _next_batch(self) -> list[_Piece]:
        """Choose the pairs of the next call, in turns, until it is full.

        Jobs that are done, or whose deadline has passed, or that nobody waits for any more leave the queue.
        """
        now = time.monotonic()
        for job in self._jobs:
            if job.terms.is_over(now):
                job.finish()
        self._jobs = [job for job in self._jobs if not job.done.is_set()]
        batch: list[_Piece] = []
        room = self.bundle.max_pairs
        while room:
            first_of_client: dict[str | None, _Job] = {}
            for job in self._jobs:
                if job.pairs_left:
                    first_of_client.setdefault(job.terms.client, job)
            if not first_of_client:
                break
            client = self._turns.next(first_of_client)
            job = first_of_client[client]
            count = min(job.pairs_left, room)
            batch.append((job, slice(job.taken, job.taken + count)))
            job.taken += count
            room -= count
            self._turns.charge(client, count)
            self._jobs.remove(job)
            self._jobs.append(job)
        if not batch:
            self._turns.reset()
        return batch

    def _run(self, batch: list[_Piece]) -> None:
        """Run one call of the model. If it fails, run each job alone: only those at fault get the error."""
        try:
            self._run_together(batch)
        except Exception as error:
            if len(batch) == 1:
                with self._wake:
                    batch[0][0].finish(error=error)
                return
            for piece in batch:
                self._run([piece])

    def _run_together(self, batch: list[_Piece]) -> None:
        started = time.perf_counter()
        logits = _call(self.bundle, batch)
        self._learn((time.perf_counter() - started) / len(logits), len(logits))
        if self.observe is not None:
            self.observe(len(logits), len(batch))
        first = 0
        with self._wake:
            for job, part in batch:
                count = part.stop - part.start
                job.logits[part] = logits[first : first + count]
                job.matched = part.stop
                first += count
                if part.stop == len(job.logits):
                    job.finish()

    def _learn(self, pair_seconds: float, pairs: int) -> None:
        if self._pair_seconds is None:
            self._pair_seconds = pair_seconds
        else:  # a small call counts less: its fixed costs distort the time per pair
            weight = _LEARNING * min(1.0, pairs / self.bundle.max_pairs)
            self._pair_seconds += weight * (pair_seconds - self._pair_seconds)


def _pairs_before(pairs: int, client: str | None, waiting: Sequence[_Job]) -> int:
    """At most how many pairs of others are served before a new search of a client has had `pairs`.

    Searches of one client have turns, so that each other has at most as many; and so have clients.
    """
    own = pairs
    of_others: dict[str | None, int] = {}
    for job in waiting:
        if job.terms.client == client:
            own += min(job.pairs_left, pairs)
        else:
            of_others[job.terms.client] = of_others.get(job.terms.client, 0) + job.pairs_left
    return own - pairs + sum(min(left, own) for left in of_others.values())


def stack_texts(texts: Sequence[TextEncoding]) -> TextEncoding:
    """Join encodings of texts into one, padded to the longest text."""
    length = max(text.attention_mask.shape[1] for text in texts)

    def pad(values: NDArray[np.generic]) -> NDArray[np.generic]:
        rest = [(0, 0), (0, length - values.shape[1])] + [(0, 0)] * (values.ndim - 2)
        return np.pad(values, rest)

    tokens = [text.tokens for text in texts if text.tokens is not None]
    return TextEncoding(
        np.concatenate([text.embedding for text in texts]),
        np.concatenate([text.salience for text in texts]),
        np.concatenate([pad(each) for each in tokens]).astype(np.float32, copy=False) if tokens else None,
        np.concatenate([pad(text.attention_mask) for text in texts]).astype(np.int64, copy=False),
        np.concatenate([pad(text.input_ids) for text in texts]).astype(np.int64, copy=False),
    )


def _call(bundle: Bundle, batch: Sequence[_Piece]) -> NDArray[np.float32]:
    """The logits of a batch's pairs, in the order of the batch."""
    if len(batch) == 1:  # without copying anything
        job, part = batch[0]
        return bundle.match(job.text, np.zeros(part.stop - part.start, np.int64), job.frame_tokens[part])
    rows = np.repeat(np.arange(len(batch)), [part.stop - part.start for _, part in batch])
    tokens = np.concatenate([job.frame_tokens[part] for job, part in batch])
    return bundle.match(stack_texts([job.text for job, _ in batch]), rows, tokens)


def _closed() -> NotReadyError:
    return NotReadyError("The server is stopping. Try again when it has restarted.")
