"""From a file to its segments."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from model.runtime.errors import ReelfindError
from model.runtime.video.pyav_decoder import PyavDecoder
from model.runtime.video.sampling import middle_times, plan_segments
from model.runtime.video.types import DecoderName, FrameBatch, Picture, Segment, Span, VideoInfo

# A picture that stays for longer is not cut into ever more segments: most likely a time is damaged.
MAX_STILL_SECONDS = 3600.0


class Decoder(Protocol):
    """What a decoder offers the reader."""

    info: VideoInfo

    @property
    def damage(self) -> str | None:
        """What could not be read so far, or None."""

    @property
    def end_seconds(self) -> float:
        """Where the video ends, as far as is known by now."""

    def pictures(self, times: Sequence[float]) -> Iterator[Picture]:
        """Give the picture on display at each of the times, which must not decrease."""

    def close(self) -> None:
        """Free the file and the decoder."""


class VideoReader:
    """Reads the segments of one video file, one after the other.

    Args:
        path: the file.
        decoder: "pyav" reads everything that FFmpeg reads; "decord" refuses what it would get wrong.
        max_side: pixels on the longer side of the frames, at most; None keeps the native size.
        threads: threads of the decoder; None leaves the number to it.

    Attributes:
        info: what the file is.
        damage: during and after reading, why the file could be read only in part; None when all of it could.

    Raises:
        VideoError: the file is not a video that can be read.
        ReelfindError: the decoder is not installed.
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        path: str | Path,
        decoder: DecoderName = "pyav",
        max_side: int | None = 512,
        threads: int | None = None,
    ) -> None:
        if decoder not in ("pyav", "decord"):
            raise ValueError(f"decoder must be 'pyav' or 'decord', got {decoder!r}")
        if max_side is not None and max_side < 1:
            raise ValueError(f"max_side must be at least 1, or None for the native size, got {max_side}")
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1, or None for the decoder's choice, got {threads}")
        make: Callable[[Path, int | None, int], Decoder] = PyavDecoder if decoder == "pyav" else _decord()
        self._decoder: Decoder = make(Path(path), max_side, threads or 0)
        self.info: VideoInfo = self._decoder.info

    @property
    def damage(self) -> str | None:
        """Why the file could be read only in part, else None."""
        return self._decoder.damage

    def segments(self, segment_seconds: float = 32.0, frames_per_segment: int = 16) -> Iterator[Segment]:
        """Decode the file once, giving each segment as soon as its frames are there.

        Each holds 1 to `frames_per_segment` different frames, [N, h, w, 3]; memory does not grow with length.

        Raises:
            VideoError: nothing could be decoded.
            ValueError: an argument is out of range.
        """
        # A part before the first picture (sound alone) holds nothing.
        planned = list(enumerate(plan_segments(self.info.duration_seconds, segment_seconds)))
        planned = [(i, s) for i, s in planned if s.end_seconds > self.info.start_seconds] or planned[-1:]
        times = np.concatenate([middle_times(span, frames_per_segment) for _, span in planned])
        pictures = self._decoder.pictures(times.tolist())
        last: Picture | None = None
        for index, span in planned:
            kept: list[Picture] = []
            for picture in islice(pictures, frames_per_segment):
                if not kept or picture.pts_seconds != kept[-1].pts_seconds:
                    kept.append(picture)
            if not kept:
                return
            if last is not None and kept == [last] and last.duration_seconds > MAX_STILL_SECONDS:
                continue
            last = kept[-1]
            if self._decoder.end_seconds < span.end_seconds:
                span = Span(span.start_seconds, max(span.start_seconds, self._decoder.end_seconds))
            yield Segment(index, span, _batch(kept))

    def pictures(self, times: Sequence[float]) -> Iterator[Picture]:
        """Give the picture on display at each of the times, seconds, which must not decrease.

        Times before the first picture get the first, times past the end the last. Where the rest of the file
        is damaged, it stops before the times do.

        Raises:
            VideoError: nothing could be decoded.
            ValueError: the times decrease.
        """
        return self._decoder.pictures(times)

    def close(self) -> None:
        """Free the file and the decoder."""
        self._decoder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _decord() -> Callable[[Path, int | None, int], Decoder]:
    try:
        from model.runtime.video.decord_decoder import DecordDecoder
    except ImportError as error:
        remedy = "pip install 'reelfind[decord]', or use decoder pyav"
        raise ReelfindError(f"decoder decord is not installed: {remedy}") from error
    return DecordDecoder


def _batch(pictures: list[Picture]) -> FrameBatch:
    return FrameBatch(
        np.stack([p.data for p in pictures]),
        np.array([p.pts_seconds for p in pictures], dtype=np.float64),
        np.array([p.duration_seconds for p in pictures], dtype=np.float64),
    )


def probe(path: str | Path) -> VideoInfo:
    """Describe a video file: its header, its last packets and its first picture are read.

    Raises:
        VideoError: it is not a video that can be read.
    """
    decoder = PyavDecoder(Path(path), max_side=None, threads=1)
    decoder.close()
    return decoder.info
