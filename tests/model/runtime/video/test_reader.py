"""Segments of real files: spans, frames kept once, sizes, what a reader says of a file."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from model.runtime.video import VideoReader, probe
from tests.support.clips import Clips, clips, ffmpeg, reference

__all__ = ["clips"]


def test_probe_and_reader_say_the_same(clips: Clips) -> None:
    for name in ("rotated_90", "offset", "hevc_10", "no_duration", "no_times"):
        with VideoReader(clips(name)) as reader:
            assert probe(str(clips(name))) == reader.info


def test_info_is_what_a_player_shows(clips: Clips) -> None:
    info = probe(clips("rotated_270"))
    assert (info.width, info.height, info.rotation) == (72, 96, 90)
    assert (info.codec, info.pixel_format, info.fps, info.duration_seconds) == ("h264", "yuv420p", 25.0, 3.0)
    info = probe(clips("late_video"))
    assert info.start_seconds == pytest.approx(1.32, abs=0.03)
    assert info.duration_seconds == pytest.approx(4.32, abs=0.03)
    assert probe(clips("long_audio")).duration_seconds == 2.0
    assert probe(clips("no_duration")).duration_seconds == pytest.approx(3.0, abs=0.05)
    assert probe(clips("variable")).duration_seconds == pytest.approx(6.0, abs=0.05)
    assert (probe(clips("wide_pixels")).width, probe(clips("wide_pixels")).height) == (144, 72)
    assert probe(clips("vp9_10")).pixel_format == "yuv420p10le"
    assert probe(clips("av1")).codec == "av1"


def test_the_title_is_read(clips: Clips, tmp_path: Path) -> None:
    path = tmp_path / "titled.mp4"
    ffmpeg("-i", str(clips("constant")), "-c", "copy", "-metadata", "title=Évasion", str(path))
    assert probe(path).title == "Évasion"
    assert probe(clips("constant")).title is None


def test_a_video_is_cut_into_equal_segments_of_middle_frames(clips: Clips, tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    ffmpeg("-stream_loop", "4", "-i", str(clips("b_frames")), "-c", "copy", str(path))
    expected = reference(path, (96, 72))
    with VideoReader(path) as reader:
        segments = list(reader.segments(segment_seconds=4, frames_per_segment=5))
        assert reader.damage is None
    assert [s.index for s in segments] == [0, 1, 2, 3]
    for number, segment in enumerate(segments):
        assert segment.span.start_seconds == pytest.approx(3.75 * number)
        assert segment.span.end_seconds == pytest.approx(3.75 * (number + 1))
        chosen = [expected.at(3.75 * number + 0.75 * (i + 0.5)) for i in range(5)]
        np.testing.assert_allclose(segment.frames.pts_seconds, expected.times[chosen], atol=1e-6)
        np.testing.assert_allclose(segment.frames.data.astype(int), expected.frames[chosen], atol=2)
        np.testing.assert_allclose(segment.frames.duration_seconds, 0.04, atol=1e-6)


def test_a_frame_that_serves_several_times_is_kept_once(clips: Clips) -> None:
    with VideoReader(clips("one_frame")) as reader:
        [segment] = reader.segments()
        assert len(segment.frames) == 1
        assert (segment.span.end_seconds, segment.frames.pts_seconds[0]) == (0.04, 0.0)
    with VideoReader(clips("bt709_tv_8")) as reader:
        [segment] = reader.segments(frames_per_segment=50)
        assert len(segment.frames) == 25
        assert (np.diff(segment.frames.pts_seconds) > 0.039).all()


def test_segments_with_sound_alone_are_left_out(clips: Clips) -> None:
    with VideoReader(clips("late_video")) as reader:
        segments = list(reader.segments(segment_seconds=0.6, frames_per_segment=2))
    start = segments[0].frames.pts_seconds[0]
    assert start == pytest.approx(1.32, abs=0.03)
    assert segments[0].index == 2
    assert segments[0].span.start_seconds <= start < segments[0].span.end_seconds
    assert segments[-1].span.end_seconds == pytest.approx(start + 3)


@pytest.mark.parametrize(
    ("name", "max_side", "shape"),
    [
        ("constant", None, (72, 96)),
        ("constant", 512, (72, 96)),
        ("constant", 48, (36, 48)),
        ("constant", 1, (1, 1)),
        ("rotated_90", 48, (48, 36)),
        ("wide_pixels", 72, (36, 72)),
        ("odd_size", None, (49, 65)),
        ("odd_size", 64, (48, 64)),
    ],
)
def test_frames_are_at_most_max_side_and_never_enlarged(
    name: str, max_side: int | None, shape: tuple[int, int], clips: Clips
) -> None:
    with VideoReader(clips(name), max_side=max_side) as reader:
        [segment] = reader.segments()
    assert segment.frames.data.shape[1:3] == shape


def test_a_frame_of_another_size_is_fitted(clips: Clips, tmp_path: Path) -> None:
    """A broadcast that changes its picture size half way."""
    parts = []
    for number, size in enumerate(("96x72", "128x72")):
        part = tmp_path / f"{number}.ts"
        source = f"color=lime:size={size}:rate=10:duration=2"
        ffmpeg(
            "-f", "lavfi", "-i", source, "-output_ts_offset", str(2 * number), "-c:v", "mpeg2video", str(part)
        )
        parts.append(part.read_bytes())
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(parts))
    with VideoReader(path) as reader:
        [segment] = reader.segments()
    assert segment.frames.data.shape == (16, 72, 96, 3)
    assert segment.frames.pts_seconds[-1] > 3.5
    assert (segment.frames.data[..., 1] > 200).all()


def test_high_definition_without_a_named_matrix_is_taken_for_bt709(tmp_path: Path) -> None:
    path = tmp_path / "hd.mp4"
    source = "testsrc2=size=1280x720:rate=2:duration=1,scale=out_color_matrix=bt709,format=yuv420p"
    ffmpeg("-f", "lavfi", "-i", source, "-c:v", "libx264", "-preset", "ultrafast", str(path))
    expected = reference(path, (320, 180), "in_color_matrix=bt709:in_h_chr_pos=0:in_v_chr_pos=128")
    with VideoReader(path, max_side=320) as reader:
        [segment] = reader.segments()
    np.testing.assert_allclose(segment.frames.data.astype(int), expected.frames, atol=2)


def test_arguments_are_checked(clips: Clips) -> None:
    path = clips("constant")
    with pytest.raises(ValueError, match="decoder must be 'pyav' or 'decord', got 'cv2'"):
        VideoReader(path, decoder=cast(Any, "cv2"))
    with pytest.raises(ValueError, match="max_side must be at least 1"):
        VideoReader(path, max_side=0)
    with pytest.raises(ValueError, match="threads must be at least 1"):
        VideoReader(path, threads=0)
    with VideoReader(path) as reader, pytest.raises(ValueError, match="count must be at least 1"):
        next(reader.segments(frames_per_segment=0))


def test_a_reader_may_be_read_again(clips: Clips) -> None:
    with VideoReader(clips("open_gop")) as reader:
        once = [s.frames for s in reader.segments(segment_seconds=1)]
        next(reader.segments())
        again = [s.frames for s in reader.segments(segment_seconds=1)]
    assert len(once) == 3
    for first, second in zip(once, again, strict=True):
        np.testing.assert_array_equal(first.data, second.data)
        np.testing.assert_array_equal(first.pts_seconds, second.pts_seconds)


@pytest.mark.parametrize("name", ["b_frames", "hevc", "vp9", "av1", "prores"])
def test_the_number_of_threads_changes_nothing(name: str, clips: Clips) -> None:
    frames = []
    for threads in (1, 3):
        with VideoReader(clips(name), threads=threads) as reader:
            frames.append([s.frames.data for s in reader.segments(segment_seconds=1)])
    for one, three in zip(*frames, strict=True):
        np.testing.assert_array_equal(one, three)


def test_a_pause_of_hours_is_not_cut_into_thousands_of_segments(tmp_path: Path) -> None:
    path = tmp_path / "pause.mkv"
    pause = "testsrc2=size=96x72:rate=10:duration=2,setpts='PTS+gte(N,10)*36000/TB'"
    encode = ("-fps_mode", "passthrough", "-c:v", "libx264", "-preset", "ultrafast", "-g", "5")
    ffmpeg("-f", "lavfi", "-i", pause, *encode, str(path))
    with VideoReader(path) as reader:
        assert reader.info.duration_seconds == pytest.approx(36002, abs=0.2)
        segments = list(reader.segments())
    assert len(segments) == 2
    assert segments[0].index == 0
    assert segments[1].span.end_seconds == reader.info.duration_seconds
    assert segments[1].frames.pts_seconds[-1] == pytest.approx(36001.9, abs=1.1)
