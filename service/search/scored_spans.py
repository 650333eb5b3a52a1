"""Spans of videos with their scores: what hits are built from. A span is a segment, or a moment.

Shapes: K segments, F stored frames of a span, S salience.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.library.records import TextLine
from indexer.library.snapshot import Snapshot
from model.runtime.calibration import Level
from model.runtime.ranking import relevance, select_salient
from service.search.rerank import RerankedCandidates
from service.search.retrieval import RetrievedSegments


@dataclass(frozen=True)
class ScoredSpan:
    """A span of a video that fits the query.

    Attributes:
        video_id: identifies the video.
        start_seconds: where the span starts.
        end_seconds: where it ends.
        frame_ids: the stored frames of the span, F, in time order.
        pts_seconds: when each is shown, float64 [F].
        relevance: how well each fits the query, float32 [F]; None: the bundle says nothing of single frames.
        salient: the salient ones among them, most relevant first; none without relevance.
        logits: the match of the salient ones; None: the span was not re-ranked.
        score: the final score.
        first_score: the first stage's score: the cosine, less the hubness correction.
        hubness: of the span's segment; None: the bundle corrects none.
        match_score: the match of the span; None: it was not re-ranked.
        similarity_share: the share of the similarity in the match; None: there is none.
        first_stage_rank: the place of the span's segment in the first stage, from 1; of one that it did not
            retrieve, the first place that is possible.
        texts: the lines of text that fit the query.
        text_term: what they add to the score.
        visual_weight: the factor of the rest of the score.
        probability: how likely the span shows or says what is asked; None: the bundle is not calibrated.
        level: the same in words.
    """

    video_id: str
    start_seconds: float
    end_seconds: float
    frame_ids: list[str]
    pts_seconds: list[float]
    relevance: NDArray[np.float32] | None
    salient: list[int]
    logits: list[float] | None
    score: float
    first_score: float
    hubness: float | None
    match_score: float | None
    similarity_share: float | None
    first_stage_rank: int
    texts: tuple[TextLine, ...] = ()
    text_term: float = 0.0
    visual_weight: float = 1.0
    probability: float | None = None
    level: Level | None = None


def segment_spans(
    snapshot: Snapshot,
    retrieved: RetrievedSegments,
    reranked: RerankedCandidates | None,
    scores: NDArray[np.float64],
    positions: NDArray[np.int64],
    query_salience: NDArray[np.float32],
    num_salient_frames: int,
) -> list[ScoredSpan]:
    """Segments as spans.

    Args:
        snapshot: holds the segments.
        retrieved: what the first stage found.
        reranked: covers the first of them; None: nothing was re-ranked.
        scores: the final score of each, [K].
        positions: which of them, and in which order.
        query_salience: the query's, [S].
        num_salient_frames: how many frames are salient where nothing was re-ranked.

    Raises:
        LibraryError: a table cannot be read.
    """
    known = None if reranked is None else reranked.segment_frames
    has_salience = snapshot.salience_dim > 0
    spans = []
    for position, segment in zip(
        positions.tolist(), snapshot.segments(retrieved.rows[positions], known), strict=True
    ):
        fit = relevance(segment.frame_salience[None], query_salience)
        is_reranked = reranked is not None and position < len(reranked.score)
        if reranked is not None and is_reranked:
            chosen = reranked.chosen[position]
            salient = reranked.frames[position][chosen].tolist()
            logits = reranked.logits[position][chosen].tolist()
            shares = reranked.similarity_share
            share = None if shares is None else float(shares[position])
            match = float(reranked.match_score[position])
        else:
            frames, valid = select_salient(fit, np.array([fit.shape[1]]), num_salient_frames)
            salient, logits, share, match = frames[valid & has_salience].tolist(), None, None, None
        spans.append(
            ScoredSpan(
                segment.video_id,
                segment.start_seconds,
                segment.end_seconds,
                segment.frame_ids,
                segment.frame_pts_seconds.tolist(),
                fit[0] if has_salience else None,
                salient,
                logits,
                float(scores[position]),
                float(retrieved.score[position]),
                None if snapshot.hubness is None else float(snapshot.hubness[segment.row]),
                match,
                share,
                int(retrieved.ranks[position]) + 1,
            )
        )
    return spans
