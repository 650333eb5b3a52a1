"""Frame tokens made small: int8 within half a step, merging as a naive loop does it."""

import numpy as np
import pytest

from model.runtime.tokens import QuantisedTokens, check_count, dequantise, merge_tokens, quantise


def random_tokens(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# int8


@pytest.mark.parametrize("size", [1e-2, 1.0, 37.0, 1500.0])
def test_the_error_of_int8_is_at_most_half_a_step_of_its_token(size: float) -> None:
    # Tokens of very different lengths: each has its own scale.
    lengths = size * np.geomspace(1, 1000, 35).reshape(5, 7, 1)
    tokens = (random_tokens(5, 7, 64) * lengths).astype(np.float32)
    stored = quantise(tokens)
    assert (stored.values.dtype, stored.scale.dtype) == (np.dtype(np.int8), np.dtype(np.float16))
    error = np.abs(dequantise(stored) - tokens).max(axis=2)
    largest = np.abs(tokens).max(axis=2)
    assert (error <= 0.5005 * stored.scale.astype(np.float64)).all()
    assert (error <= largest / 254 * 1.002).all()
    # Every level is used: a scale too large would lose precision.
    assert (np.abs(stored.values).max(axis=2) >= 126).all()
    assert stored.values.min() >= -127


def test_int8_of_a_token_that_is_hardly_there() -> None:
    tokens = np.zeros((1, 3, 4), np.float32)
    tokens[0, 1] = 1e-9
    tokens[0, 2] = [3e-6, -3e-6, 1e-6, 0]
    stored = quantise(tokens)
    assert not dequantise(stored)[0, 0].any()
    assert np.abs(dequantise(stored) - tokens).max() < 1e-7


def test_int8_keeps_signs_and_parts_of_frames() -> None:
    tokens = random_tokens(4, 3, 8)
    np.testing.assert_array_equal(quantise(-tokens).values, -quantise(tokens).values)
    part = quantise(tokens)[1:3]
    assert len(part) == 2
    np.testing.assert_array_equal(dequantise(part), dequantise(quantise(tokens))[1:3])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e7])
def test_what_int8_cannot_store_is_refused(value: float) -> None:
    tokens = random_tokens(2, 3, 4)
    tokens[1, 2, 3] = value
    with pytest.raises(ValueError, match="cannot store"):
        quantise(tokens)


def test_wrong_shapes() -> None:
    with pytest.raises(ValueError, match=r"\[3, 4\]: pass \[F, P, H\]"):
        quantise(random_tokens(3, 4))
    with pytest.raises(ValueError, match=r"\[3, 4\]: pass \[F, P, H\]"):
        merge_tokens(random_tokens(3, 4), 2)
    with pytest.raises(ValueError, match=r"scale \[2\]"):
        QuantisedTokens(np.zeros((2, 3, 4), np.int8), np.zeros(2, np.float16))


# Merging


def naive_merge(frame: np.ndarray, count: int) -> np.ndarray:
    """One frame's tokens, [P, H], merged with loops."""
    tokens = [(token.astype(np.float64), 1.0) for token in frame]
    while len(tokens) > count:
        sources, targets = range(1, len(tokens), 2), range(2, len(tokens), 2)
        edges = []
        for source in sources:
            cosines = []
            for target in targets:
                a, b = tokens[source][0], tokens[target][0]
                cosines.append(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))
            edges.append((-max(cosines), source, targets[int(np.argmax(cosines))]))
        merges = min(len(tokens) - count, max(1, len(sources) // 2))
        gone = set()
        sums = {target: (tokens[target][0] * tokens[target][1], tokens[target][1]) for target in targets}
        for _, source, target in sorted(edges)[:merges]:
            vector, size = tokens[source]
            sums[target] = (sums[target][0] + vector * size, sums[target][1] + size)
            gone.add(source)
        for target, (total, size) in sums.items():
            tokens[target] = (total / size, size)
        tokens = [token for i, token in enumerate(tokens) if i not in gone]
    return np.array([vector for vector, _ in tokens])


@pytest.mark.parametrize(("present", "count"), [(49, 24), (49, 12), (50, 13), (5, 2), (4, 3), (3, 2), (2, 2)])
def test_merging_is_what_loops_give(present: int, count: int) -> None:
    tokens = random_tokens(6, present, 16, seed=present)
    merged = merge_tokens(tokens, count)
    assert merged.shape == (6, count, 16)
    assert merged.dtype == np.float32
    for frame, expected in zip(merged, tokens, strict=True):
        np.testing.assert_allclose(frame, naive_merge(expected, count), atol=1e-5)


def test_each_frame_is_merged_on_its_own_and_always_alike() -> None:
    tokens = random_tokens(5, 20, 8)
    whole = merge_tokens(tokens, 7)
    for i in range(5):
        np.testing.assert_allclose(merge_tokens(tokens[i : i + 1], 7)[0], whole[i], atol=1e-6)
    np.testing.assert_array_equal(merge_tokens(tokens, 7), whole)


def test_the_first_token_and_an_odd_one_out_stay_and_equal_ones_become_one() -> None:
    a, b, odd = np.eye(3, 8, dtype=np.float32)
    frame = np.stack([random_tokens(8), *[a] * 6, odd, *[b] * 6])
    before = frame.copy()
    merged = merge_tokens(frame[None], 4)[0]
    np.testing.assert_array_equal(frame, before)
    np.testing.assert_array_equal(merged[0], frame[0])
    np.testing.assert_allclose(merged[1:], [a, odd, b], atol=1e-6)


def test_the_mean_is_weighted_by_what_each_token_stands_for() -> None:
    base = np.zeros((1, 5, 2), np.float32)
    base[0, :, 0] = 1
    base[0, 1:, 1] = [0.0, 0.3, 0.6, 0.9]
    merged = merge_tokens(base, 2)[0]
    np.testing.assert_allclose(merged[1], base[0, 1:].mean(axis=0), atol=1e-6)


def test_nothing_to_merge() -> None:
    tokens = random_tokens(2, 4, 3)
    np.testing.assert_array_equal(merge_tokens(tokens, 4), tokens)
    np.testing.assert_array_equal(merge_tokens(tokens[:, :1], 1), tokens[:, :1])
    assert merge_tokens(tokens[:0], 2).shape == (0, 2, 3)


@pytest.mark.parametrize(("count", "present"), [(1, 4), (0, 4), (5, 4), (-1, 4), (2, 1), (0, 1)])
def test_counts_that_cannot_be(count: int, present: int) -> None:
    with pytest.raises(ValueError, match=rf"{present} tokens per frame cannot be merged to {count}: choose"):
        merge_tokens(random_tokens(1, present, 3), count)
    with pytest.raises(ValueError, match="cannot be merged"):
        check_count(count, present)
