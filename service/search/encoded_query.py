"""An encoded query: the form in which the stages of a search use it.

A text that is longer than the model's context is read in parts, and counts as their mean: the mean of what
they say of a segment, of a frame and of a match, weighted by their number of tokens.

Queries can be combined, each with a weight. What the combination says of a segment, of a frame and of a match
is the weighted sum of what they say.

Shapes: D joint space, S salience, M parts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from model.runtime.bundle import Bundle, TextEncoding
from model.runtime.errors import BundleError
from model.runtime.text_reading import TextReading
from service.errors import NotUnderstoodError, OverloadedError, QueryError
from service.search.query import TextName
from service.search.query_warnings import not_understood_message, warnings_of
from service.search.results import QueryWarning
from service.search.text_queue import TextEncoder

# Most parts of one text: each costs as much as a query. The longest query allowed has some five in English.
MAX_PARTS = 8
#: Most parts of all texts that are encoded together: bounds the memory of their tokens.
MAX_TOGETHER = 512
# Combined embeddings that are shorter than this have cancelled each other out.
_LEAST_LENGTH = 1e-3


@dataclass(frozen=True)
class QueryPart:
    """A part of a query's text: its encoding, of one text, with the tokens that the matching head reads.

    `weight` is its share in the mean of the match: those of a text sum to 1. In a combination it is times the
    text's weight, which may be negative.
    """

    text: TextEncoding
    weight: float = 1.0

    def __post_init__(self) -> None:
        if len(self.text.attention_mask) != 1:
            raise ValueError(f"text holds {len(self.text.attention_mask)} texts: pass one")


@dataclass(frozen=True)
class EncodedQuery:
    """One query, made from a text or from something else.

    Retrieval uses `embedding`, the relevance of frames uses `salience`, and the matching head uses `parts`:
    without any, the nearest segments are retrieved but not re-ranked by it.

    Attributes:
        embedding: float32, shape [D], of unit length.
        salience: float32, shape [S].
        parts: the parts of the texts; one if a text fits the model's context. None if there is no text.
        warnings: what of the texts was not understood or not read.
        is_understood: False if the tokenizer knows no word of the text.
        is_text_alone: whether it is one text and nothing else. The calibration was fitted to such queries,
            and the moment head was trained with them: for others there are no probabilities, and moments
            are found by the relevance of frames.
    """

    embedding: NDArray[np.float32]
    salience: NDArray[np.float32]
    parts: tuple[QueryPart, ...] | None = None
    warnings: tuple[QueryWarning, ...] = ()
    is_understood: bool = True
    is_text_alone: bool = False

    def __post_init__(self) -> None:
        for name, values in (("embedding", self.embedding), ("salience", self.salience)):
            if values.ndim != 1:
                raise ValueError(f"{name} has shape {list(values.shape)}: pass that of one query")
        if self.parts is not None and not self.parts:
            raise ValueError("parts is empty: pass at least one part, or None")


@dataclass(frozen=True)
class EncodedTexts:
    """Texts that were encoded together, for searches that follow.

    Attributes:
        bundle: the model that encoded them; None: there are none.
        tokens: whether they were encoded with tokens.
        queries: each text's query.
    """

    bundle: Bundle | None = None
    tokens: bool = False
    queries: Mapping[str, EncodedQuery] = field(default_factory=dict)

    def of(self, bundle: Bundle, text: str, *, tokens: bool) -> EncodedQuery | None:
        """A text's query as `encode_text_query` gives it; None: it is not among them, or not understood."""
        if self.bundle is not bundle or (tokens and not self.tokens):
            return None
        query = self.queries.get(text)
        return query if query is not None and query.is_understood else None


def combined(terms: Sequence[tuple[float, EncodedQuery]], pointer: str = "/query") -> EncodedQuery:
    """The weighted sum of queries, scaled so that its embedding has unit length again.

    Args:
        terms: weights, which may be negative, and queries.
        pointer: the JSON pointer of the combination in the request.

    Raises:
        QueryError: they cancel each other out.
    """
    embedding = sum((weight * query.embedding.astype(np.float64) for weight, query in terms), np.zeros(()))
    salience = sum((weight * query.salience.astype(np.float64) for weight, query in terms), np.zeros(()))
    length = float(np.linalg.norm(embedding))
    if length < _LEAST_LENGTH:
        raise QueryError(
            "What is asked for and what is not cancel each other out. Change a text, an example or a weight.",
            pointer,
        )
    parts = tuple(
        replace(part, weight=weight * part.weight) for weight, query in terms for part in query.parts or ()
    )
    return EncodedQuery(
        (embedding / length).astype(np.float32),
        (salience / length).astype(np.float32),
        parts or None,
        tuple(warning for _, query in terms for warning in query.warnings),
    )


