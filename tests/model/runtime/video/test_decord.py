"""decord gives the frames that the ffmpeg program shows, or refuses the file: it is never silently wrong.

Tolerance as for PyAV: a difference of 0 was measured wherever decord reads a file at all.
"""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from model.runtime.errors import ReelfindError
from model.runtime.video import VideoError, VideoReader
from tests.support.clips import CLIPS, GUESSED, Clips, clips, ffmpeg, reference

pytest.importorskip("decord", reason="the package decord2 is not installed")
__all__ = ["clips"]

REFUSED = {
    "offset": "stream of the kind mpegts",
    "all_key_frames_ts": "stream of the kind mpegts",
    "open_gop_ts": "stream of the kind mpegts",
    "intra_refresh": "stream of the kind mpegts",
    "fields": "it is interlaced",
    "fields_mkv": "it is interlaced",
    "mpeg2_ts": "stream of the kind mpegts",
    "mpeg2_ps": "stream of the kind mpeg",
    "edit_list": "edit list hides frames",
    "no_times": "no presentation times",
    "mpeg4_avi": "does not count the same frames as the file has",
    "no_duration": "broken metadata",
    "mirrored": "mirrored",
    "turned_and_mirrored": "mirrored",
}


@pytest.mark.parametrize("name", CLIPS)
def test_frames_are_those_of_the_ffmpeg_program_or_the_file_is_refused(name: str, clips: Clips) -> None:
    path = clips(name)
    if name in REFUSED:
        with pytest.raises(VideoError, match=f"{REFUSED[name]}.*: use decoder pyav") as caught:
            VideoReader(path, decoder="decord")
        assert caught.value.verdict == "unsupported"
        return
    with VideoReader(path, max_side=None) as reader:
        own = [s.frames for s in reader.segments(segment_seconds=1.1, frames_per_segment=5)]
        info = reader.info
    with VideoReader(path, decoder="decord", max_side=None) as reader:
        assert reader.info == info
        segments = list(reader.segments(segment_seconds=1.1, frames_per_segment=5))
        assert reader.damage is None
    expected = reference(path, (info.width, info.height), GUESSED)
    assert len(segments) == len(own)
    for segment, same in zip(segments, own, strict=True):
        np.testing.assert_array_equal(segment.frames.pts_seconds, same.pts_seconds)
        np.testing.assert_allclose(segment.frames.duration_seconds, same.duration_seconds, atol=0.0011)
        for time, frame in zip(segment.frames.pts_seconds, segment.frames.data, strict=True):
            index = expected.at(time)
            assert time == pytest.approx(expected.times[index], abs=0.0011)
            np.testing.assert_allclose(frame.astype(int), expected.frames[index], atol=2)


@pytest.mark.parametrize("max_side", [64, 48, 33])
def test_frames_are_scaled_like_those_of_the_ffmpeg_program(max_side: int, clips: Clips) -> None:
    path = clips("rotated_90")
    with VideoReader(path, decoder="decord", max_side=max_side) as reader:
        [segment] = reader.segments()
    height, width = segment.frames.data.shape[1:3]
    assert (width, height) == (round(72 * max_side / 96), max_side)
    expected = reference(path, (width, height), GUESSED)
    shown = [expected.at(t) for t in segment.frames.pts_seconds]
    np.testing.assert_allclose(segment.frames.data.astype(int), expected.frames[shown], atol=2)


@pytest.mark.parametrize(
    ("file", "arguments"), [("vp9.webm", ""), ("h264.mkv", ""), ("h264.mp4", "-movflags +faststart")]
)
def test_a_file_without_its_last_part_is_right_or_refused(
    file: str, arguments: str, clips: Clips, tmp_path: Path
) -> None:
    whole, short = tmp_path / file, tmp_path / f"cut_{file}"
    ffmpeg(
        "-i", str(clips("vp9" if "vp9" in file else "b_frames")), "-c", "copy", *arguments.split(), str(whole)
    )
    short.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.55)])
    expected = reference(whole, (96, 72), GUESSED)
    if file == "h264.mp4":
        with pytest.raises(VideoError, match="it is damaged: use decoder pyav"):
            VideoReader(short, decoder="decord")
        return
    with VideoReader(short, decoder="decord") as reader:
        [segment] = reader.segments()
        assert reader.damage is not None
        assert "ends at 1." in reader.damage
    assert len(segment.frames) > 10
    for time, frame in zip(segment.frames.pts_seconds, segment.frames.data, strict=True):
        if time < reader.info.duration_seconds - 0.3:
            np.testing.assert_allclose(frame.astype(int), expected.frames[expected.at(time)], atol=2)


def test_damage_in_the_middle_is_an_error(
    clips: Clips, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(clips("b_frames").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 2000] = bytes(2000)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(data)
    with VideoReader(broken, decoder="decord") as reader, pytest.raises(VideoError, match="use decoder pyav"):
        list(reader.segments())
    assert capfd.readouterr().err == ""


def test_an_unnamed_matrix_in_high_definition_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hd.mp4"
    source = ("-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=2:duration=1")
    encode = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
    ffmpeg(*source, *encode, str(path))
    with pytest.raises(VideoError, match="names no colour matrix that can be used: use decoder pyav"):
        VideoReader(path, decoder="decord")
    ffmpeg(*source, *encode, "-colorspace", "bt709", str(path))
    with VideoReader(path, decoder="decord") as reader:
        assert len(list(reader.segments())) == 1


def test_a_reader_may_be_read_again(clips: Clips) -> None:
    for name in ("open_gop", "constant"):
        with VideoReader(clips(name), decoder="decord") as reader:
            once = [s.frames.data for s in reader.segments()]
            again = [s.frames.data for s in reader.segments()]
        np.testing.assert_array_equal(once, again)


def test_what_is_no_video_is_named_as_by_pyav(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "words.mp4").write_text("not a video")
    for name, verdict in (("empty.mp4", "corrupt"), ("words.mp4", "unsupported")):
        with pytest.raises(VideoError) as caught:
            VideoReader(tmp_path / name, decoder="decord")
        assert caught.value.verdict == verdict


def test_a_name_that_is_no_text_is_refused(clips: Clips, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff.mp4")
    shutil.copy(clips("constant"), path)
    with pytest.raises(VideoError, match="name is not UTF-8: use decoder pyav"):
        VideoReader(path, decoder="decord")


def test_a_missing_package_is_named_with_its_remedy(clips: Clips, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "model.runtime.video.decord_decoder", None)
    with pytest.raises(ReelfindError, match=r"pip install .*decord2.*, or use decoder pyav"):
        VideoReader(clips("constant"), decoder="decord")
