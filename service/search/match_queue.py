"""Runs a bundle's matching head for all searches: pairs of concurrent searches share its calls.

One thread fills each call of the model with pairs of the waiting searches in turn, so that a large search
does not block a small one. The thread starts with the first pair and ends after a while without pairs: so a
bundle that is no longer served is freed with the last search that holds it.

Shapes: B pairs of a text and a frame, P' tokens a frame, L text tokens, H and T widths of the tokens.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from model.runtime.bundle import Bundle, TextEncoding
from service.errors import NotReadyError

_IDLE_SECONDS = 2.0
# Weight of one full call in the running estimate of the time per pair; high, so that the estimate follows a
# machine that slows down.
_LEARNING = 0.5

#: Called after each call of the model with the number of its pairs and of its searches.
BatchObserver = Callable[[int, int], None]


class _Job:
    """The pairs of one search. Once `done` is set, there are logits, an error or, if too late, neither."""

    def __init__(
        self, text: TextEncoding, frame_tokens: NDArray[np.float32], deadline: float | None, following: int
    ) -> None:
        self.text = text
        self.frame_tokens = frame_tokens
        self.deadline = deadline
        self.following = following
        self.taken = 0
        self.partial = np.empty(len(frame_tokens), np.float32)
        self.logits: NDArray[np.float32] | None = None
        self.error: Exception | None = None
        self.done = threading.Event()

    @property
    def pairs_left(self) -> int:
        return len(self.frame_tokens) - self.taken

    def finish(self, logits: NDArray[np.float32] | None = None, error: Exception | None = None) -> None:
        if not self.done.is_set():
            self.logits, self.error = logits, error
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
        self._jobs: deque[_Job] = deque()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._pair_seconds: float | None = None

    @property
    def waiting(self) -> int:
        """Number of searches with pairs in the queue or in the model."""
        with self._wake:
            return sum(not job.done.is_set() for job in self._jobs)

    def match(
        self,
        text: TextEncoding,
        frame_tokens: NDArray[np.float32],
        deadline: float | None = None,
        following: int = 0,
    ) -> NDArray[np.float32] | None:
        """Match one text with frames. Waits for a free place in the model's calls.

        Args:
            text: one text, encoded with tokens.
            frame_tokens: tokens of the frames, float32, shape [B, P', H].
            deadline: in seconds of `time.monotonic()`; None: no deadline.
            following: number of pairs that the same search will ask for next, with the same deadline.

        Returns:
            The logits, float32 [B]. None as soon as it is clear that the deadline cannot be met.

        Raises:
            BundleError: the model fails on these pairs.
            NotReadyError: the queue was closed.
        """
        if len(frame_tokens) == 0:
            return np.empty(0, np.float32)
        job = _Job(text, frame_tokens, deadline, following)
        with self._wake:
            if self._closed:
                raise _closed()
            if not self._would_be_in_time(job):
                return None
            self._start_thread()
            self._jobs.append(job)
            self._wake.notify()
        if not job.done.wait(None if deadline is None else max(0.0, deadline - time.monotonic())):
            with self._wake:
                job.finish()
        if job.error is not None:
            raise job.error
        return job.logits

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

    def _would_be_in_time(self, job: _Job) -> bool:
        """Whether a new job can meet its deadline, judged by the recent time per pair."""
        if job.deadline is None:
            return True
        seconds_left = job.deadline - time.monotonic()
        # An idle queue accepts every job: if it refused, a bad estimate would never be corrected.
        if seconds_left <= 0 or self._pair_seconds is None or not self._jobs:
            return seconds_left > 0
        pairs = job.pairs_left + job.following
        # Jobs take turns, so that each other job has at most as many pairs served before this one is done.
        other_pairs = sum(min(other.pairs_left, pairs) for other in self._jobs if not other.done.is_set())
        return self._pair_seconds * (pairs + other_pairs) <= seconds_left

    def _is_hopeless(self, job: _Job, now: float) -> bool:
        if job.deadline is None:
            return False
        needed = 0.0
        if job.taken and self._pair_seconds is not None:
            needed = self._pair_seconds * (job.pairs_left + job.following)
        return now + needed > job.deadline

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
        """Choose the pairs of the next call: jobs give theirs until the call is full, then queue up again.

        Jobs that are done, or cannot meet their deadline, leave the queue.
        """
        now = time.monotonic()
        for job in self._jobs:
            if self._is_hopeless(job, now):
                job.finish()
        self._jobs = deque(job for job in self._jobs if not job.done.is_set())
        batch: list[_Piece] = []
        room = self.bundle.max_pairs
        for _ in range(len(self._jobs)):
            job = self._jobs[0]
            count = min(job.pairs_left, room)
            batch.append((job, slice(job.taken, job.taken + count)))
            job.taken += count
            room -= count
            self._jobs.rotate(-1)
            if not room:
                break
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
                job.partial[part] = logits[first : first + count]
                first += count
                if part.stop == len(job.partial):
                    job.finish(job.partial)

    def _learn(self, pair_seconds: float, pairs: int) -> None:
        if self._pair_seconds is None:
            self._pair_seconds = pair_seconds
        else:  # a small call counts less: its fixed costs distort the time per pair
            weight = _LEARNING * min(1.0, pairs / self.bundle.max_pairs)
            self._pair_seconds += weight * (pair_seconds - self._pair_seconds)


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
