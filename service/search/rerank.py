"""The second stage scores the best segments again, on their salient frames.

A bundle's matching head matches the query with these frames; or their relevance is their match, where the
bundle says so.

Shapes: K candidates, n salient frames, V videos.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from indexer.library.errors import LibraryError
from indexer.library.snapshot import SegmentFrames, Snapshot
from model.runtime.bundle import BundleManifest
from model.runtime.ranking import (
    LOGIT_DECIMALS,
    blended_match,
    coherence,
    ensemble,
    match_score,
    relevance,
    salience_logits,
    select_salient,
    similarity_share,
    tail_scores,
)
from service.search.encoded_query import EncodedQuery, QueryPart
from service.search.match_queue import MatchQueue, MatchTerms
from service.search.retrieval import RetrievedSegments
from service.search.stopwatch import Stopwatch


class UnreadableTokensError(LibraryError):
    """Tokens of candidates are damaged or cannot be read, so that nothing can be re-ranked."""


# Most bytes of tokens held at once: a search that needs more fetches its tokens in parts.
_TOKEN_BYTES = 32 << 20
#: Fewer candidates are not worth re-ranking, unless fewer were asked for.
LEAST_CANDIDATES = 10


@dataclass(frozen=True)
class RerankedCandidates:
    """The re-ranked candidates, in the order of the first stage.

    Attributes:
        score: the final score, float64, shape [K].
        match_score: mean logit of the salient frames, float64, shape [K]; with `similarity_share`, blended
            with that of the similarity.
        frames: positions of the salient frames in each segment, most relevant first, int64, shape [K, n].
        chosen: which entries of `frames` are valid, bool, shape [K, n]; short segments have fewer frames.
        logits: logits of the frames, float32, shape [K, n]; 0 where `chosen` is False.
        segment_frames: what was read of all candidates.
        similarity_share: the share of the similarity in the match, float64, shape [K]; None: there is none.
        has_salience: whether `segment_frames` still has the frames' salience.
    """

    score: NDArray[np.float64]
    match_score: NDArray[np.float64]
    frames: NDArray[np.int64]
    chosen: NDArray[np.bool_]
    logits: NDArray[np.float32]
    segment_frames: SegmentFrames
    similarity_share: NDArray[np.float64] | None = None
    has_salience: bool = True

    def without_salience(self) -> "RerankedCandidates":
        """The same, small, to be kept: of the segments' frames only which they are."""
        read = self.segment_frames
        salience = np.zeros((*read.salience.shape[:2], 0), np.float32)
        return replace(self, segment_frames=replace(read, salience=salience), has_salience=False)


def candidates_in_time(
    match_queue: MatchQueue, wanted: int, pairs_per_candidate: int, terms: MatchTerms
) -> int:
    """How many of `wanted` candidates to re-rank: as many as the queue can match in time.

    Returns:
        From `LEAST_CANDIDATES` (or `wanted`, if that is less) to `wanted`; 0 if not even these are in time.
    """
    least = min(LEAST_CANDIDATES, wanted) * pairs_per_candidate
    pairs = match_queue.pairs_in_time(wanted * pairs_per_candidate, least, terms)
    return pairs // pairs_per_candidate


