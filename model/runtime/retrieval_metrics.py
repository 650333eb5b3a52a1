"""Retrieval metrics: R@K, median and mean rank, from text to video and from video to text; ties are averaged.

Shapes: Q queries (texts), V videos.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ranks = NDArray[np.float64]

RetrievalMetrics = TypedDict(
    "RetrievalMetrics", {"n": int, "R@1": float, "R@5": float, "R@10": float, "MdR": float, "MnR": float}
)


class FirstPlaces(TypedDict):
    """How R@1 changes from one ranking of the same queries to another.

    `gained` queries find their target first only in the later ranking, `lost` only in the earlier. `p` is the
    probability of a difference at least as large if either were equally likely (McNemar's exact test).
    """

    gained: int
    lost: int
    p: float


def ranks(similarity: ArrayLike, target: ArrayLike) -> Ranks:
    """The rank of each query's target: 1 + how many score higher + half of those that score the same.

    Half of the ties is what a random order gives on average. Counting all or none of them would make a model
    that scores everything the same the worst or the best.

    Args:
        similarity: shape [Q, V], higher is better.
        target: integers, shape [Q]: the right column for each row.

    Returns:
        Shape [Q], from 1 to V; a fraction of ½ is possible where targets tie, which also gives a warning.

    Raises:
        ValueError: a shape is wrong, a score is NaN, or a target is outside of [0, V).
    """
    scores = _checked_scores(similarity)
    result, num_tied = _ranks(scores, _checked_targets(target, *scores.shape))
    _warn_of_ties(num_tied, len(result))
    return result


def text_to_video(similarity: ArrayLike, video_of_text: ArrayLike) -> Ranks:
    """Ranks of each text's video among all videos: `similarity` [Q, V], `video_of_text` [Q] → [Q].

    Raises:
        ValueError: as `ranks`.
    """
    return ranks(similarity, video_of_text)


def video_to_text(similarity: ArrayLike, video_of_text: ArrayLike) -> Ranks:
    """Ranks of each video's best text among the texts of other videos.

    A video may have several texts: its best-ranked text counts, and its other texts are ignored.

    Args:
        similarity: shape [Q, V], as for the other direction.
        video_of_text: integers, shape [Q]: the video that each text describes.

    Returns:
        A rank for each video that has a text, in the order of the videos.

    Raises:
        ValueError: as `ranks`.
    """
    scores = _checked_scores(similarity)
    owner = _checked_targets(video_of_text, *scores.shape)
    videos = np.unique(owner)
    result = np.empty(len(videos), np.float64)
    num_tied = 0
    for i, video in enumerate(videos):
        is_own = owner == video
        column = scores[:, video]
        best = column[is_own].max()
        others = column[~is_own]
        ties = int(np.count_nonzero(others == best))
        result[i] = 1 + np.count_nonzero(others > best) + ties / 2
        num_tied += ties > 0
    _warn_of_ties(num_tied, len(result))
    return result


def retrieval_metrics(ranks: ArrayLike) -> RetrievalMetrics:
    """Summarise ranks: R@K is the percentage (0–100) of ranks ≤ K, MdR the median and MnR the mean rank.

    Raises:
        ValueError: there is no rank, or a rank is NaN or below 1.
    """
    values = np.asarray(ranks, np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"ranks have shape {list(values.shape)}: pass [Q] with Q ≥ 1")
    if not (values >= 1).all():
        raise ValueError(f"ranks hold {values[~(values >= 1)][0]}: they start at 1")
    recall = {k: 100 * float(np.mean(values <= k)) for k in (1, 5, 10)}
    return {
        "n": len(values),
        "R@1": recall[1],
        "R@5": recall[5],
        "R@10": recall[10],
        "MdR": float(np.median(values)),
        "MnR": float(np.mean(values)),
    }


def first_places(before: ArrayLike, after: ArrayLike) -> FirstPlaces:
    """Compare two rankings of the same queries by their first places. Shapes [Q], [Q].

    Raises:
        ValueError: the shapes differ.
    """
    was_first, is_first = (np.asarray(values, np.float64) <= 1 for values in (before, after))
    if was_first.shape != is_first.shape:
        raise ValueError(
            f"ranks have shapes {list(was_first.shape)} and {list(is_first.shape)}: rank the same queries"
        )
    gained = int(np.count_nonzero(is_first & ~was_first))
    lost = int(np.count_nonzero(was_first & ~is_first))
    changed = gained + lost
    tail = sum(math.comb(changed, k) for k in range(min(gained, lost) + 1)) / 2**changed
    return {"gained": gained, "lost": lost, "p": min(1.0, 2 * tail)}


def _ranks(scores: NDArray[Any], columns: NDArray[np.int64]) -> tuple[Ranks, int]:
    """The ranks, and how many of them tie."""
    right = np.take_along_axis(scores, columns[:, None], axis=1)
    greater = np.count_nonzero(scores > right, axis=1)
    ties = np.count_nonzero(scores == right, axis=1) - 1
    return 1.0 + greater + ties / 2, int(np.count_nonzero(ties))


def _checked_scores(similarity: ArrayLike) -> NDArray[Any]:
    scores = np.asarray(similarity)
    if scores.ndim != 2 or 0 in scores.shape:
        raise ValueError(f"similarity has shape {list(scores.shape)}: pass [Q, V] with Q and V ≥ 1")
    if scores.dtype.kind not in "iuf":
        raise ValueError(f"similarity is {scores.dtype}: pass real numbers")
    if np.isnan(scores).any():
        row, column = np.argwhere(np.isnan(scores))[0]
        raise ValueError(f"similarity[{row}, {column}] is NaN: the embeddings are broken")
    return scores


def _checked_targets(target: ArrayLike, rows: int, columns: int) -> NDArray[np.int64]:
    values = np.asarray(target)
    if values.shape != (rows,) or not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"target is {values.dtype} {list(values.shape)}: pass one integer a query, [{rows}]")
    outside = np.flatnonzero((values < 0) | (values >= columns))
    if len(outside):
        raise ValueError(f"target[{outside[0]}] is {values[outside[0]]}: there are {columns} columns, from 0")
    return values.astype(np.int64)


def _warn_of_ties(num_tied: int, total: int) -> None:
    if num_tied:
        warnings.warn(
            f"{num_tied} of {total} targets score the same as others; half of those count as better",
            stacklevel=3,
        )
