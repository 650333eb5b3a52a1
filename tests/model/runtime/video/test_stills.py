"""A picture that stands still is one segment; everything that moves is cut as ever.

Expected: the plain plan, with the frames played at its times; and arithmetic.
"""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from model.runtime.video import Segment, VideoReader, middle_times, plan_segments
from model.runtime.video.stills import look_same
from tests.support.clips import ffmpeg
from tests.support.packets import mux_pictures, picture

FAST = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")


def make(path: Path, source: str, *options: str) -> Path:
    ffmpeg("-f", "lavfi", "-i", source, *(options or FAST), str(path))
    return path


def read(path: Path) -> list[Segment]:
    with VideoReader(path) as reader:
        segments = list(reader.segments())
        assert reader.damage is None
    for before, after in pairwise(segments):
        assert before.span.end_seconds == pytest.approx(after.span.start_seconds)
        assert before.index < after.index
    return segments


def check_planned(path: Path, *, atol: int = 0) -> None:
    """The segments are those of the plain plan."""
    segments = read(path)
    with VideoReader(path) as reader:
        spans = plan_segments(reader.info.duration_seconds)
        assert [segment.span for segment in segments] == list(spans)
        played = list(
            reader.get_frames_played_at(np.concatenate([middle_times(s, 16) for s in spans]).tolist())
        )
    for number, segment in enumerate(segments):
        shown = {frame.pts_seconds: frame.data for frame in played[16 * number : 16 * number + 16]}
        assert segment.frames.pts_seconds.tolist() == list(shown)
        for mine, right in zip(segment.frames.data, shown.values(), strict=True):
            np.testing.assert_allclose(mine.astype(int), right, atol=atol)


def test_a_picture_of_four_hours_is_one_segment(tmp_path: Path) -> None:
    pictures = [picture("JPEG", (160, 120), (200, 10, 10))]
    [segment] = read(mux_pictures(tmp_path / "one.mkv", "JPEG", pictures, Fraction(14400)))
    assert (segment.span.start_seconds, segment.span.end_seconds) == (0, 14400)
    assert (len(segment.frames), segment.frames.duration_seconds[0]) == (1, 14400)


@pytest.mark.parametrize("source", ["color=red:size=64x48", "smptehdbars=size=192x108"])
def test_a_picture_that_is_written_again_for_four_hours_is_one_segment(source: str, tmp_path: Path) -> None:
    """A film of one picture, such as a song with its cover."""
    [segment] = read(make(tmp_path / "loop.mp4", f"{source}:rate=1/2:duration=14400"))
    assert (segment.span.start_seconds, segment.span.end_seconds) == (0, 14400)
    assert (len(segment.frames), segment.frames.pts_seconds[0]) == (1, 0)


def test_slow_pictures_of_a_small_file_give_a_segment_each(tmp_path: Path) -> None:
    """100 pictures of 655 seconds: by the plain plan, 2,048 segments."""
    rng = np.random.default_rng(0)
    frames = [Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8)) for _ in range(100)]
    path = tmp_path / "slow.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=655_350)
    segments = read(path)
    assert len(segments) == 100
    starts = [segment.span.start_seconds for segment in segments]
    np.testing.assert_allclose(starts, 655.35 * np.arange(100), atol=0.01)
    assert {len(segment.frames) for segment in segments} == {1}


