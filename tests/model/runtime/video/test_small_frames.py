"""All frames of a video, very small: every one of them, at its time."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from model.runtime.errors import VideoError
from model.runtime.video import ReadingLimits
from model.runtime.video.small_frames import SMALL_SIZE, SmallFrameReader, SmallFrames
from tests.support.toy_bundle import COLOURS
from tests.support.toy_videos import make_audio, make_video

LIMITS = ReadingLimits()


def read(path: Path, limits: ReadingLimits = LIMITS) -> tuple[list[SmallFrames], str | None]:
    reader = SmallFrameReader(path, limits)
    return [part for part in reader.read() if part is not None], reader.damage


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mpeg4")])
def test_every_frame_comes_once_at_its_time(tmp_path: Path, name: str, codec: str) -> None:
    seconds = (("red", 4.0), ("blue", 7.2), ("green", 2.0))
    path = make_video(tmp_path / name, parts=seconds, fps=25, codec=codec)
    parts, damage = read(path)
    assert damage is None
    times = np.concatenate([part.pts_seconds for part in parts])
    frames = np.concatenate([part.data for part in parts])
    np.testing.assert_allclose(times, np.arange(330) / 25, atol=1e-3)
    assert frames.shape == (330, SMALL_SIZE[1], SMALL_SIZE[0], 3)
    for colour, first, last in (("red", 0, 99), ("blue", 100, 279), ("green", 280, 329)):
        middle = frames[[first, last]].mean(axis=(1, 2))
        np.testing.assert_allclose(middle, [COLOURS[colour]] * 2, atol=12)
    assert [part.end_seconds for part in parts[:-1]] == [part.pts_seconds[0] for part in parts[1:]]
    assert parts[-1].end_seconds == pytest.approx(13.2, abs=0.05)


def test_a_turned_picture_is_upright(tmp_path: Path) -> None:
    # Red above blue as stored; turned by a quarter it is red beside blue.
    path = tmp_path / "turned.mp4"
    pixels = np.zeros((64, 48, 3), np.uint8)
    pixels[:32, :, 0], pixels[32:, :, 2] = 255, 255
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 48, 64, "yuv420p"
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    data = path.read_bytes()
    upright = bytes.fromhex("00010000000000000000000000000000000100000000000000000000000000004000 0000")
    turned = bytes.fromhex(
        "00000000000100000000000 0ffff0000000000000000000000000000000000004000 0000".replace(" ", "")
    )
    assert data.count(upright) >= 1
    # The last matrix is the track's.
    place = data.rindex(upright)
    path.write_bytes(data[:place] + turned + data[place + 36 :])
    (part,), _ = read(path)
    left, right = part.data[0, :, :20].mean(axis=(0, 1)), part.data[0, :, -20:].mean(axis=(0, 1))
    assert part.data.shape[1:] == (27, 48, 3)
    assert {int(left.argmax()), int(right.argmax())} == {0, 2}


def test_damaged_videos_are_read_as_far_as_they_go(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mkv", parts=[("red", 20.0)], fps=25, size=(320, 240))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    parts, damage = read(path)
    count = sum(len(part.pts_seconds) for part in parts)
    assert 100 < count < 500
    assert damage is not None


def test_limits_and_files_without_pictures(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", parts=[("red", 3.0)])
    parts, damage = read(path, ReadingLimits(max_hours=1 / 3600))
    assert max(part.pts_seconds.max() for part in parts) <= 1.0
    assert damage is not None
    assert "--max-hours" in damage
    with pytest.raises(VideoError, match="audio only"):
        read(make_audio(tmp_path / "a.m4a"))
