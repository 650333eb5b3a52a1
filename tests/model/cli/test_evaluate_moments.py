"""`reelfind-model evaluate moments` from the outside: tables, JSON, and files that do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from typer.testing import CliRunner, Result

from model.cli import app
from model.evaluation.moments.didemo import SEGMENTS
from tests.support.annotations import didemo_row, write_json

TVR_ROW = {"vid_name": "a", "duration": 60, "ts": [0, 10], "desc": "a dog", "type": "v", "desc_id": 1}
PREDICTED = {"desc_id": 1, "desc": "a dog", "predictions": [[3, 0, 4, 0.9], [3, 0, 8, 0.5], [4, 0, 8, 0]]}


def score(
    folder: Path, metric: str, annotations: str, predictions: str, *more: str, files: bool = True
) -> Result:
    if files:
        (folder / "annotations").write_text(annotations, encoding="utf-8")
        (folder / "predictions").write_text(predictions, encoding="utf-8")
    paths = ["--annotations", str(folder / "annotations"), "--predictions", str(folder / "predictions")]
    return CliRunner().invoke(app, ["evaluate", "moments", *paths, "--metric", metric, *more])


def submission(*rows: Any) -> str:
    return json.dumps({"video2idx": {"a": 3}, "VCMR": rows})


def test_tvr(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    options = ["--output", str(output), "--recall-at", "1,5"]
    result = score(tmp_path, "tvr", json.dumps(TVR_ROW), submission(PREDICTED), *options)
    assert result.exit_code == 0, result.output
    assert "| corpus (VCMR) | all | 0.00 | 100.00 | 0.00 | 100.00 |" in result.stdout
    assert result.stderr == "predictions of videos that video2idx lacks: 1; they count as wrong\n"
    written = json.loads(output.read_text(encoding="utf-8"))
    assert written["VCMR"]["0.7-r5"] == 100
    # There is no description of this kind, and JSON has no NaN.
    assert written["VCMR_by_type"]["t-0.7-r5"] is None


def test_didemo(tmp_path: Path) -> None:
    rows = [didemo_row(times=[[1, 2]] * 4)]
    ranking = [(1, 2), *(segment for segment in SEGMENTS if segment != (1, 2))]
    result = score(tmp_path, "didemo", json.dumps(rows), json.dumps([ranking]), "--json")
    assert json.loads(result.stdout) == {"rank@1": 100, "rank@5": 100, "mIoU": 100}


def test_qvhighlights(tmp_path: Path) -> None:
    row = {"qid": 1, "query": "a", "duration": 10, "vid": "v", "relevant_windows": [[0, 4]]}
    row |= {"relevant_clip_ids": [0, 1], "saliency_scores": [[4, 4, 4], [0, 0, 0]]}
    predicted = {"qid": 1, "pred_relevant_windows": [[0, 4, 1]], "pred_saliency_scores": [1, 0]}
    result = score(tmp_path, "qvhighlights", json.dumps(row), json.dumps(predicted))
    assert result.exit_code == 0, result.output
    assert "| short (≤ 10 s) | 1 | 100.00 | 100.00 | 100.00 | 100.00 | 100.00 |" in result.stdout
    assert "| very good | 100.00 | 100.00 |" in result.stdout


@pytest.mark.parametrize(
    ("metric", "more", "predictions", "message"),
    [
        ("tvr", [], submission(), "error: VCMR predictions lack query 1 of the annotations"),
        ("tvr", [], "[]", "must hold an object with video2idx"),
        ("tvr", ["--recall-at", "2"], submission(PREDICTED), "error: --recall-at is 2: choose among 1, 5,"),
        ("qvhighlights", [], submission(PREDICTED), "annotations, line 1: no field 'qid'"),
        ("didemo", [], submission(PREDICTED), "annotations: entry must be a list of objects, not dict"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, metric: str, more: list[str], predictions: str, message: str
) -> None:
    result = score(tmp_path, metric, json.dumps(TVR_ROW), predictions, *more)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_missing_files_and_unknown_metrics(tmp_path: Path) -> None:
    result = score(tmp_path, "tvr", "", "", files=False)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: no predictions in {tmp_path / 'predictions'}")
    write_json(tmp_path / "predictions", json.loads(submission(PREDICTED)))
    result = score(tmp_path, "tvr", "", "", files=False)
    assert result.stderr.startswith(f"error: no annotation file {tmp_path / 'annotations'}")
    assert score(tmp_path, "map", "", "", files=False).exit_code == 2
