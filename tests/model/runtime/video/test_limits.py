"""What a file may take: the size of its pictures, its length, CPU time, memory."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from model.runtime.video import ReadingLimits, VideoError, VideoReader, probe
from model.runtime.video.limits import CpuBudget
from tests.support.clips import Clips, clips, ffmpeg
from tests.support.packets import grey_png, h264_of_size, mux_pictures, picture

__all__ = ["clips"]
RED, GREEN = (200, 10, 10), (10, 200, 10)
READ = """
import resource, sys
from model.runtime.video import VideoError, VideoReader
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    with VideoReader(sys.argv[1]) as reader:
        frames = sum(len(segment.frames) for segment in reader.segments())
        said = reader.damage
except VideoError as error:
    frames, said = 0, str(error)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((peak - before) // 1024, frames, said)
"""


def read_apart(path: Path) -> tuple[int, int, str]:
    """Read a file in a process of its own: MiB of memory on top of the program's, frames, what is said."""
    command = [sys.executable, "-c", READ, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    mib, frames, said = done.stdout.strip().split(" ", 2)
    return int(mib), int(frames), said


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_huge_picture_among_others_is_left_out_before_it_takes_memory(kind: str, tmp_path: Path) -> None:
    """16000 x 16000 pixels would take 256 MB or more."""
    small = picture(kind, (160, 120), RED)
    huge = grey_png(16000, 16000) if kind == "PNG" else picture(kind, (16000, 16000), 0)
    for number, pictures in enumerate(([small, huge, small, small], [small, huge], [huge, small])):
        path = mux_pictures(tmp_path / f"bomb {number}.mov", kind, pictures)
        mib, frames, said = read_apart(path)
        assert mib < 100
        assert frames == len(pictures) - 1
        reason = "pictures left out: 1 (damaged, or more than 134217728 pixels (--max-pixels))"
        assert said == ("no frame after 1.0 s of 2.0 s, " + reason if pictures[-1] is huge else reason)


def test_a_stream_of_huge_pictures_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    """FFmpeg decodes the first pictures of a stream without a header to learn their format."""
    small, bomb = tmp_path / "small.h264", tmp_path / "bomb.h264"
    source = "testsrc2=size=160x128:rate=10:duration=1"
    options = ["-c:v", "libx264", "-profile:v", "baseline", "-g", "1", "-pix_fmt", "yuv420p"]
    ffmpeg("-f", "lavfi", "-i", source, *options, str(small))
    bomb.write_bytes(h264_of_size(small.read_bytes(), 16000, 16000))
    mib, frames, said = read_apart(bomb)
    assert (mib < 150, frames) == (True, 0)
    assert said == f"{bomb}: 16000x16000 is more than 134217728 pixels (--max-pixels)"


def test_a_cover_is_no_bomb_either(clips: Clips, tmp_path: Path) -> None:
    """FFmpeg decodes the pictures of other streams too, to learn their format."""
    cover, path = tmp_path / "cover.png", tmp_path / "film.mp4"
    cover.write_bytes(grey_png(16000, 16000))
    film = ("-i", str(clips("constant")), "-i", str(cover), "-map", "0", "-map", "1", "-c", "copy")
    ffmpeg(*film, "-disposition:v:1", "attached_pic", str(path))
    mib, frames, said = read_apart(path)
    assert mib < 100
    assert (frames, said) == (16, "None")


def test_the_largest_picture_can_be_set(clips: Clips, tmp_path: Path) -> None:
    sizes = ((160, 120), (400, 300), (160, 120), (200, 150), (160, 120))  # FFmpeg itself allows a margin
    pictures = [picture("PNG", size, RED) for size in sizes]
    path = mux_pictures(tmp_path / "sizes.mov", "PNG", pictures)
    with VideoReader(path) as reader:
        [segment] = reader.segments()
        assert (len(segment.frames), reader.damage) == (5, None)
    with VideoReader(path, limits=ReadingLimits(max_pixels=160 * 120)) as reader:
        [segment] = reader.segments()
        np.testing.assert_array_equal(segment.frames.pts_seconds, [0, 2, 4])
        assert "pictures left out: 2 (" in str(reader.damage)
        assert "more than 19200 pixels (--max-pixels)" in str(reader.damage)
    with pytest.raises(VideoError, match=r"96x72 is more than 6911 pixels \(--max-pixels\)") as caught:
        VideoReader(clips("constant"), limits=ReadingLimits(max_pixels=96 * 72 - 1))
    assert caught.value.verdict == "unsupported"


def test_decord_refuses_pictures_that_change_their_size(clips: Clips, tmp_path: Path) -> None:
    pytest.importorskip("decord", reason="the package decord2 is not installed")
    pictures = [picture("JPEG", size, RED) for size in ((160, 120), (400, 300), (160, 120))]
    with pytest.raises(VideoError, match="its pictures change their size: use decoder pyav"):
        VideoReader(mux_pictures(tmp_path / "sizes.mov", "JPEG", pictures), decoder="decord")
    bomb = mux_pictures(
        tmp_path / "bomb.mov", "PNG", [picture("PNG", (160, 120), RED), grey_png(16000, 16000)]
    )
    with pytest.raises(VideoError, match="use decoder pyav"):
        VideoReader(bomb, decoder="decord")


def test_a_file_ends_where_its_cpu_time_is_used_up_and_keeps_what_was_read(tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    source = "testsrc2=size=640x480:rate=10:duration=200"
    ffmpeg("-f", "lavfi", "-i", source, "-c:v", "libx264", "-preset", "ultrafast", str(path))
    with VideoReader(path) as reader:
        began = time.process_time()
        whole = list(reader.segments())
        seconds = time.process_time() - began
        assert (len(whole), reader.damage) == (7, None)
    limits = ReadingLimits(cpu_seconds=seconds / 2, cpu_seconds_per_megabyte=0)
    with VideoReader(path, limits=limits) as reader:
        part = list(reader.segments())
        damage = str(reader.damage)
    assert 1 <= len(part) < 7
    assert "CPU seconds (--cpu-seconds, --cpu-seconds-per-megabyte)" in damage
    assert part[-1].span.end_seconds < 200
    for one, other in zip(part[:-1], whole, strict=False):
        assert one.span == other.span
        np.testing.assert_array_equal(one.frames.data, other.frames.data)


def test_only_the_reader_s_cpu_time_counts(clips: Clips) -> None:
    limits = ReadingLimits(cpu_seconds=0.6, cpu_seconds_per_megabyte=0)
    with VideoReader(clips("constant"), limits=limits) as reader:
        num_segments = 0
        for _ in reader.segments(segment_seconds=0.5):
            num_segments += 1
            end = time.process_time() + 0.2
            while time.process_time() < end:
                pass
        assert (num_segments, reader.damage) == (6, None)


def test_a_larger_file_may_take_more_cpu_time(clips: Clips) -> None:
    path = clips("constant")
    budget = CpuBudget(ReadingLimits(cpu_seconds=2, cpu_seconds_per_megabyte=1000), path)
    assert budget.seconds == pytest.approx(2 + path.stat().st_size / 1000)


def test_damaged_times_cost_no_more_than_what_is_there(clips: Clips, tmp_path: Path) -> None:
    """The last frame of three seconds is said to appear after 50 days."""
    path = tmp_path / "days.mkv"
    shift = (
        "setts=pts=if(gte(N\\,70)\\,PTS+50*24*3600/TB\\,PTS):dts=if(gte(N\\,70)\\,DTS+50*24*3600/TB\\,DTS)"
    )
    ffmpeg("-i", str(clips("constant")), "-c", "copy", "-bsf:v", shift, str(path))
    with VideoReader(path) as reader:
        segments = list(reader.segments())
        assert reader.info.duration_seconds == 360_000
        assert "its times reach 1200 hours, read are 100 (--max-hours)" in str(reader.damage)
    assert len(segments) == 2
    assert len(segments[0].frames) == 2  # of every two seconds
    assert segments[1].span.end_seconds == 360_000
    assert probe(path).duration_seconds == 360_000
