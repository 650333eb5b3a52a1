"""QVHighlights' evaluation, against loops and by hand."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from model.data.datasets.moments import Moment, read_windows
from model.evaluation.moments.qvhighlights import evaluate_qvhighlights, read_highlight_predictions
from model.runtime.errors import InputError
from tests.support.annotations import head
from tests.support.moments import random_span

THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
Span = Sequence[float]


def overlap(a: Span, b: Span) -> float:
    return max(0.0, min(a[1], b[1]) - max(a[0], b[0]))


def union_iou(a: Span, b: Span) -> float:
    return overlap(a, b) / ((a[1] - a[0]) + (b[1] - b[0]) - overlap(a, b))


def naive_window_precision(rows: Sequence[Span], spans: Sequence[Span], threshold: float) -> float:
    """Area under the interpolated curve: each right prediction brings 1/G of recall."""
    taken: set[int] = set()
    hits = []
    for row in sorted(rows[:10], key=lambda row: -row[2]):
        free = [(union_iou(row, span), place) for place, span in enumerate(spans) if place not in taken]
        best = max(free, default=(0.0, 0))
        hits.append(best[0] >= threshold)
        if hits[-1]:
            taken.add(best[1])
    precision = [sum(hits[: place + 1]) / (place + 1) for place in range(len(hits))]
    steps = (max(precision[place:]) for place, hit in enumerate(hits) if hit)
    return sum(steps) / len(spans)


def naive_windows(rows: Any, moments: Sequence[Moment], low: float, high: float) -> dict[str, Any]:
    """mAP and R1 of one range of lengths."""
    precision: dict[float, list[float]] = {threshold: [] for threshold in THRESHOLDS}
    first = []
    for moment in moments:
        spans = [span for span in moment.spans if low < span[1] - span[0] <= high]
        if not spans:
            continue
        windows = rows[moment.moment_id]["pred_relevant_windows"]
        for threshold in THRESHOLDS:
            precision[threshold].append(naive_window_precision(windows, spans, threshold))
        if windows:
            nearest = max(spans, key=lambda span: union_iou(windows[0], span))
            hull = max(windows[0][1], nearest[1]) - min(windows[0][0], nearest[0])
            first.append(overlap(windows[0], nearest) / hull)
        else:
            first.append(0.0)
    means = {str(threshold): float(np.mean(values)) for threshold, values in precision.items()}
    recall = {str(threshold): np.mean([iou >= threshold for iou in first]) for threshold in THRESHOLDS}
    means["average"] = float(np.mean(list(means.values())))
    return {
        "MR-mAP": {key: 100 * value for key, value in means.items()},
        "MR-R1": {key: 100 * float(value) for key, value in recall.items()},
    }


def naive_clip_precision(truth: Sequence[bool], score: Sequence[float]) -> float:
    """Mean precision at each score that a highlight has, or at a lower one where that is better."""
    scores = [*score, *[0.0] * len(truth)][: len(truth)]

    def precision(least: float) -> float:
        kept = [hit for hit, value in zip(truth, scores, strict=True) if value >= least]
        return sum(kept) / len(kept)

    steps = {value for hit, value in zip(truth, scores, strict=True) if hit}
    best = [max(precision(lower) for lower in scores if lower <= step) for step in steps]
    return float(np.mean(best)) if best else 0.0


def naive_highlights(rows: Any, moments: Sequence[Moment], least: int) -> dict[str, float]:
    precisions, hits = [], []
    for moment in moments:
        count = int((moment.duration_seconds or 0) // 2)
        ratings = dict(zip(moment.clip_ids, moment.saliency, strict=True))
        score = rows[moment.moment_id]["pred_saliency_scores"]
        for annotator in range(3):
            truth = [ratings.get(clip, (0, 0, 0))[annotator] >= least for clip in range(count)]
            precisions.append(naive_clip_precision(truth, score))
        best = score.index(max(score)) if score else -1
        hits.append(any(rating >= least for rating in ratings.get(best, ())))
    return {"HL-mAP": 100 * float(np.mean(precisions)), "HL-Hit1": 100 * float(np.mean(hits))}


def naive(rows: Any, moments: Sequence[Moment]) -> dict[str, Any]:
    ranges = {"full": (-1, 1e9), "long": (30, 150), "middle": (10, 30), "short": (0, 10)}
    ratings = {"HL-min-Fair": 2, "HL-min-Good": 3, "HL-min-VeryGood": 4}
    return {
        **{name: naive_highlights(rows, moments, least) for name, least in ratings.items()},
        **{name: naive_windows(rows, moments, *limits) for name, limits in ranges.items()},
    }


def write_lines(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def random_rows(moments: Sequence[Moment], seed: int) -> list[dict[str, Any]]:
    """Predictions with ties, too many or no windows, and too many or too few clips; in any order."""
    rng = random.Random(seed)
    levels = (3, 1000)[seed % 2]
    rows = []
    for moment in moments:
        windows = [
            [*random_span(rng, moment.spans), rng.randrange(levels) / 7]
            for _ in range(rng.choice([0, 1, 2, 5, 10, 13]))
        ]
        clips = int((moment.duration_seconds or 0) // 2)
        scores = [
            rng.randrange(levels) / 7 - 1 for _ in range(rng.choice([clips, clips, clips - 7, clips + 3, 0]))
        ]
        rows.append(
            {
                "qid": int(moment.moment_id),
                "pred_relevant_windows": windows,
                "pred_saliency_scores": scores,
            }
        )
    rng.shuffle(rows)
    return rows


def evaluate(folder: Path, rows: Sequence[Any], moments: Sequence[Moment]) -> dict[str, dict[str, Any]]:
    return evaluate_qvhighlights(read_highlight_predictions(write_lines(folder / "p.jsonl", rows)), moments)


def random_moments(seed: int) -> list[Moment]:
    rng = random.Random(seed)
    moments = []
    for number in range(30):
        starts = rng.sample(range(0, 140, 20), rng.choice([1, 1, 2, 4]))
        spans = [(float(start), float(start + rng.choice([2, 6, 10, 12, 18]))) for start in starts]
        if rng.random() < 0.3:
            spans = [(10.0, 10.0 + rng.choice([30, 32, 140]))]
        clips = tuple(clip for start, end in spans for clip in range(int(start) // 2, int(end) // 2))
        saliency = tuple((rng.randrange(5), rng.randrange(5), 4) for _ in clips)
        moments.append(Moment(str(number), "v", "a text", tuple(spans), 150.0, None, clips, saliency))
    return moments


def check(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """All keys, to the two decimals that are kept."""
    assert list(found) == ["brief", *sorted(expected)]
    for name, figures in expected.items():
        flat = {name: found[name]} if name.startswith("HL") else found[name]
        for key, values in ({name: figures} if name.startswith("HL") else figures).items():
            assert flat[key] == pytest.approx(values, abs=0.005001), (name, key)
            assert list(flat[key]) == list(values)


@pytest.mark.parametrize("seed", range(4))
def test_every_key_as_loops(tmp_path: Path, seed: int) -> None:
    moments = random_moments(seed)
    rows = random_rows(moments, seed)
    check(evaluate(tmp_path, rows, moments), naive({str(row["qid"]): row for row in rows}, moments))


def test_every_key_on_the_real_head_as_loops(tmp_path: Path) -> None:
    moments = read_windows(head("qvhighlights_val_head.jsonl"))[:60]
    rows = random_rows(moments, 1)
    check(evaluate(tmp_path, rows, moments), naive({str(row["qid"]): row for row in rows}, moments))


MOMENT = Moment("7", "v", "a", ((0, 10), (20, 60)), 62.0, None, (0, 1), ((1, 2, 4), (0, 0, 3)))


def test_by_hand(tmp_path: Path) -> None:
    rows = [{"qid": 7, "pred_relevant_windows": [[0, 5, 0.1], [20, 60, 0.9], [21, 60, 0.5]]}]
    found = evaluate(tmp_path, rows, [MOMENT])
    # R1 reads the first window that is written, 50 % of a window.
    assert [found["full"]["MR-R1"][key] for key in ("0.5", "0.55")] == [100, 0]
    # By score: right, wrong because its window is taken, right at IoU 0.5. Precision 1, ½, ⅔.
    assert found["full"]["MR-mAP"]["0.5"] == round(100 * (1 + 2 / 3) / 2, 2)
    assert found["full"]["MR-mAP"]["0.55"] == 50
    assert found["short"]["MR-R1"]["0.5"] == 100
    assert found["long"]["MR-mAP"]["0.95"] == 100
    assert found["long"]["MR-R1"]["0.5"] == 0
    assert math.isnan(found["middle"]["MR-mAP"]["average"])
    assert found["brief"]["MR-full-mAP@0.75"] == 50
    assert found["brief"]["MR-short-mAP"] == found["short"]["MR-mAP"]["average"]
    assert set(found) == {"brief", "full", "long", "middle", "short"}

    rows = [{"qid": 7, "pred_saliency_scores": [0.5, 0.1, 0.9]}]
    found = evaluate(tmp_path, rows, [MOMENT])
    # The best clip is none. Good or better: annotator 3 alone, both clips, at the places 2 and 3 (clips that
    # have no score count as 0).
    assert found["HL-min-Good"] == {"HL-mAP": round(100 * (0 + 0 + 2 / 3) / 3, 2), "HL-Hit1": 0.0}
    assert found["HL-min-VeryGood"]["HL-mAP"] == round(100 * (0 + 0 + 1 / 2) / 3, 2)
    assert found["brief"] == {
        f"HL-min-{name}-{key}": found[f"HL-min-{name}"][f"HL-{key}"]
        for name in ("Fair", "Good", "VeryGood")
        for key in ("mAP", "Hit1")
    }
    rows = [{"qid": 7, "pred_saliency_scores": [0.9, 0.1]}]
    assert evaluate(tmp_path, rows, [MOMENT])["HL-min-VeryGood"]["HL-Hit1"] == 100


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "query 7: neither pred_relevant_windows nor pred_saliency_scores"),
        ({"pred_relevant_windows": 3}, "query 7: pred_relevant_windows must be a list of"),
        ({"pred_relevant_windows": [[0, 1]]}, r"query 7: pred_relevant_windows holds \[0, 1\]: it must be"),
        ({"pred_relevant_windows": [[4, 1, 1]]}, r"query 7: pred_relevant_windows holds \[4, 1, …\]"),
        ({"pred_saliency_scores": 0.5}, "query 7: pred_saliency_scores must be a list of numbers"),
        ({"pred_saliency_scores": [0.5, None]}, r"query 7: pred_saliency_scores holds \[None\]"),
    ],
)
def test_malformed_predictions_are_named(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(InputError, match=rf"p.jsonl, line 1: {message}"):
        evaluate(tmp_path, [{"qid": 7, **row}], [MOMENT])


def test_mismatches_are_named(tmp_path: Path) -> None:
    row = {"qid": 7, "pred_relevant_windows": [], "pred_saliency_scores": []}
    other = Moment("8", "v", "a", ((0, 10),), 62.0, None, (0,), ((1, 2, 4),))
    with pytest.raises(InputError, match="there is query 7 more than once"):
        evaluate(tmp_path, [row, row], [MOMENT])
    with pytest.raises(InputError, match="predictions lack query 8 of the annotations"):
        evaluate(tmp_path, [row], [MOMENT, other])
    with pytest.raises(InputError, match="query 8 has no pred_saliency_scores, but others have"):
        evaluate(tmp_path, [row, {"qid": 8, "pred_relevant_windows": []}], [MOMENT, other])
    plain = Moment("8", "v", "a", ((0, 10),), 62.0)
    with pytest.raises(InputError, match="query 8 of the annotations lacks saliency_scores of 3 annotators"):
        evaluate(tmp_path, [row, {**row, "qid": 8}], [MOMENT, plain])
    with pytest.raises(InputError, match=r"no predictions in .*none\.jsonl"):
        read_highlight_predictions(tmp_path / "none.jsonl")
