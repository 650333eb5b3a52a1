"""Lines and spans on vectors: against plain loops, and values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from model.data.alignment import agreed_span, align, span_label, tokens_kept
from model.runtime.timed_text import TimedLine


def line(start: float, end: float) -> TimedLine:
    return TimedLine(start, end, "text")


def test_lines_by_hand() -> None:
    """Vectors of 1.5 s: [0, 1.5), [1.5, 3), [3, 4.5), [4.5, 6), [6, 7.5)."""
    lines = [line(0.2, 1.4), line(1.4, 3.0), line(3.0, 3.0), line(4.6, 20.0), line(30.0, 31.0)]
    found = align(lines, 5, 1.5)
    assert [list(covered) for covered in found.vectors] == [[0], [0, 1], [], [3, 4], []]
    # Vector 0 overlaps the first line by 1.2 of 1.5 s; no line covers vector 2, which stays.
    assert found.line.tolist() == [0, 1, -1, 3, 3]
    assert found.line.dtype == np.int64


def naive(lines: list[TimedLine], count: int, every: float) -> tuple[list[list[int]], list[int]]:
    """As HERO's preparation of subtitles does it, in loops."""
    covered = [
        [i for i in range(count) if np.floor(x.start_seconds / every) <= i < np.ceil(x.end_seconds / every)]
        for x in lines
    ]
    unique = []
    for i in range(count):
        best, chosen = -1.0, -1
        for number, x in enumerate(lines):
            if i in covered[number]:
                start, end = x.start_seconds / every, x.end_seconds / every
                shared = min(end, i + 1) - max(start, i)
                iou = 0.0 if shared <= 0 else shared / (max(end, i + 1) - min(start, i))
                if iou > best + 1e-12:
                    best, chosen = iou, number
        unique.append(chosen)
    return covered, unique


@pytest.mark.parametrize("seed", range(30))
def test_lines_against_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count, every = int(rng.integers(1, 12)), float(rng.choice([1.5, 2.0, 0.7]))
    starts = rng.uniform(0, 1.3 * count * every, int(rng.integers(0, 8)))
    lines = sorted(line(s, s + d) for s, d in zip(starts, rng.exponential(3, len(starts)), strict=True))
    found = align(lines, count, every)
    covered, unique = naive(lines, count, every)
    assert [list(part) for part in found.vectors] == covered
    assert found.line.tolist() == unique


@pytest.mark.parametrize(
    ("span", "count", "label"),
    [
        ((3.2, 7.6), 10, (2, 5)),  # floor(2.13), ceil(5.07) − 1
        ((3.0, 4.5), 10, (2, 3)),  # one vector long: the label has two at least
        ((0.0, 15.0), 10, (0, 9)),
        ((0.0, 99.0), 10, (0, 9)),
        ((13.6, 15.0), 10, (9, 9)),
        ((20.0, 21.0), 10, (9, 9)),  # annotated after the last vector
        ((0.0, 0.0), 1, (0, 0)),
    ],
)
def test_labels_by_hand(span: tuple[float, float], count: int, label: tuple[int, int]) -> None:
    assert span_label(span, count, 1.5) == label


def test_tokens_fill_the_text_in_order() -> None:
    assert tokens_kept([20, 30, 20, 5]) == (20, 30, 10, 0)
    assert tokens_kept([3, 4], 10) == (3, 4)
    assert tokens_kept([]) == ()


def test_the_span_that_annotators_agree_on() -> None:
    assert agreed_span([(0.0, 5.0), (5.0, 15.0), (5.0, 10.0), (5.0, 15.0)]) == 1
    assert agreed_span([(0.0, 5.0), (10.0, 15.0)]) == 0  # equal ones: the first
    assert agreed_span([(2.0, 2.0), (2.0, 2.0)]) == 0
    assert agreed_span([(0.0, 5.0), (20.0, 25.0), (4.0, 9.0)]) == 0
