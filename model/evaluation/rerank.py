"""From similarities and match logits to ranks, in both directions: the arithmetic of evaluation, over arrays.

The scores are those of `model.runtime.ranking`, which serving uses too.
Shapes: Q texts, G segments (what is retrieved and re-ranked), V videos (a video scores as its best segment),
F distinct frames, N frame slots, K candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.arrays import Array, Floats, Rows
from model.runtime.ranking import ensemble, match_score, select_salient, tail_scores
from model.runtime.retrieval_metrics import Ranks, retrieval_metrics, text_to_video, video_to_text

#: λ by default tried when it is tuned: 0, and six a decade from 0.1 to 1,000
LAMBDA_GRID: tuple[float, ...] = (0.0, *(float(f"{10 ** (k / 6):.3g}") for k in range(-6, 19)))


def best_of_videos(scores: Floats, owner: Rows) -> Floats:
    """Each video's best segment. [Q, G], [G] (the video of each segment; every video has one) → [Q, V]."""
    order = np.argsort(owner, kind="stable")
    starts = np.searchsorted(owner[order], np.arange(owner.max() + 1))
    if len(starts) == len(owner):
        return scores[:, order]
    best: Floats = np.maximum.reduceat(scores[:, order], starts, axis=1)
    return best


def nearest(similarity: Floats, count: int | None) -> NDArray[np.bool_]:
    """Which columns are among the `count` highest of each row, the earlier of equal ones; None: all of them.

    Shape [R, C] → [R, C].

    Raises:
        ValueError: `count` is below 1.
    """
    if count is not None and count < 1:
        raise ValueError(f"num_candidates is {count}: re-rank at least 1")
    if count is None or count >= similarity.shape[1]:
        return np.ones(similarity.shape, np.bool_)
    chosen = np.zeros(similarity.shape, np.bool_)
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
    np.put_along_axis(chosen, order, True, axis=1)
    return chosen


def wanted_pairs(similarity: Floats, owner: Rows, num_candidates: int | None) -> NDArray[np.bool_]:
    """The pairs whose match both directions read: a text's K nearest segments, and all segments of a video
    for its K nearest texts. [Q, G], [G] → [Q, G]; `num_candidates` None: every pair.
    """
    backwards = nearest(best_of_videos(similarity, owner).T, num_candidates).T
    return nearest(similarity, num_candidates) | backwards[:, owner]


def salient_match(
    logits: Floats, relevance: Floats, slots: Rows, counts: Rows, num_salient: Sequence[int]
) -> dict[int, Array]:
    """One text's match score of every segment for several N_salient, from one logit a distinct frame.

    Args:
        logits: of the text and each distinct frame, shape [F]; only those of salient frames are read.
        relevance: of each frame slot for the text, shape [G, N].
        slots: the distinct frame that each slot shows, shape [G, N].
        counts: real frames of each segment, the first of its slots, shape [G].
        num_salient: the numbers of salient frames to score by.

    Returns:
        for each of them the scores, shape [G].
    """
    index, mask = select_salient(relevance, counts, max(num_salient))
    frames = np.take_along_axis(slots, index, axis=1)
    chosen = logits[frames].astype(np.float32)
    return {n: match_score(chosen[:, :n], mask[:, :n]).astype(np.float32) for n in num_salient}


def sweep(
    logits: Floats, relevance: Floats, slots: Rows, counts: Rows, num_salient: Sequence[int]
) -> dict[int, Array]:
    """As `salient_match` for all pairs: another strategy is another `relevance` over the same logits.

    Args:
        logits: shape [Q, F].
        relevance: of each distinct frame for each text, shape [Q, F].
        slots: shape [G, N].
        counts: shape [G].
        num_salient: the numbers of salient frames to score by.

    Returns:
        for each of them the scores, shape [Q, G].
    """
    rows = [
        salient_match(logit, relevant[slots], slots, counts, num_salient)
        for logit, relevant in zip(logits, relevance, strict=True)
    ]
    return {n: np.stack([row[n] for row in rows]) for n in num_salient}


def joined_scores(pairs: Floats, similarity: Floats, block: NDArray[np.bool_], lam: float) -> Floats:
    """Each row's ranking: the block by its scores, below it the others in the order of similarity.

    Args:
        pairs: match + λ · similarity, shape [R, C]; read only in the block.
        similarity: shape [R, C].
        block: what is re-ranked, shape [R, C].
        lam: λ.

    Returns:
        shape [R, C], higher is better.

    Raises:
        ValueError: a score of the block is NaN.
    """
    scores = np.where(block, pairs, -np.inf)
    if np.isnan(scores).any():
        row, column = np.argwhere(np.isnan(scores))[0]
        raise ValueError(f"the match score of pair [{row}, {column}] is NaN: score every candidate first")
    for row in np.flatnonzero(~block.all(axis=1)):
        tail = ~block[row]
        scores[row, tail] = tail_scores(scores[row, block[row]], similarity[row, tail], lam)
    return scores


