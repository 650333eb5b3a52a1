"""Spans where cuts are known: against plain loops, and on stretches whose shots are known."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from model.runtime.known_cuts import (
    ALIKE_SHARE,
    frames_between,
    grow_over_alike,
    snap_to_cuts,
    spans_of_shots,
)
from model.runtime.moment_spans import MomentRule

NONE = np.empty((0, 2))


def naive_snap(spans: list[tuple[float, float]], cuts: list[float], within: float) -> list[list[float]]:
    """Each cut asks which borders are nearest to it, and moves the nearest of them."""
    borders = [[place, side, spans[place][side]] for place in range(len(spans)) for side in (0, 1)]
    moved = [list(span) for span in spans]
    for cut in cuts:
        mine = [b for b in borders if min(cuts, key=lambda c: (abs(c - b[2]), c)) == cut]
        if mine:
            place, side, border = min(mine, key=lambda b: (abs(b[2] - cut), b[2]))
            if abs(border - cut) <= within:
                moved[int(place)][int(side)] = cut
    return moved


def random_spans(rng: np.random.Generator) -> NDArray[np.float64]:
    """Some spans with at least a cell between them, in any order."""
    count = int(rng.integers(0, 5))
    borders = np.cumsum(rng.integers(1, 6, 2 * count)).astype(float)
    return rng.permutation(borders.reshape(-1, 2))


@pytest.mark.parametrize("seed", range(60))
def test_spans_snap_as_plain_loops_say(seed: int) -> None:
    rng = np.random.default_rng(seed)
    spans = random_spans(rng)
    cuts = np.unique(rng.uniform(0, 30, int(rng.integers(0, 25))).round(int(rng.integers(1, 3))))
    within = float(rng.choice([0.5, 0.75, 3.0, 100.0]))
    found = snap_to_cuts(spans, cuts, within)
    expected = naive_snap([tuple(span) for span in spans.tolist()], cuts.tolist(), within)
    assert found.tolist() == expected
    # None is empty, and in time order none touches another.
    borders = found[np.argsort(spans[:, 0])].reshape(-1)
    assert (np.diff(borders) > 0).all()
    assert np.abs(found - spans).max(initial=0) <= within


def test_two_borders_do_not_share_a_cut() -> None:
    spans = np.array([[1.0, 5.0], [6.0, 9.0]])
    assert snap_to_cuts(spans, np.array([5.4]), 0.75).tolist() == [[1.0, 5.4], [6.0, 9.0]]
    assert snap_to_cuts(np.array([[4.0, 5.0]]), np.array([4.6]), 0.75).tolist() == [[4.0, 4.6]]


def naive_shots(
    edges: list[float], times: list[float], fit: list[float], taken: list[list[float]], rule: MomentRule
) -> list[tuple[float, float]]:
    """Plain loops over shots none of which is longer than a moment may be."""

    def mean(start: float, end: float) -> float:
        inside = [r for t, r in zip(times, fit, strict=True) if start <= t < end]
        middle = (start + end) / 2
        nearest = min(zip(times, fit, strict=True), key=lambda x: abs(x[0] - middle))[1]
        return sum(inside) / len(inside) if inside else nearest

    shots = list(pairwise(edges))
    values = [mean(*shot) for shot in shots]
    usual = sum(fit) / len(fit)
    spans = [tuple(span) for span in taken]
    best_value = max(mean(*span) for span in spans) if spans else max(values)
    found: list[tuple[float, float]] = []

    def is_free(place: int) -> bool:
        start, end = shots[place]
        return all(start > span[1] or end < span[0] for span in [*spans, *found])

    while len(spans) + len(found) < rule.most:
        free = [place for place in range(len(shots)) if is_free(place)]
        if not free:
            break
        best = max(free, key=lambda place: (values[place], -place))
        if (spans or found) and values[best] < (best_value + usual) / 2:
            break
        least = (values[best] + usual) / 2
        first = last = best
        while (
            first - 1 in free
            and values[first - 1] >= least
            and edges[last + 1] - edges[first - 1] <= rule.max_seconds
        ):
            first -= 1
        while (
            last + 1 in free
            and values[last + 1] >= least
            and edges[last + 2] - edges[first] <= rule.max_seconds
        ):
            last += 1
        found.append((edges[first], edges[last + 1]))
    return found


@pytest.mark.parametrize("seed", range(60))
def test_shots_are_those_of_plain_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    edges = np.concatenate([[0.0], np.cumsum(rng.uniform(0.1, 9, int(rng.integers(1, 12))))])
    times: NDArray[np.float64] = np.sort(rng.uniform(0, edges[-1], int(rng.integers(1, 40))))
    # Away from edges, where rounding decides.
    times = times[np.abs(times[:, None] - edges).min(1) > 0.01]
    times = times if len(times) else edges[:2].mean(keepdims=True)
    fit = rng.uniform(0, 1, len(times))
    spans = random_spans(rng) + 0.05
    taken = spans[spans[:, 1] < edges[-1]]
    rule = MomentRule(max_seconds=float(rng.choice([12.0, 60.0])), most=int(rng.integers(1, 6)))
    found = spans_of_shots((0.0, float(edges[-1])), edges[1:-1], times, fit, taken, rule)
    expected = naive_shots(edges.tolist(), times.tolist(), fit.tolist(), taken.tolist(), rule)
    np.testing.assert_allclose(found, np.array(expected).reshape(-1, 2))


def naive_growth(
    spans: list[list[float]],
    edges: list[float],
    times: list[float],
    vectors: NDArray[np.float64],
    max_seconds: float,
) -> list[list[float]]:
    """Plain loops: every pair of shots is compared, and each span asks for its neighbours."""

    def direction(start: float, end: float) -> NDArray[np.float64]:
        inside = [place for place, time in enumerate(times) if start <= time < end]
        middle = (start + end) / 2
        inside = inside or [min(range(len(times)), key=lambda place: abs(times[place] - middle))]
        mean: NDArray[np.float64] = vectors[inside].mean(axis=0)
        return mean / float(np.linalg.norm(mean))

    shots = [direction(*shot) for shot in pairwise(edges)]
    pairs = [1 - float(a @ b) for i, a in enumerate(shots) for b in shots[:i]]
    if not pairs:
        return spans
    most = ALIKE_SHARE * sum(pairs) / len(pairs)
    own = [direction(*span) for span in spans]
    grown = [list(span) for span in spans]
    for place, span in enumerate(grown):
        for side in (0, 1):
            while span[side] in edges[1:-1]:
                at = edges.index(span[side])
                shot, beyond = (at - 1, edges[at - 1]) if side == 0 else (at, edges[at + 1])
                longer = [beyond, span[1]] if side == 0 else [span[0], beyond]
                others = [other for number, other in enumerate(grown) if number != place]
                if 1 - float(shots[shot] @ own[place]) > most or longer[1] - longer[0] > max_seconds:
                    break
                if any(other[0] <= longer[1] and other[1] >= longer[0] for other in others):
                    break
                span[side] = beyond
    return grown


@pytest.mark.parametrize("seed", range(60))
def test_spans_grow_as_plain_loops_say(seed: int) -> None:
    rng = np.random.default_rng(seed)
    edges = np.concatenate([[0.0], np.cumsum(rng.uniform(1, 9, int(rng.integers(1, 14))))])
    times = np.sort(rng.uniform(0, edges[-1], int(rng.integers(1, 40))))
    times = times[np.abs(times[:, None] - edges).min(1) > 0.01]
    times = times if len(times) else edges[:2].mean(keepdims=True)
    # Few scenes, so that neighbouring shots are often of one.
    scenes = rng.normal(size=(3, 6))
    of_shots = rng.integers(0, 3, len(edges) - 1)
    shown = of_shots[np.searchsorted(edges, times, side="right") - 1]
    vectors = scenes[shown] + rng.normal(size=(len(times), 6)) * 0.2
    picked = np.sort(
        rng.choice(len(edges) - 1, int(rng.integers(0, min(4, len(edges) - 1) + 1)), replace=False)
    )
    picked = picked[np.diff(picked, prepend=-2) > 1]
    spans = np.stack([edges[picked], edges[picked + 1]], axis=1)
    if len(spans) and rng.random() < 0.3:
        spans[0, 1] -= 0.4
    rule = MomentRule(max_seconds=float(rng.choice([12.0, 60.0])))
    stretch = (0.0, float(edges[-1]))
    found = grow_over_alike(spans, stretch, edges[1:-1], times, vectors, rule)
    expected = naive_growth(spans.tolist(), edges.tolist(), times.tolist(), vectors, rule.max_seconds)
    assert found.tolist() == expected
    assert (np.diff(found[np.argsort(found[:, 0])].reshape(-1)) > 0).all()


def test_a_moment_grows_over_shots_of_its_scene() -> None:
    times = np.arange(0.5, 10.0)
    vectors = np.array([[1.0, 0.0]] * 2 + [[0.0, 1.0]] * 6 + [[1.0, 0.0]] * 2)
    cuts = np.array([2.0, 4.0, 6.0, 8.0])
    found = grow_over_alike(np.array([[4.0, 6.0]]), (0.0, 10.0), cuts, times, vectors, MomentRule())
    assert found.tolist() == [[2.0, 8.0]]


def test_a_long_shot_is_cut_evenly() -> None:
    times = np.arange(0.0, 150.0, 2.0)
    found = spans_of_shots((0.0, 150.0), np.empty(0), times, np.linspace(0, 1, 75), NONE, MomentRule())
    assert found[0].tolist() == [100.0, 150.0]


def test_without_cuts_one_shot_is_the_moment() -> None:
    found = spans_of_shots((2.0, 9.0), np.empty(0), np.array([3.0]), np.array([0.1]), NONE, MomentRule())
    assert found.tolist() == [[2.0, 9.0]]


def test_the_first_frame_of_a_shot_belongs_to_it() -> None:
    times = np.array([1.0, 2.0004, 3.0])
    # The cut of the frame at 2.0004 s is rounded up to 2.001 s.
    spans = np.array([[0.0, 2.001], [2.001, 4.0], [2.2, 2.6]])
    assert frames_between(times, spans).tolist() == [[0, 1], [1, 3], [1, 2]]


def test_a_still_that_stays_for_days_has_as_many_parts_as_frames() -> None:
    found = spans_of_shots((0.0, 1e9), np.empty(0), np.array([5.0]), np.array([0.5]), NONE, MomentRule())
    assert found.tolist() == [[0.0, 1e9]]


def test_a_cut_after_each_frame_costs_little() -> None:
    cuts = np.arange(1, 100_000) / 1000
    times = np.arange(0.0, 100.0, 2.0)
    taken = snap_to_cuts(np.array([[10.3, 20.7]]), cuts, 0.75)
    assert taken.tolist() == [[10.3, 20.7]]
    found = spans_of_shots((0.0, 100.0), cuts, times, np.linspace(0, 1, 50), taken, MomentRule())
    assert len(found) == 4
    spans = np.concatenate([taken, found])
    vectors = np.random.default_rng(0).normal(size=(50, 8))
    assert len(grow_over_alike(spans, (0.0, 100.0), cuts, times, vectors, MomentRule())) == 5
