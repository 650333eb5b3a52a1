"""Reads the packets of a file in decoding order, past damage, and seeks where that is faster."""

from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import av
from av.codec.context import CodecContext
from av.container import InputContainer
from av.stream import Stream
from av.video.stream import VideoStream

from model.runtime.errors import VideoError
from model.runtime.video.hardware import EXACT_CODECS, HwaccelName, hwaccel_settings
from model.runtime.video.limits import CpuBudget, ReadingLimits
from model.runtime.video.probe import clock_of, open_container, reason_of
from model.runtime.video.streams import pick_stream
from model.runtime.video.timeline import COUNTER_PACKETS, ClockBreak, StreamPacket, break_at

# After this many failures in a row, nothing more can be read.
MAX_FAILURES = 16
# Seek only over more bytes than these: reading on parses every byte, a seek costs a few small reads, and also
# a search where the file has no index.
SEEK_BYTES_WITH_INDEX = 1 << 20
SEEK_BYTES_WITHOUT_INDEX = 8 << 20
# As long as key frames may lie apart where no distance between two is known.
LONG_KEY_GAP_SECONDS = 30.0
# Up to this size, starting threads and filling their pictures in flight takes longer than they save.
SMALL_PIXELS = 640 * 480
# Above 8K, so many threads of the decoder hold a picture each, at most.
LARGE_PIXELS = 2**25
LARGE_THREADS = 4
# `opaque` of the first packet of another recording in the same file.
ANOTHER_RECORDING = "another recording"


def read_packets(
    container: InputContainer, streams: tuple[Stream, ...], on_error: Callable[[str], None]
) -> Generator[StreamPacket, None, None]:
    """Yield the packets of `streams` from the container's position on; continue after errors."""
    failures = 0
    while failures < MAX_FAILURES:
        try:
            for packet in container.demux(streams):
                if packet.size > 0 and not _is_header(packet):  # PyAV marks the end with an empty one
                    failures = 0
                    yield packet
            return
        except IndexError:
            return  # PyAV's way to end where a stream appeared after the file was opened
        except Exception as error:
            failures += 1
            on_error(reason_of(error))


def _is_header(packet: StreamPacket) -> bool:
    """Whether a packet holds no frame: in an Ogg file after another, Theora's headers come again."""
    context: CodecContext | None = packet.stream.codec_context  # None for data, and for unknown codecs
    return context is not None and context.name == "theora" and bytes(packet)[0] >= 0x80


def _usual_threads(stream: VideoStream) -> int:
    """Threads of the decoder by the size of the pictures; 0 leaves the number to FFmpeg."""
    pixels = stream.width * stream.height
    if 0 < pixels <= SMALL_PIXELS:
        return 1
    return LARGE_THREADS if pixels > LARGE_PIXELS else 0


