"""Where a stream's clock starts again, wraps or jumps, all frames are found, and seconds count what is shown.

Expected: every frame of each part as the ffmpeg program decodes it, one part after the other; and arithmetic.
"""

from pathlib import Path

import numpy as np
import pytest

from model.runtime.video import VideoError, VideoReader
from model.runtime.video.pyav_decoder import PyavDecoder, Route
from tests.support.clips import B_FRAMES, SOURCE, X264, clips, ffmpeg, reference

__all__ = ["clips"]
MPEG2 = "-c:v mpeg2video -bf 2 -g 12 -q:v 4"
VP8 = "-c:v libvpx -deadline realtime -cpu-used 8"
# Extension, encoder of the picture, encoder of the sound (none: no sound), options of the second part.
APPENDED = {
    "ts restarts": ("ts", f"{X264} {B_FRAMES}", "-c:a mp2", ""),
    "ts goes back, and FFmpeg takes it for a wrap": ("ts", f"{X264} {B_FRAMES}", "-c:a mp2", ""),
    "ts jumps forward": ("ts", f"{X264} {B_FRAMES}", "-c:a mp2", "-output_ts_offset 3000"),
    "ts without sound": ("ts", f"{X264} {B_FRAMES}", "", "-output_ts_offset 77"),
    "ts of mpeg2": ("ts", MPEG2, "-c:a mp2", ""),
    "ts wraps after 26.5 hours, and starts again": ("ts", f"{X264} {B_FRAMES}", "-c:a mp2", ""),
    "program stream": ("mpg", MPEG2, "-c:a mp2", ""),
    "DVD": ("vob", MPEG2, "-c:a ac3", "-output_ts_offset 50"),
    "chained Ogg": ("ogv", "-c:v libtheora -q:v 8", "", ""),
    "WebM after WebM": ("webm", VP8, "", ""),
    "Matroska after Matroska": ("mkv", f"{X264} {B_FRAMES}", "-c:a mp2", ""),
}
FIRST_OPTIONS = {
    "ts goes back, and FFmpeg takes it for a wrap": "-output_ts_offset 5000",
    "ts wraps after 26.5 hours, and starts again": "-output_ts_offset 95441",
}


def encode(path: Path, seconds: float, picture: str, sound: str, options: str, hue: int = 0) -> Path:
    source = SOURCE.format(size="96x72", rate=25, seconds=seconds) + f",hue=h={hue}+37*n"
    inputs = ["-f", "lavfi", "-i", source]
    if sound:
        inputs += ["-f", "lavfi", "-i", f"sine=frequency=440:duration={seconds}", *sound.split()]
    ffmpeg(*inputs, *picture.split(), *options.split(), str(path))
    return path


def append(path: Path, *parts: Path) -> Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def check_frames(path: Path, parts: list[Path], route: Route) -> None:
    """Every frame of the parts is shown, one part after the other."""
    expected = [reference(part, (96, 72)).frames for part in parts]
    duration = sum(map(len, expected)) / 25
    decoder = PyavDecoder(path, None, route=route)
    try:
        assert decoder.info.duration_seconds == pytest.approx(duration, abs=0.15)
        start, position = decoder.info.start_seconds, 0
        for number, frames in enumerate(expected):
            begin = start + position / 25
            picked = range(0, len(frames), 1 if route == "auto" else 7)
            shown = decoder.get_frames_played_at([begin + (i + 0.5) / 25 for i in picked])
            for i, frame in zip(picked, shown, strict=True):
                difference = np.abs(frame.data.astype(int) - frames[i]).max()
                assert difference <= 2, f"frame {i} of part {number}"
                assert frame.pts_seconds == pytest.approx(begin + i / 25, abs=0.06)
            position += len(frames)
        assert decoder.damage is None
    finally:
        decoder.close()


@pytest.mark.parametrize("name", APPENDED)
def test_what_follows_a_new_start_of_the_clock_is_shown_after_what_came_before(
    name: str, tmp_path: Path
) -> None:
    extension, picture, sound, options = APPENDED[name]
    first = encode(tmp_path / f"1.{extension}", 3, picture, sound, FIRST_OPTIONS.get(name, ""))
    second = encode(tmp_path / f"2.{extension}", 2, picture, sound, options, hue=90)
    path = append(tmp_path / f"both.{extension}", first, second)
    for route in ("auto", "read", "seek"):
        check_frames(path, [first, second], route)


def test_many_short_recordings_in_one_file(tmp_path: Path) -> None:
    parts = [
        encode(
            tmp_path / f"{i}.ts", 1, f"{X264} {B_FRAMES}", "-c:a mp2", f"-output_ts_offset {offset}", 60 * i
        )
        for i, offset in enumerate((0, 900, 20, 20, 95443, 0))
    ]
    check_frames(append(tmp_path / "all.ts", *parts), parts, "auto")


def test_flash_tags_of_another_recording_follow(tmp_path: Path) -> None:
    parts = [encode(tmp_path / f"{i}.flv", 3 - i, f"{X264} {B_FRAMES}", "", "", 90 * i) for i in range(2)]
    path = tmp_path / "both.flv"
    path.write_bytes(
        parts[0].read_bytes() + parts[1].read_bytes()[13:]
    )  # a recorder appends without a header
    check_frames(path, parts, "auto")


