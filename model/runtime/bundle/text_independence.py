"""Measures whether a text encoder gives a text the same encoding alone and beside other texts.

Shapes: L text tokens, T width of their tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from model.runtime.bundle.reader import Bundle

# Calls hold texts of similar length (`text_calls`): there are two of each.
_TEXTS = (
    "red",
    "sea",
    "a dog runs along the beach",
    "beach the along runs dog a",
    "two people in front of a house, a red car that passes by at night, and the sea far behind it",
    "it behind far sea the and, night at by passes that car red a, house a of front in people two",
)
#: By how much of their length encodings may differ: half floats differ by less where a call is larger,
#: activations of 8 bits by more.
_TOLERANCE = 2e-3


def encodes_texts_apart(bundle: Bundle) -> bool:
    """Whether texts of several lengths have the same encodings alone and together, but for rounding.

    Raises:
        BundleError: the text encoder fails.
    """
    sizes = bundle.manifest.tokens
    tokens = sizes is not None and sizes.text_hidden_dim is not None
    together = bundle.encode_text(_TEXTS, tokens=tokens)
    for row, text in enumerate(_TEXTS):
        alone = bundle.encode_text([text], tokens=tokens)
        length = alone.attention_mask.shape[1]
        pairs = [(alone.embedding[0], together.embedding[row]), (alone.salience[0], together.salience[row])]
        if alone.tokens is not None and together.tokens is not None:
            is_token = alone.attention_mask[0] > 0
            pairs.append((alone.tokens[0][is_token], together.tokens[row, :length][is_token]))
        if not all(_is_same(*pair) for pair in pairs):
            return False
    return True


def _is_same(alone: NDArray[np.float32], together: NDArray[np.float32]) -> bool:
    """Whether arrays of one shape differ by little of their length."""
    return bool(np.linalg.norm(alone - together) <= _TOLERANCE * max(1.0, float(np.linalg.norm(alone))))
