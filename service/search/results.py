"""The results of a search, and of a question about a video.

Times in a video are in seconds, durations of stages in milliseconds.

`service/api` writes them as JSON: `service/api/schemas.py` describes the same fields.
"""

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Literal, get_args

from model.runtime.calibration import Level
from model.runtime.captured import CapturedSource
from model.runtime.places import Place
from service.search.stopwatch import Stopwatch

#: Why no search can be re-ranked: the bundle has no match, or the library stores no tokens.
CannotRerank = Literal["no_matcher", "no_tokens"]
#: Why no question can be answered: the bundle has no answer head, or the library stores no tokens.
CannotAnswer = Literal["no_answer_head", "no_tokens"]
#: Why a search was not re-ranked; `no_text`: the matching head reads only texts, and the query has none.
RerankSkipped = Literal["not_requested", CannotRerank, "deadline", "unreadable_tokens", "no_text"]
#: Why hits have no probability: the bundle has no calibration; it was fitted to embeddings of all dimensions,
#: and the library's are cut; or it was fitted to queries that are one text, and this one is another.
ProbabilitySkipped = Literal["not_calibrated", "cut_embeddings", "not_a_text"]

#: What a hit is: a moment; a video, with its best moments; or a video with its best segment, as evaluation
#: ranks them.
GroupBy = Literal["moment", "video", "segment"]

#: The parts of a hit that may be left out.
HitPart = Literal["frames", "text_matches", "moments"]
ALL_PARTS: frozenset[HitPart] = frozenset(get_args(HitPart))

#: What a line of text is: what is said, what is written in the pictures, or a name.
TextModality = Literal["speech", "screen", "name"]
#: Where it is from: files or tracks of subtitles, the sound, the pictures, the name of file or video, or the
#: title and tags that users gave.
TextSource = Literal["subtitles", "heard", "seen", "name", "user"]

#: Why fewer candidates were re-ranked than were wanted: so that the search, and others that wait, are in
#: time; or because more would have cost more than one search may.
RerankReduced = Literal["deadline", "cost"]

#: What is wrong with a query: words that the tokenizer does not know; a text longer than the model's context,
#: which was read in parts; and a text of which even these left out the end.
QueryWarningKind = Literal["not_understood", "split", "truncated"]


@dataclass(frozen=True, slots=True)
class QueryWarningDetails:
    """The values that a warning speaks of; null where it does not.

    Attributes:
        words: the words that are not understood.
        num_parts: the number of parts that the text was read in.
        left_out: the end of the text, which was not read.
    """

    words: list[str] | None = None
    num_parts: int | None = None
    left_out: str | None = None


@dataclass(frozen=True, slots=True)
class QueryWarning:
    """What of a query does not count as it was written; `message` is for people."""

    kind: QueryWarningKind
    message: str
    details: QueryWarningDetails


#: What of the library is damaged: segments, which the answer leaves out; tokens, without which nothing is
#: re-ranked; or lines of text, without which pictures alone decide.
LibraryWarningKind = Literal[
    "damaged_segments", "unreadable_tokens", "unreadable_texts", "unreadable_curation"
]


@dataclass(frozen=True, slots=True)
class LibraryWarning:
    """What of the library does not count in an answer; `message` names it and the remedy."""

    kind: LibraryWarningKind
    message: str


# Not frozen: an answer has hundreds, and frozen ones take three times as long to make.
@dataclass(slots=True)
class FrameEvidence:
    """One stored frame of a hit's segment.

    Attributes:
        frame_id: identifies the stored frame.
        pts_seconds: when the frame is shown, in seconds from the start of the video.
        relevance: text_salience · frame_salience; None: the bundle says nothing of single frames.
        salient: whether it is one of the segment's most relevant frames.
        match_score: log-odds that the frame shows the query; None if the frame was not matched.
    """

    frame_id: str
    pts_seconds: float
    relevance: float | None
    salient: bool
    match_score: float | None


@dataclass(frozen=True, slots=True)
class SalientFrame:
    """A salient frame in the explanation of a score; `match_logit` is None if it was not matched."""

    frame_id: str
    relevance: float
    match_logit: float | None


