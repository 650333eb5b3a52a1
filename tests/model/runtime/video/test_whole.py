"""A whole file is called whole, wherever its times start and whatever lasts longest; a short one is not."""

from pathlib import Path

import pytest

from model.runtime.video import VideoReader
from tests.support.clips import SOURCE, ffmpeg

PICTURE = SOURCE.format(size="96x72", rate=25, seconds=10)
X264 = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -g 25"
WHOLE = {
    "webm at 7 s": ("webm", "-c:v libvpx -deadline realtime -cpu-used 8 -output_ts_offset 7"),
    "mkv at 7 s": ("mkv", f"{X264} -output_ts_offset 7"),
    "mp4 at 7 s": ("mp4", f"{X264} -output_ts_offset 7"),
    "flv at 7 s": ("flv", f"{X264} -output_ts_offset 7"),
    "mkv at an hour": ("mkv", f"{X264} -output_ts_offset 3600"),
}


def read(path: Path) -> tuple[float, str | None]:
    with VideoReader(path) as reader:
        list(reader.segments())
        return reader.info.duration_seconds, reader.damage


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_that_starts_late_is_whole(name: str, tmp_path: Path) -> None:
    extension, options = WHOLE[name]
    path = tmp_path / f"late.{extension}"
    ffmpeg("-f", "lavfi", "-i", PICTURE, *options.split(), str(path))
    duration, damage = read(path)
    assert damage is None
    assert duration == pytest.approx(10, abs=0.1)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    if extension in ("mkv", "webm"):
        _, damage = read(path)
        assert damage is not None
        assert "s of 10.0 s" in damage


@pytest.mark.parametrize("extension", ["mkv", "mp4"])
def test_subtitles_and_sound_that_end_later_are_no_loss(extension: str, tmp_path: Path) -> None:
    path, lines = tmp_path / f"long.{extension}", tmp_path / "lines.srt"
    # One line that is shown on from before the last seconds, one that starts after the picture.
    lines.write_text("1\n00:00:02,000 --> 00:00:20,000\nOn\n\n2\n00:00:21,000 --> 00:00:25,000\nThe end\n")
    inputs = ("-f", "lavfi", "-i", PICTURE, "-f", "lavfi", "-i", "sine=duration=13", "-i", str(lines))
    kind = "mov_text" if extension == "mp4" else "srt"
    ffmpeg(*inputs, "-map", "0", "-map", "1", "-map", "2", *X264.split(), "-c:s", kind, str(path))
    duration, damage = read(path)
    assert damage is None
    assert duration == pytest.approx(10, abs=0.1)
