"""The record of what a run trained on: its checkpoints keep it, and its bundle publishes it.

Because bundles are published, a record names folders and files without their paths.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from model.data.stills import StillSet
from model.runtime.errors import InputError
from model.settings import RunSettings

#: the key of a checkpoint's state that holds the record
DATA_KEY = "data"
_PHOTOS = ("photos", "image_text")
_ASKED = ("_qa", "questions")


@dataclass(frozen=True)
class DatasetRecord:
    """One data set that a run trained on.

    Attributes:
        kind: `data.kind`; for MSR-VTT with the split that `data.msrvtt` names; for questions about stills,
            what these are, such as "photos with questions".
        name: the name of the folder of photos, or of the annotations; empty: unknown.
        media: the name of the folder of the videos or images that are annotated; empty: there is none.
        split: the part that was trained on.
        items: number of photos or videos; None: not recorded.
        captions: number of captions; None: not recorded.
        captions_sha256: sha256 of all captions in their order, of images without captions of their names;
            None: not recorded.
        texts: what was counted as captions, such as "line" of timed text; empty: captions, or questions.
    """

    kind: str
    name: str
    media: str = ""
    split: str = "train"
    items: int | None = None
    captions: int | None = None
    captions_sha256: str | None = None
    texts: str = ""

    def __str__(self) -> str:
        """One line, such as `photos "flickr8k", split train: 6,091 photos, 30,455 captions`."""
        name = f' "{self.name}"' if self.name else ""
        media = f' with "{self.media}"' if self.media else ""
        if self.items is None or self.captions is None:
            counts = "counts not recorded by the checkpoint"
        else:
            unit = "photo" if self.kind.split()[0] in _PHOTOS else "video"
            unit = {"clips": "clip", "images": "image"}.get(self.kind, unit)
            text = self.texts or ("question" if self.kind.endswith(_ASKED) else "caption")
            counts = f"{_count(self.items, unit)}, {_count(self.captions, text)}"
        return f"{self.kind}{name}{media}, split {self.split}: {counts}"


@dataclass(frozen=True)
class TrainingData:
    """All the data that the weights of a run learned from.

    Attributes:
        datasets: those of the run itself; several if it was resumed on other data.
        start_from: the checkpoint that it started from; None: it started from published weights.
    """

    datasets: tuple[DatasetRecord, ...]
    start_from: StartRecord | None = None

    def lines(self) -> tuple[str, ...]:
        """A line for each data set, including those of `start_from`."""
        lines = tuple(str(dataset) for dataset in self.datasets)
        return lines if self.start_from is None else lines + self.start_from.lines()


@dataclass(frozen=True)
class StartRecord:
    """The checkpoint that a run started from.

    Attributes:
        checkpoint: the names of its run's folder and its file, such as `cc3m/best.pt`.
        data: what it was trained on; None: not recorded.
    """

    checkpoint: str
    data: TrainingData | None

    def lines(self) -> tuple[str, ...]:
        """A line for each data set of the checkpoint."""
        lines = ("not recorded by the checkpoint",) if self.data is None else self.data.lines()
        return tuple(f"start_from {self.checkpoint}: {line}" for line in lines)


def describe_data(
    config: RunSettings,
    captions: Sequence[Sequence[str]],
    start: Mapping[str, Any] | None = None,
    sets: Sequence[StillSet] = (),
    texts: str = "",
    uncaptioned: Sequence[str] = (),
) -> dict[str, Any]:
    """The record of a run as plain values, which its checkpoints hold under `DATA_KEY`.

    Args:
        config: the run's settings.
        captions: the captions of each photo or video that is trained on, or what else is learned from.
        start: the state of the checkpoint that `train.start_from` names; None: there is none.
        sets: the sets of still images that are trained on; empty: other data.
        texts: what `captions` are, such as "line" of timed text; empty: captions, or questions.
        uncaptioned: the names of the images without captions that are trained on.
    """
    named = replace(_named(vars(config.data), _own_name), texts=texts)
    if sets:
        folders = (config.data.path, config.data.second)
        names = [
            replace(
                named,
                kind=f"{part.kind} with questions" if config.data.asks else part.kind,
                name=_own_name(path),
            )
            for part, path in zip(sets, folders, strict=False)
        ]
        sizes = [part.items for part in sets]
    else:
        names, sizes = [named], [len(captions)]
    ends = list(accumulate(sizes))
    datasets = tuple(
        _counted(name, captions[end - size : end]) for name, size, end in zip(names, sizes, ends, strict=True)
    )
    if uncaptioned:
        images = DatasetRecord("images", _own_name(config.data.uncaptioned))
        names_sha256 = _digest([uncaptioned])
        datasets += (replace(images, items=len(uncaptioned), captions=0, captions_sha256=names_sha256),)
    start_from = None
    if start is not None:
        recorded = DATA_KEY in start or "config" in start
        start_data = data_of(start) if recorded else None
        start_from = StartRecord(checkpoint_name(config.train.start_from), start_data)
    return asdict(TrainingData(datasets, start_from))


def _counted(dataset: DatasetRecord, captions: Sequence[Sequence[str]]) -> DatasetRecord:
    return replace(
        dataset,
        items=len(captions),
        captions=sum(map(len, captions)),
        captions_sha256=_digest(captions),
    )


def data_of(state: Mapping[str, Any]) -> TrainingData:
    """What a checkpoint's run trained on, from its record, or else from its settings.

    Raises:
        InputError: the record has the form of another version.
    """
    if DATA_KEY in state:
        try:
            return _parse(state[DATA_KEY])
        except (KeyError, TypeError) as error:
            raise InputError(
                f"the checkpoint's record of its data is of another version ({error})"
            ) from error
    settings = state["config"]
    # A relative path depends on where the run was started, so it is not resolved here.
    dataset = _named(settings["data"], lambda path: Path(path).name)
    origin = settings["train"].get("start_from", "")
    return TrainingData((dataset,), StartRecord(checkpoint_name(origin), None) if origin else None)


def resumed_data(state: Mapping[str, Any], current: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a run that resumes from a checkpoint, perhaps with its data in another place.

    Args:
        state: the checkpoint's state.
        current: what `describe_data` gives for the data as it is now.
    """
    before, now = data_of(state), _parse(current)
    datasets = before.datasets
    for dataset in now.datasets:
        if any(dataset.captions_sha256 == other.captions_sha256 for other in datasets):
            continue
        # A data set that was recorded by its name alone is now recorded in full.
        unrecorded = DatasetRecord(dataset.kind, dataset.name, dataset.media, dataset.split)
        datasets = (*(other for other in datasets if other != unrecorded), dataset)
    return asdict(TrainingData(datasets, before.start_from))


