"""Every frame from a time on, compared with the frames that the ffmpeg program and `PyavDecoder` show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model.runtime.errors import VideoError
from model.runtime.video import ReadingLimits
from model.runtime.video.limits import CpuBudget
from model.runtime.video.onward import OnwardReader, extent_of
from model.runtime.video.pyav_decoder import PyavDecoder
from model.runtime.video.render import Renderer
from tests.support.clips import Clips, clips, ffmpeg, reference
from tests.support.paths import ROOT

__all__ = ["clips"]
pytestmark = pytest.mark.slow
LIMITS = ReadingLimits()
NAMES = (
    *("constant", "variable", "variable_mkv", "long_pauses", "offset", "edit_list", "late_video_mkv"),
    *("long_audio", "no_times", "no_duration", "fragments", "one_frame", "one_key_frame", "b_frames"),
    *("open_gop", "open_gop_ts", "open_gop_mkv", "intra_refresh", "fields", "rotated_90", "hevc_layers"),
    *("vp9", "mpeg4_avi", "mpeg2_ps", "flv", "mjpeg", "gif"),
)


def read(path: Path, start: float, known: float) -> tuple[list[float], list[NDArray[np.uint8]]]:
    """Times and pictures from a time on."""
    reader = OnwardReader(path, LIMITS, known)
    times, pictures = [], []
    renderer: Renderer | None = None
    for frame in reader.frames(start):
        if renderer is None:
            renderer = Renderer(frame.image, reader.stream.sample_aspect_ratio, None, reader.header)
        times.append(frame.pts_seconds)
        pictures.append(renderer(frame.image))
    reader.close()
    return times, pictures


@pytest.mark.parametrize("name", NAMES)
def test_the_frames_are_those_that_are_shown(name: str, clips: Clips) -> None:
    path = clips(name)
    decoder = PyavDecoder(path, None)
    end = decoder.end_seconds
    expected = reference(path, decoder.renderer.output_size)
    for start in (0.0, 0.45 * end, end - 0.05, end + 5):
        times, pictures = read(path, start, end)
        np.testing.assert_allclose(times, expected.times[expected.at(start) :], atol=1e-3)
        shown = list(decoder.get_frames_played_at([time + 1e-4 for time in times]))
        assert all(
            np.array_equal(frame.data, picture) for frame, picture in zip(shown, pictures, strict=True)
        )
    decoder.close()


@pytest.mark.parametrize("extension", ["ts", "mkv"])
def test_a_clock_that_starts_again(extension: str, tmp_path: Path) -> None:
    parts = []
    for number, hue in enumerate((0, 90)):
        part = tmp_path / f"{number}.{extension}"
        source = f"testsrc2=size=96x72:rate=25:duration=2,hue=h={hue}"
        ffmpeg("-f", "lavfi", "-i", source, "-c:v", "libx264", "-g", "10", str(part))
        parts.append(part)
    path = tmp_path / f"both.{extension}"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    decoder = PyavDecoder(path, None)
    times, pictures = read(path, 3.0, decoder.end_seconds)
    assert len(times) == 25
    shown = decoder.get_frames_played_at([time + 1e-3 for time in times])
    assert all(np.array_equal(frame.data, picture) for frame, picture in zip(shown, pictures, strict=True))
    decoder.close()


def test_a_transport_stream_of_the_known_length_is_not_read_through(clips: Clips) -> None:
    path = clips("open_gop_ts")
    decoder = PyavDecoder(path, None)
    decoder.close()
    spent = CpuBudget(ReadingLimits(cpu_seconds=0, cpu_seconds_per_megabyte=0), path)
    with spent.counting():
        # Reading its packets would use the budget up and say so.
        assert extent_of(path, LIMITS, spent, decoder.end_seconds).damage is None
        assert extent_of(path, LIMITS, spent, decoder.end_seconds + 2).damage is not None


def test_what_is_damaged_is_left_out(tmp_path: Path) -> None:
    whole = (ROOT / "tests/fuzz/seeds/mpeg2_mp2.ts").read_bytes()
    path = tmp_path / "damaged.ts"
    path.write_bytes(whole[:4000] + b"\xff" * 3000 + whole[7000:])
    times, _ = read(path, 0.0, 0.0)
    assert times
    assert times == sorted(set(times))
    path.write_bytes(b"\x00\x00\x00\x18ftypmp42" + bytes(500))
    with pytest.raises(VideoError):
        read(path, 0.0, 0.0)
