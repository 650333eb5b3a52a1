"""Reads the sound of a video file, by the clock of its pictures.

Sound may begin after the video, pause, or lack what is damaged: each part of it says when it is heard. In
files whose clock starts again (see `timeline`), it follows the clock that the pictures have.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Discard
from numpy.typing import NDArray

from model.runtime.video.demux import read_packets
from model.runtime.video.extent import Extent, measure_extent
from model.runtime.video.limits import CpuBudget, LimitReachedError, ReadingLimits
from model.runtime.video.probe import open_container
from model.runtime.video.timeline import BACK_SECONDS, JUMP_SECONDS, StreamPacket, clock_may_jump

#: Samples a second: what speech recognition takes.
RATE = 16000
#: Seconds of a part, about.
_PART_SECONDS = 10
#: To begin at a time, reading begins so much before it, or further where the sound is not found there.
_BEFORE_SECONDS = (1.0, 10.0)
#: The first frames that are read in the middle of a file may be wrong: earlier ones than this do not count.
_UNSURE_SECONDS = 0.5
#: Times of packets are rounded: only from here on, sound is missing between two of them.
_GAP_SECONDS = 0.05
#: From here on, a time that goes back says nothing.
_OVERLAP_SECONDS = 1.0
#: The clock of transport and program streams has 33 bits, of 90,000 ticks a second.
_WRAP_SECONDS = 2**33 / 90000
# After so many packets, there is a sign of progress.
_PACKETS_A_SIGN = 256


@dataclass(frozen=True, eq=False)
class Sound:
    """A part of the sound, without a gap in it.

    Attributes:
        start_seconds: when its first sample is heard, from the container's start, as a player shows it.
        samples: int16 [n], or [n, 2] where two channels are read.
    """

    start_seconds: float
    samples: NDArray[np.int16]


class SoundReader:
    """Reads the sound of one file.

    Args:
        path: the file.
        limits: what reading may take.
        rate: samples a second.
        channels: 1 or 2; others are mixed down.
        start_seconds: where to begin. Where the clock never starts again, what comes before is not read.
        extent: that of the pictures, if it is known; otherwise it is measured where the clock may jump.
        part_seconds: the length of the parts, about.
    """

    def __init__(
        self,
        path: Path,
        limits: ReadingLimits,
        *,
        rate: int = RATE,
        channels: Literal[1, 2] = 1,
        start_seconds: float = 0.0,
        extent: Extent | None = None,
        part_seconds: float = _PART_SECONDS,
    ) -> None:
        self._path = path
        self._limits = limits
        self._rate = rate
        self._channels = channels
        self._start_seconds = start_seconds
        self._extent = extent
        self._part_seconds = part_seconds
        self._num_lost = 0
        self._why_lost = ""
        self._limit: str | None = None

    @property
    def damage(self) -> str | None:
        """After reading: why the sound could be read only in part; None when all of it could."""
        parts = [f"damaged packets of sound: {self._num_lost} ({self._why_lost})"] if self._num_lost else []
        return ", ".join([*parts, *([self._limit] if self._limit else [])]) or None

    def read(self) -> Iterator[Sound | None]:
        """Read the sound that a player plays, from start to end.

        Yields:
            Its parts, and None wherever reading makes progress; nothing for a file without sound. Memory does
            not grow with the length.

        Raises:
            VideoError: the file cannot be opened.
        """
        budget = CpuBudget(self._limits, self._path)
        with open_container(self._path, self._limits) as container:
            stream = pick_sound(container)
            if stream is None:
                return
            shifts = self._shifts(budget) if clock_may_jump(container) else ()
            clock = _SoundClock(container, stream, shifts)
        with self._opened(clock, can_seek=not shifts) as (container, packets, has_sought):
            part_samples = round(self._part_seconds * self._rate)
            collected = _Collected(clock, self._rate, self._channels, self._start_seconds, part_samples)
            if has_sought:
                collected.from_seconds = self._start_seconds - _UNSURE_SECONDS
            with budget.counting():
                try:
                    yield from self._decoded(container, packets, collected, budget)
                except LimitReachedError as limit:
                    self._limit = str(limit)
                yield from collected.rest()

    @contextmanager
    def _opened(
        self, clock: "_SoundClock", *, can_seek: bool
    ) -> Iterator[tuple[InputContainer, Iterator[StreamPacket], bool]]:
        """The file, its packets of sound, and whether they are not all, but those from the chosen time on."""
        places = [self._start_seconds - before for before in _BEFORE_SECONDS] if can_seek else []
        for place in (*(place for place in places if place > 0), None):
            with open_container(self._path, self._limits) as container:
                if place is not None:
                    try:
                        container.seek(round(place * av.time_base) + (container.start_time or 0))
                    except (av.FFmpegError, OSError, OverflowError):
                        continue
                stream = pick_sound(container)
                for other in container.streams:
                    # FFmpeg then need not read it, where the container has an index.
                    other.discard = Discard.none if other is stream else Discard.all
                packets = read_packets(container, (stream,) if stream else (), self._lose)
                first = next(packets, None)
                found = None if first is None or first.pts is None else clock.seconds_of(first.pts)
                if place is None or (found is not None and found <= self._start_seconds):
                    yield container, chain([] if first is None else [first], packets), place is not None
                    return

    def _decoded(
        self,
        container: InputContainer,
        packets: Iterator[StreamPacket],
        collected: "_Collected",
        budget: CpuBudget,
    ) -> Iterator[Sound | None]:
        for count, packet in enumerate(packets):
            budget.check()
            if count % _PACKETS_A_SIGN == 0:
                yield None
            try:
                frames = packet.decode()
            except Exception as error:
                self._lose(str(error))
                continue
            for frame in frames:
                if isinstance(frame, av.AudioFrame):
                    yield from collected.add(frame)
            if collected.end_seconds > self._limits.max_hours * 3600:
                raise LimitReachedError(f"read are {self._limits.max_hours:g} hours of it (--max-hours)")
        stream = pick_sound(container)
        try:
            for frame in stream.codec_context.decode(None) if stream else ():
                yield from collected.add(frame)
        except Exception as error:
            self._lose(str(error))

    def _lose(self, why: str) -> None:
        self._num_lost += 1
        self._why_lost = self._why_lost or why

    def _shifts(self, budget: CpuBudget) -> tuple[float, ...]:
        """By how much the clock of the pictures is moved in the parts of a file whose clock starts again."""
        extent = self._extent or measure_extent(self._path, self._limits, budget)
        if not extent.breaks or extent.stream_index is None:
            return ()
        with open_container(self._path, self._limits) as container:
            base = container.streams[extent.stream_index].time_base or Fraction(1, 90000)
        return tuple({float(each.shift * base) for each in extent.breaks})


def pick_sound(container: InputContainer) -> AudioStream | None:
    """The stream of sound that a player plays; None where there is none that can be decoded.

    Default streams come before others, those for people who cannot see and comments last, then the first.
    """
    streams = [s for s in container.streams.audio if s.codec_context is not None]

    def rank(stream: AudioStream) -> tuple[bool, bool, int]:
        kinds = stream.disposition
        special = bool(kinds & (kinds.visual_impaired | kinds.comment | kinds.descriptions))
        return special, not kinds & kinds.default, stream.index

    return min(streams, key=rank, default=None)


class _SoundClock:
    """Gives the seconds of frames of sound, from the container's start.

    Args:
        container: the file.
        stream: its sound.
        shifts: by how much the pictures' clock is moved where it starts again.
    """

    def __init__(self, container: InputContainer, stream: AudioStream, shifts: tuple[float, ...]) -> None:
        self._origin = Fraction(container.start_time or 0, av.time_base)
        self._base = stream.time_base or Fraction(1, RATE)
        self._shifts = (0.0, *shifts)
        self._jumps = clock_may_jump(container)
        self._shift = 0.0

    def seconds_of(self, ticks: int, base: Fraction | None = None) -> float:
        """A time of the stream in seconds, by the file's own clock."""
        return float(ticks * (base or self._base) - self._origin)

    def seconds(self, frame: av.AudioFrame, expected: float | None) -> float | None:
        """When a frame is heard; None: at once after the one before.

        Args:
            frame: the frame.
            expected: the end of the frame before; None: it is the first.
        """
        if frame.pts is None:
            return None
        own = self.seconds_of(frame.pts, frame.time_base)
        if self._jumps and expected is None and own > _WRAP_SECONDS / 2:
            # The clock has wrapped between the first packets of the two streams.
            self._shift = -_WRAP_SECONDS
        if self._jumps and expected is not None:
            ahead = own + self._shift - expected
            if not -BACK_SECONDS <= ahead <= JUMP_SECONDS:
                # The clock has started again: take the part of it in which the sound goes on.
                best = min(self._shifts, key=lambda shift: abs(own + shift - expected))
                near = abs(own + best - expected) <= JUMP_SECONDS
                self._shift = best if near else expected - own
        return own + self._shift


