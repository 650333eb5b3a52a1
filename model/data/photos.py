"""Captioned photos: a folder with `captions.csv` and `images/`."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from model.arrays import Frames
from model.runtime.errors import InputError
from model.runtime.preprocessing import load_image, resize_frames


@dataclass(frozen=True)
class CaptionedPhotos:
    """Photos of one split with their captions; each serves as a video of one frame."""

    #: the name of the split
    name: str
    folder: Path
    files: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]

    unit = "photos"

    def __len__(self) -> int:
        return len(self.files)

    def first(self, count: int) -> CaptionedPhotos:
        """Only the first `count` photos; 0: all."""
        return replace(self, files=self.files[:count], captions=self.captions[:count]) if count else self

    def load(self, index: int, size: int) -> Frames:
        """One photo, resized as in serving. Shape [size, size, 3].

        Raises:
            InputError: the file cannot be read.
        """
        photo: Frames = resize_frames(load_image(self.folder / self.files[index])[None], size)[0]
        return photo

    def frames(
        self,
        index: int,
        count: int,  # noqa: ARG002  one frame is all there is
        size: int,
        rng: np.random.Generator | None,  # noqa: ARG002
    ) -> Frames:
        """The photo as the only frame. Shape [1, size, size, 3]."""
        return self.load(index, size)[None]


def read_photos(path: Path, split: str) -> CaptionedPhotos:
    """Read `captions.csv` (image, split, caption) and keep one split.

    Raises:
        InputError: the file is missing or malformed, or has no rows of the split.
    """
    table = path / "captions.csv"
    if not table.is_file():
        raise InputError(f"no captions.csv in {path}: pass the data set's folder as data=DIR")
    groups: dict[str, list[str]] = {}
    try:
        with table.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if row["split"] == split:
                    groups.setdefault(row["image"], []).append(row["caption"])
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table} cannot be read as a CSV file in UTF-8: {error}") from error
    except KeyError as error:
        raise InputError(
            f"{table} has no column {error}: its columns must be image, split, caption"
        ) from error
    if not groups:
        raise InputError(f"{table} has no rows of split {split!r}")
    names = tuple(sorted(groups))
    return CaptionedPhotos(split, path / "images", names, tuple(tuple(groups[name]) for name in names))
