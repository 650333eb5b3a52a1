"""QVHighlights' evaluation (Lei et al., 2021): windows by mAP and R1, highlights by mAP and hit@1.

Predictions, JSON lines: {qid, pred_relevant_windows: [[start, end, score], …], pred_saliency_scores: [a score
for each clip of two seconds]}; either of the two may be left out, by all queries.

Shapes: Q queries, K predictions, G annotated windows, C clips, A annotators.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.data.datasets.moments import CLIP_SECONDS, Moment
from model.data.datasets.records import Entry, json_lines
from model.evaluation.moments.average_precision import Bools, Reals, clip_precision, window_precision
from model.evaluation.moments.submission import check_file, check_queries, no_repetition, number_rows
from model.runtime.errors import InputError
from model.runtime.moments import hull_iou, temporal_iou

#: lengths of the annotated windows in seconds, without the lower and with the upper limit; "full" has all
LENGTHS = {"short": (0.0, 10.0), "middle": (10.0, 30.0), "long": (30.0, 150.0), "full": (0.0, math.inf)}
#: the least rating of a clip that is a highlight
RATINGS = {"Fair": 2, "Good": 3, "VeryGood": 4}
_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
_MOST_PREDICTIONS = 10
# The figures that "brief" repeats, by the length of the windows, the metric and the IoU.
_BRIEF = {
    "MR-full-R1@0.5": ("full", "MR-R1", "0.5"),
    "MR-full-R1@0.7": ("full", "MR-R1", "0.7"),
    "MR-full-mAP": ("full", "MR-mAP", "average"),
    "MR-full-mAP@0.5": ("full", "MR-mAP", "0.5"),
    "MR-full-mAP@0.75": ("full", "MR-mAP", "0.75"),
    "MR-long-mAP": ("long", "MR-mAP", "average"),
    "MR-middle-mAP": ("middle", "MR-mAP", "average"),
    "MR-short-mAP": ("short", "MR-mAP", "average"),
}


@dataclass(frozen=True)
class HighlightPrediction:
    """What is predicted for one query; None: not predicted.

    Attributes:
        windows: start, end and score, float64 [K, 3]. R1 reads the first; mAP sorts the first ten by score.
        saliency: a score for each clip of the video, float64 [C]. Missing clips count as 0, further ones are
            ignored.
    """

    windows: Reals | None = None
    saliency: Reals | None = None


def read_highlight_predictions(path: Path) -> dict[str, HighlightPrediction]:
    """Read predictions, by the query's id.

    Raises:
        InputError: the file is missing or malformed; the message names the query.
    """
    check_file(path)
    entries = list(json_lines(path))
    names = [entry.name("qid") for entry in entries]
    no_repetition(path, "", names)
    return {name: _read(entry, name) for name, entry in zip(names, entries, strict=True)}


def evaluate_qvhighlights(
    predictions: Mapping[str, HighlightPrediction], moments: Sequence[Moment]
) -> dict[str, dict[str, Any]]:
    """The figures of the official script, with its keys, in percent with two decimals.

    For windows, each of "short", "middle", "long" and "full" has "MR-mAP" and "MR-R1" by IoU. For highlights,
    "HL-min-Fair", "HL-min-Good" and "HL-min-VeryGood" have "HL-mAP" and "HL-Hit1". "brief" repeats the most
    used figures. A query without a predicted window counts as 0, where the official script stops. A length of
    which no window is annotated has NaN.

    Raises:
        InputError: queries differ, a query lacks what others have, or the annotations have no saliency
            scores.
    """
    check_queries("predictions", predictions, moments)
    # In the order of the predictions, as the official script adds up: the last decimal may depend on it.
    moment_of = {moment.moment_id: moment for moment in moments}
    moments, chosen = [moment_of[name] for name in predictions], list(predictions.values())
    result: dict[str, dict[str, Any]] = {}
    brief: dict[str, float] = {}
    if _all_or_none("pred_relevant_windows", [one.windows for one in chosen], moments):
        result |= {name: _by_length(chosen, moments, *limits) for name, limits in LENGTHS.items()}
        brief = {key: result[name][metric][iou] for key, (name, metric, iou) in _BRIEF.items()}
    if _all_or_none("pred_saliency_scores", [one.saliency for one in chosen], moments):
        result |= _highlights(chosen, moments)
        for name in RATINGS:
            figures = result[f"HL-min-{name}"]
            brief |= {f"HL-min-{name}-{key.removeprefix('HL-')}": figures[key] for key in figures}
    return {"brief": brief, **dict(sorted(result.items()))}


def windows_of_length(moments: Sequence[Moment], low: float, high: float) -> list[Moment]:
    """The queries with windows longer than `low` and at most `high` seconds, with these windows alone."""
    if (low, high) == LENGTHS["full"]:
        return list(moments)
    spans = [tuple(span for span in m.spans if low < span[1] - span[0] <= high) for m in moments]
    return [replace(moment, spans=kept) for moment, kept in zip(moments, spans, strict=True) if kept]


def _by_length(
    predictions: Sequence[HighlightPrediction], moments: Sequence[Moment], low: float, high: float
) -> dict[str, dict[str, float]]:
    """mAP and R1 of the windows of some lengths."""
    kept = {moment.moment_id: moment for moment in windows_of_length(moments, low, high)}
    if not kept:
        keys = [str(threshold) for threshold in _THRESHOLDS]
        return {"MR-mAP": dict.fromkeys([*keys, "average"], math.nan), "MR-R1": dict.fromkeys(keys, math.nan)}
    pairs = zip(moments, predictions, strict=True)
    windows = [one.windows for moment, one in pairs if moment.moment_id in kept and one.windows is not None]
    spans, annotated = _padded([np.array(moment.spans, np.float64) for moment in kept.values()])
    best_first = [rows[np.argsort(-rows[:, 2], kind="stable")] for rows in _cut(windows, _MOST_PREDICTIONS)]
    rows, predicted = _padded(best_first)
    iou = temporal_iou(rows[:, :, None, :2], spans[:, None]).astype(np.float64)
    precision = window_precision(iou, predicted, annotated, np.array(_THRESHOLDS)).mean(axis=0)
    first = _first_window(_cut(windows, 1), spans, annotated)
    return {
        "MR-mAP": {
            **{str(at): _percent(value) for at, value in zip(_THRESHOLDS, precision, strict=True)},
            "average": _percent(precision.mean()),
        },
        "MR-R1": {str(threshold): _percent((first >= threshold).mean()) for threshold in _THRESHOLDS},
    }


def _first_window(windows: Sequence[Reals], spans: Reals, annotated: Bools) -> Reals:
    """IoU of each query's first window with the annotated window that it overlaps most, [Q]."""
    rows, predicted = _padded(windows)
    if rows.shape[1] == 0:
        return np.zeros(len(rows))
    overlap = np.where(annotated, temporal_iou(rows[:, :1, :2], spans), -1)
    nearest = np.take_along_axis(spans, overlap.argmax(axis=1)[:, None, None], axis=1)[:, 0]
    return np.where(predicted[:, 0], hull_iou(rows[:, 0, :2], nearest), 0)


