"""TVR's submission format: written and read back, and malformed files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from model.data.datasets.moments import Moment
from model.evaluation.moments.submission import Predictions, Submission, read_submission, write_submission
from model.runtime.errors import InputError
from tests.support.annotations import write_json

MOMENTS = [Moment("90200", "a", "a dög", ((0, 1),)), Moment("q7", "b", "a cat", ((0, 1),))]


def predictions(*rows: tuple[int, float, float, float]) -> Predictions:
    values = np.array(rows, np.float64).reshape(-1, 4)
    return Predictions(values[:, 0].astype(np.int64), values[:, 1:3], values[:, 3])


def test_what_is_written_is_read(tmp_path: Path) -> None:
    rows = {"q7": predictions(), "90200": predictions((3, 1.5, 4.5, 0.25), (4, 0, 0.1, -2))}
    path = tmp_path / "submission.json"
    write_submission(path, Submission({"a": 3, "b": 4}, {"VCMR": rows, "VR": rows}), MOMENTS)
    values = json.loads(path.read_text(encoding="utf-8"))
    assert list(values) == ["video2idx", "VCMR", "VR"]
    assert values["video2idx"] == {"a": 3, "b": 4}
    # Numbers stay numbers, as the official annotations have them.
    assert values["VCMR"] == [
        {"desc_id": 90200, "desc": "a dög", "predictions": [[3, 1.5, 4.5, 0.25], [4, 0, 0.1, -2]]},
        {"desc_id": "q7", "desc": "a cat", "predictions": []},
    ]
    read = read_submission(path)
    assert read.video_numbers == {"a": 3, "b": 4}
    assert read.unknown_videos() == 0
    for task in ("VCMR", "VR"):
        assert set(read.tasks[task]) == set(rows)
        for name, expected in rows.items():
            for field in ("video", "span", "score"):
                found = getattr(read.tasks[task][name], field)
                np.testing.assert_array_equal(found, getattr(expected, field))
                assert found.dtype == getattr(expected, field).dtype


def test_a_score_may_be_missing_and_videos_unknown(tmp_path: Path) -> None:
    rows = [{"desc_id": 1, "predictions": [[3.0, 1, 2], [9, 1, 2], [9, 1, 2, 0.5, "more"], [3, 1, 2, None]]}]
    read = read_submission(write_json(tmp_path / "s.json", {"video2idx": {"a": 3}, "SVMR": rows}))
    assert read.tasks["SVMR"]["1"].video.tolist() == [3, 9, 9, 3]
    assert read.tasks["SVMR"]["1"].score.tolist() == [0, 0, 0.5, 0]
    assert read.unknown_videos() == 2


def task(*rows: Any) -> dict[str, Any]:
    return {"video2idx": {"a": 3}, "VR": [{"desc_id": 8, "predictions": list(rows)}]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "must hold an object with video2idx"),
        ({"VR": []}, "must hold an object with video2idx"),
        ({"video2idx": {"a": "3"}}, "video2idx gives a the number '3': it must be an integer"),
        ({"video2idx": {"a": 3, "b": 3}}, "video2idx gives a and b the same number, 3"),
        ({"video2idx": {"a": 3}}, "has no predictions: give it VCMR, SVMR or VR"),
        ({"video2idx": {"a": 3}, "VR": {}}, "VR must be a list of objects, not dict"),
        ({"video2idx": {"a": 3}, "VR": [{"predictions": []}]}, "VR 0: no field 'desc_id'"),
        ({"video2idx": {"a": 3}, "VR": [{"desc_id": 8}]}, "VR 0: query 8: predictions must be a list of"),
        (
            task([3, 1]),
            r"query 8: predictions holds \[3, 1\]: it must be \[video number, start, end, score\]",
        ),
        (task([3, 1, "2"]), r"query 8: predictions holds \[3, 1, '2'\]"),
        (task([3, 1, math.nan]), r"query 8: predictions holds \[3, 1, nan\]"),
        (task([3, 1, 2], 5), r"query 8: predictions holds 5: it must be"),
        (task([3, 1, 2], {"video": 3}), r"query 8: predictions holds \{'video': 3\}: it must be"),
        (task("abc"), "query 8: predictions holds 'abc': it must be"),
        (task([True, True, True]), r"query 8: predictions holds \[True, True, True\]: it must be"),
        (task([10**30, 1, 2]), r"query 8: predictions name the video 1e\+30: it must be a number"),
        (task([3.5, 1, 2]), "query 8: predictions name the video 3.5: it must be a number of video2idx"),
        (
            {"video2idx": {"a": 3}, "VR": [{"desc_id": name, "predictions": []} for name in (8, 9, 8)]},
            "VR: there is query 8 more than once: predict for each query once",
        ),
    ],
)
def test_malformed_submissions_are_named(tmp_path: Path, values: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_submission(write_json(tmp_path / "submission.json", values))


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no predictions in .*none.json: name the file"):
        read_submission(tmp_path / "none.json")
    (tmp_path / "broken.json").write_text('{"video2idx": ')
    with pytest.raises(InputError, match=r"broken.json, line 1: is not JSON"):
        read_submission(tmp_path / "broken.json")


def test_only_whole_submissions_are_written(tmp_path: Path) -> None:
    path = tmp_path / "submission.json"
    with pytest.raises(InputError, match="SVMR predictions lack query q7 of the annotations"):
        write_submission(path, Submission({"a": 3}, {"SVMR": {"90200": predictions()}}), MOMENTS)
    assert not path.exists()
    with pytest.raises(InputError, match="a span or a score is NaN or infinite"):
        predictions((1, 0, 1, math.nan))
    with pytest.raises(InputError, match=r"video \[2\], span \[1, 2\] and score \[2\]"):
        Predictions(np.zeros(2, np.int64), np.zeros((1, 2)), np.zeros(2))
