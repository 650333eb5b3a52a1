"""The wire format. Unknown fields in requests are errors. Seconds count from the start of the video."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from indexer.library.annotations import (
    MOST_NOTE_CHARACTERS,
    MOST_TAG_CHARACTERS,
    MOST_TAGS,
    MOST_TITLE_CHARACTERS,
)
from indexer.library.records import Verdict
from model.runtime.calibration import Level
from model.runtime.captured import CapturedSource
from service.api.filters import ABOUT_FILTER, RequestFilter
from service.api.principal import Via
from service.api.query_schemas import Query
from service.readiness import DegradationKind
from service.rights.scopes import Scope
from service.search.picture_encoder import CannotQueryImage
from service.search.results import (
    CannotAnswer,
    CannotRerank,
    HitPart,
    LibraryWarningKind,
    ProbabilitySkipped,
    QueryWarningKind,
    RerankReduced,
    RerankSkipped,
)
from service.search.sorting import SORT_FIELDS

VideoId = Annotated[
    str,
    Field(
        description="Stable id of a video: 32 hex digits of its content's SHA-256. It stays when the file is "
        "renamed, moved or copied.",
        examples=["0f3a9c52d1e8b7640f3a9c52d1e8b764"],
    ),
]
FrameId = Annotated[
    str,
    Field(description="Stable id of a stored frame; `GET /v1/frames/{frame_id}.jpg` is its thumbnail.",
          examples=["0f3a9c52d1e8b764-00002-07"]),
]  # fmt: skip


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Modalities(_Request):
    """How much each kind of evidence counts; 0: not at all."""

    visual: float = Field(1.0, ge=0, le=100, allow_inf_nan=False, description="What the frames show.")
    speech: float = Field(
        1.0, ge=0, le=100, allow_inf_nan=False, description="What is said: subtitles and transcripts."
    )
    screen: float = Field(
        1.0, ge=0, le=100, allow_inf_nan=False, description="What is written in the pictures."
    )
    name: float = Field(0.5, ge=0, le=100, allow_inf_nan=False, description="File name and title.")


class Threshold(_Request):
    """What hits must reach; `min_probability` says it by probability."""

    score: float | None = Field(
        None,
        allow_inf_nan=False,
        description="The least `score` of a moment. Scores of different bundles, and of searches with and "
        "without re-ranking, do not compare.",
        examples=[2.5],
    )
    similarity: float | None = Field(
        None, ge=-1, le=1, description="The least `similarity` of a moment, a cosine.", examples=[0.25]
    )


PageTokenField = Annotated[
    str | None,
    Field(
        description="`next_page_token` of the answer before, with a request that is otherwise the same, for "
        "the hits that follow. Null or absent: the first page."
    ),
]


class MomentsRequest(_Request):
    """A search for moments of one video."""

    query: Query
    modalities: Modalities = Field(
        default_factory=lambda: Modalities.model_validate({}),
        description="Weights of what is shown, said and written. A line that has all words of the query "
        "raises a score, times the weight, as far as the best segment stands above the median one.",
    )
    top_k: int | None = Field(
        None,
        ge=1,
        description="Maximum number of hits to return. Null or absent: the server's default.",
        examples=[10],
    )
    min_probability: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Leave out hits that are less likely. Needs a bundle with a calibration. Null or absent: "
        "leave out none.",
    )
    rerank: bool = Field(
        True,
        description="Whether the best segments are re-ranked by their salient frames. If false, "
        "hits are ordered by similarity, less the hubness correction of a bundle that has one.",
    )
    num_candidates: int | None = Field(
        None,
        ge=1,
        description="Number of segments to re-rank. Null or absent: the bundle's default.",
        examples=[100],
    )
    num_salient_frames: int | None = Field(
        None,
        ge=1,
        description="Number of frames of each segment, the most relevant ones, that the query is matched "
        "with. Null or absent: the bundle's default.",
        examples=[2],
    )
    explain: bool = Field(False, description="Whether each hit explains how its score was computed.")
    threshold: Threshold | None = Field(
        None,
        description="Leave out moments below it; a video of which none is left is no hit. Pages end where a "
        "whole stretch of the ranking is below. Null or absent: leave out none.",
    )
    sort: str | None = Field(
        None,
        description="Order of the hits by a field of their videos, with `-` before it from the greatest to "
        "the least; videos without a value come last. Sorted are the moments around the best "
        "`num_candidates` segments, and no others follow. Null or absent: the best first. Fields: "
        f"{', '.join(SORT_FIELDS)}.",
        examples=["-indexed_at"],
    )
    fields: list[HitPart] | None = Field(
        None,
        max_length=10,
        description="Parts of hits that are wanted besides their place and their scores; the others are "
        "absent from the answer, and cost nothing. Null or absent: all.",
        examples=[["text_matches"]],
    )
    page_token: PageTokenField = None
    deadline_ms: int | None = Field(
        None,
        ge=1,
        le=3_600_000,
        description="Deadline in milliseconds from the arrival of the request; one longer than the server's "
        "maximum counts as that. As many candidates are re-ranked as can be in time. If not even ten can, "
        "the first stage alone answers. A search that would wait longer for its turn is refused (503). Null "
        "or absent: the server's default.",
        examples=[500],
    )


class SearchRequest(MomentsRequest):
    """A search for moments, or for videos."""

    group_by: Literal["moment", "video"] = Field(
        "moment",
        description="What a hit is. `moment`: a span of a video; a video may have several. `video`: each "
        "video once, with its best moments in `moments`.",
    )
    moments_per_video: int = Field(
        3, ge=1, le=100, description="With `group_by: video`: maximum number of moments of each video."
    )
    filter: RequestFilter | None = Field(
        None,
        description=ABOUT_FILTER,
        examples=[{"op": "range", "field": "duration_seconds", "gte": 60}],
    )


class FrameHit(BaseModel):
    """One stored frame of a moment."""

    frame_id: FrameId
    pts_seconds: float = Field(description="When the frame is shown, in seconds.")
    relevance: float | None = Field(
        description="How well the frame fits the query by `text_salience · frame_salience`; higher is "
        "better. Null if the bundle reads whole segments and says nothing of single frames."
    )
    salient: bool = Field(
        description="Whether it is one of the moment's most relevant frames; false for all where `relevance` "
        "is null."
    )
    match_score: float | None = Field(
        description="Log-odds that the frame shows the query, by the matching head, or by its relevance "
        "where the bundle has none; null if it was not matched."
    )


class FrameTerm(BaseModel):
    """A salient frame in the explanation of a score."""

    frame_id: FrameId
    relevance: float = Field(description="`text_salience · frame_salience`, by which the frame was chosen.")
    match_logit: float | None = Field(
        description="Log-odds that the frame shows the query; null if the frame was not matched."
    )


class Explanation(BaseModel):
    """Every term of a score: `score` = `visual_weight` × ((`match_score` or `tail_offset` or 0) +
    `similarity_term` + (`hubness_term` or 0)) + `text_term`.
    """

    similarity: float = Field(description="Cosine of the query's embedding and the moment's.")
    ensemble_lambda: float = Field(description="Factor of the similarity; 1 if nothing was re-ranked.")
    similarity_term: float = Field(description="`ensemble_lambda` × `similarity`.")
    hubness: float | None = Field(
        description="Mean cosine of the moment's segment with the reference texts nearest to it, whatever "
        "the query; null, as the next two, if the bundle corrects no hubness."
    )
    hubness_weight: float | None = Field(description="Factor of the hubness in the first stage.")
    hubness_term: float | None = Field(description="−`ensemble_lambda` × `hubness_weight` × `hubness`.")
    match_score: float | None = Field(
        description="Mean of the frames' `match_logit`; null if the moment was not re-ranked. With "
        "`similarity_share`: that mean × (1 − share) + the match of the similarity × share."
    )
    similarity_share: float | None = Field(
        description="How much of the match is that of the similarity, less the hubness, because the "
        "moment's frames are alike, from 0 to 1; null if the bundle does not blend them."
    )
    tail_offset: float | None = Field(
        description="Only for moments that were not re-ranked while others were: moves them below those "
        "others and keeps the first stage's order."
    )
    visual_weight: float = Field(description="Weight of what the frames show.")
    text_term: float = Field(description="What lines of text add; 0 if none fits the query.")
    frames: list[FrameTerm] = Field(description="The salient frames, most relevant first.")
    first_stage_rank: int = Field(
        description="The rank of the moment's segment among all segments, from 1: by similarity, less "
        "`hubness_weight` × `hubness` if there is one."
    )
    formula: str = Field(description="The sum, written out.")


class TextMatch(BaseModel):
    """A line of text that fits the query."""

    kind: Literal["speech", "screen", "name"] = Field(
        description="`speech`: what is said. `screen`: what is written in the pictures. `name`: file name or "
        "title."
    )
    source: Literal["subtitles", "heard", "seen", "name", "user"] = Field(
        description="Where the line is from. `subtitles`: beside the video or in it. `heard`: recognized in "
        "its sound. `seen`: recognized in its pictures. `name`: file name or title. `user`: title and tags "
        "that users gave."
    )
    start_seconds: float = Field(description="When the line begins; a name covers the whole video.")
    end_seconds: float
    language: str | None = Field(description="A code such as `en`; null if it is not known.")
    text: str = Field(description="The line.")
    marks: list[list[int]] = Field(
        description="Ranges [start, end) of its characters (code points) that words of the query match."
    )
    coverage: float = Field(
        description="Share of the query's letters that are in words of the line, from 0.5 to 1."
    )


# What a moment says of itself, alone or as a hit.
Score = Annotated[float, Field(description="How well the moment fits the query; higher is better.")]
Similarity = Annotated[
    float,
    Field(
        description="Cosine of the query's embedding and that of the moment's frames, or of its segment if "
        "that is higher."
    ),
]
MatchScore = Annotated[
    float | None,
    Field(description="Mean match score of the salient frames; null if the moment was not re-ranked."),
]
Probability = Annotated[
    float | None,
    Field(
        description="How likely the moment shows or says what is asked, from 0 to 1; null with the reason "
        "in `probability_skipped`."
    ),
]
LevelInWords = Annotated[Level | None, Field(description="The same in words.")]
#: Parts that `fields` may leave out have a default, so that the document does not require them.
MomentFrames = Annotated[
    list[FrameHit],
    Field(
        default_factory=list,
        description="The stored frames of the moment, in time order; absent where `fields` leaves them out.",
    ),
]
TextMatches = Annotated[
    list[TextMatch],
    Field(
        default_factory=list,
        description="Lines of text that fit the query, the strongest first; empty if none does, and absent "
        "where `fields` leaves them out.",
    ),
]


class VideoMoment(BaseModel):
    """A span of a video that fits the query."""

    start_seconds: float
    end_seconds: float
    score: Score
    similarity: Similarity
    match_score: MatchScore
    probability: Probability
    level: LevelInWords
    frames: MomentFrames
    text_matches: TextMatches


# What is said of a video, in a hit and in the list.
ShownTitle = Annotated[
    str | None,
    Field(description="The title that users gave the video, or else the one stored in the file, if any."),
]
FileTitle = Annotated[str | None, Field(description="The title stored in the file, if any.")]
Tags = Annotated[list[str], Field(description="The tags that users gave the video.")]


class Place(BaseModel):
    """A point on the earth, in WGS 84."""

    latitude: float = Field(description="Degrees north of the equator.")
    longitude: float = Field(description="Degrees east of Greenwich.")
    altitude_metres: float | None = Field(description="Above the sea; null if it is not known.")


CapturedAt = Annotated[
    datetime | None,
    Field(
        description="When the video was taken, with the offset of its zone, or in UTC where that is not "
        "known. Null if nothing says when."
    ),
]
CapturedBy = Annotated[
    CapturedSource | None,
    Field(
        description="What says when: `tag_with_zone`, a tag of the file; `tag_utc`, a tag that is in UTC by "
        "the standard, though some cameras write their local time; `tag_local`, a tag without a zone; "
        "`file_name`; `file_time`, when the file was modified. Of `tag_local` and `file_name` it is the "
        "local time as if it were in UTC."
    ),
]
WhereTaken = Annotated[Place | None, Field(description="Where it was taken; null if the file does not say.")]
Camera = Annotated[str | None, Field(description="Make and model; null if the file does not say.")]
HasSound = Annotated[
    bool | None, Field(description="Whether it has sound. Null if an earlier version indexed it.")
]


class SequenceStep(BaseModel):
    """One text of a sequence, and the moment that shows it."""

    text: str
    moment: VideoMoment
    explanation: Explanation | None = Field(description="The terms of its score, if they were asked for.")


class Hit(BaseModel):
    """A moment; or, with `group_by: video`, a video with its best moment."""

    video_id: VideoId
    path: str = Field(description="Path of the video's file: one where it is, if there is any.")
    missing: bool = Field(description="Whether the last indexing run found the file in none of its places.")
    title: ShownTitle
    file_title: FileTitle
    tags: Tags
    captured_at: CapturedAt
    captured_source: CapturedBy
    place: WhereTaken
    camera: Camera
    has_sound: HasSound
    start_seconds: float = Field(description="Start of the moment.")
    end_seconds: float = Field(description="End of the moment.")
    container_start_seconds: float | None = Field(
        description="The file's own time where these seconds are 0. Chromium's `currentTime` is this more; "
        "Firefox counts from 0. Null if the file was indexed by an earlier version."
    )
    score: Score
    similarity: Similarity
    match_score: MatchScore
    probability: Probability
    level: LevelInWords
    frames: MomentFrames
    text_matches: TextMatches
    moments: list[VideoMoment] | None = Field(
        None,
        description="With `group_by: video`, the best moments of the video, best first; else null. Absent "
        "where `fields` leaves them out.",
    )
    steps: list[SequenceStep] | None = Field(
        description="The steps of a sequence, in order: the hit reaches from the first to the last, and its "
        "scores are the means of theirs. Null for other queries."
    )
    explanation: Explanation | None = Field(
        description="The terms of the score, if they were asked for; null for a sequence: its steps have it."
    )


class Timings(BaseModel):
    """Milliseconds that each stage of a search took; 0 for a stage that was skipped."""

    encode_text: float
    encode_image: float = Field(description="Reading and encoding pictures and examples.")
    retrieve: float
    salience: float = Field(description="Choosing the salient frames of the candidates.")
    tokens: float = Field(description="Reading the tokens of these frames.")
    match: float = Field(description="Running the matching head, including waiting for other searches.")
    moments: float = Field(description="Finding the moments, and scoring them.")
    texts: float = Field(description="Finding lines of text.")
    fetch: float
    total: float


class QueryWarningDetails(BaseModel):
    """The values that a warning speaks of; null where it does not."""

    words: list[str] | None = Field(description="The words that the model does not know.")
    num_parts: int | None = Field(description="Number of parts that the text was read in.")
    left_out: str | None = Field(description="The end of the text, which was not read.")


class QueryWarning(BaseModel):
    """What of a query does not count as it was written."""

    kind: QueryWarningKind = Field(
        description="`not_understood`: the model does not know some words. `split`: the text is longer than "
        "the model reads at once; it was read in parts, and the scores are their means. `truncated`: it is "
        "longer even than all parts that are read, and its end was left out."
    )
    message: str = Field(description="The same for people.")
    details: QueryWarningDetails


class LibraryWarning(BaseModel):
    """What of the library is damaged, and does not count in the answer."""

    kind: LibraryWarningKind = Field(
        description="`damaged_segments`: these segments are left out. `unreadable_tokens`: nothing is "
        "re-ranked, because tokens of candidates cannot be read. `unreadable_texts`: no text was searched. "
        "`unreadable_curation`: titles and tags, and what is kept out, are as they were read last."
    )
    message: str = Field(description="What is damaged, and the remedy, for people.")


class SearchResponse(BaseModel):
    """The answer to a search: the best moments or videos, best first."""

    hits: list[Hit]
    best_guess: bool | None = Field(
        description="Whether no hit is at least of the level `medium`: the hits are the closest guesses. "
        "Null if hits have no probability."
    )
    probability_skipped: ProbabilitySkipped | None = Field(
        description="Why hits have no probability; null if they have. `not_calibrated`: the bundle has no "
        "calibration. `cut_embeddings`: it was fitted to embeddings of all dimensions, and the library's are "
        "cut. `not_a_text`: it was fitted to queries that are one text."
    )
    snapshot: int = Field(description="Number of the snapshot that answered.")
    reranked: bool = Field(description="Whether the best segments were re-ranked.")
    rerank_skipped: RerankSkipped | None = Field(
        description="Why they were not: the request said so, the bundle has no match, the library "
        "stores no tokens, the deadline could not be met, tokens are damaged (`library_warnings`), or the "
        "matching head reads texts and the query has none (`no_text`)."
    )
    num_candidates: int = Field(description="Number of segments that were re-ranked.")
    num_candidates_wanted: int = Field(
        description="Number of segments that would have been re-ranked with time enough: what the request or "
        "the bundle asks for, or all segments if they are fewer; 0 if none were to be."
    )
    rerank_reduced: RerankReduced | None = Field(
        description="Why fewer were re-ranked, the best ones of the first stage. `deadline`: so that this "
        "search, and others that wait, are in time. `cost`: more would need more pairs of text and frame "
        "than the server allows a search."
    )
    query_warnings: list[QueryWarning] = Field(
        description="What of the query was not understood or not read; empty if all counts."
    )
    library_warnings: list[LibraryWarning] = Field(
        description="What of the library is damaged; empty if nothing that this search read is."
    )
    timings_ms: Timings
    num_videos: int = Field(
        description="Number of videos that were searched: those that the filter leaves, if they can be."
    )
    next_page_token: str | None = Field(
        description="Asks for the hits that follow, by `page_token`; null if there are none. It holds for at "
        "least ten minutes after it was last used, also when the library changes meanwhile, unless the "
        "library changes more than twice; then 410 asks to begin again."
    )


class InvalidValue(BaseModel):
    """An invalid value in a request."""

    pointer: str = Field(description="JSON pointer into the body, or the parameter's name after `?`.")
    detail: str


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(
        description="Identifies the kind of problem.", examples=["urn:reelfind:problem:invalid-request"]
    )
    title: str = Field(description="The kind of problem in words.")
    status: int
    detail: str = Field(description="The value at fault, and the remedy.")
    instance: str = Field(
        description="Identifies this occurrence; the server's log names it for internal errors."
    )
    errors: list[InvalidValue] | None = Field(None, description="Every invalid value, for invalid requests.")


class BatchRequest(_Request):
    """Many searches."""

    searches: list[SearchRequest] = Field(
        min_length=1,
        max_length=256,
        description="The searches. The `deadline_ms` of each counts from when its turn comes. No picture can "
        "be sent with a batch.",
    )
    deadline_ms: int | None = Field(
        None,
        ge=1,
        le=3_600_000,
        description="Deadline of the whole batch in milliseconds from its arrival; searches whose turn has "
        "not come by then are refused, each by its own problem. Null or absent: the server's longest.",
    )


class BatchResult(BaseModel):
    """The answer to one search of a batch, or the problem that it met: one of the two is null."""

    answer: SearchResponse | None
    problem: Problem | None


class BatchResponse(BaseModel):
    """The results of a batch, in the order of its searches."""

    results: list[BatchResult]


class Question(_Request):
    """What to answer."""

    text: str = Field(
        description="A question about what the video shows, in plain words.",
        examples=["what colour is the car"],
    )


class AnswerRequest(_Request):
    """A question about a video, or about a span of it."""

    question: Question
    start_seconds: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="Where the span starts that the question is about.",
        examples=[0.0],
    )
    end_seconds: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="Where the span ends. Null or absent: at the video's end.",
        examples=[12.5],
    )
    top_k: int = Field(
        5, ge=1, le=1000, description="Maximum number of answers to return; the bundle may know fewer."
    )
    num_salient_frames: int | None = Field(
        None,
        ge=1,
        description="Number of frames, those of the span that are most relevant to the question, that the "
        "answers rest on. Null or absent: the bundle's default.",
        examples=[2],
    )
    deadline_ms: int | None = Field(
        None,
        ge=1,
        le=3_600_000,
        description="Deadline in milliseconds from the arrival of the request; one longer than the server's "
        "maximum counts as that. A question that cannot be answered in time is refused (503). Null or "
        "absent: the server's default.",
        examples=[500],
    )


class PossibleAnswer(BaseModel):
    """One of the answers that the bundle knows."""

    answer: str
    probability: float = Field(
        description="From 0 to 1; those of all answers that the bundle knows sum to 1."
    )


class AnswerFrame(BaseModel):
    """A stored frame that the answers rest on."""

    frame_id: FrameId
    pts_seconds: float = Field(description="When the frame is shown, in seconds.")
    relevance: float = Field(
        description="How well the frame fits the question by `text_salience · frame_salience`."
    )


class AnswerResponse(BaseModel):
    """The answers to a question about a video."""

    answers: list[PossibleAnswer] = Field(description="The likeliest answers, the likeliest first.")
    frames: list[AnswerFrame] = Field(description="The frames that the answers rest on, most relevant first.")
    snapshot: int = Field(description="Number of the snapshot that answered.")
    query_warnings: list[QueryWarning] = Field(
        description="What of the question was not understood or not read; empty if all counts."
    )
    library_warnings: list[LibraryWarning] = Field(
        description="What of the span is damaged and left out; empty if nothing is."
    )


class VideoFile(BaseModel):
    """A place where a video is, or was."""

    path: str
    missing_since: datetime | None = Field(
        description="Since when it is not found there. Null: the last run that looked found it."
    )


class Video(BaseModel):
    """A video of the library, whether it can be searched or not: one content, however many copies it has."""

    video_id: VideoId
    path: str = Field(description="The first of `files`.")
    files: list[VideoFile] = Field(description="Where it is; a place where it is not missing comes first.")
    missing: bool = Field(description="Whether it is missing in all of them.")
    title: ShownTitle
    file_title: FileTitle
    tags: Tags
    note: str | None = Field(description="What users noted.")
    annotated_at: datetime | None = Field(
        description="When users last changed title, tags or note; null: they never did."
    )
    captured_at: CapturedAt
    captured_source: CapturedBy
    place: WhereTaken
    camera: Camera
    has_sound: HasSound
    audio_codec: str | None = Field(description="The codec of the sound; null without sound.")
    verdict: Verdict = Field(description="The outcome of indexing the file.")
    reason: str | None = Field(description="Why the verdict is not `ok`.")
    bytes: int
    sha256: str
    duration_seconds: float
    fps: float
    width: int = Field(description="Width in pixels, as the video is shown.")
    height: int = Field(description="Height in pixels, as the video is shown.")
    codec: str
    container: str
    num_segments: int
    indexed_at: datetime
    container_start_seconds: float | None = Field(
        description="The file's own time at second 0. Null if it was indexed by an earlier version."
    )


class AnnotationChange(_Request):
    """What to change of what users say of a video (a JSON merge patch, RFC 7396): null removes, and what is
    absent stays.
    """

    title: str | None = Field(
        None,
        description=f"Shown in place of the title stored in the file; at most {MOST_TITLE_CHARACTERS} "
        "characters.",
        examples=["A day at sea"],
    )
    tags: list[str] | None = Field(
        None,
        description=f"All tags: at most {MOST_TAGS}, of at most {MOST_TAG_CHARACTERS} characters. Of those "
        "that differ in case alone, the first stays.",
        examples=[["sea", "dog"]],
    )
    note: str | None = Field(None, description=f"At most {MOST_NOTE_CHARACTERS:,} characters.")


class RemovalQuery(BaseModel):
    """How to remove a video."""

    model_config = ConfigDict(extra="forbid")

    media: bool = Field(
        False,
        description="Whether to delete the video's file too. Needs `REELFIND_ALLOW_DELETE_MEDIA`.",
    )


class TagCount(BaseModel):
    """A tag, as it is written most often."""

    tag: str
    num_videos: int = Field(description="Number of videos that have it, in whatever case.")


class TagList(BaseModel):
    """Tags, the most frequent first."""

    tags: list[TagCount]
    total: int = Field(description="Number of all tags.")


class TagListQuery(BaseModel):
    """Which tags."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(1000, ge=1, le=10_000, description="Maximum number of tags to return.")


