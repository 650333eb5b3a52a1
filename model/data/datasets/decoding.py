"""Frames of one captioned video, decoded and resized as in serving.

Shapes: N frame slots, n distinct frames, s side in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.arrays import Frames, Rows
from model.data.datasets.files import IMAGE_EXTENSIONS
from model.data.datasets.records import CaptionedVideo
from model.runtime.errors import InputError, VideoError
from model.runtime.preprocessing import load_image, resize_frames
from model.runtime.video import Frame, Span, VideoReader


def is_photo(path: Path) -> bool:
    """Whether a file is a photo, which counts as a video of one frame."""
    return path.suffix.lower() in IMAGE_EXTENSIONS


def part_shares(count: int, rng: np.random.Generator | None = None) -> NDArray[np.float64]:
    """A random point in each of `count` equal parts of [0, 1], or their middles. → float64 [count]."""
    offsets = 0.5 if rng is None else rng.random(count)
    return (np.arange(count) + offsets) / count


def decode_frames(item: CaptionedVideo, shares: NDArray[np.float64], size: int) -> tuple[Frames, Rows]:
    """The distinct frames of a video at some points of its span.

    Args:
        item: the video.
        shares: the points as shares of the span, not decreasing, float64 [N].
        size: s.

    Returns:
        frames [n, s, s, 3], and for each share the frame that it shows, int64 [N].

    Raises:
        InputError: the file cannot be read; the message gives its name and the reason.
    """
    if is_photo(item.path):
        return resize_frames(load_image(item.path)[None], size), np.zeros(len(shares), np.int64)
    try:
        with VideoReader(item.path, threads=1) as reader:
            span = span_of(item, reader.info.duration_seconds)
            times = span.start_seconds + shares * (span.end_seconds - span.start_seconds)
            frames, slots = _distinct(reader.get_frames_played_at(times.tolist()), size)
    except VideoError as error:
        remedy = "replace the file, or remove it and set data.allow_missing=true"
        raise InputError(f"{error}; {remedy}") from error
    if not frames:
        raise InputError(f"{item.path} is damaged before {times[0]:.1f} s, where its captions begin")
    # Behind the damage of a file, its last frame is repeated.
    slots += [len(frames) - 1] * (len(times) - len(slots))
    return np.stack(frames), np.array(slots, np.int64)


def span_of(item: CaptionedVideo, duration: float) -> Span:
    """The part of the file that the captions describe; `duration` is the file's, in seconds.

    Raises:
        InputError: the part begins after the file ends.
    """
    start, end = item.span_seconds or (0.0, duration)
    if start > duration:
        raise InputError(
            f"{item.path} ends at {duration:.1f} s, its captions describe {start:.1f} to {end:.1f} s: "
            "is it another cut of the video?"
        )
    return Span(start, min(end, duration))


def _distinct(played: Iterable[Frame], size: int) -> tuple[list[Frames], list[int]]:
    frames: list[Frames] = []
    slots: list[int] = []
    last: float | None = None
    for frame in played:
        if frame.pts_seconds != last:
            frames.append(resize_frames(frame.data[None], size)[0])
            last = frame.pts_seconds
        slots.append(len(frames) - 1)
    return frames, slots
