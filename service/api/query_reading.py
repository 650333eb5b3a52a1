"""Checks queries of requests and turns them into those that a search takes."""

from dataclasses import dataclass

from service.api import query_schemas as wire
from service.errors import QueryError
from service.search import queries
from service.search.query import clean_text


@dataclass(frozen=True)
class QueryReader:
    """Reads the queries of one request.

    Attributes:
        max_characters: the longest text.
        max_pixels: the largest picture.
        image: the picture that was sent with the request; None: none was.
    """

    max_characters: int
    max_pixels: int
    image: bytes | None = None

    def read(self, query: wire.Query) -> queries.SearchQuery:
        """The query to search for.

        Raises:
            QueryError: a text or a span is invalid, a picture is named but not sent, or sent but not named.
        """
        found = self._any(query, "/query")
        pictures = (each for each in queries.examples_of(found) if isinstance(each, queries.PictureQuery))
        if self.image is not None and not any(pictures):
            raise QueryError(
                "The part `image` was sent, but the query does not name it. Let it be "
                '{"image": "upload"}, or {"text": "at night", "example": {"image": "upload"}}.',
                "/query",
            )
        return found

    def _any(self, query: wire.Query, pointer: str) -> queries.SearchQuery:
        match query:
            case wire.SequenceQuery():
                steps = [
                    self._text(step, f"{pointer}/sequence/{place}")
                    for place, step in enumerate(query.sequence)
                ]
                return queries.SequenceQuery(tuple(steps), query.within_seconds)
            case wire.FeedbackQuery():
                return self._feedback(query, pointer)
            case _:
                return self._plain(query, pointer)

    def _plain(self, query: wire.PlainQuery, pointer: str) -> queries.PlainQuery:
        match query:
            case wire.MixedQuery():
                example = self._example(query.example, f"{pointer}/example")
                return queries.MixedQuery(self._text(query, pointer), example, query.text_weight)
            case wire.TextQuery():
                return self._text(query, pointer)
            case _:
                return self._example(query, pointer)

    def _text(self, query: wire.TextQuery | wire.MixedQuery, pointer: str) -> queries.TextQuery:
        text = clean_text(query.text, self.max_characters, pointer=f"{pointer}/text")
        if query.not_text is None:
            return queries.TextQuery(text)
        unwanted = clean_text(query.not_text, self.max_characters, pointer=f"{pointer}/not_text")
        return queries.TextQuery(text, unwanted, query.not_weight)

    def _example(self, query: wire.ExampleQuery, pointer: str) -> queries.ExampleQuery:
        match query:
            case wire.UploadedImageQuery():
                if self.image is None:
                    raise QueryError(
                        "No picture was sent. Send multipart/form-data with the parts `image`, a file, and "
                        "`request`, this JSON; a batch takes no pictures.",
                        f"{pointer}/image",
                    )
                return queries.PictureQuery(self.image, self.max_pixels)
            case wire.MomentQuery():
                return _moment(query, pointer, include_example=query.include_example)
            case wire.FrameQuery():
                return queries.FrameQuery(query.frame_id, query.include_example)
            case wire.VideoQuery():
                return queries.VideoQuery(query.video_id, query.include_example)

    def _feedback(self, query: wire.FeedbackQuery, pointer: str) -> queries.FeedbackQuery:
        if query.original is None and not query.like:
            raise QueryError(
                "There is neither an original query nor anything to be like. Give `original` or `like`.",
                f"{pointer}/like",
            )
        original = None if query.original is None else self._plain(query.original, f"{pointer}/original")
        like = [_liked(each, f"{pointer}/like/{place}") for place, each in enumerate(query.like)]
        unlike = [_liked(each, f"{pointer}/unlike/{place}") for place, each in enumerate(query.unlike)]
        return queries.FeedbackQuery(
            original, tuple(like), tuple(unlike), query.alpha, query.beta, query.gamma
        )


def _liked(example: wire.FeedbackExample, pointer: str) -> queries.FrameQuery | queries.MomentQuery:
    match example:
        case wire.FrameRef():
            return queries.FrameQuery(example.frame_id)
        case wire.MomentRef():
            return _moment(example, pointer)


def _moment(moment: wire.MomentRef, pointer: str, *, include_example: bool = False) -> queries.MomentQuery:
    start, end = moment.start_seconds, moment.end_seconds
    if end <= start:
        raise QueryError(
            f"end_seconds {end:g} is not after start_seconds {start:g}. Choose a later end.",
            f"{pointer}/end_seconds",
        )
    return queries.MomentQuery(moment.video_id, start, end, include_example)
