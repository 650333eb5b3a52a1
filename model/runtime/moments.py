"""Moments from start and end logits: spans of a video, and the moments of many videos in one ranking.

Serving and evaluation both use this. Frame i stands for the seconds from i · every to (i + 1) · every, and a
span includes its first and its last frame.

Shapes: V videos, T frames, W lengths, K spans.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from model.runtime.errors import InputError

# Pairs of start and end whose probabilities are held at once: 32 MB.
_PAIRS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class SpanLimits:
    """How many frames the end of a span may lie after its start, both limits included.

    Attributes:
        min_frames: 0: a span may be one frame.
        max_frames: None: a span may be the whole video.

    Raises:
        InputError: a limit is negative, or the limits are in the wrong order.
    """

    min_frames: int = 0
    max_frames: int | None = 24

    def __post_init__(self) -> None:
        if self.min_frames < 0:
            raise InputError(f"min_frames is {self.min_frames}: it must be 0 or more", "min_frames")
        if self.max_frames is not None and self.max_frames < self.min_frames:
            raise InputError(
                f"max_frames is {self.max_frames}: it must be at least `min_frames`, {self.min_frames}",
                "max_frames",
            )


#: Named limits; those of HERO allow no answer to many queries of TVR.
SPAN_PRESETS = {"default": SpanLimits(), "hero": SpanLimits(2, 15)}


@dataclass(frozen=True)
class MomentOptions:
    """How moments are ranked.

    Attributes:
        limits: lengths of spans.
        num_videos: the most similar videos, in which moments are looked for.
        num_spans: the best spans of all these videos, which suppression sees.
        num_moments: moments that are returned at most.
        max_iou: drop a moment that overlaps a better one of the same video more than this; None: drop none.
        similarity_weight: weight of the video's similarity beside the log-probabilities of start and end.

    Raises:
        InputError: a value is invalid.
    """

    limits: SpanLimits = field(default_factory=SpanLimits)
    num_videos: int = 100
    num_spans: int = 200
    num_moments: int = 100
    max_iou: float | None = None
    similarity_weight: float = 20.0

    def __post_init__(self) -> None:
        for name in ("num_videos", "num_spans", "num_moments"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: it must be at least 1", name)
        if self.max_iou is not None and not 0 <= self.max_iou <= 1:
            raise InputError(f"max_iou is {self.max_iou}: it must be between 0 and 1", "max_iou")
        if not 0 <= self.similarity_weight <= 500:
            raise InputError(
                f"similarity_weight is {self.similarity_weight}: it must be between 0 and 500",
                "similarity_weight",
            )


@dataclass(frozen=True)
class Spans:
    """The best spans of each video, best first; where a video has fewer than K, `mask` is False.

    Attributes:
        start: first frame, int64 [V, K].
        end: last frame, int64 [V, K].
        probability: p_start · p_end, float64 [V, K]; 0 where the mask is False.
        mask: bool [V, K].
    """

    start: NDArray[np.int64]
    end: NDArray[np.int64]
    probability: NDArray[np.float64]
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class RankedMoments:
    """Moments of several videos, best first.

    Attributes:
        video: row of the video among those that were given, int64 [K].
        start: first frame, int64 [K].
        end: last frame, int64 [K].
        score: exp(weight · similarity) · p_start · p_end, float64 [K].
    """

    video: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    score: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.score)


def frame_probabilities(logits: NDArray[np.floating], frame_mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Softmax over the real frames of each video. [V, T], bool [V, T] → [V, T]; 0 for padding.

    Raises:
        ValueError: the shapes differ, or the logit of a real frame is not finite.
    """
    if logits.ndim != 2 or logits.shape != frame_mask.shape:
        raise ValueError(
            f"logits {list(logits.shape)} and frame_mask {list(frame_mask.shape)}: pass [V, T] twice"
        )
    if not np.isfinite(logits[frame_mask]).all():
        raise ValueError("a logit is NaN or infinite: the moment head is broken")
    values = np.where(frame_mask, logits, -np.inf).astype(np.float64)
    if values.shape[1] == 0:
        return values
    highest = values.max(axis=1, keepdims=True)
    weights = np.exp(values - np.where(np.isfinite(highest), highest, 0))
    total = weights.sum(axis=1, keepdims=True)
    result: NDArray[np.float64] = weights / np.where(total > 0, total, 1)
    return result


