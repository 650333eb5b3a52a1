"""Videos to measure with: made once into a cache folder, the same on every machine with the same encoder."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

FRAMES_PER_SECOND = 25
_SCENE_SECONDS = 5
_OCTAVES = (4, 8, 16, 32, 64, 128, 256)


def cached(path: Path, make: Callable[[Path], object]) -> Path:
    """Make `path` unless it is there; half a file never takes its name."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}")
        make(partial)
        partial.replace(path)
    return path


def write_video(path: Path, *, width: int, height: int, seconds: float, seed: int) -> None:
    """Write an H.264 file: camera moves over textures with the spectrum of photographs, a cut every 5 s.

    There is a key frame every 2 s, as web video has.
    """
    with av.open(str(path), "w", format="mp4") as container:
        options = {"preset": "veryfast", "crf": "23", "g": str(2 * FRAMES_PER_SECOND)}
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = Fraction(1, FRAMES_PER_SECOND)
        for picture in _pictures(width, height, round(seconds * FRAMES_PER_SECOND), seed):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def repeat_video(source: Path, path: Path, times: int) -> None:
    """Play `source` `times` times over in one file: packets are copied, nothing is encoded again."""
    with av.open(str(source)) as reader, av.open(str(path), "w", format="mp4") as writer:
        stream = reader.streams.video[0]
        copy = writer.add_stream_from_template(stream)
        if stream.duration is None:
            raise ValueError(f"{source} does not say how long it is, so it cannot be repeated")
        for turn in range(times):
            reader.seek(0)
            for packet in reader.demux(stream):
                if packet.dts is None or packet.pts is None:
                    continue  # the flush packet at the end
                packet.pts += turn * stream.duration
                packet.dts += turn * stream.duration
                packet.stream = copy
                writer.mux(packet)


def _pictures(width: int, height: int, count: int, seed: int) -> Iterator[NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    margin = 64
    for number in range(count):
        phase = number % (_SCENE_SECONDS * FRAMES_PER_SECOND)
        if phase == 0:
            scene = _texture(height + margin, width + margin, rng)
            dx, dy = rng.integers(0, 2, 2)
        step = min(margin, phase // 2)
        left, top = (step if dx else margin - step), (step if dy else margin - step)
        yield np.ascontiguousarray(scene[top : top + height, left : left + width])


def _texture(height: int, width: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Noise whose finer octaves are fainter: [height, width, 3]."""
    total = np.zeros((height, width, 3), np.float32)
    for cells in _OCTAVES:
        noise = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        octave = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        total += np.asarray(octave, np.float32) * (4 / cells)
    low, high = total.min(), total.max()
    scaled: NDArray[np.uint8] = ((total - low) * (255 / (high - low))).astype(np.uint8)
    return scaled
