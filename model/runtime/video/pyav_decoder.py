"""The pictures on display at given times, decoded by PyAV.

Packets are read ahead of the decoder until it is certain which of them holds the picture on display. So
nothing that cannot matter is decoded: everything before the last key frame from which that picture can be
had is dropped, and of the rest only what other pictures refer to, where the codec can tell. Where a stream
has no presentation times, or does not keep what its packets promise, every frame is decoded in order: the
plain way, which the tests hold against the other one.
"""

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

from model.runtime.errors import VideoError
from model.runtime.video.codec import FrameDecoder, TimedFrame
from model.runtime.video.demux import PacketSource, StreamPacket
from model.runtime.video.extent import SHORTFALL_SECONDS, frame_ticks, measure
from model.runtime.video.render import Renderer
from model.runtime.video.types import Picture, VideoInfo

Route = Literal["auto", "seek", "read"]

# H.264 and HEVC let at most 16 pictures be decoded before, and shown after, another one.
MAX_REORDER = 16
# Starting anew at a key frame empties the decoder's pipeline: not worth it to pass over a few frames.
MIN_DROPPED_PACKETS = 4
# What is held while reading ahead, beyond which the decoder is fed although a key frame might still come.
MAX_HELD_BYTES = 32 << 20
# A decoder that was fed so many packets after a picture's own, and has not given it, never will.
MAX_DELAY_PACKETS = 128
MAX_SEEKS = 6
# So many key frames are tried for an undamaged start before a damaged one is taken.
TRIES_FOR_WHOLE = 2