def best_spans(
    start_probability: NDArray[np.floating],
    end_probability: NDArray[np.floating],
    frame_mask: NDArray[np.bool_],
    limits: SpanLimits,
    count: int,
) -> Spans:
    """The most probable spans of each video; among ties the earlier start, then the earlier end.

    Args:
        start_probability: of each frame to be the first, shape [V, T].
        end_probability: of each frame to be the last, shape [V, T].
        frame_mask: the real frames, bool [V, T]; spans start and end on these.
        limits: lengths of spans.
        count: spans of a video, at most.

    Returns:
        Arrays [V, K], where K is `count`, or less where no video can have so many.

    Raises:
        ValueError: the shapes differ, or `count` is below 1.
    """
    shapes = {start_probability.shape, end_probability.shape, frame_mask.shape}
    if len(shapes) != 1 or start_probability.ndim != 2:
        raise ValueError(f"arrays of shapes {sorted(map(list, shapes))}: pass [V, T] three times")
    if count < 1:
        raise ValueError(f"count is {count}: look for at least 1 span")
    videos, frames = frame_mask.shape
    longest = frames - 1 if limits.max_frames is None else min(limits.max_frames, frames - 1)
    widths = max(0, longest - limits.min_frames + 1)
    kept = min(count, frames * widths)
    place = np.zeros((videos, kept), np.int64)
    probability = np.zeros((videos, kept), np.float64)
    rows_at_once = max(1, _PAIRS_AT_ONCE // max(1, frames * widths))
    for first in range(0, videos if kept else 0, rows_at_once):
        rows = slice(first, first + rows_at_once)
        joint = _joint(start_probability[rows], end_probability[rows], frame_mask[rows], limits, widths)
        place[rows] = _highest(joint, kept)
        probability[rows] = np.take_along_axis(joint, place[rows], axis=1)
    mask = probability >= 0
    start, width = np.divmod(np.where(mask, place, 0), max(1, widths))
    end = np.where(mask, start + width + limits.min_frames, 0)
    return Spans(start, end, np.where(mask, probability, 0), mask)


def rank_moments(
    similarity: NDArray[np.floating],
    start_logits: NDArray[np.floating],
    end_logits: NDArray[np.floating],
    frame_mask: NDArray[np.bool_],
    options: MomentOptions | None = None,
) -> RankedMoments:
    """The best moments of several videos for one query, by exp(weight · similarity) · p_start · p_end.

    Among ties, the moment of the more similar video comes first, then the more probable, then the earlier.

    Args:
        similarity: cosine of each video with the query, shape [V].
        start_logits: logits of each frame to be the first, shape [V, T].
        end_logits: logits of each frame to be the last, shape [V, T].
        frame_mask: the real frames, bool [V, T].
        options: how to rank.

    Returns:
        At most `options.num_moments` moments.

    Raises:
        ValueError: the shapes do not fit, or a number is not finite.
    """
    options = options or MomentOptions()
    if similarity.shape != frame_mask.shape[:1]:
        raise ValueError(
            f"similarity {list(similarity.shape)} and frame_mask {list(frame_mask.shape)}: "
            "pass [V] and [V, T]"
        )
    if not np.isfinite(similarity).all():
        raise ValueError("a similarity is NaN or infinite: the embeddings are broken")
    videos = np.argsort(-similarity, kind="stable")[: options.num_videos]
    mask = frame_mask[videos]
    spans = best_spans(
        frame_probabilities(start_logits[videos], mask),
        frame_probabilities(end_logits[videos], mask),
        mask,
        options.limits,
        options.num_spans,
    )
    weight = np.exp(options.similarity_weight * similarity[videos].astype(np.float64))
    score = np.where(spans.mask, weight[:, None] * spans.probability, -1).reshape(1, -1)
    best = _highest(score, options.num_spans)[0]
    best = best[score[0, best] >= 0]
    found = RankedMoments(
        np.repeat(videos, spans.mask.shape[1])[best],
        spans.start.ravel()[best],
        spans.end.ravel()[best],
        score[0, best],
    )
    kept = np.arange(len(found))
    if options.max_iou is not None:
        # The end of the last frame, so that one frame has a length.
        extents = np.stack([found.start, found.end + 1], axis=1)
        kept = np.flatnonzero(suppress(extents, found.video, options.max_iou))
    kept = kept[: options.num_moments]
    return RankedMoments(found.video[kept], found.start[kept], found.end[kept], found.score[kept])


def suppress(
    spans: NDArray[np.floating] | NDArray[np.integer], group: NDArray[np.integer], max_iou: float
) -> NDArray[np.bool_]:
    """Greedy non-maximum suppression: which spans to keep, of spans that are given best first.

    A span is dropped if its IoU with a kept, better span of the same group is above `max_iou`.

    Args:
        spans: start and end, shape [K, 2].
        group: what each span belongs to, such as its video, integers [K].
        max_iou: from 0 to 1.

    Returns:
        bool [K].
    """
    keep = np.ones(len(spans), np.bool_)
    rivals = (group[:, None] == group[None, :]) & (temporal_iou(spans[:, None], spans[None, :]) > max_iou)
    for place in range(len(spans)):
        if keep[place]:
            keep[place + 1 :] &= ~rivals[place, place + 1 :]
    return keep


def span_seconds(
    start: NDArray[np.integer],
    end: NDArray[np.integer],
    every_seconds: float | NDArray[np.floating],
    duration_seconds: float | NDArray[np.floating] | None = None,
) -> NDArray[np.float64]:
    """The seconds of spans: [every · start, every · end + every], not beyond the video's end.

    Args:
        start: first frames, integers [...].
        end: last frames, integers [...].
        every_seconds: seconds from one frame to the next, a number or [...].
        duration_seconds: true length of each video, a number or [...]; None: unknown.

    Returns:
        float64 [..., 2].
    """
    seconds = np.stack([every_seconds * start, every_seconds * end + every_seconds], axis=-1)
    if duration_seconds is not None:
        seconds = np.minimum(seconds, np.asarray(duration_seconds, np.float64)[..., None])
    return seconds.astype(np.float64)


def temporal_iou(spans: NDArray[np.number], others: NDArray[np.number]) -> NDArray[np.floating]:
    """Intersection over union of spans in time; 0 where both have no length. [..., 2] twice → [...].

    The shapes are broadcast, so that [N, 1, 2] and [M, 2] give [N, M]. The arithmetic is that of the inputs'
    type, or double precision for integers.
    """
    intersection, spans, others = _intersection(spans, others)
    lengths = (spans[..., 1] - spans[..., 0]) + (others[..., 1] - others[..., 0])
    return _ratio(intersection, lengths - intersection)


def hull_iou(spans: NDArray[np.number], others: NDArray[np.number]) -> NDArray[np.floating]:
    """As `temporal_iou`, but over the hull: from the earlier start to the later end.

    TVR's evaluator and QVHighlights' R1 divide by it. Where spans meet, the hull is the union; where they do
    not, both ratios are 0. So the two functions agree, but for rounding and ends before their starts.
    """
    intersection, spans, others = _intersection(spans, others)
    hull = np.maximum(spans[..., 1], others[..., 1]) - np.minimum(spans[..., 0], others[..., 0])
    return _ratio(intersection, hull)


def _intersection(
    spans: NDArray[np.number], others: NDArray[np.number]
) -> tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]:
    """The length that spans share, and the spans as real numbers of one type."""
    kind = np.result_type(spans, others)
    kind = kind if kind.kind == "f" else np.dtype(np.float64)
    first, second = spans.astype(kind), others.astype(kind)
    shared = np.minimum(first[..., 1], second[..., 1]) - np.maximum(first[..., 0], second[..., 0])
    return np.maximum(shared, 0), first, second


