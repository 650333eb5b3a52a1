"""Runs TransNetV2: how probable it is that a shot ends at a frame, for videos of any length.

The graph is made by `reelfind-model export-shots`. Each frame counts with at least 25 frames on either side,
as in its authors' use; the first and the last frame of a video are repeated around it. They read windows of
100 frames, of which 50 count; windows of 200, of which 150 count, find the same cuts in two thirds of the
time (see `model/RESULTS.md`).

Shapes: F frames of a video, T of a window.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.media import PictureChunk
from model.runtime.bundle.graphs import GraphSpec, TensorSpec
from model.runtime.bundle.sessions import open_session

#: The size of the frames, in pixels.
WIDTH, HEIGHT = 48, 27
#: The graph, beside the licence of its weights.
GRAPH = Path(__file__).parent / "transnetv2" / "transnetv2.onnx"
_SPEC = GraphSpec(
    (TensorSpec("frames", "tensor(uint8)", ("B", "T", HEIGHT, WIDTH, 3)),),
    (TensorSpec("cut", "tensor(float)", ("B", "T")), TensorSpec("transition", "tensor(float)", ("B", "T"))),
)
#: Frames of a window, and how many in its middle count.
WINDOW, STEP = 200, 150
_MARGIN = (WINDOW - STEP) // 2


class ShotNetwork:
    """The graph. `probabilities` may be called from any thread.

    Args:
        threads: how many threads compute.

    Raises:
        BundleError: the graph is damaged.
    """

    def __init__(self, threads: int) -> None:
        self._session = open_session(GRAPH, _SPEC, {}, "cpu", threads, planned_memory=False)

    def probabilities(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """How probable a cut is after each frame of a window. uint8 [T, 27, 48, 3] → float32 [T]"""
        cut: NDArray[np.float32] = self._session.run(["cut"], {"frames": frames[None]})[0][0]
        return cut


def read_probabilities(
    chunks: Iterable[PictureChunk], network: ShotNetwork
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float32]]]:
    """The times of all frames of a video, float64 [F], and the probabilities of cuts after them, float32 [F].

    They come in order, in parts; nothing comes for a video without frames. One window and one chunk are held
    at a time.

    Args:
        chunks: the video's frames in order, 48 × 27 pixels each, in parts of any size.
        network: what computes the probabilities.
    """
    held = np.empty((0, HEIGHT, WIDTH, 3), np.uint8)  # from the start of the next window on
    waiting = np.empty(0, np.float64)  # times of the frames without probabilities
    for chunk in chunks:
        if not len(chunk.data):
            continue
        before = chunk.data[:1].repeat(0 if len(held) else _MARGIN, 0)
        held = np.concatenate([held, before, chunk.data])
        waiting = np.concatenate([waiting, chunk.pts_seconds])
        while len(held) >= WINDOW:
            yield waiting[:STEP], _of_window(held, network)[: len(waiting)]
            held, waiting = held[STEP:], waiting[STEP:]
    while len(waiting):
        padded = np.concatenate([held, held[-1:].repeat(max(0, WINDOW - len(held)), 0)])
        yield waiting[:STEP], _of_window(padded, network)[: len(waiting)]
        held, waiting = held[STEP:], waiting[STEP:]


def _of_window(frames: NDArray[np.uint8], network: ShotNetwork) -> NDArray[np.float32]:
    """The probabilities of the frames in the middle of the first window."""
    return network.probabilities(np.ascontiguousarray(frames[:WINDOW]))[_MARGIN : _MARGIN + STEP]
