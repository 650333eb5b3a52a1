"""Which vectors of a video show what is said, or what a query describes.

Vector i of a video stands for the seconds [i·every, (i + 1)·every). Shapes: M vectors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.arrays import Rows
from model.data.datasets.records import SpanSeconds
from model.runtime.timed_text import TimedLine

#: HERO's limits: vectors of a video, tokens of its text.
MAX_VECTORS, MAX_TOKENS = 100, 60


@dataclass(frozen=True, eq=False)
class Alignment:
    """Lines and vectors, as HERO matches them.

    Attributes:
        vectors: of each line, the vectors that it covers, [floor(start / every), ceil(end / every)) within
            the video. Vectors may have several lines; lines after the last vector have none.
        line: int64 [M], of each vector the one line that it overlaps most (of equal ones the first), or −1:
            such vectors stay, without a line.
    """

    vectors: tuple[range, ...]
    line: Rows


def align(lines: Sequence[TimedLine], count: int, every_seconds: float) -> Alignment:
    """Match lines with the `count` vectors of a video; `every_seconds` are the seconds of one vector."""
    vectors = tuple(_covered(line, count, every_seconds) for line in lines)
    chosen: Rows = np.full(count, -1, np.int64)
    best = np.full(count, -1.0)
    for number, (line, covered) in enumerate(zip(lines, vectors, strict=True)):
        for i in covered:
            overlap = _overlap(line, i * every_seconds, (i + 1) * every_seconds)
            if overlap > best[i]:
                chosen[i], best[i] = number, overlap
    return Alignment(vectors, chosen)


def _covered(line: TimedLine, count: int, every: float) -> range:
    first = min(count, math.floor(line.start_seconds / every))
    return range(first, max(first, min(count, math.ceil(line.end_seconds / every))))


def _overlap(line: TimedLine, start: float, end: float) -> float:
    """Intersection over union of a line and [start, end), which overlap or touch."""
    shared = min(line.end_seconds, end) - max(line.start_seconds, start)
    return max(0.0, shared) / (max(line.end_seconds, end) - min(line.start_seconds, start))


def tokens_kept(counts: Sequence[int], most: int = MAX_TOKENS) -> tuple[int, ...]:
    """How many tokens of each line fit a text of `most` tokens: lines in order, the last one cut."""
    kept = []
    for count in counts:
        kept.append(min(count, most))
        most -= kept[-1]
    return tuple(kept)


#: The first and the last vector of a moment; both are included.
Label = tuple[int, int]


def span_label(span: SpanSeconds, count: int, every_seconds: float) -> Label:
    """The vectors that show a span, as HERO labels them.

    start = min(floor(t0 / every), M − 1); end = min(max(ceil(t1 / every) − 1, start + 1), M − 1). So a span
    has two vectors at least, but for one that starts in the last vector.

    Args:
        span: (t0, t1) in seconds.
        count: M, 1 or more.
        every_seconds: the seconds of one vector.
    """
    start = min(math.floor(span[0] / every_seconds), count - 1)
    return start, min(max(math.ceil(span[1] / every_seconds) - 1, start + 1), count - 1)


def agreed_span(spans: Sequence[SpanSeconds]) -> int:
    """Which of several annotators' spans overlaps the others most: its place; of equal ones the first.

    The measure is the sum of the intersections over unions with all spans.
    """
    sums = [sum(_iou(span, other) for other in spans) for span in spans]
    return sums.index(max(sums))


def _iou(a: SpanSeconds, b: SpanSeconds) -> float:
    if a == b:
        return 1.0
    shared = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    union = (a[1] - a[0]) + (b[1] - b[0]) - shared
    return shared / union if union else 0.0