class VideoDetails(Video):
    """A video, and how it can be played."""

    playable: bool | None = Field(
        description="Whether current browsers (Chromium with Chrome's codecs, Firefox) play picture and "
        "sound of the file as it is. Null if that is not known: the file is missing, or may not be read."
    )
    not_playable_because: str | None = Field(description="Why `playable` is not true.")
    media_url: str = Field(
        description="Where the file itself is.",
        examples=["/v1/videos/0f3a9c52d1e8b7640f3a9c52d1e8b764/media"],
    )
    stream_url: str = Field(description="Where a stream is that every browser plays: a preview.")
    clip_url: str = Field(description="Where clips are cut.")


class StreamQuery(BaseModel):
    """From where on to stream, and for whom."""

    model_config = ConfigDict(extra="forbid")

    start: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="Which second of the video is time 0 of the stream; rounded to milliseconds.",
    )
    viewer: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
        description="Any name for the player that asks, unique among those at its address. A new stream for "
        "a player ends the one before, so that going to another time does not wait for it.",
    )


class ClipQuery(BaseModel):
    """Which part of a video to cut out."""

    model_config = ConfigDict(extra="forbid")

    start: float = Field(
        ge=0, allow_inf_nan=False, description="Where the clip starts, in seconds; rounded to milliseconds."
    )
    end: float = Field(
        ge=0,
        allow_inf_nan=False,
        description="Where it ends. An end after that of the video means the latter.",
    )


