"""Where to cut a video into segments, and at which times to sample their frames."""

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from model.runtime.video.types import Span


def plan_segments(duration_seconds: float, segment_seconds: float = 32.0) -> tuple[Span, ...]:
    """Cut `[0, duration_seconds]` into the fewest equal parts of at most `segment_seconds`.

    A duration of zero (one frame without a duration) gives one empty span.

    Raises:
        ValueError: the duration is negative or not finite, or `segment_seconds` is not above zero.
    """
    if not (math.isfinite(duration_seconds) and duration_seconds >= 0):
        raise ValueError(f"duration_seconds must be finite and not negative, got {duration_seconds}")
    if not (math.isfinite(segment_seconds) and segment_seconds > 0):
        raise ValueError(f"segment_seconds must be finite and more than zero, got {segment_seconds}")
    # The tolerance cuts 64.0000001 s (rounded time stamps) into two parts of 32 s.
    count = max(1, math.ceil(duration_seconds / segment_seconds - 1e-6))
    edges = [duration_seconds * i / count for i in range(count + 1)]
    return tuple(Span(start, end) for start, end in itertools.pairwise(edges))


def middle_times(span: Span, count: int) -> NDArray[np.float64]:
    """The middle of each of `count` equal parts of `span`, seconds, float64 [count].

    Raises:
        ValueError: `count` is less than one.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    step = (span.end_seconds - span.start_seconds) / count
    return span.start_seconds + step * (np.arange(count, dtype=np.float64) + 0.5)
