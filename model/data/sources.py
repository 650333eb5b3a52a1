"""Data to train on and to measure on: stills, video data sets and image-text pairs, by one interface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from model.arrays import Frames
from model.data.datasets import SplitName, annotations_of, open_dataset
from model.data.stills import CaptionedStills, read_asked_stills, read_images, read_stills
from model.data.teacher import read_teacher
from model.progress import Report, silent
from model.runtime.errors import InputError
from model.settings import DataConfig, RunSettings


class Source(Protocol):
    """One split of captioned videos; a photo is a video of one frame. Safe to use from several threads."""

    @property
    def name(self) -> str:
        """The name of the split in results, such as "test" or "msrvtt 1ka test"."""

    @property
    def unit(self) -> str:
        """What the items are: "photos", "videos", or "items" where both are joined."""

    @property
    def captions(self) -> Sequence[Sequence[str]]:
        """The captions of each video, or the questions about it."""

    @property
    def answers(self) -> Sequence[Sequence[str]]:
        """The answers to the questions about each video; empty where the texts are captions."""

    def __len__(self) -> int:
        """The number of videos."""

    def frames(self, index: int, count: int, size: int, rng: np.random.Generator | None) -> Frames:
        """A random frame of each of `count` equal parts of a video, or the middle ones if `rng` is None.

        A short video gives fewer frames. Shape [n, size, size, 3], 1 ≤ n ≤ count.

        Raises:
            InputError: a file cannot be read.
        """


def open_source(config: RunSettings, split: SplitName, report: Report = silent) -> Source:
    """Open one split of the data that the settings name; `data.limit` limits the items of the first set.

    Raises:
        InputError: the data is missing or malformed.
    """
    data = config.data
    if not data.has_stills:
        return open_dataset(config, split, report)
    return open_stills(data, split)


def open_stills(data: DataConfig, split: SplitName) -> CaptionedStills:
    """One split of photos or frames of videos, with captions or questions; as `open_source`.

    Raises:
        InputError: the data is missing or malformed, or other items are asked about than there are.
    """
    if not data.path:
        raise InputError("no training data: pass data=DIR, a folder with captions.csv and images/")
    folders = [Path(folder) for folder in (data.path, data.second) if folder]
    if data.asks:
        asked = {video.video_id: video for video in annotations_of(data, split)}
        sets = [read_asked_stills(folder, split, asked) for folder in folders]
        found = sum(map(len, sets))
        if found != len(asked):
            raise InputError(
                f"data.annotations={data.annotations} asks about {len(asked)} items of split {split}, of "
                f"which {found} are in {', '.join(map(str, folders))}: make the questions again with "
                f"`reelfind-model questions {' '.join(map(str, folders))} --output {data.annotations}`"
            )
    else:
        sets = [read_stills(folder, split) for folder in folders]
    first, *others = sets
    if split == "train":
        first = first.first(data.limit)
    stills = first.join(*others) if others else first
    if split == "train" and data.uncaptioned:
        stills = stills.join(read_images(Path(data.uncaptioned), split))
    if split == "train" and data.teacher:
        teacher = read_teacher(Path(data.teacher))
        return replace(stills, taught=teacher.of(stills.images, data.views), taught_by=teacher.encoder)
    return stills