class VideoList(BaseModel):
    """A page of the library's videos."""

    videos: list[Video]
    total: int = Field(description="Number of videos that match, on all pages.")
    hours: float = Field(description="Hours of those of them that can be searched.")
    snapshot: int = Field(description="Number of the snapshot that the list is of.")
    next_page_token: str | None = Field(
        description="Asks for the videos that follow, by `page_token`, in the same snapshot; null if there "
        "are none."
    )


VideoOffset = Annotated[
    int,
    Field(ge=0, le=1_000_000_000, description="Number of videos to skip; leave it out with a `page_token`."),
]
VideoLimit = Annotated[int, Field(ge=1, le=1000, description="Maximum number of videos to return.")]
VideoOrder = Annotated[
    str | None,
    Field(
        description="Order by a field, with `-` before it from the greatest to the least; videos without a "
        f"value come last. Null or absent: by path. Fields: {', '.join(SORT_FIELDS)}.",
        examples=["-indexed_at"],
    ),
]
ListPageToken = Annotated[
    str | None,
    Field(
        description="`next_page_token` of the page before, with the same filter and order, for the videos "
        "that follow. Null or absent: the first page."
    ),
]


class VideoListQuery(BaseModel):
    """Which page of the library's videos."""

    model_config = ConfigDict(extra="forbid")

    offset: VideoOffset = 0
    limit: VideoLimit = 100
    verdict: Verdict | None = Field(None, description="Only files with this verdict.")
    folder: str | None = Field(None, description="Only videos in this folder, however deep.")
    text: str | None = Field(
        None,
        max_length=4096,
        description="Only videos with this in their title or path; case does not count.",
    )
    sort: VideoOrder = None
    page_token: ListPageToken = None


