"""Moments of a stretch whose cuts are known: spans snap to cuts, shots may be moments too, and both grow.

All times are in seconds. Shapes: K spans, C cuts, F stored frames, S size of a frame's vector, N shots.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.runtime.moment_spans import MomentRule

#: How far a span's border may be from a cut to move there, in cells. Borders of spans lie between cells.
SNAP_CELLS = 0.75
#: By how much a stored frame may begin before its cut: cuts are rounded up to the millisecond.
CUT_ROUNDING = 2e-3

#: A shot looks like a span if they differ by this share of what two shots of the stretch differ by, at most.
ALIKE_SHARE = 0.3

Spans = NDArray[np.float64]


def snap_to_cuts(spans: Spans, cuts: NDArray[np.float64], within_seconds: float) -> Spans:
    """Move the starts and ends of spans to cuts near them.

    A border moves to the cut nearest to it, if that is not further than `within_seconds`. Of several borders
    that are nearest to one cut only the nearest moves, the first of equals: so no span becomes empty, and
    spans that neither overlap nor touch stay so.

    Args:
        spans: start and end of each, [K, 2]; a start is before its end.
        cuts: rising, [C].
        within_seconds: how far a border moves, at most.

    Returns:
        The spans in the same order, [K, 2].
    """
    borders = spans.reshape(-1).copy()
    if not len(cuts) or not len(borders):
        return borders.reshape(-1, 2)
    after = np.searchsorted(cuts, borders).clip(1, max(1, len(cuts) - 1))
    before = after - 1
    after = np.minimum(after, len(cuts) - 1)
    nearest = np.where(borders - cuts[before] <= cuts[after] - borders, before, after)
    distance = np.abs(cuts[nearest] - borders)
    # The nearest border of each cut, and of equals the first in time.
    order = np.lexsort((borders, distance, nearest))
    _, first = np.unique(nearest[order], return_index=True)
    moved = order[first]
    moved = moved[distance[moved] <= within_seconds]
    borders[moved] = cuts[nearest[moved]]
    return borders.reshape(-1, 2)


def spans_of_shots(
    stretch: tuple[float, float],
    cuts: NDArray[np.float64],
    times: NDArray[np.float64],
    relevance: NDArray[np.floating],
    taken: Spans,
    rule: MomentRule,
) -> Spans:
    """Shots that are moments, besides the spans that are taken; best first, at least one if none is taken.

    A shot is as relevant as the mean of its frames. A moment is a shot with the shots beside it that come
    nearer to it in relevance than to the stretch's mean. It comes nearer to the best span, or shot, than to
    that mean, and neither overlaps nor touches another moment.

    Args:
        stretch: where it starts and ends.
        cuts: those within it, rising, [C].
        times: when its frames are shown, rising, [F], F ≥ 1.
        relevance: how well each frame fits the query, [F].
        taken: start and end of each span that is taken, [K, 2].
        rule: which spans are moments; its shares and weights of probabilities are not read.

    Returns:
        start and end of each, [K', 2], so that there are no more than `rule.most` with those taken.
    """
    edges = _edges(*stretch, cuts, rule.max_seconds, len(times))
    free = np.ones(len(edges) - 1, np.bool_)
    for start, end in taken.tolist():
        free &= (edges[:-1] > end) | (edges[1:] < start)
    both = np.concatenate([np.stack([edges[:-1], edges[1:]], 1), taken])
    of_shots, of_taken = np.split(_means(both, times, relevance), [len(free)])
    usual = float(relevance.mean())
    best_value = float((of_taken if len(taken) else of_shots).max())
    found: list[tuple[float, float]] = []
    while len(taken) + len(found) < rule.most and free.any():
        best = int(np.where(free, of_shots, -np.inf).argmax())
        if (found or len(taken)) and of_shots[best] < (best_value + usual) / 2:
            break
        least = (of_shots[best] + usual) / 2
        first = last = best
        for step, end in ((-1, -1), (1, len(of_shots))):
            for shot in range(best + step, end, step):
                length = edges[max(shot, last) + 1] - edges[min(shot, first)]
                if not free[shot] or of_shots[shot] < least or length > rule.max_seconds + 1e-6:
                    break
                first, last = min(first, shot), max(last, shot)
        free[max(0, first - 1) : last + 2] = False
        found.append((float(edges[first]), float(edges[last + 1])))
    return np.array(found, np.float64).reshape(-1, 2)


def grow_over_alike(
    spans: Spans,
    stretch: tuple[float, float],
    cuts: NDArray[np.float64],
    times: NDArray[np.float64],
    vectors: NDArray[np.floating],
    rule: MomentRule,
) -> Spans:
    """Let spans grow over the shots beside them that look like them.

    A shot looks like a span if the cosine distance of the means of their frames is at most `ALIKE_SHARE` of
    the mean distance of two shots of the stretch. Spans grow one after the other, as they come, to the left
    and then to the right, where they start or end with a shot; they do not come to touch each other.

    Args:
        spans: start and end of each, [K, 2].
        stretch: where it starts and ends.
        cuts: those within it, rising, [C].
        times: when its frames are shown, rising, [F], F ≥ 1.
        vectors: what tells how alike frames are, [F, S].
        rule: how long a moment may be.
    """
    if not len(cuts):
        return spans
    edges = np.concatenate([[stretch[0]], cuts, [stretch[1]]])
    count = len(edges) - 1
    both = np.concatenate([np.stack([edges[:-1], edges[1:]], 1), spans])
    shots, own = np.split(_mean_directions(both, times, vectors), [count])
    # The sum over all pairs, those of a shot with itself left out.
    mean_cosine = (float(np.square(shots.sum(axis=0)).sum()) - count) / (count * (count - 1))
    least = 1 - ALIKE_SHARE * (1 - mean_cosine)
    alike = (shots @ own.T >= least).tolist()
    grown = spans.copy()
    for place in range(len(grown)):
        for side in (0, 1):
            edge = int(np.searchsorted(edges, grown[place, side]))
            # The shot before the first edge, or after the last, is none.
            while 0 < edge < count and edges[edge] == grown[place, side]:
                shot, beyond = (edge - 1, edge - 1) if side == 0 else (edge, edge + 1)
                if not alike[shot][place]:
                    break
                longer = grown[place].copy()
                longer[side] = edges[beyond]
                touches = (grown[:, 0] <= longer[1]) & (grown[:, 1] >= longer[0])
                touches[place] = False
                is_long = longer[1] - longer[0] > rule.max_seconds + 1e-6
                if is_long or touches.any():
                    break
                grown[place], edge = longer, beyond
    return grown


def frames_between(times: NDArray[np.float64], spans: Spans) -> NDArray[np.int64]:
    """The first frame in each span between cuts, and the one after its last, [K, 2].

    Where there is none, the frame nearest to the middle counts.
    """
    inside = np.searchsorted(times, spans - CUT_ROUNDING).astype(np.int64)
    empty = inside[:, 0] >= inside[:, 1]
    if empty.any():
        nearest = np.searchsorted((times[1:] + times[:-1]) / 2, spans[empty].mean(axis=1))
        inside[empty] = np.stack([nearest, nearest + 1], axis=1)
    return inside


def _edges(
    start: float, end: float, cuts: NDArray[np.float64], max_seconds: float, num_frames: int
) -> NDArray[np.float64]:
    """Where shots start, and the end of the last, [N + 1].

    A shot that is longer than `max_seconds` is cut evenly, but not into more parts than there are frames.
    """
    edges = np.concatenate([[start], cuts, [end]])
    lengths = np.diff(edges)
    counts = np.ceil(lengths / max_seconds - 1e-6).clip(1, num_frames).astype(np.int64)
    place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = np.repeat(edges[:-1], counts) + place * np.repeat(lengths / counts, counts)
    return np.append(starts, end)


def _means(spans: Spans, times: NDArray[np.float64], relevance: NDArray[np.floating]) -> NDArray[np.float64]:
    """The mean relevance of the frames in each span. [K, 2] → [K]"""
    total = np.concatenate([[0.0], np.cumsum(relevance, dtype=np.float64)])
    inside = frames_between(times, spans)
    means: NDArray[np.float64] = np.diff(total[inside], axis=1)[:, 0] / np.diff(inside, axis=1)[:, 0]
    return means


def _mean_directions(
    spans: Spans, times: NDArray[np.float64], vectors: NDArray[np.floating]
) -> NDArray[np.float64]:
    """The mean vector of the frames in each span, of unit length. [K, 2] → [K, S]"""
    total = np.concatenate([np.zeros((1, vectors.shape[1])), np.cumsum(vectors, axis=0, dtype=np.float64)])
    inside = frames_between(times, spans)
    sums = total[inside[:, 1]] - total[inside[:, 0]]
    directions: NDArray[np.float64] = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    return directions
