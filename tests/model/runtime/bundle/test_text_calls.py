"""Texts of one call are of similar length, and each text's encoding is that of the text alone."""

from __future__ import annotations

import numpy as np
import pytest

from model.runtime.bundle import Bundle, default_bundle_path
from model.runtime.bundle.text_calls import CALL_TOKENS, calls_by_length

TEXTS = [
    "a dog",
    "two people in front of a house, a red car that passes by at night, and the sea far behind it",
    "snow",
    "a man in a blue shirt is playing the guitar on a stage",
    "children play football on the beach while it rains",
    "a cat",
]


def cost(calls: list[list[int]]) -> int:
    """Tokens that calls of these lengths take, with what each costs by itself."""
    return sum(CALL_TOKENS + len(call) * max(call) for call in calls)


@pytest.mark.parametrize("seed", range(20))
def test_every_text_is_in_one_call_and_none_is_too_large(seed: int) -> None:
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 64, random.integers(1, 40))
    calls = calls_by_length(lengths, 7, CALL_TOKENS)
    assert sorted(row for call in calls for row in call.tolist()) == list(range(len(lengths)))
    assert all(1 <= len(call) <= 7 for call in calls)
    in_order = [lengths[row] for call in calls for row in call]
    assert in_order == sorted(in_order)


def test_calls_cost_little_more_than_the_cheapest() -> None:
    random = np.random.default_rng(0)
    found = together = alone = best = 0
    for _ in range(60):
        lengths = random.integers(4, 24, 8)
        found += cost([lengths[call].tolist() for call in calls_by_length(lengths, 8, CALL_TOKENS)])
        together += cost([lengths.tolist()])
        alone += cost([[length] for length in lengths.tolist()])
        best += cheapest(sorted(lengths.tolist()))
    assert found < 1.06 * best
    assert found < 0.9 * min(together, alone)


def cheapest(lengths: list[int]) -> int:
    """The least that calls of texts in order of length take."""
    least = [0]
    for stop in range(1, len(lengths) + 1):
        least.append(min(least[first] + cost([lengths[first:stop]]) for first in range(stop)))
    return least[-1]


def test_texts_of_one_length_share_a_call() -> None:
    (call,) = calls_by_length(np.full(9, 12), 64, CALL_TOKENS)
    assert call.tolist() == list(range(9))


def test_each_text_is_encoded_as_alone() -> None:
    bundle = Bundle.open(default_bundle_path())
    together = bundle.encode_text(TEXTS, tokens=True)
    assert together.tokens is not None
    lengths = together.attention_mask.sum(axis=1)
    assert len(calls_by_length(lengths, bundle.max_batch, CALL_TOKENS)) > 1
    for row, text in enumerate(TEXTS):
        alone = bundle.encode_text([text], tokens=True)
        np.testing.assert_allclose(together.embedding[row], alone.embedding[0], atol=1e-5)
        np.testing.assert_allclose(together.salience[row], alone.salience[0], atol=1e-4)
        assert alone.tokens is not None
        length = alone.tokens.shape[1]
        np.testing.assert_allclose(together.tokens[row, :length], alone.tokens[0], atol=1e-3)
