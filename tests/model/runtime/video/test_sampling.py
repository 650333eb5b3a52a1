"""Segments and sample times."""

import itertools

import numpy as np
import pytest

from model.runtime.video import FrameBatch, Span, middle_times, plan_segments


@pytest.mark.parametrize(
    ("duration", "count"),
    [(0.0, 1), (0.04, 1), (32.0, 1), (32.00000001, 1), (32.1, 2), (64.0, 2), (3600.0, 113)],
)
def test_segments_are_the_fewest_equal_parts(duration: float, count: int) -> None:
    spans = plan_segments(duration)
    assert len(spans) == count
    assert spans[0].start_seconds == 0
    assert spans[-1].end_seconds == duration
    lengths = [span.end_seconds - span.start_seconds for span in spans]
    np.testing.assert_allclose(lengths, duration / count)
    for before, after in itertools.pairwise(spans):
        assert before.end_seconds == after.start_seconds


def test_middle_times_are_the_middles_of_equal_parts() -> None:
    np.testing.assert_allclose(middle_times(Span(10.0, 18.0), 4), [11.0, 13.0, 15.0, 17.0])
    np.testing.assert_allclose(middle_times(Span(10.0, 18.0), 1), [14.0])


@pytest.mark.parametrize("duration", [-1.0, float("nan"), float("inf")])
def test_a_duration_that_is_no_duration_is_refused(duration: float) -> None:
    with pytest.raises(ValueError, match="duration_seconds must be finite"):
        plan_segments(duration)


@pytest.mark.parametrize("segment", [0.0, -32.0, float("nan"), float("inf")])
def test_a_segment_length_that_is_no_length_is_refused(segment: float) -> None:
    with pytest.raises(ValueError, match="segment_seconds must be finite"):
        plan_segments(10.0, segment)


def test_counts_spans_and_batches_are_checked() -> None:
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        middle_times(Span(0.0, 1.0), 0)
    with pytest.raises(ValueError, match=r"span 2\.0\.\.1\.0"):
        Span(2.0, 1.0)
    data, times = np.zeros((2, 4, 6, 3), np.uint8), np.zeros(2)
    with pytest.raises(ValueError, match=r"data must be uint8 \[N, h, w, 3\], got uint8 \[2, 4, 6\]"):
        FrameBatch(data[..., 0], times, times)
    with pytest.raises(ValueError, match=r"pts_seconds must be float64 \[2\], got float64 \[1\]"):
        FrameBatch(data, times[:1], times)
    with pytest.raises(ValueError, match=r"duration_seconds must be float64 \[2\], got float32"):
        FrameBatch(data, times, times.astype(np.float32))
    batch = FrameBatch(data, np.array([0.0, 0.5]), times)
    assert len(batch) == 2
    assert repr(batch) == "FrameBatch(data uint8 [2, 4, 6, 3], pts_seconds [0.000, 0.500])"
