"""A query as the stages of a search take it.

Shapes: D joint space, S salience.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.runtime.bundle import Bundle, TextEncoding
from service.errors import QueryError


@dataclass(frozen=True)
class EncodedQuery:
    """One query, whatever it was made from.

    Retrieval reads `embedding`, the relevance of frames reads `salience`, and the matching head reads `text`:
    a query without a text is retrieved but not re-ranked.

    Attributes:
        embedding: float32, shape [D], of unit length.
        salience: float32, shape [S].
        text: a text's tokens, attention mask and input ids, as the matching head takes them: an encoding of
            this one text. None where the query is not a text.
    """

    embedding: NDArray[np.float32]
    salience: NDArray[np.float32]
    text: TextEncoding | None = None

    def __post_init__(self) -> None:
        for name, values in (("embedding", self.embedding), ("salience", self.salience)):
            if values.ndim != 1:
                raise ValueError(f"{name} has shape {list(values.shape)}: pass that of one query")
        if self.text is not None and len(self.text.attention_mask) != 1:
            raise ValueError(f"text holds {len(self.text.attention_mask)} texts: pass one")


def encode_text_queries(bundle: Bundle, texts: Sequence[str], *, tokens: bool) -> list[EncodedQuery]:
    """Encode texts in one batch.

    Args:
        bundle: encodes them.
        texts: at least one.
        tokens: also compute the tokens, which the matching head needs.

    Raises:
        QueryError: the model reads nothing in a text.
        BundleError: the model fails.
    """
    try:
        encoding = bundle.encode_text(texts, tokens=tokens)
    except ValueError as error:
        raise QueryError(f"The model reads nothing in the query: {error}.", "/query/text") from error
    return [
        EncodedQuery(encoding.embedding[row], encoding.salience[row], _one_text(encoding, row))
        for row in range(len(texts))
    ]


def _one_text(texts: TextEncoding, row: int) -> TextEncoding:
    part = slice(row, row + 1)
    return TextEncoding(
        texts.embedding[part],
        texts.salience[part],
        None if texts.tokens is None else texts.tokens[part],
        texts.attention_mask[part],
        texts.input_ids[part],
    )
