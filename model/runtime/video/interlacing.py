"""Makes one picture of the two fields of an interlaced frame, which are moments apart."""

from collections.abc import Iterator
from fractions import Fraction
from typing import cast

import av
import numpy as np
from av.filter import Graph
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from model.runtime.video.colour import matrix_of
from model.runtime.video.cropping import filtered

# Given one frame alone, yadif keeps the first field and replaces those pixels of the other that form a comb.
DEINTERLACE = ("yadif", "mode=send_frame:parity=auto:deint=all")
# Given all frames in order, it makes the pixels of the other field from those before and after too.
DEINTERLACE_IN_ORDER = ("yadif", "mode=send_frame:parity=auto:deint=interlaced")
_TICK = Fraction(1, 1000)
# A frame is combed where, in a block of 8 x 8 pixels, at least 8 change by more than 20 of 255. Fine still
# detail and the noise of encoding change fewer.
BLOCK = 8
MIN_CHANGED = 8
MIN_CHANGE = 20


def as_progressive(frame: av.VideoFrame) -> av.VideoFrame:
    """The frame as one picture: de-interlaced if anything in it moves, else with both fields as they are."""
    if not frame.interlaced_frame:
        return frame
    woven = filtered(frame, ("setfield", "prog"))  # scaling by fields would leave comb artefacts
    if frame.width < BLOCK or frame.height < BLOCK:
        return woven
    try:
        single = filtered(frame, DEINTERLACE)
    except (av.FFmpegError, OSError):  # neither yadif nor the scaler takes this format with this matrix
        return woven
    return single if _differ(_luma(woven), _luma(single)) else woven


class Deinterlacer:
    """Makes progressive pictures of the frames of one video, which follow each other.

    It looks at the frames before and after too, and is faster than `as_progressive`, which knows one frame
    alone. For each frame it gives one picture, in order, but later. Frames that are progressive, or that
    FFmpeg's filter does not take, come as they are.
    """

    def __init__(self) -> None:
        self._shape: tuple[int, int, str] | None = None
        self._graph: Graph | None = None
        self._num_frames = 0

    def add(self, frame: av.VideoFrame) -> Iterator[av.VideoFrame]:
        """Take the next frame; give the pictures that are ready."""
        shape = (frame.width, frame.height, frame.format.name)
        if shape != self._shape:
            yield from self.rest()
            self._shape = shape
            self._open(frame)
        if self._graph is None:
            yield frame
            return
        frame.pts = self._num_frames = self._num_frames + 1
        frame.time_base = _TICK
        self._source.push(frame)
        yield from self._ready()

    def rest(self) -> Iterator[av.VideoFrame]:
        """Give the pictures of the frames that were taken so far."""
        if self._graph is not None:
            self._source.push(None)
            yield from self._ready()
        self._shape = self._graph = None

    def _open(self, frame: av.VideoFrame) -> None:
        graph = Graph()
        self._source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=_TICK
        )
        self._sink = graph.add("buffersink")
        try:
            graph.link_nodes(self._source, graph.add(*DEINTERLACE_IN_ORDER), self._sink).configure()
        except (av.FFmpegError, OSError):
            self._graph = None
        else:
            self._graph = graph

    def _ready(self) -> Iterator[av.VideoFrame]:
        while True:
            try:
                yield cast(av.VideoFrame, self._sink.pull())
            except (av.BlockingIOError, av.EOFError):
                return


def _luma(frame: av.VideoFrame) -> NDArray[np.uint8]:
    matrix = matrix_of(frame)
    grey = VideoReformatter().reformat(
        frame, format="gray", src_colorspace=matrix, dst_colorspace=matrix, threads=1
    )
    return grey.to_ndarray().astype(np.uint8, copy=False)


def _differ(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    """Whether two pictures [h, w] differ clearly in any block."""
    height, width = (side // BLOCK * BLOCK for side in one.shape)
    changed = np.maximum(one, other) - np.minimum(one, other) > MIN_CHANGE
    blocks = changed[:height, :width].reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    return bool((blocks.sum(axis=(1, 3)) >= MIN_CHANGED).any())
