"""Pictures and videos with text in them, drawn by OpenCV, which carries fonts for many scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


@dataclass(frozen=True)
class Written:
    """A text to draw: where its base line begins, the size of its letters in pixels, and its colours.

    `outline` is drawn around the letters, as around those of subtitles; None: nothing is.
    """

    text: str
    at: tuple[int, int]
    size: int = 24
    colour: tuple[int, int, int] = WHITE
    outline: tuple[int, int, int] | None = BLACK


def plain(size: tuple[int, int] = (640, 360), shade: int = 40) -> Picture:
    """A picture of one grey, (width, height)."""
    return np.full((size[1], size[0], 3), shade, np.uint8)


def busy(size: tuple[int, int] = (640, 360), seed: int = 0) -> Picture:
    """A picture of many coloured shapes, none of which is a letter."""
    rng = np.random.default_rng(seed)
    picture = plain(size, 90)
    for _ in range(120):
        x, y = (int(rng.integers(0, side)) for side in size)
        colour = tuple(rng.integers(0, 256, 3).tolist())
        axes = int(rng.integers(20, 120)), int(rng.integers(20, 120))
        cv2.ellipse(picture, (x, y), axes, float(rng.integers(0, 180)), 0, 360, colour, -1)
    return np.asarray(cv2.GaussianBlur(picture, (5, 5), 0), np.uint8)


def write_on(picture: Picture, *texts: Written) -> Picture:
    """The picture with texts on it; the picture itself stays."""
    drawn = np.ascontiguousarray(picture).copy()
    font = cv2.FontFace("uni")
    for each in texts:
        if each.outline is not None:
            for dx, dy in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                at = each.at[0] + dx, each.at[1] + dy
                cv2.putText(drawn, each.text, at, each.outline, font, each.size, 400)
        cv2.putText(drawn, each.text, each.at, each.colour, font, each.size, 400)
    return drawn


def make_written_video(
    path: Path, pictures: Sequence[tuple[Picture, float]], *, fps: int = 5, codec: str = "libx264"
) -> Path:
    """Write a video of pictures: each is shown for so many seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = pictures[0][0].shape[:2]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if codec == "libx264":
            stream.options = {"preset": "ultrafast", "crf": "23"}
        for picture, seconds in pictures:
            for _ in range(round(seconds * fps)):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def with_sound_of(film: Path, sound: Path, path: Path) -> Path:
    """Write a video with the pictures of one file and the sound of another."""
    with av.open(str(film)) as pictures, av.open(str(sound)) as sounds, av.open(str(path), "w") as container:
        sources = [(pictures, pictures.streams.video[0]), (sounds, sounds.streams.audio[0])]
        # All streams before the first packet.
        written = [container.add_stream_from_template(stream) for _, stream in sources]
        for (source, stream), target in zip(sources, written, strict=True):
            for packet in source.demux(stream):
                if packet.dts is not None:
                    packet.stream = target
                    container.mux(packet)
    return path