class PacketSource:
    """The packets of the video stream that a player shows.

    Args:
        path: the file.
        threads: threads of the decoder; 0: by the size of the pictures.
        breaks: where the stream's clock starts again. The packets come with continuous times.
        picked: the index of the stream; None: choose it.
        limits: how large pictures may be.
        budget: the CPU time that is left.
        hwaccel: decodes what it can of `EXACT_CODECS`; None: software does.

    Attributes:
        threads: threads of the decoder, from the next rewinding on.
        failures: FFmpeg's message for every read that failed.
        can_seek: False once the container has failed to seek, and where the clock starts again: there a time
            stands in several places of the file.
    """

    def __init__(
        self,
        path: Path,
        threads: int,
        breaks: Sequence[ClockBreak],
        picked: int | None,
        limits: ReadingLimits,
        budget: CpuBudget,
        hwaccel: HwaccelName | None = None,
    ) -> None:
        self._path = path
        self.threads = threads
        self._breaks = breaks
        self._picked = picked
        self._limits = limits
        self._budget = budget
        self._hwaccel = hwaccel
        self.failures: list[str] = []
        self.can_seek = not breaks
        self._open()

    def _open(self) -> None:
        self.container = open_container(self._path, self._limits)
        try:
            self.stream: VideoStream = pick_stream(self.container, self._path, self._limits, self._picked)
            if self._hwaccel and self.stream.codec_context.codec.canonical_name in EXACT_CODECS:
                self._open_on_hwaccel(self._hwaccel)
            self.stream.thread_type = "AUTO"
            # Each thread would hold pictures in the memory of the GPU.
            threads = 1 if self.is_on_hwaccel else self.threads or _usual_threads(self.stream)
            self.stream.codec_context.thread_count = threads
            self.stream.codec_context.options = self._limits.codec_options
            self.clock = clock_of(self.container, self.stream)
        except BaseException:
            self.container.close()
            raise
        self._restart()

    @property
    def is_on_hwaccel(self) -> bool:
        """Whether the stream's decoder is that of the hardware, which leaves to software what it cannot."""
        return self.stream.codec_context.is_hwaccel

    def _open_on_hwaccel(self, name: HwaccelName) -> None:
        """Open the file again with the hardware. Where that fails, software decodes from now on."""
        try:
            container = open_container(self._path, self._limits, hwaccel_settings(name))
        except VideoError:
            self._hwaccel = None
            return
        self.container.close()
        self.container = container
        self.stream = pick_stream(container, self._path, self._limits, self._picked)

    def _restart(self) -> None:
        self._packets = read_packets(self.container, (self.stream,), self.failures.append)
        self._position: int | None = None
        self._ticks: int | None = None
        self._num_read = 0

    def close(self) -> None:
        """Free the file and the decoder's context."""
        self._packets.close()
        self.container.close()

    def read(self) -> StreamPacket | None:
        """The next packet, or None at the end of what can be read.

        Raises:
            LimitReachedError: the budget is used up.
        """
        self._budget.check()
        packet = next(self._packets, None)
        if packet is not None:
            if self._breaks:
                self._move(packet)
            self._position = packet.pos if packet.pos is not None else self._position
            self._ticks = packet.pts if packet.pts is not None else self._ticks
        return packet

    def _move(self, packet: StreamPacket) -> None:
        """Set the packet's times by the continuous clock, and mark it where another recording begins."""
        number = self._num_read
        self._num_read += 1
        here = break_at(self._breaks, number)
        if here.fresh and here.packet == number:
            packet.opaque = ANOTHER_RECORDING
        if here != break_at(self._breaks, number + COUNTER_PACKETS):
            packet.is_corrupt = False
        packet.pts = None if packet.pts is None else packet.pts + here.shift
        packet.dts = None if packet.dts is None else packet.dts + here.shift

    def rewind(self) -> None:
        """Start again from the first packet, with a fresh decoder."""
        self.close()
        self._open()

    def seek(self, ticks: int) -> bool:
        """Go to a key frame at or before `ticks`, as exactly as the container can.

        Flush the decoder afterwards. Only the next packets tell where the container went.

        Returns:
            False if the container cannot seek.
        """
        if not self.can_seek:
            return False
        try:
            self.container.seek(ticks, stream=self.stream)
        except (av.FFmpegError, OSError):
            self.can_seek = False
            return False
        self._packets.close()
        self._restart()
        return True

    def worth_seeking(self, ticks: int, key_gap: int) -> bool:
        """Whether seeking to `ticks` should be faster than reading on.

        Args:
            ticks: where to go.
            key_gap: the longest distance between key frames so far, in ticks; 0 when none is known.
        """
        if not self.can_seek or self._ticks is None or self._position is None or ticks <= self._ticks:
            return False
        index = self.stream.index_entries
        if len(index) > 1:
            entry = index.search_timestamp(ticks)
            if entry >= 0 and index[entry].timestamp > self._ticks:
                return bool(index[entry].pos - self._position > SEEK_BYTES_WITH_INDEX)
            if self.container.format.name.startswith("mov"):
                return False  # the index is complete: no key frame lies between
        duration = self.container.duration
        gap = key_gap or round(LONG_KEY_GAP_SECONDS / self.clock.time_base)
        if not duration or ticks - self._ticks < 2 * gap:
            return False
        ahead = float((ticks - self._ticks) * self.clock.time_base)
        return ahead * self.container.size / (duration / av.time_base) > SEEK_BYTES_WITHOUT_INDEX
