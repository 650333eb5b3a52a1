"""Cuts off the edges that a container says are not to be shown."""

from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import av
from av.filter import Graph


@dataclass(frozen=True)
class Crop:
    """Columns and rows to cut off the stored frame, before it is stretched and turned."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0

    def __bool__(self) -> bool:
        return any((self.left, self.top, self.right, self.bottom))

    def fits(self, width: int, height: int) -> bool:
        """Whether something is cut off, and something is left of a frame of this size."""
        return bool(self) and self.left + self.right < width and self.top + self.bottom < height


NOTHING = Crop()


class Cropper:
    """Cuts the edges off the frames of one video with FFmpeg's filter, as the ffmpeg program does.

    Where chroma is stored for several pixels together, the edges are moved to whole ones, as there.

    Args:
        crop: what to cut off. A crop that leaves nothing is ignored.
        first: the first frame. Frames of another size are left as they are.
    """

    def __init__(self, crop: Crop, first: av.VideoFrame) -> None:
        self._crop = crop
        self._size = (first.width, first.height)
        self.active = crop.fits(*self._size)

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The part of the frame that is shown."""
        if not self.active or (frame.width, frame.height) != self._size:
            return frame
        crop = self._crop
        width, height = frame.width - crop.left - crop.right, frame.height - crop.top - crop.bottom
        return filtered(frame, ("crop", f"{width}:{height}:{crop.left}:{crop.top}"))


def filtered(frame: av.VideoFrame, *filters: tuple[str, str]) -> av.VideoFrame:
    """Send one frame through filters of FFmpeg, each a name and its options."""
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)
    )
    sink = graph.add("buffersink")
    graph.link_nodes(source, *(graph.add(name, options) for name, options in filters), sink).configure()
    source.push(frame)
    source.push(None)
    return cast(av.VideoFrame, sink.pull())
