"""Requests to the service, as its OpenAPI document (`/openapi.json`) describes them.

They are the JSON of the API itself, as types: a type checker knows their fields, and the service checks their
values.
"""

from collections.abc import Sequence
from typing import Literal, NotRequired, Required, TypeAlias, TypedDict

FieldValue: TypeAlias = str | float | bool


class AndFilter(TypedDict):
    """All of the filters hold."""

    op: Literal["and"]
    filters: Sequence["Filter"]


class OrFilter(TypedDict):
    """One of the filters holds."""

    op: Literal["or"]
    filters: Sequence["Filter"]


class NotFilter(TypedDict):
    """The filter does not hold."""

    op: Literal["not"]
    filter: "Filter"


class EqualsFilter(TypedDict):
    """The field has this value; a time, on this day."""

    op: Literal["equals"]
    field: str
    value: FieldValue


class InFilter(TypedDict):
    """The field has one of these values."""

    op: Literal["in"]
    field: str
    values: Sequence[FieldValue]


class RangeFilter(TypedDict, total=False):
    """The field is at least (`gte`), above (`gt`), at most (`lte`), or below (`lt`) a bound."""

    op: Required[Literal["range"]]
    field: Required[str]
    gte: float | str | None
    gt: float | str | None
    lte: float | str | None
    lt: float | str | None


class UnderFilter(TypedDict):
    """The path is this folder, or lies in it, however deep."""

    op: Literal["under"]
    field: str
    folder: str


class ContainsFilter(TypedDict):
    """The text has this part; upper and lower case are the same."""

    op: Literal["contains"]
    field: str
    value: str


class IsNullFilter(TypedDict):
    """The field has no value."""

    op: Literal["is_null"]
    field: str


Filter: TypeAlias = (
    AndFilter
    | OrFilter
    | NotFilter
    | EqualsFilter
    | InFilter
    | RangeFilter
    | UnderFilter
    | ContainsFilter
    | IsNullFilter
)


class TextQuery(TypedDict):
    """A description of what to find, and what hits should not show."""

    text: str
    not_text: NotRequired[str | None]
    not_weight: NotRequired[float]


class UploadedImageQuery(TypedDict):
    """The picture that is given as `image`."""

    image: Literal["upload"]


class FrameRef(TypedDict):
    """A stored frame."""

    frame_id: str


class MomentRef(TypedDict):
    """A span of a video."""

    video_id: str
    start_seconds: float
    end_seconds: float


class FrameQuery(FrameRef):
    """More like a stored frame."""

    include_example: NotRequired[bool]


class MomentQuery(MomentRef):
    """More like a span of a video."""

    include_example: NotRequired[bool]


class VideoQuery(TypedDict):
    """More like a video."""

    video_id: str
    include_example: NotRequired[bool]


ExampleQuery: TypeAlias = UploadedImageQuery | FrameQuery | MomentQuery | VideoQuery


class MixedQuery(TextQuery):
    """A text and an example together."""

    example: ExampleQuery
    text_weight: NotRequired[float]


class FeedbackQuery(TypedDict, total=False):
    """A query, corrected by what was found right and wrong."""

    original: TextQuery | MixedQuery | ExampleQuery | None
    like: Sequence[FrameRef | MomentRef]
    unlike: Sequence[FrameRef | MomentRef]
    alpha: float
    beta: float
    gamma: float


class SequenceQuery(TypedDict):
    """Several texts of one video, each shown after the one before."""

    sequence: Sequence[TextQuery]
    within_seconds: NotRequired[float]


Query: TypeAlias = TextQuery | ExampleQuery | MixedQuery | FeedbackQuery | SequenceQuery


class Modalities(TypedDict, total=False):
    """How much each kind of evidence counts; 0: not at all."""

    visual: float
    speech: float
    screen: float
    name: float


class Threshold(TypedDict, total=False):
    """What hits must reach."""

    score: float | None
    similarity: float | None


class MomentsOptions(TypedDict, total=False):
    """What a search for moments may say beside its query."""

    modalities: Modalities
    top_k: int | None
    min_probability: float | None
    rerank: bool
    num_candidates: int | None
    num_salient_frames: int | None
    explain: bool
    threshold: Threshold | None
    sort: str | None
    fields: Sequence[Literal["frames", "text_matches", "moments"]] | None
    page_token: str | None
    deadline_ms: int | None


class SearchOptions(MomentsOptions, total=False):
    """What a search may say beside its query."""

    group_by: Literal["moment", "video"]
    moments_per_video: int
    filter: Filter | None


class SearchRequest(SearchOptions):
    """A search of a batch."""

    query: Query


class AnswerOptions(TypedDict, total=False):
    """What a question may say beside its text."""

    start_seconds: float
    end_seconds: float | None
    top_k: int
    num_salient_frames: int | None
    deadline_ms: int | None


class IndexJobOptions(TypedDict, total=False):
    """How to index; see `reelfind index --help`."""

    prune: bool
    retry_failed: bool
    include: Sequence[str]
    exclude: Sequence[str]


class JobListOptions(TypedDict, total=False):
    """Which jobs to list."""

    state: Literal["waiting", "running", "ended"] | None
    limit: int
    offset: int


class ListOptions(TypedDict, total=False):
    """Which page of which videos to list: those in a `folder`, with a `text` or a `verdict`, or those that a
    `filter` leaves.
    """

    verdict: str | None
    folder: str | None
    text: str | None
    filter: Filter | None
    sort: str | None
    offset: int
    limit: int
    page_token: str | None


class AnnotationChange(TypedDict, total=False):
    """What to change of what users say of a video: None removes, and what is absent stays."""

    title: str | None
    tags: Sequence[str] | None
    note: str | None
