"""The second stage: the best segments are judged anew by the matching head, on their salient frames.

Shapes: K candidates, n salient frames, V videos.
"""

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.library.snapshot import Snapshot
from model.runtime.ranking import (
    LOGIT_DECIMALS,
    ensemble,
    match_score,
    relevance,
    select_salient,
    tail_scores,
)
from service.search.encoded_query import EncodedQuery
from service.search.match_queue import MatchQueue
from service.search.retrieval import RetrievedSegments
from service.search.stopwatch import Stopwatch

# Tokens of so many bytes are held at once: the largest search fetches them in parts.
_TOKEN_BYTES = 32 << 20


@dataclass(frozen=True)
class RerankedCandidates:
    """The re-ranked candidates, in the order of the first stage.

    Attributes:
        score: float64, shape [K].
        match_score: float64, shape [K], the mean of the chosen frames' logits.
        frames: int64, shape [K, n], the salient frames of each segment, most relevant first.
        chosen: bool, shape [K, n]: which of `frames` there are; short segments have fewer.
        logits: float32, shape [K, n], those of the frames; 0 where there is none.
    """

    score: NDArray[np.float64]
    match_score: NDArray[np.float64]
    frames: NDArray[np.int64]
    chosen: NDArray[np.bool_]
    logits: NDArray[np.float32]


def rerank(
    snapshot: Snapshot,
    match_queue: MatchQueue,
    query: EncodedQuery,
    candidates: RetrievedSegments,
    num_salient_frames: int,
    deadline: float | None,
    stopwatch: Stopwatch,
) -> RerankedCandidates | None:
    """Judge the candidates, K ≥ 1, for one text; None where that would pass the deadline.

    Args:
        snapshot: where the candidates are.
        match_queue: of the snapshot's bundle.
        query: a text, encoded with tokens.
        candidates: segments of the first stage.
        num_salient_frames: n.
        deadline: of `time.monotonic()`, or None.
        stopwatch: gets the laps `salience`, `tokens` and `match`.

    Raises:
        ValueError: the query has no text.
        LibraryError: a table cannot be read.
        BundleError: the model fails.
    """
    if query.text is None:
        raise ValueError("the query has no text, which the matching head reads: leave re-ranking out")
    if _is_late(deadline):
        return None
    frames, chosen = salient_frames(snapshot, query, candidates.rows, num_salient_frames)
    segment_rows, frame_indices = candidates.rows[np.nonzero(chosen)[0]], frames[chosen]
    stopwatch.lap("salience")
    bundle = match_queue.bundle
    token_bytes = 4 * bundle.token_sizes().hidden_dim * snapshot.tokens_per_frame
    step = max(bundle.max_pairs, _TOKEN_BYTES // token_bytes)
    pair_logits = np.empty(len(frame_indices), np.float32)
    for start in range(0, len(frame_indices), step):
        if _is_late(deadline):
            return None
        stop = start + step
        tokens = snapshot.frame_tokens(segment_rows[start:stop], frame_indices[start:stop])
        stopwatch.lap("tokens")
        following = max(0, len(frame_indices) - stop)
        part = match_queue.match(query.text, tokens, deadline, following)
        stopwatch.lap("match")
        if part is None:
            return None
        pair_logits[start:stop] = part
    logits = np.zeros(chosen.shape, np.float32)
    logits[chosen] = pair_logits.round(LOGIT_DECIMALS)
    scores = match_score(logits, chosen)
    return RerankedCandidates(
        ensemble(scores, candidates.similarity, bundle.manifest.ensemble_lambda),
        scores,
        frames,
        chosen,
        logits,
    )


def salient_frames(
    snapshot: Snapshot, query: EncodedQuery, rows: NDArray[np.int64], num_salient_frames: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where SFP sends the matcher: each segment's most relevant frames for a query.

    Args:
        snapshot: where the segments are.
        query: what they are relevant for.
        rows: segments, shape [K].
        num_salient_frames: n.

    Returns:
        positions of the frames within their segments [K, n], most relevant first; and which of them there
        are [K, n].
    """
    salience, counts = snapshot.candidate_salience(rows)
    return select_salient(relevance(salience, query.salience), counts, num_salient_frames)


def final_scores(
    retrieved: RetrievedSegments, reranked: RerankedCandidates | None, ensemble_lambda: float
) -> NDArray[np.float64]:
    """The final score of each retrieved segment, float64 [K]; those that were re-ranked come first.

    What was not re-ranked comes below what was, in the first stage's order. Where nothing was re-ranked the
    score is the similarity.
    """
    if reranked is None:
        return retrieved.similarity.astype(np.float64)
    tail = retrieved.similarity[len(reranked.score) :]
    return np.concatenate([reranked.score, tail_scores(reranked.score, tail, ensemble_lambda)])


def best_of_each_video(
    scores: NDArray[np.float64], rows: NDArray[np.int64], video_rows: NDArray[np.int32], top_k: int
) -> NDArray[np.int64]:
    """Positions of the best segment of each of the `top_k` best videos; ties in the order of positions."""
    order = np.argsort(-scores, kind="stable")
    _, firsts = np.unique(video_rows[rows[order]], return_index=True)
    return order[np.sort(firsts)[:top_k]]


def _is_late(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline
