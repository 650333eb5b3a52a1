"""Finds where a file's video ends, by its packets and not by its header."""

from dataclasses import dataclass, field
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Discard
from av.video.stream import VideoStream

from model.runtime.video.demux import read_packets
from model.runtime.video.limits import CpuBudget, ReadingLimits
from model.runtime.video.probe import Clock, clock_of, open_container
from model.runtime.video.sample_tables import check_sample_tables
from model.runtime.video.streams import pick_stream
from model.runtime.video.timeline import BreakFinder, ClockBreak, break_at, clock_may_jump

# Formats whose header states a duration. A file that ends well before it has lost its last part.
STATES_DURATION = ("mov", "matroska", "avi", "asf", "flv", "mxf")
# Formats that are read to the end anyway to find a time in them.
WITHOUT_INDEX = ("flv",)
SHORTFALL_SECONDS = 1.0
TAIL_SECONDS = 2.0
# Of the CPU time that a file may take, this share at most: the rest is for its frames.
CPU_SHARE = 0.5


@dataclass(frozen=True)
class Extent:
    """Where the video ends, in seconds from the container's start, and what is missing.

    `breaks` are the places where its clock starts again, `stream_index` is the stream that a player shows.
    """

    end_seconds: float
    damage: str | None
    breaks: tuple[ClockBreak, ...] = ()
    stream_index: int | None = None


@dataclass
class _Ends:
    """What some packets tell: seconds from the container's start (`video`) and from time 0 (`any_stream`)."""

    video: float | None = None
    any_stream: float = 0.0
    breaks: list[ClockBreak] = field(default_factory=list)
    stream_index: int | None = None


def measure_extent(path: Path, limits: ReadingLimits, budget: CpuBudget) -> Extent:
    """Find the end of the video from the last packets, or from all of them where the last do not tell.

    Some writers declare a duration that counts from time 0, others from the first picture or sound. They are
    not told apart: a file is called short only if it is by both.

    Raises:
        VideoError: the file cannot be read.
    """
    check_sample_tables(path)
    with open_container(path, limits) as container:
        declared = (container.duration or 0) / av.time_base
        stated = declared > 0 and container.format.name.split(",")[0] in STATES_DURATION
        late = max(0.0, (container.start_time or 0) / av.time_base)
        since: float | None = declared - late - TAIL_SECONDS
        if (
            declared - late <= TAIL_SECONDS
            or clock_may_jump(container)
            or container.format.name in WITHOUT_INDEX
        ):
            since = None
        ends = _ends(container, path, since, limits, budget)
    if since is not None and (
        ends.video is None or ends.breaks or (stated and declared - ends.any_stream > SHORTFALL_SECONDS)
    ):
        with open_container(path, limits) as container:
            ends = _ends(container, path, None, limits, budget, ends.stream_index)
    damage = None
    if budget.is_spent(CPU_SHARE):
        damage = budget.reason
    elif stated and declared - ends.any_stream > SHORTFALL_SECONDS:
        damage = f"ends at {ends.any_stream - late:.1f} s of {declared - late:.1f} s"
    end = ends.video or 0.0
    if end > limits.max_hours * 3600:
        reason = f"its times reach {end / 3600:.0f} hours, read are {limits.max_hours:g} (--max-hours)"
        damage = f"{damage}, {reason}" if damage else reason
        end = limits.max_hours * 3600
    return Extent(end, damage, tuple(ends.breaks), ends.stream_index)


def _ends(
    container: InputContainer,
    path: Path,
    since: float | None,
    limits: ReadingLimits,
    budget: CpuBudget,
    picked: int | None = None,
) -> _Ends:
    """Read the packets after `since` seconds from the container's start (None: all)."""
    stream = pick_stream(container, path, limits, picked)
    clock = clock_of(container, stream)
    for other in container.streams:
        other.discard = Discard.default  # a declared duration includes sound and subtitles
    if since is not None:
        try:
            container.seek(clock.ticks(since), stream=stream, any_frame=True)
        except (av.FFmpegError, OSError, OverflowError):
            return _Ends(stream_index=stream.index)
    step = frame_ticks(stream, clock)
    finder = BreakFinder(clock.time_base, step, jumps=clock_may_jump(container))
    num_frames = 0
    early: list[tuple[int, int]] = []
    # In ticks, since converting every packet to seconds would take longer than reading it.
    end_of_others: dict[int, int] = {}
    end_of_video: int | None = None
    last = 0
    for packet in read_packets(container, tuple(container.streams), lambda _: None):
        if budget.is_spent(CPU_SHARE):
            break
        shown = packet.stream_index == stream.index
        timed = finder.take(packet) if shown else True
        if packet.stream.type == "audio":
            finder.take_sound(packet)
        if packet.is_discard or packet.is_corrupt:
            continue
        start, length = packet.pts, packet.duration or 0
        if not shown:
            if start is not None:
                index = packet.stream_index
                end_of_others[index] = max(end_of_others.get(index, 0), start + length)
            continue
        length = length or step
        if start is None:
            start = packet.dts if packet.dts is not None else num_frames * length
        num_frames += 1
        if not timed:
            early.append((finder.count - 1, start + min(length, step)))
            continue
        start += finder.shift
        # A duration counts up to the next packet in decoding order: only the last one's is that of its frame.
        end = start + min(length, step)
        end_of_video = end if end_of_video is None else max(end_of_video, end)
        last = start + length
    ends_of_video = [end + break_at(finder.breaks, number).shift for number, end in early]
    if end_of_video is not None:
        ends_of_video += [end_of_video, last]
    ends = _Ends(breaks=finder.breaks, stream_index=stream.index)
    for other in container.streams:
        if other.index in end_of_others and other.time_base is not None:
            ends.any_stream = max(ends.any_stream, float(end_of_others[other.index] * other.time_base))
    if ends_of_video:
        ends.any_stream = max(ends.any_stream, float(max(ends_of_video) * clock.time_base))
        # Without times the end is known only by counting all packets.
        if since is None or stream.start_time is not None:
            ends.video = max(0.0, clock.seconds(max(ends_of_video)))
    return ends


def frame_ticks(stream: VideoStream, clock: Clock) -> int:
    """The usual duration of a frame in ticks, from the frame rate; 25 per second where none is stated."""
    rate = stream.average_rate or stream.guessed_rate or 25
    return max(1, round(1 / (rate * clock.time_base)))
