"""Image-text pairs (CC3M, SBU, VG, COCO, CC12M, …), photos as videos of one frame, as the paper pre-trains.

A JSON list or JSON lines of {image, caption} (a caption or a list of them, optionally split), a table with
those columns, or a folder of photos, each with its captions in a text file of the same name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from model.data.datasets.files import IMAGE_EXTENSIONS
from model.data.datasets.msrvtt import table_entries
from model.data.datasets.records import (
    Annotated,
    Entry,
    entries_of,
    json_lines,
    read_annotation_json,
    read_text,
)
from model.runtime.errors import InputError

_KINDS = (".json", ".jsonl", ".csv", ".tsv")


def read_image_text(path: Path, split: str) -> list[Annotated]:
    """One split; a photo that several rows name gets all their captions.

    Args:
        path: a file; or a folder with `train.json` and the like, else with photos and text files.
        split: rows with another `split` are left out; rows without one are all for training.

    Raises:
        InputError: a missing or malformed file, or a split without pairs.
    """
    files = [path]
    if path.is_dir():
        files = [file for kind in _KINDS for file in sorted(path.glob(f"{split}*{kind}"))]
        if not files:
            own = path / split
            if not own.is_dir() and split != "train":
                raise InputError(
                    f"{path} has no pairs of split {split!r}: give it a folder {split} of its own"
                )
            return _gather(_beside(path, own if own.is_dir() else path), path, split)
        return _gather((pair for file in files for pair in _pairs(file, split, whole=True)), path, split)
    return _gather(_pairs(path, split, whole=False), path, split)


def _gather(pairs: Iterable[tuple[str, tuple[str, ...]]], path: Path, split: str) -> list[Annotated]:
    captions: dict[str, list[str]] = {}
    for name, texts in pairs:
        captions.setdefault(name, []).extend(texts)
    if not captions:
        raise InputError(
            f"{path} has no pairs of split {split!r}: give rows a field split, or a file of its own"
        )
    return [Annotated(name, tuple(texts)) for name, texts in captions.items()]


def _rows(path: Path) -> Iterator[Entry]:
    """A row each. JSON lines are also found in files named .json.

    Raises:
        InputError: a file of another kind, or a malformed one.
    """
    if path.suffix not in _KINDS:
        raise InputError(f"{path}: image-text pairs are read from {', '.join(_KINDS)} or a folder")
    if path.suffix in (".csv", ".tsv"):
        yield from table_entries(path, ("image", "caption"))
    elif path.suffix == ".json" and read_text(path).lstrip().startswith("["):
        yield from entries_of(path, read_annotation_json(path))
    else:
        yield from json_lines(path)


def _pairs(path: Path, split: str, whole: bool) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Photos and captions of one file; `whole` files belong to the split if their rows name no other."""
    for row in _rows(path):
        named = row.values.get("split")
        if named == split or (not named and (whole or split == "train")):
            yield row.text("image"), row.texts("caption")


def _beside(root: Path, folder: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Photos with a text file beside them, one caption a line; named by their paths below `root`."""
    for file in sorted(folder.rglob("*.txt")):
        photos = [file.with_suffix(kind) for kind in IMAGE_EXTENSIONS if file.with_suffix(kind).is_file()]
        texts = tuple(line.strip() for line in read_text(file).splitlines() if line.strip())
        if photos and texts:
            yield photos[0].relative_to(root).as_posix(), texts
