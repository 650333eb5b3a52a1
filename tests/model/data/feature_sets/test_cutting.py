"""Clips of long videos: the rules by hand, and what holds for any lines."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from model.data.feature_sets.cutting import cut_video, home_clip, shift, vectors_of_clip
from model.runtime.timed_text import TimedLine


def test_the_rules_by_hand() -> None:
    """150 vectors of 1.5 s are 225 s: clips of 60, 60, 60 and 45 s."""
    lines = [
        TimedLine(0.0, 2.0, "first"),
        TimedLine(58.0, 61.0, "mostly in clip 0"),
        TimedLine(59.0, 62.0, "mostly in clip 1"),
        TimedLine(119.0, 121.0, "half in clip 1"),
        TimedLine(224.0, 300.0, "beyond the end"),
        TimedLine(225.0, 226.0, "after the end"),
    ]
    found = cut_video(lines, 150, 1.5)
    assert [
        (clip.number, clip.first, clip.count, clip.start_seconds, clip.duration_seconds)
        for clip in found.clips
    ] == [
        (0, 0, 40, 0.0, 60.0),
        (1, 40, 40, 60.0, 60.0),
        (3, 120, 30, 180.0, 45.0),
    ]
    assert [clip.lines for clip in found.clips] == [
        (TimedLine(0.0, 2.0, "first"), TimedLine(58.0, 60.0, "mostly in clip 0")),
        (TimedLine(0.0, 2.0, "mostly in clip 1"), TimedLine(59.0, 60.0, "half in clip 1")),
        (TimedLine(44.0, 45.0, "beyond the end"),),
    ]
    assert (found.without_text, found.too_short, found.lines_outside) == (1, 0, 1)


def test_a_short_rest_is_left_out() -> None:
    lines = [TimedLine(1.0, 2.0, "in"), TimedLine(60.0, 61.0, "rest")]
    found = cut_video(lines, 42, 1.5)
    assert [clip.number for clip in found.clips] == [0]
    assert (found.without_text, found.too_short) == (0, 1)
    assert len(cut_video(lines, 42, 1.5, min_seconds=3.0).clips) == 2


def test_a_line_longer_than_clips_has_one_home() -> None:
    long = TimedLine(10.0, 200.0, "long")
    assert home_clip(long, 60.0) == 1
    found = cut_video([long], 160, 1.5)
    assert [(clip.number, clip.lines) for clip in found.clips] == [(1, (TimedLine(0.0, 60.0, "long"),))]
    assert home_clip(TimedLine(60.0, 60.0, "a point"), 60.0) == 1
    assert shift(TimedLine(5.0, 9.0, "a"), 6.0, 2.0) == TimedLine(0.0, 2.0, "a")


def test_a_clip_holds_whole_vectors() -> None:
    assert [vectors_of_clip(60.0, every) for every in (1.5, 2.0, 0.1, 7.0, 100.0)] == [40, 30, 600, 8, 1]


@pytest.mark.parametrize("seed", range(30))
def test_every_line_has_the_home_that_holds_most_of_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count, every = int(rng.integers(1, 60)), float(rng.choice([1.5, 2.0, 3.5]))
    seconds, end = vectors_of_clip(20.0, every) * every, count * every
    starts = np.sort(rng.uniform(0, 1.2 * end, 12))
    lines = [TimedLine(s, s + float(rng.exponential(8)), str(i)) for i, s in enumerate(starts)]
    found = cut_video(lines, count, every, 20.0, 0.0)
    homes = {line.text: clip.number for clip in found.clips for line in clip.lines}
    for line in lines:
        shares = [
            max(-1.0, min(line.end_seconds, end, (n + 1) * seconds) - max(line.start_seconds, n * seconds))
            for n in range(-(-count // vectors_of_clip(20.0, every)))
        ]
        if line.start_seconds >= end:
            assert line.text not in homes
        else:
            assert homes[line.text] == int(np.argmax(shares))
    assert len(homes) + found.lines_outside == len(lines)
    assert sum(clip.count for clip in found.clips) <= count
    for clip in found.clips:
        assert all(
            0 <= line.start_seconds <= line.end_seconds <= clip.duration_seconds for line in clip.lines
        )
