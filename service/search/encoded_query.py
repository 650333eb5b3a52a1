"""An encoded query: the form in which the stages of a search use it.

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
    """One query, made from a text or from something else.

    Retrieval uses `embedding`, the relevance of frames uses `salience`, and the matching head uses `text`:
    without a text, the nearest segments are retrieved but not re-ranked.

    Attributes:
        embedding: float32, shape [D], of unit length.
        salience: float32, shape [S].
        text: the encoding of this one text, with the tokens that the matching head reads. None if the query
            is not a text.
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
    """Encode texts in one batch, one query per text.

    Args:
        bundle: the model.
        texts: at least one.
        tokens: also compute the tokens, which the matching head needs.

    Raises:
        QueryError: a text has no token.
        BundleError: the model fails.
    """
    try:
        encoding = bundle.encode_text(texts, tokens=tokens)
    except ValueError as error:
        raise QueryError(f"The model cannot read the query: {error}.", "/query/text") from error
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
