"""Which stored frames lie in a span of a video."""

import numpy as np

from indexer.library.records import SegmentRecord


def places_between(segment: SegmentRecord, start: float, end: float) -> list[int]:
    """Which frames of a segment lie in a span. Its end does not belong to it, unless it is its start.

    A frame lies where it appears; one that appeared before its segment began, at that. The only frame of a
    segment stands still, and lies everywhere in it. So the span of a segment holds its frames and no others.
    """
    last = np.nextafter(segment.end_seconds, segment.start_seconds)
    since = until = np.clip(segment.frame_pts_seconds, segment.start_seconds, last)
    if len(since) == 1:
        since, until = np.array([segment.start_seconds]), np.array([last])
    inside: list[int] = np.flatnonzero((until >= start) & ((since < end) | (since <= start))).tolist()
    return inside
