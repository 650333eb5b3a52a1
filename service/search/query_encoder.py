"""Encodes a query of any kind, each kind by its own encoder, so that the stages of a search see no kinds."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from indexer.library.snapshot import Snapshot
from model.runtime.bundle import Bundle
from service.search.encoded_query import EncodedQuery, EncodedTexts, combined, encode_text_query
from service.search.example_encoder import encode_frame, encode_moment, encode_video
from service.search.picture_encoder import check_image_query, encode_picture
from service.search.queries import (
    FeedbackQuery,
    FrameQuery,
    MixedQuery,
    MomentQuery,
    PictureQuery,
    SingleQuery,
    TextQuery,
    VideoQuery,
)
from service.search.stopwatch import Stopwatch
from service.search.text_queue import TextEncoder


@dataclass(frozen=True)
class QueryEncoder:
    """Encodes the queries of one search.

    Attributes:
        bundle: the snapshot's model.
        snapshot: holds the examples.
        tokens: also compute the tokens of texts, which the matching head needs.
        images_allowed: whether the settings allow that the frame encoder is opened.
        known: texts that were encoded before.
        text_encoder: runs the model's text encoder; None: the bundle itself.
        stopwatch: gets the laps `encode_text` and `encode_image`.
    """

    bundle: Bundle
    snapshot: Snapshot
    tokens: bool
    images_allowed: bool = True
    known: EncodedTexts = field(default_factory=EncodedTexts)
    text_encoder: TextEncoder | None = None
    stopwatch: Stopwatch = field(default_factory=Stopwatch)

    def encode(self, query: SingleQuery, pointer: str = "/query") -> EncodedQuery:
        """Encode a query; `pointer` is its JSON pointer in the request.

        Raises:
            NotUnderstoodError: the model knows no word of a text.
            QueryError: a text has no token, a picture cannot be read, an example is not in the library, or
                the parts of the query cancel each other out.
            NoImageQueryError: there is a picture, and the bundle or the settings take none.
            DamagedRowsError: an example is damaged.
            LibraryError: a table cannot be read.
            BundleError: the model fails.
            OverloadedError: see `TextQueue.encode`.
        """
        match query:
            case TextQuery():
                return self._text(query, pointer)
            case MixedQuery(text=text, example=example, text_weight=weight):
                terms = [
                    (weight, self._text(text, pointer)),
                    (1 - weight, self.encode(example, f"{pointer}/example")),
                ]
                return combined(terms, pointer)
            case FeedbackQuery():
                return self._feedback(query, pointer)
            case _:
                encoded = self._example(query, pointer)
                self.stopwatch.lap("encode_image")
                return encoded

    def _text(self, query: TextQuery, pointer: str) -> EncodedQuery:
        text = self._plain_text(query.text, f"{pointer}/text")
        if query.not_text is None:
            return text
        unwanted = self._plain_text(query.not_text, f"{pointer}/not_text")
        return combined([(1.0, text), (-query.not_weight, unwanted)], pointer)

    def _plain_text(self, text: str, pointer: str) -> EncodedQuery:
        encoded = self.known.of(self.bundle, text, tokens=self.tokens)
        if encoded is None:
            encoded = encode_text_query(
                self.bundle, text, tokens=self.tokens, pointer=pointer, encoder=self.text_encoder
            )
        self.stopwatch.lap("encode_text")
        return encoded

    def _example(
        self, query: PictureQuery | FrameQuery | MomentQuery | VideoQuery, pointer: str
    ) -> EncodedQuery:
        match query:
            case PictureQuery():
                check_image_query(self.bundle, is_allowed=self.images_allowed)
                return encode_picture(self.bundle, query, pointer)
            case FrameQuery():
                allowed = self.images_allowed
                return encode_frame(
                    self.bundle, self.snapshot, query, images_allowed=allowed, pointer=pointer
                )
            case MomentQuery():
                return encode_moment(self.bundle, self.snapshot, query, pointer)
            case VideoQuery():
                return encode_video(self.bundle, self.snapshot, query, pointer)

    def _feedback(self, query: FeedbackQuery, pointer: str) -> EncodedQuery:
        """Rocchio's formula, see `FeedbackQuery`."""
        terms: list[tuple[float, EncodedQuery]] = []
        if query.original is not None:
            terms.append((query.alpha, self.encode(query.original, f"{pointer}/original")))
        terms += self._mean(query.beta, query.like, f"{pointer}/like")
        terms += self._mean(-query.gamma, query.unlike, f"{pointer}/unlike")
        return combined(terms, pointer)

    def _mean(
        self, weight: float, examples: Sequence[FrameQuery | MomentQuery], pointer: str
    ) -> list[tuple[float, EncodedQuery]]:
        return [
            (weight / len(examples), self.encode(example, f"{pointer}/{place}"))
            for place, example in enumerate(examples)
        ]