def checkpoint_name(path: str) -> str:
    """The last two parts of a checkpoint's path: the names of its run's folder and its file."""
    return "/".join(Path(os.path.abspath(path)).parts[1:][-2:])  # noqa: PTH100  absolute() keeps `..`


def _named(data: Mapping[str, Any], name_of: Callable[[str], str]) -> DatasetRecord:
    """The data set that the settings `data.*` name, without counts."""
    kind = data["kind"]
    if kind == "photos":
        return DatasetRecord(kind, name_of(data["path"]))
    if kind == "questions":
        return DatasetRecord(kind, name_of(data["path"]), name_of(data["annotations"]))
    kind = f"{kind} {data['msrvtt']}" if kind in ("msrvtt", "msrvtt_asr") else kind
    if data.get("features"):
        texts = data["annotations"] or data["subtitles"]
        media = " + ".join(name_of(path) for path in data["features"])
        return DatasetRecord(kind, name_of(texts) if texts else "", media)
    return DatasetRecord(kind, name_of(data["annotations"]), name_of(data["videos"]))


def _count(number: int, unit: str) -> str:
    return f"{number:,} {unit}" if number == 1 else f"{number:,} {unit}s"


def _own_name(path: str) -> str:
    return Path(os.path.abspath(path)).name  # noqa: PTH100  absolute() keeps `..`


def _digest(captions: Sequence[Sequence[str]]) -> str:
    digest = hashlib.sha256()
    for texts in captions:
        for text in texts:
            digest.update(text.encode() + b"\n")
        digest.update(b"\0")
    return digest.hexdigest()


def _parse(record: Mapping[str, Any]) -> TrainingData:
    start = record["start_from"]
    start_from = None
    if start is not None:
        start_from = StartRecord(
            start["checkpoint"], None if start["data"] is None else _parse(start["data"])
        )
    return TrainingData(tuple(DatasetRecord(**dataset) for dataset in record["datasets"]), start_from)
