"""Measures how two generations of a library agree: what each finds for the same queries.

V videos, Q queries.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.runtime.queries import AnyQuery
from model.runtime.retrieval_metrics import RetrievalMetrics, ranks, retrieval_metrics
from service.errors import QueryError
from service.search.searcher import Searcher
from service.search.video_finder import VideoFinder

#: How many of the best videos are compared.
TOP = 10


@dataclass(frozen=True)
class Agreement:
    """How the rankings of two generations agree, with re-ranking where a generation can.

    Attributes:
        queries: how many there are.
        top: of how many of the best videos `overlap` is.
        overlap: the mean share of these that both have, from 0 to 1.
        same_first: the share of the queries for which both find the same video first, from 0 to 1.
        before: R@K of the generation that is served, over the queries whose video is known; None: none is.
        after: the same of the other one.
        unknown: queries whose video one of the two cannot find: they count in no R@K.
    """

    queries: int
    top: int
    overlap: float
    same_first: float
    before: RetrievalMetrics | None
    after: RetrievalMetrics | None
    unknown: int

    def to_json(self) -> dict[str, Any]:
        """All of it, for programs."""
        return asdict(self)


def measure_agreement(
    before: Searcher,
    after: Searcher,
    queries: Sequence[AnyQuery],
    on_ranked: Callable[[], None] = lambda: None,
) -> Agreement:
    """Rank all videos for each query in both generations, and compare.

    Args:
        before: of the generation that is served.
        after: of the other one.
        queries: what to search for.
        on_ranked: called twice for each query.

    Raises:
        QueryError: a text has no token.
        LibraryError: a table cannot be read.
        BundleError: a model fails.
    """
    sides = [_Side(searcher, queries, on_ranked) for searcher in (before, after)]
    tops = [side.top_ids(TOP) for side in sides]
    shared = [_shared(*pair) for pair in zip(*tops, strict=True)]
    firsts = [first[:1] == second[:1] for first, second in zip(*tops, strict=True)]
    targets = [side.targets() for side in sides]
    named = sum(query.video is not None for query in queries)
    known = [place for place in range(len(queries)) if all(target[place] is not None for target in targets)]
    metrics = [
        side.metrics(known, [row for place in known if (row := target[place]) is not None])
        for side, target in zip(sides, targets, strict=True)
    ]
    return Agreement(
        queries=len(queries),
        top=TOP,
        overlap=float(np.mean(shared)),
        same_first=float(np.mean(firsts)),
        before=metrics[0],
        after=metrics[1],
        unknown=named - len(known),
    )


class _Side:
    """What one generation finds for all queries."""

    def __init__(
        self, searcher: Searcher, queries: Sequence[AnyQuery], on_ranked: Callable[[], None]
    ) -> None:
        self._snapshot = searcher.snapshot
        self._queries = queries
        ranking = searcher.rank_all([query.text for query in queries], None, on_ranked)
        #: [Q, V], higher is better; -inf where a video cannot be found.
        self._scores: NDArray[np.floating] = (
            ranking.similarity if ranking.ensemble is None else ranking.ensemble
        )

    def top_ids(self, count: int) -> list[list[str]]:
        """The ids of the best videos for each query, best first."""
        order = np.argsort(-self._scores, axis=1, kind="stable")[:, :count]
        return [
            [self._snapshot.video_id_at(int(row)) for row in rows if np.isfinite(scores[row])]
            for rows, scores in zip(order, self._scores, strict=True)
        ]

    def targets(self) -> list[int | None]:
        """The row of each query's video; None where it is not named, or cannot be found."""
        finder = VideoFinder(self._snapshot)
        rows: list[int | None] = []
        for query in self._queries:
            try:
                rows.append(None if query.video is None else finder.row_of(query.video))
            except QueryError:
                rows.append(None)
        return rows

    def metrics(self, places: Sequence[int], targets: Sequence[int]) -> RetrievalMetrics | None:
        """R@K of some queries, whose videos are in these rows; None where there are none."""
        if not places:
            return None
        return retrieval_metrics(ranks(self._scores[list(places)], np.array(targets)))


def _shared(first: Sequence[str], second: Sequence[str]) -> float:
    """The share of two lists of best videos that is in both; a list may be short because there are few."""
    longest = max(len(first), len(second))
    return len(set(first) & set(second)) / longest if longest else 1.0
