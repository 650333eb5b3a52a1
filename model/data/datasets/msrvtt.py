"""MSR-VTT (Xu et al., 2016): 10,000 clips, 20 captions each, in three partitions.

Files: `MSRVTT_data.json` (or `MSRVTT_v2.json`, `train_val_videodatainfo.json`), `MSRVTT_train.9k.csv`,
`MSRVTT_train.7k.csv` and `MSRVTT_JSFUSION_test.csv`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from model.data.datasets.records import Annotated, Entry, entries_of, read_annotation_json, read_text
from model.runtime.errors import InputError

DATA = ("MSRVTT_data.json", "MSRVTT_v2.json", "test_videodatainfo.json", "train_val_videodatainfo.json")
_SPLITS = {"train": "train", "val": "validate", "test": "test"}
_TRAIN = {"7k": "MSRVTT_train.7k.csv", "1ka": "MSRVTT_train.9k.csv"}
_TEST = "MSRVTT_JSFUSION_test.csv"


def read_msrvtt(folder: Path, partition: str, split: str) -> list[Annotated]:
    """One split of a partition: "full" (6,513 / 497 / 2,990 clips), "7k" or "1ka" (both tested on 1k-A).

    Clips are files of their own, so the times in the original videos are not read.

    Raises:
        InputError: a file is missing or malformed, or the partition has no such split.
    """
    if partition == "full":
        return read_data(folder, {_SPLITS[split]})
    if split == "test":
        return read_jsfusion(folder / _TEST)
    if split != "train":
        raise InputError(f"MSR-VTT {partition} has no split {split!r}")
    names = read_column(folder / _TRAIN[partition], "video_id")
    captions = {video.video_id: video for video in read_data(folder, None)}
    absent = [name for name in names if name not in captions]
    if absent:
        raise InputError(
            f"{folder / _TRAIN[partition]} names {len(absent)} clips without captions, such as {absent[0]}: "
            "take it and the JSON file from the same download"
        )
    return [captions[name] for name in names]


def read_data(folder: Path, splits: set[str] | None) -> list[Annotated]:
    """Clips of `MSRVTT_data.json` and their captions, in the file's order; `splits` None: of all splits.

    Raises:
        InputError: the file is missing or malformed.
    """
    paths = [folder / name for name in DATA if (folder / name).is_file()]
    if not paths:
        raise InputError(f"no {DATA[0]} in {folder}: set data.annotations to the folder that holds it")
    # Either of the first two names holds all clips; the last two hold a part each.
    paths = paths[:1] if paths[0].name in DATA[:2] else paths
    captions: dict[str, list[str]] = {}
    for path in paths:
        values = read_annotation_json(path)
        if not isinstance(values, dict):
            raise InputError(f"{path} must hold an object with videos and sentences")
        for row in entries_of(path, values.get("videos"), "videos"):
            if splits is None or row.text("split") in splits:
                captions.setdefault(row.text("video_id"), [])
        for row in entries_of(path, values.get("sentences"), "sentences"):
            group = captions.get(row.text("video_id"))
            if group is not None:
                group.append(row.text("caption"))
    for name, group in captions.items():
        if not group:
            raise InputError(f"{paths[0]}: video {name} has no caption among the sentences")
    return [Annotated(name, tuple(group)) for name, group in captions.items()]


def read_jsfusion(path: Path) -> list[Annotated]:
    """The 1k-A test, 1,000 clips with one caption each: `key, vid_key, video_id, sentence`.

    Raises:
        InputError: the file is missing or malformed, or names a clip twice.
    """
    clips: dict[str, Annotated] = {}
    for row in table_entries(path, ("video_id", "sentence")):
        name = row.text("video_id")
        if name in clips:
            raise row.fail(f"video_id {name} occurs twice")
        clips[name] = Annotated(name, (row.text("sentence"),))
    return list(clips.values())


def read_column(path: Path, column: str) -> list[str]:
    """The distinct values of one column of a table.

    Raises:
        InputError: the file is missing or malformed.
    """
    return list(dict.fromkeys(row.text(column) for row in table_entries(path, (column,))))


def table_entries(path: Path, columns: Sequence[str]) -> Iterator[Entry]:
    """Rows of a table with a head, separated by commas, semicolons or tabs.

    Raises:
        InputError: a column is missing, or a row has more fields than the head.
    """
    lines = read_text(path).splitlines()
    head = lines[0] if lines else ""
    separator = max(",;\t", key=head.count)
    reader = csv.DictReader(lines, delimiter=separator, restkey="")
    for column in columns:
        if column not in (reader.fieldnames or ()):
            names = ", ".join(reader.fieldnames or ()) or "none"
            raise InputError(f"{path}, line 1: no column {column!r}; there are {names}")
    for values in reader:
        row = Entry(path, f"line {reader.line_num}", values)
        if "" in values and separator == ";":
            # The last field holds a semicolon: some copies of the files have no quotes.
            last = str((reader.fieldnames or ())[-1])
            rest = [str(part) for part in values[""]]
            row = Entry(path, row.where, {**values, last: ";".join([str(values[last]), *rest])})
        elif "" in values:
            raise row.fail(f"{len(values[''])} fields too many: put quotes around a text with {separator!r}")
        yield row
