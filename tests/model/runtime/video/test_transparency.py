"""Transparent pictures are shown over black, as the ffmpeg program lays them over it."""

import re
from pathlib import Path

import numpy as np
import pytest

from model.runtime.errors import VideoError
from model.runtime.video import VideoReader
from tests.support.clips import encoders, ffmpeg

# A third of the picture is transparent, with colours under it, a third half so, a third opaque.
SOURCE = (
    "testsrc2=size=96x72:rate=10:duration=1,hue=h=37*n,format=rgba,"
    "geq=r='r(X,Y)':g='g(X,Y)':b='b(X,Y)':a='if(lt(X,32),0,if(lt(X,64),128,255))'"
)
KINDS = {
    "qtrle.mov": "-c:v qtrle -pix_fmt argb",
    "prores.mov": "-c:v prores_ks -profile:v 4444 -pix_fmt yuva444p10le",
    "vp9.webm": "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -pix_fmt yuva420p",
    "vp8.webm": "-c:v libvpx -deadline realtime -auto-alt-ref 0 -pix_fmt yuva420p",
    "ffv1.mkv": "-c:v ffv1 -pix_fmt yuva420p",
    "ffv1_rgb.mkv": "-c:v ffv1 -pix_fmt bgra",
    "moving.apng": "-c:v apng -plays 0",
}


def _make(name: str, folder: Path) -> Path:
    codec = re.search(r"-c:v (\S+)", KINDS[name])
    if codec and codec[1] not in encoders():
        pytest.skip(f"this build of ffmpeg has no encoder {codec[1]}")
    path = folder / name
    ffmpeg("-f", "lavfi", "-i", SOURCE, *KINDS[name].split(), str(path))
    return path


@pytest.mark.parametrize("name", KINDS)
def test_transparent_pictures_are_shown_over_black(name: str, tmp_path: Path) -> None:
    path = _make(name, tmp_path)
    decoder = {"vp9.webm": ("-c:v", "libvpx-vp9"), "vp8.webm": ("-c:v", "libvpx")}.get(name, ())
    done = ffmpeg(
        *("-f", "lavfi", "-i", "color=black:s=96x72:r=10:d=1,format=rgb24", *decoder, "-i", str(path)),
        *("-filter_complex", "[1]format=rgba[top];[0][top]overlay=format=rgb,format=rgb24"),
        *("-f", "rawvideo", "-"),
    )
    expected = np.frombuffer(done.stdout, np.uint8).reshape(-1, 72, 96, 3).astype(int)
    with VideoReader(path, max_side=None) as reader:
        [segment] = reader.segments()
        assert reader.damage is None
    shown = segment.frames.data.astype(int)
    assert shown.shape == expected.shape == (10, 72, 96, 3)
    assert shown[:, :, :32].max() <= 1
    # The two scale chroma in different ways at sharp edges.
    assert np.abs(shown - expected).mean() < 1.5
    assert np.percentile(np.abs(shown - expected), 95) <= 8


def test_shrunk_pictures_have_no_colours_from_under_the_transparent_part(tmp_path: Path) -> None:
    path = tmp_path / "edge.mov"
    source = (
        "color=white:size=96x72:rate=10:duration=0.5,format=rgba,geq=r=255:g=255:b=255:a='if(lt(X,48),0,255)'"
    )
    ffmpeg("-f", "lavfi", "-i", source, "-c:v", "qtrle", "-pix_fmt", "argb", str(path))
    with VideoReader(path, max_side=32) as reader:
        [segment] = reader.segments()
    shown = segment.frames.data[0].astype(int)
    assert shown[:, :14].max() == 0
    assert shown[:, 18:].min() >= 250


def test_webm_with_alpha_can_be_read_again_and_from_key_frame_to_key_frame(tmp_path: Path) -> None:
    path = _make("vp9.webm", tmp_path)
    with VideoReader(path, max_side=None) as reader:
        whole = next(reader.segments()).frames.data
        parts = [s.frames.data for s in reader.segments(segment_seconds=0.2, frames_per_segment=2)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_an_opaque_picture_with_alpha_is_unchanged(tmp_path: Path) -> None:
    frames = []
    for pixels in ("bgra", "bgr0"):
        path = tmp_path / f"{pixels}.mkv"
        source = "testsrc2=size=96x72:rate=10:duration=0.5"
        ffmpeg("-f", "lavfi", "-i", source, "-c:v", "ffv1", "-pix_fmt", pixels, str(path))
        with VideoReader(path, max_side=48) as reader:
            frames.append(next(reader.segments()).frames.data)
    np.testing.assert_array_equal(frames[0], frames[1])


def test_decord_refuses_transparent_files(tmp_path: Path) -> None:
    pytest.importorskip("decord", reason="the package decord2 is not installed")
    with pytest.raises(VideoError, match="it is transparent: use decoder pyav"):
        VideoReader(_make("qtrle.mov", tmp_path), decoder="decord")


@pytest.mark.parametrize(
    "encode", ["-c:v rawvideo -pix_fmt bgr0", "-c:v rawvideo -pix_fmt pal8", "-c:v cinepak"]
)
def test_old_files_without_alpha_are_not_taken_for_transparent(encode: str, tmp_path: Path) -> None:
    path = tmp_path / "old.avi"
    ffmpeg("-f", "lavfi", "-i", "color=white:size=96x72:rate=10:duration=0.5", *encode.split(), str(path))
    with VideoReader(path) as reader:
        assert next(reader.segments()).frames.data.mean() > 240
