"""VATEX (Wang et al., 2019): about 35,000 clips of 10 seconds, with ten English captions each.

Files: `vatex_training_v1.0.json`, `vatex_validation_v1.0.json` and `vatex_public_test_english_v1.1.json`; or
`split.json`, {"train": [ids], "val": [ids], "test": [ids]}, as retrieval papers split the first two.
"""

from __future__ import annotations

from pathlib import Path

from model.data.datasets.records import Annotated, entries_of, read_annotation_json
from model.runtime.errors import InputError

_FILES = {"train": "vatex_training*.json", "val": "vatex_validation*.json", "test": "vatex_public_test*.json"}
_SPLIT = "split.json"


def read_vatex(folder: Path, split: str) -> list[Annotated]:
    """One split. Each clip has a file named by its videoID ("<YouTube id>_<start>_<end>"), cut to its times.

    Raises:
        InputError: a file is missing or malformed, or a clip has no captions.
    """
    if not (folder / _SPLIT).is_file():
        return read_vatex_file(_one(folder, _FILES[split]))
    path = folder / _SPLIT
    splits = read_annotation_json(path)
    names = splits.get(split) if isinstance(splits, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: {split} must be a list of clip names")
    files = [file for pattern in _FILES.values() for file in sorted(folder.glob(pattern))]
    if not files:
        _one(folder, _FILES["train"])
    captions = {video.video_id: video for file in files for video in read_vatex_file(file)}
    absent = [name for name in names if name not in captions]
    if absent:
        raise InputError(
            f"{path}: {len(absent)} clips of {split} have no captions in {', '.join(f.name for f in files)}, "
            f"such as {absent[0]}"
        )
    return [captions[name] for name in names]


def read_vatex_file(path: Path) -> list[Annotated]:
    """All clips of one file: a list of {videoID, enCap, chCap}.

    Raises:
        InputError: the file is missing or malformed.
    """
    return [
        Annotated(row.text("videoID"), row.texts("enCap"))
        for row in entries_of(path, read_annotation_json(path))
    ]


def _one(folder: Path, pattern: str) -> Path:
    files = sorted(folder.glob(pattern))
    if not files:
        raise InputError(f"no {pattern} in {folder}: set data.annotations to the folder that holds it")
    return files[-1]