class VideoListRequest(_Request):
    """Which of the library's videos to list, and which page."""

    filter: RequestFilter | None = Field(
        None,
        description=ABOUT_FILTER,
        examples=[{"op": "range", "field": "duration_seconds", "gte": 60}],
    )
    sort: VideoOrder = None
    offset: VideoOffset = 0
    limit: VideoLimit = 100
    page_token: ListPageToken = None


class FolderInfo(BaseModel):
    """A folder with the videos in it, however deep."""

    model_config = ConfigDict(from_attributes=True)

    path: str
    num_videos: int = Field(description="Number of videos, failures included.")
    hours: float = Field(description="Hours of video that can be searched.")
    has_folders: bool = Field(description="Whether videos are in folders of it.")


class FolderLevel(BaseModel):
    """A folder and those directly in it."""

    model_config = ConfigDict(from_attributes=True)

    folder: FolderInfo
    folders: list[FolderInfo] = Field(description="The folders in it that have videos, by their paths.")


class FacetValue(BaseModel):
    """A value of a field."""

    model_config = ConfigDict(from_attributes=True)

    value: str
    num_videos: int


class Failure(BaseModel):
    """A reason why videos cannot be searched, or not wholly."""

    model_config = ConfigDict(from_attributes=True)

    verdict: Verdict
    reason: str
    num_videos: int


