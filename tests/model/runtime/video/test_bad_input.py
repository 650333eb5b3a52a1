"""Files that are damaged, incomplete, or no videos at all."""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.runtime.video import Segment, VideoError, VideoReader, probe
from tests.support.clips import Clips, clips, ffmpeg, reference

__all__ = ["clips"]


def read(path: Path) -> tuple[list[Segment], str | None, float]:
    with VideoReader(path, max_side=None) as reader:
        return list(reader.segments()), reader.damage, reader.info.duration_seconds


def cut(path: Path, folder: Path, share: float = 0.55) -> Path:
    data = path.read_bytes()
    short = folder / f"cut_{path.name}"
    short.write_bytes(data[: int(len(data) * share)])
    return short


@pytest.mark.parametrize(
    ("file", "arguments", "said"),
    [
        ("faststart.mp4", "-movflags +faststart", True),
        ("whole.mkv", "", True),
        ("whole.flv", "", True),
        # These do not say how long they should be.
        ("whole.ts", "", False),
        ("whole_fragments.mp4", "-movflags +frag_keyframe+empty_moov+default_base_moof", False),
    ],
)
def test_a_file_without_its_last_part_is_read_as_far_as_it_goes(
    file: str, arguments: str, said: bool, clips: Clips, tmp_path: Path
) -> None:
    whole = tmp_path / file
    ffmpeg("-i", str(clips("b_frames")), "-c", "copy", *arguments.split(), str(whole))
    expected = reference(whole, (96, 72))
    [segment], damage, duration = read(cut(whole, tmp_path))
    assert 1.2 < duration < 2
    assert segment.span.end_seconds == duration
    if said:
        assert damage is not None
        assert f"ends at {duration:.1f} s of 3." in damage
    assert len(segment.frames) > 10
    for frame, time in zip(segment.frames.data, segment.frames.pts_seconds, strict=True):
        if time < duration - 0.3:  # the last few were predicted from what is missing
            index = expected.at(time)
            assert expected.times[index] == pytest.approx(time, abs=0.0011)
            np.testing.assert_allclose(frame.astype(int), expected.frames[index], atol=2)


def test_a_movie_without_its_index_is_corrupt(clips: Clips, tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="damaged or not a media file") as caught:
        read(cut(clips("b_frames"), tmp_path))  # the index of this one stands at its end
    assert caught.value.verdict == "corrupt"


