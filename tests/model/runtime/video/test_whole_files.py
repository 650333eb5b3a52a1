"""Files that nothing is wrong with, whatever else is in them, and damage that costs only what it hits."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from model.runtime.video import VideoError, VideoReader, probe
from model.runtime.video.pyav_decoder import PyavDecoder
from model.runtime.video.render import Renderer
from tests.support.clips import Clips, clips, ffmpeg
from tests.support.packets import mux_pictures, picture

__all__ = ["clips"]
FAST = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
FILM = "testsrc2=size=320x240:rate=10:duration={}"
# So much of one stream that FFmpeg, when it opens a file, has found no other.
LOUD = ("-f", "lavfi", "-i", "anoisesrc=duration=90:sample_rate=44100", "-ac", "2", "-c:a", "pcm_s16le")


def check_whole(path: Path, seconds: float, num_frames: int = 16) -> None:
    with VideoReader(path) as reader:
        segments = list(reader.segments())
        assert reader.damage is None
        assert reader.info.duration_seconds == pytest.approx(seconds, abs=0.2)
    assert len(segments[0].frames) == num_frames
    assert segments[-1].span.end_seconds == pytest.approx(seconds, abs=0.2)


def append_tags(path: Path, first: Path, second: Path) -> Path:
    """The tags of one Flash file after another's: a recorder that goes on with another stream."""
    path.write_bytes(first.read_bytes() + second.read_bytes()[13:])
    return path


def test_sound_that_begins_late_in_flash_video(tmp_path: Path) -> None:
    film, sound = tmp_path / "film.flv", tmp_path / "sound.flv"
    noisy = FILM.format(20) + ",noise=alls=100:allf=t"
    ffmpeg("-f", "lavfi", "-i", noisy, *FAST, "-qp", "8", str(film))
    assert film.stat().st_size > 8 << 20
    ffmpeg("-f", "lavfi", "-i", "sine=duration=2", "-c:a", "aac", "-output_ts_offset", "18", str(sound))
    check_whole(append_tags(tmp_path / "both.flv", film, sound), 20)


def test_a_picture_that_begins_late_in_flash_video(tmp_path: Path) -> None:
    sound, film = tmp_path / "sound.flv", tmp_path / "film.flv"
    ffmpeg(*LOUD, str(sound))
    ffmpeg("-f", "lavfi", "-i", FILM.format(5), *FAST, "-output_ts_offset", "90", str(film))
    path = append_tags(tmp_path / "both.flv", sound, film)
    with VideoReader(path) as reader:
        assert reader.info.start_seconds == pytest.approx(90, abs=0.2)
        assert reader.info.duration_seconds == pytest.approx(95, abs=0.3)
        [segment] = reader.segments()
        assert reader.damage is None
    assert (segment.frames.pts_seconds >= 89.8).all()
    with pytest.raises(VideoError, match="audio only"):
        probe(sound)


@pytest.mark.parametrize("extension", ["mov", "mp4"])
def test_a_time_code_is_no_obstacle(extension: str, tmp_path: Path) -> None:
    path = tmp_path / f"camera.{extension}"
    ffmpeg("-f", "lavfi", "-i", FILM.format(3), *FAST, "-timecode", "01:00:00:00", str(path))
    check_whole(path, 3)


def test_chapters_and_subtitles_are_no_obstacle(clips: Clips, tmp_path: Path) -> None:
    notes, words = tmp_path / "notes.txt", tmp_path / "words.srt"
    notes.write_text(";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=1000\ntitle=one\n")
    words.write_text("1\n00:00:00,000 --> 00:00:02,000\nHello\n")
    inputs = ("-i", str(clips("constant")), "-i", str(notes), "-i", str(words), "-map", "0", "-map", "2")
    for extension, codec in (("mp4", "mov_text"), ("mkv", "srt")):
        path = tmp_path / f"film.{extension}"
        ffmpeg(*inputs, "-map_metadata", "1", "-c", "copy", "-c:s", codec, str(path))
        check_whole(path, 3)


