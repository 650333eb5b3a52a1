"""DiDeMo's own evaluation (Hendricks et al., 2017) of rankings of a clip's 21 segments.

A segment is [first, last], chunks of five seconds from 0 to 5, both included. Of the annotators of a
sentence, the three that agree best with the ranking count.

Predictions, JSON: a list of {annotation_id, segments: [[first, last], …]}, or, as the official script reads
it, a list of rankings in the order of the annotations. Segments are best first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from model.data.datasets.didemo import CHUNK_SECONDS
from model.data.datasets.moments import Moment
from model.data.datasets.records import Entry, entries_of
from model.evaluation.moments.submission import (
    check_queries,
    no_repetition,
    number_rows,
    read_predictions,
)
from model.runtime.errors import InputError
from model.runtime.moments import hull_iou

Segment = tuple[int, int]

_CHUNKS = 6
#: every segment of a clip
SEGMENTS: tuple[Segment, ...] = tuple(
    (first, last) for first in range(_CHUNKS) for last in range(first, _CHUNKS)
)
# So many annotators of a sentence count, those that agree best.
_COUNTED = 3
# Makes [first, last] to [start, end): one chunk has a length.
_TO_EXTENT = np.array((0, 1))

DidemoMetrics = TypedDict("DidemoMetrics", {"rank@1": float, "rank@5": float, "mIoU": float})


def read_didemo_predictions(path: Path, moments: Sequence[Moment]) -> dict[str, tuple[Segment, ...]]:
    """Read the ranked segments, by the sentence's id.

    Raises:
        InputError: the file is missing or malformed; the message names the query.
    """
    values = read_predictions(path)
    if isinstance(values, list) and values and all(isinstance(value, list) for value in values):
        if len(values) != len(moments):
            raise InputError(
                f"{path} has {len(values)} rankings, the annotations have {len(moments)} sentences: rank the "
                "segments of each sentence, in the order of the annotations"
            )
        values = [
            {"annotation_id": moment.moment_id, "segments": ranking}
            for moment, ranking in zip(moments, values, strict=True)
        ]
    entries = list(entries_of(path, values))
    names = [entry.name("annotation_id") for entry in entries]
    no_repetition(path, "", names)
    return {name: _read(entry, name) for name, entry in zip(names, entries, strict=True)}


def evaluate_didemo(predictions: Mapping[str, Sequence[Segment]], moments: Sequence[Moment]) -> DidemoMetrics:
    """rank@1, rank@5 and mIoU, in percent.

    For each sentence: the mean place of the three annotated segments that are ranked highest, which must be
    at most 1 or 5; and the mean IoU of the first segment with the three that it overlaps most.

    Args:
        predictions: segments, best first, by the sentence's id.
        moments: annotations as `read_didemo_moments` reads them, in seconds.

    Raises:
        InputError: sentences differ, or an annotated segment is not ranked.
    """
    check_queries("predictions", predictions, moments)
    places, overlaps = [], []
    for moment in moments:
        ranking = [tuple(segment) for segment in predictions[moment.moment_id]]
        annotated = [_segment(span) for span in moment.spans]
        for segment in annotated:
            if segment not in ranking:
                raise InputError(
                    f"query {moment.moment_id}: the segments lack {list(segment)}, which annotators chose: "
                    f"rank all {len(SEGMENTS)} segments"
                )
        iou = hull_iou(np.array(ranking[0]) + _TO_EXTENT, np.array(annotated) + _TO_EXTENT)
        overlaps.append(np.sort(iou)[-_COUNTED:].mean())
        place = [ranking.index(segment) + 1 for segment in annotated]
        places.append(np.sort(place)[:_COUNTED].mean())
    return {
        "rank@1": 100 * float(np.mean(np.array(places) <= 1)),
        "rank@5": 100 * float(np.mean(np.array(places) <= 5)),
        "mIoU": 100 * float(np.mean(overlaps)),
    }


def _segment(span: tuple[float, float]) -> Segment:
    """Chunks from seconds."""
    return round(span[0] / CHUNK_SECONDS), round(span[1] / CHUNK_SECONDS) - 1


def _read(entry: Entry, query: str) -> tuple[Segment, ...]:
    rows: list[Any] = number_rows(entry, "segments", query, 2, "[first, last]").tolist()
    segments = [(first, last) for first, last in rows]
    for segment in segments:
        if segment not in SEGMENTS:
            first, last = segment
            raise entry.fail(
                f"query {query}: segments holds [{first:g}, {last:g}]: it must name chunks 0 to {_CHUNKS - 1}"
            )
        if segments.count(segment) > 1:
            raise entry.fail(f"query {query}: segments holds {[int(part) for part in segment]} twice")
    return tuple((int(first), int(last)) for first, last in segments)
