"""Makes the videos to measure with, once in a cache folder; the same wherever the encoder is the same."""

from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.runtime.files import replacing
from model.runtime.video.writing import write_h264

FRAMES_PER_SECOND = 25
_SCENE_SECONDS = 5
_OCTAVES = (4, 8, 16, 32, 64, 128, 256)


def cached(path: Path, make: Callable[[Path], object]) -> Path:
    """Make the file `path` unless it exists; a half-written file never has its name."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            make(temporary)
    return path


def write_video(path: Path, *, width: int, height: int, seconds: float, seed: int) -> None:
    """Write an H.264 file: camera moves over textures with the spectrum of photographs, a cut every 5 s.

    There is a key frame every 2 s, as in web videos.
    """
    frames = _frames(width, height, round(seconds * FRAMES_PER_SECOND), seed)
    options = {"preset": "veryfast", "crf": "23", "g": str(2 * FRAMES_PER_SECOND)}
    write_h264(path, frames, FRAMES_PER_SECOND, options)


def repeat_video(source: Path, path: Path, times: int) -> None:
    """Write `source` `times` times in a row into one file; packets are copied, nothing is encoded again."""
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


def _frames(width: int, height: int, count: int, seed: int) -> Iterator[NDArray[np.uint8]]:
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
    """Noise whose finer octaves are fainter. → uint8 [height, width, 3]."""
    total = np.zeros((height, width, 3), np.float32)
    for cells in _OCTAVES:
        noise = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        octave = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        total += np.asarray(octave, np.float32) * (4 / cells)
    low, high = total.min(), total.max()
    scaled: NDArray[np.uint8] = ((total - low) * (255 / (high - low))).astype(np.uint8)
    return scaled
