"""The first stage: the segments whose embeddings are nearest to the query's.

Shapes: D joint space, K segments.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.library.snapshot import Snapshot
from model.runtime.ranking import SCORE_DECIMALS

# Candidates a hit asked for: segments of one video stand next to each other in the ranking.
_OVER_FETCH = 4


@dataclass(frozen=True)
class FirstStage:
    """Segments, best first; of equally similar ones the lower row. `similarity` and `rows` have shape [K]."""

    similarity: NDArray[np.float32]
    rows: NDArray[np.int64]

    @classmethod
    def of(cls, scores: NDArray[np.float32], rows: NDArray[np.int64]) -> "FirstStage":
        """From what the index found for one query, in any order; -1 among the rows is none."""
        reached = rows >= 0
        scores, rows = scores[reached].round(SCORE_DECIMALS), rows[reached]
        order = np.lexsort((rows, -scores))
        return cls(scores[order], rows[order])


def best_segments(
    snapshot: Snapshot, embedding: NDArray[np.float32], top_k: int, num_candidates: int
) -> FirstStage:
    """The segments that the `top_k` best videos and the `num_candidates` best segments need, and some more.

    Those that share their similarity with the last one needed are all there, so that which ones are taken
    does not depend on how many were asked for.

    Args:
        snapshot: where to search.
        embedding: the query's, shape [1, D].
        top_k: videos, at least 1.
        num_candidates: segments, 0 or more.
    """
    num_segments = snapshot.num_segments
    fetched = min(num_segments, max(top_k * _OVER_FETCH, num_candidates + num_candidates // 8 + 1))
    while fetched:
        scores, rows = (found[0] for found in snapshot.search(embedding, fetched))
        exhausted = fetched >= num_segments or bool((rows < 0).any())
        first = FirstStage.of(scores, rows)
        if exhausted or _is_enough(first, snapshot.video_rows, top_k, num_candidates):
            return first
        fetched = min(num_segments, fetched * 2)
    return FirstStage(np.empty(0, np.float32), np.empty(0, np.int64))


def _is_enough(first: FirstStage, video_rows: NDArray[np.int32], top_k: int, num_candidates: int) -> bool:
    last = first.similarity[-1]
    if num_candidates and not first.similarity[num_candidates - 1] > last:
        return False
    _, firsts = np.unique(video_rows[first.rows], return_index=True)
    return len(firsts) >= top_k and bool(first.similarity[np.sort(firsts)[top_k - 1]] > last)