def _ratio(part: NDArray[np.floating], whole: NDArray[np.floating]) -> NDArray[np.floating]:
    result: NDArray[np.floating] = np.divide(part, whole, out=np.zeros_like(part), where=whole != 0)
    return result


def _joint(
    start: NDArray[np.floating],
    end: NDArray[np.floating],
    mask: NDArray[np.bool_],
    limits: SpanLimits,
    widths: int,
) -> NDArray[np.float64]:
    """p_start · p_end for each start and each of W allowed lengths, [V, T · W]; −1 for no such span."""
    videos, frames = mask.shape
    after = limits.min_frames + widths - 1
    late = np.zeros((videos, frames + after), np.float64)
    real = np.zeros(late.shape, np.bool_)
    late[:, :frames], real[:, :frames] = end, mask
    # [v, s, w] is frame s + min_frames + w.
    window = (slice(None), slice(limits.min_frames, limits.min_frames + frames))
    ends = sliding_window_view(late, widths, axis=1)[window]
    allowed = sliding_window_view(real, widths, axis=1)[window] & mask[:, :, None]
    joint = np.where(allowed, start[:, :, None].astype(np.float64) * ends, -1)
    return joint.reshape(videos, frames * widths)


def _highest(values: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """The columns of each row's highest values, highest first; of ties the lower. [R, N] → [R, K]."""
    rows, columns = values.shape
    kept = np.ones(values.shape, np.bool_)
    if count < columns:
        # A partition leaves ties at the cut to chance, so that only its threshold is used.
        kept = values >= np.partition(values, columns - count, axis=1)[:, columns - count, None]
    row, column = np.nonzero(kept)
    order = np.lexsort((column, -values[row, column], row))
    first = np.searchsorted(row, np.arange(rows))
    return column[order][first[:, None] + np.arange(min(count, columns))]
