"""Decodes packets to frames, notes errors, and gives every frame a time."""

from heapq import heappop, heappush
from typing import NamedTuple

import av
from av.video.stream import VideoStream

from model.runtime.video.demux import ANOTHER_RECORDING
from model.runtime.video.hardware import as_software
from model.runtime.video.timeline import StreamPacket
from model.runtime.video.transparency import decoder_with_alpha

# Codecs in which no frame refers to a frame that is not marked as a reference. (In HEVC, frames of a higher
# temporal layer may.)
SKIPS_UNREFERENCED = ("h264", "mpeg1video", "mpeg2video")

# Stands for a packet where an error comes up only at the end of the stream.
AT_END = -1


class TimedFrame(NamedTuple):
    """A decoded frame and the time it appears, in ticks of its stream."""

    ticks: int
    image: av.VideoFrame


class FrameDecoder:
    """Decodes the packets of one stream.

    Args:
        stream: the packets' stream.
        step: the usual duration of a frame, in ticks.
        bad: receives the byte position of every packet that cannot be decoded and the time of every frame
            that the decoder calls damaged. Errors before the first good frame are not recorded.
        max_pixels: the largest picture.
        refused: receives the byte position of every packet, or the time of every frame, whose picture is
            larger, or of no size that FFmpeg takes.

    Attributes:
        lost_last: a picture was refused at the end, and with it those that other threads had decoded.
    """

    def __init__(
        self, stream: VideoStream, step: int, bad: set[int], max_pixels: int, refused: set[int]
    ) -> None:
        self._context = decoder_with_alpha(stream) or stream.codec_context
        self._step = step
        self._bad = bad
        self._max_pixels = max_pixels
        self._refused = refused
        self.lost_last = False
        self._untimed: list[int] = []
        self._count = 0
        self._last: int | None = None
        self._started = False
        self._can_skip = self._context.codec.canonical_name in SKIPS_UNREFERENCED

    def feed(self, packet: StreamPacket | None, skip: bool = False) -> list[TimedFrame]:
        """Decode one packet, or None at the end; frames come in display order, some packets later.

        With `skip`, the packet is decoded only if other frames refer to it. No frame of another
        recording refers to what came before it.
        """
        if packet is not None and packet.opaque == ANOTHER_RECORDING:
            packet.opaque = None
            before = self.feed(None)
            self.flush()
            self._started = False
            return [*before, *self.feed(packet, skip)]
        if packet is not None:
            if packet.pts is None:
                # Show such frames in the order of decoding, as players do (AVI, raw streams).
                heappush(self._untimed, packet.dts if packet.dts is not None else self._count * self._step)
            self._count += 1
            if packet.is_corrupt and self._started:
                self._bad.add(packet.pos or 0)
        self._context.skip_frame = "NONREF" if skip and self._can_skip else "DEFAULT"
        try:
            images = self._context.decode(packet)
        except Exception as error:
            place = AT_END if packet is None else packet.pos or 0
            # FFmpeg refuses the size of a picture before it takes memory for it, and leaves it at 0.
            if isinstance(error, av.ArgumentError) and not self._context.width * self._context.height:
                self._refused.add(place)
                self.lost_last = packet is None
            elif self._started:
                self._bad.add(place)
            return []
        frames = [self._timed(as_software(image)) for image in images]
        return [frame for frame in frames if not self._is_refused(frame)]

    def _is_refused(self, frame: TimedFrame) -> bool:
        """Whether a picture is too large although the library that decoded it took it."""
        if frame.image.width * frame.image.height <= self._max_pixels:
            return False
        self._refused.add(-2 - frame.ticks)
        return True

    def _timed(self, image: av.VideoFrame) -> TimedFrame:
        self._started = True
        ticks = image.pts
        if ticks is None:
            last = self._last if self._last is not None else -self._step
            ticks = heappop(self._untimed) if self._untimed else last + self._step
        if image.is_corrupt:
            self._bad.add(-2 - ticks)
        self._last = ticks
        return TimedFrame(ticks, image)

    def flush(self) -> None:
        """Forget everything fed so far; decoding can then start again at a key frame."""
        self._context.flush_buffers()
        self._untimed.clear()
        self._last = None
