"""Clips, copied and encoded, decoded and compared with the films in time, picture and sound."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.runtime.video import ReadingLimits, VideoReader, probe
from model.runtime.video.onward import OnwardReader
from service.playback.cutting import TOLERANCE_SECONDS, Packet, Part, choose_part, copy_clip
from service.playback.encoding import encode
from service.playback.jobs import ClipJob
from tests.support.flashes import FILMS, Films, decode, films
from tests.support.toy_videos import make_video

__all__ = ["films"]
pytestmark = pytest.mark.slow
LIMITS = ReadingLimits()
#: Film; start and end; whether it is copied.
CLIPS = [
    ("h264", 0.0, 1.0, True),
    ("h264", 1.0, 3.0, True),
    ("h264", 1.03, 2.97, True),  # shown at the start is the picture of second 1
    ("h264", 2.0, 100.0, True),  # to the end
    ("h264", 1.2, 2.0, False),  # begins with another picture
    ("h264", 1.0, 2.1, False),  # pictures of the clip are decoded after later ones
    ("h264 in mkv", 1.0, 3.0, True),
    ("h264 in ts", 1.022, 3.021, True),
    ("h264 in flv", 1.022, 3.021, True),
    ("h264 turned", 1.0, 2.0, True),
    ("h264 of wide pixels", 1.0, 2.0, True),
    ("vp9 in webm", 1.0, 3.0, True),
    ("flac", 0.0, 1.2, True),
    ("open groups", 1.0, 2.0, False),
    ("hevc", 0.0, 2.0, False),
    ("avi", 1.5, 3.0, False),
    ("pauses", 1.0, 2.5, False),  # the picture at the start has stood there too long
    ("late", 0.5, 3.0, False),
    ("longer sound", 1.0, 3.5, False),
    ("without sound", 1.0, 2.0, False),
    ("variable", 0.9, 2.2, False),
    ("interlaced", 0.5, 1.5, False),
]


def cut(path: Path, start: float, end: float, folder: Path) -> tuple[Path, bool]:
    """A clip, and whether it was copied."""
    made = folder / "clip.mp4"
    job = ClipJob(start, min(end, 4.0 if end == 100 else end), probe(path).duration_seconds, 1080)
    with made.open("w+b") as file:
        copied = copy_clip(path, job, LIMITS, file)
        if not copied:
            file.seek(0)
            encode(path, job, LIMITS, 1, file, lambda _: None)
            file.truncate()
    return made, copied


@pytest.mark.parametrize(("name", "start", "end", "is_copied"), CLIPS)
def test_a_clip_is_that_part_of_the_film(
    name: str, start: float, end: float, is_copied: bool, films: Films, tmp_path: Path
) -> None:
    path, film = films(name), FILMS[name]
    made, copied = cut(path, start, end, tmp_path)
    assert copied is is_copied
    reader = OnwardReader(path, LIMITS)
    times = [frame.pts_seconds for frame in reader.frames(start) if frame.pts_seconds < end - 1e-6]
    reader.close()
    begins = max(0.0, times[0]) if copied else start
    assert start - begins <= TOLERANCE_SECONDS
    with VideoReader(path, max_side=None) as original, VideoReader(made, max_side=None) as clip:
        assert (clip.info.width, clip.info.height) == (original.info.width, original.info.height)
        assert clip.info.duration_seconds == pytest.approx(
            min(end, original.info.duration_seconds) - begins, abs=0.045
        )
        frames = list(OnwardReader(made, LIMITS).frames())
        np.testing.assert_allclose(
            [frame.pts_seconds for frame in frames], [0.0, *(time - begins for time in times[1:])], atol=1e-3
        )
        picked = np.array(times)[::5]
        shown = clip.get_frames_played_at(np.maximum(0, picked - begins + 2e-3).tolist())
        for frame, expected in zip(
            shown, original.get_frames_played_at((picked + 1e-4).tolist()), strict=True
        ):
            difference = np.abs(frame.data.astype(int) - expected.data)
            assert difference.mean() < (1 if copied else 8)
    _check_sound(made, film.sound_seconds or film.seconds if film.sound else 0.0, begins, end, name)


def _check_sound(made: Path, sound_seconds: float, begins: float, end: float, name: str) -> None:
    decoded = decode(made)
    if not sound_seconds:
        assert decoded.sound is None
        return
    late = {"h264 in ts": 0.021, "h264 in flv": 0.021, "avi": 0.023, "interlaced": 0.005}.get(name, 0.0)
    tones = [second + late - begins for second in np.arange(0, sound_seconds)]
    # A copy may hold the first milliseconds of a tone at its end, and begin 30 ms into one.
    heard = [tone for tone in decoded.tones() if tone < end - begins - 0.03]
    expected = [tone for tone in tones if -0.005 <= tone < end - begins - 0.03]
    assert len(heard) == len(expected)
    np.testing.assert_allclose(heard, expected, atol=0.03)
    assert decoded.sound is not None
    assert len(decoded.sound) / 48000 == pytest.approx(min(end, max(sound_seconds, 4.0)) - begins, abs=0.06)


def test_a_clip_of_one_picture(tmp_path: Path) -> None:
    path = make_video(tmp_path / "film.mp4", parts=[("red", 1.0), ("blue", 1.0)], fps=4, audio=True)
    for start, end in ((0.0, 0.1), (0.99, 1.01)):
        made, _ = cut(path, start, end, tmp_path)
        with VideoReader(made) as clip:
            assert clip.info.duration_seconds == pytest.approx(end - start, abs=0.25)
            assert next(iter(clip.get_frames_played_at([0.0]))).data[0, 0, 0] > 150


@st.composite
def groups(draw: st.DrawFn) -> list[Packet]:
    """Packets in the order of a file: groups that begin with a picture that needs no other, in any order."""
    packets: list[Packet] = []
    time = draw(st.integers(0, 3))
    for _ in range(draw(st.integers(1, 4))):
        times = [time]
        for _ in range(draw(st.integers(0, 4))):
            times.append(times[-1] + draw(st.integers(1, 3)))
        time = times[-1] + draw(st.integers(1, 3))
        order = [times[0], *draw(st.permutations(times[1:]))]
        packets += [Packet(each, number == 0, is_good=True) for number, each in enumerate(order)]
    return packets


@settings(max_examples=400, deadline=None)
@given(packets=groups(), start=st.integers(0, 30), length=st.integers(1, 20))
def test_any_part_is_one_whose_pictures_are_those_of_the_clip(
    packets: list[Packet], start: int, length: int
) -> None:
    times = [packet.pts or 0 for packet in packets]
    shown = max((time for time in times if time <= start), default=None)
    wanted = {time for time in times if shown is not None and shown <= time < start + length}
    # Naively: any packets that follow each other, begin with one that needs no other, and show just that.
    found: list[Part | None] = [
        Part(first, tuple(times[first:last]), min(times[last:], default=None))
        for first in range(len(times))
        for last in range(first + 1, len(times) + 1)
        if shown is not None and packets[first].starts and set(times[first:last]) == wanted
    ]
    part = choose_part(packets, start, start + length)
    assert [part] == (found or [None])
    if part is not None:
        decoded = part.decoding_times
        assert all(one < other for one, other in pairwise(decoded))
        assert all(time <= shown for time, shown in zip(decoded, part.times, strict=True))


def test_packets_that_are_damaged_hidden_or_without_a_time_are_not_copied() -> None:
    good = [Packet(time, time == 0, is_good=True) for time in range(5)]
    assert choose_part(good, 0, 3) == Part(0, (0, 1, 2), 3)
    for bad in (Packet(2, False, is_good=False), Packet(None, False, is_good=True)):
        assert choose_part([*good[:2], bad, *good[3:]], 0, 3) is None
    assert choose_part([], 0, 3) is None
