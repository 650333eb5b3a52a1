"""The stage that finds cuts: where a shot ends and another one begins, by TransNetV2."""

import math
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from indexer.library.schema import VideoRow
from indexer.media import MediaKind, PictureChunk
from indexer.stages.base import StageName, StageResult
from indexer.stages.transnet import GRAPH, WIDTH, ShotNetwork, read_probabilities
from model.runtime.errors import InputError

#: A frame that is the last one of its shot with at least this probability ends it; as published.
THRESHOLD = 0.5
# Another number lets the next run look for cuts again.
_VERSION = 1


class ShotsStage:
    """A `Stage` that looks for cuts in all frames of a video, at 48 × 27 pixels.

    Args:
        threads: how many threads compute, on the CPU: decoding takes longer than a network so small.

    Raises:
        InputError: the installation is incomplete.
    """

    name: StageName = "shots"
    key = f"TransNetV2 {_VERSION}"
    media: MediaKind = "small_pictures"
    max_side = WIDTH

    def __init__(self, threads: int = 1) -> None:
        if not GRAPH.is_file():
            raise InputError(f"{GRAPH} is missing: install reelfind again, or leave out --shots", "shots")
        self._threads = threads
        self._network: ShotNetwork | None = None

    def read(self, video: VideoRow, chunks: Iterator[PictureChunk]) -> StageResult:
        """See `Stage`."""
        del video
        self._network = self._network or ShotNetwork(self._threads)
        cuts = find_cuts(read_probabilities(chunks, self._network))
        # Of frames that appear within a millisecond, one counts.
        return StageResult(cut_seconds=tuple(dict.fromkeys(cuts)))

    def close(self) -> None:
        """Free the network."""
        self._network = None


def find_cuts(parts: Iterable[tuple[NDArray[np.float64], NDArray[np.float32]]]) -> Iterator[float]:
    """Where shots begin, but for the first, in seconds, rising.

    Frames in a row with probabilities of at least `THRESHOLD` are one cut: after the most probable of them,
    the first of equals. Of a gradual transition this is the middle. A shot begins when its first frame
    appears; the time is rounded up to the millisecond, so that this frame is shown then.

    Args:
        parts: times of a video's frames, rising, and the probabilities of cuts after them, [F] each.
    """
    highest = 0.0
    begins: float | None = None  # when the frame after the most probable one of a row appears
    was_highest = False
    for times, probabilities in parts:
        for time, probability in zip(times.tolist(), probabilities.tolist(), strict=True):
            if was_highest:
                begins = time
            was_highest = probability >= THRESHOLD and probability > highest
            if was_highest:
                highest = probability
            if probability < THRESHOLD and begins is not None:
                yield _rounded_up(begins)
                highest, begins = 0.0, None
    # After the last frame of a video there is no shot.
    if begins is not None and not was_highest:
        yield _rounded_up(begins)


def _rounded_up(seconds: float) -> float:
    return math.ceil(seconds * 1000 - 1e-3) / 1000