class PyavDecoder:
    """Reads one video file from its start to its end.

    `route` is for tests and measurements: "seek" goes to every time by a seek of the container, "read"
    decodes every frame in order.

    Raises:
        VideoError: the file is not a video that can be read.
    """

    def __init__(self, path: Path, max_side: int | None, threads: int = 0, route: Route = "auto") -> None:
        self._path = path
        self._route = route
        self._extent = measure(path)
        self._source = PacketSource(path, threads)
        try:
            self._bad: set[int] = set()
            self._times: list[int] | None = None
            self._stopped_at: float | None = None
            self._first_ticks = self._floor = -float("inf")
            self._plain = route == "read"
            self._start_decoder()
            first = self._decode_next()
            if first is None:
                raise VideoError(f"{path}: no frame could be decoded", "corrupt")
            # What comes before cannot be decoded: a recording that starts between two key frames.
            self._first_ticks = first.ticks
            self._floor = self._first_ticks
            del self._known[: bisect_left(self._known, first.ticks)]
            self._plain = self._plain or self._untimed
            self.renderer = Renderer(first.image, self._source.stream.sample_aspect_ratio, max_side)
            self.info = self._describe(first)
        except BaseException:
            self._source.close()
            raise

    def close(self) -> None:
        """Free the file and the decoder."""
        self._source.close()

    @property
    def damage(self) -> str | None:
        """What could not be read so far, or None."""
        parts = [self._extent.damage] if self._extent.damage else []
        if self._source.failures:
            parts.append(f"{len(self._source.failures)} reads failed ({self._source.failures[0]})")
        if self._stopped_at is not None:
            parts.append(f"no picture after {self._stopped_at:.1f} s of {self._extent.end_seconds:.1f} s")
        if self._bad:
            parts.append(f"damaged packets or frames: {len(self._bad)}")
        return ", ".join(parts) or None

    @property
    def end_seconds(self) -> float:
        """Where the video ends, as far as is known by now."""
        return self._extent.end_seconds if self._stopped_at is None else self._stopped_at

    def pictures(self, times: Sequence[float]) -> Iterator[Picture]:
        """Give the picture on display at each of the times, which must not decrease.

        Times before the first picture get the first, times past the end the last. Where the rest of a file is
        damaged beyond decoding, it stops before the times.
        """
        if self._times is not None:  # read before
            self._source.rewind()
            self._start_decoder()
        self._times = [self._clock.ticks(time) for time in times]
        if any(after < before for before, after in pairwise(self._times)):
            raise ValueError("times must not decrease")
        picture: Picture | None = None
        shown: TimedFrame | None = None
        for ticks in self._times:
            frame = self._show(ticks)
            if self._gave_up(frame, ticks):
                return
            if picture is None or frame is not shown:
                picture, shown = self._render(frame), frame
            yield picture

    def _describe(self, first: TimedFrame) -> VideoInfo:
        container, stream = self._source.container, self._source.stream
        tags = {name.lower(): text for name, text in container.metadata.items()}
        return VideoInfo(
            duration_seconds=self._extent.end_seconds,
            fps=float(stream.average_rate or stream.guessed_rate or 0),
            width=self.renderer.size[0],
            height=self.renderer.size[1],
            rotation=self.renderer.orientation.rotation,
            codec=stream.codec_context.codec.canonical_name,
            pixel_format=first.image.format.name,
            container=container.format.name,
            start_seconds=self._clock.seconds(first.ticks),
            title=tags.get("title") or None,
        )

    def _render(self, frame: TimedFrame) -> Picture:
        start = self._clock.seconds(frame.ticks)
        following = self._following(frame.ticks)
        if following is None and self._bad:
            following = frame.ticks + self._step
        end = self._extent.end_seconds if following is None else self._clock.seconds(following)
        return Picture(self.renderer(frame.image), start, max(0.0, end - start))

    def _gave_up(self, frame: TimedFrame, ticks: int) -> bool:
        """Tell whether all that should come after `frame` is damaged: it would stand still from here on."""
        lost = self._bad and self._drained and not self._ready
        if not lost or (ticks - frame.ticks) * self._clock.time_base <= SHORTFALL_SECONDS:
            return False
        self._stopped_at = self._clock.seconds(frame.ticks + self._step)
        return True

    def _following(self, ticks: int) -> int | None:
        """Give the time of the frame after the one at `ticks`."""
        if not self._plain:
            after = bisect_right(self._known, ticks)
            return self._known[after] if after < len(self._known) else None
        while True:
            later = [frame.ticks for frame in self._ready if frame.ticks > ticks]
            if later or self._drained:
                return min(later, default=None)
            self._advance()

    # Where the decoder stands

    def _start_decoder(self) -> None:
        self._clock = self._source.clock
        self._step = frame_ticks(self._source.stream, self._clock)
        self._decoder = FrameDecoder(self._source.stream, self._step, self._bad)
        self._intra_only = self._source.stream.codec_context.codec.intra_only
        self._reorder = 1 if self._intra_only else MAX_REORDER
        self._untimed = False
        self._key_gap = 0
        self._leave()
        self._stale = False

    def _leave(self) -> None:
        """Forget what was read and decoded: the next packet is from another place."""
        self._queue: deque[StreamPacket] = deque()  # read, not fed, in decoding order
        self._held_bytes = 0
        self._known: list[int] = []  # times of the packets read, from the frame on display on, sorted
        self._floor = self._first_ticks  # what is shown earlier cannot be decoded from here
        self._ready: deque[TimedFrame] = deque()  # decoded, not yet on display
        self._shown: TimedFrame | None = None
        self._last_key: int | None = None
        self._ended = self._drained = False
        self._stale = True  # the decoder must be flushed before its next packet

    def _seek(self, ticks: int) -> Iterator[None]:
        """Stand at key frames further and further before `ticks`, and last at the start of the file."""
        back = 0
        for _ in range(MAX_SEEKS):
            if not self._source.seek(ticks - back):
                break
            self._leave()
            yield
            back = max(2 * back, self._key_gap, round(1 / self._clock.time_base))
        self._source.rewind()
        self._start_decoder()
        yield

    def _advance(self) -> None:
        """Feed the next packet to the decoder, or tell it that there is none."""
        if not self._queue:
            self._read()
        if self._stale:
            self._decoder.flush()
            self._stale = False
        if self._queue:
            packet = self._queue.popleft()
            self._held_bytes -= packet.size
            self._ready.extend(self._decoder.feed(packet, skip=not self._needed(packet)))
        elif not self._drained:
            self._ready.extend(self._decoder.feed(None))
            self._drained = True

    def _pass(self, ticks: int) -> None:
        """Put on display what has its turn by `ticks`."""
        while self._ready and self._ready[0].ticks <= ticks:
            frame = self._ready.popleft()
            if self._shown is None or frame.ticks >= self._shown.ticks:
                self._shown = frame

    def _decode_next(self) -> TimedFrame | None:
        while not self._ready and not self._drained:
            self._advance()
        return self._ready[0] if self._ready else None

    def _show(self, ticks: int) -> TimedFrame:
        frame = None if self._plain else self._show_target(ticks)
        if frame is None and not self._plain:  # the decoder did not give what the packets promised
            self._plain = True
            for attempt, _ in enumerate(self._seek(ticks)):
                first = self._decode_next()
                if (
                    first
                    and first.ticks <= ticks
                    and (attempt >= TRIES_FOR_WHOLE or not first.image.is_corrupt)
                ):
                    break
        return frame or self._show_plain(ticks)

    # The plain way: decode every frame

    def _show_plain(self, ticks: int) -> TimedFrame:
        self._pass(ticks)
        while not self._ready and not self._drained:
            self._advance()
            self._pass(ticks)
        if self._shown is None and not self._ready:
            raise VideoError(f"{self._path}: no frame could be decoded a second time", "corrupt")
        return self._shown or self._ready[0]

    # The short way: decode what one picture needs

    def _show_target(self, ticks: int) -> TimedFrame | None:
        if self._route == "seek" or self._source.worth_seeking(ticks, self._key_gap):
            for _ in self._seek(ticks):
                self._read_key_frame()
                self._read_ahead(ticks)
                if self._known and self._known[0] <= ticks:
                    break
        self._read_ahead(ticks)
        if self._untimed or not self._known:
            return None
        target = self._known[max(0, bisect_right(self._known, ticks) - 1)]
        for _ in range(len(self._queue) + MAX_DELAY_PACKETS):
            self._pass(target)
            if self._ready or self._drained or (self._shown is not None and self._shown.ticks == target):
                break
            self._advance()
        self._pass(target)
        if self._shown is None or self._shown.ticks != target or self._shown.image.is_corrupt:
            return None
        del self._known[: bisect_left(self._known, target)]
        return self._shown

    def _read(self) -> StreamPacket | None:
        packet = None if self._ended else self._source.read()
        if packet is None:
            self._ended = True
            return None
        self._queue.append(packet)
        self._held_bytes += packet.size
        if packet.pts is None:
            self._untimed = True
            return packet
        if not self._plain and not packet.is_discard and packet.pts >= self._floor:
            insort(self._known, packet.pts)
        if packet.is_keyframe:
            if self._last_key is not None:
                self._key_gap = max(self._key_gap, packet.pts - self._last_key)
            self._last_key = packet.pts
        return packet

    def _read_key_frame(self) -> None:
        """Read on to a key frame and leave what is before it."""
        while (packet := self._read()) is not None:
            if packet.is_keyframe and packet.pts is not None:
                self._start_at(packet, packet.pts)
                return
        self._queue.clear()
        self._known.clear()

    def _start_at(self, packet: StreamPacket, ticks: int) -> None:
        self._queue = deque([packet])
        self._held_bytes = packet.size
        self._floor = ticks
        del self._known[: bisect_left(self._known, ticks)]

    def _read_ahead(self, ticks: int) -> None:
        """Read until no packet to come can hold the picture at `ticks` or the one after it."""
        while not self._ended and len(self._known) - bisect_right(self._known, ticks) <= self._reorder:
            packet = self._read()
            if packet is None:
                return
            if (
                packet.is_keyframe
                and packet.pts is not None
                and packet.pts <= ticks
                and not packet.is_discard
            ):
                if self._intra_only or self._stale:
                    self._start_at(packet, packet.pts)
                elif len(self._queue) > MIN_DROPPED_PACKETS:
                    self._start_at(packet, packet.pts)
                    self._ready.clear()
                    self._shown = None
                    self._stale = True
            while self._held_bytes > MAX_HELD_BYTES and len(self._queue) > 2 * self._reorder:
                self._advance()
                self._pass(ticks)

    def _needed(self, packet: StreamPacket) -> bool:
        """Tell whether the picture in a packet may be the one on display at one of the times to come."""
        if self._plain or self._times is None or packet.pts is None or packet.is_discard:
            return True
        time = bisect_left(self._times, packet.pts)
        if time == len(self._times):
            return False
        after = bisect_right(self._known, packet.pts)
        return after == len(self._known) or self._known[after] > self._times[time]
