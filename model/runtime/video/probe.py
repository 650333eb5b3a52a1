"""Opening a media file and reading what it says of itself, without decoding it."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from model.runtime.errors import VideoError
from model.runtime.video.types import VideoInfo


def open_container(path: Path) -> InputContainer:
    """Open a media file for reading.

    Raises:
        VideoError: it cannot be opened.
    """
    try:
        # An absolute path is never taken for an address or a filter such as "concat:".
        return av.open(str(path.absolute()), metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{path}: cannot be opened ({error})", "corrupt") from error


def pick_stream(container: InputContainer, path: Path) -> VideoStream:
    """Choose the video stream that a player would show.

    Raises:
        VideoError: there is none.
    """
    streams = [s for s in container.streams.video if not s.disposition & s.disposition.attached_pic]
    if not streams:
        raise VideoError(f"{path}: no video stream, audio only", "unsupported")
    return max(streams, key=lambda s: (bool(s.disposition & s.disposition.default), s.width * s.height))


@dataclass(frozen=True)
class Clock:
    """Turns a stream's ticks into a player's seconds and back."""

    time_base: Fraction
    origin: Fraction

    def seconds(self, ticks: int | None) -> float:
        """Seconds from the container's start."""
        return float((ticks or 0) * self.time_base - self.origin)


def clock_of(container: InputContainer, stream: VideoStream) -> Clock:
    """Give the clock of a stream, whose zero is the container's start."""
    return Clock(stream.time_base or Fraction(1, 90000), Fraction(container.start_time or 0, av.time_base))


def describe(container: InputContainer, stream: VideoStream) -> VideoInfo:
    """Read the header of an open file."""
    clock = clock_of(container, stream)
    start = clock.seconds(stream.start_time) if stream.start_time is not None else 0.0
    duration = stream.duration * clock.time_base if stream.duration else None
    end = start + float(duration) if duration else (container.duration or 0) / av.time_base
    return VideoInfo(
        duration_seconds=end,
        fps=float(stream.average_rate or 0),
        width=stream.width,
        height=stream.height,
        rotation=0,
        codec=stream.codec_context.name,
        pixel_format=stream.pix_fmt or "unknown",
        container=container.format.name,
        start_seconds=start,
        title=container.metadata.get("title"),
    )


def probe(path: str | Path) -> VideoInfo:
    """Describe a video file without decoding it.

    Raises:
        VideoError: it is not a video that can be read.
    """
    path = Path(path)
    with open_container(path) as container:
        return describe(container, pick_stream(container, path))
