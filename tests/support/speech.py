"""Speech made by eSpeak NG, and videos that hold it."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from tests.support.toy_bundle import COLOURS

RATE = 16000


@cache
def spoken(text: str, voice: str = "en-us") -> NDArray[np.int16]:
    """A text as it sounds, `RATE` samples a second; always the same."""
    command = [sys.executable, "-P", str(Path(__file__).with_name("espeak.py")), text, voice]
    rate, _, data = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.partition(b"\n")
    own = np.frombuffer(data, np.int16)
    frame = av.AudioFrame.from_ndarray(own[None], format="s16", layout="mono")
    frame.sample_rate = int(rate)
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    frames = [*resampler.resample(frame), *resampler.resample(None)]
    return np.concatenate([each.to_ndarray().reshape(-1) for each in frames]).astype(np.int16)


def silence(seconds: float) -> NDArray[np.int16]:
    """So many seconds in which nothing sounds."""
    return np.zeros(round(seconds * RATE), np.int16)


def make_spoken_video(
    path: Path,
    sound: NDArray[np.int16] | None,
    *,
    colour: str = "red",
    seconds: float | None = None,
    sound_starts: float = 0.0,
    codec: str = "aac",
    layout: str = "mono",
) -> Path:
    """Write a video of one colour with sound, int16 [n] at `RATE`; None: with no stream of sound.

    The picture is as long as the sound, or `seconds`; the sound begins `sound_starts` seconds after it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    length = seconds if seconds is not None else sound_starts + (0 if sound is None else len(sound)) / RATE
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=5, options={"preset": "ultrafast"})
        assert isinstance(picture, av.VideoStream)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        track = None if sound is None else container.add_stream(codec, rate=RATE, layout=layout)
        pixels = np.full((48, 64, 3), COLOURS[colour], np.uint8)
        for _ in range(max(1, round(length * 5))):
            container.mux(picture.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(picture.encode(None))
        if isinstance(track, av.AudioStream) and sound is not None:
            _encode(container, track, sound, round(sound_starts * RATE))
    return path


def _encode(
    container: av.container.OutputContainer, track: av.AudioStream, sound: NDArray[np.int16], start: int
) -> None:
    resampler = av.AudioResampler(format=track.format, layout=track.layout, rate=track.rate, frame_size=1024)
    for first in range(0, len(sound), RATE):
        frame = av.AudioFrame.from_ndarray(sound[None, first : first + RATE], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, start + first, Fraction(1, RATE)
        for ready in resampler.resample(frame):
            container.mux(track.encode(ready))
    for ready in resampler.resample(None):
        container.mux(track.encode(ready))
    container.mux(track.encode(None))


def said(*parts: str | float, voice: str = "en-us") -> NDArray[np.int16]:
    """Texts, and pauses in seconds, one after the other."""
    return np.concatenate([spoken(p, voice) if isinstance(p, str) else silence(p) for p in parts])
