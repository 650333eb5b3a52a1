"""What a search answers. Times in a video are in seconds, times that stages took in milliseconds.

`service/api` writes these as JSON: their fields are those of the wire schemas.
"""

from dataclasses import dataclass, fields
from typing import Literal

from service.search.stopwatch import Stopwatch

#: Why no search of a library can be re-ranked: the bundle has no matching head, or the library no tokens.
CannotRerank = Literal["no_matcher", "no_tokens"]
#: Why the answer for a text is the first stage's alone.
TextRerankSkipped = Literal["not_requested", CannotRerank, "deadline"]
#: The same for any query: the matching head reads only texts.
RerankSkipped = Literal[TextRerankSkipped, "no_text"]


@dataclass(frozen=True, slots=True)
class FrameEvidence:
    """One stored frame of a hit's segment.

    Attributes:
        frame_id: names the stored frame.
        pts_seconds: when the frame is shown.
        relevance: text_salience · frame_salience.
        salient: whether it is one of the segment's most relevant frames.
        match_score: the matching head's logit; None where it was not asked.
    """

    frame_id: str
    pts_seconds: float
    relevance: float
    salient: bool
    match_score: float | None


@dataclass(frozen=True, slots=True)
class SalientFrame:
    """What one salient frame adds to an explanation; `match_logit` is None where it was not matched."""

    frame_id: str
    relevance: float
    match_logit: float | None


@dataclass(frozen=True, slots=True)
class ScoreExplanation:
    """Every term of a score: `score` = (`match_score` or `tail_offset` or 0) + `similarity_term`.

    Attributes:
        similarity: cosine of the query's and the segment's embeddings.
        ensemble_lambda: what the similarity is multiplied by; 1 where nothing was re-ranked.
        similarity_term: `ensemble_lambda` × `similarity`.
        match_score: mean of the frames' `match_logit`; None where the segment was not re-ranked.
        tail_offset: for segments behind those re-ranked: what puts them below, in the first stage's order.
        frames: the salient frames, most relevant first.
        first_stage_rank: the segment's place by similarity among all segments, from 1.
        formula: the sum in words and figures.
    """

    similarity: float
    ensemble_lambda: float
    similarity_term: float
    match_score: float | None
    tail_offset: float | None
    frames: list[SalientFrame]
    first_stage_rank: int
    formula: str


@dataclass(frozen=True, slots=True)
class VideoHit:
    """A video, at the segment of it that answers the query best.

    Attributes:
        video_id: names the video.
        path: the video's file, as it was indexed.
        title: the title that the file carries, if any.
        start_seconds: where the segment starts.
        end_seconds: where it ends.
        score: how well the segment answers the query; higher is better.
        similarity: cosine of the query's and the segment's embeddings.
        match_score: mean logit of the salient frames; None where the segment was not re-ranked.
        frames: all stored frames of the segment, in time order.
        explanation: the terms of the score, where they were asked for.
    """

    video_id: str
    path: str
    title: str | None
    start_seconds: float
    end_seconds: float
    score: float
    similarity: float
    match_score: float | None
    frames: list[FrameEvidence]
    explanation: ScoreExplanation | None


@dataclass(frozen=True, slots=True)
class StageTimings:
    """Milliseconds that the stages of a search took; 0 for a stage that was left out."""

    encode_text: float
    retrieve: float
    salience: float
    tokens: float
    match: float
    fetch: float
    total: float

    @classmethod
    def from_stopwatch(cls, stopwatch: Stopwatch) -> "StageTimings":
        """The laps so far, to a microsecond."""
        names = (field.name for field in fields(cls) if field.name != "total")
        stages = {name: round(stopwatch.milliseconds[name], 3) for name in names}
        return cls(**stages, total=round(stopwatch.total(), 3))


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The hits, best first, one a video.

    Attributes:
        hits: the best videos.
        snapshot: number of the snapshot that answered.
        reranked: whether the best segments were judged anew by the matching head.
        rerank_skipped: why they were not.
        num_candidates: segments that were re-ranked.
        timings_ms: what each stage took.
    """

    hits: list[VideoHit]
    snapshot: int
    reranked: bool
    rerank_skipped: RerankSkipped | None
    num_candidates: int
    timings_ms: StageTimings