def test_a_stream_that_no_decoder_reads_is_no_obstacle(clips: Clips, tmp_path: Path) -> None:
    """The sound's codec gets a name that nobody knows, and so does a second picture's."""
    two = tmp_path / "two.mkv"
    film = ("-i", str(clips("constant")))
    ffmpeg(*film, *film, "-f", "lavfi", "-i", "sine=duration=3", *[f for i in "012" for f in ("-map", i)],
           "-c:v:0", "copy", "-c:v:1", "mpeg4", "-c:a", "mp2", str(two))  # fmt: skip
    data = two.read_bytes()
    assert data.count(b"A_MPEG/L2") == data.count(b"V_MPEG4/ISO/ASP") == 1
    path = tmp_path / "unknown.mkv"
    path.write_bytes(
        data.replace(b"A_MPEG/L2", b"A_NOBODY9").replace(b"V_MPEG4/ISO/ASP", b"V_NOBODY/ISO/ASP"[:15])
    )
    check_whole(path, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_pictures_with_exif_and_tiff_pictures_are_read(kind: str, tmp_path: Path) -> None:
    pictures = [picture(kind, (160, 120), (8 * i, 200, 10), orientation=1) for i in range(30)]
    path = mux_pictures(tmp_path / "camera.mov", kind, pictures, Fraction(1, 10))
    check_whole(path, 3)
    with VideoReader(path) as reader:
        [segment] = reader.segments()
    reds = segment.frames.data[:, 60, 80, 0].astype(int)
    np.testing.assert_allclose(reds, 8 * np.round(segment.frames.pts_seconds * 10), atol=6)


def test_pictures_are_turned_as_their_exif_says(tmp_path: Path) -> None:
    for orientation, rotation in ((1, 0), (3, 180), (6, 90), (8, 270)):
        data = picture("JPEG", (160, 120), (200, 10, 10), orientation)
        info = probe(mux_pictures(tmp_path / f"{orientation}.mov", "JPEG", [data, data]))
        assert (info.rotation, info.width) == (rotation, 120 if rotation % 180 else 160)


@pytest.mark.parametrize("extension", ["mjpg", "mjpeg", "MJPG"])
@pytest.mark.parametrize("orientation", [0, 1])
def test_raw_motion_jpeg_is_read(extension: str, orientation: int, tmp_path: Path) -> None:
    path = tmp_path / f"camera.{extension}"
    pictures = [picture("JPEG", (160, 120), (8 * i, 200, 10), orientation) for i in range(25)]
    path.write_bytes(b"".join(pictures))
    check_whole(path, 1)


def test_raw_motion_jpeg_of_ffmpeg_is_read(tmp_path: Path) -> None:
    path = tmp_path / "camera.mjpg"
    ffmpeg("-f", "lavfi", "-i", FILM.format(5), "-c:v", "mjpeg", str(path))
    check_whole(path, 2)  # 50 pictures, at 25 a second: such a file says no rate


def test_another_size_and_pixel_format_in_the_middle(tmp_path: Path) -> None:
    parts = []
    for number, (size, pixels) in enumerate((("160x120", "yuv420p"), ("320x240", "yuv422p"))):
        part = tmp_path / f"{number}.ts"
        source = f"testsrc2=size={size}:rate=10:duration=3"
        ffmpeg("-f", "lavfi", "-i", source, *FAST[:4], "-pix_fmt", pixels, str(part))
        parts.append(part.read_bytes())
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(parts))
    check_whole(path, 6)


def test_negative_times_and_empty_packets(tmp_path: Path) -> None:
    """A frame that lasts on is an empty packet in AVI."""
    path = tmp_path / "still.avi"
    source = FILM.format(4) + ",select='lt(n,10)+gt(n,30)'"
    ffmpeg("-f", "lavfi", "-i", source, "-fps_mode", "vfr", "-c:v", "mpeg4", str(path))
    with VideoReader(path) as reader:
        [segment] = reader.segments()
        assert reader.damage is None
    assert segment.span.end_seconds == pytest.approx(4, abs=0.15)
    early = tmp_path / "early.mkv"
    ffmpeg("-f", "lavfi", "-i", FILM.format(3), *FAST, "-output_ts_offset", "-1", "-avoid_negative_ts",
           "disabled", str(early))  # fmt: skip
    with VideoReader(early) as reader:
        [segment] = reader.segments()
        assert reader.damage is None
    assert all(before < after for before, after in pairwise(segment.frames.pts_seconds))


class Tripping(Renderer):
    """Cannot show some of the frames: an error as PyAV and FFmpeg may raise it for unusual ones."""

    tripped: tuple[int, ...] = ()

    def __call__(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        if frame.pts in self.tripped:
            raise ValueError("31 is not a valid Type")
        return super().__call__(frame)


@pytest.mark.parametrize("tripped", [range(25), range(25, 50), range(50, 75)])
def test_a_frame_that_cannot_be_shown_costs_no_more_than_itself(tripped: range, tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=96x72:rate=25:duration=3", *FAST, str(path))
    decoder = PyavDecoder(path, None)
    decoder.renderer.__class__ = Tripping
    Tripping.tripped = tuple(range(40 * tripped.start, 40 * tripped.stop))
    times = [(i + 0.5) / 25 for i in range(75)]
    frames = list(decoder.get_frames_played_at(times))
    decoder.close()
    assert "frames that cannot be converted: 25 (31 is not a valid Type)" in str(decoder.damage)
    shown = [round(frame.pts_seconds * 25) for frame in frames]
    before = [25] * 25 if tripped.start == 0 else [tripped.start - 1] * 25
    assert shown == [*range(tripped.start), *before, *range(tripped.stop, 75)]
