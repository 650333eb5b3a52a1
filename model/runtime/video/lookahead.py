"""Holds the packets between file and decoder: enough to know which frame is played at a time."""

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Sequence

from model.runtime.video.demux import PacketSource
from model.runtime.video.timeline import StreamPacket

# In H.264 and HEVC at most 16 frames are decoded before a frame and shown after it.
MAX_REORDER = 16
# Restarting at a key frame empties the decoder's pipeline: skipping only a few frames does not pay.
MIN_DROPPED_PACKETS = 4
# Above this the decoder is fed, although a key frame might still make the packets unnecessary.
MAX_HELD_BYTES = 32 << 20


class Lookahead:
    """Packets in decoding order that were read but not yet decoded, and the times of the frames around them.

    Attributes:
        untimed: a packet had no presentation time, so the times tell nothing.
        key_gap: the longest distance between key frames so far, in ticks; 0 when none is known.
        ended: the source has no more packets.
        first_ticks: the first frame that can be decoded; set once it is known.
        tracks: whether times are kept; a caller that decodes every frame needs none.
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
        """Forget all packets: the source has moved to another place."""
        self._queue: deque[StreamPacket] = deque()
        self._held_bytes = 0
        self._times: list[int] = []  # sorted, of all packets read, from the frame being played on
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
            insort(self._times, packet.pts)
        if packet.is_keyframe:
            if self._last_key is not None:
                self.key_gap = max(self.key_gap, packet.pts - self._last_key)
            self._last_key = packet.pts
        return packet

    def pop(self) -> StreamPacket | None:
        """Take the next packet for the decoder; None at the end."""
        if not self._queue:
            self._read()
        if not self._queue:
            return None
        packet = self._queue.popleft()
        self._held_bytes -= packet.size
        return packet

    def drop_before(self, ticks: int) -> None:
        """Forget the times before `ticks`, the time of the frame being played."""
        del self._times[: bisect_left(self._times, ticks)]

    def read_key_frame(self) -> None:
        """Read on to a key frame and drop the packets before it."""
        while (packet := self._read()) is not None:
            if packet.is_keyframe and packet.pts is not None:
                self._start_at(packet, packet.pts)
                return
        self._queue.clear()
        self._times.clear()

    def _start_at(self, packet: StreamPacket, ticks: int) -> None:
        self._queue = deque([packet])
        self._held_bytes = packet.size
        # Frames after a key frame in the file but before it on display may need what was dropped.
        self._floor = ticks
        self.drop_before(ticks)

    def is_certain(self, ticks: int) -> bool:
        """Whether the frame played at `ticks` and the one after it are among the packets read."""
        return self.ended or len(self._times) - bisect_right(self._times, ticks) > self._reorder

    def read_for(self, ticks: int, idle: bool) -> bool:
        """Read a packet; where it is a key frame worth restarting at for `ticks`, drop all packets before it.

        A restart costs nothing where the decoder is idle or every frame is a key frame.

        Args:
            ticks: the time to be played.
            idle: the decoder holds nothing.

        Returns:
            True when the decoder must be flushed for the restart.
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
        """Whether the packets held take more memory than they should."""
        return self._held_bytes > MAX_HELD_BYTES and len(self._queue) > 2 * self._reorder

    def target(self, ticks: int) -> int | None:
        """The time of the frame played at `ticks`: the last at or before it, else the first."""
        return self._times[max(0, bisect_right(self._times, ticks) - 1)] if self._times else None

    def following(self, ticks: int) -> int | None:
        """The time of the frame after the one at `ticks`; None where it is not known."""
        after = bisect_right(self._times, ticks)
        return self._times[after] if after < len(self._times) else None

    def is_needed(self, packet: StreamPacket, times: Sequence[int]) -> bool:
        """Whether the frame in a packet may be played at one of the sorted `times`, in ticks."""
        if not self.tracks or packet.pts is None or packet.is_discard:
            return True
        time = bisect_left(times, packet.pts)
        if time == len(times):
            return False
        following = self.following(packet.pts)
        return following is None or following > times[time]
