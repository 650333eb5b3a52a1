"""Cuts sound of any length into stretches in which somebody speaks, within bounded memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.media import SoundChunk
from model.runtime.video.sound import RATE

#: Seconds of sound that are looked at together.
LOOK_SECONDS = 60.0
#: The longest stretch, in seconds: less than Whisper takes at once. It is cut where the speaker pauses.
MOST_SECONDS = 28.0
#: Sound whose samples all stay below this is silence (-60 dB of the loudest): it is not looked at.
_QUIET = 33
#: A stretch that ends closer to the end of what is known may go on.
_OPEN_SECONDS = 2.5
#: Sound before a stretch that may belong to it.
_LEAD_SECONDS = 0.5
#: A chunk that begins later than this after the one before does not go on from it.
_GAP_SECONDS = 0.01


@dataclass(frozen=True, eq=False)
class Spoken:
    """A stretch in which somebody speaks.

    Attributes:
        start_seconds: when it begins, from the start of the video.
        samples: float32 [n], from -1 to 1, `RATE` a second.
    """

    start_seconds: float
    samples: NDArray[np.float32]


FindSpeech = Callable[[NDArray[np.float32]], list[tuple[int, int]]]
"""Finds in sound, float32 [n], where somebody speaks: start and end as samples, in order, none longer than
`MOST_SECONDS`."""


def spoken_parts(chunks: Iterator[SoundChunk], find_speech: FindSpeech) -> Iterator[Spoken]:
    """The stretches in which somebody speaks, in the order of their times.

    Args:
        chunks: the sound of a video.
        find_speech: finds speech in about a minute of it. It is not called for silence.
    """
    held: list[NDArray[np.int16]] = []
    start = 0.0
    for chunk in chunks:
        end = start + sum(map(len, held)) / RATE
        if held and chunk.start_seconds - end > _GAP_SECONDS:
            yield from _found(start, np.concatenate(held), find_speech)[0]
            held = []
        if not held:
            start = chunk.start_seconds
        held.append(chunk.samples)
        if sum(map(len, held)) >= LOOK_SECONDS * RATE:
            sound = np.concatenate(held)
            parts, rest = _found(start, sound, find_speech, may_go_on=True)
            yield from parts
            start += rest / RATE
            held = [sound[rest:].copy()]
    if held:
        yield from _found(start, np.concatenate(held), find_speech)[0]


def _found(
    start: float, sound: NDArray[np.int16], find_speech: FindSpeech, *, may_go_on: bool = False
) -> tuple[list[Spoken], int]:
    """The stretches that are complete, and where the sound begins that is to be looked at again."""
    spans: list[tuple[int, int]] = []
    samples = np.empty(0, np.float32)
    # As 32 bits: the absolute value of the least 16-bit number does not fit.
    if len(sound) and np.abs(sound.astype(np.int32)).max() >= _QUIET:
        samples = sound.astype(np.float32) / np.float32(32768)
        spans = find_speech(samples)
    rest = max(0, len(sound) - round(_LEAD_SECONDS * RATE))
    if may_go_on and spans and spans[-1][1] > len(sound) - _OPEN_SECONDS * RATE and spans[-1][0] > 0:
        rest = spans.pop()[0]
    elif spans:
        rest = max(rest, spans[-1][1])
    return [Spoken(start + a / RATE, samples[a:b].copy()) for a, b in spans], rest
