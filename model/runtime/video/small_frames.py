"""Reads all frames of a video, very small, for what looks at their change alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.runtime.errors import VideoError
from model.runtime.video.codec import FrameDecoder, TimedFrame
from model.runtime.video.demux import PacketSource
from model.runtime.video.extent import frame_ticks, measure_extent
from model.runtime.video.limits import CpuBudget, LimitReachedError, ReadingLimits
from model.runtime.video.probe import check_file, reason_of
from model.runtime.video.render import Renderer
from model.runtime.video.track_header import TrackHeader, read_track_header

#: Width and height, whatever the shape of the video: what models for shot boundaries take.
SMALL_SIZE = (48, 27)
#: Frames of a part: about a megabyte.
_PART_FRAMES = 256
# After so many packets, there is a sign of progress.
_PACKETS_A_SIGN = 64


@dataclass(frozen=True, eq=False)
class SmallFrames:
    """Frames that follow each other, in display order.

    Attributes:
        pts_seconds: when each appears, from the container's start, float64 [n], not decreasing.
        data: uint8 RGB, upright, [n, 27, 48, 3].
        end_seconds: when the last one ends.
    """

    pts_seconds: NDArray[np.float64]
    data: NDArray[np.uint8]
    end_seconds: float


class SmallFrameReader:
    """Reads all frames of one file.

    Args:
        path: the file.
        limits: what reading may take.
        threads: threads of the decoder; 0: by the size of the pictures.
    """

    def __init__(self, path: Path, limits: ReadingLimits, threads: int = 0) -> None:
        self._path = path
        self._limits = limits
        self._threads = threads
        self._bad: set[int] = set()
        self._refused: set[int] = set()
        self._num_not_shown = 0
        self._damage: list[str] = []

    @property
    def damage(self) -> str | None:
        """After reading: why the video could be read only in part; None when all of it could."""
        parts = list(self._damage)
        for what, count in (
            ("damaged packets or frames", len(self._bad)),
            ("pictures left out", len(self._refused)),
            ("frames that cannot be converted", self._num_not_shown),
        ):
            if count:
                parts.append(f"{what}: {count}")
        return ", ".join(parts) or None

    def read(self) -> Iterator[SmallFrames | None]:
        """Decode every frame, from start to end.

        Yields:
            The frames, and None wherever reading makes progress. Memory does not grow with the length.

        Raises:
            VideoError: the file cannot be read as a video, or no frame can be decoded.
        """
        check_file(self._path)
        budget = CpuBudget(self._limits, self._path)
        with budget.counting():
            extent = measure_extent(self._path, self._limits, budget)
            self._damage = [extent.damage] if extent.damage else []
            source = PacketSource(
                self._path, self._threads, extent.breaks, extent.stream_index, self._limits, budget
            )
            try:
                header = read_track_header(self._path, source.container, source.stream)
                if header.encrypted:
                    raise VideoError(f"{self._path}: encrypted", "unsupported")
                yield from self._parts(source, header, extent.end_seconds)
                if source.failures:
                    self._damage.append(f"{len(source.failures)} reads failed ({source.failures[0]})")
            finally:
                source.close()

    def _parts(self, source: PacketSource, header: TrackHeader, end: float) -> Iterator[SmallFrames | None]:
        """The frames in parts; each ends where the next one begins."""
        renderer: Renderer | None = None
        data, times = np.empty((_PART_FRAMES, *SMALL_SIZE[::-1], 3), np.uint8), np.empty(_PART_FRAMES)
        count, last = 0, 0.0
        for frame in self._frames(source):
            if frame is None:
                yield None
                continue
            seconds = source.clock.seconds(frame.ticks)
            if seconds > end:
                # Beyond the longest time that is read, or a time that cannot be.
                continue
            try:
                renderer = renderer or Renderer(
                    frame.image, source.stream.sample_aspect_ratio, None, header, SMALL_SIZE
                )
                small = renderer(frame.image)
            except Exception as error:
                self._num_not_shown += 1
                self._damage += [] if self._num_not_shown > 1 else [reason_of(error)]
                continue
            last = max(last, seconds, 0.0)
            if count == _PART_FRAMES:
                yield SmallFrames(times.copy(), data.copy(), last)
                count = 0
            data[count], times[count] = small, last
            count += 1
        if count:
            yield SmallFrames(times[:count].copy(), data[:count].copy(), max(last, end))
        elif renderer is None:
            raise VideoError(f"{self._path}: no frame could be decoded", "corrupt")

    def _frames(self, source: PacketSource) -> Iterator[TimedFrame | None]:
        step = frame_ticks(source.stream, source.clock)
        decoder = FrameDecoder(source.stream, step, self._bad, self._limits.max_pixels, self._refused)
        count = 0
        try:
            while (packet := source.read()) is not None:
                yield from decoder.feed(packet)
                count += 1
                if count % _PACKETS_A_SIGN == 0:
                    yield None
        except LimitReachedError as limit:
            self._damage.append(str(limit))
        yield from decoder.feed(None)
