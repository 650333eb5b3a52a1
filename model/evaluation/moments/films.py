"""Measures a moment head on films whose parts are known, beside simple ways to find moments.

The right film given (SVMR) and in the corpus (VCMR), as TVR's evaluator counts, and how well the head tells
the film that answers a query from one that does not.

Shapes: Q queries, V films, T frames, D joint space, K predictions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from model.arrays import Array, Rows
from model.data.datasets.moments import Moment
from model.evaluation.moments.predict import VideoCorpus, predict_moments
from model.evaluation.moments.submission import Predictions, Submission, Task
from model.evaluation.moments.tvr import evaluate_tvr
from model.runtime.bundle import MomentLogits
from model.runtime.errors import InputError
from model.runtime.moments import MomentOptions, SpanLimits

#: spans (start, end in seconds, float64 [K, 2]) of one film for one query, and their scores, [K]
Found = tuple[NDArray[np.float64], NDArray[np.float64]]
_TASKS: tuple[Task, ...] = ("VCMR", "SVMR")


class FindsMoments(Protocol):
    """A moment head, such as `Bundle.moments`."""

    def __call__(
        self, text_query: Array, frame_embedding: Array, frame_mask: NDArray[np.bool_], /
    ) -> MomentLogits:
        """Shapes [B, D], [B, T, D], [B, T]."""
        ...


class JoinsFrames(Protocol):
    """A segment encoder, such as `Bundle.encode_segments`."""

    def __call__(self, frame_embedding: Array, frame_mask: NDArray[np.bool_], /) -> Array:
        """Shapes [B, N, D], [B, N] → [B, D]."""
        ...


@dataclass(frozen=True)
class Films:
    """Films, and queries that each describe a part of one of them.

    Attributes:
        every_seconds: seconds from one frame to the next.
        duration_seconds: float64 [V].
        frames: embeddings of each film's frames, 0 for padding, float32 [V, T, D].
        mask: which frames are real, bool [V, T].
        text: embeddings of the queries, float32 [Q, D].
        film: the film of each query, int64 [Q].
        spans: start and end of each query's part in seconds, float64 [Q, 2].

    Raises:
        InputError: there are fewer than two films, or no query.
    """

    every_seconds: float
    duration_seconds: NDArray[np.float64]
    frames: Array
    mask: NDArray[np.bool_]
    text: Array
    film: Rows
    spans: NDArray[np.float64]

    def __post_init__(self) -> None:
        if len(self.frames) < 2 or not len(self.text):
            raise InputError(f"{len(self.frames)} films and {len(self.text)} queries: give at least 2 and 1")

    @property
    def cosine(self) -> Array:
        """Cosine of each query with each frame, −2 for padding. → float32 [Q, V, T]"""
        cosine = np.einsum("qd,vtd->qvt", self.text, self.frames)
        real: Array = np.where(self.mask, cosine, np.float32(-2))
        return real


def join_films(
    films: Sequence[Array],
    duration_seconds: Sequence[float],
    every_seconds: float,
    text: Array,
    film: Rows,
    spans: NDArray[np.float64],
) -> Films:
    """Films of different lengths as one array; `films` holds the frames of each, float32 [T, D]."""
    longest = max(len(frames) for frames in films)
    joined = np.zeros((len(films), longest, text.shape[1]), np.float32)
    mask = np.zeros(joined.shape[:2], np.bool_)
    for row, frames in enumerate(films):
        joined[row, : len(frames)], mask[row, : len(frames)] = frames, True
    return Films(every_seconds, np.array(duration_seconds, np.float64), joined, mask, text, film, spans)


@dataclass(frozen=True)
class HeadOptions:
    """How the head's moments are ranked.

    Attributes:
        max_seconds: the longest moment.
        num_videos: the most similar films, in which moments are looked for.
        similarity_weight: weight of the highest cosine of a film's frames.
        rejection_weight: weight of the log-odds that a film has an answer at all.
        max_iou: drop a moment that overlaps a better one of its film more than this.
    """

    max_seconds: float = 60.0
    num_videos: int = 100
    similarity_weight: float = 20.0
    rejection_weight: float = 0.5
    max_iou: float | None = 0.5


@dataclass(frozen=True)
class BaselineOptions:
    """The simple ways.

    Attributes:
        window_seconds: length of a fixed window; None: the mean length of the true spans.
        segment_seconds: length of fixed segments.
        segment_frames: frames that a segment's embedding is made of, at most.
        threshold: share of the way from a film's mean cosine to its highest one, above which frames count.
    """

    window_seconds: float | None = None
    segment_seconds: float = 32.0
    segment_frames: int = 16
    threshold: float = 0.5


@dataclass(frozen=True)
class FilmFigures:
    """What was measured.

    Attributes:
        ways: for each way to find moments, the figures of `evaluate_tvr`.
        auroc: how well a film with an answer is told from one without, by the head's rejection and by the
            highest cosine; 0.5 is chance.
        counts: queries, films, and mean seconds of a true span and of a film.
    """

    ways: Mapping[str, Mapping[str, Mapping[str, Any]]]
    auroc: Mapping[str, float]
    counts: Mapping[str, float] = field(default_factory=dict)


def measure_films(
    films: Films,
    head: FindsMoments,
    segments: JoinsFrames,
    options: HeadOptions | None = None,
    baselines: BaselineOptions | None = None,
) -> FilmFigures:
    """Find the moment of each query with the head and in the simple ways.

    Args:
        films: films and queries.
        head: the moment head.
        segments: the segment encoder, for the fixed segments.
        options: how the head's moments are ranked.
        baselines: the simple ways.
    """
    options, baselines = options or HeadOptions(), baselines or BaselineOptions()
    cosine = films.cosine
    similarity = cosine.max(axis=2)
    moments = [
        Moment(str(row), str(film), "", ((float(start), float(end)),))
        for row, (film, (start, end)) in enumerate(zip(films.film, films.spans, strict=True))
    ]
    lengths = films.spans[:, 1] - films.spans[:, 0]
    window = baselines.window_seconds or float(lengths.mean())
    parts = _segments(films, segments, baselines)
    ways: dict[str, Callable[[int, int], Found]] = {
        f"window of {window:.1f} s around the most similar frame": lambda q, v: _window(
            cosine[q, v], films.every_seconds, films.duration_seconds[v], window
        ),
        f"segments of {baselines.segment_seconds:g} s": lambda q, v: (
            parts[v][0],
            (parts[v][1] @ films.text[q]).astype(np.float64),
        ),
        "threshold on the similarity of frames": lambda q, v: _runs(
            cosine[q, v, : int(films.mask[v].sum())],
            films.every_seconds,
            films.duration_seconds[v],
            baselines.threshold,
        ),
    }
    figures = {name: evaluate_tvr(_submission(films, find), moments) for name, find in ways.items()}
    submission, rejection = _with_head(films, moments, similarity, head, options)
    figures["moment head"] = evaluate_tvr(submission, moments)
    own = np.arange(len(films.text)), films.film
    other = own[0], (films.film + 1) % len(films.frames)
    return FilmFigures(
        figures,
        {
            "rejection": auroc(-rejection[own], -rejection[other]),
            "highest cosine": auroc(similarity[own], similarity[other]),
        },
        {
            "queries": len(films.text),
            "films": len(films.frames),
            "span_seconds": float(lengths.mean()),
            "film_seconds": float(films.duration_seconds.mean()),
        },
    )


def auroc(positive: NDArray[np.floating], negative: NDArray[np.floating]) -> float:
    """The share of pairs in which the positive one is higher; a tie counts half. [P], [N] → 0 to 1"""
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    up_to = np.searchsorted(ordered, positive, side="right")
    return float((below + up_to).sum() / (2 * len(positive) * len(negative)))


def _with_head(
    films: Films,
    moments: Sequence[Moment],
    similarity: Array,
    head: FindsMoments,
    options: HeadOptions,
) -> tuple[Submission, NDArray[np.float64]]:
    """The head's moments, and for each query the rejection of each film, [Q, V]."""
    count = len(films.frames)
    corpus = VideoCorpus(
        tuple(str(row) for row in range(count)),
        np.arange(count),
        films.duration_seconds,
        films.every_seconds,
    )
    found = [head(np.repeat(query[None], count, axis=0), films.frames, films.mask) for query in films.text]
    rejection = np.stack([logits.film_rejection for logits in found]).astype(np.float64)
    score = options.similarity_weight * similarity - options.rejection_weight * rejection

    def logits_of(query: int, videos: Rows) -> tuple[Array, Array, NDArray[np.bool_]]:
        return found[query].start[videos], found[query].end[videos], films.mask[videos]

    ranking = MomentOptions(
        limits=SpanLimits(0, max(1, round(options.max_seconds / films.every_seconds)) - 1),
        num_videos=options.num_videos,
        max_iou=options.max_iou,
        similarity_weight=1.0,
    )
    return predict_moments(moments, corpus, score, logits_of, ranking, _TASKS), rejection


