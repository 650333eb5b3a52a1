"""Finds moments in stretches of videos: cells of equal length, the spans of a moment head, and which to keep.

Serving and evaluation both use this. A stretch is what a video shows from one second to another, as frames
that were stored at uneven times; a cell of it shows the stored frame nearest to the cell's middle.

Shapes: W stretches, F stored frames of a stretch, T cells, K spans.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from model.runtime.moments import SpanLimits, best_spans, frame_probabilities

# Spans of a stretch among which moments are chosen.
_SPANS = 48
# What a difference of mean relevance counts beside one of log-probability.
_RELEVANCE_SCALE = 10.0
# A cut changes so many times as much as usual from one frame to the next.
_CUT_CHANGE = 2.5


@dataclass(frozen=True)
class Cells:
    """A stretch in cells of equal length.

    Attributes:
        start_seconds: where the first cell starts.
        seconds: the length of a cell.
        frames: the stored frame that each cell shows, int64 [T].
    """

    start_seconds: float
    seconds: float
    frames: NDArray[np.int64]

    def borders(self, first: int, last: int) -> tuple[float, float]:
        """Start and end, in seconds, of the span from one cell to another."""
        return (
            self.start_seconds + first * self.seconds,
            self.start_seconds + (last + 1) * self.seconds,
        )


@dataclass(frozen=True)
class MomentRule:
    """Which spans of a stretch are moments.

    Attributes:
        max_seconds: the longest moment.
        most: moments of a stretch, at most.
        least_share: a further span is kept if its p_start · p_end is at least this share of the best one's.
        probability_weight: weight of ln(p_start · p_end) beside ten times the mean relevance of its frames.
    """

    max_seconds: float = 60.0
    most: int = 5
    least_share: float = 0.005
    probability_weight: float = 0.5


@dataclass(frozen=True)
class FoundSpan:
    """A span of cells, both included, and the log of its share of the best span's probability."""

    first: int
    last: int
    log_share: float


def cut_into_cells(
    start_seconds: float, end_seconds: float, pts_seconds: NDArray[np.float64], every_seconds: float
) -> Cells:
    """Cut a stretch into cells of about `every_seconds`, or of the frames' mean distance if that is longer.

    Args:
        start_seconds: where the stretch starts.
        end_seconds: where it ends; not before its start.
        pts_seconds: when each stored frame is shown, rising, float64 [F], F ≥ 1.
        every_seconds: what the moment head was trained with.
    """
    length = end_seconds - start_seconds
    count = max(1, min(round(length / every_seconds), len(pts_seconds)))
    seconds = length / count
    middles = start_seconds + (np.arange(count) + 0.5) * seconds
    # The nearest frame: cells change where two neighbouring frames are equally near.
    frames = np.searchsorted((pts_seconds[1:] + pts_seconds[:-1]) / 2, middles)
    return Cells(start_seconds, seconds, frames.astype(np.int64))


def find_spans(
    start_logits: NDArray[np.floating],
    end_logits: NDArray[np.floating],
    relevance: NDArray[np.floating],
    mask: NDArray[np.bool_],
    cell_seconds: NDArray[np.float64],
    rule: MomentRule,
) -> list[list[FoundSpan]]:
    """The moments of each stretch, best first; at least one of each.

    Args:
        start_logits: of each cell to be the first, [W, T].
        end_logits: of each cell to be the last, [W, T].
        relevance: how well each cell's frame fits the query, [W, T].
        mask: the real cells, bool [W, T]; they come first, at least one of each stretch.
        cell_seconds: the length of the cells of each stretch, [W].
        rule: which spans are moments.
    """
    start, end = frame_probabilities(start_logits, mask), frame_probabilities(end_logits, mask)
    total = np.cumsum(np.where(mask, relevance, 0), axis=1, dtype=np.float64)
    total = np.concatenate([np.zeros((len(total), 1)), total], axis=1)
    # Rounding down keeps every span within `max_seconds`; it limits only stretches that are longer.
    longest = np.floor(rule.max_seconds / np.maximum(cell_seconds, 1e-9) + 1e-6).astype(np.int64)
    longest = np.where(longest >= mask.sum(axis=1), mask.shape[1], np.maximum(longest, 1))
    found: list[list[FoundSpan]] = [[] for _ in mask]
    for most in np.unique(longest).tolist():
        rows = np.flatnonzero(longest == most)
        spans = best_spans(start[rows], end[rows], mask[rows], SpanLimits(0, most - 1), _SPANS)
        length = spans.end + 1 - spans.start
        sums = total[rows]
        mean = np.take_along_axis(sums, spans.end + 1, 1) - np.take_along_axis(sums, spans.start, 1)
        with np.errstate(divide="ignore"):
            log_share = np.log(spans.probability) - np.log(spans.probability[:, :1])
        value = _RELEVANCE_SCALE * mean / length + rule.probability_weight * log_share
        value[~spans.mask | (log_share < np.log(rule.least_share))] = -np.inf
        for place, row in enumerate(rows.tolist()):
            kept = _keep(spans.start[place], spans.end[place], value[place], rule.most)
            found[row] = [
                FoundSpan(int(spans.start[place, k]), int(spans.end[place, k]), float(log_share[place, k]))
                for k in kept
            ]
    return found


