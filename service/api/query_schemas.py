"""The wire format of queries: a text as ever, or an object whose fields say what kind it is.

Unknown fields are errors. Which kind an object is follows from its fields, so that no field names the kind.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from service.search.queries import MAX_STEPS, NOT_WEIGHT, ROCCHIO, WITHIN_SECONDS

# Examples of one feedback, at most: each is read from the library.
_MOST_EXAMPLES = 32
#: Begins the tags of kinds, which stand in the places of errors but in no request: see `kind_tag`.
_TAG = "\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK}kind "


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


Weight = Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]
IncludeExample = Annotated[
    bool,
    Field(
        description="Whether the example may be in the answer. If false, the segments that hold it (of at "
        "most 32 s) are left out."
    ),
]


class TextQuery(_Part):
    """A description of what to find."""

    text: str = Field(
        description="A description of what to find, in plain words.", examples=["a dog runs on a beach"]
    )
    not_text: str | None = Field(
        None,
        description="What a hit should not show: it counts against a segment, a frame and a match by "
        "`not_weight` times what it would count for it. Hits have no probability then.",
        examples=["people"],
    )
    not_weight: Weight = Field(NOT_WEIGHT, description="How much `not_text` counts.")


class UploadedImageQuery(_Part):
    """The picture that is the part `image` of a `multipart/form-data` body; the part `request` is this JSON.

    JPEG, PNG, WebP, GIF, AVIF or BMP; of a moving one the first picture. It is turned upright, shrunk as
    frames of videos are, and encoded as a segment that shows it.
    """

    image: Literal["upload"] = Field(description="Always `upload`.")


class FrameRef(_Part):
    """A stored frame."""

    frame_id: str = Field(
        description="Id of a stored frame, from a hit.",
        examples=["0f3a9c52d1e8b7640f3a9c52d1e8b764-00002-07"],
    )


class MomentRef(_Part):
    """A span of a video."""

    video_id: str = Field(description="Id of a video.", examples=["0f3a9c52d1e8b7640f3a9c52d1e8b764"])
    start_seconds: float = Field(ge=0, allow_inf_nan=False, description="Where the span starts.")
    end_seconds: float = Field(ge=0, allow_inf_nan=False, description="Where it ends, after its start.")


class FrameQuery(FrameRef):
    """More like a stored frame.

    It is compared by its stored embedding, or where a library stores none by its thumbnail, encoded again.
    """

    include_example: IncludeExample = False


class MomentQuery(MomentRef):
    """More like a span of a video: its stored frames, as if they were a segment."""

    include_example: IncludeExample = False


class VideoQuery(_Part):
    """More like a video: the mean of its segments, by their seconds."""

    video_id: str = Field(description="Id of a video.", examples=["0f3a9c52d1e8b7640f3a9c52d1e8b764"])
    include_example: bool = Field(
        False, description="Whether the video itself may be in the answer. If false, it is left out."
    )


def kind_tag(part: object) -> bool:
    """Whether a part of an error's place is the tag of a kind, which is in no request."""
    return isinstance(part, str) and part.startswith(_TAG)


def _kind(value: Any) -> str:
    """The tag of the kind that an object is meant to be, by its fields; a text if nothing else fits."""
    fields = value if isinstance(value, Mapping) else getattr(value, "model_fields_set", ())
    for field, kind in (
        ("sequence", "sequence"),
        ("like", "feedback"),
        ("unlike", "feedback"),
        ("original", "feedback"),
        ("example", "mixed"),
        ("image", "image"),
        ("frame_id", "frame"),
        ("start_seconds", "moment"),
        ("end_seconds", "moment"),
        ("video_id", "video"),
    ):
        if field in fields:
            return _TAG + kind
    return _TAG + "text"


ExampleQuery = Annotated[
    Annotated[UploadedImageQuery, Tag(_TAG + "image")]
    | Annotated[FrameQuery, Tag(_TAG + "frame")]
    | Annotated[MomentQuery, Tag(_TAG + "moment")]
    | Annotated[VideoQuery, Tag(_TAG + "video")],
    Discriminator(
        _kind,
        custom_error_type="example_kind",
        custom_error_message='Input should have "image", "frame_id" or "video_id"',
    ),
]


