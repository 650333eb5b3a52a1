"""The first stage: the segments whose embeddings are nearest to the query's, and which of them to re-rank.

Shapes: K segments.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.library.snapshot import Snapshot
from model.runtime.ranking import SCORE_DECIMALS
from service.search.encoded_query import EncodedQuery

#: Finds the segments nearest to an embedding, [D], so many of them, among chosen rows or all, as
#: `VectorQueue.search` does.
FindNearest = Callable[
    [Snapshot, NDArray[np.float32], int, NDArray[np.int64] | None],
    tuple[NDArray[np.float32], NDArray[np.int64]],
]

# Segments fetched per hit: neighbours in the ranking often belong to one video, which is one hit.
_OVER_FETCH = 4
# Among how many segments per candidate those of other videos are looked for.
_WINDOW = 8
# How many times as many segments are retrieved where further pages need more.
_FURTHER = 8
_LEAST_FURTHER = 100
# A video may always have so many candidates: its best segment need not be the first.
_LEAST_OF_VIDEO = 2


@dataclass(frozen=True)
class RetrievedSegments:
    """Segments, best first; ties: lower row first.

    Attributes:
        score: the first stage's score: the cosine, less the hubness correction of a bundle that has one;
            shape [K].
        rows: shape [K].
        ranks: the place of each by this score among all segments that are searched, from 0, shape [K].
    """

    score: NDArray[np.float32]
    rows: NDArray[np.int64]
    ranks: NDArray[np.int64]

    @classmethod
    def from_index(cls, scores: NDArray[np.float32], rows: NDArray[np.int64]) -> "RetrievedSegments":
        """From the index's answer for one query, in any order; rows of -1 are left out."""
        is_row = rows >= 0
        scores, rows = scores[is_row].round(SCORE_DECIMALS), rows[is_row]
        order = np.lexsort((rows, -scores))
        return cls(scores[order], rows[order], np.arange(len(order)))

    def at(self, positions: NDArray[np.int64]) -> "RetrievedSegments":
        """The segments at these positions, in their order."""
        return RetrievedSegments(self.score[positions], self.rows[positions], self.ranks[positions])

    def with_first(self, positions: NDArray[np.int64]) -> "RetrievedSegments":
        """All segments: those at `positions` first, then the others, each in the order they have."""
        if np.array_equal(positions, np.arange(len(positions))):
            return self
        rest = np.delete(np.arange(len(self.rows)), positions)
        return self.at(np.concatenate([positions, rest]))

    def without(self, rows: NDArray[np.int64]) -> "RetrievedSegments":
        """The others, in their order."""
        if not len(rows):
            return self
        return self.at(np.flatnonzero(~np.isin(self.rows, rows)))


