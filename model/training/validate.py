"""Validation at the end of each epoch: retrieval among the validation videos, with and without re-ranking, or
answers to questions about them.

Shapes: Q texts, V videos.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from model.data.sources import Source
from model.evaluation.corpus import Corpus, encode_all_texts
from model.evaluation.matching import match_pairs
from model.evaluation.questions import Answering, QuestionOptions, Questions, encode_frames_of
from model.evaluation.rerank import LAMBDA_GRID, joined_scores, nearest
from model.families.encoder import Encoder
from model.runtime.ranking import ensemble
from model.runtime.retrieval_metrics import retrieval_metrics, text_to_video

#: number of videos whose first caption is re-ranked, and of candidates for each
SAMPLE, CANDIDATES = 1000, 16


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


def recall_sum(metrics: dict[str, float]) -> float:
    """R@1 + R@5 + R@10, by which the best epoch is chosen."""
    return metrics["R@1"] + metrics["R@5"] + metrics["R@10"]
