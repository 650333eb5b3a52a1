"""TVR's evaluation against loops over single predictions, and by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from model.data.datasets.moments import Moment, read_tvr
from model.evaluation.moments.submission import read_submission
from model.evaluation.moments.tvr import evaluate_tvr
from tests.support.annotations import head, write_json
from tests.support.moments import random_submission

KINDS = ("v", "t", "vt")


def right(prediction: Sequence[float], number: int, moment: Moment, threshold: float) -> bool:
    """Whether one prediction is right, in single precision."""
    agreeing = 0
    for span in moment.spans:
        start, end, begin, stop = (np.float32(part) for part in (*span, *prediction[1:3]))
        shared = max(np.float32(0), min(end, stop) - max(start, begin))
        hull = max(end, stop) - min(start, begin)
        agreeing += int(hull != 0 and shared / hull >= np.float32(threshold))
    return prediction[0] == number and agreeing >= (2 if len(moment.spans) >= 4 else 1)


def naive(values: dict[str, Any], moments: Sequence[Moment]) -> dict[str, dict[str, Any]]:
    """All figures by loops over queries and predictions."""
    result: dict[str, dict[str, Any]] = {}
    tasks = [task for task in ("VCMR", "SVMR", "VR") if task in values]
    for task in tasks:
        found: dict[str, dict[str, bool]] = {}
        rows = {str(row["desc_id"]): row["predictions"] for row in values[task]}
        for moment in moments:
            number = values["video2idx"][moment.video_id]
            predictions = rows[moment.moment_id][:100]
            if task == "SVMR":
                predictions = [one for one in predictions if one[0] == number]
            for k in (1, 5, 10, 100):
                if task == "VR":
                    found.setdefault(f"r{k}", {})[moment.moment_id] = any(
                        one[0] == number for one in predictions[:k]
                    )
            for threshold in (0.5, 0.7) if task != "VR" else ():
                for k in (1, 5, 10, 100):
                    found.setdefault(f"{threshold}-r{k}", {})[moment.moment_id] = any(
                        right(one, number, moment, threshold) for one in predictions[:k]
                    )
        result[task] = {key: share(list(queries.values())) for key, queries in found.items()}
        if moments[0].kind is not None:
            by_kind: dict[str, Any] = {}
            result[f"{task}_by_type"] = by_kind
            for kind in KINDS:
                chosen = [moment.moment_id for moment in moments if moment.kind == kind]
                for key, queries in found.items():
                    by_kind[f"{kind}-{key}"] = share([queries[name] for name in chosen])
            shares = (f"{kind} {share([moment.kind == kind for moment in moments])}" for kind in KINDS)
            by_kind["desc_type_ratio"] = " ".join(shares)
    return {**{task: result[task] for task in tasks}, **result}


def share(hits: Sequence[bool]) -> float:
    return float(round(np.mean(hits, dtype=np.float64) * 100, 2)) if hits else math.nan


def evaluate(path: Path, values: dict[str, Any], moments: Sequence[Moment]) -> dict[str, dict[str, Any]]:
    return evaluate_tvr(read_submission(write_json(path / "submission.json", values)), moments)


def moment(number: int, video: str, *spans: tuple[float, float], kind: str | None = "v") -> Moment:
    return Moment(str(number), video, f"text {number}", spans, 60.0, kind)


MOMENTS = (
    moment(1, "a", (0, 10)),
    moment(2, "b", (20, 30), kind="t"),
    moment(3, "b", (5.25, 12.9), kind="vt"),
    moment(4, "c", (7, 7.7)),
)


@pytest.mark.parametrize("seed", range(3))
def test_every_key_on_the_real_head_as_loops(tmp_path: Path, seed: int) -> None:
    moments = read_tvr(head("tvr_val_head.jsonl"))[seed * 100 : seed * 100 + 130]
    values = random_submission(moments, seed)
    assert json.dumps(evaluate(tmp_path, values, moments)) == json.dumps(naive(values, moments))


@pytest.mark.parametrize("seed", range(4))
def test_every_key_as_loops(tmp_path: Path, seed: int) -> None:
    kinds = KINDS[: seed + 1] if seed else (None,)
    rng = np.random.default_rng(seed)
    moments = []
    for number in range(37):
        # One span, or, as in DiDeMo, one of each of four or five annotators.
        starts = rng.integers(0, 30, rng.choice([1, 4, 5]) if seed == 0 else 1)
        spans = [(float(start), float(start + rng.integers(1, 15))) for start in starts]
        moments.append(moment(number, f"video {number % 9}", *spans, kind=kinds[number % len(kinds)]))
    values = random_submission(moments, seed, ("VR", "VCMR", "SVMR")[seed % 3 :])
    assert json.dumps(evaluate(tmp_path, values, moments)) == json.dumps(naive(values, moments))


def test_by_hand(tmp_path: Path) -> None:
    numbers = {"a": 5, "b": 6, "c": 7}
    wrong = [5, 0, 1, 9.0]
    corpus = {
        1: [[5, 0, 5, 0.1]],  # IoU 0.5, just enough
        2: [wrong, [6, 20, 27, 0.2]],  # IoU 0.7 in single precision, at the second place
        3: [[7, 5.25, 12.9, 0.9]],  # the right span of a wrong video
        4: [],
    }
    values = {
        "video2idx": numbers,
        "VCMR": [{"desc_id": name, "desc": "", "predictions": rows} for name, rows in corpus.items()],
        "SVMR": [
            {"desc_id": name, "desc": "", "predictions": [wrong[:3]] * 4 + rows}
            for name, rows in corpus.items()
        ],
        "VR": [{"desc_id": name, "desc": "", "predictions": rows} for name, rows in corpus.items()],
    }
    result = evaluate(tmp_path, values, MOMENTS)
    assert list(result) == ["VCMR", "SVMR", "VR", "VCMR_by_type", "SVMR_by_type", "VR_by_type"]
    expected = [25.0, 50.0, 50.0, 50.0, 0.0, 25.0, 25.0, 25.0]
    keys = [f"{threshold}-r{k}" for threshold in (0.5, 0.7) for k in (1, 5, 10, 100)]
    assert result["VCMR"] == dict(zip(keys, expected, strict=True))
    # Of video a, the wrong spans stay; those of query 2 are dropped, so that the right one is first.
    assert result["SVMR"]["0.5-r1"] == 25.0
    assert result["SVMR"]["0.7-r1"] == 25.0
    assert result["SVMR"]["0.5-r5"] == 50.0
    assert result["VR"] == {"r1": 25.0, "r5": 50.0, "r10": 50.0, "r100": 50.0}
    assert result["VCMR_by_type"]["v-0.5-r1"] == 50.0
    assert result["VCMR_by_type"]["t-0.5-r1"] == 0.0
    assert result["VCMR_by_type"]["t-0.7-r5"] == 100.0
    assert result["VR_by_type"]["desc_type_ratio"] == "v 50.0 t 25.0 vt 25.0"


def test_the_first_hundred_count(tmp_path: Path) -> None:
    moments = MOMENTS[:1]
    rows = [[5, 30, 40, 1.0]] * 100 + [[5, 0, 10, 2.0]]
    values = {"video2idx": {"a": 5}, "VCMR": [{"desc_id": 1, "desc": "", "predictions": rows}]}
    assert evaluate(tmp_path, values, moments)["VCMR"]["0.5-r100"] == 0
    values["VCMR"][0]["predictions"] = rows[1:]  # type: ignore[index]
    assert evaluate(tmp_path, values, moments)["VCMR"]["0.5-r100"] == 100


def test_percent_has_two_decimals(tmp_path: Path) -> None:
    # 201 of 320 is 62.8125 %. Without kinds, there is nothing by kind.
    moments = [moment(number, "a", (0, 10), kind=None) for number in range(320)]
    rows = [
        {"desc_id": number, "desc": "", "predictions": [[1 if number < 201 else 2, 0, 0, 0]]}
        for number in range(320)
    ]
    values = {"video2idx": {"a": 1, "b": 2}, "VR": rows}
    assert evaluate(tmp_path, values, moments) == {"VR": dict.fromkeys(("r1", "r5", "r10", "r100"), 62.81)}


def test_mistakes_are_named(tmp_path: Path) -> None:
    values = random_submission(MOMENTS, 0)
    with pytest.raises(ValueError, match="VCMR predictions lack query 9 of the annotations"):
        evaluate(tmp_path, values, [*MOMENTS, moment(9, "a", (0, 1))])
    with pytest.raises(ValueError, match="VCMR predictions are for queries 3, 4, which the annotations lack"):
        evaluate(tmp_path, values, MOMENTS[:2])
    with pytest.raises(ValueError, match="the annotations hold query 1 more than once"):
        evaluate(tmp_path, values, [*MOMENTS, MOMENTS[0]])
    with pytest.raises(ValueError, match="the annotations hold no query"):
        evaluate(tmp_path, values, [])
    with pytest.raises(ValueError, match="query 4 has the type 'x': use v, t, vt, or state no type"):
        evaluate(tmp_path, values, [*MOMENTS[:3], moment(4, "c", (0, 1), kind="x")])
    with pytest.raises(ValueError, match="query 4 has the type None"):
        evaluate(tmp_path, values, [*MOMENTS[:3], moment(4, "c", (0, 1), kind=None)])
    del values["video2idx"]["c"]
    with pytest.raises(ValueError, match="video2idx lacks c, the video of query 4"):
        evaluate(tmp_path, values, MOMENTS)
