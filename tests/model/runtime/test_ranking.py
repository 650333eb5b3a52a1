"""Re-ranking, against loops: salient frames, match score, ensemble, the tail."""

import numpy as np
import pytest

from model.runtime.ranking import ensemble, match_score, relevance, select_salient, tail_scores


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_relevance_is_a_dot_product_a_frame(rng: np.random.Generator) -> None:
    frames = rng.normal(size=(5, 4, 6)).astype(np.float32)
    text = rng.normal(size=6).astype(np.float32)
    found = relevance(frames, text)
    for k in range(5):
        for n in range(4):
            assert found[k, n] == pytest.approx(sum(frames[k, n, s] * text[s] for s in range(6)), abs=1e-5)
    with pytest.raises(ValueError, match=r"\[5, 4, 6\] and text_salience \[5\]"):
        relevance(frames, text[:5])


@pytest.mark.parametrize("n", [1, 2, 3, 8, 20])
def test_salient_frames_are_those_that_loops_find(rng: np.random.Generator, n: int) -> None:
    # Rounded, so that there are ties; padding has the highest relevance and must not be chosen.
    values = rng.normal(size=(40, 8)).round(0).astype(np.float32)
    counts = rng.integers(1, 9, 40)
    values[np.arange(8)[None] >= counts[:, None]] = 99
    index, mask = select_salient(values, counts, n)
    assert index.shape == mask.shape == (40, n)
    for k in range(40):
        expected = sorted(range(counts[k]), key=lambda i: (-values[k, i], i))[:n]
        assert index[k, mask[k]].tolist() == expected
        assert mask[k].tolist() == [i < len(expected) for i in range(n)]
        assert not index[k, ~mask[k]].any()


def test_no_candidates() -> None:
    index, mask = select_salient(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), 2)
    assert index.shape == mask.shape == (0, 2)
    assert match_score(np.zeros((0, 2), np.float32), mask).shape == (0,)


@pytest.mark.parametrize(
    ("counts", "n", "message"),
    [([1, 4], 0, "n is 0"), ([0, 4], 2, "0 to 4"), ([1, 5], 2, "1 to 5"), ([1], 2, r"counts \[1\]")],
)
def test_wrong_choices(counts: list[int], n: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select_salient(np.zeros((2, 4), np.float32), np.array(counts), n)


def test_match_score_is_the_mean_over_the_chosen_frames(rng: np.random.Generator) -> None:
    logits = rng.normal(size=(20, 4)).astype(np.float32)
    mask = np.arange(4)[None] < rng.integers(1, 5, 20)[:, None]
    logits[~mask] = np.nan
    found = match_score(logits, mask)
    for k in range(20):
        assert found[k] == pytest.approx(np.mean(logits[k][mask[k]]))
    mask[7] = False
    with pytest.raises(ValueError, match=r"mask\[7\] has no frame"):
        match_score(logits, mask)
    with pytest.raises(ValueError, match=r"mask \[20\]"):
        match_score(logits, mask[:, 0])


def test_ensemble() -> None:
    found = ensemble(np.array([1.0, -2.0]), np.array([0.5, 0.25], np.float32), 2.0)
    assert found.tolist() == [2.0, -1.5]


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0, 20.0])
def test_the_tail_stays_below_the_block_in_its_order(rng: np.random.Generator, lam: float) -> None:
    similarity = np.sort(rng.random(50).astype(np.float32))[::-1]
    block = rng.normal(size=10) * 5
    tail = tail_scores(block, similarity, lam)
    assert tail.max() < block.min()
    assert (np.diff(tail) < 0).all()
    if lam:
        np.testing.assert_allclose(np.diff(tail), lam * np.diff(similarity), atol=1e-6)


def test_a_tail_without_a_block_and_a_block_without_a_tail() -> None:
    similarity = np.array([0.5, 0.25])
    np.testing.assert_array_equal(tail_scores(np.zeros(0), similarity, 1.0), similarity)
    assert tail_scores(np.array([1.0]), np.zeros(0), 1.0).shape == (0,)