@dataclass(frozen=True)
class BothRanks:
    """Ranks of each text's video [Q], and of the best text of each video that has one."""

    text_to_video: Ranks
    video_to_text: Ranks

    def metrics(self) -> dict[str, Any]:
        """R@1, R@5, R@10, MdR and MnR of both directions, and the sum of their six recalls."""
        both = {
            "text_to_video": retrieval_metrics(self.text_to_video),
            "video_to_text": retrieval_metrics(self.video_to_text),
        }
        total = sum(way[k] for way in both.values() for k in ("R@1", "R@5", "R@10"))
        return {**both, "R@SUM": total}


def global_ranks(similarity: Floats, target: Rows, owner: Rows | None = None) -> BothRanks:
    """Ranks by similarity alone [Q, G]; `target` [Q] is each text's video, `owner` [G] each segment's."""
    videos = _by_video(similarity, owner)
    return BothRanks(text_to_video(videos, target), video_to_text(videos, target))


class Reranking:
    """One set of scored pairs, ranked by any λ. From text to video a text's K nearest segments are re-ranked,
    from video to text all segments of a video for its K nearest texts.
    """

    def __init__(
        self,
        similarity: Floats,
        match: Floats,
        target: Rows,
        owner: Rows | None = None,
        num_candidates: int | None = None,
    ) -> None:
        """Choose the candidates.

        Args:
            similarity: shape [Q, G].
            match: shape [Q, G]; read where `wanted_pairs` is true.
            target: the video of each text, shape [Q].
            owner: the video of each segment, shape [G]; None: each is its own.
            num_candidates: K; None: all pairs.
        """
        self._similarity, self._match, self._target = similarity, match, target
        self._owner = owner
        self._near = _by_video(similarity, owner)
        self._forwards = nearest(similarity, num_candidates)
        self._backwards = nearest(self._near.T, num_candidates)

    def scores(self, lam: float) -> tuple[Floats, Floats]:
        """What is ranked: by match + λ · similarity; 0 ranks by the match alone ("local").

        Returns:
            each text's scores of the videos, as a search gives them [Q, V]; each video's of the texts [V, Q].

        Raises:
            InputError: a match score that is read is NaN.
        """
        pairs = ensemble(self._match, self._similarity, lam)
        forwards = _by_video(joined_scores(pairs, self._similarity, self._forwards, lam), self._owner)
        backwards = joined_scores(_by_video(pairs, self._owner).T, self._near.T, self._backwards, lam)
        return forwards, backwards

    def ranks(self, lam: float) -> BothRanks:
        """Ranks by `scores`."""
        forwards, backwards = self.scores(lam)
        return BothRanks(text_to_video(forwards, self._target), video_to_text(backwards.T, self._target))


def tune_lambda(
    similarity: Floats,
    match: Floats,
    target: Rows,
    owner: Rows | None = None,
    num_candidates: int | None = None,
    grid: Sequence[float] = LAMBDA_GRID,
) -> tuple[float, list[dict[str, float]]]:
    """The λ with the highest R@1 from text to video, then the highest R@SUM; of equal ones the middle.

    Returns:
        λ, and for each one tried {"lambda", "R@1", "R@SUM"}.

    Raises:
        ValueError: an empty grid.
    """
    if not grid:
        raise ValueError("no λ to try: pass at least one")
    reranking = Reranking(similarity, match, target, owner, num_candidates)
    tried = []
    for lam in grid:
        metrics = reranking.ranks(lam).metrics()
        row = {"lambda": float(lam), "R@1": metrics["text_to_video"]["R@1"], "R@SUM": metrics["R@SUM"]}
        tried.append(row)
    return best_lambda(tried), tried


def best_lambda(tried: Sequence[Mapping[str, float]]) -> float:
    """The choice of `tune_lambda` among rows of {"lambda", "R@1", "R@SUM"}."""
    top = max((row["R@1"], row["R@SUM"]) for row in tried)
    # Equal ones are neighbours, as a rule: the middle is the furthest from where it gets worse.
    equal = sorted(row["lambda"] for row in tried if (row["R@1"], row["R@SUM"]) == top)
    return equal[(len(equal) - 1) // 2]


def _by_video(scores: Floats, owner: Rows | None) -> Floats:
    return scores if owner is None else best_of_videos(scores, owner)