@dataclass(frozen=True, slots=True)
class ScoreExplanation:
    """Every term of a score: `score` = `visual_weight` × ((`match_score` or `tail_offset` or 0) +
    `similarity_term` + (`hubness_term` or 0)) + `text_term`.

    Attributes:
        similarity: cosine of the query's embedding and the moment's.
        ensemble_lambda: factor of the similarity; 1 if nothing was re-ranked.
        similarity_term: `ensemble_lambda` × `similarity`.
        hubness: mean cosine of the moment's segment with the reference texts nearest to it, whatever the
            query; None (as the next two) if the bundle corrects none.
        hubness_weight: factor of the hubness in the first stage.
        hubness_term: −`ensemble_lambda` × `hubness_weight` × `hubness`.
        match_score: mean of the frames' `match_logit`; None if the segment was not re-ranked. With
            `similarity_share`, that mean × (1 − share) + the match of the similarity × share.
        similarity_share: how much of the match is that of the similarity, less the hubness, because the
            segment's frames are alike, from 0 to 1; None if the bundle does not blend them.
        tail_offset: only for segments that were not re-ranked while others were: moves them below those
            others and keeps the first stage's order.
        frames: the salient frames, most relevant first.
        visual_weight: the weight of what the frames show.
        text_term: what the lines of text add.
        first_stage_rank: the segment's rank in the first stage among all segments, from 1: by similarity,
            less `hubness_weight` × `hubness` if there is one.
        formula: the sum, written out.
    """

    similarity: float
    ensemble_lambda: float
    similarity_term: float
    hubness: float | None
    hubness_weight: float | None
    hubness_term: float | None
    match_score: float | None
    similarity_share: float | None
    tail_offset: float | None
    visual_weight: float
    text_term: float
    frames: list[SalientFrame]
    first_stage_rank: int
    formula: str


@dataclass(frozen=True, slots=True)
class TextMatch:
    """A line of text that fits the query.

    Attributes:
        kind: "speech" for what is said, "screen" for what is written in the pictures, "name" for the file
            name and the title.
        source: where the line is from: "subtitles", beside the video or in it; "heard" in its sound; "seen"
            in its pictures; "name".
        start_seconds: when the line begins; a name covers the whole video.
        end_seconds: when it ends.
        language: a code such as "en"; None: unknown.
        text: the line.
        marks: the ranges [start, end) of its characters (code points) that words of the query match.
        coverage: the share of the query's letters that are in words of the line, from 0 to 1.
    """

    kind: TextModality
    source: TextSource
    start_seconds: float
    end_seconds: float
    language: str | None
    text: str
    marks: list[list[int]]
    coverage: float


@dataclass(frozen=True, slots=True)
class VideoMoment:
    """A span of a video that fits the query.

    Attributes:
        start_seconds: start of the moment.
        end_seconds: end of the moment.
        score: how well the moment fits the query; higher is better.
        similarity: cosine of the query's embedding and that of the moment's frames, or of its segment if that
            is higher.
        match_score: log-odds that the moment shows the query, by its salient frames; None if it was not
            re-ranked.
        probability: how likely the moment shows or says what is asked, from 0 to 1; None: there are no
            probabilities, see `SearchResult.probability_skipped`.
        level: the same in words.
        frames: the stored frames of the moment, in time order, at least one.
        text_matches: the lines of text that fit the query, the strongest first.
    """

    start_seconds: float
    end_seconds: float
    score: float
    similarity: float
    match_score: float | None
    probability: float | None
    level: Level | None
    frames: list[FrameEvidence]
    text_matches: list[TextMatch]


@dataclass(frozen=True, slots=True)
class SequenceStep:
    """A text of a sequence, the moment that shows it, and the terms of its score, if they were asked for."""

    text: str
    moment: VideoMoment
    explanation: ScoreExplanation | None


