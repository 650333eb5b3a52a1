"""Openings before captions."""

from __future__ import annotations

import numpy as np

from model.data.openings import OPENINGS, with_opening


def test_the_share_decides_how_many_texts_get_an_opening_and_each_opening_comes() -> None:
    rng = np.random.default_rng(0)
    texts = [with_opening("a dog runs", 0.3, rng) for _ in range(2000)]
    plain = texts.count("a dog runs")
    assert 0.65 < plain / len(texts) < 0.75
    assert {text.removesuffix(" a dog runs") for text in texts} == {"a dog runs", *OPENINGS}


def test_no_share_and_the_whole() -> None:
    rng = np.random.default_rng(0)
    assert with_opening("a cat", 0.0, rng) == "a cat"
    assert all(with_opening("a cat", 1.0, rng).endswith(" a cat") for _ in range(20))
