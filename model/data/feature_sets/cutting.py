"""Cuts long videos into clips with their timed text, the items of pre-training (FEEL: clips of 60 s).

The rules:
- A clip holds as many whole vectors as fit `clip_seconds`. The first clip begins with the video, each other
  one where the one before it ends; the last one may be shorter.
- A line belongs to one clip: to the one that holds most of it, of equal ones to the earlier one. Its times
  are counted from the clip's start and limited to the clip.
- Lines that begin after the last vector are left out, and so are clips without a line, and clips that are
  shorter than `min_seconds`. All are counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from model.runtime.timed_text import TimedLine

# Lengths such as 60 / 1.5 are whole numbers but for rounding.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Clip:
    """A part of a video: vectors [first, first + count) and the lines in it, timed from the clip's start."""

    number: int
    first: int
    count: int
    start_seconds: float
    duration_seconds: float
    lines: tuple[TimedLine, ...]


@dataclass(frozen=True)
class CutVideo:
    """The clips of one video, and what was left out: clips without text, short ones, lines after the end."""

    clips: tuple[Clip, ...]
    without_text: int = 0
    too_short: int = 0
    lines_outside: int = 0


def vectors_of_clip(clip_seconds: float, every_seconds: float) -> int:
    """How many whole vectors fit a clip, at least one."""
    return max(1, int(clip_seconds / every_seconds + _ROUNDING))


def cut_video(
    lines: Sequence[TimedLine],
    count: int,
    every_seconds: float,
    clip_seconds: float = 60.0,
    min_seconds: float = 5.0,
) -> CutVideo:
    """Cut a video into clips; see the rules above.

    Args:
        lines: what is said in the video, timed from its start.
        count: the number of its vectors.
        every_seconds: the seconds of one vector.
        clip_seconds: the longest clip.
        min_seconds: the shortest clip.
    """
    step = vectors_of_clip(clip_seconds, every_seconds)
    seconds, end = step * every_seconds, count * every_seconds
    groups: list[list[TimedLine]] = [[] for _ in range(0, count, step)]
    outside = 0
    for line in lines:
        if line.start_seconds >= end:
            outside += 1
        else:
            groups[home_clip(line, seconds, end)].append(line)
    clips: list[Clip] = []
    without_text = too_short = 0
    for number, group in enumerate(groups):
        size = min(step, count - number * step)
        start, length = number * seconds, size * every_seconds
        if length < min_seconds - _ROUNDING:
            too_short += 1
        elif not group:
            without_text += 1
        else:
            inside = tuple(shift(line, start, length) for line in group)
            clips.append(Clip(number, number * step, size, start, length, inside))
    return CutVideo(tuple(clips), without_text, too_short, outside)


def home_clip(line: TimedLine, clip_seconds: float, end_seconds: float = math.inf) -> int:
    """The number of the clip that holds most of a line, of equal ones the first.

    Args:
        line: begins before the end.
        clip_seconds: the length of every clip but the last.
        end_seconds: where the video ends.
    """
    first, until = int(line.start_seconds / clip_seconds), min(line.end_seconds, end_seconds)
    best, most = first, -1.0
    number = first
    while number == first or number * clip_seconds < until:
        start = max(line.start_seconds, number * clip_seconds)
        held = min(until, (number + 1) * clip_seconds) - start
        if held > most:
            best, most = number, held
        number += 1
    return best


def shift(line: TimedLine, start: float, length: float = math.inf) -> TimedLine:
    """A line with its times counted from `start`, and limited to 0 and to `length`."""
    first = min(max(0.0, line.start_seconds - start), length)
    return TimedLine(first, max(first, min(length, line.end_seconds - start)), line.text)
