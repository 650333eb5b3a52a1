"""Image-text pairs (CC3M, SBU, VG, COCO, CC12M, …) for pre-training: each photo is a video of one frame.

They are read from a JSON list or JSON lines of {image, caption, split} (a caption or a list of captions; the
split is optional), from a table with these columns, or from a folder of photos, each with its captions in a
text file of the same name.
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
    """One split; a photo that several rows name gets the captions of all.

    Args:
        path: a file, a folder with files such as `train.json`, or a folder of photos and text files.
        split: rows with another `split` are left out; rows without one are for training.

    Raises:
        InputError: a file is missing or malformed, or the split has no pairs.
    """
    files = [path]
    if path.is_dir():
        files = [file for kind in _KINDS for file in sorted(path.glob(f"{split}*{kind}"))]
        if not files:
            subfolder = path / split
            if not subfolder.is_dir() and split != "train":
                raise InputError(f"{path} has no pairs of split {split!r}: put them into a folder {split}")
            return _gather(_beside(path, subfolder if subfolder.is_dir() else path), path, split)
        return _gather((pair for file in files for pair in _pairs(file, split, whole=True)), path, split)
    return _gather(_pairs(path, split, whole=False), path, split)


def _gather(pairs: Iterable[tuple[str, tuple[str, ...]]], path: Path, split: str) -> list[Annotated]:
    captions: dict[str, list[str]] = {}
    for name, texts in pairs:
        captions.setdefault(name, []).extend(texts)
    if not captions:
        raise InputError(
            f"{path} has no pairs of split {split!r}: give rows a field split, or use a file for each split"
        )
    return [Annotated(name, tuple(texts)) for name, texts in captions.items()]


def _rows(path: Path) -> Iterator[Entry]:
    """The rows of a file. A file named .json may hold JSON lines.

    Raises:
        InputError: the file is malformed or of another kind.
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
    """Photos and captions of one file; in a `whole` file, rows that name no split belong to `split`."""
    for row in _rows(path):
        row_split = row.values.get("split")
        if row_split == split or (not row_split and (whole or split == "train")):
            yield row.text("image"), row.texts("caption")


def _beside(root: Path, folder: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Photos with a text file beside them, a caption on each line; named by their paths below `root`."""
    for file in sorted(folder.rglob("*.txt")):
        photos = [file.with_suffix(kind) for kind in IMAGE_EXTENSIONS if file.with_suffix(kind).is_file()]
        texts = tuple(line.strip() for line in read_text(file).splitlines() if line.strip())
        if photos and texts:
            yield photos[0].relative_to(root).as_posix(), texts
