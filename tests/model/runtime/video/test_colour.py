"""Colour matrices: those that FFmpeg's scaler refuses are read as players read them."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model.runtime.video import VideoReader
from tests.support.clips import LEFT, ffmpeg, reference

# YCgCo, constant luminance, SMPTE 2085, derived from the primaries, ICtCp, IPT-C2, reversible YCgCo.
REFUSED = (8, 10, 11, 12, 13, 14, 15, 16, 17)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("matrices") / "plain.h264"
    source = "testsrc2=size=96x72:rate=10:duration=1,hue=h=37*n"
    ffmpeg(
        "-f",
        "lavfi",
        "-i",
        source,
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-pix_fmt",
        "yuv420p",
        str(path),
    )
    return path


def _named(plain: Path, matrix: int, path: Path) -> Path:
    ffmpeg("-i", str(plain), "-c", "copy", "-bsf:v", f"h264_metadata=matrix_coefficients={matrix}", str(path))
    return path


def _frames(path: Path) -> NDArray[np.int_]:
    with VideoReader(path, max_side=None) as reader:
        [segment] = reader.segments()
        assert reader.damage is None
        return segment.frames.data.astype(int)


@pytest.mark.parametrize("matrix", REFUSED)
def test_a_matrix_that_the_scaler_refuses_is_read_as_bt709(matrix: int, plain: Path, tmp_path: Path) -> None:
    named = _named(plain, matrix, tmp_path / f"{matrix}.mp4")
    expected = reference(_named(plain, 1, tmp_path / "709.mp4"), (96, 72), LEFT)
    np.testing.assert_allclose(_frames(named), expected.frames, atol=2)


@pytest.mark.parametrize("matrix", [0, 3, 18, 30, 255])
def test_a_matrix_without_meaning_is_read_as_an_unnamed_one(matrix: int, plain: Path, tmp_path: Path) -> None:
    named = _named(plain, matrix, tmp_path / f"{matrix}.mp4")
    np.testing.assert_array_equal(_frames(named), _frames(_named(plain, 2, tmp_path / "2.mp4")))


def test_interlaced_frames_with_such_a_matrix_are_read(tmp_path: Path) -> None:
    path = tmp_path / "fields.mp4"
    source = "color=olive:size=96x72:rate=10:duration=1"
    encode = (
        "-c:v",
        "libx264",
        "-pix_fmt",
        "yuv420p",
        "-flags",
        "+ildct",
        "-x264-params",
        "tff=1:colormatrix=YCgCo",
    )
    ffmpeg("-f", "lavfi", "-i", source, *encode, str(path))
    assert _frames(path).shape == (10, 72, 96, 3)


def test_deep_full_range_pictures_with_such_a_matrix_are_read(tmp_path: Path) -> None:
    frames = []
    for name in ("bt709", "bt2020c"):
        path = tmp_path / f"{name}.mkv"
        ffmpeg(
            *("-f", "lavfi", "-i", "testsrc2=size=96x72:rate=10:duration=1"),
            *("-vf", "scale=out_color_matrix=bt709:out_range=pc,format=yuv444p10le", "-color_range", "pc"),
            *("-c:v", "libx264", "-preset", "ultrafast", "-x264-params", f"colormatrix={name}", str(path)),
        )
        frames.append(_frames(path))
    np.testing.assert_array_equal(frames[0], frames[1])
