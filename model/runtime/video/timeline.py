"""Follows a stream's clock where it starts again, wraps or jumps, so that seconds count what is shown.

Transport and program streams and Ogg follow the rules of the ffmpeg program: a decoding time that goes back
starts the clock again, and so does one that jumps forward by more than ten seconds. What follows is shown
at once after what came before, unless the sound went on meanwhile: then the picture stood still for so
long. In other formats a jump forward is a pause, as in browsers, and decoding times are often guessed:
there the clock starts again with a key frame that would be shown before what was already read.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream

if TYPE_CHECKING:
    StreamPacket = Packet[Stream]
else:
    StreamPacket = Packet

# FFmpeg's AVFMT_TS_DISCONT: MPEG transport and program streams, Ogg.
CLOCK_MAY_JUMP = 0x0200
BACK_SECONDS = 0.1
JUMP_SECONDS = 10.0
# Sound and picture of one moment stand this far from each other in a file, at most.
APART_SECONDS = 15.0
# Sound that ends later than the picture by less than this leaves no pause before what was appended.
OVERHANG_SECONDS = 2.0
# Where files were appended, a transport stream's counter jumps: FFmpeg calls one of the last packets damaged.
COUNTER_PACKETS = 2


def clock_may_jump(container: InputContainer) -> bool:
    """Whether a jump of the clock in this format says nothing about the time that passed."""
    return bool(container.format.flags & CLOCK_MAY_JUMP)


@dataclass(frozen=True)
class ClockBreak:
    """A place where the clock starts again.

    Attributes:
        packet: the number of the first packet after it, counting the stream's packets from the file's start.
        shift: ticks to add to the times from this packet on, up to the next break.
        fresh: another recording begins here: nothing in it refers to the frames before.
    """

    packet: int
    shift: int
    fresh: bool


def break_at(breaks: Sequence[ClockBreak], packet: int) -> ClockBreak:
    """The last break at or before a packet, given by its number."""
    place = bisect_right(breaks, packet, key=lambda item: item.packet)
    return breaks[place - 1] if place else ClockBreak(0, 0, fresh=False)


class BreakFinder:
    """Finds the breaks in the clock of a video stream. Takes all packets in reading order.

    Args:
        time_base: the stream's seconds per tick.
        step: the usual duration of a frame, in ticks.
        jumps: the format's clock may jump.

    Attributes:
        breaks: the breaks found so far.
        early: numbers of packets, since the last break, shown long after they are decoded: their times
            are by the clock after the next break, if one comes.
        count: the number of packets taken.
    """

    def __init__(self, time_base: Fraction, step: int, *, jumps: bool) -> None:
        self.breaks: list[ClockBreak] = []
        self.early: list[int] = []
        self.count = 0
        self._time_base = time_base
        self._step = step
        self._jumps = jumps
        self._jump_seconds = max(JUMP_SECONDS, 2 * float(step * time_base))
        self._last: int | None = None
        self._next = 0
        self._next_seconds = 0.0
        self._last_damaged = -COUNTER_PACKETS - 1
        self._sound = _Sound()

    @property
    def shift(self) -> int:
        """The ticks to add to the times of the packet that was taken last."""
        return self.breaks[-1].shift if self.breaks else 0

    def take_sound(self, packet: StreamPacket) -> None:
        """Note a packet of sound: where sound goes on, time passes."""
        self._sound.take(packet)

    def take(self, packet: StreamPacket) -> bool:
        """Note a packet of the video stream.

        Returns:
            False if only a later break may tell its time (see `early`).
        """
        time = packet.dts if self._jumps else packet.pts
        is_early = False
        if packet.is_corrupt:
            self._last_damaged = self.count
        if time is not None and not packet.is_discard:
            end = time + (packet.duration or self._step)
            if self._starts_again(packet, time) or self._jumps or self._last is None:
                self._last, self._next = time, end
            else:  # shown in another order
                self._last, self._next = max(time, self._last), max(self._next, end)
            self._next_seconds = float(self._next * self._time_base)
            self._sound.pass_picture(self._next_seconds)
            delay = 0 if packet.pts is None else packet.pts - time
            is_early = self._jumps and float(delay * self._time_base) > self._jump_seconds
        if is_early:
            self.early.append(self.count)
        self.count += 1
        return not is_early

    def _starts_again(self, packet: StreamPacket, time: int) -> bool:
        if self._last is None or not (self._jumps or packet.is_keyframe):
            return False
        back = float((self._last - time) * self._time_base)
        if back <= BACK_SECONDS and not self._jumps:
            return False
        ahead = float((time - self._next) * self._time_base)
        still = self._sound.end_after(self._next_seconds)
        if back <= BACK_SECONDS and ahead - still <= self._jump_seconds:
            return False
        before = self.shift
        shift = before - (time - self._next - round(Fraction(still) / self._time_base))
        for number in self.early:
            self._add(ClockBreak(number, shift, fresh=False))
            self._add(ClockBreak(number + 1, before, fresh=False))
        # An encoder whose clock was set goes on with frames that refer to those before.
        fresh = packet.is_keyframe or self.count - self._last_damaged <= COUNTER_PACKETS
        self._add(ClockBreak(self.count, shift, fresh))
        self.early = []
        self._sound.leave()
        return True

    def _add(self, found: ClockBreak) -> None:
        if self.breaks and self.breaks[-1].packet == found.packet:
            self.breaks.pop()
        self.breaks.append(found)


class _Sound:
    """How far the sound beside the picture has run without a break, in seconds of the file's clock."""

    def __init__(self) -> None:
        self._next: dict[int, float] = {}  # by stream
        self._before_break: dict[int, float] = {}  # of streams whose clock started again before the picture's
        self._beside: set[int] = set()  # streams on the picture's clock: other programs have another

    def take(self, packet: StreamPacket) -> None:
        ticks = packet.dts if packet.dts is not None else packet.pts
        if ticks is None:
            return
        start, stream = float(ticks * packet.time_base), packet.stream_index
        before = self._next.get(stream, start)
        if not -BACK_SECONDS <= start - before <= JUMP_SECONDS:
            self._before_break[stream] = before
        self._next[stream] = start + float((packet.duration or 0) * packet.time_base)

    def pass_picture(self, end: float) -> None:
        for stream, reached in self._next.items():
            if abs(reached - end) <= APART_SECONDS:
                self._beside.add(stream)
                self._before_break.pop(stream, None)

    def end_after(self, end: float) -> float:
        """How long the sound goes on after the picture's `end`; 0.0 where that is no pause."""
        ends = [self._before_break.get(stream, self._next[stream]) for stream in self._beside]
        longest = max(ends, default=end) - end
        return longest if longest > OVERHANG_SECONDS else 0.0

    def leave(self) -> None:
        self._beside.clear()
