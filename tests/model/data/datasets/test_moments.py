"""Moments of videos: the real files' heads, entry by entry, and malformed ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")


from model.data.datasets.moments import (
    Moment,
    read_activitynet,
    read_charades,
    read_didemo_moments,
    read_tvr,
    read_tvr_durations,
    read_windows,
)
from tests.support.annotations import didemo_row, head, write_json


def test_the_real_tvr_head_and_its_durations() -> None:
    path = head("tvr_val_head.jsonl")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found = read_tvr(path)
    assert len(found) == len(rows) == 500
    for moment, row in zip(found, rows, strict=True):
        assert (moment.moment_id, moment.video_id) == (str(row["desc_id"]), row["vid_name"])
        assert moment.spans == (tuple(row["ts"]),)
        assert (moment.text, moment.kind) == (row["desc"].strip(), row["type"])
        assert moment.duration_seconds == row["duration"]
    durations = read_tvr_durations(head("tvr_video2dur_idx_head.json"), "val")
    assert durations["castle_s01e02_seg02_clip_17"] == (88.02, 19616)
    for moment in found:
        assert durations[moment.video_id][0] == pytest.approx(moment.duration_seconds, abs=0.01)


@pytest.mark.parametrize("name", ["qvhighlights_val_head.jsonl", "charades_sta_test_tvr_format_head.jsonl"])
def test_the_real_heads_with_windows(name: str) -> None:
    path = head(name)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found = read_windows(path)
    assert len(found) == len(rows) == 200
    for moment, row in zip(found, rows, strict=True):
        assert [list(span) for span in moment.spans] == row["relevant_windows"]
        assert (moment.video_id, moment.text) == (row["vid"], row["query"].strip())
        if "relevant_clip_ids" in row:  # two seconds each
            clips = [i for start, end in moment.spans for i in range(int(start) // 2, int(end) // 2)]
            assert clips == row["relevant_clip_ids"] == list(moment.clip_ids)
            assert [list(scores) for scores in moment.saliency] == row["saliency_scores"]


def test_the_real_activitynet_head() -> None:
    path = head("activitynet_val_1_head.json")
    rows, found = json.loads(path.read_text()), read_activitynet(path)
    assert len(found) == sum(len(row["sentences"]) for row in rows.values()) == 371
    for moment in found:
        video, number = moment.moment_id.rsplit("/", 1)
        row = rows[video]
        assert sorted(row["timestamps"][int(number)]) == list(moment.spans[0])
        assert moment.text == row["sentences"][int(number)].strip()


def test_the_real_didemo_head_in_seconds() -> None:
    path = head("didemo_val_head.json")
    rows, found = json.loads(path.read_text()), read_didemo_moments(path)
    for moment, row in zip(found, rows, strict=True):
        assert moment.spans == tuple((5.0 * first, 5.0 * (last + 1)) for first, last in row["times"])


def test_charades_as_published(tmp_path: Path) -> None:
    path = tmp_path / "charades_sta_test.txt"
    path.write_text("3MSZA 24.3 30.4##person turn a light on.\n\nA1B2C 9 2.5##a person sits.\n")
    assert read_charades(path) == [
        Moment("1", "3MSZA", "person turn a light on.", ((24.3, 30.4),)),
        Moment("3", "A1B2C", "a person sits.", ((2.5, 9.0),)),
    ]
    path.write_text("3MSZA 24.3 30.4##person turn a light on.\n3MSZA 24.3##person.\n")
    with pytest.raises(ValueError, match=r"charades_sta_test.txt, line 2: must be like '3MSZA 24.3 30.4##"):
        read_charades(path)


def test_several_spans_in_tvr_form(tmp_path: Path) -> None:
    (tmp_path / "didemo.jsonl").write_text(TVR.replace("[1, 2]", "[[0, 5], [0, 5], [5, 10], [0, 10]]"))
    assert read_tvr(tmp_path / "didemo.jsonl")[0].spans == ((0, 5), (0, 5), (5, 10), (0, 10))


QVHIGHLIGHTS = (
    '{"qid": 7, "query": "a", "duration": 10, "vid": "v", "relevant_windows": [[0, 4]], '
    '"relevant_clip_ids": [0, 1], "saliency_scores": [[1, 2, 4], [0, 0, 1]]}\n'
)
TVR = '{"vid_name": "a", "duration": 9, "ts": [1, 2], "desc": "b", "type": "v", "desc_id": 1}\n'


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        (
            read_tvr,
            TVR + TVR.replace("[1, 2]", "[3, 2]"),
            r"line 2: ts holds \[3, 2\]: the start must not be",
        ),
        (read_tvr, TVR.replace("[1, 2]", '["1", 2]'), r"line 1: ts is '1': it must be a number"),
        (read_tvr, TVR.replace("[1, 2]", "[1]"), r"ts holds \[1\]: it must be \[start, end\] in seconds"),
        (read_tvr, TVR.replace("9", "-1"), "duration is -1: it must be a number, 0 or more"),
        (read_tvr, TVR.replace("9", "NaN"), "duration is nan: it must be a number"),
        (read_windows, TVR, r"line 1: no field 'qid'; there are vid_name, duration"),
        (
            read_windows,
            QVHIGHLIGHTS.replace("[0, 1]", "[0, 5]"),
            "relevant_clip_ids holds 5: there are clips 0 to 4",
        ),
        (
            read_windows,
            QVHIGHLIGHTS.replace("[0, 1]", "[0]"),
            "1 relevant_clip_ids and 2 saliency_scores: give one a clip",
        ),
        (
            read_windows,
            QVHIGHLIGHTS.replace("[0, 0, 1]", "[0, 0]"),
            r"saliency_scores holds \[0, 0\]: give each clip a list of numbers",
        ),
        (read_activitynet, "[]", "must hold an object of videos, not list"),
        (read_activitynet, '{"v_1": 3}', "video v_1: must be an object"),
        (
            read_activitynet,
            '{"v_1": {"duration": 3, "sentences": ["a"], "timestamps": [[0, 1], [1, 2]]}}',
            "video v_1: 1 sentences and 2 timestamps",
        ),
    ],
)
def test_malformed_files_are_named(
    tmp_path: Path, read: Callable[[Path], list[Moment]], content: str, message: str
) -> None:
    (tmp_path / "moments").write_text(content)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "moments")


@pytest.mark.parametrize("times", [[[6, 6]], [[0, 1.5]], [[2, 1]], []])
def test_chunks_that_a_clip_does_not_have_are_named(tmp_path: Path, times: list[list[float]]) -> None:
    path = write_json(tmp_path / "val_data.json", [didemo_row(), didemo_row(times=times)])
    with pytest.raises(ValueError, match=r"val_data.json, entry 1: times "):
        read_didemo_moments(path)


def test_durations_of_another_split_are_named(tmp_path: Path) -> None:
    path = write_json(tmp_path / "durations.json", {"train": {"a": [1.5, 2]}, "val": {"a": 1.5}})
    assert read_tvr_durations(path, "train") == {"a": (1.5, 2)}
    with pytest.raises(ValueError, match=r"no split 'test'; there are train, val"):
        read_tvr_durations(path, "test")
    with pytest.raises(ValueError, match=r"split val: a is 1.5"):
        read_tvr_durations(path, "val")
