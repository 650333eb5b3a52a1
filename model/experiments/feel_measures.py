"""What FEEL's ablation measures of one model: Table 5's figures, and what Figures 3, 4 and 5 show.

Shapes: Q queries, V videos, d width, N queries that are changed, C cells of a row of a matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.arrays import Array
from model.data.datasets.moments import Moment
from model.data.feature_sets import FeatureSource
from model.evaluation.moments.features import (
    encode_queries,
    encode_videos,
    moments_of,
    predict_in,
    rows_of_videos,
    similarity_of,
)
from model.evaluation.moments.tvr import evaluate_tvr
from model.families.encoder import FeatureEncoder
from model.progress import Report

#: numbers of unrelated words that are added to a query
ADDED_WORDS = (1, 2, 4, 8)
# As many queries as the paper changes, and about as many rows as its matrix has.
_CHANGED, _SIDE = 100, 8


def add_words(texts: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    """Add words of other texts to each text, at random places.

    Args:
        texts: at least two, with other words.
        count: how many words each text gets.
        rng: source of all random choices.
    """
    vocabulary = sorted({word for text in texts for word in text.split()})
    changed = []
    for text in texts:
        words = text.split()
        unrelated = [word for word in vocabulary if word not in words]
        for word in rng.choice(unrelated, count):
            words.insert(int(rng.integers(len(words) + 1)), str(word))
        changed.append(" ".join(words))
    return changed


def ranks_of(similarity: Array, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place of each query's own video, from 1; among equal videos the last. [Q, V], [Q] → [Q]."""
    own = np.take_along_axis(similarity, rows[:, None], 1)
    ranks: NDArray[np.int64] = (similarity >= own).sum(1)
    return ranks


def measure_model(
    encoder: FeatureEncoder, source: FeatureSource, report: Report, seed: int = 0
) -> dict[str, Any]:
    """Measure a fine-tuned model on films.

    Args:
        encoder: the model.
        source: the films with their queries.
        report: told about progress.
        seed: draws the queries that are changed, and the words that are added.

    Returns:
        `metrics` as `evaluate_tvr`; `ranks` of each query's film and `first`, the name of the film found
        first; `sensitivity`: for each number of added words the mean change of the score of the right film,
        `change`, and the mean rank of that film, `rank`, the latter also for 0 words; `similarity`, the
        matrix of some queries and their films, [C, C], and its `queries` and `films`.
    """
    moments, rows = moments_of(source), rows_of_videos(source)
    encoded = encode_videos(encoder, source, report)
    texts = [moment.text for moment in moments]
    queries = encode_queries(encoder, texts)
    similarity = similarity_of(encoder, queries, encoded)
    submission = predict_in(encoder, encoded, moments, queries, similarity)
    ranks, first = ranks_of(similarity, rows), similarity.argmax(1)
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(moments))[:_CHANGED])
    sensitivity = [{"words": 0, "change": 0.0, "rank": float(ranks[chosen].mean())}]
    own = similarity[chosen, rows[chosen]]
    for count in ADDED_WORDS:
        changed = encode_queries(encoder, add_words([texts[i] for i in chosen], count, rng))
        scores = similarity_of(encoder, changed, encoded)
        now = scores[np.arange(len(chosen)), rows[chosen]]
        sensitivity.append(
            {
                "words": count,
                "change": float((now - own).mean()),
                "rank": float(ranks_of(scores, rows[chosen]).mean()),
            }
        )
    shown = _first_of_each(rows, _SIDE)
    return {
        "metrics": evaluate_tvr(submission, moments),
        "ranks": ranks.tolist(),
        "first": [source.item_ids[row] for row in first],
        "sensitivity": sensitivity,
        "similarity": np.round(similarity[np.ix_(shown, rows[shown])].astype(np.float64), 4).tolist(),
        "queries": [texts[i] for i in shown],
        "films": [source.item_ids[rows[i]] for i in shown],
    }


def asked(source: FeatureSource) -> list[dict[str, Any]]:
    """The queries of a source in the order of `ranks`: text, film and kind."""
    return [_as_asked(moment) for moment in moments_of(source)]


def _as_asked(moment: Moment) -> dict[str, Any]:
    return {"query": moment.text, "film": moment.video_id, "kind": moment.kind}


def _first_of_each(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """The first query of each of the first films that have one."""
    _, places = np.unique(rows, return_index=True)
    return places[:most].astype(np.int64)
