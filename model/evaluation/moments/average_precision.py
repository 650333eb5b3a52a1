"""Average precision of windows and of clips, interpolated as in PASCAL VOC 2011.

Shapes: Q queries, K predictions, G annotated windows, I thresholds of IoU, C clips, A annotators.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]
Bools = NDArray[np.bool_]


def window_precision(iou: Reals, predicted: Bools, annotated: Bools, thresholds: Reals) -> Reals:
    """Average precision of predicted windows, at each threshold of IoU.

    Each prediction, best first, takes the window that it overlaps most among those that are still free and
    reach the threshold; among ties, the last of them. It is right if there is one.

    Args:
        iou: of each prediction, best first, with each annotated window; [Q, K, G].
        predicted: the real predictions; they come first; bool [Q, K].
        annotated: the real windows, bool [Q, G]; at least one a query.
        thresholds: [I].

    Returns:
        [Q, I], from 0 to 1.
    """
    queries, predictions, windows = iou.shape
    free = np.repeat(annotated[:, None], len(thresholds), axis=1)
    right = np.zeros((queries, len(thresholds), predictions))
    for place in range(predictions):
        overlap = np.where(predicted[:, place, None], iou[:, place], -1)[:, None]
        possible = free & (overlap >= thresholds[:, None])
        # Reversed, so that the last of several maxima is found first.
        best = windows - 1 - np.where(possible, overlap, -1)[:, :, ::-1].argmax(axis=2)
        right[:, :, place] = possible.any(axis=2)
        free &= ~(possible & (np.arange(windows) == best[:, :, None]))
    total = right.cumsum(axis=2)
    precision = _from_here_on(total / np.arange(1, predictions + 1))
    recall = total / annotated.sum(axis=1)[:, None, None]
    steps = np.diff(recall, axis=2, prepend=0)
    # One after the other: pairwise sums differ in the last bit, which decides about ties of rounding.
    area = np.cumsum(steps * precision, axis=2)
    result: Reals = area[:, :, -1] if predictions else area.sum(axis=2)
    return result


def clip_precision(score: Reals, positive: Bools, clips: Bools) -> Reals:
    """Average precision of clips that are ordered by a score, for each annotator.

    Clips of the same score are one step. The mean is over the steps that bring a positive clip, whatever
    their number of clips.

    Args:
        score: predicted for each clip, [Q, C].
        positive: what each annotator calls a highlight, bool [Q, C, A].
        clips: the real clips, bool [Q, C].

    Returns:
        [Q, A], from 0 to 1; 0 where an annotator calls no clip a highlight.
    """
    ordered = np.where(clips, score, -np.inf)
    order = np.argsort(-ordered, axis=1, kind="stable")
    ordered = np.take_along_axis(ordered, order, axis=1)
    hits = np.take_along_axis(positive & clips[:, :, None], order[:, :, None], axis=1).cumsum(axis=1)
    last_of_step = np.ones(ordered.shape, np.bool_)
    last_of_step[:, :-1] = ordered[:, :-1] != ordered[:, 1:]
    last = last_of_step[:, :, None]
    precision = np.where(last, hits / np.arange(1, ordered.shape[1] + 1)[:, None], 0)
    precision = _from_here_on(precision.swapaxes(1, 2)).swapaxes(1, 2)
    before = np.zeros_like(hits)
    before[:, 1:] = np.maximum.accumulate(np.where(last, hits, 0), axis=1)[:, :-1]
    brings = last & (hits > before)
    steps = brings.sum(axis=1)
    result: Reals = (precision * brings).sum(axis=1) / np.maximum(steps, 1)
    return result


def _from_here_on(precision: Reals) -> Reals:
    """The highest precision at each place of the last axis or after it."""
    return np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
