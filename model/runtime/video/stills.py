"""Joins the segments of a picture that stands still. Shapes: N frames, h rows, w columns.

A video is cut into equal parts. A part in which anything moves is a segment. A picture stands still

- that is shown for longer than a whole segment, until another one follows; or
- that every frame of ten minutes and more looks like: a film of one picture, a screen that nobody touches.

It is one segment with one frame, however long it stays. It looks the same where no value of its pixels
differs by more than `MAX_CHANGE`, nor all of them on average by more than `MEAN_CHANGE`: what an encoder
changes when it writes a picture again. A scene with the noise of a camera changes more.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.runtime.video.types import FrameBatch, Segment, Span

# A picture that is written again and again is one segment from here on; before, its segments are kept.
STILL_SECONDS = 600.0
# Of 255.
MAX_CHANGE = 32
MEAN_CHANGE = 0.5
# Held until it is known whether a picture stands still; beyond, pictures that look the same are held once.
MAX_HELD_BYTES = 64 << 20
# Where pictures differ, these few pixels nearly always tell.
SAMPLE = (slice(None, None, 16), slice(None, None, 16))


def join_stills(parts: Iterator[Segment | None], segment_seconds: float) -> Iterator[Segment | None]:
    """Yield the segments of a video, given its parts in the order of time, and None before each part.

    The parts' indices are kept, so that gaps show where parts were joined. At most one run of parts that look
    the same is held.

    Args:
        parts: the parts; None: a part was passed over.
        segment_seconds: the longest segment.
    """
    run: _Run | None = None
    for part in parts:
        yield None
        if part is None:
            continue
        frames = part.frames
        lasting = bool((frames.duration_seconds > segment_seconds).all())
        if run is not None and run.shows(frames):
            run.add(part)
        elif run is not None and lasting and run.is_lasting and run.shows_first(frames):
            # One picture that stands still follows another: the first ends where the second begins.
            following = frames.pts_seconds[1]
            run.end_seconds = float(following)
            yield from run.segments()
            run = _Run.begin(_after(part, float(following)), segment_seconds)
        else:
            if run is not None:
                yield from run.segments()
            run = _Run.begin(part, segment_seconds)
            if run is None:
                yield part
    if run is not None:
        yield from run.segments()


def look_same(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    """Whether two pictures [h, w, 3] look the same."""
    if one is other:
        return True
    if difference(one[SAMPLE], other[SAMPLE]).max() > MAX_CHANGE:
        return False
    change = difference(one, other)
    return bool(change.max() <= MAX_CHANGE and change.mean() <= MEAN_CHANGE)


def difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """By how much each value of two pictures differs."""
    return np.maximum(one, other) - np.minimum(one, other)


def _after(part: Segment, start: float) -> Segment:
    """What a part shows after its first frame."""
    frames = part.frames
    rest = FrameBatch(frames.data[1:], frames.pts_seconds[1:], frames.duration_seconds[1:])
    return Segment(part.index, Span(start, max(start, part.span.end_seconds)), rest)


@dataclass
class _Part:
    """A part of a run; without pixels of its own, they are those of the run's picture."""

    index: int
    span: Span
    frames: FrameBatch
    own_bytes: int


@dataclass
class _Run:
    """Parts that follow each other and show one picture.

    Attributes:
        picture: uint8 [h, w, 3].
        parts: its parts, until it is known that the picture stands still.
        is_lasting: its first frame alone is shown for longer than a segment.
        end_seconds: where it ends.
    """

    picture: NDArray[np.uint8]
    parts: list[_Part]
    is_lasting: bool
    end_seconds: float

    @classmethod
    def begin(cls, part: Segment, segment_seconds: float) -> "_Run | None":
        """Begin a run with a part; None where the part shows several pictures."""
        frames = part.frames
        first = frames.data[0]
        if not all(look_same(first, frame) for frame in frames.data[1:]):
            return None
        is_lasting = float(frames.duration_seconds[0]) > segment_seconds
        run = cls(first.copy(), [], is_lasting, part.span.end_seconds)
        run.add(part)
        return run

    def add(self, part: Segment) -> None:
        frames = part.frames
        self.end_seconds = part.span.end_seconds
        if self._is_still:
            return
        own_bytes = 0 if (frames.data == self.picture).all() else frames.data.nbytes
        if own_bytes == 0 or own_bytes + sum(part.own_bytes for part in self.parts) > MAX_HELD_BYTES:
            own_bytes, data = 0, np.broadcast_to(self.picture, frames.data.shape)
            frames = FrameBatch(data, frames.pts_seconds, frames.duration_seconds)
        self.parts.append(_Part(part.index, part.span, frames, own_bytes))

    def shows(self, frames: FrameBatch) -> bool:
        """Whether all frames look like this run's picture."""
        return all(look_same(self.picture, frame) for frame in frames.data)

    def shows_first(self, frames: FrameBatch) -> bool:
        """Whether the first of two frames looks like this run's picture."""
        return len(frames) == 2 and look_same(self.picture, frames.data[0])

    @property
    def _is_still(self) -> bool:
        if not self.parts:
            return False
        seconds = self.end_seconds - self.parts[0].span.start_seconds
        return self.is_lasting or seconds >= STILL_SECONDS

    def segments(self) -> Iterator[Segment]:
        """One segment for a picture that stood still, else each part."""
        if self._is_still:
            first = self.parts[0]
            start, end = first.span.start_seconds, max(first.span.start_seconds, self.end_seconds)
            pts = first.frames.pts_seconds[:1]
            lasts = np.maximum(first.frames.duration_seconds[:1], end - pts)
            yield Segment(first.index, Span(start, end), FrameBatch(self.picture[None], pts, lasts))
            return
        for part in self.parts:
            yield Segment(part.index, part.span, part.frames)