def rerank(
    snapshot: Snapshot,
    match_queue: MatchQueue,
    query: EncodedQuery,
    candidates: RetrievedSegments,
    num_salient_frames: int,
    terms: MatchTerms,
    stopwatch: Stopwatch,
) -> RerankedCandidates | None:
    """Score the candidates, K ≥ 1, for one text.

    Args:
        snapshot: holds the candidates.
        match_queue: runs the matching head of the snapshot's bundle.
        query: a text, encoded with tokens; its parts count as their mean.
        candidates: segments from the first stage.
        num_salient_frames: n.
        terms: on which the search uses the matching head.
        stopwatch: gets the laps `salience`, `tokens` and `match`.

    Returns:
        The scores; of the first candidates only if the deadline passes before the last. None if it passes
        before the first `LEAST_CANDIDATES`.

    Raises:
        ValueError: the query has no text.
        UnreadableTokensError: tokens are damaged or cannot be read.
        DamagedRowsError: some candidates are damaged.
        LibraryError: a table cannot be read.
        BundleError: the model fails.
    """
    if query.parts is None:
        raise ValueError("the query has no text, which the matching head needs: search without re-ranking")
    if terms.is_over(time.monotonic()):
        return None
    read = snapshot.segment_frames(candidates.rows)
    frames, chosen, _ = salient_frames(read, query, num_salient_frames)
    segment_rows, frame_indices = candidates.rows[np.nonzero(chosen)[0]], frames[chosen]
    stopwatch.lap("salience")
    bundle = match_queue.bundle
    token_bytes = 4 * bundle.token_sizes().hidden_dim * snapshot.tokens_per_frame
    step = max(bundle.max_pairs, _TOKEN_BYTES // token_bytes)
    pair_logits = np.empty(len(frame_indices), np.float32)
    matched = 0
    while matched < len(frame_indices) and not terms.is_over(time.monotonic()):
        stop = min(matched + step, len(frame_indices))
        try:
            tokens = snapshot.frame_tokens(segment_rows[matched:stop], frame_indices[matched:stop])
        except LibraryError as error:
            raise UnreadableTokensError(str(error)) from error
        stopwatch.lap("tokens")
        logits = match_parts(match_queue, query.parts, tokens, terms)
        stopwatch.lap("match")
        pair_logits[matched : matched + len(logits)] = logits
        matched += len(logits)
        if matched < stop:
            break
    # All candidates up to the first of which a frame is missing.
    count = int(np.searchsorted(np.cumsum(chosen.sum(axis=1)), matched, side="right"))
    if count < min(LEAST_CANDIDATES, len(candidates.rows)):
        return None
    frames, chosen, first_score = frames[:count], chosen[:count], candidates.score[:count]
    logits_of_frames = np.zeros(chosen.shape, np.float32)
    logits_of_frames[chosen] = pair_logits[: int(chosen.sum())].round(LOGIT_DECIMALS)
    scores = match_score(logits_of_frames, chosen)
    return RerankedCandidates(
        ensemble(scores, first_score, bundle.manifest.ensemble_lambda),
        scores,
        frames,
        chosen,
        logits_of_frames,
        read,
    )


def rerank_by_salience(
    snapshot: Snapshot,
    manifest: BundleManifest,
    query: EncodedQuery,
    candidates: RetrievedSegments,
    num_salient_frames: int,
    stopwatch: Stopwatch,
) -> RerankedCandidates:
    """Score the candidates, K ≥ 1, by the relevance of their salient frames (LGDN's Table 8).

    Args:
        snapshot: holds the candidates.
        manifest: of the snapshot's bundle, which has a match by salience.
        query: any query: no token is read.
        candidates: segments from the first stage.
        num_salient_frames: n.
        stopwatch: gets the lap `salience`.

    Raises:
        ValueError: the bundle has no match by salience.
        DamagedRowsError: some candidates are damaged.
        LibraryError: a table cannot be read.
    """
    read = snapshot.segment_frames(candidates.rows)
    reranked = score_by_salience(read, manifest, query, candidates.score, num_salient_frames)
    stopwatch.lap("salience")
    return reranked


def score_by_salience(
    read: SegmentFrames,
    manifest: BundleManifest,
    query: EncodedQuery,
    first_score: NDArray[np.float32],
    num_salient_frames: int,
) -> RerankedCandidates:
    """As `rerank_by_salience`, of frames that were read, and the first stage's scores, [K].

    Raises:
        ValueError: the bundle has no match by salience.
    """
    match = manifest.salience_match
    if match is None:
        raise ValueError(f"the bundle {manifest.name!r} has no salience_match: use `rerank`")
    frames, chosen, relevant = salient_frames(read, query, num_salient_frames)
    logits = salience_logits(relevant, chosen, match.scale, match.bias)
    scores = match_score(logits, chosen)
    share = None
    if match.coherence is not None:
        share = similarity_share(coherence(read.salience, read.counts), match.coherence)
        scores = blended_match(scores, match.scale * first_score + match.bias, share)
    final = ensemble(scores, first_score, manifest.ensemble_lambda)
    return RerankedCandidates(final, scores, frames, chosen, logits, read, share)


def match_parts(
    match_queue: MatchQueue, parts: Sequence[QueryPart], tokens: NDArray[np.float32], terms: MatchTerms
) -> NDArray[np.float32]:
    """The mean logit of the parts of a text for each frame; of the first ones only, if time runs out.

    Shapes: tokens [R, P', H] → at most [R].
    """
    mean = np.zeros(len(tokens), np.float32)
    for part in parts:
        logits = match_queue.match(part.text, tokens[: len(mean)], terms)
        mean = mean[: len(logits)] + np.float32(part.weight) * logits
    return mean


def salient_frames(
    segments: SegmentFrames, query: EncodedQuery, num_salient_frames: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.float32]]:
    """Choose the frames that are most relevant to a query in each segment (LGDN's salient frame proposal).

    Args:
        segments: what is stored of the frames of the segments.
        query: the query.
        num_salient_frames: n.

    Returns:
        Positions of the frames in their segments, shape [K, n], most relevant first; which of these entries
        are valid; and the relevance of each frame, 0 where none is.
    """
    relevant = relevance(segments.salience, query.salience)
    frames, chosen = select_salient(relevant, segments.counts, num_salient_frames)
    return frames, chosen, np.where(chosen, np.take_along_axis(relevant, frames, axis=1), np.float32(0))


def final_scores(
    retrieved: RetrievedSegments, reranked: RerankedCandidates | None, ensemble_lambda: float
) -> NDArray[np.float64]:
    """The final score of each retrieved segment, float64, shape [K], in the order of `retrieved`.

    Segments that were not re-ranked score below all that were, in the first stage's order. If nothing was
    re-ranked, the score is the first stage's.
    """
    if reranked is None:
        return retrieved.score.astype(np.float64)
    tail = retrieved.score[len(reranked.score) :]
    return np.concatenate([reranked.score, tail_scores(reranked.score, tail, ensemble_lambda)])


def best_of_each_video(
    scores: NDArray[np.float64], rows: NDArray[np.int64], video_rows: NDArray[np.int32], top_k: int
) -> NDArray[np.int64]:
    """Positions of the best segments of the `top_k` best videos, best first; ties: lower position first."""
    order = np.argsort(-scores, kind="stable")
    _, first_of_video = np.unique(video_rows[rows[order]], return_index=True)
    return order[np.sort(first_of_video)[:top_k]]
