"""What a search shows of its best segments: where they are, their frames, and why they score as they do."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.library.records import SegmentRecord
from indexer.library.snapshot import Snapshot
from model.runtime.ranking import SCORE_DECIMALS, select_salient
from service.api.schemas import Explanation, FrameHit, FrameTerm, Hit
from service.search.rerank import Block
from service.search.retrieval import FirstStage


@dataclass(frozen=True)
class HitMaker:
    """Makes the hits of one search; positions are those of `first`."""

    snapshot: Snapshot
    first: FirstStage
    block: Block | None
    scores: NDArray[np.float64]
    text_salience: NDArray[np.float32]
    num_salient_frames: int
    ensemble_lambda: float
    explain: bool

    def hits(self, positions: NDArray[np.int64]) -> list[Hit]:
        """The hits at some positions, in their order.

        Raises:
            LibraryError: a table cannot be read.
        """
        segments = self.snapshot.segments(self.first.rows[positions])
        hits = [self._hit(*each) for each in zip(positions.tolist(), segments, strict=True)]
        return [hit for hit in hits if hit is not None]

    def _hit(self, position: int, segment: SegmentRecord) -> Hit | None:
        label = self.snapshot.label(segment.video_id)
        if label is None:  # a snapshot is whole by contract; a hit without a video helps nobody
            return None
        relevance = (segment.frame_salience @ self.text_salience).round(SCORE_DECIMALS)
        salient, logits = self._salient(position, relevance)
        matched = None if logits is None or self.block is None else self.block.match_score[position]
        terms = [
            FrameTerm(
                frame_id=segment.frame_ids[frame],
                relevance=_rounded(relevance[frame]),
                match_logit=None if logits is None else _rounded(logits[i]),
            )
            for i, frame in enumerate(salient)
        ]
        logit_of = {frame: term.match_logit for frame, term in zip(salient, terms, strict=True)}
        score, similarity = self.scores[position], self.first.similarity[position]
        return Hit(
            video_id=segment.video_id,
            path=label[0],
            title=label[1],
            start_seconds=segment.start_seconds,
            end_seconds=segment.end_seconds,
            score=_rounded(score),
            similarity=_rounded(similarity),
            match_score=None if matched is None else _rounded(matched),
            frames=[
                FrameHit(
                    frame_id=frame_id,
                    pts_seconds=pts_seconds,
                    relevance=_rounded(value),
                    salient=frame in logit_of,
                    match_score=logit_of.get(frame),
                )
                for frame, (frame_id, pts_seconds, value) in enumerate(
                    zip(segment.frame_ids, segment.frame_pts_seconds, relevance, strict=True)
                )
            ],
            explanation=self._explanation(position, score, similarity, matched, terms)
            if self.explain
            else None,
        )

    def _salient(
        self, position: int, relevance: NDArray[np.float32]
    ) -> tuple[list[int], Sequence[float] | None]:
        """The salient frames, most relevant first, and their logits where the segment was re-ranked."""
        if self.block is not None and position < len(self.block.score):
            chosen = self.block.chosen[position]
            frames: list[int] = self.block.frames[position][chosen].tolist()
            return frames, self.block.logits[position][chosen].tolist()
        counts = np.array([len(relevance)])
        frames_of, chosen_of = select_salient(relevance[None], counts, self.num_salient_frames)
        return frames_of[chosen_of].tolist(), None

    def _explanation(
        self,
        position: int,
        score: float,
        similarity: float,
        matched: float | None,
        terms: list[FrameTerm],
    ) -> Explanation:
        weight = 1.0 if self.block is None else self.ensemble_lambda
        term = weight * float(similarity)
        offset = None
        last = f"{weight:g} × {similarity:.4f} (similarity)"
        if self.block is None:
            formula = f"{similarity:.4f} (similarity alone: nothing was re-ranked)"
        elif matched is not None:
            formula = f"{matched:.4f} (mean match of the salient frames: {len(terms)}) + {last}"
        else:
            offset = score - term
            formula = f"{offset:.4f} (behind all that were re-ranked: {len(self.block.score)}) + {last}"
        return Explanation(
            similarity=_rounded(similarity),
            ensemble_lambda=weight,
            similarity_term=_rounded(term),
            match_score=None if matched is None else _rounded(matched),
            tail_offset=None if offset is None else _rounded(offset),
            frames=terms,
            first_stage_rank=position + 1,
            formula=formula,
        )


def _rounded(value: float | np.floating) -> float:
    return round(float(value), SCORE_DECIMALS)
