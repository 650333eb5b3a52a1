"""Videos with the queries that describe them, from official files: TVR, How2R, DiDeMo, MSR-VTT.

Files in the folder of annotations:
- TVR, How2R: a `.jsonl` file for each split, such as `tvr_train_release.jsonl`, with the split as a word of
  its name; TVR also `tvr_video2dur_idx.json` with the lengths and numbers of the videos.
- DiDeMo: `train_data.json`, `val_data.json`, `test_data.json`.
- MSR-VTT: as `model.data.datasets.msrvtt`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from model.data.datasets.moments import Moment, read_didemo_moments, read_tvr, read_tvr_durations
from model.data.datasets.msrvtt import read_msrvtt
from model.data.datasets.records import read_annotation_json
from model.runtime.errors import InputError

_DURATION_FILES = "*dur_idx*.json"
# TVR's test has a public and a private part; the public one is what people report.
_PART_NAMES = {"train": ("train",), "val": ("val",), "test": ("test_public", "test")}


@dataclass(frozen=True)
class DescribedVideo:
    """A video and its queries, of which retrieval sets have no spans.

    `duration_seconds` and `number`, the video's number in a submission, are None where no file tells.
    """

    video_id: str
    queries: tuple[Moment, ...]
    duration_seconds: float | None = None
    number: int | None = None


def read_described(folder: Path, kind: str, split: str, partition: str = "1ka") -> list[DescribedVideo]:
    """The videos of one split, in the order of the annotations.

    For validation and test these are all videos of the split that the file of lengths names, since all are
    searched; for training only those with queries.

    Args:
        folder: holds the official files.
        kind: "tvr", "how2r", "didemo_moments" or "msrvtt_asr".
        split: "train", "val" or "test".
        partition: which of MSR-VTT's, see `read_msrvtt`.

    Raises:
        InputError: a file is missing or malformed, or the set has no such split.
    """
    if kind in ("tvr", "how2r"):
        moments = read_tvr(_split_file(folder, split), spans_hidden=split == "test")
        return _joined(moments, _lengths(folder, split), all_videos=split != "train")
    if kind == "didemo_moments":
        path = folder / f"{split}_data.json"
        if not path.is_file():
            raise InputError(f"no {path.name} in {folder}: set data.annotations to the folder that holds it")
        return _joined(read_didemo_moments(path), {}, all_videos=False)
    if kind != "msrvtt_asr":
        raise InputError(f"data.kind={kind} has no queries: use tvr, how2r, didemo_moments or msrvtt_asr")
    return [
        DescribedVideo(
            video.video_id,
            tuple(
                Moment(f"{video.video_id}/{number}", video.video_id, caption, ())
                for number, caption in enumerate(video.captions)
            ),
        )
        for video in read_msrvtt(folder, partition, split)
    ]


def _joined(
    moments: Iterable[Moment], lengths: Mapping[str, tuple[float, int]], *, all_videos: bool
) -> list[DescribedVideo]:
    groups: dict[str, list[Moment]] = {}
    for moment in moments:
        groups.setdefault(moment.video_id, []).append(moment)
    if all_videos:
        for name in lengths:
            groups.setdefault(name, [])
    out = []
    for name, group in groups.items():
        stated = [moment.duration_seconds for moment in group if moment.duration_seconds is not None]
        seconds, number = lengths.get(name, (max(stated, default=None), None))
        out.append(DescribedVideo(name, tuple(group), seconds, number))
    return out


def _split_file(folder: Path, split: str) -> Path:
    """The one `.jsonl` file with a split as a word of its name.

    Raises:
        InputError: there is none, or there are several.
    """
    word = re.compile(rf"(?<![a-z0-9]){split}(?![a-z0-9])", re.IGNORECASE)
    found = [path for path in sorted(folder.glob("*.jsonl")) if word.search(path.stem)]
    public = [path for path in found if "public" in path.stem.lower()]
    found = public if len(public) == 1 else found
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise InputError(
            f"{folder} must hold one .jsonl file for the split {split}, such as tvr_{split}_release.jsonl; "
            f"found {names}: set data.annotations to the folder of the official files"
        )
    return found[0]


def _lengths(folder: Path, split: str) -> dict[str, tuple[float, int]]:
    """The length and the number of each video of a split; empty where no file tells."""
    for path in sorted(folder.glob(_DURATION_FILES)):
        values = read_annotation_json(path)
        for name in _PART_NAMES[split]:
            if isinstance(values, dict) and name in values:
                return read_tvr_durations(path, name)
    return {}