def gap(path: Path, seconds: float, *sound: str) -> Path:
    """100 frames, a gap of `seconds`, 50 frames."""
    source = (
        SOURCE.format(size="96x72", rate=25, seconds=6) + f",hue=h=37*n,setpts=PTS+gte(N\\,100)*{seconds}/TB"
    )
    options = f"{X264} {B_FRAMES} -fps_mode passthrough"
    ffmpeg("-f", "lavfi", "-i", source, *sound, *options.split(), str(path))
    return path


def test_a_clock_that_is_set_forward_while_an_encoder_runs_leaves_no_gap(tmp_path: Path) -> None:
    """Frames that were reordered around the jump keep their order."""
    path = gap(tmp_path / "jump.ts", 3000)
    with VideoReader(path) as reader:
        assert reader.info.duration_seconds == pytest.approx(6, abs=0.05)
        [segment] = reader.segments()
        assert segment.span.end_seconds == pytest.approx(6, abs=0.05)
    check_frames(path, [path], "auto")


def test_a_gap_is_time_where_the_sound_goes_on(tmp_path: Path) -> None:
    path = gap(tmp_path / "still.ts", 24, "-f", "lavfi", "-i", "sine=duration=30", "-c:a", "mp2")
    decoder = PyavDecoder(path, None)
    times = [frame.pts_seconds for frame in decoder.get_frames_played_at([10.0, 27.0, 28.1, 29.9])]
    decoder.close()
    assert decoder.info.duration_seconds == pytest.approx(30, abs=0.1)
    np.testing.assert_allclose(times, [4, 4, 28.1, 29.9], atol=0.1)


def test_sound_that_goes_on_after_the_picture_delays_what_was_appended(tmp_path: Path) -> None:
    first = encode(tmp_path / "1.ts", 3, f"{X264} {B_FRAMES}", "", "")
    longer = tmp_path / "longer.ts"
    sound = "-f lavfi -i sine=duration=9 -c:v copy -c:a mp2"
    ffmpeg("-i", str(first), *sound.split(), str(longer))
    second = encode(tmp_path / "2.ts", 2, f"{X264} {B_FRAMES}", "-c:a mp2", "", hue=90)
    decoder = PyavDecoder(append(tmp_path / "both.ts", longer, second), None)
    times = [frame.pts_seconds for frame in decoder.get_frames_played_at([2.5, 8.0, 9.5, 10.5])]
    decoder.close()
    assert decoder.info.duration_seconds == pytest.approx(11, abs=0.15)
    np.testing.assert_allclose(times, [2.5, 3, 9.5, 10.5], atol=0.15)


def test_a_recording_that_begins_between_two_key_frames_shows_nothing_before_the_next(tmp_path: Path) -> None:
    first = encode(tmp_path / "1.ts", 3, f"{X264} {B_FRAMES}", "-c:a mp2", "")
    second = encode(tmp_path / "2.ts", 3, f"{X264} {B_FRAMES}", "-c:a mp2", "-output_ts_offset 3000", 90)
    data = second.read_bytes()
    second.write_bytes(data[len(data) // 188 * 55 // 100 * 188 :])
    alone = PyavDecoder(second, None)
    num_frames = round((alone.info.duration_seconds - alone.info.start_seconds) * 25)
    alone.close()
    decoder = PyavDecoder(append(tmp_path / "both.ts", first, second), None)
    expected = reference(second, (96, 72)).frames[-num_frames:]
    end = decoder.info.duration_seconds
    shown = decoder.get_frames_played_at([end - (i - 0.5) / 25 for i in range(num_frames, 0, -1)])
    for frame, right in zip(shown, expected, strict=True):
        np.testing.assert_allclose(frame.data.astype(int), right, atol=2)
    decoder.close()


@pytest.mark.parametrize("extension", ["mp4", "mkv"])
def test_a_pause_in_a_file_for_browsers_is_kept(extension: str, tmp_path: Path) -> None:
    """Chromium holds the picture for as long as the file says, so that its seconds and ours stay the same."""
    decoder = PyavDecoder(gap(tmp_path / f"pause.{extension}", 300), None)
    times = [frame.pts_seconds for frame in decoder.get_frames_played_at([200.0, 305.0])]
    decoder.close()
    np.testing.assert_allclose(times, [3.96, 305.0], atol=0.05)


def test_a_slow_slide_show_keeps_its_times(tmp_path: Path) -> None:
    path = tmp_path / "slides.ts"
    source = SOURCE.format(size="96x72", rate="1/15", seconds=75)
    ffmpeg("-f", "lavfi", "-i", source, *X264.split(), str(path))
    with VideoReader(path) as reader:
        assert reader.info.duration_seconds == pytest.approx(75, abs=1)


def test_decord_refuses_a_clock_that_starts_again(tmp_path: Path) -> None:
    pytest.importorskip("decord", reason="the package decord2 is not installed")
    parts = [encode(tmp_path / f"{i}.webm", 2, VP8, "", "") for i in range(2)]
    with pytest.raises(VideoError, match="its clock starts again: use decoder pyav"):
        VideoReader(append(tmp_path / "both.webm", *parts), decoder="decord")
