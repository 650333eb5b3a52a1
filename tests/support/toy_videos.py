"""Videos made of colours, a tone without a picture, and files that no decoder can read whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from indexer.library.records import displayable
from tests.support.toy_bundle import COLOURS


def make_video(
    path: str | Path,
    *,
    parts: Sequence[tuple[str, float]] = (("red", 2.0), ("blue", 1.0)),
    size: tuple[int, int] = (64, 48),
    fps: int = 10,
    codec: str = "libx264",
    audio: bool = False,
    title: str | None = None,
) -> Path:
    """Write a video of coloured parts: (colour, seconds) each. The container follows the path's suffix.

    `size` is (width, height), both even; `audio` adds a 440 Hz tone. Files of other names have other contents
    where the container has room for a comment, so that they are no copies.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        container.metadata["comment"] = displayable(path.name.encode("utf-8", "surrogateescape"))
        if title is not None:
            container.metadata["title"] = title
        stream = container.add_stream(codec, rate=fps)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        if codec == "libx264":
            stream.options = {"preset": "ultrafast"}
        sound = container.add_stream("aac", rate=16000, layout="mono") if audio else None
        for colour, seconds in parts:
            pixels = np.full((size[1], size[0], 3), COLOURS[colour], np.uint8)
            for _ in range(round(seconds * fps)):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
        if sound is not None:
            _add_tone(container, sound, sum(seconds for _, seconds in parts))
    return path


def write_slides(path: Path, shades: Mapping[int, int], *, sound_seconds: float = 0.0) -> Path:
    """Write a Matroska file of grey pictures: at each second one of a shade, 0 to 255. A tone starts at 0."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=1)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgr0"
        if sound_seconds:
            _add_tone(container, container.add_stream("aac", rate=16000, layout="mono"), sound_seconds)
        for second, shade in shades.items():
            pixels = np.full((48, 64, 3), shade, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="bgr0")
            frame.pts, frame.time_base = second, Fraction(1)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def make_audio(path: str | Path, *, seconds: float = 1.0) -> Path:
    """Write a file that holds a 440 Hz tone and no picture."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        _add_tone(container, container.add_stream("aac", rate=16000, layout="mono"), seconds)
    return path


def _add_tone(container: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    count = round(seconds * 16000)
    tone = (0.1 * np.sin(2 * np.pi * 440 * np.arange(count) / 16000)).astype(np.float32)
    for start in range(0, count, 1024):
        frame = av.AudioFrame.from_ndarray(tone[None, start : start + 1024], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16000, start
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def make_corrupt_files(folder: str | Path) -> dict[str, Path]:
    """Write files that no decoder can read whole, and return them by what is wrong with them."""
    folder = Path(folder)
    whole = make_video(folder / "whole.mkv", parts=[("red", 2.0), ("blue", 2.0)])
    data = whole.read_bytes()
    whole.unlink()
    files = {
        "empty": (folder / "empty.mp4", b""),
        "text": (folder / "text.mp4", b"This is no video.\n" * 200),
        "noise": (folder / "noise.mp4", np.random.default_rng(0).bytes(20_000)),
        "header_only": (folder / "header only.mkv", data[:300]),
        "truncated": (folder / "truncated.mkv", data[: len(data) * 3 // 4]),
    }
    for path, content in files.values():
        path.write_bytes(content)
    paths = {name: path for name, (path, _) in files.items()}
    paths["audio"] = make_audio(folder / "audio.m4a")
    return paths
