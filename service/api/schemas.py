"""What goes over the wire: unknown fields in requests are errors. Seconds are what a player shows."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from indexer.library.records import Verdict
from service.search.results import CannotRerank, TextRerankSkipped

VideoId = Annotated[
    str, Field(description="Stable id of a video: 16 hex digits.", examples=["0f3a9c52d1e8b764"])
]
FrameId = Annotated[
    str,
    Field(description="Stable id of a stored frame; `GET /v1/frames/{frame_id}.jpg` is its picture.",
          examples=["0f3a9c52d1e8b764-00002-07"]),
]  # fmt: skip


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Query(_Request):
    """What to find."""

    text: str = Field(description="A description in plain words.", examples=["a dog runs on a beach"])


class SearchRequest(_Request):
    """A search."""

    query: Query
    top_k: int | None = Field(
        None,
        ge=1,
        description="The most videos to return. Null or absent: the server's default.",
        examples=[10],
    )
    rerank: bool = Field(
        True,
        description="Whether the matching head judges the best segments anew on their salient frames; "
        "without, the order is that of the similarity.",
    )
    num_candidates: int | None = Field(
        None,
        ge=1,
        description="The most segments to re-rank. Null or absent: the model's default.",
        examples=[100],
    )
    num_salient_frames: int | None = Field(
        None,
        ge=1,
        description="Frames of a segment that the query is matched with, the most relevant ones. Null or "
        "absent: the model's default.",
        examples=[2],
    )
    explain: bool = Field(False, description="Whether each hit says how its score came about.")
    deadline_ms: int | None = Field(
        None,
        ge=1,
        le=3_600_000,
        description="Milliseconds after which re-ranking is given up and the first stage answers. Null or "
        "absent: the server's default.",
        examples=[500],
    )


class FrameHit(BaseModel):
    """One stored frame of a hit's segment."""

    frame_id: FrameId
    pts_seconds: float = Field(description="When the frame is shown.")
    relevance: float = Field(description="How much the frame shows of the query; higher is better.")
    salient: bool = Field(description="Whether it is one of the segment's most relevant frames.")
    match_score: float | None = Field(
        description="The matching head's log-odds that the frame shows the query; null: not asked."
    )


class FrameTerm(BaseModel):
    """What one salient frame adds to an explanation."""

    frame_id: FrameId
    relevance: float = Field(description="text_salience · frame_salience: why the frame was chosen.")
    match_logit: float | None = Field(description="The matching head's answer; null where it was not asked.")


class Explanation(BaseModel):
    """Every term of a score: `score` = (`match_score` or `tail_offset` or 0) + `similarity_term`."""

    similarity: float = Field(description="Cosine of the query's and the segment's embeddings.")
    ensemble_lambda: float = Field(
        description="What the similarity is multiplied by; 1 where nothing was re-ranked."
    )
    similarity_term: float = Field(description="`ensemble_lambda` × `similarity`.")
    match_score: float | None = Field(
        description="Mean of the frames' `match_logit`; null where the segment was not re-ranked."
    )
    tail_offset: float | None = Field(
        description="For segments behind those re-ranked: what puts them, in the first stage's order, below."
    )
    frames: list[FrameTerm] = Field(description="The salient frames, most relevant first.")
    first_stage_rank: int = Field(description="The segment's place by similarity among all segments, from 1.")
    formula: str = Field(description="The sum in words and figures.")


class Hit(BaseModel):
    """A video, at the segment of it that answers the query best."""

    video_id: VideoId
    path: str = Field(description="The video's file, as it was indexed.")
    title: str | None = Field(description="The title that the file carries, if any.")
    start_seconds: float
    end_seconds: float
    score: float = Field(description="How well the segment answers the query; higher is better.")
    similarity: float = Field(description="Cosine of the query's and the segment's embeddings.")
    match_score: float | None = Field(
        description="Mean match score of the salient frames; null where the segment was not re-ranked."
    )
    frames: list[FrameHit] = Field(description="All stored frames of the segment, in time order.")
    explanation: Explanation | None = Field(description="The terms of the score, where they were asked for.")


class Timings(BaseModel):
    """Milliseconds that the stages of a search took; 0 for a stage that was left out."""

    encode_text: float
    retrieve: float
    salience: float = Field(description="Choosing the candidates' salient frames.")
    tokens: float = Field(description="Fetching the tokens of these frames.")
    match: float = Field(description="The matching head, waiting for other searches included.")
    fetch: float
    total: float


class SearchResponse(BaseModel):
    """The hits, best first, one a video."""

    hits: list[Hit]
    snapshot: int = Field(description="Number of the snapshot that answered.")
    reranked: bool = Field(description="Whether the best segments were judged anew by the matching head.")
    rerank_skipped: TextRerankSkipped | None = Field(
        description="Why they were not: not asked for, the model has no matching head, the library holds no "
        "tokens of its frames, or it would have passed the deadline."
    )
    num_candidates: int = Field(description="Segments that were re-ranked.")
    timings_ms: Timings


class Video(BaseModel):
    """A file of the library, searchable or not."""

    video_id: VideoId
    path: str
    title: str | None
    verdict: Verdict = Field(description="What became of the file when it was indexed.")
    reason: str | None = Field(description="Why the verdict is not `ok`.")
    bytes: int
    sha256: str
    duration_seconds: float
    fps: float
    width: int = Field(description="Pixels, as shown.")
    height: int = Field(description="Pixels, as shown.")
    codec: str
    container: str
    num_segments: int
    indexed_at: datetime


class VideoList(BaseModel):
    """A page of the library's videos."""

    videos: list[Video]
    total: int = Field(description="All videos that match, on every page.")


class VideoListQuery(BaseModel):
    """Which page of the library's videos."""

    model_config = ConfigDict(extra="forbid")

    offset: int = Field(0, ge=0, le=1_000_000_000, description="Videos to skip.")
    limit: int = Field(100, ge=1, le=1000, description="The most videos to return.")
    verdict: Verdict | None = Field(None, description="Only files with this verdict.")


class BundleInfo(BaseModel):
    """The model that is served."""

    name: str
    checksum: str
    licence: str
    provenance: dict[str, Any] = Field(description="Recipe, data, weights, commit and metrics.")


class LibraryInfo(BaseModel):
    """The snapshot that is served."""

    snapshot: int
    created: datetime
    num_videos: int
    num_segments: int
    hours: float = Field(description="Hours of video that can be searched.")
    bundle: BundleInfo
    cannot_rerank: CannotRerank | None = Field(
        description="Why no search is re-ranked: the bundle has no matching head, or the library no tokens."
    )
    problem: str | None = Field(description="Why a newer snapshot is not served, if there is one.")


class ReloadResult(BaseModel):
    """What is served after a reload."""

    snapshot: int
    changed: bool = Field(description="Whether it is another snapshot than before.")


class Health(BaseModel):
    """The process is alive."""

    status: Literal["alive"] = "alive"


class Readiness(BaseModel):
    """Searches are answered."""

    status: Literal["ready"] = "ready"
    snapshot: int


class InvalidValue(BaseModel):
    """One value at fault in a request."""

    pointer: str = Field(description="JSON pointer into the body, or the parameter's name after `?`.")
    detail: str


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(
        description="Identifies the kind of problem.", examples=["urn:reelfind:problem:invalid-request"]
    )
    title: str = Field(description="The kind of problem in words.")
    status: int
    detail: str = Field(description="The value at fault and the remedy.")
    instance: str = Field(description="Identifies this occurrence; the server's log has it for failures.")
    errors: list[InvalidValue] | None = Field(None, description="Every value at fault, for invalid requests.")