def _highlights(
    predictions: Sequence[HighlightPrediction], moments: Sequence[Moment]
) -> dict[str, dict[str, float]]:
    """mAP and hit@1 of highlights, by the least rating of one."""
    ratings, clips = _ratings(moments)
    scores = [one.saliency if one.saliency is not None else np.zeros(0) for one in predictions]
    score = np.zeros(clips.shape)
    best = np.full(len(scores), -1)
    for row, values in enumerate(scores):
        count = min(len(values), int(clips[row].sum()))
        score[row, :count] = values[:count]
        if len(values) and (place := int(values.argmax())) < clips[row].sum():
            best[row] = place
    result = {}
    for name, least in RATINGS.items():
        positive = ratings >= least
        hit = positive[np.arange(len(best)), best].any(axis=1) & (best >= 0)
        result[f"HL-min-{name}"] = {
            "HL-mAP": _percent(clip_precision(score, positive, clips).mean()),
            "HL-Hit1": _percent(hit.mean()),
        }
    return result


def _ratings(moments: Sequence[Moment]) -> tuple[Reals, Bools]:
    """Each annotator's rating of each clip [Q, C, A], 0 where there is none; the real clips [Q, C]."""
    annotators = len(moments[0].saliency[0]) if moments[0].saliency else 0
    for moment in moments:
        if not moment.saliency or len(moment.saliency[0]) != annotators or moment.duration_seconds is None:
            raise InputError(
                f"query {moment.moment_id} of the annotations lacks saliency_scores of {annotators or 'its'} "
                "annotators: evaluate windows alone, without pred_saliency_scores"
            )
    counts = np.array([int((moment.duration_seconds or 0) / CLIP_SECONDS) for moment in moments])
    clips = np.arange(counts.max()) < counts[:, None]
    ratings = np.zeros((*clips.shape, annotators))
    for row, moment in enumerate(moments):
        ratings[row, list(moment.clip_ids)] = moment.saliency
    return ratings, clips


def _read(entry: Entry, query: str) -> HighlightPrediction:
    windows: Reals | None = None
    saliency: Reals | None = None
    if entry.values.get("pred_relevant_windows") is not None:
        windows = number_rows(entry, "pred_relevant_windows", query, 3, "[start, end, score]")
        # The official script counts some of these as right: their union may be 0.
        if len(reversed_rows := windows[windows[:, 0] > windows[:, 1]]):
            start, end = reversed_rows[0, :2]
            raise entry.fail(
                f"query {query}: pred_relevant_windows holds [{start:g}, {end:g}, …]: the start must not be "
                "after the end"
            )
    if (scores := entry.values.get("pred_saliency_scores")) is not None:
        if not isinstance(scores, list):
            raise entry.fail(f"query {query}: pred_saliency_scores must be a list of numbers")
        nested = Entry(entry.file, entry.where, {"pred_saliency_scores": [[score] for score in scores]})
        saliency = number_rows(nested, "pred_saliency_scores", query, 1, "a list of numbers")[:, 0]
    if windows is None and saliency is None:
        raise entry.fail(f"query {query}: neither pred_relevant_windows nor pred_saliency_scores")
    return HighlightPrediction(windows, saliency)


def _all_or_none(field: str, values: Sequence[Reals | None], moments: Sequence[Moment]) -> bool:
    """Whether all queries have the field.

    Raises:
        InputError: some have it, and others lack it.
    """
    lacking = [m.moment_id for m, value in zip(moments, values, strict=True) if value is None]
    if lacking and len(lacking) < len(moments):
        raise InputError(f"query {lacking[0]} has no {field}, but others have: predict it for all or none")
    return not lacking


def _padded(groups: Sequence[Reals]) -> tuple[Reals, Bools]:
    """Rows of each query [Q, K, …] and which of them are real [Q, K]."""
    counts = np.array([len(rows) for rows in groups])
    real = np.arange(counts.max(initial=0)) < counts[:, None]
    padded = np.zeros((*real.shape, groups[0].shape[1]))
    padded[real] = np.concatenate(groups)
    return padded, real


def _cut(groups: Sequence[Reals], most: int) -> list[NDArray[np.float64]]:
    return [rows[:most] for rows in groups]


def _percent(share: float) -> float:
    """Rounded as a text, as the official script does."""
    return float(f"{100 * share:.2f}")
