"""What may be asked: a text, a picture, something of the library as an example, and what is made of these.

A query is a value without HTTP and without a model; `query_encoder.py` encodes it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from model.runtime.pictures import MAX_PIXELS

#: How much a text that a hit should not show counts against it.
NOT_WEIGHT = 0.5
#: The steps of a sequence, at most, and how long one may begin after the one before has ended.
MAX_STEPS = 5
WITHIN_SECONDS = 60.0
#: The weights of Rocchio's formula that are standard (Manning, Raghavan and Schütze, 2008, section 9.1.1).
ROCCHIO = (1.0, 0.75, 0.15)


@dataclass(frozen=True)
class TextQuery:
    """A description of what to find, which `clean_text` has cleaned.

    Attributes:
        text: what a hit shows.
        not_text: what it does not show; None: anything.
        not_weight: how much that counts: q = text − not_weight · not_text, in every space of the model.
    """

    text: str
    not_text: str | None = None
    not_weight: float = NOT_WEIGHT


@dataclass(frozen=True)
class PictureQuery:
    """A picture that is sent: the content of a file, which may be any bytes.

    Attributes:
        data: the bytes.
        max_pixels: a picture with more is refused.
    """

    data: bytes
    max_pixels: int = MAX_PIXELS


@dataclass(frozen=True)
class FrameQuery:
    """A stored frame as the example. Without `include_example` its segment is left out of the answer."""

    frame_id: str
    include_example: bool = False


@dataclass(frozen=True)
class MomentQuery:
    """A span of a video as the example.

    Without `include_example` the segments that it touches are left out of the answer.
    """

    video_id: str
    start_seconds: float
    end_seconds: float
    include_example: bool = False


@dataclass(frozen=True)
class VideoQuery:
    """A whole video as the example. Without `include_example` it is left out of the answer."""

    video_id: str
    include_example: bool = False


#: What can stand for what it shows.
ExampleQuery = PictureQuery | FrameQuery | MomentQuery | VideoQuery


@dataclass(frozen=True)
class MixedQuery:
    """A text and an example: q = text_weight · text + (1 − text_weight) · example."""

    text: TextQuery
    example: ExampleQuery
    text_weight: float = 0.5


#: What can be asked as it is, and be corrected by feedback.
PlainQuery = TextQuery | ExampleQuery | MixedQuery


@dataclass(frozen=True)
class FeedbackQuery:
    """A query, corrected by what somebody found right and wrong.

    Rocchio's formula (Rocchio, 1971; equation 9.3 of Manning, Raghavan and Schütze, Introduction to
    Information Retrieval, 2008): q = α · q₀ + β · mean(like) − γ · mean(unlike).

    Attributes:
        original: q₀; None: there is none, and what is near to `like` is found.
        like: what is right. It is not left out of the answer.
        unlike: what is wrong.
        alpha: α.
        beta: β.
        gamma: γ.
    """

    original: PlainQuery | None
    like: tuple[FrameQuery | MomentQuery, ...] = ()
    unlike: tuple[FrameQuery | MomentQuery, ...] = ()
    alpha: float = ROCCHIO[0]
    beta: float = ROCCHIO[1]
    gamma: float = ROCCHIO[2]


#: What is encoded to one `EncodedQuery`.
SingleQuery = PlainQuery | FeedbackQuery


@dataclass(frozen=True)
class SequenceQuery:
    """Several texts of one video, each after the one before.

    Attributes:
        steps: 2 to `MAX_STEPS` texts, in the order in which a video shows them.
        within_seconds: how long after the end of a step the next one begins, at most.
    """

    steps: tuple[TextQuery, ...]
    within_seconds: float = WITHIN_SECONDS


SearchQuery = SingleQuery | SequenceQuery


def text_of(query: SingleQuery) -> str | None:
    """The text for which lines are found of what is said and written; None: the query has none."""
    match query:
        case TextQuery(text=text) | MixedQuery(text=TextQuery(text=text)):
            return text
        case FeedbackQuery(original=original) if original is not None:
            return text_of(original)
        case _:
            return None


def is_text_alone(query: SearchQuery) -> bool:
    """Whether a query is one text, such as calibrations are fitted to."""
    return isinstance(query, TextQuery) and query.not_text is None


def texts_of(query: SearchQuery) -> Iterator[str]:
    """Every text that is encoded for a query."""
    match query:
        case TextQuery(text=text, not_text=not_text):
            yield text
            if not_text is not None:
                yield not_text
        case MixedQuery(text=text_query):
            yield from texts_of(text_query)
        case FeedbackQuery(original=original) if original is not None:
            yield from texts_of(original)
        case SequenceQuery(steps=steps):
            for step in steps:
                yield from texts_of(step)


def examples_of(query: SearchQuery) -> Iterator[ExampleQuery]:
    """Every example of a query, the liked and unliked ones too."""
    match query:
        case MixedQuery(example=example):
            yield example
        case FeedbackQuery(original=original, like=like, unlike=unlike):
            if original is not None:
                yield from examples_of(original)
            yield from like
            yield from unlike
        case PictureQuery() | FrameQuery() | MomentQuery() | VideoQuery():
            yield query


def examples_left_out(query: SearchQuery) -> FrameQuery | MomentQuery | VideoQuery | None:
    """What of the library an answer leaves out, because it is the example itself; None: nothing."""
    match query:
        case FrameQuery() | MomentQuery() | VideoQuery():
            return None if query.include_example else query
        case MixedQuery(example=example):
            return examples_left_out(example)
        case FeedbackQuery(original=original) if original is not None:
            return examples_left_out(original)
        case _:
            return None
