"""Films with known parts to measure a moment head on: spliced from encoded stills, or from videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model.arrays import Array
from model.data.features.making import interval_middles
from model.evaluation.moments.films import Films, join_films
from model.families.moment_head.films import Splicer
from model.progress import Progress, Report, silent
from model.runtime.bundle import Bundle
from model.runtime.errors import InputError
from model.runtime.files import replacing
from model.runtime.names import find_as_seen
from model.runtime.queries import read_queries
from model.runtime.video import VideoReader
from model.runtime.video.splicing import FRAMES_PER_SECOND, SplicedFilm, plan_films, write_spliced_film

_FRAMES_A_PASS = 32


def films_of_stills(splicer: Splicer, count: int, items: int, seed: int) -> Films:
    """Films of distinct items, and a query about each part of each.

    Args:
        splicer: makes the films; its noise of queries is meant for training, so choose none.
        count: the number of films.
        items: the items of a film.
        seed: decides the films and the queries.

    Raises:
        InputError: there are too few items.
    """
    if count * items > len(splicer.stills):
        raise InputError(
            f"{count} films of {items} items need more than {len(splicer.stills)} items: ask for fewer films"
        )
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(splicer.stills))
    films = [splicer.film(order[row * items : (row + 1) * items].tolist(), rng) for row in range(count)]
    parts = [(row, part) for row, film in enumerate(films) for part in film.parts]
    return join_films(
        [film.frames for film in films],
        [film.duration_seconds for film in films],
        splicer.config.every_seconds,
        np.stack([splicer.query(part.item, rng) for _, part in parts]),
        np.array([row for row, _ in parts], np.int64),
        np.array([(part.start_seconds, part.end_seconds) for _, part in parts]),
    )


def films_of_videos(
    bundle: Bundle,
    clips: Path,
    queries: Path,
    folder: Path,
    seed: int,
    clips_a_film: int = 5,
    every_seconds: float = 1.0,
    report: Report = silent,
) -> Films:
    """Write films spliced from videos, and read their frames as they would be read in indexing.

    Args:
        bundle: encodes frames and queries.
        clips: the folder of the videos.
        queries: JSON lines with `query` and `video`.
        folder: where the films are written, and kept.
        seed: decides which videos are joined, and how.
        clips_a_film: videos of a film.
        every_seconds: seconds from one frame to the next; a frame is the middle of its interval.
        report: told of progress.

    Raises:
        InputError: the queries cannot be read, a video is missing, or the folder cannot be written.
        VideoError: a video cannot be decoded.
    """
    labelled = read_queries(queries)
    names = [str(find_as_seen(clips / query.video).relative_to(clips)) for query in labelled]
    for query, name in zip(labelled, names, strict=True):
        if not (clips / name).is_file():
            raise InputError(
                f"{queries}, line {query.line}: {clips / name} is missing: restore it, or remove the line"
            )
    films = plan_films(clips, sorted(set(names)), seed, clips_a_film)
    progress = Progress("films", len(films), report)
    frames, durations = [], []
    for film in films:
        path = folder / f"seed-{seed}-of-{clips_a_film}" / film.name
        _write(clips, film, path)
        shown, duration = _encode(bundle, path, every_seconds)
        frames.append(shown)
        durations.append(duration)
        progress.step()
    places = {part.clip: (row, part) for row, film in enumerate(films) for part in film.parts}
    asked = [places[name] for name in names]
    return join_films(
        frames,
        durations,
        every_seconds,
        bundle.encode_text([query.text for query in labelled]).embedding,
        np.array([row for row, _ in asked], np.int64),
        np.array([(part.start, part.end) for _, part in asked]) / FRAMES_PER_SECOND,
    )


def _write(clips: Path, film: SplicedFilm, path: Path) -> None:
    if path.is_file():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            write_spliced_film(clips, film, temporary)
    except OSError as error:
        raise InputError(f"folder {path.parent} cannot be written: {error}", "folder") from error


def _encode(bundle: Bundle, path: Path, every_seconds: float) -> tuple[Array, float]:
    """The embeddings of a film's frames [T, D], and its length in seconds."""
    resizing = bundle.manifest.image.resizing
    with VideoReader(path, threads=1) as reader:
        duration = reader.info.duration_seconds
        times = interval_middles(duration, every_seconds)
        pixels = [
            resizing.frames(frame.data[None])[0] for frame in reader.get_frames_played_at(times.tolist())
        ]
    parts = [
        bundle.encode_frames(np.stack(pixels[first : first + _FRAMES_A_PASS])).embedding
        for first in range(0, len(pixels), _FRAMES_A_PASS)
    ]
    return np.concatenate(parts), duration
