"""Builds the hits of a search: the best segments with their frames and the explanation of their scores."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.library.records import SegmentRecord
from indexer.library.snapshot import Snapshot
from model.runtime.ranking import SCORE_DECIMALS, select_salient
from service.search.rerank import RerankedCandidates
from service.search.results import FrameEvidence, SalientFrame, ScoreExplanation, VideoHit
from service.search.retrieval import RetrievedSegments


@dataclass(frozen=True)
class HitBuilder:
    """Builds the hits of one search.

    Positions are those in `retrieved` and `scores`. `reranked` covers the first of them; None: nothing was
    re-ranked.
    """

    snapshot: Snapshot
    retrieved: RetrievedSegments
    reranked: RerankedCandidates | None
    scores: NDArray[np.float64]
    query_salience: NDArray[np.float32]
    num_salient_frames: int
    ensemble_lambda: float
    explain: bool

    def hits(self, positions: NDArray[np.int64]) -> list[VideoHit]:
        """The hits at these positions, in this order.

        Raises:
            LibraryError: a table cannot be read.
        """
        known = None if self.reranked is None else self.reranked.segment_frames
        segments = self.snapshot.segments(self.retrieved.rows[positions], known)
        pairs = zip(positions.tolist(), segments, strict=True)
        hits = [self._hit(position, segment) for position, segment in pairs]
        return [hit for hit in hits if hit is not None]

    def _hit(self, position: int, segment: SegmentRecord) -> VideoHit | None:
        label = self.snapshot.label(segment.video_id)
        if label is None:  # never in an intact snapshot; without its video a hit is of no use
            return None
        relevance = (segment.frame_salience @ self.query_salience).round(SCORE_DECIMALS)
        # One call for all frames: a call for each takes longer than all else here.
        rounded = relevance.astype(np.float64).round(SCORE_DECIMALS).tolist()
        salient, logits = self._salient(position, relevance)
        mean_logit = None if logits is None or self.reranked is None else self.reranked.match_score[position]
        frame_ids = segment.frame_ids
        terms = [
            SalientFrame(
                frame_id=frame_ids[frame],
                relevance=rounded[frame],
                match_logit=None if logits is None else _rounded(logits[i]),
            )
            for i, frame in enumerate(salient)
        ]
        logit_of = {frame: term.match_logit for frame, term in zip(salient, terms, strict=True)}
        score, similarity = self.scores[position], float(self.retrieved.score[position])
        hubness = None if self.snapshot.hubness is None else float(self.snapshot.hubness[segment.row])
        if hubness is not None:
            similarity += self.snapshot.hubness_weight * hubness
        return VideoHit(
            video_id=segment.video_id,
            path=label.path,
            title=label.title,
            start_seconds=segment.start_seconds,
            end_seconds=segment.end_seconds,
            container_start_seconds=label.container_start_seconds,
            score=_rounded(score),
            similarity=_rounded(similarity),
            match_score=None if mean_logit is None else _rounded(mean_logit),
            frames=[
                FrameEvidence(
                    frame_id=frame_id,
                    pts_seconds=pts_seconds,
                    relevance=value,
                    salient=frame in logit_of,
                    match_score=logit_of.get(frame),
                )
                for frame, (frame_id, pts_seconds, value) in enumerate(
                    zip(frame_ids, segment.frame_pts_seconds.tolist(), rounded, strict=True)
                )
            ],
            explanation=self._explanation(position, score, similarity, hubness, mean_logit, terms)
            if self.explain
            else None,
        )

    def _salient(
        self, position: int, relevance: NDArray[np.float32]
    ) -> tuple[list[int], Sequence[float] | None]:
        """The salient frames, most relevant first, and their logits, if the segment was re-ranked."""
        if self.reranked is not None and position < len(self.reranked.score):
            chosen = self.reranked.chosen[position]
            frames: list[int] = self.reranked.frames[position][chosen].tolist()
            return frames, self.reranked.logits[position][chosen].tolist()
        counts = np.array([len(relevance)])
        frames_of, chosen_of = select_salient(relevance[None], counts, self.num_salient_frames)
        return frames_of[chosen_of].tolist(), None

    def _explanation(
        self,
        position: int,
        score: float,
        similarity: float,
        hubness: float | None,
        mean_logit: float | None,
        terms: list[SalientFrame],
    ) -> ScoreExplanation:
        weight = 1.0 if self.reranked is None else self.ensemble_lambda
        term = weight * similarity
        factor = weight * self.snapshot.hubness_weight
        hubness_term = None if hubness is None else -factor * hubness
        offset = None
        shares = None if self.reranked is None else self.reranked.similarity_share
        share = None if shares is None or mean_logit is None else float(shares[position])
        correction = "" if hubness is None else f" − {factor:g} × {hubness:.4f} (hubness)"
        last = f"{weight:g} × {similarity:.4f} (similarity){correction}"
        if self.reranked is None and hubness is None:
            formula = f"{similarity:.4f} (similarity alone: nothing was re-ranked)"
        elif self.reranked is None:
            formula = f"{similarity:.4f} (similarity){correction}: nothing was re-ranked"
        elif mean_logit is not None:
            blended = "" if not share else f", {share:.0%} by the similarity"
            formula = f"{mean_logit:.4f} (mean match of the salient frames: {len(terms)}{blended}) + {last}"
        else:
            offset = score - term - (hubness_term or 0.0)
            formula = f"{offset:.4f} (behind all that were re-ranked: {len(self.reranked.score)}) + {last}"
        return ScoreExplanation(
            similarity=_rounded(similarity),
            ensemble_lambda=weight,
            similarity_term=_rounded(term),
            hubness=None if hubness is None else _rounded(hubness),
            hubness_weight=None if hubness is None else self.snapshot.hubness_weight,
            hubness_term=None if hubness_term is None else _rounded(hubness_term),
            match_score=None if mean_logit is None else _rounded(mean_logit),
            similarity_share=None if share is None else _rounded(share),
            tail_offset=None if offset is None else _rounded(offset),
            frames=terms,
            first_stage_rank=int(self.retrieved.ranks[position]) + 1,
            formula=formula,
        )


def _rounded(value: float | np.floating) -> float:
    return round(float(value), SCORE_DECIMALS)
