"""The sound of a video from a time on, without gaps: what is not there is silence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model.runtime.video.extent import Extent
from model.runtime.video.limits import ReadingLimits
from model.runtime.video.probe import open_container
from model.runtime.video.sound import SoundReader, pick_sound

#: Samples a second, and channels.
RATE = 48000
CHANNELS: Literal[2] = 2
#: Sound that comes so long after the end of picture and sound is left out.
_MOST_SILENCE_SECONDS = 60.0
#: Samples of one block, at most.
_BLOCK = RATE // 2

Block = NDArray[np.int16]


def has_sound(path: Path, limits: ReadingLimits) -> bool:
    """Whether a file has sound that can be decoded.

    Raises:
        VideoError: the file cannot be opened.
    """
    with open_container(path, limits) as container:
        return pick_sound(container) is not None


def sound_blocks(
    path: Path, limits: ReadingLimits, extent: Extent, start_seconds: float, end_seconds: float | None
) -> Iterator[Block]:
    """Yield the sound from a time on in blocks that follow each other, int16 [n, 2], `RATE` samples a second.

    Args:
        path: the file.
        limits: what reading may take.
        extent: that of its pictures.
        start_seconds: where the first block starts.
        end_seconds: where to end; None: where the sound ends.
    """
    reader = SoundReader(
        path,
        limits,
        rate=RATE,
        channels=CHANNELS,
        start_seconds=start_seconds,
        extent=extent,
        part_seconds=_BLOCK / RATE,
    )
    most = None if end_seconds is None else round((end_seconds - start_seconds) * RATE)
    given = 0
    for part in reader.read():
        if part is None:
            continue
        if part.start_seconds > max(extent.end_seconds, start_seconds + given / RATE) + _MOST_SILENCE_SECONDS:
            # A time that cannot be: nobody waits for it.
            return
        missing = round((part.start_seconds - start_seconds) * RATE) - given
        if most is not None:
            missing = min(missing, most - given)
        for block in silence(missing):
            given += len(block)
            yield block
        samples = part.samples if most is None else part.samples[: most - given]
        if len(samples):
            given += len(samples)
            yield samples
        if most is not None and given >= most:
            return


def silence(num_samples: int) -> Iterator[Block]:
    """Yield blocks of silence of so many samples together."""
    while num_samples > 0:
        block = np.zeros((min(num_samples, _BLOCK), CHANNELS), np.int16)
        num_samples -= len(block)
        yield block
