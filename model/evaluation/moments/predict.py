"""Predictions for TVR's three tasks, from similarities of videos and start and end logits of frames.

Shapes: Q queries, V videos of the corpus, U videos of a call, T frames, K predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.data.datasets.moments import Moment
from model.evaluation.moments.submission import TASKS, Predictions, Submission, Task
from model.runtime.errors import InputError
from model.runtime.moments import MomentOptions, RankedMoments, rank_moments, span_seconds


@dataclass(frozen=True)
class VideoCorpus:
    """The videos that moments are looked for in.

    Attributes:
        names: as in the annotations.
        numbers: the number of each in a submission, [V].
        duration_seconds: true length of each, float [V].
        every_seconds: seconds from one frame to the next, one number or float [V].

    Raises:
        InputError: the arrays do not fit, or a name is there twice.
    """

    names: tuple[str, ...]
    numbers: NDArray[np.int64]
    duration_seconds: NDArray[np.float64]
    every_seconds: float | NDArray[np.float64]

    def __post_init__(self) -> None:
        count = len(self.names)
        if self.numbers.shape != (count,) or self.duration_seconds.shape != (count,):
            raise InputError(
                f"{count} names, numbers {list(self.numbers.shape)} and duration_seconds "
                f"{list(self.duration_seconds.shape)}: give one of each for a video"
            )
        if len(set(self.names)) < count:
            raise InputError("two videos of the corpus have the same name: give each its own")
        if np.ndim(self.every_seconds) and np.shape(self.every_seconds) != (count,):
            raise InputError(f"{count} names and every_seconds {list(np.shape(self.every_seconds))}")
        if not np.all(np.asarray(self.every_seconds) > 0):
            raise InputError(f"every_seconds is {self.every_seconds}: it must be above 0")

    def __len__(self) -> int:
        return len(self.names)

    def every_seconds_of(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Seconds from one frame to the next of some videos. int64 [K] → [K]."""
        return np.broadcast_to(np.asarray(self.every_seconds, np.float64), len(self))[rows]


class FrameLogits(Protocol):
    """Gives the logits of one query for some videos."""

    def __call__(
        self, query: int, videos: NDArray[np.int64]
    ) -> tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.bool_]]:
        """Start logits [U, T], end logits [U, T] and the mask of real frames, bool [U, T]."""
        ...


def predict_moments(
    moments: Sequence[Moment],
    corpus: VideoCorpus,
    similarity: NDArray[np.floating],
    logits: FrameLogits,
    options: MomentOptions | None = None,
    tasks: Sequence[Task] = TASKS,
) -> Submission:
    """Moments in the corpus, moments of the given video, and videos, for each query.

    Args:
        moments: the queries; of their annotations, only the video is read, for "SVMR".
        corpus: the videos.
        similarity: cosine of each query with each video, shape [Q, V].
        logits: gives the logits of the frames; called with the most similar videos of a query only.
        options: how moments are ranked.
        tasks: what to predict.

    Returns:
        At most `options.num_moments` predictions for each query, best first.

    Raises:
        InputError: the video of a query is not in the corpus, or a task is unknown.
        ValueError: the shapes do not fit, or a number is not finite.
    """
    options = options or MomentOptions()
    if similarity.shape != (len(moments), len(corpus)):
        raise ValueError(
            f"similarity {list(similarity.shape)}: pass [Q, V], here [{len(moments)}, {len(corpus)}]"
        )
    if unknown := set(tasks) - set(TASKS):
        raise InputError(f"tasks hold {sorted(unknown)}: choose among {', '.join(TASKS)}")
    row_of = {name: row for row, name in enumerate(corpus.names)}
    found: dict[Task, dict[str, Predictions]] = {task: {} for task in TASKS if task in tasks}
    for query, moment in enumerate(moments):
        nearest = np.argsort(-similarity[query], kind="stable")
        if "VCMR" in found:
            candidates = nearest[: options.num_videos]
            found["VCMR"][moment.moment_id] = _moments(query, candidates, corpus, similarity, logits, options)
        if "SVMR" in found:
            if moment.video_id not in row_of:
                raise InputError(
                    f"the corpus lacks {moment.video_id}, the video of query {moment.moment_id}: add it"
                )
            own = np.array([row_of[moment.video_id]])
            found["SVMR"][moment.moment_id] = _moments(query, own, corpus, similarity, logits, options)
        if "VR" in found:
            first = nearest[: options.num_moments]
            score = similarity[query, first].astype(np.float64)
            found["VR"][moment.moment_id] = Predictions(
                corpus.numbers[first], np.zeros((len(first), 2)), score
            )
    numbers = dict(zip(corpus.names, corpus.numbers.tolist(), strict=True))
    return Submission(numbers, found)


def _moments(
    query: int,
    videos: NDArray[np.int64],
    corpus: VideoCorpus,
    similarity: NDArray[np.floating],
    logits: FrameLogits,
    options: MomentOptions,
) -> Predictions:
    """The best moments of some videos for one query."""
    start, end, mask = logits(query, videos)
    ranked: RankedMoments = rank_moments(similarity[query, videos], start, end, mask, options)
    rows = videos[ranked.video]
    span = span_seconds(
        ranked.start, ranked.end, corpus.every_seconds_of(rows), corpus.duration_seconds[rows]
    )
    return Predictions(corpus.numbers[rows], span, ranked.score)
