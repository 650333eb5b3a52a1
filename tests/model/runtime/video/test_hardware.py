"""Decoding by a GPU: its frames are those of software, and without a GPU software takes its place."""

from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, VideoReformatter
from numpy.typing import NDArray

from model.runtime.video import VideoReader
from model.runtime.video.hardware import as_software, why_unavailable
from tests.support.toy_videos import make_video

NO_CUDA = why_unavailable("cuda")


def random_frame(pixel_format: str, bits: int, color_range: ColorRange) -> av.VideoFrame:
    rng = np.random.default_rng(bits)
    frame = av.VideoFrame(66, 50, pixel_format)
    for plane in frame.planes:
        if bits == 8:
            plane.update(rng.integers(0, 256, plane.buffer_size, dtype=np.uint8).tobytes())
        else:
            plane.update(rng.integers(0, 1 << bits, plane.buffer_size // 2, dtype=np.uint16).tobytes())
    frame.color_range, frame.pts = color_range, 7
    return frame


def pixels(frame: av.VideoFrame, bits: int) -> list[NDArray[np.uint8]]:
    """The rows of each plane, without what pads them."""
    width = 1 if bits == 8 else 2
    return [
        np.frombuffer(bytes(plane), np.uint8).reshape(plane.height, -1)[:, : plane.width * width]
        for plane in frame.planes
    ]


@pytest.mark.parametrize(
    ("software", "gpu", "bits", "color_range"),
    [
        ("yuv420p", "nv12", 8, ColorRange.MPEG),
        ("yuvj420p", "nv12", 8, ColorRange.JPEG),
        ("yuv420p10le", "p010le", 10, ColorRange.MPEG),
        ("yuv420p12le", "p016le", 12, ColorRange.MPEG),
    ],
)
def test_a_frame_from_a_gpu_becomes_that_of_software(
    software: str, gpu: str, bits: int, color_range: ColorRange
) -> None:
    frame = random_frame(software, bits, color_range)
    from_gpu = VideoReformatter().reformat(
        frame, format=gpu, src_color_range=color_range, dst_color_range=color_range
    )
    assert from_gpu.format.name == gpu
    found = as_software(from_gpu)
    assert (found.format.name, found.pts) == (software, 7)
    assert (found.color_range, found.colorspace) == (from_gpu.color_range, from_gpu.colorspace)
    for ours, theirs in zip(pixels(found, bits), pixels(frame, bits), strict=True):
        assert np.array_equal(ours, theirs)


def test_a_frame_of_software_stays_as_it_is() -> None:
    frame = random_frame("yuv420p", 8, ColorRange.MPEG)
    assert as_software(frame) is frame


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg4"])
def test_the_frames_are_the_same_wherever_they_are_decoded(tmp_path: Path, codec: str) -> None:
    path = make_video(tmp_path / "video.mp4", codec=codec)
    found = []
    for hwaccel in (None, "cuda"):
        with VideoReader(path, hwaccel=hwaccel) as reader:
            found.append((reader.info, list(reader.segments(1.0, 4)), reader.damage))
    (info, software, damage), (other_info, hardware, other_damage) = found
    assert (other_info, other_damage) == (info, damage)
    assert len(software) == len(hardware) > 1
    for ours, theirs in zip(hardware, software, strict=True):
        assert ours.span == theirs.span
        assert np.array_equal(ours.frames.data, theirs.frames.data)
        assert np.array_equal(ours.frames.pts_seconds, theirs.frames.pts_seconds)


@pytest.mark.skipif(NO_CUDA is not None, reason=f"needs a GPU that decodes: {NO_CUDA}")
def test_a_gpu_decodes(tmp_path: Path) -> None:
    from model.runtime.video.pyav_decoder import PyavDecoder

    decoder = PyavDecoder(make_video(tmp_path / "video.mp4"), None, hwaccel="cuda")
    assert decoder._source.is_on_hwaccel
    decoder.close()


def test_decord_decodes_in_software_alone(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'pyav' alone"):
        VideoReader(tmp_path / "none.mp4", decoder="decord", hwaccel="cuda")
