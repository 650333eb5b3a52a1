"""Full stops at the end of captions."""

from __future__ import annotations

import numpy as np
import pytest

from model.data.full_stops import with_other_stop


@pytest.mark.parametrize(
    ("text", "other"),
    [("a dog runs .", "a dog runs"), ("a dog runs. ", "a dog runs"), ("a dog runs", "a dog runs.")],
)
def test_a_stop_is_taken_away_or_put_there(text: str, other: str) -> None:
    rng = np.random.default_rng(0)
    assert with_other_stop(text, 1.0, rng) == other
    assert with_other_stop(text, 0.0, rng) == text


def test_the_share_decides_how_many_texts_are_changed() -> None:
    rng = np.random.default_rng(0)
    changed = sum(with_other_stop("a dog runs", 0.3, rng) != "a dog runs" for _ in range(2000))
    assert 0.25 < changed / 2000 < 0.35
