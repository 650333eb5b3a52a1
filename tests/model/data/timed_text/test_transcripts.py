"""Timed text of many videos in one file, and the choice among the forms."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from model.data.timed_text import (
    open_timed_texts,
    read_transcripts,
    read_tvr_subtitles,
    transcripts,
)
from model.runtime.errors import InputError
from model.runtime.timed_text import TimedLine
from tests.support.annotations import write_json
from tests.support.feature_sets import write_json_lines


def test_tvr_subtitles(tmp_path: Path) -> None:
    cues = [
        {"text": " Chase : That's all this is?", "start": 4.5, "end": 6.0},
        {"text": "UNKNAME: Hi &quot;you&quot;", "start": -0.4, "end": 1.9},
        {"text": "   ", "start": 1, "end": 2},
        {"text": "no end", "start": 1},
        {"text": "back", "start": 3, "end": 2},
    ]
    path = write_json_lines(
        tmp_path / "subs.jsonl", [{"vid_name": "a", "sub": cues}, {"vid_name": "b", "sub": []}]
    )
    found = read_tvr_subtitles(path)
    assert found["a"].lines == (
        TimedLine(0.0, 1.9, 'UNKNAME: Hi "you"'),
        TimedLine(4.5, 6.0, "Chase : That's all this is?"),
    )
    assert found["a"].left_out == {"empty": 1, "unreadable": 1, "backwards": 1}
    assert found["b"].lines == ()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"vid_name": "a", "sub": "Hi"}, "line 2: sub must be a list of objects"),
        ({"sub": []}, "line 2: no field 'vid_name'"),
        ({"vid_name": "b", "sub": []}, "line 2: vid_name b occurs twice"),
    ],
)
def test_malformed_tvr_subtitles_are_named(tmp_path: Path, row: dict[str, object], message: str) -> None:
    path = write_json_lines(tmp_path / "subs.jsonl", [{"vid_name": "b", "sub": []}, row])
    with pytest.raises(InputError, match=rf"subs.jsonl, {message}"):
        read_tvr_subtitles(path)


def test_transcripts_of_howto100m(tmp_path: Path) -> None:
    columns = {"start": [9.5, 0.0, 2], "end": [12.0, 3.5, 4], "text": ["then bake it", "hi guys", None]}
    path = write_json(tmp_path / "caption.json", {"x1": columns, "x2": columns, "x3": columns})
    found = read_transcripts(path, {"x2"}.__contains__)
    assert list(found) == ["x2"]
    assert found["x2"].lines == (TimedLine(0.0, 3.5, "hi guys"), TimedLine(9.5, 12.0, "then bake it"))
    assert found["x2"].left_out == {"empty": 1}


def test_a_transcript_is_read_in_blocks_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin is `json.loads` of the whole file."""
    rng = np.random.default_rng(0)
    values = {
        f'vidéo "{i}" \\ ]}}': {
            "start": rng.uniform(0, 9, 3).tolist(),
            "end": [10.0, 1e3, 12],
            "text": ['é "quoted" }{', "NaN, 1.5e3", f"line {i} 😀"],
        }
        for i in range(5)
    }
    path = tmp_path / "caption.json"
    path.write_text(json.dumps(values, indent=1))
    whole = read_transcripts(path)
    assert list(whole) == list(values)
    for size in (1, 2, 3, 7, 64):
        monkeypatch.setattr(transcripts, "_BLOCK_CHARACTERS", size)
        assert read_transcripts(path) == whole
    for name, columns in values.items():
        rows = sorted(zip(*columns.values(), strict=True))
        assert [(line.start_seconds, line.end_seconds, line.text) for line in whole[name].lines] == rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "'{' is expected, not ''"),
        ("[]", r"'{' is expected, not '\['"),
        ('{"a": {"start": [1], "end": [2]', "is not JSON as HowTo100M's caption.json is"),
        ('{"a": {"start": [1], "end": [2], "text": ["x"]}', "',' is expected, not ''"),
        ('{"a": {"start": [1], "end": [2], "text": ["x"]}} {}', "'{' follows the end"),
        ('{"a": {"start": oops' + " " * 100 + "}}", "Expecting value"),
        ('{1: {"start": []}}', "1 is no name of a video"),
        (
            '{"a": {"start": [1], "end": [2]}}',
            "video a: must be an object with the lists start, end and text",
        ),
        ('{"a": 3}', "video a: must be an object with the lists"),
        ('{"a": {"start": [1], "end": [2], "text": []}}', "video a: start, end and text have 1, 1, 0 items"),
        ('{"a": ' + "[" * 100_000, "nested too deep"),
    ],
)
def test_malformed_transcripts_are_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "caption.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_transcripts(path)
    assert str(path) in str(caught.value)


def test_a_folder_is_searched_by_name(tmp_path: Path) -> None:
    cue = "1\n00:00:01,000 --> 00:00:02,000\n{}\n"
    for name in ("a.srt", "a.en.srt", "below/b.en-US.srt", "c.de.srt", "1@N0_2.srt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(cue.format(name))
    texts = open_timed_texts(tmp_path)
    found = {name: texts.get(name) for name in ("a", "a.mp4", "b", "c", "1@N0_2.mov", "d")}
    said = {name: None if text is None else text.lines[0].text for name, text in found.items()}
    assert said == {
        "a": "a.srt",
        "a.mp4": "a.srt",
        "b": "below/b.en-US.srt",
        "c": None,  # German: FEEL leaves out other languages
        "1@N0_2.mov": "1@N0_2.srt",
        "d": None,
    }


def test_files_are_told_by_their_names(tmp_path: Path) -> None:
    rows = [{"vid_name": "a", "sub": [{"text": "Hi", "start": 0, "end": 1}]}]
    one = open_timed_texts(write_json_lines(tmp_path / "a.jsonl", rows))
    columns = {"a": {"start": [0], "end": [1], "text": ["Hi"]}}
    other = open_timed_texts(write_json(tmp_path / "a.json", columns))
    assert one.get("a.mov") == other.get("a") == one.get("a")
    assert one.get("b") is None
    (tmp_path / "a.txt").write_text("Hi")
    with pytest.raises(
        InputError, match=r"data.subtitles=.*a.txt is of no known kind: set it to a folder of"
    ):
        open_timed_texts(tmp_path / "a.txt")
    with pytest.raises(InputError, match=r"data.subtitles=.*missing does not exist"):
        open_timed_texts(tmp_path / "missing")
