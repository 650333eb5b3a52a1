"""Cuts a long video into spans that several readers read, so that together they give what one reader gives.

A video is read in equal parts, and `join_stills` joins parts in which one picture stands still. So a span
may end only after a part that no run of such parts can hold: one with two pictures so different that nothing
looks like both. Its frames alone tell. The reader of a span reads on beyond the nominal end of the span until
it has found such a part, and the reader of the next span leaves out everything up to that part.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from model.runtime.video.stills import MAX_CHANGE, MEAN_CHANGE, difference
from model.runtime.video.types import Segment

#: Formats whose header tells where the video ends. Of others, each reader would read all first.
SPLIT_FORMATS = ("mov", "matroska")


@dataclass(frozen=True)
class VideoSpan:
    """One of the spans that a video is cut into.

    Attributes:
        number: 0 for the first one.
        count: how many there are.

    Raises:
        ValueError: there is no such span.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.number < self.count:
            raise ValueError(f"there is no span {self.number} of {self.count}")

    @property
    def is_last(self) -> bool:
        """Whether it reaches to the end of the video."""
        return self.number + 1 == self.count

    def nominal(self, num_parts: int) -> tuple[int, int]:
        """The places, among so many parts, of the first part that is read for it, and for the next span."""
        return num_parts * self.number // self.count, num_parts * (self.number + 1) // self.count


#: All of a video.
WHOLE = VideoSpan(0, 1)


def count_spans(num_parts: int, part_seconds: float, span_seconds: float) -> int:
    """Into how many spans to cut a video: the fewest of at most `span_seconds`, or of one part each.

    Args:
        num_parts: how many parts it has.
        part_seconds: how long a part is.
        span_seconds: how long a span is, at most.
    """
    # The tolerance as in `plan_segments`.
    parts_of_span = max(1, math.floor(span_seconds / part_seconds + 1e-6)) if part_seconds > 0 else num_parts
    return max(1, math.ceil(num_parts / parts_of_span))


def parts_of_span(
    parts: Iterator[Segment], begins_inside: bool, next_index: int | None, segment_seconds: float
) -> Iterator[Segment | None]:
    """Yield the parts that belong to a span, and None for each that does not.

    Args:
        parts: the parts from the nominal start of the span to the end of the video.
        begins_inside: the span is not the first one, so it begins after a part that separates.
        next_index: the index of the first part that is read for the next span; None: there is no next one.
        segment_seconds: as for `join_stills`.
    """
    has_begun = not begins_inside
    for part in parts:
        is_beyond = next_index is not None and part.index >= next_index
        if not has_begun and is_beyond:
            # The spans before it reach up to here, and the next one begins where this one would.
            return
        separates = (is_beyond or not has_begun) and is_separating(part, segment_seconds)
        if has_begun:
            yield part
            if is_beyond and separates:
                return
        else:
            yield None
            has_begun = separates


def is_separating(part: Segment, segment_seconds: float) -> bool:
    """Whether `join_stills` ends all before and within this part, whatever came before it.

    Two pictures that both look like a third one differ from each other by at most twice as much as each may
    differ from that one. Where a picture differs by more from the first one, no run holds the whole part.
    """
    frames = part.frames
    if len(frames) == 2 and bool((frames.duration_seconds > segment_seconds).all()):
        # A lasting picture may end within the part, and another one begin.
        return False
    for picture in frames.data[1:]:
        change = difference(frames.data[0], picture)
        if change.max() > 2 * MAX_CHANGE or change.mean() > 2 * MEAN_CHANGE:
            return True
    return False