def _submission(films: Films, find: Callable[[int, int], Found]) -> Submission:
    """Predictions of a simple way: all films' spans by their scores, and those of the given film."""
    count = len(films.frames)
    tasks: dict[Task, dict[str, Predictions]] = {"VCMR": {}, "SVMR": {}}
    for query, film in enumerate(films.film.tolist()):
        tasks["VCMR"][str(query)] = _ranked([(video, find(query, video)) for video in range(count)])
        tasks["SVMR"][str(query)] = _ranked([(film, find(query, film))])
    return Submission({str(row): row for row in range(count)}, tasks)


def _ranked(found: Sequence[tuple[int, Found]]) -> Predictions:
    videos = np.concatenate([np.full(len(score), video) for video, (_, score) in found])
    spans = np.concatenate([span for _, (span, _) in found])
    scores = np.concatenate([score for _, (_, score) in found])
    order = np.argsort(-scores, kind="stable")[:100]
    return Predictions(videos[order], spans[order], scores[order])


def _window(cosine: Array, every: float, duration: float, length: float) -> Found:
    """One window of a length around the most similar frame, moved to lie within the film."""
    middle = (int(cosine.argmax()) + 0.5) * every
    start = min(max(0.0, middle - length / 2), max(0.0, duration - length))
    return np.array([[start, min(start + length, duration)]]), np.array([float(cosine.max())])


