"""Runs a bundle's matching head for all searches: pairs of concurrent searches share its calls.

What is matched when a search's deadline passes is not lost: its first pairs are answered.

Shapes: B pairs of a text and a frame, P' tokens a frame, L text tokens, H and T widths of the tokens.
"""

import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from model.runtime.bundle import Bundle, TextEncoding
from model.runtime.bundle.encodings import stack_texts
from model.runtime.cores import Cores
from service.search.shared_calls import CallObserver, CallTerms, Job, Piece, SharedCalls

# Weight of one full call in the running estimate of the time per pair; high, so that the estimate follows a
# machine that slows down.
_LEARNING = 0.5
# Share of the time until a deadline that pairs are planned for: later searches take turns too.
_PLANNED = 0.8


@dataclass(frozen=True)
class MatchTerms(CallTerms):
    """On which terms a search uses the matching head.

    Attributes:
        seconds: of the model's time that the search may take, so that others are in time too; None: any.
    """

    seconds: float | None = None


@dataclass(frozen=True)
class _Pairs:
    """One text and the frames to match it with, [B, P', H]; and the logits, [B], as far as there are any."""

    text: TextEncoding
    frame_tokens: NDArray[np.float32]
    logits: NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "logits", np.empty(len(self.frame_tokens), np.float32))


class MatchQueue(SharedCalls[_Pairs]):
    """Batches the pairs of all searches for the matching head of one bundle.

    Every method may be called from any thread.
    """

    def __init__(
        self, bundle: Bundle, observe: CallObserver | None = None, *, cores: Cores | None = None
    ) -> None:
        """`observe` is told the pairs and the searches of each call; see `SharedCalls` for `cores`."""
        super().__init__("reelfind-matcher", cores)
        self.bundle = bundle
        self.observe = observe
        self._pair_seconds: float | None = None

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
        pairs = _Pairs(text, frame_tokens)
        job = Job(pairs, len(frame_tokens), terms or MatchTerms())
        self._run(job)
        return pairs.logits[: job.completed]

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
                waiting = [job for job in self._jobs if job.units_left and not job.done.is_set()]
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

    def _room(self) -> int:
        return self.bundle.max_pairs

    def _call(self, pieces: Sequence[Piece[_Pairs]]) -> None:
        started = time.perf_counter()
        logits = _match(self.bundle, pieces)
        self._learn((time.perf_counter() - started) / len(logits), len(logits))
        if self.observe is not None:
            self.observe(len(logits), len(pieces))
        first = 0
        for job, part in pieces:
            count = part.stop - part.start
            job.work.logits[part] = logits[first : first + count]
            first += count

    def _learn(self, pair_seconds: float, pairs: int) -> None:
        if self._pair_seconds is None:
            self._pair_seconds = pair_seconds
        else:  # a small call counts less: its fixed costs distort the time per pair
            weight = _LEARNING * min(1.0, pairs / self.bundle.max_pairs)
            self._pair_seconds += weight * (pair_seconds - self._pair_seconds)


def _pairs_before(pairs: int, client: str | None, waiting: Sequence[Job[_Pairs]]) -> int:
    """At most how many pairs of others are served before a new search of a client has had `pairs`.

    Searches of one client have turns, so that each other has at most as many; and so have clients.
    """
    own = pairs
    of_others: dict[str | None, int] = {}
    for job in waiting:
        if job.terms.client == client:
            own += min(job.units_left, pairs)
        else:
            of_others[job.terms.client] = of_others.get(job.terms.client, 0) + job.units_left
    return own - pairs + sum(min(left, own) for left in of_others.values())


def _match(bundle: Bundle, pieces: Sequence[Piece[_Pairs]]) -> NDArray[np.float32]:
    """The logits of the pairs of one call, in the order of its pieces."""
    if len(pieces) == 1:  # without copying anything
        job, part = pieces[0]
        pairs = job.work
        return bundle.match(pairs.text, np.zeros(part.stop - part.start, np.int64), pairs.frame_tokens[part])
    rows = np.repeat(np.arange(len(pieces)), [part.stop - part.start for _, part in pieces])
    tokens = np.concatenate([job.work.frame_tokens[part] for job, part in pieces])
    return bundle.match(stack_texts([job.work.text for job, _ in pieces]), rows, tokens)
