"""Reads every frame of a video from a time on, in display order: for what plays a video, or cuts it.

Times are those of `PyavDecoder`, with which the tests compare them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import av

from model.runtime.errors import VideoError
from model.runtime.video.codec import FrameDecoder, TimedFrame
from model.runtime.video.demux import PacketSource
from model.runtime.video.extent import Extent, frame_ticks, measure_extent
from model.runtime.video.limits import CpuBudget, LimitReachedError, ReadingLimits
from model.runtime.video.probe import check_file, open_container
from model.runtime.video.timeline import StreamPacket
from model.runtime.video.track_header import read_track_header

# FFmpeg's AVFMT_NOTIMESTAMPS: raw streams, whose frames can only be counted.
_WITHOUT_TIMES = 0x0080
# The clock of a file runs through whose container states the known length, within so many seconds.
_SAME_SECONDS = 0.5
_MAX_SEEKS = 6
# Places tried for a whole picture before a damaged one is accepted.
_TRIES_FOR_WHOLE = 2
# Packets before the wanted time are held up to this size; what does not fit is decoded.
_MAX_HELD_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class OnwardFrame:
    """A decoded frame, as it is stored, and when it appears, in seconds from the container's start."""

    pts_seconds: float
    image: av.VideoFrame


def extent_of(path: Path, limits: ReadingLimits, budget: CpuBudget, known_seconds: float) -> Extent:
    """Where a video ends whose length was measured before.

    The packets are read only where the container does not state that length: in transport streams and the
    like, that means the whole file.

    Args:
        path: the file.
        limits: what reading may take.
        budget: the CPU time that is left.
        known_seconds: the length as `measure_extent` has found it; 0: not known.

    Raises:
        VideoError: the file cannot be read.
    """
    with open_container(path, limits) as container:
        declared = (container.duration or 0) / av.time_base
        late = max(0.0, (container.start_time or 0) / av.time_base)
    if known_seconds > 0 and any(
        abs(stated - known_seconds) < _SAME_SECONDS for stated in (declared, declared - late)
    ):
        return Extent(known_seconds, None)
    return measure_extent(path, limits, budget)


class OnwardReader:
    """Reads the frames of one file from a time on.

    Args:
        path: the file.
        limits: what reading may take.
        known_seconds: the video's length, if it is known; see `extent_of`.
        threads: threads of the decoder; 0: by the size of the pictures.

    Attributes:
        extent: where the video ends.
        header: what the container's header says of the stream.
        stream: the stream that a player shows.

    Raises:
        VideoError: the file cannot be read as a video.
    """

    def __init__(
        self, path: Path, limits: ReadingLimits, known_seconds: float = 0.0, threads: int = 0
    ) -> None:
        check_file(path)
        self._path = path
        self._limits = limits
        budget = CpuBudget(limits, path)
        self.extent = extent_of(path, limits, budget, known_seconds)
        self._source = PacketSource(
            path, threads, self.extent.breaks, self.extent.stream_index, limits, budget
        )
        try:
            self.header = read_track_header(path, self._source.container, self._source.stream)
            if self.header.encrypted:
                raise VideoError(f"{path}: encrypted", "unsupported")
        except BaseException:
            self._source.close()
            raise
        self._can_seek = not self._source.container.format.flags & _WITHOUT_TIMES

    @property
    def stream(self) -> av.VideoStream:
        """The stream that is read. Another object after the source has been opened again."""
        return self._source.stream

    @property
    def fps(self) -> float:
        """The usual number of frames a second; 25 where the file does not state it."""
        rate = self.stream.average_rate or self.stream.guessed_rate
        return float(rate) if rate else 25.0

    def close(self) -> None:
        """Free the file and the decoder."""
        self._source.close()

    def frames(self, start_seconds: float = 0.0) -> Iterator[OnwardFrame]:
        """Yield the frame that is played at a time, and all that follow, each later than the one before.

        A time before the first frame gives the first, a time past the end the last. What is damaged is left
        out. Call it once.

        Raises:
            VideoError: no frame can be decoded.
        """
        ticks = self._source.clock.ticks(start_seconds)
        shown: TimedFrame | None = None
        reached: int | None = None
        last = self._source.clock.ticks(self.extent.end_seconds)
        for frame in self._decoded(ticks):
            if 0 < last < frame.ticks:
                # A time that cannot be, or beyond the longest that is read.
                continue
            if frame.ticks <= ticks:
                if shown is None or frame.ticks >= shown.ticks:
                    shown = frame
                continue
            if shown is not None:
                yield self._onward(shown)
                reached, shown = shown.ticks, None
            if reached is None or frame.ticks > reached:
                reached = frame.ticks
                yield self._onward(frame)
        if shown is not None:
            yield self._onward(shown)
        elif reached is None:
            raise VideoError(f"{self._path}: no frame could be decoded", "corrupt")

    def _onward(self, frame: TimedFrame) -> OnwardFrame:
        return OnwardFrame(self._source.clock.seconds(frame.ticks), frame.image)

    def _decoded(self, ticks: int) -> Iterator[TimedFrame]:
        """Decode from a place on from which the frame at `ticks` can be decoded."""
        for attempt, is_start in enumerate(self._places(ticks)):
            frames = self._decode(ticks)
            first = next(frames, None)
            found = first is not None and first.ticks <= ticks
            whole = attempt >= _TRIES_FOR_WHOLE or (first is not None and not first.image.is_corrupt)
            if is_start or (found and whole):
                break
        yield from chain([first] if first is not None else [], frames)

    def _places(self, ticks: int) -> Iterator[bool]:
        """Go to key frames ever further before `ticks`, at last to the start. Yields whether it is that."""
        source = self._source
        begins = source.stream.start_time
        if self._can_seek and begins is not None and ticks > begins:
            back = 0
            for _ in range(_MAX_SEEKS):
                if ticks - back <= begins or not source.seek(ticks - back):
                    break
                source.stream.codec_context.flush_buffers()
                yield False
                back = max(2 * back, round(1 / source.clock.time_base))
            source.rewind()
        yield True

    def _decode(self, ticks: int) -> Iterator[TimedFrame]:
        step = frame_ticks(self._source.stream, self._source.clock)
        decoder = FrameDecoder(self._source.stream, step, set(), self._limits.max_pixels, set())
        try:
            for packet in self._packets(ticks):
                yield from decoder.feed(packet)
        except LimitReachedError:
            pass
        yield from decoder.feed(None)

    def _packets(self, ticks: int) -> Iterator[StreamPacket]:
        """The packets from here on, without those before the last key frame that is shown by `ticks`."""
        held: list[StreamPacket] = []
        held_bytes = 0
        while (packet := self._source.read()) is not None:
            is_before = packet.pts is not None and packet.pts <= ticks
            if is_before and packet.is_keyframe and not packet.is_discard:
                held, held_bytes = [], 0
            held.append(packet)
            held_bytes += packet.size
            if not is_before or held_bytes > _MAX_HELD_BYTES:
                break
        yield from held
        while (packet := self._source.read()) is not None:
            yield packet
