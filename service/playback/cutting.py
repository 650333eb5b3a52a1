"""Cuts a clip by copying the packets of its pictures, where that gives the pictures that encoding would give.

A copy can begin only with a picture that needs no other, and end only where no picture of the clip comes in
the file after one that is not of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
from av.container import OutputContainer
from av.stream import Discard

from model.runtime.video.cropping import NOTHING
from model.runtime.video.demux import PacketSource, read_packets
from model.runtime.video.extent import Extent
from model.runtime.video.limits import CpuBudget, ReadingLimits
from model.runtime.video.onward import extent_of
from model.runtime.video.probe import open_container
from model.runtime.video.refreshing import refreshes
from model.runtime.video.sound import pick_sound
from model.runtime.video.timeline import StreamPacket
from model.runtime.video.track_header import read_track_header
from service.playback.describing import describe
from service.playback.jobs import ClipJob
from service.playback.mp4 import FILE_SOUND, Output, SoundEncoder
from service.playback.playable import MediaDescription, why_not_playable
from service.playback.sound_track import sound_blocks

#: The first picture of a copy may have appeared so long before the clip starts, and the last one may stay so
#: long after its end. Both are shown whole.
TOLERANCE_SECONDS = 0.1
#: In H.264 at most 16 pictures are decoded before one that is shown before them.
_MAX_REORDER = 16
#: Sound in other codecs is encoded. (A frame of MP3 may need what came long before it.)
_COPIED_SOUND = "aac"
#: A key frame is looked for so long before the start.
_BACK_SECONDS = (0.0, 2.0, 10.0)
#: Times are rounded.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Packet:
    """What a packet of the file says of the picture in it.

    Attributes:
        pts: when the picture appears, in ticks; None: not known.
        starts: decoding can start with it.
        is_good: it is to be shown, and not damaged.
    """

    pts: int | None
    starts: bool
    is_good: bool


@dataclass(frozen=True)
class Part:
    """The packets that a copy takes, of a list in the order of the file.

    Attributes:
        first: the number of the first one.
        times: when the picture of each appears, in ticks.
        following: when the next picture appears; None where the video ends.
    """

    first: int
    times: tuple[int, ...]
    following: int | None

    @property
    def decoding_times(self) -> list[int]:
        """When each is decoded: in their order, at equal distances to the pictures, and none too late.

        Files need not say this of all packets.
        """
        ordered = sorted(self.times)
        delay = max(shown - time for shown, time in zip(ordered, self.times, strict=True))
        return [time - delay for time in ordered]


def choose_part(packets: Sequence[Packet], start: int, end: int) -> Part | None:
    """Find the packets whose pictures are on display from one time to another.

    Args:
        packets: in the order of the file, from a picture on that appears by `start`, to the end of the file
            or so far that all that follow appear after `end`.
        start: the first tick of the clip.
        end: the first tick after it.

    Returns:
        None where these packets alone cannot be decoded, or show more.
    """
    starts = (number for number, packet in reversed(list(enumerate(packets))) if packet.starts)
    first = next((number for number in starts if (packets[number].pts or 0) <= start), None)
    if first is None:
        return None
    # No picture after such a one is shown before it, so what stands before it plays no part.
    times = [packet.pts for packet in packets[first:] if packet.pts is not None and packet.is_good]
    if len(set(times)) != len(packets) - first or max(time for time in times if time <= start) != times[0]:
        return None
    wanted = [times[0] <= time < end for time in times]
    count = sum(wanted)
    if not all(wanted[:count]):
        return None
    return Part(first, tuple(times[:count]), min(times[count:], default=None))


def copy_clip(path: Path, job: ClipJob, limits: ReadingLimits, output: Output) -> bool:
    """Copy a clip into an MP4 file.

    Args:
        path: the file.
        job: the clip.
        limits: what reading may take.
        output: where to write.

    Returns:
        Whether it was copied. If not, nothing, or something useless, was written.

    Raises:
        VideoError: the file cannot be read as a video.
    """
    budget = CpuBudget(limits, path)
    extent = extent_of(path, limits, budget, job.known_seconds)
    if extent.breaks:
        return False
    with closing(PacketSource(path, 1, (), extent.stream_index, limits, budget)) as source:
        clip = _Clip(source, path, job, limits, extent)
        if not clip.can_be_copied:
            return False
        try:
            clip.write(output)
        except (av.FFmpegError, ValueError):
            # What the muxer does not take is encoded.
            return False
        return True


class _Clip:
    """A clip of an open file."""

    def __init__(
        self, source: PacketSource, path: Path, job: ClipJob, limits: ReadingLimits, extent: Extent
    ) -> None:
        self._source = source
        self._path = path
        self._job = job
        self._limits = limits
        self._extent = extent
        # A clip is an MP4 file, whatever the container is that it is of.
        media = describe(source.container, source.stream, pick_sound(source.container))
        self._media = replace(media, container="mov")
        self._place = 0
        self._part: Part | None = None
        self._start_seconds = 0.0
        self.can_be_copied = self._is_playable() and self._plan()

    def _is_playable(self) -> bool:
        header = read_track_header(self._path, self._source.container, self._source.stream)
        silent = replace(self._media, audio_codec=None)
        return not header.encrypted and header.crop == NOTHING and _plays(silent)

    def _plan(self) -> bool:
        """Choose the packets, if that is possible."""
        clock, job = self._source.clock, self._job
        start, end = clock.ticks(job.start_seconds), clock.ticks(job.end_seconds - 2 * _ROUNDING) + 1
        # Some containers find no key frame, but a place.
        for back in _BACK_SECONDS:
            self._place = start - round(back / clock.time_base)
            packets = list(self._packets(end))
            if any(packet.starts and packet.pts is not None and packet.pts <= start for packet in packets):
                break
        self._part = part = choose_part(packets, start, end)
        if part is None:
            return False
        self._start_seconds = clock.seconds(part.times[0])
        last_ends = self._extent.end_seconds if part.following is None else clock.seconds(part.following)
        return (
            job.start_seconds - self._start_seconds <= TOLERANCE_SECONDS
            and last_ends - job.end_seconds <= TOLERANCE_SECONDS
        )

    def _packets(self, end: int) -> Iterator[Packet]:
        """The packets from the chosen place on, until it is sure that none is shown before `end`."""
        self._seek()
        num_later = 0
        while num_later <= _MAX_REORDER and (packet := self._source.read()) is not None:
            starts = packet.is_keyframe and refreshes(packet, self._source.stream)
            is_good = not packet.is_discard and not packet.is_corrupt
            yield Packet(packet.pts, starts, is_good)
            num_later += packet.pts is not None and packet.pts >= end

    def _seek(self) -> None:
        begins = self._source.stream.start_time
        if begins is None or self._place <= begins or not self._source.seek(self._place):
            self._source.rewind()

    def write(self, output: Output) -> None:
        """Write the chosen packets, with the sound beside them.

        Raises:
            FFmpegError: the muxer does not take them.
            ValueError: as FFmpegError.
        """
        part = self._part
        if part is None:
            raise ValueError("there is nothing to copy: see can_be_copied")
        first = part.times[0]
        with av.open(output, "w", format="mp4") as container:
            # Choosing has read past the end.
            self._seek()
            stream = container.add_stream_from_template(self._source.stream)
            with closing(self._sound(container)) as sound:
                times = zip(part.times, part.decoding_times, strict=True)
                shown, decoded = next(times)
                while (packet := self._source.read()) is not None:
                    if packet.pts != shown:
                        if shown == first:
                            continue  # it lies before the clip
                        raise ValueError("the file has other packets than before")
                    packet.pts, packet.dts = shown - first, decoded - first
                    packet.stream = stream
                    sound.write(float(packet.dts * packet.time_base))
                    container.mux(packet)
                    following = next(times, None)
                    if following is None:
                        break
                    shown, decoded = following
                sound.write(None)

    def _sound(self, container: OutputContainer) -> _Sound:
        """What writes the sound of the clip."""
        codec = self._media.audio_codec
        if codec is None:
            return _Sound()
        part = _SoundPart(self._path, self._limits, self._extent, self._start_seconds, self._job.end_seconds)
        copies = codec == _COPIED_SOUND and _plays(self._media)
        return _CopiedSound(container, part) if copies else _EncodedSound(container, part)


@dataclass(frozen=True)
class _SoundPart:
    """Which sound a clip has: from one time to another."""

    path: Path
    limits: ReadingLimits
    extent: Extent
    start_seconds: float
    end_seconds: float


class _Sound:
    """Writes the sound of a clip bit by bit. This one has none."""

    def write(self, until_seconds: float | None) -> None:
        """Write it up to a time in the clip; None: up to its end."""

    def close(self) -> None:
        """Write what is left, and free the file."""


class _CopiedSound(_Sound):
    """Copies packets of sound: those that begin within the clip."""

    def __init__(self, container: OutputContainer, part: _SoundPart) -> None:
        self._container = container
        self._part = part
        self._input = open_container(part.path, part.limits)
        self._origin = Fraction(self._input.start_time or 0, av.time_base) + Fraction(part.start_seconds)
        if part.start_seconds > 1:
            # Beside the picture, sound may stand a little earlier in the file.
            self._input.seek(round((part.start_seconds - 1) * av.time_base) + (self._input.start_time or 0))
        stream = pick_sound(self._input)
        if stream is None:
            raise ValueError("the file has other streams than before")
        for other in self._input.streams:
            other.discard = Discard.none if other is stream else Discard.all
        self._stream = container.add_stream_from_template(stream)
        self._packets = read_packets(self._input, (stream,), lambda _: None)
        self._next = self._read()

    def write(self, until_seconds: float | None) -> None:
        """See `_Sound`."""
        end = self._part.end_seconds - self._part.start_seconds
        while self._next is not None and self._next.pts is not None:
            seconds = self._next.pts * self._next.time_base
            if seconds >= end - _ROUNDING or (until_seconds is not None and seconds > until_seconds):
                return
            if seconds >= 0:
                self._next.stream = self._stream
                self._container.mux(self._next)
            self._next = self._read()

    def _read(self) -> StreamPacket | None:
        """The next packet, with times from the start of the clip."""
        packet = next(self._packets, None)
        if packet is not None and packet.pts is not None:
            packet.pts -= round(self._origin / packet.time_base)
            packet.dts = packet.pts
        return packet

    def close(self) -> None:
        """See `_Sound`."""
        self._input.close()


class _EncodedSound(_Sound):
    """Encodes the sound of the clip."""

    def __init__(self, container: OutputContainer, part: _SoundPart) -> None:
        self._encoder = SoundEncoder(container, FILE_SOUND, from_zero=False)
        self._blocks = sound_blocks(part.path, part.limits, part.extent, part.start_seconds, part.end_seconds)

    def write(self, until_seconds: float | None) -> None:
        """See `_Sound`."""
        while until_seconds is None or self._encoder.seconds < until_seconds:
            block = next(self._blocks, None)
            if block is None:
                return
            self._encoder.add(block)

    def close(self) -> None:
        """See `_Sound`."""
        self._encoder.close()


def _plays(media: MediaDescription) -> bool:
    return why_not_playable(media, ".mp4") is None
