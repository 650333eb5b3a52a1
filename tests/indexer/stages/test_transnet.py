"""TransNetV2's graph: what its authors' code says, whole and in chunks, and cuts from probabilities."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.media import PictureChunk
from indexer.stages.shots import THRESHOLD, find_cuts
from indexer.stages.transnet import STEP, WINDOW, ShotNetwork, read_probabilities
from tests.support.toy_shots import REFERENCE, REFERENCE_FADES, REFERENCE_SHOTS, film_of_shots, reference_film


@pytest.fixture(scope="module")
def network() -> ShotNetwork:
    return ShotNetwork(threads=1)


def chunks(frames: NDArray[np.uint8], size: int, fps: float = 25.0) -> Iterator[PictureChunk]:
    for first in range(0, len(frames), size):
        part = frames[first : first + size]
        times = np.arange(first, first + len(part)) / fps
        yield PictureChunk(times, part, (first + len(part)) / fps)


def read(
    frames: NDArray[np.uint8], network: ShotNetwork, size: int
) -> tuple[list[float], NDArray[np.float32]]:
    parts = list(read_probabilities(chunks(frames, size), network))
    times = [time for part, _ in parts for time in part.tolist()]
    return times, np.concatenate([part for _, part in parts] or [np.empty(0, np.float32)])


def test_the_graph_says_what_the_package_says(network: ShotNetwork) -> None:
    film = reference_film()
    padded = np.concatenate([film[:1].repeat(25, 0), film, film[-1:].repeat(25, 0)])
    ours = np.concatenate([network.probabilities(padded[i : i + 100])[25:75] for i in (0, 50, 100)])
    theirs = np.array(json.loads(REFERENCE.read_text(encoding="utf-8")))
    assert np.abs(ours - theirs).max() < 5e-3
    ends = np.cumsum(REFERENCE_SHOTS)[:-1]
    hard = [end - 1 for end, fade in zip(ends, REFERENCE_FADES[1:], strict=True) if not fade]
    assert (theirs[hard] > 0.9).all()


def test_longer_windows_find_the_same_cuts(network: ShotNetwork) -> None:
    times, ours = read(reference_film(), network, 64)
    theirs = np.array(json.loads(REFERENCE.read_text(encoding="utf-8")))
    assert times == (np.arange(len(theirs)) / 25).tolist()
    moments = np.array(times)
    assert list(find_cuts([(moments, ours)])) == list(find_cuts([(moments, theirs.astype(np.float32))]))


def naive(frames: NDArray[np.uint8], network: ShotNetwork) -> NDArray[np.float32]:
    """As the package does: the whole film with 25 frames before it and enough after it, in windows."""
    count = len(frames)
    padded = np.concatenate([frames[:1].repeat(25, 0), frames, frames[-1:].repeat(25 + STEP, 0)])
    windows = range(0, count, STEP)
    found = [network.probabilities(padded[first : first + WINDOW])[25 : 25 + STEP] for first in windows]
    return np.concatenate(found)[:count]


@pytest.mark.parametrize(("count", "size"), [(1, 1), (149, 40), (151, 7)])
def test_chunks_of_any_size_give_the_same(network: ShotNetwork, count: int, size: int) -> None:
    film = np.concatenate([reference_film(), reference_film()])[:count]
    times, probabilities = read(film, network, size)
    np.testing.assert_allclose(probabilities, naive(film, network), atol=1e-5)
    assert len(times) == count


def test_a_video_without_frames_has_none(network: ShotNetwork) -> None:
    assert list(read_probabilities(iter([]), network)) == []
    empty = PictureChunk(np.empty(0), np.empty((0, 27, 48, 3), np.uint8), 0.0)
    assert list(read_probabilities(iter([empty]), network)) == []


def test_cuts_and_the_middle_of_fades_are_found(network: ShotNetwork) -> None:
    lengths, fades = (60, 50, 70, 55), (0, 14, 0, 12)
    film = film_of_shots(lengths, fades)
    found = list(find_cuts(read_probabilities(chunks(film, 100), network)))
    starts = np.cumsum(lengths)[:-1] / 25
    middles = starts + np.array(fades[1:]) / 50
    assert len(found) == 3
    assert found[1] == starts[1]
    np.testing.assert_allclose(found, middles, atol=0.13)


def naive_cuts(times: list[float], probabilities: list[float]) -> list[float]:
    cuts = []
    first = 0
    while first < len(times):
        last = first
        while last < len(times) and probabilities[last] >= THRESHOLD:
            last += 1
        if last > first:
            row = probabilities[first:last]
            after = first + row.index(max(row)) + 1
            if after < len(times):
                cuts.append(times[after])
        first = last + 1
    return cuts


@pytest.mark.parametrize("seed", range(20))
def test_cuts_are_those_of_plain_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 60))
    times = np.cumsum(rng.integers(1, 90, count)) / 1000
    probabilities = rng.choice([0.1, 0.49, 0.5, 0.7, 0.9], count).astype(np.float32)
    borders = np.sort(rng.integers(0, count + 1, 3))
    parts = zip(np.split(times, borders), np.split(probabilities, borders), strict=True)
    expected = naive_cuts(times.tolist(), probabilities.tolist())
    assert list(find_cuts(parts)) == expected


def test_a_cut_is_never_before_its_first_frame() -> None:
    times = np.arange(9) / 29.97 + 1e4
    (cut,) = find_cuts([(times, np.eye(9, dtype=np.float32)[4])])
    assert 0 <= cut - times[5] < 1e-3