def encode_text_query(
    bundle: Bundle,
    text: str,
    *,
    tokens: bool,
    name: TextName = "query",
    pointer: str | None = None,
    encoder: TextEncoder | None = None,
) -> EncodedQuery:
    """Encode a text, which must be understood.

    Args:
        bundle: the model.
        text: the text.
        tokens: also compute the tokens, which the matching head needs.
        name: what messages call it.
        pointer: the JSON pointer of the text in the request; None: that of the only text of `name`.
        encoder: runs the model's text encoder; None: the bundle itself.

    Raises:
        NotUnderstoodError: the tokenizer knows no word of the text.
        QueryError: the text has no token.
        BundleError: the model fails.
        OverloadedError: see `TextQueue.encode`.
    """
    reading = bundle.text_reader.read(text, MAX_PARTS)
    pointer = pointer or f"/{name}/text"
    if not reading.is_understood:
        raise NotUnderstoodError(not_understood_message(reading, name, _languages(bundle)), pointer)
    return _encode(bundle, [reading], tokens, name, pointer, encoder)[0]


def encode_text_queries(
    bundle: Bundle, texts: Sequence[str], *, tokens: bool, encoder: TextEncoder | None = None
) -> list[EncodedQuery]:
    """Encode texts in one batch, one query per text, also those that are not understood.

    Args:
        bundle: the model.
        texts: at least one.
        tokens: also compute the tokens, which the matching head needs.
        encoder: runs the model's text encoder; None: the bundle itself.

    Raises:
        QueryError: a text has no token.
        BundleError: the model fails.
        OverloadedError: see `TextQueue.encode`.
    """
    readings = [bundle.text_reader.read(text, MAX_PARTS) for text in texts]
    return _encode(bundle, readings, tokens, "query", "/query/text", encoder)


def encode_together(
    bundle: Bundle, texts: Sequence[str], *, tokens: bool, encoder: TextEncoder | None = None
) -> EncodedTexts:
    """Encode the texts of several searches in one batch, each once.

    Texts beyond `MAX_TOGETHER` parts are left to their searches. So are all where the batch fails, or cannot
    be in time: those at fault get the error then.
    """
    readings: dict[str, TextReading] = {}
    num_parts = 0
    for text in dict.fromkeys(texts):
        reading = bundle.text_reader.read(text, MAX_PARTS)
        num_parts += len(reading.parts)
        if num_parts > MAX_TOGETHER:
            break
        readings[text] = reading
    try:
        all_readings = [*readings.values()]
        queries = (
            _encode(bundle, all_readings, tokens, "query", "/query/text", encoder) if all_readings else []
        )
    except (QueryError, BundleError, OverloadedError):
        return EncodedTexts()
    return EncodedTexts(bundle, tokens, dict(zip(readings, queries, strict=True)))


def _encode(
    bundle: Bundle,
    readings: Sequence[TextReading],
    tokens: bool,
    name: TextName,
    pointer: str,
    encoder: TextEncoder | None,
) -> list[EncodedQuery]:
    parts = [part for reading in readings for part in reading.parts]
    try:
        encoding = (encoder or bundle).encode_text(parts, tokens=tokens)
    except ValueError as error:
        raise QueryError(f"The model cannot read the {name}: {error}.", pointer) from error
    queries, start = [], 0
    for reading in readings:
        stop = start + len(reading.parts)
        warnings = warnings_of(reading, name, _languages(bundle))
        queries.append(_joined(encoding, range(start, stop), reading, warnings))
        start = stop
    return queries


def _languages(bundle: Bundle) -> tuple[str, ...]:
    return bundle.manifest.text.languages or ()


def _joined(
    encoding: TextEncoding, rows: range, reading: TextReading, warnings: tuple[QueryWarning, ...]
) -> EncodedQuery:
    part = slice(rows.start, rows.stop)
    embedding, salience = encoding.embedding[rows.start], encoding.salience[rows.start]
    weights = np.ones(1)
    if len(rows) > 1:
        counts = np.array(reading.num_tokens, np.float64)
        weights = counts / counts.sum()
        mean = weights @ encoding.embedding[part]
        embedding = (mean / np.linalg.norm(mean)).astype(np.float32)
        salience = (weights @ encoding.salience[part]).astype(np.float32)
    parts = zip(rows, weights.tolist(), strict=True)
    return EncodedQuery(
        embedding,
        salience,
        tuple(QueryPart(_one_text(encoding, row), weight) for row, weight in parts),
        warnings,
        reading.is_understood,
        is_text_alone=True,
    )


def _one_text(texts: TextEncoding, row: int) -> TextEncoding:
    part = slice(row, row + 1)
    return TextEncoding(
        texts.embedding[part],
        texts.salience[part],
        None if texts.tokens is None else texts.tokens[part],
        texts.attention_mask[part],
        texts.input_ids[part],
    )