class Facets(BaseModel):
    """What can be counted of the library's videos, up to 100 values each, the most frequent first."""

    model_config = ConfigDict(from_attributes=True)

    num_videos: int
    values: dict[str, list[FacetValue]] = Field(description="By field, as filters name it.")
    failures: list[Failure]


class BundleInfo(BaseModel):
    """The bundle that is served."""

    name: str
    checksum: str
    licence: str
    languages: list[str] | None = Field(
        description="Languages that the model reads, as codes of ISO 639; `mul`: many. Null if not known."
    )
    provenance: dict[str, Any] = Field(
        description="Recipe, data, weights, commit and metrics; empty for who is no administrator."
    )


class LibraryInfo(BaseModel):
    """The snapshot that is served."""

    snapshot: int
    created: datetime
    num_videos: int
    num_segments: int
    hours: float = Field(description="Hours of video that can be searched.")
    bundle: BundleInfo
    cannot_rerank: CannotRerank | None = Field(
        description="Why no search can be re-ranked: the bundle has no match, or the library stores "
        "no tokens. Null if searches can be re-ranked."
    )
    cannot_answer: CannotAnswer | None = Field(
        description="Why no question about a video can be answered: the bundle has no answer head, or the "
        "library stores no tokens. Null if questions can be answered."
    )
    cannot_query_image: CannotQueryImage | None = Field(
        description="Why no picture can be a query: the bundle reads no single pictures (it lacks the "
        "capability `image_query`), or the settings have turned it off. Null if pictures can be queries."
    )
    writes: bool = Field(
        description="Whether whoever asks may change the library: titles, tags and notes of its videos."
    )
    jobs: bool = Field(description="Whether whoever asks may start indexing runs.")
    problem: str | None = Field(description="Why the newest snapshot is not served; null if it is.")