def test_reading_goes_on_after_damage_in_the_middle(clips: Clips, tmp_path: Path) -> None:
    whole = clips("b_frames")
    expected = reference(whole, (96, 72))
    data = bytearray(whole.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = random.Random(1).randbytes(2000)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(data)
    [segment], damage, duration = read(broken)
    assert duration == 3
    assert damage is not None
    assert "damaged packets or frames" in damage
    for number in (0, len(segment.frames) - 1):
        index = expected.at(segment.frames.pts_seconds[number])
        np.testing.assert_allclose(segment.frames.data[number].astype(int), expected.frames[index], atol=2)


def test_a_file_whose_last_part_is_zeros_ends_where_its_frames_end(clips: Clips, tmp_path: Path) -> None:
    whole = tmp_path / "whole.mp4"
    ffmpeg(
        "-stream_loop",
        "19",
        "-i",
        str(clips("b_frames")),
        "-c",
        "copy",
        "-movflags",
        "+faststart",
        str(whole),
    )
    data = whole.read_bytes()
    kept = int(len(data) * 0.4)
    broken = tmp_path / "download.mp4"
    broken.write_bytes(data[:kept] + bytes(len(data) - kept))
    with VideoReader(broken) as reader:
        segments = list(reader.segments(segment_seconds=6))
        assert reader.damage is not None
        assert "no frame after" in reader.damage
    assert 3 <= len(segments) <= 5
    assert 15 < segments[-1].span.end_seconds < 30
    assert [s.index for s in segments] == list(range(len(segments)))


def test_a_recording_that_starts_between_key_frames_starts_with_the_first_whole_frame(
    clips: Clips, tmp_path: Path
) -> None:
    packets = clips("mpeg2_ts").read_bytes()
    late = tmp_path / "late.ts"
    late.write_bytes(packets[188 * 12 :])
    expected = reference(late, (96, 72))
    [segment], damage, _ = read(late)
    assert damage is None
    for frame, time in zip(segment.frames.data, segment.frames.pts_seconds, strict=True):
        index = expected.at(time)
        assert expected.times[index] == pytest.approx(time, abs=0.0011)
        np.testing.assert_allclose(frame.astype(int), expected.frames[index], atol=2)


def write_sound(path: Path, *arguments: str) -> None:
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", *arguments, str(path))


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    picture = tmp_path / "cover.jpg"
    Image.new("RGB", (32, 24), (200, 10, 10)).save(picture)
    cases: dict[str, tuple[str, str]] = {
        "sound.mp4": ("unsupported", "audio only"),
        "sound.wav": ("unsupported", "audio only"),
        "song.mp3": ("unsupported", "audio only"),
        "song.m4a": ("unsupported", "audio only"),
        "words.mp4": ("unsupported", "is text, not a video"),
        "mots.mp4": ("unsupported", "is text, not a video"),
        "list.mp4": ("unsupported", "is text, not a video"),
        "subtitles.mp4": ("unsupported", "no video stream"),
        "empty.mp4": ("corrupt", "is empty"),
        "zeros.mp4": ("corrupt", "damaged or not a media file"),
        "noise.mp4": ("corrupt", "damaged or not a media file"),
        "folder.mp4": ("unsupported", "is a folder"),
        "missing.mp4": ("unsupported", "No such file or directory"),
        "pipe.mp4": ("unsupported", "not a regular file"),
        "photo_jpg.mp4": ("unsupported", "still image"),
        "photo_png.mp4": ("unsupported", "still image"),
        "photo_webp.mp4": ("unsupported", "still image"),
    }
    write_sound(tmp_path / "sound.mp4")
    write_sound(tmp_path / "sound.wav")
    cover = ("-i", str(picture), "-map", "0", "-map", "1", "-c:v", "copy", "-disposition:v", "attached_pic")
    write_sound(tmp_path / "song.mp3", *cover)
    write_sound(tmp_path / "song.m4a", *cover)
    (tmp_path / "words.mp4").write_text("not a video\n" * 200)
    (tmp_path / "mots.mp4").write_text("é" * 5000, encoding="utf-8")
    (tmp_path / "list.mp4").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n"
    )
    (tmp_path / "words.srt").write_text("1\n00:00:00,000 --> 00:00:02,000\nHello\n")
    ffmpeg("-i", str(tmp_path / "words.srt"), "-c:s", "mov_text", str(tmp_path / "subtitles.mp4"))
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "zeros.mp4").write_bytes(bytes(5000))
    (tmp_path / "noise.mp4").write_bytes(random.Random(2).randbytes(20000))
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    for kind in ("jpg", "png", "webp"):
        Image.new("RGB", (32, 24), (10, 200, 10)).save(tmp_path / f"photo.{kind}")
        shutil.move(tmp_path / f"photo.{kind}", tmp_path / f"photo_{kind}.mp4")
    for name, (verdict, words) in cases.items():
        for attempt in (probe, read):
            with pytest.raises(VideoError, match=words) as caught:
                attempt(tmp_path / name)
            assert caught.value.verdict == verdict, name
            assert str(tmp_path / name) in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_refused(clips: Clips, tmp_path: Path) -> None:
    secret = tmp_path / "secret.mp4"
    shutil.copy(clips("constant"), secret)
    secret.chmod(0)
    with pytest.raises(VideoError, match="Permission denied"):
        probe(secret)


@pytest.mark.parametrize(
    "name", ["имя с пробелом 文件.mp4", "100%d.mp4", "concat:a|b.mp4", "-i.mp4", "'q\".mp4"]
)
def test_names_are_only_names(name: str, clips: Clips, tmp_path: Path) -> None:
    path = tmp_path / name
    shutil.copy(clips("constant"), path)
    segments, damage, duration = read(path)
    assert (len(segments[0].frames), damage, duration) == (16, None, 3)


def test_a_name_need_not_be_text(clips: Clips, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff\xe9.mp4")
    shutil.copy(clips("constant"), path)
    segments, damage, duration = read(path)
    assert (len(segments[0].frames), damage, duration) == (16, None, 3)


def test_a_relative_name_is_no_address(clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(clips("constant"), "concat:x.mp4")
    assert probe("concat:x.mp4").duration_seconds == 3


def test_8k_is_read(tmp_path: Path) -> None:
    path = tmp_path / "8k.mp4"
    ffmpeg(
        *("-f", "lavfi", "-i", "color=red:size=7680x4320:rate=2:duration=1"),
        *("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", str(path)),
    )
    with VideoReader(path) as reader:
        assert (reader.info.width, reader.info.height) == (7680, 4320)
        [segment] = reader.segments()
    assert segment.frames.data.shape == (2, 288, 512, 3)
    assert (segment.frames.data[..., 0] > 200).all()
    assert (segment.frames.data[..., 1:] < 50).all()


def test_nothing_is_written_to_the_terminal(clips: Clips, tmp_path: Path) -> None:
    broken = cut(clips("hevc"), tmp_path, 0.9)
    noisy = cut(clips("open_gop_ts"), tmp_path, 0.7)
    code = (
        "import sys\n"
        "from model.runtime.video import VideoError, VideoReader\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n"
        "        with VideoReader(path) as reader:\n"
        "            print(len(list(reader.segments())))\n"
        "    except VideoError as error:\n"
        "        print(error.verdict)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, broken, noisy],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("corrupt\n1\n", "", 0)
