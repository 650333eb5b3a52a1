"""Metrics against loops, properties that must hold, and values worked out by hand."""

import warnings
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.runtime.retrieval_metrics import (
    first_places,
    ranks,
    retrieval_metrics,
    text_to_video,
    video_to_text,
)


def naive_ranks(similarity: np.ndarray, target: np.ndarray) -> list[float]:
    """The mean place over both orders of the ties, by counting."""
    result = []
    for row, column in zip(similarity, target, strict=True):
        better = sum(1 for value in row if value > row[column])
        same = sum(1 for j, value in enumerate(row) if value == row[column] and j != column)
        result.append(((better + 1) + (better + same + 1)) / 2)
    return result


def naive_video_to_text(similarity: np.ndarray, owner: np.ndarray) -> list[float]:
    result = []
    for video in sorted(set(owner.tolist())):
        column = similarity[:, video]
        best = max(column[owner == video])
        foreign = [value for value, o in zip(column, owner, strict=True) if o != video]
        better, same = sum(v > best for v in foreign), sum(v == best for v in foreign)
        result.append(1 + better + same / 2)
    return result


def quietly(function: Callable[..., NDArray[np.float64]], *args: object) -> NDArray[np.float64]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*score the same")
        return function(*args)


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Few distinct values, so that ties are common."""
    queries, videos = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    values = st.lists(st.integers(-2, 2), min_size=queries * videos, max_size=queries * videos)
    similarity = np.array(draw(values), np.float32).reshape(queries, videos)
    target = draw(st.lists(st.integers(0, videos - 1), min_size=queries, max_size=queries))
    return similarity, np.array(target)


@given(cases())
def test_ranks_equal_naive(case: tuple[np.ndarray, np.ndarray]) -> None:
    similarity, target = case
    assert quietly(ranks, similarity, target).tolist() == naive_ranks(similarity, target)
    assert quietly(text_to_video, similarity, target).tolist() == naive_ranks(similarity, target)
    assert quietly(video_to_text, similarity, target).tolist() == naive_video_to_text(similarity, target)


@given(cases(), st.randoms(use_true_random=False))
def test_order_does_not_matter(case: tuple[np.ndarray, np.ndarray], random: Random) -> None:
    similarity, target = case
    order = list(range(similarity.shape[1]))
    random.shuffle(order)
    moved = np.argsort(order)[target]
    np.testing.assert_array_equal(
        quietly(ranks, similarity[:, order], moved), quietly(ranks, similarity, target)
    )
    np.testing.assert_array_equal(
        quietly(ranks, similarity * 3 + 1, target), quietly(ranks, similarity, target)
    )


@given(st.lists(st.integers(2, 40).map(lambda x: x / 2), min_size=1, max_size=50))
def test_metrics_are_ordered(values: list[float]) -> None:
    metrics = retrieval_metrics(values)
    assert 0 <= metrics["R@1"] <= metrics["R@5"] <= metrics["R@10"] <= 100
    assert min(values) <= metrics["MdR"] <= max(values)
    assert min(values) <= metrics["MnR"] + 1e-9
    assert metrics["n"] == len(values)


def test_metrics_by_hand() -> None:
    metrics = retrieval_metrics([1, 1, 1.5, 3, 5, 5.5, 10, 11])
    assert metrics == {"n": 8, "R@1": 25.0, "R@5": 62.5, "R@10": 87.5, "MdR": 4.0, "MnR": 4.75}
    assert list(metrics) == ["n", "R@1", "R@5", "R@10", "MdR", "MnR"]


def test_first_places_by_hand() -> None:
    # 10 queries gain their first place and 2 lose it: p = 2 · (1 + 12 + 66) / 2¹².
    before = [2.0] * 10 + [1.0] * 2 + [1.0] * 5 + [7.0] * 3
    after = [1.0] * 10 + [1.5] * 2 + [1.0] * 5 + [2.0] * 3
    changes = first_places(before, after)
    assert changes == {"gained": 10, "lost": 2, "p": pytest.approx(158 / 4096)}
    assert first_places(after, before) == {**changes, "gained": 2, "lost": 10}
    assert first_places(before, before) == {"gained": 0, "lost": 0, "p": 1.0}
    assert first_places([1, 2, 3], [2, 1, 3])["p"] == 1.0
    with pytest.raises(ValueError, match="rank the same queries"):
        first_places([1, 2], [1, 2, 3])


def test_a_model_that_says_the_same_of_everything_is_in_the_middle() -> None:
    with pytest.warns(UserWarning, match="100 of 100 targets score the same"):
        result = ranks(np.zeros((100, 99)), np.arange(100) % 99)
    assert (result == 50).all()


def test_an_even_number_of_ties_warns_too() -> None:
    with pytest.warns(UserWarning, match="1 of 2 targets"):
        assert ranks([[1, 1, 1], [3, 2, 1]], [0, 0]).tolist() == [2, 1]
    with pytest.warns(UserWarning, match="1 of 1 targets"):
        assert ranks(np.full((1, 3), 2.0), [0]).tolist() == [2]


def test_the_best_of_several_texts_counts() -> None:
    # Video 0 has the texts 0 and 1, video 2 has text 2, video 1 has none.
    similarity = np.array([[0.1, 0.0, 0.2], [0.9, 0.0, 0.3], [0.5, 0.0, 0.1]])
    assert video_to_text(similarity, [0, 0, 2]).tolist() == [1, 3]
    # Its own worse text does not stand between a video and its best one.
    assert video_to_text([[0.8], [0.9]], [0, 0]).tolist() == [1]


def test_infinite_scores_have_ranks() -> None:
    assert ranks([[np.inf, 0.0], [-np.inf, 0.0]], [0, 0]).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("similarity", "target", "message"),
    [
        ([[0.0, np.nan]], [0], r"similarity\[0, 1\] is NaN"),
        ([1.0], [0], r"shape \[1\]"),
        (np.zeros((0, 3)), np.zeros(0, int), r"shape \[0, 3\]"),
        (np.zeros((3, 0)), np.zeros(3, int), r"shape \[3, 0\]"),
        ([["a"]], [0], "real numbers"),
        ([[1j]], [0], "real numbers"),
        ([[0.0, 1.0]], [2], r"target\[0\] is 2"),
        ([[0.0, 1.0]], [-1], r"target\[0\] is -1"),
        ([[0.0, 1.0]], [0, 1], r"target is int64 \[2\]"),
        ([[0.0, 1.0]], [0.0], "target is float64"),
    ],
)
@pytest.mark.parametrize("function", [ranks, text_to_video, video_to_text])
def test_wrong_input(
    function: Callable[..., object], similarity: object, target: object, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        function(similarity, target)


@pytest.mark.parametrize("values", [[], [0.5], [np.nan], [[1.0]]])
def test_wrong_ranks(values: list[Any]) -> None:
    with pytest.raises(ValueError, match="ranks"):
        retrieval_metrics(values)