class LogIn(_Request):
    """A key to log in with."""

    key: str = Field(max_length=200, description="A key of `reelfind keys create`.", examples=["rf_…"])


class SessionInfo(BaseModel):
    """Who asks, and what they may do."""

    auth: Literal["none", "keys", "proxy"] = Field(
        description="Who may ask at all. `none`: everybody, as an administrator. `keys`: who has a key; "
        "`POST /v1/session` logs a browser in. `proxy`: whom the proxy names."
    )
    via: Via | None = Field(
        description="How the request said who it is from. `session`: `DELETE /v1/session` logs out."
    )
    name: str | None = Field(description="Name of the key or the user; null if the service does not know it.")
    scopes: list[Scope] = Field(description="What they may do, with what a scope includes; empty: nothing.")
    folder: str | None = Field(description="The folder that they are limited to; null: they are not.")
    expires_at: datetime | None = Field(description="When the key or the session ends; null: never.")


class SignedUrlRequest(_Request):
    """An address to sign."""

    url: str = Field(
        max_length=2000,
        description="Path and query of what may be signed: a video's file or a frame. The query is signed "
        "too and cannot be changed.",
        examples=["/v1/videos/0f3a9c52d1e8b7640f3a9c52d1e8b764/media"],
    )
    expires_seconds: int = Field(
        3600,
        ge=1,
        le=100_000_000,
        description="Seconds for which it counts; the server has a maximum.",
        examples=[3600],
    )