def _runs(cosine: Array, every: float, duration: float, threshold: float) -> Found:
    """Every run of frames whose cosine reaches the threshold, by its highest cosine."""
    least = cosine.mean() + threshold * (cosine.max() - cosine.mean())
    above = np.concatenate([[False], (cosine >= least) | (cosine == cosine.max()), [False]])
    borders = np.flatnonzero(above[1:] != above[:-1]).reshape(-1, 2)
    spans = np.minimum(borders * every, duration).astype(np.float64)
    return spans, np.array([float(cosine[first:last].max()) for first, last in borders.tolist()])


def _segments(
    films: Films, encode: JoinsFrames, options: BaselineOptions
) -> list[tuple[NDArray[np.float64], Array]]:
    """Of each film: start and end of its segments in seconds [K, 2], and their embeddings [K, D]."""
    result = []
    per_segment = max(1, round(options.segment_seconds / films.every_seconds))
    for frames, real, duration in zip(films.frames, films.mask, films.duration_seconds, strict=True):
        spans, vectors = [], []
        for first in range(0, int(real.sum()), per_segment):
            shown = frames[first : min(first + per_segment, int(real.sum()))]
            count = min(len(shown), options.segment_frames)
            # The middle of each of `count` equal parts, as in indexing.
            chosen = shown[((np.arange(count) + 0.5) * len(shown) / count).astype(np.int64)]
            start = first * films.every_seconds
            spans.append([start, min(start + options.segment_seconds, float(duration))])
            vectors.append(encode(chosen[None], np.ones((1, count), np.bool_))[0])
        result.append((np.array(spans), np.stack(vectors)))
    return result


def films_table(figures: FilmFigures) -> str:
    """The figures as a Markdown table, in percent."""
    columns = (
        ("SVMR", "0.5-r1"),
        ("SVMR", "0.7-r1"),
        ("VCMR", "0.5-r1"),
        ("VCMR", "0.5-r10"),
        ("VCMR", "0.7-r10"),
    )
    counts = figures.counts
    told = f"{counts['queries']:g} queries, {counts['films']:g} films of {counts['film_seconds']:.1f} s"
    lines = [
        f"{told}, true spans of {counts['span_seconds']:.1f} s",
        "",
        "| | given film: R@1, IoU 0.5 | IoU 0.7 | corpus: R@1, IoU 0.5 | R@10, IoU 0.5 | R@10, IoU 0.7 |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, result in figures.ways.items():
        cells = " | ".join(f"{result[task][key]:.1f}" for task, key in columns)
        lines.append(f"| {name} | {cells} |")
    told = ", ".join(f"{name} {value:.3f}" for name, value in figures.auroc.items())
    return "\n".join([*lines, "", f"A film with an answer told from one without, AUROC: {told}"])
