"""The arithmetic of re-ranking, each fast path against a naive one."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from model.evaluation.rerank import (
    Reranking,
    best_lambda,
    best_of_videos,
    global_ranks,
    nearest,
    pairs_to_match,
    salient_match,
    sweep,
    tune_lambda,
)

Q, V, N, F = 14, 9, 5, 20


class World:
    """Random scores of texts and segments; videos have one to three segments, segments one to N frames."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.owner = np.repeat(np.arange(V), rng.integers(1, 4, V))
        segments = len(self.owner)
        self.target = np.concatenate([np.arange(V), rng.integers(0, V, Q - V)])
        self.similarity = rng.normal(size=(Q, segments)).astype(np.float32)
        self.match = rng.normal(size=(Q, segments)).astype(np.float32)
        self.logits = rng.normal(size=(Q, F)).astype(np.float32)
        self.relevance = rng.normal(size=(Q, F)).astype(np.float32)
        self.slots = rng.integers(0, F, (segments, N))
        self.counts = rng.integers(1, N + 1, segments)


def naive_match(world: World, n: int) -> NDArray[np.float64]:
    """The mean logit of the n most relevant real frames, by loops."""
    result = np.zeros(world.similarity.shape)
    for q in range(Q):
        for g in range(len(world.owner)):
            frames = [int(f) for f in world.slots[g][: world.counts[g]]]
            best = sorted(frames, key=lambda f: -world.relevance[q, f])[:n]
            result[q, g] = sum(float(world.logits[q, f]) for f in best) / len(best)
    return result


def naive_order(pairs: list[tuple[float, float, bool]]) -> list[int]:
    """Columns best first: the re-ranked by score, then the others by similarity."""
    block = sorted((i for i, p in enumerate(pairs) if p[2]), key=lambda i: -pairs[i][0])
    tail = sorted((i for i, p in enumerate(pairs) if not p[2]), key=lambda i: -pairs[i][1])
    return block + tail


def naive_ranks(world: World, lam: float, count: int) -> tuple[list[int], list[int]]:
    """Ranks of both directions, by sorting lists."""
    score = world.match.astype(float) + lam * world.similarity.astype(float)
    forwards = []
    for q in range(Q):
        near = set(np.argsort(-world.similarity[q], kind="stable")[:count].tolist())
        order = naive_order(
            [(score[q, g], world.similarity[q, g], g in near) for g in range(len(world.owner))]
        )
        videos = list(dict.fromkeys(int(world.owner[g]) for g in order))
        forwards.append(1 + videos.index(int(world.target[q])))
    backwards = []
    for video in range(V):
        own = world.owner == video
        similarity, best = world.similarity[:, own].max(1), score[:, own].max(1)
        near = set(np.argsort(-similarity, kind="stable")[:count].tolist())
        order = naive_order([(best[q], similarity[q], q in near) for q in range(Q)])
        first = next(i for i, q in enumerate(order) if world.target[q] == video)
        backwards.append(1 + first)
    return forwards, backwards


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("count", [1, 4, 100])
@pytest.mark.parametrize("lam", [0.0, 0.7, 30.0])
def test_ranks_equal_those_of_sorted_lists(seed: int, count: int, lam: float) -> None:
    world = World(seed)
    # A pair that nothing reads must not matter.
    wanted = pairs_to_match(world.similarity, world.owner, count)
    match = np.where(wanted, world.match, np.nan).astype(np.float32)
    ranks = Reranking(world.similarity, match, world.target, world.owner, count).ranks(lam)
    forwards, backwards = naive_ranks(world, lam, count)
    assert ranks.text_to_video.tolist() == forwards
    assert ranks.video_to_text.tolist() == backwards


def test_all_pairs_are_as_many_candidates_as_there_are() -> None:
    world = World(5)
    arguments = world.similarity, world.match, world.target, world.owner
    one, other = (Reranking(*arguments, count).ranks(0.5) for count in (None, 1000))
    np.testing.assert_array_equal(one.text_to_video, other.text_to_video)
    np.testing.assert_array_equal(one.video_to_text, other.video_to_text)


def test_the_tail_keeps_its_order_below_the_block() -> None:
    # By similarity 0 … 5; the match would reverse it, but only the first three are re-ranked.
    similarity = np.array([[0.9, 0.8, 0.7, 0.6, 0.5, 0.4]], np.float32)
    match = np.array([[1.0, 2.0, 3.0, 9.0, 9.0, 9.0]], np.float32)
    for target, rank in enumerate([3, 2, 1, 4, 5, 6]):
        ranks = Reranking(similarity, match, np.array([target]), num_candidates=3).ranks(0.0)
        assert ranks.text_to_video.tolist() == [rank]


def test_a_video_is_ranked_by_its_best_text_and_its_others_do_not_stand_in_its_way() -> None:
    similarity = np.zeros((4, 2), np.float32)
    similarity[:, 1] = [0.1, 0.2, 0.3, 0.4]
    similarity[:, 0] = [0.4, 0.3, 0.2, 0.1]
    # Video 1 owns texts 2 and 3, and matches 2 best; text 0 of the other video comes between them.
    match = np.array([[5.0, 3.0], [1.0, 0.5], [0.0, 4.0], [0.0, 2.0]], np.float32)
    ranks = Reranking(similarity, match, np.array([0, 0, 1, 1])).ranks(0.0)
    assert ranks.video_to_text.tolist() == [1, 1]
    match[0, 1] = 4.5
    assert Reranking(similarity, match, np.array([0, 0, 1, 1])).ranks(0.0).video_to_text.tolist() == [1, 2]


