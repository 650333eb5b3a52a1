"""An encoded query: the form in which the stages of a search use it.

A text that is longer than the model's context is read in parts, and counts as their mean: the mean of what
they say of a segment, of a frame and of a match, weighted by their number of tokens.

Shapes: D joint space, S salience, M parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.runtime.bundle import Bundle, TextEncoding
from model.runtime.text_reading import TextReading
from service.errors import NotUnderstoodError, QueryError
from service.search.query import TextName
from service.search.query_warnings import not_understood_message, warnings_of
from service.search.results import QueryWarning

# Most parts of one text: each costs as much as a query. The longest query allowed has some five in English.
MAX_PARTS = 8


@dataclass(frozen=True)
class QueryPart:
    """A part of a query's text: its encoding, of one text, with the tokens that the matching head reads.

    `weight` is its share in the means; the parts of a query sum to 1.
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
    without any, the nearest segments are retrieved but not re-ranked.

    Attributes:
        embedding: float32, shape [D], of unit length.
        salience: float32, shape [S].
        parts: the parts of the text; one if it fits the model's context. None if the query is not a text.
        warnings: what of the text was not understood or not read.
        is_understood: False if the tokenizer knows no word of the text.
    """

    embedding: NDArray[np.float32]
    salience: NDArray[np.float32]
    parts: tuple[QueryPart, ...] | None = None
    warnings: tuple[QueryWarning, ...] = ()
    is_understood: bool = True

    def __post_init__(self) -> None:
        for name, values in (("embedding", self.embedding), ("salience", self.salience)):
            if values.ndim != 1:
                raise ValueError(f"{name} has shape {list(values.shape)}: pass that of one query")
        if self.parts is not None and not self.parts:
            raise ValueError("parts is empty: pass at least one part, or None")


def encode_text_query(bundle: Bundle, text: str, *, tokens: bool, name: TextName = "query") -> EncodedQuery:
    """Encode a text, which must be understood. `name` is what messages call it.

    Raises:
        NotUnderstoodError: the tokenizer knows no word of the text.
        QueryError: the text has no token.
        BundleError: the model fails.
    """
    reading = bundle.text_reader.read(text, MAX_PARTS)
    if not reading.is_understood:
        raise NotUnderstoodError(not_understood_message(reading, name, _languages(bundle)), f"/{name}/text")
    return _encode(bundle, [reading], tokens, name)[0]


def encode_text_queries(bundle: Bundle, texts: Sequence[str], *, tokens: bool) -> list[EncodedQuery]:
    """Encode texts in one batch, one query per text, also those that are not understood.

    Args:
        bundle: the model.
        texts: at least one.
        tokens: also compute the tokens, which the matching head needs.

    Raises:
        QueryError: a text has no token.
        BundleError: the model fails.
    """
    return _encode(bundle, [bundle.text_reader.read(text, MAX_PARTS) for text in texts], tokens, "query")


def _encode(
    bundle: Bundle, readings: Sequence[TextReading], tokens: bool, name: TextName
) -> list[EncodedQuery]:
    try:
        encoding = bundle.encode_text([part for reading in readings for part in reading.parts], tokens=tokens)
    except ValueError as error:
        raise QueryError(f"The model cannot read the {name}: {error}.", f"/{name}/text") from error
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
