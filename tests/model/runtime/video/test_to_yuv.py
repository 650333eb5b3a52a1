"""Frames as encoders take them show what the RGB pictures of the same frames show."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace

from model.runtime.video import ReadingLimits
from model.runtime.video.onward import OnwardReader
from model.runtime.video.render import Renderer
from tests.support.clips import Clips, clips
from tests.support.paths import ROOT

__all__ = ["clips"]
CLIPS = (
    *("bt601_tv_8", "bt709_tv_8", "bt709_pc_8", "bt2020_tv_10", "bt601_pc_10", "mjpeg", "gif", "wide_pixels"),
    *("rotated_90", "rotated_180", "mirrored", "fields", "odd_size"),
)


@pytest.mark.parametrize("name", [*CLIPS, "hevc_hdr.mp4", "vp8_alpha.webm", "animation.mov"])
def test_the_pictures_are_the_same(name: str, clips: Clips) -> None:
    path: Path = clips(name) if name in CLIPS else ROOT / "tests/fuzz/seeds" / name
    reader = OnwardReader(path, ReadingLimits())
    frame = next(reader.frames(0.2)).image
    native = Renderer(frame, reader.stream.sample_aspect_ratio, None, reader.header)
    size = (native.size[0] // 2 * 2, native.size[1] // 2 * 2)
    renderer = Renderer(frame, reader.stream.sample_aspect_ratio, None, reader.header, size)
    expected, image = renderer(frame), renderer.to_yuv(frame)
    reader.close()
    assert (image.format.name, image.width, image.height) == ("yuv420p", *size)
    shown = av.VideoFrame.reformat(
        image,
        format="rgb24",
        src_colorspace=Colorspace.ITU709,
        src_color_range=ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
    ).to_ndarray()
    # Colours are stored for four pixels together: compare blocks of them.
    height, width = (side // 4 * 4 for side in expected.shape[:2])
    blocks = [
        picture[:height, :width].astype(float).reshape(height // 4, 4, width // 4, 4, 3).mean(axis=(1, 3))
        for picture in (shown, expected)
    ]
    difference = np.abs(blocks[0] - blocks[1])
    assert difference.mean() < 4
    assert np.quantile(difference, 0.9) < 12
