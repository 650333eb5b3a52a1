"""Sound of videos: when it is heard, what of it is read, and what is not."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from model.runtime.video import ReadingLimits
from model.runtime.video.extent import measure_extent
from model.runtime.video.limits import CpuBudget
from model.runtime.video.sound import RATE, Sound, SoundReader
from tests.support.speech import make_spoken_video, silence
from tests.support.toy_videos import make_video

LIMITS = ReadingLimits()


def beep(seconds: float, hertz: float = 440.0) -> NDArray[np.int16]:
    return (8000 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.int16)


def read(path: Path, limits: ReadingLimits = LIMITS) -> tuple[list[Sound], str | None]:
    reader = SoundReader(path, limits)
    return [part for part in reader.read() if part is not None], reader.damage


def loud_spans(parts: list[Sound]) -> list[tuple[float, float]]:
    """Where it is loud for longer than a tenth of a second, in seconds of the video."""
    spans: list[tuple[float, float]] = []
    for part in parts:
        for place in range(0, len(part.samples) - 160, 160):
            if np.abs(part.samples[place : place + 160]).max() > 2000:
                at = part.start_seconds + place / RATE
                if spans and at - spans[-1][1] < 0.1:
                    spans[-1] = (spans[-1][0], at + 0.01)
                else:
                    spans.append((at, at + 0.01))
    return [span for span in spans if span[1] - span[0] > 0.1]


@pytest.mark.parametrize(
    ("name", "codec", "layout"),
    [
        ("a.mp4", "aac", "mono"),
        ("a.mkv", "libopus", "stereo"),
        ("a.mov", "pcm_s16le", "stereo"),
        ("a.ts", "mp2", "stereo"),
    ],
)
def test_sound_is_heard_when_a_player_plays_it(tmp_path: Path, name: str, codec: str, layout: str) -> None:
    sound = np.concatenate([silence(1.0), beep(0.5), silence(12.0), beep(0.5), silence(0.5)])
    path = make_spoken_video(tmp_path / name, sound, codec=codec, layout=layout)
    parts, damage = read(path)
    assert damage is None
    np.testing.assert_allclose(loud_spans(parts), [(1.0, 1.5), (13.5, 14.0)], atol=0.06)
    ends = [part.start_seconds + len(part.samples) / RATE for part in parts]
    assert all(b.start_seconds >= end - 1e-6 for b, end in zip(parts[1:], ends, strict=False))


@pytest.mark.parametrize("name", ["late.mp4", "late.mkv", "late.ts"])
def test_sound_may_begin_after_the_picture(tmp_path: Path, name: str) -> None:
    path = make_spoken_video(tmp_path / name, beep(1.0), sound_starts=2.5, codec="aac")
    parts, damage = read(path)
    assert damage is None
    np.testing.assert_allclose(loud_spans(parts), [(2.5, 3.5)], atol=0.08)


def test_a_pause_in_the_stream_is_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "gap.mkv"
    with av.open(str(path), "w") as container:
        track = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        assert isinstance(track, av.AudioStream)
        for start in (0, 5 * RATE):
            frame = av.AudioFrame.from_ndarray(beep(1.0)[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
            container.mux(track.encode(frame))
        container.mux(track.encode(None))
    parts, _ = read(path)
    assert [(round(part.start_seconds, 2), len(part.samples)) for part in parts] == [(0.0, RATE), (5.0, RATE)]


def test_where_the_clock_starts_again_sound_stays_with_the_picture(tmp_path: Path) -> None:
    # Two recordings in one transport stream: the second one's times begin again.
    one = make_spoken_video(tmp_path / "1.ts", np.concatenate([silence(1.0), beep(0.5), silence(1.5)]))
    two = make_spoken_video(tmp_path / "2.ts", np.concatenate([silence(2.0), beep(0.5), silence(0.5)]))
    both = tmp_path / "both.ts"
    both.write_bytes(one.read_bytes() + two.read_bytes())
    parts, _ = read(both)
    np.testing.assert_allclose(loud_spans(parts), [(1.0, 1.5), (5.0, 5.5)], atol=0.25)


def test_a_video_without_sound_gives_none(tmp_path: Path) -> None:
    assert read(make_video(tmp_path / "silent.mp4")) == ([], None)


def test_what_is_around_damaged_sound_is_read(tmp_path: Path) -> None:
    path = make_spoken_video(
        tmp_path / "a.mkv",
        np.concatenate([beep(1.0), silence(4.0), beep(1.0)]),
        codec="libopus",
        layout="mono",
    )
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(audio=0) if p.size and p.pos is not None]
    for pos, size in places[len(places) // 3 : len(places) // 2]:
        data[pos : pos + size + 8] = b"\xff" * (size + 8)
    path.write_bytes(data)
    parts, _ = read(path)
    spans = loud_spans(parts)
    np.testing.assert_allclose(spans[0], (0.0, 1.0), atol=0.08)
    np.testing.assert_allclose(spans[-1], (5.0, 6.0), atol=0.08)


def test_the_default_stream_is_read(tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        tracks = [container.add_stream("pcm_s16le", rate=RATE, layout="mono") for _ in range(3)]
        kinds = av.stream.Disposition
        # For people who cannot see the picture, and by default; an ordinary one; and the default one.
        dispositions = (kinds.visual_impaired | kinds.default, kinds(0), kinds.default)
        for track, disposition in zip(tracks, dispositions, strict=True):
            track.disposition = disposition
        for track, seconds in zip(tracks, (1.0, 2.0, 3.0), strict=True):
            assert isinstance(track, av.AudioStream)
            frame = av.AudioFrame.from_ndarray(beep(seconds)[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
            container.mux(track.encode(frame))
            container.mux(track.encode(None))
    parts, _ = read(path)
    assert sum(len(part.samples) for part in parts) == 3 * RATE


def test_reading_ends_at_the_limits(tmp_path: Path) -> None:
    path = make_spoken_video(tmp_path / "a.mp4", beep(30.0))
    parts, damage = read(path, ReadingLimits(max_hours=10 / 3600))
    assert 10 <= sum(len(part.samples) for part in parts) / RATE <= 12
    assert damage is not None
    assert "--max-hours" in damage
    parts, damage = read(path, ReadingLimits(cpu_seconds=1e-6, cpu_seconds_per_megabyte=0))
    assert parts == []
    assert damage is not None
    assert "--cpu-seconds" in damage


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "aac"), ("a.mkv", "flac"), ("a.mov", "pcm_s16le"), ("a.avi", "mp3"), ("a.ts", "mp2")],
)
def test_sound_from_a_time_on_is_that_of_the_whole(tmp_path: Path, name: str, codec: str) -> None:
    sound = np.concatenate([beep(4.0, 300), silence(4.0), beep(4.0, 700), silence(4.0), beep(4.0, 500)])
    path = make_spoken_video(tmp_path / name, sound, codec=codec, layout="stereo")
    extent = measure_extent(path, LIMITS, CpuBudget(LIMITS, path))
    whole = _track([part for part in SoundReader(path, LIMITS, rate=48000, channels=2).read() if part])
    for start in (0.3, 6.5, 13.21, 19.9):
        reader = SoundReader(
            path, LIMITS, rate=48000, channels=2, start_seconds=start, extent=extent, part_seconds=0.5
        )
        parts = [part for part in reader.read() if part is not None]
        assert parts[0].start_seconds == pytest.approx(start, abs=1e-3)
        assert all(len(part.samples) <= 24000 for part in parts)
        # What was decoded before differs a little at first.
        difference = _track(parts)[round((start + 0.1) * 48000) :].astype(int)
        difference -= whole[round((start + 0.1) * 48000) :][: len(difference)]
        assert np.abs(difference).max(initial=0) <= 300


def _track(parts: list[Sound]) -> NDArray[np.int16]:
    """All parts of a sound of two channels, at their times."""
    track = np.zeros((25 * 48000, 2), np.int16)
    for part in parts:
        first = round(part.start_seconds * 48000)
        track[first : first + len(part.samples)] = part.samples
    return track


def test_sound_from_a_time_on_where_the_clock_starts_again(tmp_path: Path) -> None:
    parts = [
        make_spoken_video(tmp_path / f"{i}.ts", np.concatenate([silence(1.0), beep(1.0)]), codec="mp2")
        for i in range(2)
    ]
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    reader = SoundReader(path, LIMITS, start_seconds=1.5)
    found = [part for part in reader.read() if part is not None]
    np.testing.assert_allclose(loud_spans(found), [(1.5, 2.0), (3.0, 4.0)], atol=0.1)