class SignedUrlAnswer(BaseModel):
    """A signed address."""

    url: str = Field(description="Path and query; put the server's address in front.")
    expires_at: datetime


class ReloadResult(BaseModel):
    """The snapshot that is served after a reload."""

    snapshot: int
    changed: bool = Field(description="Whether the snapshot differs from the one served before.")


class Health(BaseModel):
    """The process is alive."""

    status: Literal["alive"] = "alive"


class Degradation(BaseModel):
    """One thing that does not work although searches are answered."""

    kind: DegradationKind = Field(
        description="`snapshot_refused`: a newer snapshot cannot be served. `not_reranked`: no search is "
        "re-ranked. `damaged_files`: the scrub found a file damaged. `damaged_rows`: a search or a thumbnail "
        "met damage. `curation_unreadable`: titles, tags, notes and what is kept out are as they were read "
        "last. `media_missing`: a folder of videos is not there."
    )
    detail: str = Field(description="What exactly, and the remedy.")


class ScrubState(BaseModel):
    """How far the scrub is, which reads all files of the library and compares them with their checksums."""

    model_config = ConfigDict(from_attributes=True)

    round_hours: float = Field(description="Every file is read once in this time.")
    files: int
    files_checked: int = Field(description="Files that this round has read.")
    bytes: int
    bytes_checked: int = Field(description="Bytes of these files.")
    finished: datetime | None = Field(description="When a round last was complete; null: not yet.")


class Readiness(BaseModel):
    """Searches are answered."""

    status: Literal["ready", "degraded"]
    snapshot: int
    degraded: list[Degradation] = Field(description="What does not work; empty if all does.")
    scrub: ScrubState | None = Field(description="Null if it is turned off.")
