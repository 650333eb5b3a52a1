"""Captioned videos, read from the official files of the data sets.

`open_split` reads annotations and finds the videos' files; `open_dataset` also gives their frames.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import numpy as np

from model.data.datasets.didemo import read_didemo
from model.data.datasets.files import (
    IMAGE_EXTENSIONS,
    VIDEO_EXTENSIONS,
    MediaFolder,
    MissingFilesError,
    find_files,
)
from model.data.datasets.frame_cache import FrameCache
from model.data.datasets.frames import VideoFrames
from model.data.datasets.image_text import read_image_text
from model.data.datasets.msrvtt import read_msrvtt
from model.data.datasets.msvd import read_msvd
from model.data.datasets.questions import keep_common, read_mapped_qa, read_msrvtt_qa
from model.data.datasets.records import Annotated, CaptionedVideo, Split
from model.data.datasets.vatex import read_vatex
from model.progress import Report, silent
from model.runtime.errors import InputError
from model.settings import DataConfig, RunSettings

__all__ = [
    "CaptionedVideo",
    "MissingFilesError",
    "Split",
    "SplitName",
    "VideoFrames",
    "annotations_of",
    "open_dataset",
    "open_split",
]

SplitName = Literal["train", "val", "test"]
# Videos held out of training are drawn with this seed, so that every run holds out the same ones.
_HELD_OUT_SEED = 0


def open_split(data: DataConfig, split: SplitName, report: Report = silent) -> Split:
    """One split of the data set that the settings name, with the files of its videos.

    With `data.validation`, so many of the training videos become the validation split and do not train.

    Raises:
        MissingFilesError: videos are missing and `data.allow_missing` is false.
        InputError: an unknown split, a missing setting, or a malformed annotation file.
    """
    if split not in get_args(SplitName):
        raise InputError(f"split {split!r} is not known: use one of {', '.join(get_args(SplitName))}")
    if not data.videos:
        raise InputError(f"no data.videos: set it to the folder of {data.kind}'s videos")
    photos = data.kind == "image_text"
    annotated = annotations_of(data, split)
    part = f" {data.msrvtt}" if data.kind == "msrvtt" else ""
    folder = MediaFolder(Path(data.videos), IMAGE_EXTENSIONS if photos else VIDEO_EXTENSIONS)
    name = f"{data.kind}{part} {split}"
    return find_files(name, annotated, folder, allow_missing=data.allow_missing, report=report)


def annotations_of(data: DataConfig, split: SplitName) -> list[Annotated]:
    """The annotations of one split, without a look at the videos' files.

    Of questions to train on, only those with the `data.num_answers` commonest answers.

    Raises:
        InputError: a missing setting, or a malformed annotation file.
    """
    source: SplitName = "train" if data.validation and split == "val" else split
    annotated = _hold_out(_read(data, source), data.validation, split)
    return keep_common(annotated, data.num_answers) if data.asks and split == "train" else annotated


def open_dataset(config: RunSettings, split: SplitName, report: Report = silent) -> VideoFrames:
    """One split with its frames, through the frame cache if `data.frame_cache` names one.

    Raises:
        InputError: as `open_split`, or the frame cache has other settings.
    """
    data, model = config.data, config.model
    cache = FrameCache(Path(data.frame_cache), model.frames, model.image_size) if data.frame_cache else None
    return VideoFrames(open_split(data, split, report), cache)


def _read(data: DataConfig, split: SplitName) -> list[Annotated]:
    path = Path(data.annotations)
    if not data.annotations:
        raise InputError(f"no data.annotations: set it to the folder of {data.kind}'s annotations")
    if not path.exists():
        raise InputError(
            f"data.annotations={path} does not exist: set it to the folder of {data.kind}'s files"
        )
    if data.kind == "image_text":
        return read_image_text(path, split)
    if not path.is_dir():
        raise InputError(f"data.annotations={path} is a file: set it to the folder that holds it")
    if data.kind == "msrvtt":
        if split == "val" and data.msrvtt != "full":
            raise InputError(
                f"MSR-VTT {data.msrvtt} has no validation split: set data.validation=500 to keep that many "
                "training videos for it, or train.evaluate=false"
            )
        return read_msrvtt(path, data.msrvtt, split)
    readers = {
        "msvd": read_msvd,
        "didemo": read_didemo,
        "vatex": read_vatex,
        "msrvtt_qa": read_msrvtt_qa,
        "msvd_qa": read_mapped_qa,
        "questions": read_mapped_qa,
    }
    if data.kind not in readers:
        raise InputError(
            f"data.kind={data.kind} is not a data set of videos: use {', '.join(readers)} or msrvtt"
        )
    return readers[data.kind](path, split)


def _hold_out(annotated: list[Annotated], count: int, split: SplitName) -> list[Annotated]:
    """The training videos that `split` gets: `count` go to validation, all others train."""
    if not count or split == "test":
        return annotated
    if count >= len(annotated):
        raise InputError(f"data.validation={count} leaves none of the {len(annotated)} videos to train on")
    held_out = set(np.random.default_rng(_HELD_OUT_SEED).permutation(len(annotated))[:count].tolist())
    return [video for i, video in enumerate(annotated) if (i in held_out) == (split == "val")]
