"""From similarities and logits to predictions, against sorting all spans of all videos."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")

from model.data.datasets.moments import Moment
from model.evaluation.moments.predict import VideoCorpus, predict_moments
from model.evaluation.moments.submission import read_submission, write_submission
from model.evaluation.moments.tvr import evaluate_tvr
from model.runtime.errors import InputError
from model.runtime.moments import MomentOptions, SpanLimits, frame_probabilities

QUERIES, VIDEOS, FRAMES, EVERY = 5, 6, 12, 1.5


class Logits:
    """Logits of every query and video; notes which were asked for."""

    def __init__(self, start: Any, end: Any, mask: Any) -> None:
        self.values = start, end, mask
        self.asked: list[int] = []

    def __call__(self, query: int, videos: NDArray[np.int64]) -> Any:
        start, end, mask = self.values
        self.asked.append(len(videos))
        return start[query, videos], end[query, videos], mask[videos]


def make(seed: int) -> tuple[list[Moment], VideoCorpus, NDArray[np.float32], Logits]:
    rng = np.random.default_rng(seed)
    counts = rng.integers(4, FRAMES + 1, VIDEOS)
    names = tuple(f"video {row}" for row in range(VIDEOS))
    # The last frame of a video lasts shorter than the others.
    corpus = VideoCorpus(
        names, 100 + np.arange(VIDEOS)[::-1].copy(), np.array(counts * EVERY - 0.7, np.float64), EVERY
    )
    moments = []
    for query in range(QUERIES):
        video = int(rng.integers(VIDEOS))
        first = int(rng.integers(0, counts[video]))
        last = int(rng.integers(first, counts[video]))
        span = (first * EVERY, min((last + 1) * EVERY, float(corpus.duration_seconds[video])))
        moments.append(Moment(str(query), names[video], "a text", (span,), kind="v"))
    start, end = rng.normal(size=(2, QUERIES, VIDEOS, FRAMES)).astype(np.float32)
    similarity = rng.uniform(-0.3, 0.3, (QUERIES, VIDEOS)).astype(np.float32)
    return moments, corpus, similarity, Logits(start, end, np.arange(FRAMES) < counts[:, None])


def expected(
    query: int, videos: list[int], corpus: VideoCorpus, similarity: Any, logits: Logits, count: int
) -> list[Any]:
    """(score, number, start, end) of the best spans of at most three frames."""
    start, end, mask = logits.values
    p_start, p_end = frame_probabilities(start[query], mask), frame_probabilities(end[query], mask)
    rows = []
    for video in videos:
        for i in range(int(mask[video].sum())):
            for j in range(i, min(i + 3, int(mask[video].sum()))):
                score = (
                    np.exp(20 * np.float64(similarity[query, video])) * p_start[video, i] * p_end[video, j]
                )
                stop = min(EVERY * (j + 1), corpus.duration_seconds[video])
                rows.append((score, float(corpus.numbers[video]), EVERY * i, stop))
    return sorted(rows, reverse=True)[:count]


@pytest.mark.parametrize("seed", range(3))
def test_predictions_are_the_best_of_all_spans(seed: int) -> None:
    moments, corpus, similarity, logits = make(seed)
    options = MomentOptions(SpanLimits(0, 2), num_videos=4, num_moments=20)
    found = predict_moments(moments, corpus, similarity, logits, options)
    assert list(found.tasks) == ["VCMR", "SVMR", "VR"]
    assert found.video_numbers == {f"video {row}": 100 + VIDEOS - 1 - row for row in range(VIDEOS)}
    assert logits.asked == [4, 1] * QUERIES
    for query, moment in enumerate(moments):
        nearest = sorted(range(VIDEOS), key=lambda video: -similarity[query, video])
        videos = {"VCMR": nearest[:4], "SVMR": [int(moment.video_id[-1])]}
        for task in ("VCMR", "SVMR"):
            rows = found.tasks[task][moment.moment_id]
            got = np.column_stack([rows.score, rows.video, rows.span])
            want = expected(query, videos[task], corpus, similarity, logits, 20)
            np.testing.assert_allclose(got, want, rtol=1e-9)
        ranked = found.tasks["VR"][moment.moment_id]
        assert ranked.video.tolist() == [corpus.numbers[video] for video in nearest]
        np.testing.assert_array_equal(ranked.score, similarity[query, nearest])
        assert not ranked.span.any()


def test_a_model_that_knows_finds_everything(tmp_path: Path) -> None:
    moments, corpus, similarity, logits = make(7)
    for query, moment in enumerate(moments):
        video = corpus.names.index(moment.video_id)
        first, last = moment.spans[0][0] / EVERY, np.ceil(moment.spans[0][1] / EVERY) - 1
        similarity[query, video] = 1
        logits.values[0][query, video, int(first)] = 20
        logits.values[1][query, video, int(last)] = 20
    submission = predict_moments(moments, corpus, similarity, logits)
    write_submission(tmp_path / "s.json", submission, moments)
    result = evaluate_tvr(read_submission(tmp_path / "s.json"), moments)
    assert [result[task][key] for task, key in (("VCMR", "0.7-r1"), ("SVMR", "0.7-r1"), ("VR", "r1"))] == [
        100,
        100,
        100,
    ]


def test_mistakes_are_named() -> None:
    moments, corpus, similarity, logits = make(0)
    with pytest.raises(ValueError, match=re.escape("similarity [5, 6]: pass [Q, V], here [4, 6]")):
        predict_moments(moments[:4], corpus, similarity, logits)
    other = Moment("9", "elsewhere", "a", ((0, 1),))
    with pytest.raises(InputError, match="the corpus lacks elsewhere, the video of query 9"):
        predict_moments([other], corpus, similarity[:1], logits)
    assert list(predict_moments([other], corpus, similarity[:1], logits, tasks=("VR",)).tasks) == ["VR"]
    with pytest.raises(InputError, match="two videos of the corpus have the same name"):
        VideoCorpus(("a", "a"), np.arange(2), np.ones(2), 1.5)
    with pytest.raises(InputError, match=re.escape("1 names, numbers [2] and duration_seconds [1]")):
        VideoCorpus(("a",), np.arange(2), np.ones(1), 1.5)
    with pytest.raises(InputError, match="every_seconds is 0"):
        VideoCorpus(("a",), np.arange(1), np.ones(1), 0)
