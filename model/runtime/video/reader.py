"""Reads the segments of a video file, and the frames played at given times."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from model.runtime.errors import ReelfindError
from model.runtime.installing import install_command
from model.runtime.preprocessing import READ_SIDE
from model.runtime.remote.path import RemotePath, media_path
from model.runtime.video.hardware import HwaccelName
from model.runtime.video.limits import ReadingLimits
from model.runtime.video.pyav_decoder import DEFAULT_LIMITS, PyavDecoder
from model.runtime.video.sampling import middle_times, plan_segments
from model.runtime.video.splitting import SPLIT_FORMATS, WHOLE, VideoSpan, count_spans, parts_of_span
from model.runtime.video.stills import join_stills
from model.runtime.video.types import DecoderName, Frame, FrameBatch, Segment, Span, VideoInfo

#: By how much the time of a frame may exceed the end of its part, seconds: both are rounded.
_ROUNDING = 1e-3


class VideoDecoder(Protocol):
    """A decoder of one file, as `VideoReader` uses it."""

    info: VideoInfo

    @property
    def damage(self) -> str | None:
        """What could not be read so far, or None."""

    @property
    def is_exact(self) -> bool:
        """Whether frames so far are those that a reader gives that begins elsewhere."""

    @property
    def end_seconds(self) -> float:
        """Where the video ends, in seconds, as far as is known by now."""

    def get_frames_played_at(self, times: Sequence[float]) -> Iterator[Frame]:
        """Yield the frame played at each of the times, seconds, which must not decrease."""

    def close(self) -> None:
        """Free the file and the decoder."""


class MakeDecoder(Protocol):
    """Opens a file with a decoder."""

    def __call__(
        self, path: Path, max_side: int | None, threads: int = 0, *, limits: ReadingLimits
    ) -> VideoDecoder:
        """See `VideoReader`."""


class VideoReader:
    """Reads the segments of one video file, one after the other.

    Args:
        path: the file.
        decoder: "pyav" reads all formats of FFmpeg; "decord" refuses files that it would decode wrongly.
        max_side: pixels on the longer side of the frames, at most; None keeps the native size.
        threads: threads of the decoder; None lets it choose.
        limits: what reading the file may take.
        hwaccel: decodes what it can, to the same frames, with the decoder "pyav"; None: software does.

    Attributes:
        info: the file's properties.
        damage: during and after reading, why the file could be read only in part; None when all of it could.

    Raises:
        VideoError: the file cannot be read as a video.
        ReelfindError: the decoder is not installed.
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        path: str | Path,
        decoder: DecoderName = "pyav",
        max_side: int | None = READ_SIDE,
        threads: int | None = None,
        limits: ReadingLimits = DEFAULT_LIMITS,
        hwaccel: HwaccelName | None = None,
    ) -> None:
        if decoder not in ("pyav", "decord"):
            raise ValueError(f"decoder must be 'pyav' or 'decord', got {decoder!r}")
        if max_side is not None and max_side < 1:
            raise ValueError(f"max_side must be at least 1, or None for the native size, got {max_side}")
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1, or None for the decoder's choice, got {threads}")
        if hwaccel is not None and decoder != "pyav":
            raise ValueError(f"hwaccel {hwaccel!r} decodes for 'pyav' alone, got decoder {decoder!r}")
        path = media_path(path)
        # Decord opens paths, and nothing else.
        by_pyav = decoder == "pyav" or isinstance(path, RemotePath)
        make: MakeDecoder = partial(PyavDecoder, hwaccel=hwaccel) if by_pyav else _decord()
        self._decoder: VideoDecoder = make(path, max_side, threads or 0, limits=limits)
        self.info: VideoInfo = self._decoder.info

    @property
    def damage(self) -> str | None:
        """Why the file could be read only in part, else None."""
        return self._decoder.damage

    @property
    def is_exact(self) -> bool:
        """Whether what was read so far is what a reader of any other span of the video gives for it."""
        return self._decoder.is_exact

    def num_spans(self, segment_seconds: float, span_seconds: float) -> int:
        """Into how many spans the video can be cut, for a reader each; 1: one reader has to read all of it.

        Args:
            segment_seconds: the longest segment.
            span_seconds: the longest span.
        """
        if not self.is_exact or self.info.container.split(",")[0] not in SPLIT_FORMATS:
            return 1
        planned = self._planned(segment_seconds)
        first = planned[0][1]
        return count_spans(len(planned), first.end_seconds - first.start_seconds, span_seconds)

    def segments(self, segment_seconds: float = 32.0, frames_per_segment: int = 16) -> Iterator[Segment]:
        """Decode the file once and yield each segment as soon as its frames are decoded.

        A segment holds 1 to `frames_per_segment` distinct frames, [N, h, w, 3]. A picture that stands still
        is one segment, however long it stays: see `model.runtime.video.stills`. Memory does not grow with
        the video's length.

        Raises:
            VideoError: nothing can be decoded.
            ValueError: an argument is out of range.
        """
        steps = self.steps(segment_seconds, frames_per_segment)
        return (segment for segment in steps if segment is not None)

    def steps(
        self, segment_seconds: float = 32.0, frames_per_segment: int = 16, span: VideoSpan = WHOLE
    ) -> Iterator[Segment | None]:
        """The same as `segments`, with None wherever reading makes progress: a still may last for hours.

        Args:
            segment_seconds: the longest segment.
            frames_per_segment: N, the frames sampled from a segment, at most.
            span: yield only the segments of this span. If `is_exact` holds after each, all spans together
                give the segments of the whole.
        """
        planned = self._planned(segment_seconds)
        start, following = span.nominal(len(planned))
        parts = parts_of_span(
            self._parts(planned[start:], frames_per_segment),
            begins_inside=span.number > 0,
            next_index=None if span.is_last else planned[following][0],
            segment_seconds=segment_seconds,
        )
        return join_stills(parts, segment_seconds)

    def _planned(self, segment_seconds: float) -> list[tuple[int, Span]]:
        """The equal parts of the video, and their numbers."""
        planned = list(enumerate(plan_segments(self.info.duration_seconds, segment_seconds)))
        # A part before the first frame (sound alone) holds nothing.
        return [(i, s) for i, s in planned if s.end_seconds > self.info.start_seconds] or planned[-1:]

    def _parts(self, planned: Sequence[tuple[int, Span]], frames_per_segment: int) -> Iterator[Segment]:
        """Parts of the video with their frames."""
        times = np.concatenate([middle_times(span, frames_per_segment) for _, span in planned])
        frames = self._decoder.get_frames_played_at(times.tolist())
        for index, span in planned:
            batch = _distinct(islice(frames, frames_per_segment), frames_per_segment)
            if batch is None:
                return
            # The first frame that there is stands for those before it, but not in a part that it comes after.
            inside = batch.pts_seconds <= span.end_seconds + _ROUNDING
            if not inside.any():
                continue
            if not inside.all():
                batch = FrameBatch(
                    batch.data[inside], batch.pts_seconds[inside], batch.duration_seconds[inside]
                )
            if self._decoder.end_seconds < span.end_seconds:
                span = Span(span.start_seconds, max(span.start_seconds, self._decoder.end_seconds))
            yield Segment(index, span, batch)

    def get_frames_played_at(self, times: Sequence[float]) -> Iterator[Frame]:
        """Yield the frame played at each of the times, seconds, which must not decrease.

        A time before the first frame gives the first, a time past the end the last. Where the rest of the
        file cannot be decoded, fewer frames than times are yielded.

        Raises:
            VideoError: nothing can be decoded.
            ValueError: the times decrease.
        """
        return self._decoder.get_frames_played_at(times)

    def close(self) -> None:
        """Free the file and the decoder."""
        self._decoder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _decord() -> MakeDecoder:
    try:
        from model.runtime.video.decord_decoder import DecordDecoder
    except ImportError as error:
        remedy = f"`{install_command('decord')}`, or use decoder pyav"
        raise ReelfindError(f"decoder decord is not installed: {remedy}") from error
    return DecordDecoder


def _distinct(frames: Iterator[Frame], most: int) -> FrameBatch | None:
    """The frames without those that repeat the one before; None where there is none.

    Each is copied as it comes, so that its memory serves the next one: fresh memory costs more than a copy.
    """
    data: NDArray[np.uint8] | None = None
    pts: list[float] = []
    durations: list[float] = []
    for frame in frames:
        if pts and frame.pts_seconds == pts[-1]:
            continue
        if data is None:
            data = np.empty((most, *frame.data.shape), np.uint8)
        data[len(pts)] = frame.data
        pts.append(frame.pts_seconds)
        durations.append(frame.duration_seconds)
    return None if data is None else FrameBatch(data[: len(pts)], np.array(pts), np.array(durations))


def probe(path: str | Path) -> VideoInfo:
    """Describe a video file from its header, its last packets and its first frame.

    Raises:
        VideoError: it cannot be read as a video.
    """
    decoder = PyavDecoder(media_path(path), max_side=None, threads=1)
    decoder.close()
    return decoder.info
