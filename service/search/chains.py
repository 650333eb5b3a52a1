"""Chains of spans: one of each step of a sequence, each after the one before.

A chain's score is the sum of its spans' scores. The best chain that ends with a span is the span and the
best chain that ends with a span that it may follow: dynamic programming finds the best of all.

Shapes: N spans of a step, M of the one before, K steps.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Spans:
    """Spans of one video for one step: start and end in seconds, and scores, each float64 [N]."""

    start: NDArray[np.float64]
    end: NDArray[np.float64]
    score: NDArray[np.float64]


class Chain(NamedTuple):
    """The sum of the scores, and which span of each step it is, K places."""

    score: float
    places: tuple[int, ...]


#: Which spans may follow which, bool [M, N].
Follows = Callable[[Spans, Spans], NDArray[np.bool_]]


def segments_may_follow(within_seconds: float) -> Follows:
    """Where in segments a step is shown is not known yet: both may be in the same one.

    The other begins not before the one, and at most `within_seconds` after its end.
    """

    def follows(one: Spans, other: Spans) -> NDArray[np.bool_]:
        starts, ends = one.start[:, None], one.end[:, None]
        result: NDArray[np.bool_] = (other.start >= starts) & (other.start <= ends + within_seconds)
        return result

    return follows


def moments_follow(within_seconds: float) -> Follows:
    """A moment follows another that starts before it and ends before it does, and begins in time after that.

    They may overlap by half of the shorter one: where moments start and end is known roughly.
    """

    def follows(one: Spans, other: Spans) -> NDArray[np.bool_]:
        starts, ends = one.start[:, None], one.end[:, None]
        shorter = np.minimum(ends - starts, other.end - other.start)
        result: NDArray[np.bool_] = (
            (other.start > starts)
            & (other.end > ends)
            & (ends - other.start <= shorter / 2)
            & (other.start <= ends + within_seconds)
        )
        return result

    return follows


def best_chains(steps: Sequence[Spans], follows: Follows, most: int) -> list[Chain]:
    """The best chain to each span of the last step, best first; of equal ones the earlier span.

    Args:
        steps: the spans of each step, K ≥ 1.
        follows: which spans may follow which.
        most: how many chains to return, at most.
    """
    score, before = steps[0].score, []
    for one, other in itertools.pairwise(steps):
        if not len(one.start) or not len(other.start):
            return []
        reached = np.where(follows(one, other), score[:, None], -np.inf)
        before.append(reached.argmax(axis=0))
        score = reached.max(axis=0) + other.score
    chains = []
    for last in np.argsort(-score, kind="stable")[:most].tolist():
        if not np.isfinite(score[last]):
            break
        places = [last]
        for back in reversed(before):
            places.append(int(back[places[-1]]))
        chains.append(Chain(float(score[last]), tuple(reversed(places))))
    return chains
