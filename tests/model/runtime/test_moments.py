"""Spans and moments from logits, against loops over all pairs of frames."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import model.runtime.moments as module
from model.runtime.errors import InputError
from model.runtime.moments import (
    SPAN_PRESETS,
    MomentOptions,
    SpanLimits,
    best_spans,
    frame_probabilities,
    hull_iou,
    rank_moments,
    span_seconds,
    suppress,
    temporal_iou,
)

Reals = NDArray[np.float64]

# Whole and half logits, so that many pairs tie.
LIMITS = st.one_of(
    st.just(SPAN_PRESETS["default"]),
    st.just(SPAN_PRESETS["hero"]),
    st.builds(lambda low, more: SpanLimits(low, low + more), st.integers(0, 5), st.integers(0, 6)),
    st.builds(SpanLimits, st.integers(0, 5), st.none()),
)


@st.composite
def logits(draw: st.DrawFn) -> tuple[Reals, Reals, NDArray[np.bool_]]:
    """Start and end logits of a few videos with padding between and after their frames."""
    videos, frames = draw(st.integers(0, 4)), draw(st.integers(0, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    start, end = rng.integers(-3, 4, (2, videos, frames)) / 2
    mask = rng.random((videos, frames)) < draw(st.sampled_from([0.5, 0.8, 1.0]))
    start[~mask] = np.nan
    end[~mask] = 99
    return start, end, mask


def naive_spans(start: Reals, end: Reals, mask: NDArray[np.bool_], limits: SpanLimits) -> list[Any]:
    """(−probability, start, end) of all spans of one video, best first."""
    frames = len(mask)
    most = frames if limits.max_frames is None else limits.max_frames
    return sorted(
        (-start[i] * end[j], i, j)
        for i in range(frames)
        for j in range(frames)
        if mask[i] and mask[j] and limits.min_frames <= j - i <= most
    )


def naive_iou(a: Any, b: Any) -> float:
    shared = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    union = (a[1] - a[0]) + (b[1] - b[0]) - shared
    return shared / union if union else 0.0


def naive_ranking(
    similarity: Reals, start: Reals, end: Reals, mask: NDArray[np.bool_], options: MomentOptions
) -> list[Any]:
    """(video, start, end, score), best first."""
    p_start, p_end = (frame_probabilities(values, mask) for values in (start, end))
    order = sorted(range(len(similarity)), key=lambda v: -similarity[v])[: options.num_videos]
    found = []
    for place, video in enumerate(order):
        weight = np.exp(options.similarity_weight * similarity[video])
        spans = naive_spans(p_start[video], p_end[video], mask[video], options.limits)
        found += [(-weight * -p, place, p, i, j, video) for p, i, j in spans]
    found = sorted(found)[: options.num_spans]
    kept: list[Any] = []
    for minus_score, _, _, i, j, video in found:
        rivals = [(a, b) for v, a, b, _ in kept if v == video]
        overlaps = [naive_iou((i, j + 1), (a, b + 1)) for a, b in rivals]
        if options.max_iou is None or not any(iou > options.max_iou for iou in overlaps):
            kept.append((video, i, j, -minus_score))
    return kept[: options.num_moments]


@given(logits())
def test_probabilities_are_a_softmax_over_the_real_frames(values: Any) -> None:
    start, _, mask = values
    found = frame_probabilities(start, mask)
    for row, real, got in zip(start, mask, found, strict=True):
        total = sum(math.exp(value) for value in row[real])
        expected = [math.exp(value) / total if keep else 0.0 for value, keep in zip(row, real, strict=True)]
        np.testing.assert_allclose(got, expected, atol=1e-12)


@given(logits(), LIMITS, st.integers(1, 30))
def test_spans_are_those_that_loops_find(values: Any, limits: SpanLimits, count: int) -> None:
    start, end, mask = values
    p_start, p_end = (frame_probabilities(part, mask) for part in (start, end))
    found = best_spans(p_start, p_end, mask, limits, count)
    assert found.start.shape == found.end.shape == found.probability.shape == found.mask.shape
    for video in range(len(mask)):
        expected = naive_spans(p_start[video], p_end[video], mask[video], limits)[:count]
        kept = found.mask[video]
        got = zip(-found.probability[video], found.start[video], found.end[video], strict=True)
        assert list(got)[: len(expected)] == expected
        assert kept.tolist() == [place < len(expected) for place in range(len(kept))]
        assert not found.probability[video, ~kept].any()
    assert found.mask.shape[1] <= count


def test_many_videos_in_parts_equal_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    start, end = rng.random((2, 7, 30))
    mask = np.arange(30) < rng.integers(1, 31, 7)[:, None]
    whole = best_spans(start, end, mask, SpanLimits(), 20)
    monkeypatch.setattr(module, "_PAIRS_AT_ONCE", 1600)
    parts = best_spans(start, end, mask, SpanLimits(), 20)
    for name in ("start", "end", "probability", "mask"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))


@given(
    logits(),
    LIMITS,
    st.integers(1, 4),
    st.integers(1, 25),
    st.integers(1, 12),
    st.sampled_from([None, 0.0, 0.3, 0.5, 1.0]),
    st.integers(0, 2**32 - 1),
)
def test_the_ranking_is_that_of_loops(
    values: Any, limits: SpanLimits, videos: int, spans: int, moments: int, max_iou: float | None, seed: int
) -> None:
    start, end, mask = values
    similarity = np.random.default_rng(seed).integers(-2, 3, len(mask)) / 20
    options = MomentOptions(limits, videos, spans, moments, max_iou)
    found = rank_moments(similarity, start, end, mask, options)
    got = zip(found.video, found.start, found.end, found.score, strict=True)
    assert list(got) == naive_ranking(similarity, start, end, mask, options)


def test_the_joint_score_by_hand() -> None:
    # Two videos of two frames; all starts and ends are equally likely, so that p_start · p_end is 1/4.
    zeros, mask = np.zeros((2, 2), np.float32), np.ones((2, 2), np.bool_)
    found = rank_moments(np.array([0.1, 0.2], np.float32), zeros, zeros, mask)
    assert found.video.tolist() == [1, 1, 1, 0, 0, 0]
    assert list(zip(found.start, found.end, strict=True)) == [(0, 0), (0, 1), (1, 1)] * 2
    expected = [math.exp(20 * 0.2) / 4] * 3 + [math.exp(20 * 0.1) / 4] * 3
    np.testing.assert_allclose(found.score, expected, rtol=1e-6)
    hero = rank_moments(np.array([0.1, 0.2]), zeros, zeros, mask, MomentOptions(SPAN_PRESETS["hero"]))
    assert len(hero) == 0


def test_extreme_logits_keep_their_order() -> None:
    start = np.array([[500.0, -500.0, -500.0]])
    found = rank_moments(np.ones(1), start, start, np.ones((1, 3), np.bool_))
    assert (found.start[0], found.end[0]) == (0, 0)
    assert len(found) == 6
    assert np.isfinite(found.score).all()


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 6), st.integers(0, 1)), max_size=12))
def test_suppression_is_greedy_within_a_group(rows: list[tuple[int, int, int]]) -> None:
    spans = np.array([(start, start + length) for start, length, _ in rows], np.float64).reshape(-1, 2)
    group = np.array([group for _, _, group in rows], np.int64)
    kept: list[int] = []
    for i in range(len(rows)):
        if not any(group[i] == group[k] and naive_iou(spans[i], spans[k]) > 0.5 for k in kept):
            kept.append(i)
    assert np.flatnonzero(suppress(spans, group, 0.5)).tolist() == kept


@given(st.lists(st.tuples(*[st.floats(0, 100)] * 4), min_size=1))
def test_iou_over_the_union_and_over_the_hull(rows: list[tuple[float, float, float, float]]) -> None:
    values = np.sort(np.array(rows).reshape(-1, 2, 2), axis=2)
    a, b = values[:, 0], values[:, 1]
    for got in (temporal_iou(a[:, None], b), hull_iou(a[:, None], b)):
        expected = [[naive_iou(x, y) for y in b] for x in a]
        np.testing.assert_allclose(got, expected, atol=1e-9)


def test_iou_by_hand_in_the_type_of_the_spans() -> None:
    one = np.array([2.0, 8.0], np.float32)
    others = np.array([[2, 8], [4, 10], [8, 9], [20, 30], [9, 3], [5, 5]], np.float32)
    for iou in (temporal_iou(one, others), hull_iou(one, others)):
        np.testing.assert_array_equal(iou, np.array([1, 0.5, 0, 0, 0, 0], np.float32))
        assert iou.dtype == np.float32
    point = np.array([5, 5])
    assert temporal_iou(point, point) == hull_iou(point, point) == 0
    assert temporal_iou(np.array([0, 2]), np.array([1, 3])).dtype == np.float64


def test_seconds_end_with_the_video() -> None:
    start, end = np.array([0, 2, 6]), np.array([0, 5, 6])
    assert span_seconds(start, end, 1.5).tolist() == [[0, 1.5], [3, 9], [9, 10.5]]
    assert span_seconds(start, end, 1.5, 9.25).tolist() == [[0, 1.5], [3, 9], [9, 9.25]]
    lengths = np.array([1.0, 20.0, 8.0])
    assert span_seconds(start, end, 1.5, lengths).tolist() == [[0, 1], [3, 9], [8, 8]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SpanLimits(-1), "min_frames is -1: it must be 0 or more"),
        (lambda: SpanLimits(3, 2), "max_frames is 2: it must be at least `min_frames`, 3"),
        (lambda: MomentOptions(num_spans=0), "num_spans is 0: it must be at least 1"),
        (lambda: MomentOptions(max_iou=1.5), "max_iou is 1.5: it must be between 0 and 1"),
        (lambda: MomentOptions(similarity_weight=math.nan), "similarity_weight is nan"),
    ],
)
def test_options_are_checked(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        make()


def test_broken_numbers_and_shapes_are_named() -> None:
    mask = np.ones((2, 3), np.bool_)
    good = np.zeros((2, 3))
    with pytest.raises(ValueError, match="a logit is NaN or infinite"):
        rank_moments(np.zeros(2), np.full((2, 3), np.nan), good, mask)
    with pytest.raises(ValueError, match="a similarity is NaN or infinite"):
        rank_moments(np.array([0, np.nan]), good, good, mask)
    with pytest.raises(ValueError, match=r"similarity \[3\] and frame_mask \[2, 3\]"):
        rank_moments(np.zeros(3), good, good, mask)
    with pytest.raises(ValueError, match=r"logits \[2, 4\] and frame_mask \[2, 3\]"):
        frame_probabilities(np.zeros((2, 4)), mask)
    with pytest.raises(ValueError, match=r"\[\[2, 3\], \[2, 4\]\]: pass \[V, T\] three times"):
        best_spans(good, np.zeros((2, 4)), mask, SpanLimits(), 1)
    with pytest.raises(ValueError, match="count is 0"):
        best_spans(good, good, mask, SpanLimits(), 0)
