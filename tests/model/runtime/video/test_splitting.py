"""Readers of the spans of a video give together what one reader of all of it gives."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from model.runtime.video import FrameBatch, Segment, Span, VideoReader, demux
from model.runtime.video.splitting import VideoSpan, count_spans, parts_of_span
from model.runtime.video.stills import join_stills
from tests.support.clips import Clips, clips
from tests.support.packets import mux_pictures, picture
from tests.support.toy_videos import make_video

__all__ = ["clips"]
#: Six parts of one picture are a still.
PART_SECONDS = 100.0
#: Of clips of 3 to 5 seconds.
SEGMENT_SECONDS, SPAN_SECONDS = 0.2, 0.6
CUT = [
    "variable",
    "variable_mkv",
    "long_pauses",
    "edit_list",
    "late_video_mkv",
    "no_duration",
    "fragments",
    "one_key_frame",
    "all_key_frames_mkv",
    "b_frames",
    "open_gop",
    "open_gop_mkv",
]
#: They have no key frame ahead, or do not say how long they are.
READ_ON = ["long_pauses", "no_duration", "one_key_frame"]


class Described(NamedTuple):
    """All of a segment, to be compared."""

    number: int
    span: Span
    pts_seconds: list[float]
    duration_seconds: list[float]
    pixels: bytes


@pytest.mark.parametrize(
    ("num_parts", "part_seconds", "span_seconds", "count"),
    [
        (1, 30.0, 1800.0, 1),
        (60, 30.0, 1800.0, 1),
        (61, 30.0, 1800.0, 2),
        (337, 32.0, 1800.0, 7),
        (60, 32.0, 31.0, 60),
        # One frame that lasts no time.
        (1, 0.0, 1800.0, 1),
    ],
)
def test_a_video_is_cut_into_the_fewest_spans(
    num_parts: int, part_seconds: float, span_seconds: float, count: int
) -> None:
    assert count_spans(num_parts, part_seconds, span_seconds) == count
    edges = [VideoSpan(number, count).nominal(num_parts) for number in range(count)]
    assert [start for start, _ in edges] == [0, *(end for _, end in edges[:-1])]
    assert edges[-1][1] == num_parts
    assert max(end - start for start, end in edges) <= max(1, span_seconds / max(part_seconds, 1e-9) + 1e-6)


def test_there_is_no_span_beyond_the_last() -> None:
    with pytest.raises(ValueError, match="there is no span 3 of 3"):
        VideoSpan(3, 3)


@pytest.mark.parametrize("seed", range(4))
def test_spans_of_any_pictures_give_the_segments_of_the_whole(seed: int) -> None:
    """Pictures that move, stand still, drift below what shows, last, and follow each other in all ways."""
    random = np.random.default_rng(seed)
    for _ in range(50):
        parts = make_parts(random, count=int(random.integers(1, 90)))
        expected = described(join_stills(iter(parts), PART_SECONDS))
        count = int(random.integers(1, min(len(parts), 9) + 1))
        found = []
        for number in range(count):
            span = VideoSpan(number, count)
            start, following = span.nominal(len(parts))
            next_index = None if span.is_last else parts[following].index
            of_span = parts_of_span(iter(parts[start:]), number > 0, next_index, PART_SECONDS)
            found += described(join_stills(of_span, PART_SECONDS))
        assert found == expected


def make_parts(random: np.random.Generator, count: int) -> list[Segment]:
    """Parts of random scenes; some are missing."""
    parts: list[Segment] = []
    level, lasting, moving = 100, False, False
    for index in range(count):
        if random.random() < 0.15:
            lasting, moving = random.random() < 0.3, random.random() < 0.4
            level = int(random.choice([100, 101, 140, 200]))
        if random.random() < 0.1:
            continue
        size = int(random.integers(1, 4))
        data = np.full((size, 8, 8, 3), level, np.uint8)
        # Too little to show: two such pictures look like a third one, and not like each other.
        data[:, 0, 0] = level + random.choice([-30, 0, 30], size=(size, 1))
        if moving and not lasting:
            data[1:] += random.choice([0, 1, 2, 50], size=(size - 1, 1, 1, 1)).astype(np.uint8)
        if lasting and size == 2 and random.random() < 0.5:
            level = int(random.choice([100, 101, 200]))
            data[1] = level
        start = index * PART_SECONDS
        pts = start + np.arange(size) * PART_SECONDS / size
        durations = np.full(size, 3 * PART_SECONDS if lasting else 1.0)
        parts.append(Segment(index, Span(start, start + PART_SECONDS), FrameBatch(data, pts, durations)))
    return parts or [
        Segment(0, Span(0, 1), FrameBatch(np.zeros((1, 4, 4, 3), np.uint8), np.zeros(1), np.ones(1)))
    ]


def described(segments: Iterator[Segment | None]) -> list[Described]:
    return [
        Described(
            segment.index,
            segment.span,
            segment.frames.pts_seconds.tolist(),
            segment.frames.duration_seconds.tolist(),
            segment.frames.data.tobytes(),
        )
        for segment in segments
        if segment is not None
    ]


@pytest.mark.parametrize("will_seek", [False, True], ids=["read on", "seek"])
@pytest.mark.parametrize("name", CUT)
def test_spans_of_a_clip_give_the_segments_of_the_whole(
    name: str, will_seek: bool, clips: Clips, monkeypatch: pytest.MonkeyPatch
) -> None:
    if will_seek:
        for constant in ("SEEK_BYTES_WITH_INDEX", "SEEK_BYTES_WITHOUT_INDEX", "LONG_KEY_GAP_SECONDS"):
            monkeypatch.setattr(demux, constant, 0)
    seeks = []
    seek = demux.PacketSource.seek

    def counted(source: demux.PacketSource, ticks: int) -> bool:
        seeks.append(ticks)
        return seek(source, ticks)

    monkeypatch.setattr(demux.PacketSource, "seek", counted)
    check_spans(clips(name), least=4)
    assert bool(seeks) == (will_seek and name not in READ_ON)


@pytest.mark.parametrize("name", ["offset", "no_times"])
def test_a_video_without_an_end_in_its_header_is_not_cut(name: str, clips: Clips) -> None:
    with VideoReader(clips(name)) as reader:
        assert reader.num_spans(SEGMENT_SECONDS, SPAN_SECONDS) == 1


def test_a_still_of_half_an_hour_over_all_cuts_is_one_segment(tmp_path: Path) -> None:
    moving = [("red", 2.0), ("blue", 2.0)] * 20
    film = make_video(tmp_path / "film.mkv", parts=[*moving, ("green", 1800.0), *moving], fps=1)
    segments = check_spans(film, least=10, segment_seconds=32.0, span_seconds=160.0)
    assert [len(segment.pts_seconds) for segment in segments].count(1) == 1


def test_slides_that_stay_longer_than_a_segment_are_cut_nowhere_else(tmp_path: Path) -> None:
    slides = [picture("PNG", (32, 32), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    film = mux_pictures(tmp_path / "slides.mov", "PNG", slides * 3, Fraction(90))
    segments = check_spans(film, least=3, segment_seconds=32.0, span_seconds=160.0)
    assert len(segments) == 9


def check_spans(
    path: Path, *, least: int, segment_seconds: float = SEGMENT_SECONDS, span_seconds: float = SPAN_SECONDS
) -> list[Described]:
    """Check that the spans of a video, `least` at least, give the segments of the whole, and return them."""
    whole, found, are_exact = read_spans(path, segment_seconds, span_seconds)
    assert len(are_exact) >= least
    assert all(are_exact)
    assert found == whole
    return whole


def read_spans(
    path: Path, segment_seconds: float, span_seconds: float
) -> tuple[list[Described], list[Described], list[bool]]:
    """The segments of the whole, those of all spans, and whether each span is exact."""
    with VideoReader(path) as reader:
        count = reader.num_spans(segment_seconds, span_seconds)
        whole = described(reader.steps(segment_seconds, 4))
    found: list[Described] = []
    are_exact = []
    for number in range(count):
        with VideoReader(path) as reader:
            found += described(reader.steps(segment_seconds, 4, VideoSpan(number, count)))
            are_exact.append(reader.is_exact)
    return whole, found, are_exact


@pytest.mark.parametrize("extension", ["mkv", "mp4"])
def test_spans_of_damaged_videos_that_are_exact_give_the_segments_of_the_whole(
    extension: str, tmp_path: Path
) -> None:
    moving = [("red", 3.0), ("blue", 3.0), ("green", 3.0)] * 24
    film = make_video(tmp_path / f"film.{extension}", parts=moving, fps=1)
    exact: list[bool] = []
    for size, filling in ((20, 255), (150, 0), (400, 85)):
        data = bytearray(film.read_bytes())
        place = len(data) * 5 // 8
        data[place : place + size] = bytes([filling]) * size
        damaged = tmp_path / f"{size}.{extension}"
        damaged.write_bytes(data)
        whole, found, are_exact = read_spans(damaged, 16.0, 64.0)
        exact.append(all(are_exact))
        assert len(are_exact) == 4
        assert found == whole or not exact[-1]
    assert not all(exact)
