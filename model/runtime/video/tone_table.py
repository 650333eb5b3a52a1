"""Maps pictures of high dynamic range by a table: much faster than `ToneMapping`, nearly the same colours.

The table holds what `ToneMapping` makes of a grid of colours; FFmpeg's filter `haldclut` interpolates in it.
"""

from fractions import Fraction
from typing import cast

import av
import numpy as np
from av.filter import Graph
from av.filter.context import FilterContext
from av.video.format import VideoFormat
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from model.runtime.video.tone_mapping import CODES, ToneMapping

# A picture of LEVEL³ rows and columns holds a grid of LEVEL² steps for each of R, G and B.
LEVEL = 8
_TICK = Fraction(1, 1000)


class ToneTable:
    """Maps the pictures of one video, as the `ToneMapping` does that it is made of.

    Args:
        mapping: of pictures that are not stored as ICtCp or IPT: FFmpeg's filter knows R'G'B' alone.

    Raises:
        ValueError: the pictures are.
    """

    def __init__(self, mapping: ToneMapping) -> None:
        if mapping.is_perceptual:
            raise ValueError("a table maps R'G'B' alone: use the mapping itself")
        self._mapping = mapping
        self._reformatter = VideoReformatter()
        self._filter: _Filter | None = None

    def __call__(
        self, frame: av.VideoFrame, width: int, height: int, scaler: Interpolation
    ) -> NDArray[np.uint8]:
        """Scale a frame and map it. → uint8 [height, width, 3]."""
        matrix = Colorspace.ITU709 if self._mapping.matrix == 1 else Colorspace.BT2020
        scaled = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="rgb48le",
            src_colorspace=matrix,
            dst_colorspace=matrix,
            interpolation=scaler,
            dst_color_range=ColorRange.JPEG,
            threads=1,
        )
        if self._filter is None or self._filter.size != (width, height):
            self._filter = _Filter((width, height), self._table())
        return (self._filter(scaled) >> 8).astype(np.uint8)

    def _table(self) -> av.VideoFrame:
        steps = LEVEL**2
        codes = np.rint(np.linspace(0, CODES - 1, steps)).astype(np.uint16)
        blue, green, red = np.meshgrid(codes, codes, codes, indexing="ij")
        grid = np.stack([red, green, blue], axis=-1).reshape(LEVEL**3, LEVEL**3, 3)
        # Half a step more, so that the upper byte of what is interpolated is rounded.
        shown = self._mapping.map_codes(grid).astype(np.uint16) * 256 + 128
        return av.VideoFrame.from_ndarray(shown, format="rgb48le")


class _Filter:
    """FFmpeg's filter for pictures of one size, with its table."""

    def __init__(self, size: tuple[int, int], table: av.VideoFrame) -> None:
        self.size = size
        self._graph = Graph()
        self._source = self._buffer(*size)
        tables = self._buffer(table.width, table.height)
        mapper = self._graph.add("haldclut", "interp=tetrahedral")
        self._sink = self._graph.add("buffersink")
        self._source.link_to(mapper, 0, 0)
        tables.link_to(mapper, 0, 1)
        mapper.link_to(self._sink)
        self._graph.configure()
        table.pts = 0
        tables.push(table)
        tables.push(None)
        self._num_mapped = 0

    def _buffer(self, width: int, height: int) -> FilterContext:
        form = VideoFormat("rgb48le", width, height)
        return self._graph.add_buffer(width=width, height=height, format=form, time_base=_TICK)

    def __call__(self, picture: av.VideoFrame) -> NDArray[np.uint16]:
        # The filter leaves a picture without a time, or from before the table's, as it is.
        picture.pts = self._num_mapped = self._num_mapped + 1
        picture.time_base = _TICK
        self._source.push(picture)
        return cast(av.VideoFrame, self._sink.pull()).to_ndarray().astype(np.uint16, copy=False)
