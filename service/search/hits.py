"""Builds the hits of a search from scored spans: their frames, and the explanation of their scores."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from indexer.library.catalog import VideoLabel
from indexer.library.records import TextLine
from indexer.library.snapshot import Snapshot
from model.runtime.ranking import SCORE_DECIMALS
from service.search.results import (
    ALL_PARTS,
    FrameEvidence,
    Hit,
    HitPart,
    SalientFrame,
    ScoreExplanation,
    SequenceStep,
    TextMatch,
    VideoMoment,
)
from service.search.scored_spans import ScoredSpan
from service.search.texts import MODALITY_OF, SOURCE_OF
from service.search.views import ALL_PATHS, PathNames

# Lines of text that a moment names, at most.
_MOST_TEXTS = 5


def hit_of(
    video_id: str,
    label: VideoLabel,
    names: PathNames,
    best: VideoMoment,
    *,
    moments: list[VideoMoment] | None,
    steps: list[SequenceStep] | None,
    explanation: ScoreExplanation | None,
) -> Hit:
    """A moment as a hit: with what is said of its video."""
    said, recording = label.annotation, label.recording
    return Hit(
        video_id=video_id,
        path=names.shown(label.path),
        missing=label.missing,
        title=label.shown_title,
        file_title=label.title,
        tags=list(said.tags),
        captured_at=recording.captured_at,
        captured_source=recording.captured_source,
        place=recording.place,
        camera=recording.camera,
        has_sound=recording.has_sound,
        start_seconds=best.start_seconds,
        end_seconds=best.end_seconds,
        container_start_seconds=label.container_start_seconds,
        score=best.score,
        similarity=best.similarity,
        match_score=best.match_score,
        probability=best.probability,
        level=best.level,
        frames=best.frames,
        text_matches=best.text_matches,
        moments=moments,
        steps=steps,
        explanation=explanation,
    )


@dataclass(frozen=True)
class HitBuilder:
    """Builds the hits of one search.

    Attributes:
        snapshot: holds the videos.
        num_reranked: how many candidates were re-ranked; None: none.
        ensemble_lambda: λ of the bundle.
        explain: whether hits explain their scores.
        parts: which parts hits have; the others are empty.
        names: how paths look.
    """

    snapshot: Snapshot
    num_reranked: int | None
    ensemble_lambda: float
    explain: bool
    parts: frozenset[HitPart] = ALL_PARTS
    names: PathNames = ALL_PATHS

    def hits(self, spans: Sequence[ScoredSpan]) -> list[Hit]:
        """A hit for each span, in this order."""
        hits = [self._hit(span, None) for span in spans]
        return [hit for hit in hits if hit is not None]

    def hits_of_videos(self, videos: Sequence[Sequence[ScoredSpan]]) -> list[Hit]:
        """A hit for each video, of its spans, the best first."""
        hits = [self._hit(spans[0], spans) for spans in videos]
        return [hit for hit in hits if hit is not None]

    def _hit(self, span: ScoredSpan, spans: Sequence[ScoredSpan] | None) -> Hit | None:
        label = self.snapshot.label(span.video_id)
        if label is None:  # never in an intact snapshot; without its video a hit is of no use
            return None
        moments = None
        if spans is not None and "moments" in self.parts:
            moments = [self.moment(each) for each in spans]
        best = self.moment(span) if moments is None else moments[0]
        return hit_of(
            span.video_id,
            label,
            self.names,
            best,
            moments=moments,
            steps=None,
            explanation=self.explanation(span, best),
        )

    def moment(self, span: ScoredSpan) -> VideoMoment:
        """A span as a moment of its video."""
        similarity = self._similarity(span)
        rounded: Sequence[float | None] = [None] * len(span.frame_ids)
        if span.relevance is not None:
            # One call for all frames: a call for each takes longer than all else here.
            rounded = span.relevance.astype(np.float64).round(SCORE_DECIMALS).tolist()
        logits: Sequence[float | None] = [None] * len(span.salient)
        if span.logits is not None:
            logits = [_rounded(logit) for logit in span.logits]
        logit_of = dict(zip(span.salient, logits, strict=True))
        return VideoMoment(
            start_seconds=span.start_seconds,
            end_seconds=span.end_seconds,
            score=_rounded(span.score),
            similarity=_rounded(similarity),
            match_score=None if span.match_score is None else _rounded(span.match_score),
            probability=span.probability,
            level=span.level,
            frames=[]
            if not self._needs_frames
            else [
                FrameEvidence(frame_id, pts_seconds, value, frame in logit_of, logit_of.get(frame))
                for frame, (frame_id, pts_seconds, value) in enumerate(
                    zip(span.frame_ids, span.pts_seconds, rounded, strict=True)
                )
            ],
            text_matches=[_text_match(line) for line in span.texts[:_MOST_TEXTS]]
            if "text_matches" in self.parts
            else [],
        )

    @property
    def _needs_frames(self) -> bool:
        """An explanation names frames."""
        return self.explain or "frames" in self.parts

    def _similarity(self, span: ScoredSpan) -> float:
        return cosine_of(span, self.snapshot.hubness_weight)

    def explanation(self, span: ScoredSpan, moment: VideoMoment) -> ScoreExplanation | None:
        """The terms of a span's score, if they were asked for; `moment` is that of the span."""
        if not self.explain:
            return None
        frames = [
            SalientFrame(frame.frame_id, frame.relevance, frame.match_score)
            for frame in (moment.frames[i] for i in span.salient)
            if frame.relevance is not None
        ]
        similarity = self._similarity(span)
        weight = 1.0 if self.num_reranked is None else self.ensemble_lambda
        term = weight * similarity
        factor = weight * self.snapshot.hubness_weight
        hubness_term = None if span.hubness is None else -factor * span.hubness
        offset = None
        share = span.similarity_share
        correction = "" if span.hubness is None else f" − {factor:g} × {span.hubness:.4f} (hubness)"
        last = f"{weight:g} × {similarity:.4f} (similarity){correction}"
        if self.num_reranked is None and span.hubness is None:
            formula = f"{similarity:.4f} (similarity alone: nothing was re-ranked)"
        elif self.num_reranked is None:
            formula = f"{similarity:.4f} (similarity){correction}: nothing was re-ranked"
        elif span.match_score is not None:
            blended = "" if not share else f", {share:.0%} by the similarity"
            formula = (
                f"{span.match_score:.4f} (mean match of the salient frames: {len(frames)}{blended}) + {last}"
            )
        else:
            visual = (span.score - span.text_term) / (span.visual_weight or 1.0)
            offset = visual - term - (hubness_term or 0.0)
            formula = f"{offset:.4f} (behind all that were re-ranked: {self.num_reranked}) + {last}"
        if span.visual_weight != 1:
            formula = f"{span.visual_weight:g} × ({formula})"
        if span.text_term:
            formula += f" + {span.text_term:.4f} (text)"
        return ScoreExplanation(
            similarity=_rounded(similarity),
            ensemble_lambda=weight,
            similarity_term=_rounded(term),
            hubness=None if span.hubness is None else _rounded(span.hubness),
            hubness_weight=None if span.hubness is None else self.snapshot.hubness_weight,
            hubness_term=None if hubness_term is None else _rounded(hubness_term),
            match_score=None if span.match_score is None else _rounded(span.match_score),
            similarity_share=None if share is None else _rounded(share),
            tail_offset=None if offset is None else _rounded(offset),
            visual_weight=span.visual_weight,
            text_term=span.text_term,
            frames=frames,
            first_stage_rank=span.first_stage_rank,
            formula=formula,
        )


def cosine_of(span: ScoredSpan, hubness_weight: float) -> float:
    """The similarity of a span: the first stage's score without the hubness correction."""
    return span.first_score + hubness_weight * (span.hubness or 0.0)


def _text_match(line: TextLine) -> TextMatch:
    return TextMatch(
        MODALITY_OF[line.kind],
        "user" if line.by_user else SOURCE_OF[line.kind],
        round(line.start_seconds, 3),
        round(line.end_seconds, 3),
        line.language,
        line.text,
        [list(mark) for mark in line.matches],
        round(line.coverage, 4),
    )


def _rounded(value: float | np.floating) -> float:
    return round(float(value), SCORE_DECIMALS)
