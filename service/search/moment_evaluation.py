"""Measures how well moments are found, with the searcher that also answers requests."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from model.runtime.moments import temporal_iou
from model.runtime.queries import LabelledQuery
from service.errors import NotUnderstoodError
from service.search.searcher import Searcher, SearchOptions

_DEPTHS = (1, 5, 10)
_OVERLAPS = (0.5, 0.7)


@dataclass(frozen=True)
class MomentRecalls:
    """How many of `n` moments are found among the first K hits.

    Attributes:
        n: the number of queries whose spans are known.
        corpus: R@K,IoU=m in percent, of all videos.
        given_video: the same with the right video given; None: not measured.
    """

    n: int
    corpus: dict[str, float]
    given_video: dict[str, float] | None


def evaluate_moments(
    searcher: Searcher,
    queries: Sequence[LabelledQuery],
    video_ids: Sequence[str],
    options: SearchOptions,
    given_video: bool,
    on_ranked: Callable[[], None] = lambda: None,
) -> MomentRecalls | None:
    """Search for each query whose span is known; None: there is none.

    A hit finds a moment if it is of the right video, and their intersection over union in time is at least m.

    Args:
        searcher: what is measured.
        queries: labelled queries.
        video_ids: the right video of each.
        options: how to search.
        given_video: also search within the right video alone.
        on_ranked: called after each query.
    """
    asked = [(query, video) for query, video in zip(queries, video_ids, strict=True) if query.span]
    if not asked:
        return None
    options = replace(options, group_by="moment", deadline=None)
    corpus: list[list[float]] = []
    given: list[list[float]] = []
    for query, video_id in asked:
        corpus.append(_overlaps(searcher, query, video_id, options, alone=False))
        if given_video:
            given.append(_overlaps(searcher, query, video_id, options, alone=True))
        on_ranked()
    return MomentRecalls(len(asked), _recalls(corpus), _recalls(given) if given_video else None)


def _overlaps(
    searcher: Searcher, query: LabelledQuery, video_id: str, options: SearchOptions, *, alone: bool
) -> list[float]:
    """The IoU of each hit with the span; 0 where it is of another video. `alone`: search that video only."""
    most = max(_DEPTHS)
    try:
        if alone:
            hits = searcher.search_video(video_id, query.text, most, options).hits
        else:
            hits = searcher.search(query.text, most, options).hits
    except NotUnderstoodError:
        return []
    spans = np.array([(hit.start_seconds, hit.end_seconds) for hit in hits], np.float64).reshape(-1, 2)
    overlaps = temporal_iou(spans, np.array(query.span, np.float64))
    return [
        float(overlap) if hit.video_id == video_id else 0.0
        for hit, overlap in zip(hits, overlaps, strict=True)
    ]


def _recalls(overlaps: Sequence[Sequence[float]]) -> dict[str, float]:
    return {
        f"R@{depth},IoU={least:g}": 100
        * sum(max(found[:depth], default=0.0) >= least for found in overlaps)
        / len(overlaps)
        for least in _OVERLAPS
        for depth in _DEPTHS
    }
