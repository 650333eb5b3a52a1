"""Answers of the service to searches and questions.

The service's OpenAPI document (`/openapi.json`) says what each field means. A client reads answers of servers
that are newer than itself: fields that it does not know are kept (`model_extra`), and values that name a kind
are plain strings. Seconds count from the start of the video.
"""

from datetime import datetime

from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    """What all answers have in common."""

    model_config = ConfigDict(extra="allow", frozen=True)


class InvalidValue(Answer):
    """An invalid value in a request."""

    pointer: str
    detail: str


class Problem(Answer):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: list[InvalidValue] | None = None


class Place(Answer):
    """A point on the earth, in WGS 84."""

    latitude: float
    longitude: float
    altitude_metres: float | None = None


class FrameHit(Answer):
    """One stored frame of a moment."""

    frame_id: str
    pts_seconds: float
    relevance: float | None = None
    salient: bool
    match_score: float | None = None


class TextMatch(Answer):
    """A line of text that fits the query."""

    kind: str
    source: str
    start_seconds: float
    end_seconds: float
    language: str | None = None
    text: str
    marks: list[list[int]]
    coverage: float


class VideoMoment(Answer):
    """A span of a video that fits the query."""

    start_seconds: float
    end_seconds: float
    score: float
    similarity: float
    match_score: float | None = None
    probability: float | None = None
    level: str | None = None
    frames: list[FrameHit] = []
    text_matches: list[TextMatch] = []


class FrameTerm(Answer):
    """A salient frame in the explanation of a score."""

    frame_id: str
    relevance: float
    match_logit: float | None = None


class Explanation(Answer):
    """Every term of a score; `formula` writes the sum out."""

    similarity: float
    ensemble_lambda: float
    similarity_term: float
    hubness: float | None = None
    hubness_weight: float | None = None
    hubness_term: float | None = None
    match_score: float | None = None
    similarity_share: float | None = None
    tail_offset: float | None = None
    visual_weight: float
    text_term: float
    frames: list[FrameTerm]
    first_stage_rank: int
    formula: str


class SequenceStep(Answer):
    """One text of a sequence, and the moment that shows it."""

    text: str
    moment: VideoMoment
    explanation: Explanation | None = None


class Hit(Answer):
    """A moment; or, with `group_by: video`, a video with its best moment."""

    video_id: str
    path: str
    missing: bool
    title: str | None = None
    file_title: str | None = None
    tags: list[str]
    captured_at: datetime | None = None
    captured_source: str | None = None
    place: Place | None = None
    camera: str | None = None
    has_sound: bool | None = None
    start_seconds: float
    end_seconds: float
    container_start_seconds: float | None = None
    score: float
    similarity: float
    match_score: float | None = None
    probability: float | None = None
    level: str | None = None
    frames: list[FrameHit] = []
    text_matches: list[TextMatch] = []
    moments: list[VideoMoment] | None = None
    steps: list[SequenceStep] | None = None
    explanation: Explanation | None = None


class QueryWarningDetails(Answer):
    """The values that a warning speaks of; null where it does not."""

    words: list[str] | None = None
    num_parts: int | None = None
    left_out: str | None = None


class QueryWarning(Answer):
    """What of a query does not count as it was written."""

    kind: str
    message: str
    details: QueryWarningDetails


class LibraryWarning(Answer):
    """What of the library is damaged, and does not count in the answer."""

    kind: str
    message: str


class Timings(Answer):
    """Milliseconds that each stage of a search took; 0 for a stage that was skipped."""

    encode_text: float
    encode_image: float
    retrieve: float
    salience: float
    tokens: float
    match: float
    moments: float
    texts: float
    fetch: float
    total: float


class SearchResponse(Answer):
    """The answer to a search: the best moments or videos, best first."""

    hits: list[Hit]
    best_guess: bool | None = None
    probability_skipped: str | None = None
    snapshot: int
    reranked: bool
    rerank_skipped: str | None = None
    num_candidates: int
    num_candidates_wanted: int
    rerank_reduced: str | None = None
    query_warnings: list[QueryWarning]
    library_warnings: list[LibraryWarning]
    timings_ms: Timings
    num_videos: int
    next_page_token: str | None = None


class BatchResult(Answer):
    """The answer to one search of a batch, or the problem that it met: one of the two is null."""

    answer: SearchResponse | None = None
    problem: Problem | None = None


class BatchResponse(Answer):
    """The results of a batch, in the order of its searches."""

    results: list[BatchResult]


class PossibleAnswer(Answer):
    """One of the answers that the bundle knows."""

    answer: str
    probability: float


class AnswerFrame(Answer):
    """A stored frame that the answers rest on."""

    frame_id: str
    pts_seconds: float
    relevance: float


class AnswerResponse(Answer):
    """The answers to a question about a video."""

    answers: list[PossibleAnswer]
    frames: list[AnswerFrame]
    snapshot: int
    query_warnings: list[QueryWarning]
    library_warnings: list[LibraryWarning]
