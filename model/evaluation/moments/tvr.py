"""TVR's evaluation (Lei et al., 2020), in every key: moments in the corpus, of the given video, and videos.

A query counts as found at K if one of its first K predictions is right: the right video, and an IoU that
reaches the threshold. The order of the predictions is their rank. Of more than 100 predictions the first 100
count. Where the video is given, predictions of other videos are dropped then. Times and IoU are in single
precision.

Shapes: Q queries, K predictions, G spans of a query.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.data.datasets.moments import Moment
from model.evaluation.moments.submission import TASKS, Predictions, Submission, Task, check_queries
from model.runtime.errors import InputError
from model.runtime.moments import hull_iou

IOU_THRESHOLDS = (0.5, 0.7)
RECALLS = (1, 5, 10, 100)
#: what a description speaks of: the video, the subtitles, or both
KINDS = ("v", "t", "vt")
_MOST_PREDICTIONS = 100
# From so many spans of a query on, as in DiDeMo's files of this form, so many annotators must agree.
_ANNOTATORS, _AGREEING = 4, 2

#: for each task, and for each with "_by_type", its figures in percent
TvrMetrics = dict[str, dict[str, Any]]
_Places = NDArray[np.float64]


def evaluate_tvr(submission: Submission, moments: Sequence[Moment]) -> TvrMetrics:
    """The figures of the official script, with its keys, in percent with two decimals.

    "0.5-r1" is R@1 at IoU 0.5, "v-0.5-r1" the same for descriptions of the kind v, "r1" is R@1 of videos.
    Where the annotations state kinds, each task has "…_by_type" too, with the shares of the kinds as
    "desc_type_ratio". A kind without a query has NaN. A query with an empty list of predictions is not found.

    Raises:
        InputError: queries or videos of the submission and of the annotations differ, or kinds are unknown.
    """
    for task, queries in submission.tasks.items():
        check_queries(f"{task} predictions", queries, moments)
    targets = _targets(submission, moments)
    kinds = _kinds(moments)
    result: TvrMetrics = {}
    by_kind: TvrMetrics = {}
    for task in TASKS:
        if task not in submission.tasks:
            continue
        predictions = [submission.tasks[task][moment.moment_id] for moment in moments]
        places = _places(task, predictions, targets, moments)
        everyone = np.ones(len(moments), np.bool_)
        result[task] = dict(_recalls(places, everyone, ""))
        if kinds is not None:
            by_kind[f"{task}_by_type"] = {
                key: value for kind in KINDS for key, value in _recalls(places, kinds == kind, f"{kind}-")
            }
            by_kind[f"{task}_by_type"]["desc_type_ratio"] = _shares(kinds)
    return {**result, **by_kind}


def _targets(submission: Submission, moments: Sequence[Moment]) -> NDArray[np.int64]:
    """The number of each query's video, [Q]."""
    for moment in moments:
        if moment.video_id not in submission.video_numbers:
            raise InputError(
                f"video2idx lacks {moment.video_id}, the video of query {moment.moment_id}: it must hold all "
                "videos of the annotations"
            )
    return np.array([submission.video_numbers[moment.video_id] for moment in moments], np.int64)


def _kinds(moments: Sequence[Moment]) -> NDArray[np.str_] | None:
    """The kind of each description, [Q]; None where none is stated."""
    if all(moment.kind is None for moment in moments):
        return None
    for moment in moments:
        if moment.kind not in KINDS:
            raise InputError(
                f"query {moment.moment_id} has the type {moment.kind!r}: use {', '.join(KINDS)}, or state no "
                "type at all"
            )
    return np.array([moment.kind for moment in moments])


def _places(
    task: Task,
    predictions: Sequence[Predictions],
    targets: NDArray[np.int64],
    moments: Sequence[Moment],
) -> dict[str, _Places]:
    """The place of the first right prediction of each query, from 1; infinity where there is none.

    Returns:
        For videos, the places [Q] under "r"; for moments, under "0.5-r" and "0.7-r".
    """
    real, video, span = _padded(predictions)
    right_video = real & (video == targets[:, None])
    if task == "VR":
        return {"r": _first(right_video, None)}
    counted = right_video if task == "SVMR" else None
    annotated, annotators = _annotated(moments)
    needed = np.where(annotators.sum(axis=1) >= _ANNOTATORS, _AGREEING, 1)[:, None]
    iou = hull_iou(span[:, :, None], annotated[:, None])
    places = {}
    for threshold in IOU_THRESHOLDS:
        reached = (iou >= np.float32(threshold)) & annotators[:, None]
        places[f"{threshold}-r"] = _first(right_video & (reached.sum(axis=2) >= needed), counted)
    return places


def _padded(
    predictions: Sequence[Predictions],
) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.float32]]:
    """Which predictions are real [Q, K], their videos [Q, K] and spans [Q, K, 2]."""
    counts = np.array([min(len(rows), _MOST_PREDICTIONS) for rows in predictions])
    real = np.arange(counts.max(initial=0)) < counts[:, None]
    video, span = np.zeros(real.shape, np.int64), np.zeros((*real.shape, 2), np.float32)
    video[real] = np.concatenate([rows.video[:_MOST_PREDICTIONS] for rows in predictions])
    span[real] = np.concatenate([rows.span[:_MOST_PREDICTIONS] for rows in predictions])
    return real, video, span


def _annotated(moments: Sequence[Moment]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The annotated spans [Q, G, 2], and which of them are real [Q, G]."""
    counts = np.array([len(moment.spans) for moment in moments])
    real = np.arange(counts.max(initial=0)) < counts[:, None]
    spans = np.zeros((*real.shape, 2), np.float32)
    spans[real] = np.array([span for moment in moments for span in moment.spans], np.float32).reshape(-1, 2)
    return spans, real


def _first(right: NDArray[np.bool_], counted: NDArray[np.bool_] | None) -> _Places:
    """The place of the first right one of each row, among those that are counted. [Q, K] → [Q]."""
    if right.shape[1] == 0:
        return np.full(len(right), math.inf)
    first = right.argmax(axis=1)
    place = first + 1 if counted is None else np.cumsum(counted, axis=1)[np.arange(len(right)), first]
    return np.where(right.any(axis=1), place, math.inf)


def _recalls(
    places: Mapping[str, _Places], chosen: NDArray[np.bool_], prefix: str
) -> list[tuple[str, float]]:
    """R@K of the chosen queries, by key."""
    return [
        (f"{prefix}{key}{k}", _percent(int((place[chosen] <= k).sum()), int(chosen.sum())))
        for key, place in places.items()
        for k in RECALLS
    ]


def _shares(kinds: NDArray[np.str_]) -> str:
    return " ".join(f"{kind} {_percent(int((kinds == kind).sum()), len(kinds))}" for kind in KINDS)


def _percent(part: int, whole: int) -> float:
    """Rounded by NumPy, as in the official script."""
    return float(np.round(np.float64(part) / whole * 100, 2)) if whole else math.nan