class MixedQuery(_Part):
    """A text and an example together, such as a picture of a place and "at night"."""

    text: str = Field(description="A description of what to find, in plain words.", examples=["at night"])
    not_text: str | None = Field(None, description="What a hit should not show.")
    not_weight: Weight = Field(NOT_WEIGHT, description="How much `not_text` counts.")
    example: ExampleQuery
    text_weight: float = Field(
        0.5,
        ge=0,
        le=1,
        description="How much the text counts; the rest is the example's. What the mixture says of a "
        "segment, a frame and a match is the weighted sum of what text and example say; the matching head "
        "reads the text alone.",
    )


PlainQuery = Annotated[
    Annotated[TextQuery, Tag(_TAG + "text")]
    | Annotated[MixedQuery, Tag(_TAG + "mixed")]
    | Annotated[UploadedImageQuery, Tag(_TAG + "image")]
    | Annotated[FrameQuery, Tag(_TAG + "frame")]
    | Annotated[MomentQuery, Tag(_TAG + "moment")]
    | Annotated[VideoQuery, Tag(_TAG + "video")],
    Discriminator(
        _kind,
        custom_error_type="query_kind",
        custom_error_message='Input should have "text", "example", "image", "frame_id" or "video_id"',
    ),
]
FeedbackExample = Annotated[
    Annotated[FrameRef, Tag(_TAG + "frame")] | Annotated[MomentRef, Tag(_TAG + "moment")],
    Discriminator(
        _kind,
        custom_error_type="feedback_kind",
        custom_error_message='Input should have "frame_id", or "video_id", "start_seconds" and "end_seconds"',
    ),
]


class FeedbackQuery(_Part):
    """A query, corrected by what was found right and wrong: q = α · original + β · mean(like) − γ ·
    mean(unlike) (Rocchio, 1971). What is liked stays in the answer.
    """

    original: PlainQuery | None = Field(
        None, description="The query to correct. Null or absent: what is near to `like` is found."
    )
    like: list[FeedbackExample] = Field(
        default_factory=list, max_length=_MOST_EXAMPLES, description="Frames and moments that are right."
    )
    unlike: list[FeedbackExample] = Field(
        default_factory=list, max_length=_MOST_EXAMPLES, description="Frames and moments that are wrong."
    )
    alpha: Weight = Field(ROCCHIO[0], description="α: how much the query counts.")
    beta: Weight = Field(ROCCHIO[1], description="β: how much what is right counts.")
    gamma: Weight = Field(ROCCHIO[2], description="γ: how much what is wrong counts.")


class SequenceQuery(_Part):
    """Several texts of one video, each shown after the one before ("a goal", then "a crowd cheers").

    A hit reaches from the first step to the last, has the moment of each in `steps`, and its score is the
    mean of theirs.
    """

    sequence: list[TextQuery] = Field(
        min_length=2, max_length=MAX_STEPS, description="The texts, in the order in which a video shows them."
    )
    within_seconds: float = Field(
        WITHIN_SECONDS,
        ge=0,
        le=86_400,
        description="How long after the end of a step the next one begins, at most. Two steps may overlap by "
        "half of the shorter one.",
    )


Query = Annotated[
    Annotated[TextQuery, Tag(_TAG + "text")]
    | Annotated[UploadedImageQuery, Tag(_TAG + "image")]
    | Annotated[FrameQuery, Tag(_TAG + "frame")]
    | Annotated[MomentQuery, Tag(_TAG + "moment")]
    | Annotated[VideoQuery, Tag(_TAG + "video")]
    | Annotated[MixedQuery, Tag(_TAG + "mixed")]
    | Annotated[FeedbackQuery, Tag(_TAG + "feedback")]
    | Annotated[SequenceQuery, Tag(_TAG + "sequence")],
    Discriminator(_kind),
    Field(
        description="What to find: a text, a picture, something of the library as the example, a text with "
        "an example, a query with feedback, or a sequence of texts. Which of them follows from the fields."
    ),
]
