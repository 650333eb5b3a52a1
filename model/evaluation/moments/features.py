"""Retrieval and moments on a set of features: videos are encoded once, then all queries are asked.

Shapes: V videos, M frames (feature vectors), d width, Q queries, U videos of a call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.arrays import Array
from model.data.datasets.moments import Moment
from model.data.feature_sets import FeatureSource
from model.evaluation.moments.predict import VideoCorpus, predict_moments
from model.evaluation.moments.submission import TASKS, Submission, Task
from model.evaluation.moments.tvr import TvrMetrics, evaluate_tvr
from model.families.encoder import FeatureEncoder
from model.progress import Progress, Report, silent
from model.runtime.errors import InputError
from model.runtime.moments import MomentOptions
from model.runtime.retrieval_metrics import RetrievalMetrics, retrieval_metrics, text_to_video

# Videos, or queries, that are encoded at once.
_VIDEOS, _QUERIES = 32, 128


@dataclass(frozen=True)
class EncodedVideos:
    """All videos of a source, encoded.

    Attributes:
        videos: their names, numbers and lengths.
        frames: float32 [V, M, d]; any values where masked.
        mask: float32 [V, M], 1 for real frames.
    """

    videos: VideoCorpus
    frames: Array
    mask: Array


def encode_videos(encoder: FeatureEncoder, source: FeatureSource, report: Report = silent) -> EncodedVideos:
    """Encode the videos of a source with their text.

    Raises:
        InputError: features cannot be read.
    """
    progress = Progress("videos encoded", len(source), report)
    parts: list[tuple[Array, Array]] = []
    every, seconds = np.zeros(len(source)), np.zeros(len(source))
    for first in range(0, len(source), _VIDEOS):
        rows = range(first, min(first + _VIDEOS, len(source)))
        items = [source.item(row) for row in rows]
        parts.append(encoder.videos([item.features for item in items], [item.text for item in items]))
        every[rows] = [item.every_seconds for item in items]
        seconds[rows] = [item.duration_seconds for item in items]
        for _ in items:
            progress.step()
    longest = max(mask.shape[1] for _, mask in parts)
    frames = np.zeros((len(source), longest, parts[0][0].shape[2]), np.float32)
    mask = np.zeros(frames.shape[:2], np.float32)
    for number, (of_part, real) in enumerate(parts):
        place = slice(number * _VIDEOS, number * _VIDEOS + len(real))
        frames[place, : real.shape[1]], mask[place, : real.shape[1]] = of_part, real
    numbers = np.array(source.numbers, np.int64)
    return EncodedVideos(VideoCorpus(tuple(source.item_ids), numbers, seconds, every), frames, mask)


def encode_queries(encoder: FeatureEncoder, texts: Sequence[str]) -> Array:
    """Encode queries. Q texts → [Q, d]."""
    parts = [encoder.queries(texts[i : i + _QUERIES]) for i in range(0, len(texts), _QUERIES)]
    return np.concatenate(parts)


def similarity_of(encoder: FeatureEncoder, queries: Array, encoded: EncodedVideos) -> Array:
    """The score of each video for each query. Shape [Q, d] → [Q, V]."""
    columns = [
        encoder.scores(queries, encoded.frames[i : i + _VIDEOS], encoded.mask[i : i + _VIDEOS])
        for i in range(0, len(encoded.videos), _VIDEOS)
    ]
    return np.concatenate(columns, axis=1)


def moments_of(source: FeatureSource) -> list[Moment]:
    """The queries of all videos of a source.

    Raises:
        InputError: there are none, as in a set of clips.
    """
    moments = [moment for group in source.queries for moment in group]
    if not moments:
        raise InputError(f"{source.name} has no queries to measure with: name a set with queries")
    return moments


def rows_of_videos(source: FeatureSource) -> NDArray[np.int64]:
    """The row of each query's video, int64 [Q]."""
    return np.repeat(np.arange(len(source)), [len(group) for group in source.queries])


def measure_videos(similarity: Array, source: FeatureSource) -> RetrievalMetrics:
    """Retrieval of each query's video, in percent. Shape [Q, V]."""
    return retrieval_metrics(text_to_video(similarity, rows_of_videos(source)))


def predict_in(
    encoder: FeatureEncoder,
    encoded: EncodedVideos,
    moments: Sequence[Moment],
    queries: Array,
    similarity: Array,
    options: MomentOptions | None = None,
    tasks: Sequence[Task] = TASKS,
) -> Submission:
    """Predict moments and videos for queries.

    Args:
        encoder: the model.
        encoded: the videos.
        moments: the queries.
        queries: the same, encoded, [Q, d].
        similarity: [Q, V].
        options: how moments are ranked.
        tasks: what to predict.

    Raises:
        InputError: as `predict_moments`.
    """

    def logits(query: int, videos: NDArray[np.int64]) -> tuple[Array, Array, NDArray[np.bool_]]:
        frames, mask = encoded.frames[videos], encoded.mask[videos]
        zeros = np.zeros(len(videos), np.int64)
        start, end = encoder.logits(queries[query : query + 1], frames, mask, zeros, np.arange(len(videos)))
        return start, end, mask > 0

    return predict_moments(moments, encoded.videos, similarity, logits, options, tasks)


@dataclass(frozen=True)
class FoundTasks:
    """What was found for the queries of a source, and how well.

    Attributes:
        queries: the queries.
        submission: what was predicted.
        retrieval: of videos, by similarity, in percent; ties are averaged.
        tasks: the figures of `evaluate_tvr`; without moments where no moment is looked for, or spans are not
            known.
    """

    queries: tuple[Moment, ...]
    submission: Submission
    retrieval: RetrievalMetrics
    tasks: TvrMetrics


def evaluate_features(
    encoder: FeatureEncoder,
    source: FeatureSource,
    options: MomentOptions | None = None,
    *,
    moments: bool = True,
    report: Report = silent,
) -> FoundTasks:
    """Ask all queries of a source, and measure what is found.

    Args:
        encoder: the model.
        source: the videos and their queries.
        options: how moments are ranked.
        moments: look for moments too; false: for videos alone.
        report: told how many videos are encoded, and what is not measured.

    Raises:
        InputError: there is no query, or features cannot be read.
    """
    queries = moments_of(source)
    encoded = encode_videos(encoder, source, report)
    vectors = encode_queries(encoder, [query.text for query in queries])
    similarity = similarity_of(encoder, vectors, encoded)
    tasks: Sequence[Task] = TASKS if moments else ("VR",)
    found = predict_in(encoder, encoded, queries, vectors, similarity, options, tasks)
    unknown = sum(not query.spans for query in queries)
    measured = found
    if moments and unknown:
        report(
            f"{source.name}: {unknown} of {len(queries)} queries have no known span; moments are not measured"
        )
        measured = Submission(found.video_numbers, {"VR": found.tasks["VR"]})
    return FoundTasks(
        tuple(queries), found, measure_videos(similarity, source), evaluate_tvr(measured, queries)
    )
