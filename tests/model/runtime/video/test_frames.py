"""Every sampled frame is the one that the ffmpeg program shows at that time: same time, same pixels.

Tolerance: a difference of 0 was measured on all clips, with FFmpeg 8 in PyAV and 9 in the program; 2 of 255
are allowed for other versions of the scaler.
"""

from pathlib import Path

import numpy as np
import pytest

from model.runtime.video import demux
from model.runtime.video.pyav_decoder import PyavDecoder, Route
from model.runtime.video.types import Frame
from tests.support.clips import CLIPS, Clips, Reference, clips, reference

__all__ = ["clips"]
PIXEL_TOLERANCE = 2
TIME_TOLERANCE = 0.0011  # Matroska and FLV keep milliseconds


def check(
    path: Path, expected: Reference, times: list[float], route: Route, max_side: int | None = None
) -> None:
    decoder = PyavDecoder(path, max_side, route=route)
    try:
        frames = list(decoder.get_frames_played_at(times))
        assert decoder.damage is None
    finally:
        decoder.close()
    assert len(frames) == len(times)
    compared: dict[int, Frame] = {}
    for time, frame in zip(times, frames, strict=True):
        index = expected.at(time)
        if compared.get(index) is frame:
            continue
        compared[index] = frame
        assert frame.pts_seconds == pytest.approx(expected.times[index], abs=TIME_TOLERANCE)
        difference = np.abs(frame.data.astype(np.int16) - expected.frames[index])
        assert difference.max() <= PIXEL_TOLERANCE, f"at {time:.3f} s"
        if index + 1 < len(expected.times):
            stays = expected.times[index + 1] - expected.times[index]
            assert frame.duration_seconds == pytest.approx(stays, abs=2 * TIME_TOLERANCE)


def size_of(path: Path, max_side: int | None = None) -> tuple[tuple[int, int], float]:
    decoder = PyavDecoder(path, max_side)
    [frame] = decoder.get_frames_played_at([0.0])
    decoder.close()
    return (frame.data.shape[1], frame.data.shape[0]), decoder.info.duration_seconds


@pytest.mark.parametrize("name", CLIPS)
def test_frames_are_those_of_the_ffmpeg_program(name: str, clips: Clips) -> None:
    path = clips(name)
    size, duration = size_of(path)
    expected = reference(path, size, CLIPS[name].siting)
    changes = np.abs(np.diff(expected.frames.astype(np.int16), axis=0)).max(axis=(1, 2, 3))
    assert (changes > 4 * PIXEL_TOLERANCE).all(), "neighbours must be told apart"
    assert duration == pytest.approx(expected.times[-1] + 1 / CLIPS[name].rate, abs=0.1)
    sparse = np.linspace(0, duration, 17).tolist()
    dense = np.linspace(0, duration + 0.2, 3 * len(expected.times)).tolist()
    check(path, expected, dense, "auto")
    check(path, expected, dense, "read")
    check(path, expected, sparse, "auto")
    check(path, expected, sparse, "seek")


@pytest.mark.parametrize(
    ("name", "size"),
    [("b_frames", (64, 48)), ("hevc_10", (64, 48)), ("wide_pixels", (64, 32)), ("odd_size", (33, 25))],
)
def test_frames_are_scaled_like_those_of_the_ffmpeg_program(
    name: str, size: tuple[int, int], clips: Clips
) -> None:
    path = clips(name)
    longer = max(size)
    found, duration = size_of(path, longer)
    assert found == size
    check(
        path, reference(path, size, CLIPS[name].siting), np.linspace(0, duration, 9).tolist(), "auto", longer
    )


@pytest.mark.parametrize(
    "name", ["all_key_frames", "all_key_frames_mkv", "all_key_frames_ts", "open_gop", "hevc", "prores"]
)
def test_frames_are_the_same_when_bytes_make_it_seek(
    name: str, clips: Clips, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real files seek where that passes over megabytes; these are small, so the limits are taken away."""
    monkeypatch.setattr(demux, "SEEK_BYTES_WITH_INDEX", 0)
    monkeypatch.setattr(demux, "SEEK_BYTES_WITHOUT_INDEX", 0)
    seeks: list[int] = []
    seek = demux.PacketSource.seek

    def counted(source: demux.PacketSource, ticks: int) -> bool:
        seeks.append(ticks)
        return seek(source, ticks)

    monkeypatch.setattr(demux.PacketSource, "seek", counted)
    path = clips(name)
    size, duration = size_of(path)
    times = [0.1 * duration, 0.5 * duration, 0.52 * duration, 0.97 * duration]
    check(path, reference(path, size, CLIPS[name].siting), times, "auto")
    assert len(seeks) >= 2
