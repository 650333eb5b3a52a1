"""Splices videos into longer films, with cuts and fades, and says where each one is.

Shapes: h rows, w columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from model.runtime.errors import InputError
from model.runtime.video.reader import VideoReader, probe
from model.runtime.video.writing import write_h264

WIDTH, HEIGHT, FRAMES_PER_SECOND = 426, 240, 25
CLIPS_A_FILM = 3
_FADE_FRAMES = FRAMES_PER_SECOND // 2
_FADE_SHARE = 0.5


@dataclass(frozen=True)
class Part:
    """One clip's place in a film, in frames of the film."""

    clip: str
    clip_bytes: int
    start: int
    frames: int
    fade: int
    """How many of its first frames fade in over the end of the part before; 0: a cut."""

    @property
    def end(self) -> int:
        """The frame after the last."""
        return self.start + self.frames


@dataclass(frozen=True)
class SplicedFilm:
    """A spliced film: its file name and its parts in order."""

    name: str
    parts: tuple[Part, ...]


def plan_films(
    folder: Path, clips: Sequence[str], seed: int, clips_a_film: int = CLIPS_A_FILM
) -> tuple[SplicedFilm, ...]:
    """Choose which clips of `folder` are joined, and how; depends only on the arguments.

    If the number of clips is not a multiple of `clips_a_film`, the last films have one clip less.

    Raises:
        InputError: `clips_a_film` is below 1.
        VideoError: a clip cannot be read.
    """
    if clips_a_film < 1:
        raise InputError(f"clips_per_film is {clips_a_film}: it must be at least 1", "clips_per_film")
    rng = np.random.default_rng(seed)
    order = [clips[i] for i in rng.permutation(len(clips))]
    films = []
    for number, group in enumerate(np.array_split(np.arange(len(clips)), -(-len(clips) // clips_a_film))):
        parts: list[Part] = []
        for clip in (order[i] for i in group):
            path = folder / clip
            frames = max(1, round(probe(path).duration_seconds * FRAMES_PER_SECOND))
            start = fade = 0
            if parts:
                faded = rng.random() < _FADE_SHARE
                # At most a third of the shorter clip: every clip has frames outside of fades.
                fade = min(_FADE_FRAMES, frames // 3, parts[-1].frames // 3) if faded else 0
                start = parts[-1].end - fade
            parts.append(Part(clip, path.stat().st_size, start, frames, fade))
        films.append(SplicedFilm(f"spliced-{number:03d}.mp4", tuple(parts)))
    return tuple(films)


def write_spliced_film(clips: Path, film: SplicedFilm, target: Path) -> None:
    """Write a film: H.264 in MP4, the same bytes every time."""
    options = {"preset": "ultrafast", "crf": "23", "g": str(2 * FRAMES_PER_SECOND), "threads": "1"}
    write_h264(target, _film_frames(clips, film), FRAMES_PER_SECOND, options)


def _film_frames(clips: Path, film: SplicedFilm) -> Iterator[NDArray[np.uint8]]:
    """Yield the film's frames, uint8 [h, w, 3]; only the frames of a fade are held in memory."""
    outgoing: list[NDArray[np.uint8]] = []  # the end of the part before, which fades out
    for part, following in zip(film.parts, (*film.parts[1:], None), strict=True):
        fade_start = part.frames - (following.fade if following is not None else 0)
        held: list[NDArray[np.uint8]] = []
        for number, frame in enumerate(_clip_frames(clips / part.clip, part.frames)):
            if number < part.fade:
                weight = np.float32((number + 1) / (part.fade + 1))
                frame = (outgoing[number] * (1 - weight) + frame * weight).astype(np.uint8)
            if number < fade_start:
                yield frame
            else:
                held.append(frame)
        outgoing = held


def _clip_frames(path: Path, count: int) -> Iterator[NDArray[np.uint8]]:
    """Yield `count` frames of a clip at the film's rate and size; repeat the last if the clip ends early."""
    times = [(number + 0.5) / FRAMES_PER_SECOND for number in range(count)]
    resized: NDArray[np.uint8] = np.empty((0, 0, 3), np.uint8)
    num_frames, source = 0, None
    with VideoReader(path, max_side=None, threads=1) as reader:
        for frame in reader.get_frames_played_at(times):
            if source is not frame:
                source = frame
                image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.data), format="rgb24")
                image = image.reformat(WIDTH, HEIGHT, "rgb24", interpolation="AREA")
                resized = image.to_ndarray().astype(np.uint8, copy=False)
            num_frames += 1
            yield resized
    for _ in range(count - num_frames):
        yield resized