@dataclass(frozen=True, slots=True)
class Hit:
    """A moment; or a video, represented by its best moment.

    For a sequence, a moment reaches from the start of the first step to the end of the last, and its scores
    are the means of the steps' scores.

    Its fields have the meaning of those of `VideoMoment`, and further:

    Attributes:
        video_id: identifies the video.
        path: path of the video's file: one where it is, if there is any.
        missing: whether the last indexing run found it in none of its places.
        title: the title that users gave the video, or else the one stored in the file, if any.
        file_title: the title stored in the file, if any.
        tags: those that users gave it.
        captured_at: when it was taken, in its zone, or in UTC where that is not known; None: nothing says so.
        captured_source: what says so.
        place: where it was taken; None: that is not known.
        camera: make and model; None: they are not known.
        has_sound: whether it has sound; None: nothing has looked.
        container_start_seconds: the own time of the video's file at second 0; None where it is not known.
        moments: the best moments of the video, best first, if hits are videos; None if they are moments.
        steps: the steps of a sequence, in order; None for other queries.
        explanation: the terms of the score, if they were asked for; None for a sequence, whose steps have it.
    """

    video_id: str
    path: str
    missing: bool
    title: str | None
    file_title: str | None
    tags: list[str]
    captured_at: datetime | None
    captured_source: CapturedSource | None
    place: Place | None
    camera: str | None
    has_sound: bool | None
    start_seconds: float
    end_seconds: float
    container_start_seconds: float | None
    score: float
    similarity: float
    match_score: float | None
    probability: float | None
    level: Level | None
    frames: list[FrameEvidence]
    text_matches: list[TextMatch]
    moments: list[VideoMoment] | None
    steps: list[SequenceStep] | None
    explanation: ScoreExplanation | None


@dataclass(frozen=True, slots=True)
class StageTimings:
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

    @classmethod
    def from_stopwatch(cls, stopwatch: Stopwatch) -> "StageTimings":
        """The laps so far, rounded to a microsecond."""
        names = (field.name for field in fields(cls) if field.name != "total")
        stages = {name: round(stopwatch.milliseconds[name], 3) for name in names}
        return cls(**stages, total=round(stopwatch.total(), 3))


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The answer to a search.

    Attributes:
        hits: the best moments or videos, best first.
        best_guess: whether no hit is likely, so that the best ones are guesses; None: there are no
            probabilities.
        probability_skipped: why hits have no probability; None: they have.
        snapshot: number of the snapshot that answered.
        reranked: whether the best segments were re-ranked.
        rerank_skipped: why it did not.
        num_candidates: number of segments that were re-ranked.
        num_candidates_wanted: number that would have been, with time enough; 0 if none were to be.
        rerank_reduced: why fewer were; None if all were, or none.
        query_warnings: what of the query was not understood or not read.
        library_warnings: what of the library is damaged, and does not count in this answer.
        timings_ms: duration of each stage.
        num_videos: videos that were searched: those that the filter leaves, if they have segments.
        next_page_token: asks for the hits that follow; None: there are none, or they were not asked for.
    """

    hits: list[Hit]
    best_guess: bool | None
    probability_skipped: ProbabilitySkipped | None
    snapshot: int
    reranked: bool
    rerank_skipped: RerankSkipped | None
    num_candidates: int
    num_candidates_wanted: int
    rerank_reduced: RerankReduced | None
    query_warnings: list[QueryWarning]
    library_warnings: list[LibraryWarning]
    timings_ms: StageTimings
    num_videos: int
    next_page_token: str | None = None


@dataclass(frozen=True, slots=True)
class PossibleAnswer:
    """One of the answers that the bundle knows, and how likely it is, from 0 to 1."""

    answer: str
    probability: float


@dataclass(frozen=True, slots=True)
class AnswerFrame:
    """A stored frame that the answers rest on; for its fields see `FrameEvidence`."""

    frame_id: str
    pts_seconds: float
    relevance: float


@dataclass(frozen=True, slots=True)
class AnswerResult:
    """The answer to a question about a video.

    Attributes:
        answers: the likeliest answers, the likeliest first.
        frames: the salient frames, which the answers rest on, most relevant first.
        snapshot: number of the snapshot that answered.
        query_warnings: what of the question was not understood or not read.
        library_warnings: what of the video is damaged, and does not count in this answer.
    """

    answers: list[PossibleAnswer]
    frames: list[AnswerFrame]
    snapshot: int
    query_warnings: list[QueryWarning]
    library_warnings: list[LibraryWarning]