def find_nearest(
    snapshot: Snapshot, embedding: NDArray[np.float32], count: int, allowed: NDArray[np.int64] | None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Search the index for one query alone, see `FindNearest`."""
    scores, rows = snapshot.search(embedding[None], count, allowed=allowed)
    return scores[0], rows[0]


def best_segments(
    snapshot: Snapshot,
    query: EncodedQuery,
    top_k: int,
    num_candidates: int,
    video_share: float = 1.0,
    least: int = 0,
    allowed: NDArray[np.int64] | None = None,
    left_out: Collection[int] = (),
    find: FindNearest = find_nearest,
) -> RetrievedSegments:
    """Retrieve enough segments for the `top_k` best videos and for `choose_candidates`.

    All segments with the same score as the last one needed are included, so that the choice among equals
    does not depend on how many segments were asked for.

    Args:
        snapshot: the snapshot to search.
        query: the query.
        top_k: number of videos, at least 1.
        num_candidates: number of segments to choose candidates from, 0 or more.
        video_share: the share of the candidates that one video may have.
        least: retrieve so many segments at least, if there are so many.
        allowed: the segments to search among, ascending; None: all.
        left_out: segments that are not retrieved.
        find: searches the index.

    Raises:
        LibraryError: the kind of index cannot search among chosen segments.
    """
    num_segments = snapshot.num_segments if allowed is None else len(allowed)
    wanted = max(top_k * _OVER_FETCH, num_candidates + num_candidates // 8 + 1, least)
    fetched = min(num_segments, wanted + len(left_out))
    while fetched:
        scores, rows = find(snapshot, query.embedding, fetched, allowed)
        exhausted = fetched >= num_segments or bool((rows < 0).any())
        retrieved = RetrievedSegments.from_index(scores, rows)
        if len(left_out):
            retrieved = retrieved.without(np.array(sorted(left_out), np.int64))
        if exhausted or (
            _has_videos(retrieved, snapshot.video_rows, top_k)
            and _has_candidates(retrieved, snapshot.video_rows, num_candidates, video_share)
        ):
            return retrieved
        fetched = min(num_segments, fetched * 2)
    return RetrievedSegments.from_index(np.empty(0, np.float32), np.empty(0, np.int64))


def further_segments(
    snapshot: Snapshot,
    query: EncodedQuery,
    known: RetrievedSegments,
    allowed: NDArray[np.int64] | None = None,
    avoid: Sequence[int] = (),
) -> RetrievedSegments:
    """The segments that are retrieved already, and several times as many after them.

    Args:
        snapshot: the snapshot to search.
        query: the query.
        known: what is retrieved already.
        allowed: the segments to search among, ascending; None: all.
        avoid: segments to leave out.

    Returns:
        `known` where the index finds no others.
    """
    num_segments = snapshot.num_segments if allowed is None else len(allowed)
    among = known.rows if allowed is None else known.rows[np.isin(known.rows, allowed)]
    if len(among) >= num_segments:
        return known
    fetched = min(num_segments, max(_LEAST_FURTHER, (len(among) + len(avoid)) * _FURTHER))
    scores, rows = find_nearest(snapshot, query.embedding, fetched, allowed)
    found = RetrievedSegments.from_index(scores, rows)
    is_known = np.zeros(snapshot.num_segments, np.bool_)
    is_known[known.rows] = is_known[list(avoid)] = True
    new = found.at(np.flatnonzero(~is_known[found.rows]))
    return RetrievedSegments(
        np.concatenate([known.score, new.score]),
        np.concatenate([known.rows, new.rows]),
        np.concatenate([known.ranks, new.ranks]),
    )


def choose_candidates(
    retrieved: RetrievedSegments, video_rows: NDArray[np.int32], count: int, video_share: float
) -> NDArray[np.int64]:
    """Choose the segments to re-rank, in the order of the first stage.

    They are the best segments of which no video has more than its share (at least two). Where the first
    `8 * count` segments are of too few videos, the best of the others fill the places.

    Args:
        retrieved: what `best_segments` gave for at least `count` candidates.
        video_rows: the video of each row of the snapshot.
        count: number of candidates, at least 1; fewer if there are fewer segments.
        video_share: the share of the candidates that one video may have.

    Returns:
        Positions in `retrieved`, rising.
    """
    window = retrieved.rows[: count * _WINDOW]
    allowed = _within_share(video_rows[window], count, video_share)
    chosen = np.flatnonzero(allowed)[:count]
    if len(chosen) < count:
        others = np.flatnonzero(~allowed)[: count - len(chosen)]
        chosen = np.sort(np.concatenate([chosen, others]))
    return chosen


def _within_share(videos: NDArray[np.int32], count: int, video_share: float) -> NDArray[np.bool_]:
    """Which segments, best first, are among the first of their video that it may have."""
    return place_in_video(videos) < max(_LEAST_OF_VIDEO, math.ceil(video_share * count))


def place_in_video(videos: NDArray[np.int32]) -> NDArray[np.int64]:
    """The place of each segment, in the order given, among those of its video, from 0. int32 [K] → [K]."""
    # Its place in the order by video, from the first of its video.
    by_video = np.argsort(videos, kind="stable")
    ordered = videos[by_video]
    place = np.empty(len(videos), np.int64)
    place[by_video] = np.arange(len(videos)) - np.searchsorted(ordered, ordered)
    return place


def _has_videos(retrieved: RetrievedSegments, video_rows: NDArray[np.int32], top_k: int) -> bool:
    _, first_of_video = np.unique(video_rows[retrieved.rows], return_index=True)
    if len(first_of_video) < top_k:
        return False
    return bool(retrieved.score[np.sort(first_of_video)[top_k - 1]] > retrieved.score[-1])


def _has_candidates(
    retrieved: RetrievedSegments, video_rows: NDArray[np.int32], count: int, video_share: float
) -> bool:
    """Whether further segments would not change the choice of candidates."""
    if not count:
        return True
    window = retrieved.rows[: count * _WINDOW]
    allowed = np.flatnonzero(_within_share(video_rows[window], count, video_share))
    if len(allowed) >= count:
        needed = int(allowed[count - 1])
    elif len(retrieved.rows) >= count * _WINDOW:
        needed = count * _WINDOW - 1
    else:
        return False
    return bool(retrieved.score[needed] > retrieved.score[-1])
