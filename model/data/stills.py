"""Captioned still images: photos, and frames of videos.

captions.csv (image, split, caption), images/                        each photo is an item
frames.csv (image, video, split), captions.csv (video, split, caption), images/
                                                                     each video is an item of several images
Images without captions are all that a folder holds; they belong to no item.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from model.arrays import Array, Frames, Rows
from model.data.datasets.files import IMAGE_EXTENSIONS
from model.data.datasets.records import Annotated
from model.runtime.errors import InputError
from model.runtime.preprocessing import load_image, resize_frames

_FRAMES = "frames.csv"
_CAPTIONS = "captions.csv"


@dataclass(frozen=True)
class StillSet:
    """A set that items come from: its kind, and how many items there are of it."""

    kind: Literal["photos", "frames"]
    items: int


@dataclass(frozen=True)
class CaptionedStills:
    """Items of one or several images, with their captions, from one split of one or two sets.

    Attributes:
        name: the name of the split.
        images: the files of all images; those without captions belong to no item.
        items: for each item its images, by their places in `images`, in the order of the video.
        captions: the captions of each item.
        sets: the sets that the items come from, in the order of the items.
        answers: where the captions are questions, their answers, one for each; else empty.
        taught: another encoder's embedding of each view of each image, float32 [images, views, Ht]; one view
            stands for all; None: there is none.
        taught_by: that encoder's name.
    """

    name: str
    images: tuple[Path, ...]
    items: tuple[tuple[int, ...], ...]
    captions: tuple[tuple[str, ...], ...]
    sets: tuple[StillSet, ...]
    answers: tuple[tuple[str, ...], ...] = ()
    taught: Array | None = field(default=None, compare=False)
    taught_by: str = ""

    @property
    def unit(self) -> str:
        """What an item is: "photos", "videos", or "items" where both are joined."""
        kinds = {part.kind for part in self.sets}
        return "items" if len(kinds) > 1 else "photos" if "photos" in kinds else "videos"

    def use(self, dataset: str, purpose: str, whole: bool = True) -> str:
        """What a bundle was made of, as its provenance says it.

        Args:
            dataset: the name of the data set.
            purpose: what the items were for, such as "calibration".
            whole: all of these items were used; False: some, so that their number is not said.
        """
        count = f": {len(self):,} {self.unit}" if whole else ""
        return f'{self.sets[0].kind} "{dataset}", split {self.name}{count}, for the {purpose}'

    @cached_property
    def owners(self) -> Rows:
        """The item of each image; -1: none. → int64 [images]"""
        owners = np.full(len(self.images), -1, np.int64)
        for index, item in enumerate(self.items):
            owners[list(item)] = index
        return owners

    @cached_property
    def uncaptioned(self) -> Rows:
        """The images that belong to no item, by their places. → int64"""
        return np.flatnonzero(self.owners < 0)

    def __len__(self) -> int:
        return len(self.items)

    def first(self, count: int) -> CaptionedStills:
        """Only the first `count` items of a single set; 0: all."""
        if not count or count >= len(self):
            return self
        (whole,) = self.sets
        items = self.items[:count]
        places = {image: place for place, image in enumerate(image for item in items for image in item)}
        return CaptionedStills(
            self.name,
            tuple(self.images[image] for image in places),
            tuple(tuple(places[image] for image in item) for item in items),
            self.captions[:count],
            (replace(whole, items=count),),
            self.answers[:count],
        )

    def join(self, other: CaptionedStills) -> CaptionedStills:
        """The items of both sets, these first."""
        shift = len(self.images)
        return CaptionedStills(
            self.name,
            self.images + other.images,
            self.items + tuple(tuple(image + shift for image in item) for item in other.items),
            self.captions + other.captions,
            self.sets + other.sets,
            self.answers + other.answers,
        )

    def load(self, image: int, size: int) -> Frames:
        """One image, resized as in serving. Shape [size, size, 3].

        Raises:
            InputError: the file cannot be read.
        """
        still: Frames = resize_frames(load_image(self.images[image])[None], size)[0]
        return still

    def frames(self, index: int, count: int, size: int, rng: np.random.Generator | None) -> Frames:
        """The images of an item, `count` of them at most. Shape [n, size, size, 3]."""
        item = self.items[index]
        if len(item) > count:
            # The middle of each of `count` equal parts, or a random image of each.
            offset = rng.random(count) if rng is not None else np.full(count, 0.5)
            places = ((np.arange(count) + offset) * len(item) / count).astype(int)
            item = tuple(item[place] for place in places)
        return np.stack([self.load(image, size) for image in item])


def read_stills(path: Path, split: str) -> CaptionedStills:
    """Read one split of a folder of photos, or of frames of videos if it holds a file `frames.csv`.

    Raises:
        InputError: a file is missing or malformed, has no rows of the split, or a video has no caption or no
            frame.
    """
    table = _read_table(path, split)
    return _stills(
        path, split, table, {name: Annotated(name, texts) for name, texts in table.captions.items()}
    )


def read_images(folder: Path, split: str) -> CaptionedStills:
    """The JPEG, PNG and WebP files in a folder and its subfolders, in alphabetical order, without captions.

    Raises:
        InputError: there is none.
    """
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_EXTENSIONS)
    if not found:
        raise InputError(f"{folder} holds no JPEG, PNG or WebP files: name a folder with images")
    return CaptionedStills(split, tuple(found), items=(), captions=(), sets=())


def read_asked_stills(path: Path, split: str, asked: Mapping[str, Annotated]) -> CaptionedStills:
    """As `read_stills`, but only the items with questions, which take the place of their captions.

    Args:
        path: the folder.
        split: the name of the split.
        asked: questions and answers by the name of a photo's file or of a video.

    Raises:
        InputError: as `read_stills`, or no item has a question.
    """
    table = _read_table(path, split)
    own = {name: asked[name] for name in table.captions if name in asked}
    if not own:
        raise InputError(
            f"{path}: none of its {len(table.captions)} items of split {split} has a question: make some "
            f"with `reelfind-model questions {path} --output DIR`, and set data.annotations=DIR"
        )
    return _stills(path, split, table, own)


def read_captions(path: Path, split: str) -> dict[str, tuple[str, ...]]:
    """The captions of one split by the name of a photo's file or of a video, in alphabetical order.

    Raises:
        InputError: as `read_stills`.
    """
    captions = _read_table(path, split).captions
    return {name: captions[name] for name in sorted(captions)}


def read_splits(path: Path) -> tuple[str, ...]:
    """The splits that have captions, in the file's order.

    Raises:
        InputError: the file is missing or malformed.
    """
    return tuple(dict.fromkeys(row["split"] for row in _rows(path / _CAPTIONS, ("caption", "split"))))


@dataclass(frozen=True)
class _Table:
    """One split of a folder: the images and the captions of each item, by its name."""

    kind: Literal["photos", "frames"]
    images: Mapping[str, tuple[str, ...]]
    captions: Mapping[str, tuple[str, ...]]


def _read_table(path: Path, split: str) -> _Table:
    if not (path / _FRAMES).is_file():
        captions = _group(path / _CAPTIONS, ("image", "caption"), split)
        return _Table("photos", {name: (name,) for name in captions}, captions)
    frames = _group(path / _FRAMES, ("video", "image"), split)
    captions = _group(path / _CAPTIONS, ("video", "caption"), split)
    for have, need, missing in ((captions, frames, "caption"), (frames, captions, "frame")):
        for video in need:
            if video not in have:
                raise InputError(f"{path}: video {video} of split {split} has no {missing}")
    return _Table("frames", frames, captions)


def _stills(path: Path, split: str, table: _Table, texts: Mapping[str, Annotated]) -> CaptionedStills:
    """The items that have texts, in alphabetical order."""
    names = sorted(texts)
    images: list[Path] = []
    items = []
    for name in names:
        items.append(tuple(range(len(images), len(images) + len(table.images[name]))))
        images += [path / "images" / image for image in table.images[name]]
    answers = tuple(texts[name].answers for name in names)
    return CaptionedStills(
        split,
        tuple(images),
        tuple(items),
        tuple(texts[name].captions for name in names),
        (StillSet(table.kind, len(names)),),
        answers if any(answers) else (),
    )


def _group(table: Path, columns: tuple[str, str], split: str) -> dict[str, tuple[str, ...]]:
    """The second column's values of each value of the first one, of one split, in the file's order."""
    groups: dict[str, list[str]] = {}
    for row in _rows(table, (*columns, "split")):
        if row["split"] == split:
            groups.setdefault(row[columns[0]], []).append(row[columns[1]])
    if not groups:
        raise InputError(f"{table} has no rows of split {split!r}")
    return {name: tuple(values) for name, values in groups.items()}


def _rows(table: Path, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    if not table.is_file():
        raise InputError(f"no {table.name} in {table.parent}: name the folder that holds it, and images/")
    try:
        with table.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, restval="")
            for column in columns:
                if column not in (reader.fieldnames or ()):
                    raise InputError(
                        f"{table} has no column {column!r}: its columns must be {', '.join(columns)}"
                    )
            yield from reader
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table} cannot be read as a CSV file in UTF-8: {error}") from error
