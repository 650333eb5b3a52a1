"""Turns a decoded frame into upright RGB of the wanted size."""

import struct
from fractions import Fraction
from typing import Self

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from model.runtime.video.colour import matrix_of
from model.runtime.video.cropping import Cropper
from model.runtime.video.interlacing import as_progressive
from model.runtime.video.side_data import side_data
from model.runtime.video.tone_mapping import ToneMapping
from model.runtime.video.tone_table import ToneTable
from model.runtime.video.track_header import TrackHeader
from model.runtime.video.transparency import over_black

SCALER = Interpolation.BICUBIC


class Orientation:
    """How stored frames are turned and mirrored for display."""

    def __init__(self, transpose: bool, flip_rows: bool, flip_columns: bool) -> None:
        self.transpose = transpose
        self.flip_rows = flip_rows
        self.flip_columns = flip_columns

    @classmethod
    def of(cls, frame: av.VideoFrame) -> Self:
        """Read a frame's display matrix; other angles are rounded to the nearest quarter turn."""
        data = side_data(frame, "DISPLAYMATRIX")
        if data is None or len(data) < 36:
            return cls(False, False, False)
        # Rows of the matrix: (a, b, u), (c, d, v), (x, y, w). A pixel goes to (a x + c y, b x + d y).
        a, b, _, c, d = struct.unpack("=9i", data[:36])[:5]
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return cls(False, d < 0, a < 0)
        return cls(True, b < 0, c < 0)

    @property
    def rotation(self) -> int:
        """Degrees clockwise, without the mirroring."""
        if self.transpose:
            return 90 if self.flip_columns else 270
        return 180 if self.flip_rows and self.flip_columns else 0

    @property
    def is_upright(self) -> bool:
        """Whether frames are shown as they are stored."""
        return not (self.transpose or self.flip_rows or self.flip_columns)

    @property
    def mirrored(self) -> bool:
        """Whether frames are mirrored as well as turned."""
        return (self.flip_rows != self.flip_columns) != self.transpose

    def apply(self, data: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn an array upright: [h, w, 3] → [h, w, 3] or [w, h, 3]."""
        if self.transpose:
            data = data.transpose(1, 0, 2)
        data = data[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]
        return np.ascontiguousarray(data)


def display_size(width: int, height: int, aspect: Fraction | None) -> tuple[int, int]:
    """Width and height with square pixels; the side that is too short is stretched, as players do."""
    if not aspect or aspect <= 0 or not Fraction(1, 20) < aspect < 20:
        return width, height
    if aspect > 1:
        return round(width * aspect), height
    return width, round(height / aspect)


def fit(width: int, height: int, max_side: int | None) -> tuple[int, int]:
    """Shrink a size to at most `max_side` on the longer side and keep its aspect ratio; never enlarge it."""
    longer = max(width, height)
    if max_side is None or longer <= max_side:
        return width, height
    return max(1, round(width * max_side / longer)), max(1, round(height * max_side / longer))


class Renderer:
    """Turns every frame of one video into RGB of one size.

    Args:
        first: a frame of the video.
        aspect: width of a pixel by its height.
        max_side: pixels on the longer side, at most; None keeps the native size.
        header: what the container says of the track.
        exact: width and height to squeeze frames to, instead of `max_side`.
        quick: map pictures of high dynamic range by a table: see `ToneTable`.

    Attributes:
        interlaced: the first frame is of two fields.
        cropper: cuts off what the container says is not shown.
        orientation: how frames are turned.
        size: width and height as displayed.
        output_size: width and height of the RGB frames.
        assumes_matrix: the file names no colour matrix that can be used, and BT.709 is assumed.
        transparent: black shows through the first frame.
        tone_mapping: how the first frame is mapped, if it is of high dynamic range.
    """

    def __init__(
        self,
        first: av.VideoFrame,
        aspect: Fraction | None,
        max_side: int | None,
        header: TrackHeader,
        exact: tuple[int, int] | None = None,
        *,
        quick: bool = False,
    ) -> None:
        self.interlaced = first.interlaced_frame
        self.cropper = Cropper(header.crop, first)
        self.orientation = Orientation.of(first)
        first = self.cropper(first)
        stored = display_size(first.width, first.height, aspect)
        self.size = stored[::-1] if self.orientation.transpose else stored
        self._stored = fit(*stored, max_side)
        if exact is not None:
            self._stored = exact[::-1] if self.orientation.transpose else exact
        self.output_size = self._stored[::-1] if self.orientation.transpose else self._stored
        self.assumes_matrix = matrix_of(first) is not None
        self._signal = _signal(first)
        self._dolby_vision = header.dolby_vision
        self.tone_mapping = ToneMapping.of(first, header.dolby_vision)
        self._quick = quick
        self._mapper = self._mapper_of(self.tone_mapping)
        self._other: tuple[tuple[int, int, int], ToneMapping | ToneTable | None] | None = None
        self.transparent = over_black(first) is not first
        self._reformatter, self._to_bt709 = VideoReformatter(), VideoReformatter()

    @property
    def has_other_signals(self) -> bool:
        """Whether frames were of another signal than the first one: the first of these tells how all are
        mapped.
        """
        return self._other is not None

    def __call__(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """Crop, scale and convert a frame. → uint8 [h, w, 3], the same size for every frame of the video."""
        # Fields first: a crop by an odd number of rows would change their places.
        frame = self.cropper(as_progressive(frame))
        return self.orientation.apply(self._scale(frame))

    def to_yuv(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Crop, scale and convert a frame to what encoders take: YUV 4:2:0 of 8 bits, BT.709, limited range.

        Sides must be even (see `exact`). Most frames need no RGB in between, which takes much longer.
        """
        frame = self.cropper(as_progressive(frame))
        is_opaque = over_black(frame) is frame
        if not is_opaque or self._mapper_for(frame) or not self.orientation.is_upright:
            rgb = av.VideoFrame.from_ndarray(self.orientation.apply(self._scale(frame)), format="rgb24")
            return self._to_bt709.reformat(
                rgb,
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                threads=1,
            )
        return self._to_bt709.reformat(
            frame,
            width=self._stored[0],
            height=self._stored[1],
            format="yuv420p",
            src_colorspace=matrix_of(frame),
            dst_colorspace=Colorspace.ITU709,
            interpolation=SCALER,
            dst_color_range=ColorRange.MPEG,
            threads=1,
        )

    def _scale(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """Scale a frame and convert it to RGB. → uint8 [h, w, 3]."""
        if mapper := self._mapper_for(frame):
            return mapper(frame, *self._stored, SCALER)
        frame = over_black(frame)
        matrix = matrix_of(frame)
        rgb = self._reformatter.reformat(
            frame,
            width=self._stored[0],
            height=self._stored[1],
            format="rgb24",
            src_colorspace=matrix,
            dst_colorspace=matrix,
            interpolation=SCALER,
            dst_color_range=ColorRange.JPEG,
            threads=1,
        )
        return rgb.to_ndarray().astype(np.uint8, copy=False)

    def _mapper_for(self, frame: av.VideoFrame) -> ToneMapping | ToneTable | None:
        """What maps a frame: that of the first frame, or for another signal, of the first frame with that."""
        signal = _signal(frame)
        if signal == self._signal:
            return self._mapper
        if self._other is None or self._other[0] != signal:
            self._other = signal, self._mapper_of(ToneMapping.of(frame, self._dolby_vision))
        return self._other[1]

    def _mapper_of(self, mapping: ToneMapping | None) -> ToneMapping | ToneTable | None:
        return ToneTable(mapping) if mapping and self._quick and not mapping.is_perceptual else mapping


def _signal(frame: av.VideoFrame) -> tuple[int, int, int]:
    return frame.color_trc, frame.colorspace, frame.color_primaries
