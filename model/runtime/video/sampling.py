"""Where to cut a video into segments and when to look at them."""

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from model.runtime.video.types import Span


def plan_segments(duration_seconds: float, segment_seconds: float = 32.0) -> tuple[Span, ...]:
    """Cut `[0, duration_seconds]` into the fewest equal parts of at most `segment_seconds`.

    A duration of zero (one picture, no length given) is one empty span.

    Raises:
        ValueError: the duration is negative or not finite, or the segment is not longer than zero.
    """
    if not (math.isfinite(duration_seconds) and duration_seconds >= 0):
        raise ValueError(f"duration_seconds must be finite and not negative, got {duration_seconds}")
    if not (math.isfinite(segment_seconds) and segment_seconds > 0):
        raise ValueError(f"segment_seconds must be finite and more than zero, got {segment_seconds}")
    # The small allowance keeps 64.0000001 s (rounded time stamps) at two parts of 32.
    count = max(1, math.ceil(duration_seconds / segment_seconds - 1e-6))
    edges = [duration_seconds * i / count for i in range(count + 1)]
    return tuple(Span(start, end) for start, end in itertools.pairwise(edges))


def middle_times(span: Span, count: int) -> NDArray[np.float64]:
    """Give the middle of each of `count` equal parts of `span`, seconds, float64 [count].

    Raises:
        ValueError: `count` is less than one.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    step = (span.end_seconds - span.start_seconds) / count
    return span.start_seconds + step * (np.arange(count, dtype=np.float64) + 0.5)
