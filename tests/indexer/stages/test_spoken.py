"""Sound is cut into stretches of speech: those of the whole, however long it is and however it comes."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.media import SoundChunk
from indexer.stages.spoken import LOOK_SECONDS, MOST_SECONDS, Spoken, spoken_parts
from model.runtime.video.sound import RATE


def loud(samples: NDArray[np.float32]) -> list[tuple[int, int]]:
    """Where it is loud, with pauses shorter than two seconds, at most `MOST_SECONDS` at once."""
    places = np.flatnonzero(np.abs(samples) > 0.1)
    if not len(places):
        return []
    breaks = np.flatnonzero(np.diff(places) > 2 * RATE)
    starts = places[np.append(0, breaks + 1)]
    ends = places[np.append(breaks, len(places) - 1)] + 1
    most = round(MOST_SECONDS * RATE)
    return [
        (first, min(first + most, end))
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
        for first in range(start, end, most)
    ]


def sound_of(spans: list[tuple[float, float]], seconds: float) -> NDArray[np.int16]:
    sound = np.zeros(round(seconds * RATE), np.int16)
    for start, end in spans:
        sound[round(start * RATE) : round(end * RATE)] = 9000
    return sound


def chunks_of(sound: NDArray[np.int16], seconds: float, start: float = 0.0) -> Iterator[SoundChunk]:
    step = round(seconds * RATE)
    for first in range(0, len(sound), step):
        yield SoundChunk(start + first / RATE, sound[first : first + step])


def spans_of(parts: Iterator[Spoken]) -> list[tuple[float, float]]:
    return [(p.start_seconds, p.start_seconds + len(p.samples) / RATE) for p in parts]


@pytest.mark.parametrize("seconds", [0.7, 10.0, 59.0])
def test_stretches_are_those_of_the_whole(seconds: float) -> None:
    # Some of them cross the places where the sound is cut, and one of them begins just before such a place.
    spans = [(1.0, 4.0), (58.0, 66.0), (69.0, 70.0), (119.9, 121.0), (150.0, 177.0), (181.5, 182.0)]
    found = spans_of(spoken_parts(chunks_of(sound_of(spans, 200.0), seconds), loud))
    np.testing.assert_allclose(found, spans, atol=1e-3)


def test_endless_speech_is_cut() -> None:
    sound = sound_of([(0.0, 300.0)], 300.0)
    found = spans_of(spoken_parts(chunks_of(sound, 10.0), loud))
    assert all(end - start <= MOST_SECONDS + 1e-6 for start, end in found)
    assert found[0][0] == 0.0
    assert found[-1][1] == pytest.approx(300.0)
    np.testing.assert_allclose([start for start, _ in found[1:]], [end for _, end in found[:-1]], atol=1e-3)


def test_a_gap_ends_a_stretch_and_times_go_on_after_it() -> None:
    sound = sound_of([(1.0, 10.0)], 10.0)
    chunks = [*chunks_of(sound, 5.0), *chunks_of(sound, 5.0, start=100.0)]
    found = spans_of(spoken_parts(iter(chunks), loud))
    np.testing.assert_allclose(found, [(1.0, 10.0), (101.0, 110.0)], atol=1e-3)


def test_silence_is_not_looked_at_and_takes_no_memory() -> None:
    looked: list[int] = []

    def look(samples: NDArray[np.float32]) -> list[tuple[int, int]]:
        looked.append(len(samples))
        return loud(samples)

    quiet = np.full(10 * RATE, 3, np.int16)
    hours = (SoundChunk(10.0 * number, quiet) for number in range(5 * 360))
    tracemalloc.start()
    try:
        assert list(spoken_parts(hours, look)) == []
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert looked == []
    assert most < 3 * 4 * (LOOK_SECONDS + 10) * RATE, "five hours take no more than a minute"


def test_no_sound() -> None:
    assert list(spoken_parts(iter([]), loud)) == []
