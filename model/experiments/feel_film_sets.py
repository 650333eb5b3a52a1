"""Writes films as a data set of features with timed text, in official layouts.

    pretraining/features/FILM.npz         features, a vector for every 1.5 s
    pretraining/transcripts.json          HowTo100M's: {film: {start, end, text}}
    finetuning/features/FILM.npz
    finetuning/subtitles.jsonl            TVR's: {vid_name, sub: [{text, start, end}]}
    finetuning/annotations/               TVR's queries of train, val and test_public, and lengths
    films.jsonl                           what the films to validate and test show, for pictures of them
    films.json                            the settings; written last, so that a folder with it is whole

Shapes: M vectors, F features, P pictures.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.arrays import Array
from model.data.datasets import SplitName
from model.data.features.base import KEY
from model.data.features.files import DURATION_KEY, MANIFEST
from model.data.stills import CaptionedStills, read_stills
from model.data.views import view_of
from model.experiments.feel_films import Film, FilmOptions, plan_films
from model.progress import Progress, Report
from model.runtime.bundle import Bundle
from model.runtime.errors import InputError
from model.runtime.files import replace_text, replacing

_SETTINGS = "films.json"
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")
_NAMES = {"train": "train", "val": "val", "test": "test_public"}
_FRAMES_A_PASS = 32


@dataclass(frozen=True)
class Pictures:
    """The pictures of one split: views of photos, frames of videos.

    Attributes:
        stills: the items.
        shots: the image and the view of each picture, [P].
        of_item: the pictures of each item, in order.
    """

    stills: CaptionedStills
    shots: tuple[tuple[int, int], ...]
    of_item: tuple[tuple[int, ...], ...]

    def file(self, item: int, number: int = 0) -> str:
        """The name of the file of one of an item's pictures."""
        return self.stills.images[self.shots[self.of_item[item][number]][0]].name


def list_pictures(stills: CaptionedStills, views: int) -> Pictures:
    """Photos in some views, which are never mirrored; items of several images as they are."""
    shots: list[tuple[int, int]] = []
    of_item: list[tuple[int, ...]] = []
    for images in stills.items:
        # Odd views are mirrored, and captions may speak of left and right.
        own = [(image, 2 * view) for image in images for view in range(views if len(images) == 1 else 1)]
        of_item.append(tuple(range(len(shots), len(shots) + len(own))))
        shots += own
    return Pictures(stills, tuple(shots), tuple(of_item))


def encode_pictures(pictures: Pictures, bundle: Bundle, folder: Path, seed: int, report: Report) -> Array:
    """The frame embedding of each picture, encoded once and kept in `folder`. → float32 [P, F]

    Raises:
        InputError: an image cannot be read.
    """
    stills = pictures.stills
    names = [(stills.images[image].name, view) for image, view in pictures.shots]
    digest = hashlib.sha256(json.dumps([bundle.checksum, seed, names]).encode()).hexdigest()[:16]
    path = folder / f"{stills.name}-{digest}.npy"
    if path.is_file():
        kept: Array = np.load(path, allow_pickle=False)
        return kept
    size, progress = bundle.manifest.image.size, Progress("pictures encoded", len(names), report)
    parts: list[Array] = []
    for first in range(0, len(names), _FRAMES_A_PASS):
        shots = pictures.shots[first : first + _FRAMES_A_PASS]
        frames = np.stack([view_of(stills, image, view, size, seed) for image, view in shots])
        parts.append(bundle.encode_frames(frames).embedding)
        progress.step(len(shots))
    embeddings: Array = np.concatenate(parts).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        np.save(temporary, embeddings)
    return embeddings


def make_film_set(
    photos: Path, frames: Path | None, bundle: Bundle, output: Path, options: FilmOptions, report: Report
) -> dict[str, int]:
    """Make films of captioned photos, and of frames of videos, and write them; see the head of this module.

    A folder that is whole already stays as it is.

    Args:
        photos: folder with captions.csv and images/, with the splits train, val and test.
        frames: another such folder, of photos or of frames of videos; None: there is none.
        bundle: its frame encoder makes the features.
        output: becomes the folder of the films.
        options: what films are like.
        report: told about progress.

    Returns:
        the number of films and of queries by part, such as `test_films`.

    Raises:
        InputError: the photos cannot be read or are too few, or `output` holds films of other settings.
    """
    settings = asdict(options) | {
        "bundle": bundle.checksum,
        "sets": [folder.resolve().name for folder in (photos, frames) if folder is not None],
    }
    if (output / _SETTINGS).is_file():
        stored = json.loads((output / _SETTINGS).read_text(encoding="utf-8"))
        counts: dict[str, int] = stored.pop("counts")
        if stored != settings:
            raise InputError(
                f"output {output} holds films of other settings: choose another folder", "output"
            )
        return counts
    output.mkdir(parents=True, exist_ok=True)
    writer = _Writer(output, options, bundle)
    for number, split in enumerate(SPLITS):
        stills = read_stills(photos, split)
        if frames is not None:
            stills = stills.join(read_stills(frames, split))
        pictures = list_pictures(stills, options.views)
        embeddings = encode_pictures(pictures, bundle, output / "embeddings", options.seed, report)
        items = np.random.default_rng((options.seed, number)).permutation(len(stills))
        share = round(len(items) * options.finetuning) if split == "train" else len(items)
        parts = [("finetuning", _NAMES[split], items[:share])]
        parts += [("pretraining", "pretraining", items[share:])] if split == "train" else []
        rounds = {"pretraining": options.pretraining_rounds, "train": options.training_rounds}
        for place, (task, name, used) in enumerate(parts):
            rng = np.random.default_rng((options.seed, number, place))
            films = plan_films(
                stills.captions,
                [len(own) for own in pictures.of_item],
                used,
                options,
                rng,
                name=name,
                rounds=rounds.get(name, 1),
            )
            if not films:
                raise InputError(f"{len(used)} items of split {split} make no film: take a larger set")
            writer.add(task, name, films, pictures, embeddings)
            report(f"{len(films)} films of {name}")
    counts = writer.finish()
    replace_text(output / _SETTINGS, json.dumps(settings | {"counts": counts}, indent=1) + "\n")
    return counts