def _keep(
    start: NDArray[np.int64], end: NDArray[np.int64], value: NDArray[np.float64], most: int
) -> list[int]:
    """The best spans that neither overlap nor touch, best first.

    A span beside a better one is more of the same scene far more often than a scene of its own.
    """
    kept: list[int] = []
    left = value.copy()
    while len(kept) < most:
        best = int(left.argmax())
        if left[best] == -np.inf:
            break
        kept.append(best)
        between = np.maximum(start, start[best]) - np.minimum(end, end[best]) - 1
        left[between < 1] = -np.inf
    return kept


def find_spans_by_shots(
    frames: NDArray[np.floating],
    relevance: NDArray[np.floating],
    cell_seconds: float,
    rule: MomentRule,
) -> list[FoundSpan]:
    """The moments of one stretch for a bundle without a moment head, best first; at least one.

    The stretch is cut into shots, where neighbouring frames differ far more than is usual in it. A shot is as
    relevant as the mean of its frames. A moment is a shot with the shots beside it that come nearer to it in
    relevance than to the stretch's mean; further moments come nearer to the best one than to that mean.

    Args:
        frames: vectors of the cells, which tell how alike they are, [T, S], T ≥ 1.
        relevance: how well each cell's frame fits the query, [T].
        cell_seconds: the length of a cell.
        rule: which spans are moments; its shares and weights of probabilities are not read.
    """
    borders = _shot_borders(frames, max(1, int(rule.max_seconds / max(cell_seconds, 1e-9) + 1e-6)))
    total = np.concatenate([[0.0], np.cumsum(relevance, dtype=np.float64)])
    of_shots = np.diff(total[borders]) / np.diff(borders)
    usual = float(total[-1] / len(relevance))
    best_value = float(of_shots.max())
    free = np.ones(len(of_shots), np.bool_)
    found: list[FoundSpan] = []
    while len(found) < rule.most and free.any():
        best = int(np.where(free, of_shots, -np.inf).argmax())
        if found and of_shots[best] < (best_value + usual) / 2:
            break
        least = (of_shots[best] + usual) / 2
        first = last = best
        for step, end in ((-1, -1), (1, len(of_shots))):
            for shot in range(best + step, end, step):
                length = (borders[max(shot, last) + 1] - borders[min(shot, first)]) * cell_seconds
                if not free[shot] or of_shots[shot] < least or length > rule.max_seconds + 1e-6:
                    break
                first, last = min(first, shot), max(last, shot)
        free[max(0, first - 1) : last + 2] = False
        value = _RELEVANCE_SCALE * (of_shots[best] - best_value)
        found.append(FoundSpan(int(borders[first]), int(borders[last + 1]) - 1, float(value)))
    return found


def _shot_borders(frames: NDArray[np.floating], longest: int) -> NDArray[np.int64]:
    """The first cell of each shot, and T at the end; shots of more than `longest` cells are cut evenly."""
    count = len(frames)
    cuts = [0, count]
    if count > 2:
        lengths = np.maximum(np.linalg.norm(frames, axis=1), 1e-12)
        change = 1 - (frames[1:] * frames[:-1]).sum(1) / (lengths[1:] * lengths[:-1])
        usual = max(float(np.median(change)), 1e-3)
        limit = max(_CUT_CHANGE * usual, (float(change.max()) + usual) / 2)
        cuts = [0, *(np.flatnonzero(change >= limit) + 1).tolist(), count] if limit < change.max() else cuts
    parts = [
        np.linspace(a, b, -(-(b - a) // longest) + 1).round().astype(np.int64)[:-1] for a, b in pairwise(cuts)
    ]
    return np.concatenate([*parts, [count]]).astype(np.int64)
