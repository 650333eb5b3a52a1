"""DiDeMo's own metric, against loops and by hand."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from model.data.datasets.moments import read_didemo_moments
from model.evaluation.moments.didemo import (
    SEGMENTS,
    Segment,
    evaluate_didemo,
    read_didemo_predictions,
)
from model.runtime.errors import InputError
from tests.support.annotations import didemo_row, head, write_json


def naive(rankings: list[list[Segment]], times: list[list[Segment]]) -> dict[str, float]:
    """The three figures by loops over chunks."""
    first, fifth, overlaps = 0, 0, 0.0
    for ranking, chosen in zip(rankings, times, strict=True):
        best = sorted(ranking.index((segment[0], segment[1])) + 1 for segment in chosen)[:3]
        first += sum(best) <= len(best)
        fifth += sum(best) <= 5 * len(best)
        chunks = set(range(ranking[0][0], ranking[0][1] + 1))
        ious = []
        for begin, end in chosen:
            other = set(range(begin, end + 1))
            hull = set(range(min(chunks | other), max(chunks | other) + 1))
            ious.append(len(chunks & other) / len(hull))
        best_ious = sorted(ious)[-3:]
        overlaps += sum(best_ious) / len(best_ious)
    count = len(rankings)
    return {"rank@1": 100 * first / count, "rank@5": 100 * fifth / count, "mIoU": 100 * overlaps / count}


def test_there_are_21_segments() -> None:
    assert len(set(SEGMENTS)) == 21
    assert all(0 <= first <= last <= 5 for first, last in SEGMENTS)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_real_head_as_loops(tmp_path: Path, seed: int) -> None:
    path = head("didemo_val_head.json")
    rows, moments = json.loads(path.read_text()), read_didemo_moments(path)
    rng = random.Random(seed)
    rankings = []
    for row in rows:
        ranking = rng.sample(SEGMENTS, 21)
        if rng.random() < 0.5:
            target = tuple(rng.choice(row["times"]))
            ranking.remove(target)
            ranking.insert(rng.choice([0, 1, 3]), target)
        rankings.append(ranking)
    named = [
        {"annotation_id": row["annotation_id"], "segments": ranking}
        for row, ranking in zip(rows, rankings, strict=True)
    ]
    expected = naive(rankings, [row["times"] for row in rows])
    for values in (rankings, rng.sample(named, len(named))):
        read = read_didemo_predictions(write_json(tmp_path / "d.json", values), moments)
        assert evaluate_didemo(read, moments) == pytest.approx(expected, abs=1e-9)


def test_by_hand(tmp_path: Path) -> None:
    rows = [
        didemo_row(annotation_id=1, times=[[0, 0], [0, 0], [0, 0], [5, 5]]),
        didemo_row(annotation_id=2, times=[[1, 2], [1, 2], [1, 1], [1, 3]]),
    ]
    moments = read_didemo_moments(write_json(tmp_path / "val_data.json", rows))
    start = [(0, 0), (1, 1), (1, 2), (1, 3)]
    ranking = start + [segment for segment in SEGMENTS if segment not in start]
    found = evaluate_didemo({"1": ranking, "2": ranking}, moments)
    # Sentence 1: places 1, 1, 1 and IoU 1. Sentence 2: places 2, 3, 3 and IoU 0.
    assert found == {"rank@1": 50.0, "rank@5": 100.0, "mIoU": 50.0}
    later = [(1, 1), *(segment for segment in ranking if segment != (1, 1))]
    # Sentence 1: places 2, 2, 2 and IoU 0. Sentence 2: places 1, 3, 3 and IoU 1, ½, ½, of the hull.
    assert evaluate_didemo({"1": later, "2": later}, moments) == pytest.approx(
        {"rank@1": 0.0, "rank@5": 100.0, "mIoU": 100 * (1 + 1 / 2 + 1 / 2) / 6}
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "entry must be a list of objects, not dict"),
        ([[[0, 0]], [[0, 0]]], "has 2 rankings, the annotations have 1 sentences"),
        ([{"annotation_id": 1}], "query 1: segments must be a list of"),
        ([[[0]]], r"query 1: segments holds \[0\]: it must be \[first, last\]"),
        ([[[0, 6]]], r"query 1: segments holds \[0, 6\]: it must name chunks 0 to 5"),
        ([[[2, 1]]], r"query 1: segments holds \[2, 1\]"),
        ([[[0.5, 1]]], r"query 1: segments holds \[0.5, 1\]"),
        ([[[0, 1], [0, 1]]], r"query 1: segments holds \[0, 1\] twice"),
        ([{"annotation_id": 1, "segments": []}] * 2, "there is query 1 more than once"),
        ([{"annotation_id": 2, "segments": []}], "predictions lack query 1"),
        ([[[0, 1]]], r"query 1: the segments lack \[3, 3\], which annotators chose: rank all 21 segments"),
    ],
)
def test_malformed_rankings_are_named(tmp_path: Path, values: Any, message: str) -> None:
    rows = [didemo_row(annotation_id=1, times=[[3, 3]] * 4)]
    moments = read_didemo_moments(write_json(tmp_path / "val_data.json", rows))
    with pytest.raises(InputError, match=message):
        evaluate_didemo(read_didemo_predictions(write_json(tmp_path / "d.json", values), moments), moments)