class _Writer:
    """Collects annotations of films, and writes their features at once."""

    def __init__(self, output: Path, options: FilmOptions, bundle: Bundle) -> None:
        self._output, self._options, self._bundle = output, options, bundle
        self._transcripts: dict[str, Any] = {}
        self._subtitles: list[Mapping[str, Any]] = []
        self._queries: dict[str, list[Mapping[str, Any]]] = {}
        self._lengths: dict[str, dict[str, tuple[float, int]]] = {}
        self._shown: list[Mapping[str, Any]] = []
        self._films = 0
        self._counts: dict[str, int] = {}

    def add(self, task: str, name: str, films: Sequence[Film], pictures: Pictures, embeddings: Array) -> None:
        """Films of one part of a task."""
        folder = self._output / task / "features"
        folder.mkdir(parents=True, exist_ok=True)
        for film in films:
            rows = [pictures.of_item[item][number] for item, number in film.pictures]
            values: dict[str, Any] = {
                KEY: embeddings[rows],
                DURATION_KEY: np.float64(film.duration_seconds),
            }
            np.savez(folder / f"{film.name}.npz", **values)
        if task == "pretraining":
            self._transcripts |= {film.name: _transcript(film) for film in films}
        else:
            self._annotate(name, films)
        if name not in ("pretraining", "train"):
            self._shown += [_shown(film, pictures) for film in films]
        self._counts[f"{name}_films"] = len(films)

    def _annotate(self, name: str, films: Sequence[Film]) -> None:
        lengths, queries = self._lengths.setdefault(name, {}), self._queries.setdefault(name, [])
        for film in films:
            lengths[film.name] = (film.duration_seconds, self._films)
            self._films += 1
            self._subtitles.append({"vid_name": film.name, "sub": _cues(film)})
            queries += _queries(film)
        self._counts[f"{name}_queries"] = len(queries)

    def finish(self) -> dict[str, int]:
        """Write all annotations, and count."""
        notes = self._output / "finetuning" / "annotations"
        notes.mkdir(parents=True, exist_ok=True)
        number = 0
        for name, rows in self._queries.items():
            numbered = [{**row, "desc_id": number + place} for place, row in enumerate(rows)]
            number += len(rows)
            _write_lines(notes / f"tvr_{name}_release.jsonl", numbered)
        replace_text(notes / "tvr_video2dur_idx.json", json.dumps(self._lengths))
        _write_lines(self._output / "finetuning" / "subtitles.jsonl", self._subtitles)
        replace_text(self._output / "pretraining" / "transcripts.json", json.dumps(self._transcripts))
        _write_lines(self._output / "films.jsonl", self._shown)
        manifest = {
            "version": 1,
            "every_seconds": self._options.every_seconds,
            "width": self._bundle.manifest.embedding_dim,
            "bundle": self._bundle.manifest.name,
            "bundle_sha256": self._bundle.checksum,
        }
        for task in ("pretraining", "finetuning"):
            replace_text(self._output / task / "features" / MANIFEST, json.dumps(manifest, indent=2) + "\n")
        return self._counts


def _cues(film: Film) -> list[dict[str, Any]]:
    return [{"text": s.text, "start": s.start_seconds, "end": s.end_seconds} for s in film.subtitles]


def _transcript(film: Film) -> dict[str, list[Any]]:
    return {key: [cue[key] for cue in _cues(film)] for key in ("start", "end", "text")}


def _queries(film: Film) -> list[dict[str, Any]]:
    """A query of each shot that has a caption left; of kind vt where a subtitle speaks of the shot too."""
    return [
        {
            "vid_name": film.name,
            "duration": film.duration_seconds,
            "ts": [shot.start_seconds, shot.end_seconds],
            "desc": shot.query,
            "type": "vt" if shot.told else "v",
        }
        for shot in film.shots
        if shot.query is not None
    ]


def _shown(film: Film, pictures: Pictures) -> dict[str, Any]:
    return {
        "name": film.name,
        "shots": [
            {
                "start": shot.start_seconds,
                "end": shot.end_seconds,
                "image": pictures.file(shot.item),
                "query": shot.query,
            }
            for shot in film.shots
        ],
        "subtitles": [
            {**cue, "shown": line.shown} for cue, line in zip(_cues(film), film.subtitles, strict=True)
        ],
    }


def _write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    replace_text(path, "".join(json.dumps(row) + "\n" for row in rows))
