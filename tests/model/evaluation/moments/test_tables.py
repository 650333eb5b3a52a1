"""The Markdown tables, by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

pytest.importorskip("torch")

from model.data.datasets.moments import Moment
from model.evaluation.moments.tables import (
    didemo_table,
    qvhighlights_tables,
    retrieval_table,
    tvr_tables,
)
from model.runtime.errors import InputError
from model.runtime.retrieval_metrics import retrieval_metrics


def figures(prefix: str, start: float) -> dict[str, float]:
    """0.5-r1 is `start`, and each further key one more."""
    keys = [f"{prefix}{iou}-r{k}" for iou in (0.5, 0.7) for k in (1, 5, 10, 100)]
    return {key: start + place for place, key in enumerate(keys)}


TVR: dict[str, dict[str, Any]] = {
    "VCMR": figures("", 10),
    "VR": {"r1": 1.5, "r5": 2.0, "r10": 3.0, "r100": 4.0},
    "VCMR_by_type": {
        **figures("v-", 20),
        **figures("t-", math.nan),
        **figures("vt-", 30),
        "desc_type_ratio": "v 75.0 t 0.0 vt 25.0",
    },
    "VR_by_type": {
        **{f"{kind}-r{k}": float(k) for kind in ("v", "t", "vt") for k in (1, 5, 10, 100)},
        "desc_type_ratio": "v 75.0 t 0.0 vt 25.0",
    },
}


def test_tables_of_tvr() -> None:
    assert tvr_tables(TVR, (1, 100)) == "\n".join(
        [
            "| moments | descriptions | IoU 0.5, R@1 | IoU 0.5, R@100 | IoU 0.7, R@1 | IoU 0.7, R@100 |",
            "|---|---|---:|---:|---:|---:|",
            "| corpus (VCMR) | all | 10.00 | 13.00 | 14.00 | 17.00 |",
            "| corpus (VCMR) | video (v) | 20.00 | 23.00 | 24.00 | 27.00 |",
            "| corpus (VCMR) | subtitles (t) | – | – | – | – |",
            "| corpus (VCMR) | both (vt) | 30.00 | 33.00 | 34.00 | 37.00 |",
            "",
            "| videos (VR): descriptions | R@1 | R@5 | R@10 |",
            "|---|---:|---:|---:|",
            "| all | 1.50 | 2.00 | 3.00 |",
            "| video (v) | 1.00 | 5.00 | 10.00 |",
            "| subtitles (t) | 1.00 | 5.00 | 10.00 |",
            "| both (vt) | 1.00 | 5.00 | 10.00 |",
            "",
            "Descriptions in percent: v 75.0 t 0.0 vt 25.0",
        ]
    )
    assert tvr_tables({"SVMR": figures("", 0)}, (1, 5, 10)).splitlines()[2:] == [
        "| given video (SVMR) | all | 0.00 | 1.00 | 2.00 | 4.00 | 5.00 | 6.00 |"
    ]
    with pytest.raises(InputError, match="recall_at is 3: choose among 1, 5, 10, 100"):
        tvr_tables(TVR, (1, 3))


def test_tables_of_the_others() -> None:
    assert didemo_table({"rank@1": 12.0, "rank@5": 49.0, "mIoU": 33.6417}) == (
        "| rank@1 | rank@5 | mIoU |\n|---:|---:|---:|\n| 12.00 | 49.00 | 33.64 |"
    )
    length = {"MR-mAP": {"0.5": 1.0, "0.75": 2.0, "average": 3.0}, "MR-R1": {"0.5": 4.0, "0.7": 5.0}}
    nothing = {"MR-mAP": dict.fromkeys(("0.5", "0.75", "average"), math.nan), "MR-R1": length["MR-R1"]}
    windows = {"full": length, "short": length, "middle": nothing, "long": length}
    ratings = {f"HL-min-{name}": {"HL-mAP": 6.0, "HL-Hit1": 7.0} for name in ("Fair", "Good", "VeryGood")}
    moments = [Moment("1", "v", "a", ((0, 10), (20, 60)), 62.0), Moment("2", "v", "a", ((0, 151),), 152.0)]
    assert qvhighlights_tables(windows, moments).splitlines()[2:] == [
        "| all | 2 | 4.00 | 5.00 | 1.00 | 2.00 | 3.00 |",
        "| short (≤ 10 s) | 1 | 4.00 | 5.00 | 1.00 | 2.00 | 3.00 |",
        "| middle (10–30 s) | 0 | 4.00 | 5.00 | – | – | – |",
        "| long (30–150 s) | 1 | 4.00 | 5.00 | 1.00 | 2.00 | 3.00 |",
    ]
    assert qvhighlights_tables(ratings, moments).splitlines() == [
        "| highlights | mAP | HIT@1 |",
        "|---|---:|---:|",
        "| fair or better | 6.00 | 7.00 |",
        "| good or better | 6.00 | 7.00 |",
        "| very good | 6.00 | 7.00 |",
    ]
    assert retrieval_table({"tiny": retrieval_metrics([1, 2, 7, 20])}) == (
        "|  | R@1 | R@5 | R@10 |\n|---|---:|---:|---:|\n| tiny | 25.00 | 50.00 | 75.00 |"
    )
