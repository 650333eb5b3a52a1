"""Validation at the end of each epoch: retrieval among the validation videos, with and without re-ranking,
answers to questions about them, moments of them, or the losses alone.

Shapes: Q texts, V videos.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from model import distributed
from model.data.feature_sets import FeatureSource
from model.data.loaders import Loader
from model.data.sources import Source
from model.evaluation.corpus import Corpus, encode_all_texts
from model.evaluation.matching import match_pairs
from model.evaluation.moments.features import (
    encode_queries,
    encode_videos,
    measure_videos,
    moments_of,
    predict_in,
    similarity_of,
)
from model.evaluation.moments.tvr import evaluate_tvr
from model.evaluation.questions import Answering, QuestionOptions, Questions, encode_frames_of
from model.evaluation.rerank import LAMBDA_GRID, joined_scores, nearest
from model.families.base import Batch
from model.families.encoder import Encoder, FeatureEncoder
from model.runtime.ranking import ensemble
from model.runtime.retrieval_metrics import retrieval_metrics, text_to_video
from model.training.run import Run

#: number of videos whose first caption is re-ranked, and of candidates for each
SAMPLE, CANDIDATES = 1000, 16
#: R@K at an IoU that are validated, by their keys in TVR's evaluation
_MOMENT_KEYS = ("0.5-r1", "0.7-r1", "0.7-r10")


def validate(encoder: Encoder, captions: Sequence[Sequence[str]], corpus: Corpus) -> dict[str, Any]:
    """Measure retrieval from text to video.

    Returns:
        metrics: `global` over all captions; over the first captions of a sample of videos `sample` (ranked by
        similarity), `local` and `ensemble` (the nearest `CANDIDATES`, re-ranked by the match alone and with
        the best λ). A model without a matcher has `global` only.
    """
    target = np.repeat(np.arange(len(captions)), [len(group) for group in captions])
    texts = encode_all_texts(encoder, [caption for group in captions for caption in group])
    result: dict[str, Any] = {
        "global": retrieval_metrics(text_to_video(texts.embedding @ corpus.embedding.T, target))
    }
    if not encoder.has_matcher:
        return result
    videos = np.unique(np.linspace(0, len(captions) - 1, min(SAMPLE, len(captions))).astype(np.int64))
    texts = encode_all_texts(encoder, [captions[v][0] for v in videos], tokens=True)
    similarity = texts.embedding @ corpus.embedding.T
    block = nearest(similarity, CANDIDATES)
    salient = encoder.profile.num_salient_frames
    match = match_pairs(encoder, texts, corpus, block, [salient])[salient]

    def ranked(lam: float) -> dict[str, Any]:
        pairs = ensemble(match, similarity, lam)
        return {**retrieval_metrics(text_to_video(joined_scores(pairs, similarity, block, lam), videos))}

    tried = [ranked(lam) | {"lambda": lam} for lam in LAMBDA_GRID]
    result["sample"] = retrieval_metrics(text_to_video(similarity, videos))
    result["local"] = ranked(0.0)
    result["ensemble"] = max(tried, key=recall_sum)
    return result


def validate_answers(encoder: Encoder, source: Source) -> dict[str, Any]:
    """Measure answers to all questions about the validation videos, by the frames that the head reads.

    Returns:
        metrics: `answers`, the accuracy in percent of `all` questions and by question word.
    """
    options = QuestionOptions()
    answering = Answering(encoder, Questions.about(source), options)
    corpus = encode_frames_of(encoder, source, options)
    return {"answers": answering.accuracy(corpus, answering.head.frames_read)}


def validate_moments(encoder: FeatureEncoder, source: FeatureSource, *, moments: bool) -> dict[str, Any]:
    """Measure the retrieval of videos, and of moments for a sample of the queries.

    Returns:
        metrics: `videos`, retrieval by all queries. If `moments`, and the queries have spans, also `SVMR` and
        `VCMR`, for at most `SAMPLE` queries: "0.5-r1" is R@1 at IoU 0.5, in percent.
    """
    encoded, asked = encode_videos(encoder, source), moments_of(source)
    queries = encode_queries(encoder, [moment.text for moment in asked])
    similarity = similarity_of(encoder, queries, encoded)
    result: dict[str, Any] = {"videos": measure_videos(similarity, source)}
    rows = [row for row, moment in enumerate(asked) if moment.spans]
    if not moments or not rows:
        return result
    rows = [rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, min(SAMPLE, len(rows))).astype(int))]
    sample = [asked[row] for row in rows]
    found = predict_in(encoder, encoded, sample, queries[rows], similarity[rows], tasks=("SVMR", "VCMR"))
    measured = evaluate_tvr(found, sample)
    return result | {task: {key: measured[task][key] for key in _MOMENT_KEYS} for task in ("SVMR", "VCMR")}


@torch.no_grad()
def validate_losses(run: Run, loader: Loader[Batch]) -> dict[str, float]:
    """The mean losses over one epoch of a loader. All processes take part, with their shares of its batches.

    What the losses draw at random is the same in every epoch.
    """
    objective = getattr(run.objective, "module", run.objective)
    objective.eval()
    sums: dict[str, float] = {}
    for number in range(loader.steps):
        with run.autocast():
            values = objective(loader.make(0, number).to(run.device), number, 0)
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + distributed.mean(value.float()) / loader.steps
    return sums


def recall_sum(metrics: dict[str, float]) -> float:
    """R@1 + R@5 + R@10, by which the best epoch is chosen."""
    return metrics["R@1"] + metrics["R@5"] + metrics["R@10"]
