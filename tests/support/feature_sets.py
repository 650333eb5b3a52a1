"""Tiny data sets of features with timed text, in the layouts of the official files.

A video is a row of scenes, each about one of `TOPICS`. The vectors of a scene are near its topic's, a
subtitle and a query name the topic: so there is something to learn.
Shapes: M vectors, F features.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import h5py
import lmdb
import lz4.frame
import msgpack
import numpy as np

from model.arrays import Array
from tests.support.annotations import write_json, write_msrvtt

#: numbers of a vector
WIDTH = 12
TOPICS = ("dog", "train", "cake", "guitar", "snow", "boat")
Form = Literal["npz", "npy", "hdf5", "lmdb_npz", "lmdb_msgpack", "lmdb_lz4"]
FORMS: tuple[Form, ...] = get_args(Form)


@dataclass(frozen=True)
class Scene:
    """Vectors [first, last] of a video, both included, about one topic."""

    topic: str
    first: int
    last: int


@dataclass(frozen=True)
class ToyVideo:
    """A video without pixels; `every` are the seconds of one vector."""

    name: str
    scenes: tuple[Scene, ...]
    every: float

    @property
    def length(self) -> int:
        """M."""
        return self.scenes[-1].last + 1

    @property
    def seconds(self) -> float:
        """A little shorter than its vectors, as in real sets."""
        return round(self.length * self.every - 0.3, 2)

    def span(self, scene: Scene) -> tuple[float, float]:
        """The seconds of a scene, whose label is its vectors."""
        end = (scene.last + 1) * self.every - 0.4
        return round(scene.first * self.every + 0.1, 2), round(end, 2)

    def cues(self) -> list[dict[str, Any]]:
        """A subtitle for each scene, in TVR's form."""
        return [
            {"text": f" Ann : Look, the {scene.topic}!", "start": start, "end": end}
            for scene in self.scenes
            for start, end in [self.span(scene)]
        ]


def make_videos(
    count: int,
    *,
    every: float = 1.5,
    scenes: int = 3,
    vectors: int = 4,
    prefix: str = "show_clip",
    seed: int = 0,
) -> tuple[ToyVideo, ...]:
    """Videos of a few scenes; a scene has 2 to `vectors` vectors."""
    rng = np.random.default_rng(seed)
    videos = []
    for number in range(count):
        topics = (
            rng.permutation(len(TOPICS))[:scenes] if scenes <= len(TOPICS) else rng.integers(0, 6, scenes)
        )
        parts, first = [], 0
        for topic in topics:
            size = int(rng.integers(2, vectors + 1))
            parts.append(Scene(TOPICS[topic], first, first + size - 1))
            first += size
        videos.append(ToyVideo(f"{prefix}_{number:02d}", tuple(parts), every))
    return tuple(videos)


def features_of(videos: Sequence[ToyVideo], width: int = WIDTH, seed: int = 0) -> dict[str, Array]:
    """float32 [M, F] for each video: its topics' vectors, and some noise."""
    topics = np.random.default_rng(99).normal(size=(len(TOPICS), width))
    rng = np.random.default_rng(seed)
    found: dict[str, Array] = {}
    for video in videos:
        rows = [
            TOPICS.index(scene.topic) for scene in video.scenes for _ in range(scene.first, scene.last + 1)
        ]
        noise = rng.normal(scale=0.1, size=(len(rows), width))
        found[video.name] = (topics[rows] + noise).astype(np.float32)
    return found


def write_features(parent: Path, features: Mapping[str, Array], form: Form = "npz") -> Path:
    """Write features in one of the forms; returns what `data.features` names."""
    if form in ("npz", "npy"):
        folder = parent / form
        folder.mkdir(parents=True, exist_ok=True)
        for name, values in features.items():
            if form == "npz":
                np.savez(folder / f"{name}.npz", features=values)
            else:
                np.save(folder / f"{name}.npy", values)
        return folder
    parent.mkdir(parents=True, exist_ok=True)
    if form == "hdf5":
        with h5py.File(parent / "features.h5", "w") as file:
            for name, values in features.items():
                file[name] = values
        return parent / "features.h5"
    return write_lmdb(parent / form, {name: pack(values, form) for name, values in features.items()})


def pack(values: Array, form: Form) -> bytes:
    """A value of HERO's LMDB folders."""
    if form == "lmdb_npz":
        buffer = io.BytesIO()
        np.savez_compressed(buffer, features=values)
        # HERO's program made an array of its argument `allow_pickle`.
        with zipfile.ZipFile(buffer, "a") as archive, archive.open("allow_pickle.npy", "w") as member:
            np.lib.format.write_array(member, np.array(True))
        return buffer.getvalue()
    packed = msgpack.packb({"features": msgpack_numpy(values)}, use_bin_type=True)
    return bytes(lz4.frame.compress(packed) if form == "lmdb_lz4" else packed)


def msgpack_numpy(values: Array) -> dict[bytes, Any]:
    """What the package msgpack_numpy makes of an array."""
    return {
        b"nd": True,
        b"type": values.dtype.str,
        b"kind": b"",
        b"shape": list(values.shape),
        b"data": values.tobytes(),
    }


def write_lmdb(folder: Path, values: Mapping[str, bytes]) -> Path:
    """An LMDB folder, with HERO's list of keys."""
    with lmdb.open(str(folder), map_size=1 << 24) as env, env.begin(write=True) as transaction:
        for name, value in values.items():
            transaction.put(name.encode(), value)
        transaction.put(b"__keys__", json.dumps(list(values)).encode())
    return folder


