"""Finds where a file's video ends, by its packets and not by its header."""

from dataclasses import dataclass
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Discard
from av.video.stream import VideoStream

from model.runtime.errors import VideoError
from model.runtime.video.demux import read_packets
from model.runtime.video.probe import Clock, clock_of, open_container, pick_stream

# Formats whose header states a duration. A file that ends well before it has lost its last part.
STATES_DURATION = ("mov", "matroska", "avi", "asf", "flv", "mxf")
SHORTFALL_SECONDS = 1.0
TAIL_SECONDS = 2.0
# Cameras record for days. A longer file has damaged times and would give segments without end.
MAX_SECONDS = 100 * 3600.0


@dataclass(frozen=True)
class Extent:
    """Where the video ends, in seconds from the container's start, and what is missing."""

    end_seconds: float
    damage: str | None


def measure_extent(path: Path) -> Extent:
    """Find the end of the video from the last packets, or from all of them where the last do not tell.

    Raises:
        VideoError: the file cannot be read, or claims to last for days.
    """
    with open_container(path) as container:
        declared = (container.duration or 0) / av.time_base
        stated = declared > 0 and container.format.name.split(",")[0] in STATES_DURATION
        video, any_stream = _ends(container, path, max(0.0, declared - TAIL_SECONDS))
    if video is None or (stated and declared - any_stream > SHORTFALL_SECONDS):
        with open_container(path) as container:
            video, any_stream = _ends(container, path, None)
    damage = None
    if stated and declared - any_stream > SHORTFALL_SECONDS:
        damage = f"ends at {any_stream:.1f} s of {declared:.1f} s"
    end = video or 0.0
    if end > MAX_SECONDS:
        raise VideoError(
            f"{path}: claims to last {end / 3600:.0f} hours, so its times are damaged", "corrupt"
        )
    return Extent(end, damage)


def _ends(container: InputContainer, path: Path, since: float | None) -> tuple[float | None, float]:
    """The end of the video and of any stream, seconds, from the packets after `since` seconds (None: all)."""
    stream = pick_stream(container, path)
    clock = clock_of(container, stream)
    for other in container.streams:
        if other.type in ("audio", "video"):
            other.discard = Discard.default
    if since is not None:
        try:
            container.seek(clock.ticks(since), stream=stream, any_frame=True)
        except (av.FFmpegError, OSError):
            return None, 0.0
    video: float | None = None
    any_stream = 0.0
    num_frames = 0
    for packet in read_packets(container, tuple(container.streams), lambda _: None):
        if packet.is_discard or packet.is_corrupt:
            continue
        start, length = packet.pts, packet.duration or 0
        if packet.stream_index == stream.index:
            length = length or frame_ticks(stream, clock)
            if start is None:
                start = packet.dts if packet.dts is not None else num_frames * length
            num_frames += 1
        if start is None:
            continue
        base = Clock(packet.time_base, clock.origin)
        end = base.seconds(start + length)
        any_stream = max(any_stream, end)
        if packet.stream_index == stream.index:
            video = max(video or 0.0, end)
    # Without times the end is known only by counting all packets.
    if since is not None and num_frames and not _has_times(stream):
        return None, any_stream
    return video, any_stream


def frame_ticks(stream: VideoStream, clock: Clock) -> int:
    """The usual duration of a frame in ticks, from the frame rate; 25 per second where none is stated."""
    rate = stream.average_rate or stream.guessed_rate or 25
    return max(1, round(1 / (rate * clock.time_base)))


def _has_times(stream: VideoStream) -> bool:
    return stream.start_time is not None