class _Collected:
    """Makes parts of frames: some channels, one rate, each with its time.

    Args:
        clock: tells when a frame is heard.
        rate: samples a second.
        channels: how many.
        start_seconds: what is heard before is left out.
        part_samples: how many samples a part has, about.

    Attributes:
        from_seconds: frames that are heard before are passed over, until one is not; None: none are.
    """

    def __init__(
        self, clock: _SoundClock, rate: int, channels: int, start_seconds: float, part_samples: int
    ) -> None:
        self._clock = clock
        self._rate = rate
        self._channels = channels
        self._first_seconds = start_seconds
        self.from_seconds: float | None = None
        self._part_samples = part_samples
        self._resampler: av.AudioResampler | None = None
        self._given: tuple[str, str, int] | None = None
        self._waiting: list[NDArray[np.int16]] = []
        #: Where what waits begins, and where what was put into the resampler ends.
        self._start_seconds = 0.0
        self._fed_seconds: float | None = None
        #: Where the last part ends that was given.
        self._reached_seconds = start_seconds

    @property
    def end_seconds(self) -> float:
        """Where the sound ends so far."""
        return self._fed_seconds or 0.0

    def add(self, frame: av.AudioFrame) -> Iterator[Sound]:
        """Take the next frame; give parts that are long enough."""
        if not frame.samples or not frame.sample_rate:
            return
        start = self._clock.seconds(frame, self._fed_seconds)
        if self._fed_seconds is None and self.from_seconds is not None and (start or 0.0) < self.from_seconds:
            return
        if start is not None and _GAP_SECONDS < self.end_seconds - start < _OVERLAP_SECONDS:
            # There is more sound than time: leaving out a frame now and then keeps to the clock.
            return
        if self._fed_seconds is None or (start is not None and start - self._fed_seconds > _GAP_SECONDS):
            yield from self.rest()
            # What is heard before the video starts is not part of it.
            self._fed_seconds = self._start_seconds = start or 0.0
        given = (frame.format.name, frame.layout.name, frame.sample_rate)
        if given != self._given:
            self._flush()
            layout = "mono" if self._channels == 1 else "stereo"
            self._given = given
            self._resampler = av.AudioResampler(format="s16", layout=layout, rate=self._rate)
        frame.pts = None
        if self._resampler is not None:
            self._keep(self._resampler.resample(frame))
        self._fed_seconds += frame.samples / frame.sample_rate
        if sum(map(len, self._waiting)) >= self._part_samples:
            yield from self._take()

    def rest(self) -> Iterator[Sound]:
        """The last part before a gap, or before the end."""
        self._flush()
        yield from self._take()

    def _flush(self) -> None:
        if self._resampler is not None:
            self._keep(self._resampler.resample(None))
        self._resampler = self._given = None

    def _keep(self, frames: list[av.AudioFrame]) -> None:
        shape = (-1,) if self._channels == 1 else (-1, self._channels)
        self._waiting += [frame.to_ndarray().reshape(shape).astype(np.int16, copy=False) for frame in frames]

    def _take(self) -> Iterator[Sound]:
        empty = np.empty((0,) if self._channels == 1 else (0, self._channels), np.int16)
        samples = np.concatenate([empty, *self._waiting])
        start, self._waiting = self._start_seconds, []
        self._start_seconds += len(samples) / self._rate
        if start < self._first_seconds:
            cut = min(len(samples), round((self._first_seconds - start) * self._rate))
            samples, start = samples[cut:], start + cut / self._rate
        for first in range(0, len(samples), self._part_samples):
            part = samples[first : first + self._part_samples]
            # Parts of samples are rounded.
            begin = max(self._reached_seconds, start + first / self._rate)
            self._reached_seconds = begin + len(part) / self._rate
            yield Sound(begin, part)
