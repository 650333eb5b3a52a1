"""Small data sets in the official files' forms, and where heads of the real files may lie."""

from __future__ import annotations

import csv
import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT

_PLACES = [folder / "shared" / "data" / "annotations" for folder in (ROOT, ROOT.parent)]


def head(name: str) -> Path:
    """The head of a real annotation file; the test is skipped where there is none."""
    for folder in _PLACES:
        if (folder / name).is_file():
            return folder / name
    pytest.skip(f"no {name} in shared/data/annotations beside or in the repository")


def write_json(path: Path, values: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def write_table(path: Path, rows: Sequence[Sequence[str]], separator: str = ",") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=separator).writerows(rows)
    return path


def write_msrvtt(folder: Path, separator: str = ",") -> Path:
    """Ten clips: six train, one validates, three test; video7, video8 are 1k-A's test; two captions each."""
    splits = ["train"] * 6 + ["validate"] + ["test"] * 3
    videos = [
        {
            "category": 1,
            "url": "",
            "video_id": f"video{i}",
            "start time": 1.5,
            "end time": 9.0,
            "split": s,
            "id": i,
        }
        for i, s in enumerate(splits)
    ]
    sentences = [
        {"caption": f"clip {i} for the {time} time", "video_id": f"video{i}", "sen_id": 2 * i}
        for time in ("first", "second")
        for i in range(10)
    ]
    write_json(folder / "MSRVTT_data.json", {"info": {}, "videos": videos, "sentences": sentences})
    write_table(folder / "MSRVTT_train.7k.csv", [("video_id",), *[(f"video{i}",) for i in range(7)]])
    nine = [f"video{i}" for i in range(10) if i not in (7, 8)]
    write_table(folder / "MSRVTT_train.9k.csv", [("video_id",), *[(name,) for name in nine]])
    test = [("ret0", "msr7", "video7", "a dog runs"), ("ret1", "msr8", "video8", "a cat; asleep")]
    head = ("key", "vid_key", "video_id", "sentence")
    write_table(folder / "MSRVTT_JSFUSION_test.csv", [head, *test], separator)
    return folder


def write_msvd(folder: Path, captions: Mapping[str, Any] | None = None, protocol: int = 4) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    captions = captions or {f"clip_{i}": [["a", "man", str(i)], ["he", "cooks"]] for i in range(4)}
    (folder / "raw-captions.pkl").write_bytes(pickle.dumps(dict(captions), protocol))
    for split, names in (("train", ["clip_0", "clip_1"]), ("val", ["clip_2"]), ("test", ["clip_3"])):
        (folder / f"{split}_list.txt").write_text("\n".join(names) + "\n")
    return folder


def didemo_row(**changes: Any) -> dict[str, Any]:
    return {
        "annotation_id": 1,
        "description": "a dog jumps",
        "video": "1@N0_2_ab.mov",
        "times": [[1, 2], [0, 0]],
        "num_segments": 6,
        "dl_link": "",
    } | changes


def vatex_row(name: str, **changes: Any) -> dict[str, Any]:
    return {"videoID": name, "enCap": [f"{name} one", f"{name} two"], "chCap": ["一"]} | changes
