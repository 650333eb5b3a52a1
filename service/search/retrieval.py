"""The first stage: the segments whose embeddings are nearest to the query's.

Shapes: K segments.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.library.snapshot import Snapshot
from model.runtime.ranking import SCORE_DECIMALS
from service.search.encoded_query import EncodedQuery

# Segments fetched per hit: neighbours in the ranking often belong to one video, which is one hit.
_OVER_FETCH = 4


@dataclass(frozen=True)
class RetrievedSegments:
    """Segments, best first; ties: lower row first. `similarity` and `rows` have shape [K]."""

    similarity: NDArray[np.float32]
    rows: NDArray[np.int64]

    @classmethod
    def from_index(cls, scores: NDArray[np.float32], rows: NDArray[np.int64]) -> "RetrievedSegments":
        """From the index's answer for one query, in any order; rows of -1 are left out."""
        is_row = rows >= 0
        scores, rows = scores[is_row].round(SCORE_DECIMALS), rows[is_row]
        order = np.lexsort((rows, -scores))
        return cls(scores[order], rows[order])

    def without(self, rows: NDArray[np.int64]) -> "RetrievedSegments":
        """The others, in their order."""
        is_left = ~np.isin(self.rows, rows)
        return RetrievedSegments(self.similarity[is_left], self.rows[is_left])


def best_segments(
    snapshot: Snapshot, query: EncodedQuery, top_k: int, num_candidates: int
) -> RetrievedSegments:
    """Retrieve enough segments for the `top_k` best videos and the `num_candidates` best segments.

    All segments with the same similarity as the last one needed are included, so that the choice among equals
    does not depend on how many segments were asked for.

    Args:
        snapshot: the snapshot to search.
        query: the query.
        top_k: number of videos, at least 1.
        num_candidates: number of segments, 0 or more.
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
    _, first_of_video = np.unique(video_rows[retrieved.rows], return_index=True)
    if len(first_of_video) < top_k:
        return False
    return bool(retrieved.similarity[np.sort(first_of_video)[top_k - 1]] > last)
