"""Searches the vector index for all searches: those of the same rows that wait at once share its calls.

Shapes: D joint space, K results.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from indexer.library.snapshot import Snapshot
from model.runtime.cores import Cores
from service.errors import OverloadedError
from service.search.shared_calls import CallTerms, Job, Piece, SharedCalls, first_stage_terms

# Fewer segments are searched faster than another thread can be waited for.
_LEAST_SEGMENTS = 20_000
#: Most searches of one call: they bound how long those that come next wait for it.
_MOST_SEARCHES = 32


@dataclass
class _Query:
    """What one search looks for, [D], and what was found, [K] each."""

    snapshot: Snapshot
    embedding: NDArray[np.float32]
    count: int
    allowed: NDArray[np.int64] | None
    scores: NDArray[np.float32] = field(init=False)
    rows: NDArray[np.int64] = field(init=False)


class VectorQueue(SharedCalls[_Query]):
    """Batches the vectors of all searches for one call of the vector index.

    Searches share a call where they search the same rows of the same snapshot for as many segments: filters,
    and keys that see parts of the library, have calls of their own. Every method may be called from any
    thread.
    """

    def __init__(
        self,
        observe: Callable[[int], None] | None = None,
        *,
        is_shared: bool = True,
        cores: Cores | None = None,
    ) -> None:
        """`observe` is told the searches of each call; without `is_shared`, none is shared.

        `cores` are those that searches take turns on.
        """
        super().__init__("reelfind-vectors", cores)
        self.observe = observe
        self._is_shared = is_shared

    def search(
        self,
        snapshot: Snapshot,
        embedding: NDArray[np.float32],
        count: int,
        allowed: NDArray[np.int64] | None = None,
        terms: CallTerms | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Find the segments nearest to one query.

        Args:
            snapshot: the snapshot to search.
            embedding: Shape [D].
            count: how many segments to find, at least 1.
            allowed: the segments to search among, ascending; None: all. Searches that share a call have the
                same array.
            terms: whose turns it takes, and until when it may wait. A deadline that has passed already does
                not count: the first stage of a search always answers.

        Returns:
            Scores and rows, [K] each, see `Snapshot.search`.

        Raises:
            ValueError: see `Snapshot.search`.
            LibraryError: see there.
            OverloadedError: the deadline passed while the search waited, or nobody waits for it any more.
            NotReadyError: the queue was closed.
        """
        num_segments = snapshot.num_segments if allowed is None else len(allowed)
        if not self._is_shared or num_segments < _LEAST_SEGMENTS:
            scores, rows = snapshot.search(embedding[None], count, allowed=allowed)
            return scores[0], rows[0]
        query = _Query(snapshot, embedding, count, allowed)
        # The queue holds both while the numbers stand for them.
        same_rows = id(snapshot), None if allowed is None else id(allowed)
        job = Job(query, 1, first_stage_terms(terms), key=(same_rows, count))
        self._run(job, alone=True)
        if not job.completed:
            raise OverloadedError(
                "The deadline of this search passed while it waited for the vector index. Try again later, "
                "or raise deadline_ms."
            )
        return query.scores, query.rows

    def _room(self) -> int:
        return _MOST_SEARCHES

    def _call(self, pieces: Sequence[Piece[_Query]]) -> None:
        queries = [job.work for job, _ in pieces]
        first = queries[0]
        embeddings = np.stack([query.embedding for query in queries])
        scores, rows = first.snapshot.search(embeddings, first.count, allowed=first.allowed)
        if self.observe is not None:
            self.observe(len(queries))
        for query, query_scores, query_rows in zip(queries, scores, rows, strict=True):
            query.scores, query.rows = query_scores, query_rows
