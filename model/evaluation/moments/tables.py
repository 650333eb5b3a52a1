"""Figures of moments as Markdown tables, in percent."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from model.data.datasets.moments import Moment
from model.evaluation.moments.qvhighlights import LENGTHS, RATINGS, windows_of_length
from model.evaluation.moments.tvr import IOU_THRESHOLDS, KINDS, RECALLS
from model.runtime.errors import InputError
from model.runtime.retrieval_metrics import RetrievalMetrics

_KIND_NAMES = {"v": "video (v)", "t": "subtitles (t)", "vt": "both (vt)"}
_TASK_NAMES = {"SVMR": "given video (SVMR)", "VCMR": "corpus (VCMR)"}
_LENGTH_NAMES = {
    "full": "all",
    "short": "short (≤ 10 s)",
    "middle": "middle (10–30 s)",
    "long": "long (30–150 s)",
}
_RATING_NAMES = {"Fair": "fair or better", "Good": "good or better", "VeryGood": "very good"}
_VIDEO_RECALLS = (1, 5, 10)


def retrieval_table(rows: Mapping[str, RetrievalMetrics]) -> str:
    """R@1/5/10 of retrieval, with a line for each model or split that is named."""
    cells = [
        [name, *(_cell(value) for value in (metrics["R@1"], metrics["R@5"], metrics["R@10"]))]
        for name, metrics in rows.items()
    ]
    return _table(["", "R@1", "R@5", "R@10"], cells)


def tvr_tables(result: Mapping[str, Mapping[str, Any]], recalls: Sequence[int] = (1, 10, 100)) -> str:
    """What `evaluate_tvr` found: a table of moments and one of videos, by what the descriptions speak of.

    Args:
        result: the figures.
        recalls: numbers K of R@K of moments, of 1, 5, 10 and 100.

    Raises:
        InputError: R@K was not measured.
    """
    for k in recalls:
        if k not in RECALLS:
            numbers = ", ".join(map(str, RECALLS))
            raise InputError(f"recall_at is {k}: choose among {numbers}", "recall_at")
    blocks = []
    if tasks := [task for task in _TASK_NAMES if task in result]:
        keys = [(iou, k) for iou in IOU_THRESHOLDS for k in recalls]
        rows = [
            [_TASK_NAMES[task], name, *(_cell(figures[f"{prefix}{iou}-r{k}"]) for iou, k in keys)]
            for task in tasks
            for name, prefix, figures in _kinds(result, task)
        ]
        header = ["moments", "descriptions", *(f"IoU {iou}, R@{k}" for iou, k in keys)]
        blocks.append(_table(header, rows, names=2))
    if "VR" in result:
        rows = [
            [name, *(_cell(figures[f"{prefix}r{k}"]) for k in _VIDEO_RECALLS)]
            for name, prefix, figures in _kinds(result, "VR")
        ]
        blocks.append(_table(["videos (VR): descriptions", *(f"R@{k}" for k in _VIDEO_RECALLS)], rows))
    for figures in result.values():
        if "desc_type_ratio" in figures:
            blocks.append(f"Descriptions in percent: {figures['desc_type_ratio']}")
            break
    return "\n\n".join(blocks)


def didemo_table(result: Mapping[str, Any]) -> str:
    """What `evaluate_didemo` found."""
    return _table(list(result), [[_cell(value) for value in result.values()]], names=0)


def qvhighlights_tables(result: Mapping[str, Mapping[str, Any]], moments: Sequence[Moment]) -> str:
    """What `evaluate_qvhighlights` found: a table of windows by their length, and one of highlights."""
    blocks = []
    if "full" in result:
        rows = []
        for name, title in _LENGTH_NAMES.items():
            count = len(windows_of_length(moments, *LENGTHS[name]))
            average, recall = result[name]["MR-mAP"], result[name]["MR-R1"]
            figures = (
                recall["0.5"],
                recall["0.7"],
                average["0.5"],
                average["0.75"],
                average["average"],
            )
            rows.append([title, str(count), *map(_cell, figures)])
        header = ["windows", "queries", "R1@0.5", "R1@0.7", "mAP@0.5", "mAP@0.75", "mAP"]
        blocks.append(_table(header, rows))
    if f"HL-min-{next(iter(RATINGS))}" in result:
        rows = []
        for name in RATINGS:
            figures_of = result[f"HL-min-{name}"]
            rows.append([_RATING_NAMES[name], _cell(figures_of["HL-mAP"]), _cell(figures_of["HL-Hit1"])])
        blocks.append(_table(["highlights", "mAP", "HIT@1"], rows))
    return "\n\n".join(blocks)


def _kinds(
    result: Mapping[str, Mapping[str, Any]], task: str
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """All descriptions, then each kind: its name, the prefix of its keys, and its figures."""
    yield "all", "", result[task]
    if by_kind := result.get(f"{task}_by_type"):
        for kind in KINDS:
            yield _KIND_NAMES[kind], f"{kind}-", by_kind


def _cell(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], names: int = 1) -> str:
    """A Markdown table whose first columns are names and whose others are numbers."""
    rules = ["---"] * names + ["---:"] * (len(header) - names)
    lines = [header, *rows]
    text = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([text[0], f"|{'|'.join(rules)}|", *text[1:]])
