"""Moments in stretches of videos: against plain loops, and on stretches whose moments are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from model.runtime.moment_spans import MomentRule, cut_into_cells, find_spans, find_spans_by_shots


@pytest.mark.parametrize("seed", range(20))
def test_cells_show_the_nearest_frames(seed: int) -> None:
    rng = np.random.default_rng(seed)
    start = float(rng.uniform(0, 100))
    end = start + float(rng.uniform(0.1, 100))
    pts = np.sort(rng.uniform(start, end, int(rng.integers(1, 40))))
    every = float(rng.uniform(0.3, 3))
    cells = cut_into_cells(start, end, pts, every)
    count = len(cells.frames)
    assert count == max(1, min(round((end - start) / every), len(pts)))
    assert cells.borders(0, count - 1) == pytest.approx((start, end))
    for cell, frame in enumerate(cells.frames.tolist()):
        first, last = cells.borders(cell, cell)
        distances = np.abs(pts - (first + last) / 2)
        assert distances[frame] == pytest.approx(distances.min())


def naive_spans(
    start: list[float], end: list[float], relevance: list[float], seconds: float, rule: MomentRule
) -> list[tuple[int, int]]:
    """Plain loops over the 48 most probable spans of a stretch without padding."""
    count = len(start)
    p = [math.exp(x) / sum(map(math.exp, start)) for x in start]
    q = [math.exp(x) / sum(map(math.exp, end)) for x in end]
    spans = [
        (p[a] * q[b], a, b)
        for a in range(count)
        for b in range(a, count)
        if (b - a + 1) * seconds <= rule.max_seconds + 1e-9
    ]
    spans = sorted(spans, key=lambda x: (-x[0], x[1], x[2]))[:48]
    best = spans[0][0]
    valued = []
    for share, a, b in spans:
        if share >= rule.least_share * best:
            mean = sum(relevance[a : b + 1]) / (b - a + 1)
            valued.append((10 * mean + rule.probability_weight * math.log(share / best), a, b))
    valued.sort(key=lambda x: -x[0])
    kept: list[tuple[int, int]] = []
    for _, a, b in valued:
        if len(kept) < rule.most and all(a > d + 1 or c > b + 1 for c, d in kept):
            kept.append((a, b))
    return kept


@pytest.mark.parametrize("seed", range(20))
def test_spans_are_those_of_plain_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, most = 6, 24
    lengths = rng.integers(1, most + 1, rows)
    lengths[0] = most
    start, end = rng.normal(0, 2, (2, rows, most)).astype(np.float32)
    relevance = rng.uniform(0, 0.4, (rows, most)).astype(np.float32)
    mask = np.arange(most)[None, :] < lengths[:, None]
    seconds = rng.uniform(0.5, 4, rows)
    rule = MomentRule(max_seconds=20.0, most=4, least_share=float(rng.choice([0.001, 0.05, 0.5])))
    found = find_spans(start, end, relevance, mask, seconds, rule)
    for row, length in enumerate(lengths.tolist()):
        values = [x[row, :length].astype(float).tolist() for x in (start, end, relevance)]
        expected = naive_spans(values[0], values[1], values[2], float(seconds[row]), rule)
        assert [(span.first, span.last) for span in found[row]] == expected
        assert found[row]
        assert found[row][0].log_share <= 0


def test_a_scene_that_comes_twice_gives_two_spans() -> None:
    start, end = np.full((1, 20), -6.0), np.full((1, 20), -6.0)
    start[0, [2, 12]], end[0, [5, 17]] = 4.0, 4.0
    relevance = np.full((1, 20), 0.1)
    relevance[0, 2:6] = relevance[0, 12:18] = 0.3
    (found,) = find_spans(start, end, relevance, np.ones((1, 20), np.bool_), np.array([1.0]), MomentRule())
    assert sorted((span.first, span.last) for span in found[:2]) == [(2, 5), (12, 17)]


def shots(*lengths: int, seed: int = 0) -> np.ndarray:
    """Vectors that differ little within shots of these lengths, and much between shots. → [T, 32]"""
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [rng.normal(size=32) + rng.normal(0, 0.1, (length, 32)) for length in lengths]
    ).astype(np.float32)


def test_without_a_head_a_moment_is_the_shots_that_fit() -> None:
    frames = shots(6, 5, 4, 9)
    relevance = np.repeat([0.1, 0.35, 0.33, 0.05], [6, 5, 4, 9])
    (span,) = find_spans_by_shots(frames, relevance, 1.0, MomentRule())
    assert (span.first, span.last, span.log_share) == (6, 14, 0.0)


def test_without_a_head_a_scene_that_comes_again_is_a_moment_of_its_own() -> None:
    frames = shots(4, 5, 4, 6, 5)
    relevance = np.repeat([0.3, 0.05, 0.32, 0.05, 0.31], [4, 5, 4, 6, 5])
    found = find_spans_by_shots(frames, relevance, 1.0, MomentRule())
    assert [(span.first, span.last) for span in found] == [(9, 12), (19, 23), (0, 3)]
    assert [span.log_share for span in found] == sorted((x.log_share for x in found), reverse=True)
    assert len(find_spans_by_shots(frames, relevance, 1.0, MomentRule(most=2))) == 2


@pytest.mark.parametrize("count", [1, 2, 3, 200])
def test_without_a_head_no_span_is_longer_than_allowed(count: int) -> None:
    frames = np.ones((count, 8), np.float32)
    relevance = np.linspace(0.1, 0.2, count)
    found = find_spans_by_shots(frames, relevance, 1.0, MomentRule(max_seconds=60.0))
    assert found
    for span in found:
        assert 0 <= span.first <= span.last < count
        assert span.last - span.first + 1 <= 60