def test_ties_count_half_and_are_told() -> None:
    similarity = np.array([[0.5, 0.5, 0.1]], np.float32)
    with pytest.warns(UserWarning, match="1 of 1 targets score the same"):
        assert global_ranks(similarity, np.array([0])).text_to_video.tolist() == [1.5]
    with pytest.warns(UserWarning, match="1 of 1 targets score the same"):
        ranks = Reranking(similarity, np.array([[2.0, 1.0, 2.0]]), np.array([0])).ranks(0.0)
    assert ranks.text_to_video.tolist() == [1.5]


def test_of_equal_columns_the_earlier_are_candidates() -> None:
    similarity = np.array([[1.0, 2.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]], np.float32)
    np.testing.assert_array_equal(
        nearest(similarity, 2), [[True, True, False, False], [True, True, False, False]]
    )
    assert nearest(similarity, None).all()
    with pytest.raises(ValueError, match="num_candidates is 0: re-rank at least 1"):
        nearest(similarity, 0)


def test_a_missing_score_among_the_candidates_is_named() -> None:
    match = np.array([[1.0, np.nan]], np.float32)
    with pytest.raises(ValueError, match=r"pair \[0, 1\] is NaN: score every candidate first"):
        Reranking(np.eye(1, 2, dtype=np.float32), match, np.array([0])).ranks(1.0)


def test_videos_score_as_their_best_segment_in_any_order_of_segments() -> None:
    rng = np.random.default_rng(0)
    owner = np.array([2, 0, 1, 0, 2, 2])
    scores = rng.normal(size=(3, 6))
    expected = [[max(row[owner == v]) for v in range(3)] for row in scores]
    np.testing.assert_array_equal(best_of_videos(scores, owner), expected)
    swapped = np.array([1, 0, 2])
    np.testing.assert_array_equal(best_of_videos(scores[:, :3], swapped), scores[:, [1, 0, 2]])


@pytest.mark.parametrize("seed", range(3))
def test_one_pass_of_logits_gives_every_number_of_salient_frames(seed: int) -> None:
    world = World(seed)
    numbers = (1, 2, 3, N, 16)
    found = sweep(world.logits, world.relevance, world.slots, world.counts, numbers)
    assert list(found) == list(numbers)
    for n in numbers:
        np.testing.assert_allclose(found[n], naive_match(world, n), atol=1e-5)


def test_only_salient_frames_are_read() -> None:
    logits = np.array([np.nan, 3.0, 1.0], np.float32)
    relevance = np.array([[0.1, 0.9, 0.5], [0.3, 0.2, 0.9]], np.float32)
    slots = np.array([[0, 1, 2], [2, 0, 0]])
    found = salient_match(logits, relevance, slots, np.array([3, 1]), (1, 2))
    assert found[1].tolist() == [3.0, 1.0]
    assert found[2].tolist() == [2.0, 1.0]


def test_metrics_hold_both_directions() -> None:
    world = World(1)
    reranking = Reranking(world.similarity, world.match, world.target, world.owner, 4)
    by_similarity = global_ranks(world.similarity, world.target, world.owner)
    for ranks in (by_similarity, reranking.ranks(0.0), reranking.ranks(0.5)):
        block = ranks.metrics()
        assert list(block) == ["text_to_video", "video_to_text", "R@SUM"]
        assert block["text_to_video"]["n"] == Q
        assert block["video_to_text"]["n"] == V
        recalls = [
            block[way][k] for way in ("text_to_video", "video_to_text") for k in ("R@1", "R@5", "R@10")
        ]
        assert block["R@SUM"] == pytest.approx(sum(recalls))


def test_lambda_is_found_where_both_parts_are_needed() -> None:
    """Similarity finds a pair, the match the right one of it: only a λ between ranks everything first.

    With the right one at (similarity 1, match 0), its neighbour at (1, -1) and the others at (0, 8), it is
    above the others where λ > 8; every other neighbour's similarity is 0.009 too high: it wins at λ > 111.
    """
    count = 40
    similarity, match = np.zeros((count, count)), np.full((count, count), 8.0)
    for q in range(count):
        similarity[q, q], match[q, q] = 1.0, 0.0
        neighbour = (q + 1) % count
        similarity[q, neighbour], match[q, neighbour] = 1.0 + 0.009 * (q % 2), -1.0
    # Others differ a little, so that nothing ties.
    similarity += np.linspace(0, 1e-4, count)[None, :] * (similarity == 0)
    lam, tried = tune_lambda(similarity, match, np.arange(count))
    by_lambda = {row["lambda"]: row["R@1"] for row in tried}
    assert by_lambda[0.0] == 0
    assert by_lambda[1000.0] == 50
    assert by_lambda[lam] == 100
    assert 8 < lam < 111


def test_of_equal_lambdas_the_middle_is_chosen() -> None:
    def row(lam: float, first: float, total: float) -> dict[str, float]:
        return {"lambda": lam, "R@1": first, "R@SUM": total}

    tried = [row(0, 10, 90), row(1, 20, 80), row(2, 20, 85), row(4, 20, 85), row(8, 20, 85), row(16, 19, 99)]
    assert best_lambda(tried) == 4
    with pytest.raises(ValueError, match="no λ to try"):
        tune_lambda(np.eye(2), np.eye(2), np.arange(2), grid=())
