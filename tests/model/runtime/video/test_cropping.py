"""What containers crop (clean aperture, PixelCrop) is cropped as the ffmpeg program does it."""

from pathlib import Path

import numpy as np
import pytest

from model.runtime.errors import VideoError
from model.runtime.video import VideoReader, probe
from tests.support.clips import Clips, clips, ffmpeg, reference
from tests.support.sample_entries import clean_aperture, insert_box

__all__ = ["clips"]


def _same_as_ffmpeg(path: Path, size: tuple[int, int]) -> None:
    expected = reference(path, size)
    with VideoReader(path, max_side=None) as reader:
        assert (reader.info.width, reader.info.height) == size
        for segment in reader.segments(segment_seconds=1, frames_per_segment=5):
            shown = [expected.at(time) for time in segment.frames.pts_seconds]
            np.testing.assert_allclose(segment.frames.data.astype(int), expected.frames[shown], atol=2)


@pytest.mark.parametrize("container", ["mp4", "mkv"])
@pytest.mark.parametrize(
    ("aperture", "size"),
    [
        (clean_aperture(64, 48), (64, 48)),
        (clean_aperture(64, 48, right=16, down=-12), (64, 48)),
        (clean_aperture(96, 54), (96, 54)),
        (clean_aperture(63, 47, right=1, down=1), (62, 46)),  # to whole chroma samples
    ],
)
def test_the_aperture_is_shown(
    aperture: bytes, size: tuple[int, int], container: str, clips: Clips, tmp_path: Path
) -> None:
    path = insert_box(clips("b_frames"), tmp_path / "clap.mp4", b"clap", aperture)
    if container == "mkv":
        ffmpeg("-i", str(path), "-c", "copy", str(tmp_path / "crop.mkv"))
        path = tmp_path / "crop.mkv"
    _same_as_ffmpeg(path, size)


@pytest.mark.parametrize(
    "aperture",
    [clean_aperture(200, 48), clean_aperture(64, 48, right=400), clean_aperture(0, 48), bytes(32), b"short"],
)
def test_an_impossible_aperture_is_ignored(aperture: bytes, clips: Clips, tmp_path: Path) -> None:
    path = insert_box(clips("constant"), tmp_path / "clap.mp4", b"clap", aperture)
    assert (probe(path).width, probe(path).height) == (96, 72)


def test_the_picture_is_cropped_before_it_is_turned_and_stretched(clips: Clips, tmp_path: Path) -> None:
    aperture = clean_aperture(64, 48, right=16, down=-12)
    cropped = insert_box(clips("b_frames"), tmp_path / "clap.mp4", b"clap", aperture)
    turned = tmp_path / "turned.mp4"
    ffmpeg("-display_rotation", "90", "-i", str(cropped), "-c", "copy", str(turned))
    _same_as_ffmpeg(insert_box(clips("rotated_90"), turned, b"clap", aperture), (48, 64))
    wide = insert_box(clips("wide_pixels"), tmp_path / "wide.mp4", b"clap", aperture)
    _same_as_ffmpeg(wide, (96, 48))


def test_the_track_that_is_shown_decides(clips: Clips, tmp_path: Path) -> None:
    two = tmp_path / "two.mp4"
    inputs = ("-i", str(clips("constant")), "-i", str(clips("all_key_frames")))
    ffmpeg(*inputs, "-map", "0:v", "-map", "1:v", "-c", "copy", "-disposition:v:1", "0", str(two))
    other = insert_box(two, tmp_path / "other.mp4", b"clap", clean_aperture(64, 48), track=1)
    assert probe(other).width == 96
    shown = insert_box(two, tmp_path / "shown.mp4", b"clap", clean_aperture(64, 48), track=0)
    assert probe(shown).width == 64
    for path, width in ((other, 96), (shown, 64)):
        ffmpeg(
            *("-i", str(path), "-f", "lavfi", "-i", "sine=d=1", "-map", "1", "-map", "0"),
            *("-c:v", "copy", str(path.with_suffix(".mkv"))),
        )
        assert probe(path.with_suffix(".mkv")).width == width


def test_fields_and_high_dynamic_range_are_cropped_too(tmp_path: Path) -> None:
    plain = tmp_path / "plain.mp4"
    ffmpeg(
        *("-f", "lavfi", "-i", "color=red:s=96x72:r=10:d=1,drawbox=16:12:64:48:lime:fill"),
        *(
            "-vf",
            "format=yuv420p10le,setparams=color_trc=smpte2084:color_primaries=bt2020:colorspace=bt2020nc",
        ),
        *("-c:v", "libx264", "-qp", "1", "-flags", "+ildct", "-x264-params", "tff=1", str(plain)),
    )
    with VideoReader(insert_box(plain, tmp_path / "clap.mp4", b"clap", clean_aperture(64, 48))) as reader:
        [segment] = reader.segments()
    inner = segment.frames.data.astype(int)
    assert inner.shape[1:3] == (48, 64)
    assert (inner[..., 1] > inner[..., 0] + 50).all()


def test_decord_refuses_cropped_files(clips: Clips, tmp_path: Path) -> None:
    pytest.importorskip("decord", reason="the package decord2 is not installed")
    path = insert_box(clips("bt709_tv_8"), tmp_path / "clap.mp4", b"clap", clean_aperture(64, 48))
    with pytest.raises(VideoError, match="its container crops it: use decoder pyav"):
        VideoReader(path, decoder="decord")
