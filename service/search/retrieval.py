"""The first stage: the segments whose embeddings are nearest to the query's.

Shapes: K segments.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.library.snapshot import Snapshot
from model.runtime.ranking import SCORE_DECIMALS
from service.search.encoded_query import EncodedQuery

# Candidates a hit asked for: segments of one video stand next to each other in the ranking.
_OVER_FETCH = 4


@dataclass(frozen=True)
class RetrievedSegments:
    """Segments, best first; of equally similar ones the lower row. `similarity` and `rows` have shape [K]."""

    similarity: NDArray[np.float32]
    rows: NDArray[np.int64]

    @classmethod
    def from_index(cls, scores: NDArray[np.float32], rows: NDArray[np.int64]) -> "RetrievedSegments":
        """From what the index gives for one query, in any order; -1 among the rows is none."""
        reached = rows >= 0
        scores, rows = scores[reached].round(SCORE_DECIMALS), rows[reached]
        order = np.lexsort((rows, -scores))
        return cls(scores[order], rows[order])


def best_segments(
    snapshot: Snapshot, query: EncodedQuery, top_k: int, num_candidates: int
) -> RetrievedSegments:
    """The segments that the `top_k` best videos and the `num_candidates` best segments need, and some more.

    Those that share their similarity with the last one needed are all there, so that which ones are taken
    does not depend on how many were asked for.

    Args:
        snapshot: where to search.
        query: what to search for.
        top_k: videos, at least 1.
        num_candidates: segments, 0 or more.
    """
    num_segments = snapshot.num_segments
    fetched = min(num_segments, max(top_k * _OVER_FETCH, num_candidates + num_candidates // 8 + 1))
    while fetched:
        scores, rows = (values[0] for values in snapshot.search(query.embedding[None], fetched))
        exhausted = fetched >= num_segments or bool((rows < 0).any())
        retrieved = RetrievedSegments.from_index(scores, rows)
        if exhausted or _is_enough(retrieved, snapshot.video_rows, top_k, num_candidates):
            return retrieved
        fetched = min(num_segments, fetched * 2)
    return RetrievedSegments(np.empty(0, np.float32), np.empty(0, np.int64))


def _is_enough(
    retrieved: RetrievedSegments, video_rows: NDArray[np.int32], top_k: int, num_candidates: int
) -> bool:
    last = retrieved.similarity[-1]
    if num_candidates and not retrieved.similarity[num_candidates - 1] > last:
        return False
    _, firsts = np.unique(video_rows[retrieved.rows], return_index=True)
    return len(firsts) >= top_k and bool(retrieved.similarity[np.sort(firsts)[top_k - 1]] > last)