@pytest.mark.parametrize("extension", ["mp4", "mkv"])
def test_a_long_pause_is_one_segment_between_those_that_move(extension: str, tmp_path: Path) -> None:
    source = "testsrc2=size=64x48:rate=10:duration=120,setpts=PTS+gte(N\\,700)*3000/TB"
    path = make(tmp_path / f"pause.{extension}", source, *FAST, "-fps_mode", "passthrough")
    segments = read(path)
    with VideoReader(path) as reader:
        assert reader.info.duration_seconds == pytest.approx(3120, abs=0.2)
    still = [number for number, segment in enumerate(segments) if len(segment.frames) == 1]
    assert still == [3]
    [number] = still
    assert segments[number].span.start_seconds <= 69.9 + 32
    assert segments[number].span.end_seconds >= 3070 - 32
    np.testing.assert_allclose(segments[number].frames.pts_seconds, [69.9], atol=0.001)
    moving = segments[:number] + segments[number + 1 :]
    assert len(moving) == 5
    assert all(segment.span.end_seconds - segment.span.start_seconds <= 32 for segment in moving)
    planned = plan_segments(3120.0)
    assert [s.span.start_seconds for s in moving] == pytest.approx(
        [planned[i].start_seconds for i in (0, 1, 2, len(planned) - 2, len(planned) - 1)], abs=0.1
    )


def test_slides_that_stay_longer_than_a_segment_are_one_segment_each(tmp_path: Path) -> None:
    segments = read(make(tmp_path / "slides.mkv", "testsrc2=size=64x48:rate=1/50:duration=500"))
    np.testing.assert_allclose([s.span.start_seconds for s in segments], 50 * np.arange(10), atol=0.01)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("a slide show", "testsrc2=size=64x48:rate=1/20:duration=900"),
        ("a screen on which one dot moves", "color=gray:size=160x90:rate=1:duration=700"),
        ("a camera at a picture a second", "color=gray:size=64x48:rate=1:duration=700,noise=alls=12:allf=t"),
        ("a time lapse", "testsrc2=size=64x48:rate=30:duration=70,hue=h=n"),
        ("a phone", "testsrc2=size=64x48:rate=10:duration=130,setpts=N/10/TB+random(1)/20/TB"),
        ("a screen that nobody touches for five minutes", "color=red:size=64x48:rate=2:duration=300"),
        ("a recording of a day", "testsrc2=size=32x32:rate=1/16:duration=86400"),
    ],
)  # fmt: skip
def test_videos_that_move_are_cut_as_ever(name: str, source: str, tmp_path: Path) -> None:
    if "dot" in name:
        dot = "color=white:size=4x4:rate=1[dot];[0][dot]overlay=x=mod(n\\,150):y=45:shortest=1"
        path = make(tmp_path / "dot.mp4", source, "-filter_complex", dot, *FAST)
    else:
        path = make(tmp_path / "video.mp4", source, *FAST, "-fps_mode", "passthrough")
    check_planned(path)


def test_a_scene_with_noise_is_not_still(tmp_path: Path) -> None:
    source = "smptehdbars=size=192x108:rate=1:duration=700,noise=alls=8:allf=t+u"
    assert len(read(make(tmp_path / "noise.mp4", source))) == 22


def test_what_looks_the_same() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(40, 200, (90, 160, 3)).astype(np.uint8)
    again = picture.copy()
    again[5, 5] += 32
    assert look_same(picture, again)
    again[5, 5] += 1
    assert not look_same(picture, again)
    assert look_same(picture, picture + (np.arange(160) % 2 == 0)[None, :, None].astype(np.uint8))
    assert not look_same(picture, picture + np.uint8(1))


def test_times_before_and_after_a_still_are_found(tmp_path: Path) -> None:
    """The segments of a video cover it without a gap, with and without stills."""
    path = tmp_path / "mixed.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.time_base = Fraction(1, 10)
        times = [*range(400), 5000, 5001, *range(9000, 9400)]
        for number, ticks in enumerate(times):
            frame = av.VideoFrame.from_ndarray(
                np.full((48, 64, 3), 16 * (number % 16), np.uint8), format="rgb24"
            )
            frame.pts, frame.time_base = ticks, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    segments = read(path)
    assert segments[0].span.start_seconds == 0
    assert segments[-1].span.end_seconds == pytest.approx(940, abs=0.2)
    stills = [s for s in segments if s.span.end_seconds - s.span.start_seconds > 33]
    assert [round(s.frames.pts_seconds[0], 1) for s in stills] == [39.9, 500.1]