def write_json_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_tvr_subtitles(path: Path, videos: Sequence[ToyVideo]) -> Path:
    """TVR's `tvqa_preprocessed_subtitles.jsonl`."""
    return write_json_lines(path, [{"vid_name": video.name, "sub": video.cues()} for video in videos])


def write_transcripts(path: Path, videos: Sequence[ToyVideo]) -> Path:
    """HowTo100M's `caption.json`."""
    columns = {
        video.name: {key: [cue[key] for cue in video.cues()] for key in ("start", "end", "text")}
        for video in videos
    }
    return write_json(path, columns)


def split_videos(videos: Sequence[ToyVideo]) -> dict[str, Sequence[ToyVideo]]:
    """The last quarter of some videos tests, the one before it validates, the others train."""
    part = max(1, len(videos) // 4)
    return {"train": videos[: -2 * part], "val": videos[-2 * part : -part], "test": videos[-part:]}


@dataclass(frozen=True)
class TinySet:
    """A data set on disk: what `data.annotations`, `data.subtitles` and `data.features` name; its videos."""

    annotations: Path
    subtitles: Path
    features: Path
    videos: tuple[ToyVideo, ...]

    def settings(self, kind: str, **changes: Any) -> dict[str, Any]:
        """The settings of group `data` of a recipe; `changes` are other values."""
        return {
            "kind": kind,
            "annotations": str(self.annotations),
            "subtitles": str(self.subtitles),
            "features": (str(self.features),),
            "every_seconds": self.videos[0].every,
        } | changes


def write_tvr(
    parent: Path,
    count: int = 8,
    form: Form = "npz",
    kind: str = "tvr",
    videos: tuple[ToyVideo, ...] | None = None,
) -> TinySet:
    """TVR, or with kind "how2r" How2R: queries of each scene, subtitles, lengths and features.

    The test split has no spans, as TVR's public one. Videos that are given keep their own features, which
    the set does not have then.
    """
    made = videos is None
    if videos is None:
        videos = make_videos(count, prefix="show_s01e01_seg01_clip" if kind == "tvr" else "how2r")
    notes, number = parent / "annotations", 0
    for split, group in split_videos(videos).items():
        rows = []
        for video in group:
            for place, scene in enumerate(video.scenes):
                row = {
                    "vid_name": video.name,
                    "duration": video.seconds,
                    "ts": list(video.span(scene)),
                    "desc": f"Ann sees the {scene.topic}.",
                    "type": ("v", "t", "vt")[place % 3],
                    "desc_id": number,
                }
                rows.append({k: v for k, v in row.items() if split != "test" or k != "ts"})
                number += 1
        part = "test_public" if split == "test" else split
        write_json_lines(notes / f"{kind}_{part}_release.jsonl", rows)
    if kind == "tvr":
        lengths = {
            "test_public" if split == "test" else split: {
                video.name: [video.seconds, 100 + videos.index(video)] for video in group
            }
            for split, group in split_videos(videos).items()
        }
        write_json(notes / "tvr_video2dur_idx.json", lengths)
    subtitles = write_tvr_subtitles(parent / "tvqa_preprocessed_subtitles.jsonl", videos)
    features = write_features(parent, features_of(videos), form) if made else parent
    return TinySet(notes, subtitles, features, videos)


def write_didemo(parent: Path, count: int = 8, form: Form = "npz") -> TinySet:
    """DiDeMo: four annotators for each sentence, of whom one disagrees; features lack the extension."""
    scenes = [Scene(topic, 10 * i, 10 * i + 9) for i, topic in enumerate(TOPICS[:2])]
    videos = tuple(ToyVideo(f"1@N0{i}_2_ab", tuple(scenes), 1.5) for i in range(count))
    for split, group in split_videos(videos).items():
        rows = [
            {
                "annotation_id": 10 * videos.index(video) + place,
                "description": f"a {scene.topic} is seen",
                "video": f"{video.name}.mov",
                "times": [[3 * place, 3 * place + 2]] * 3 + [[0, 0]],
                "num_segments": 6,
                "dl_link": "",
            }
            for video in group
            for place, scene in enumerate(video.scenes)
        ]
        write_json(parent / "annotations" / f"{split}_data.json", rows)
    subtitles = write_tvr_subtitles(parent / "subtitles.jsonl", videos)
    features = write_features(parent, features_of(videos), form)
    return TinySet(parent / "annotations", subtitles, features, videos)


def write_msrvtt_asr(parent: Path, form: Form = "npz") -> TinySet:
    """The ten clips of `write_msrvtt`, with speech and a vector every 2 s."""
    videos = tuple(
        ToyVideo(f"video{i}", video.scenes, 2.0) for i, video in enumerate(make_videos(10, every=2.0))
    )
    notes = parent / "annotations"
    notes.mkdir(parents=True)
    write_msrvtt(notes)
    subtitles = write_transcripts(parent / "raw_caption.json", videos)
    return TinySet(notes, subtitles, write_features(parent, features_of(videos), form), videos)


def write_howto100m(parent: Path, count: int = 4, form: Form = "npz") -> TinySet:
    """Long videos with speech, for pre-training: 25 scenes, some two minutes; a list of the videos."""
    videos = make_videos(count, scenes=25, prefix="howto")
    parent.mkdir(parents=True, exist_ok=True)
    (parent / "HowTo100M_v1.csv").write_text("video_id,rank\n" + "".join(f"{v.name},1\n" for v in videos))
    subtitles = write_transcripts(parent / "caption.json", videos)
    return TinySet(
        parent / "HowTo100M_v1.csv", subtitles, write_features(parent, features_of(videos), form), videos
    )
