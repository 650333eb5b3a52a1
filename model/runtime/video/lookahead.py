"""The packets between file and decoder: read far enough ahead to know which picture is on display."""

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Sequence

from model.runtime.video.demux import PacketSource, StreamPacket

# H.264 and HEVC let at most 16 pictures be decoded before, and shown after, another one.
MAX_REORDER = 16
# Starting anew at a key frame empties the decoder's pipeline: not worth it to pass over a few frames.
MIN_DROPPED_PACKETS = 4
# Beyond this the decoder is fed although a key frame might still come.
MAX_HELD_BYTES = 32 << 20


class Lookahead:
    """Packets in decoding order that were read and not yet fed, and the times of the pictures around them.

    Attributes:
        untimed: a packet without a presentation time was met, so that nothing can be told from the times.
        key_gap: the longest distance between key frames met, in ticks; 0 when none is known.
        ended: the source has no more.
        first_ticks: what is shown earlier cannot be decoded: set once the first frame is known.
        tracks: whether times are kept at all; not for one who decodes every frame.
    """

    def __init__(self, source: PacketSource, first_ticks: float, tracks: bool) -> None:
        self._source = source
        self._intra_only = source.stream.codec_context.codec.intra_only
        self._reorder = 1 if self._intra_only else MAX_REORDER
        self.first_ticks = first_ticks
        self.tracks = tracks
        self.untimed = False
        self.key_gap = 0
        self.leave()

    def __len__(self) -> int:
        return len(self._queue)

    def leave(self) -> None:
        """Forget what was read: the source stands somewhere else now."""
        self._queue: deque[StreamPacket] = deque()
        self._held_bytes = 0
        self._known: list[int] = []  # times of all packets read, from the picture on display on, sorted
        self._floor = self.first_ticks
        self._last_key: int | None = None
        self.ended = False

    def _read(self) -> StreamPacket | None:
        packet = None if self.ended else self._source.read()
        if packet is None:
            self.ended = True
            return None
        self._queue.append(packet)
        self._held_bytes += packet.size
        if packet.pts is None:
            self.untimed = True
            return packet
        if self.tracks and not packet.is_discard and packet.pts >= self._floor:
            insort(self._known, packet.pts)
        if packet.is_keyframe:
            if self._last_key is not None:
                self.key_gap = max(self.key_gap, packet.pts - self._last_key)
            self._last_key = packet.pts
        return packet

    def pop(self) -> StreamPacket | None:
        """Give the next packet for the decoder, None at the end."""
        if not self._queue:
            self._read()
        if not self._queue:
            return None
        packet = self._queue.popleft()
        self._held_bytes -= packet.size
        return packet

    def drop_before(self, ticks: int) -> None:
        """Forget the times before the picture now on display."""
        del self._known[: bisect_left(self._known, ticks)]

    def read_key_frame(self) -> None:
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
        # Pictures that follow a key frame in the file and precede it on display may need what was before it.
        self._floor = ticks
        self.drop_before(ticks)

    def is_certain(self, ticks: int) -> bool:
        """Tell whether no packet to come can hold the picture on display at `ticks`, or the one after it."""
        return self.ended or len(self._known) - bisect_right(self._known, ticks) > self._reorder

    def read_for(self, ticks: int, idle: bool) -> bool:
        """Read a packet; True when decoding for `ticks` should start anew at it, all before it being dropped.

        An idle decoder, and one that needs no other pictures for any, starts anew at no cost.
        """
        held = len(self._queue)
        packet = self._read()
        if packet is None or packet.pts is None or packet.pts > ticks:
            return False
        if not packet.is_keyframe or packet.is_discard:
            return False
        if idle or self._intra_only or held >= MIN_DROPPED_PACKETS:
            self._start_at(packet, packet.pts)
            return not idle and not self._intra_only
        return False

    @property
    def is_full(self) -> bool:
        """Whether more is held than should be."""
        return self._held_bytes > MAX_HELD_BYTES and len(self._queue) > 2 * self._reorder

    def target(self, ticks: int) -> int | None:
        """Give the time of the picture on display at `ticks`: the last at or before it, else the first."""
        return self._known[max(0, bisect_right(self._known, ticks) - 1)] if self._known else None

    def following(self, ticks: int) -> int | None:
        """Give the time of the picture after the one at `ticks`, as far as is known."""
        after = bisect_right(self._known, ticks)
        return self._known[after] if after < len(self._known) else None

    def is_needed(self, packet: StreamPacket, times: Sequence[int]) -> bool:
        """Tell whether the picture in a packet may be on display at one of the times to come."""
        if not self.tracks or packet.pts is None or packet.is_discard:
            return True
        time = bisect_left(times, packet.pts)
        if time == len(times):
            return False
        following = self.following(packet.pts)
        return following is None or following > times[time]
