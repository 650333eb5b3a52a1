"""Computes ranks from similarities and match logits, in both directions.

Scores are computed by `model.runtime.ranking`, as in serving.
Shapes: Q texts, G segments (retrieved and re-ranked), V videos (a video scores as its best segment),
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

#: the values of λ that are tried when it is tuned: 0, and six in each decade from 0.1 to 1,000
LAMBDA_GRID: tuple[float, ...] = (0.0, *(float(f"{10 ** (k / 6):.3g}") for k in range(-6, 19)))


def best_of_videos(scores: Floats, owner: Rows) -> Floats:
    """The score of each video's best segment.

    Shapes [Q, G], [G] (the video of each segment; every video has a segment) → [Q, V].
    """
    order = np.argsort(owner, kind="stable")
    starts = np.searchsorted(owner[order], np.arange(owner.max() + 1))
    if len(starts) == len(owner):
        return scores[:, order]
    best: Floats = np.maximum.reduceat(scores[:, order], starts, axis=1)
    return best


def nearest(similarity: Floats, count: int | None) -> NDArray[np.bool_]:
    """Which columns are among the `count` highest of each row; of equal ones the earlier. None: all columns.

    Shape [R, C] → bool [R, C].

    Raises:
        ValueError: `count` is below 1.
    """
    if count is not None and count < 1:
        raise ValueError(f"num_candidates is {count}: re-rank at least 1")
    if count is None or count >= similarity.shape[1]:
        return np.ones(similarity.shape, np.bool_)
    is_near = np.zeros(similarity.shape, np.bool_)
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
    np.put_along_axis(is_near, order, True, axis=1)
    return is_near


def pairs_to_match(similarity: Floats, owner: Rows, num_candidates: int | None) -> NDArray[np.bool_]:
    """The pairs whose match score either direction reads.

    These are a text's K nearest segments, and all segments of a video for its K nearest texts. Shapes [Q, G],
    [G] → bool [Q, G]. `num_candidates` None: all pairs.
    """
    backwards = nearest(best_of_videos(similarity, owner).T, num_candidates).T
    return nearest(similarity, num_candidates) | backwards[:, owner]


def salient_match(
    logits: Floats, relevance: Floats, slots: Rows, counts: Rows, num_salient: Sequence[int]
) -> dict[int, Array]:
    """One text's match score for every segment and several N_salient, from one logit for each distinct frame.

    Args:
        logits: of the text with each distinct frame, shape [F]; only those of salient frames are read.
        relevance: of each frame slot for the text, shape [G, N].
        slots: the distinct frame that each slot shows, shape [G, N].
        counts: real frames of each segment, the first of its slots, shape [G].
        num_salient: the numbers of salient frames to score by.

    Returns:
        for each of them the scores, shape [G].
    """
    index, mask = select_salient(relevance, counts, max(num_salient))
    frames = np.take_along_axis(slots, index, axis=1)
    salient_logits = logits[frames].astype(np.float32)
    return {n: match_score(salient_logits[:, :n], mask[:, :n]).astype(np.float32) for n in num_salient}


def sweep(
    logits: Floats, relevance: Floats, slots: Rows, counts: Rows, num_salient: Sequence[int]
) -> dict[int, Array]:
    """As `salient_match`, for all texts. Strategies of SFP differ in `relevance`, and share the logits.

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
    """Scores that rank each row: the block by its own scores, below it the rest by similarity.

    Args:
        pairs: match + λ · similarity, shape [R, C]; read only in the block.
        similarity: shape [R, C].
        block: which pairs are re-ranked, bool [R, C].
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
    """The rank of each text's video [Q], and of the best text of each video that has a text."""

    text_to_video: Ranks
    video_to_text: Ranks

    def metrics(self) -> dict[str, Any]:
        """R@1, R@5, R@10, MdR and MnR of both directions, and the sum of their six recalls."""
        both = {
            "text_to_video": retrieval_metrics(self.text_to_video),
            "video_to_text": retrieval_metrics(self.video_to_text),
        }
        total = sum(direction[k] for direction in both.values() for k in ("R@1", "R@5", "R@10"))
        return {**both, "R@SUM": total}


def global_ranks(similarity: Floats, target: Rows, owner: Rows | None = None) -> BothRanks:
    """Ranks by similarity [Q, G] alone; `target` [Q] holds each text's video, `owner` [G] each segment's."""
    videos = _by_video(similarity, owner)
    return BothRanks(text_to_video(videos, target), video_to_text(videos, target))


class Reranking:
    """One set of scored pairs, to be ranked by any λ.

    From text to video, a text's K nearest segments are re-ranked; from video to text, all segments of a video
    for its K nearest texts.
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
            match: shape [Q, G]; read where `pairs_to_match` is true.
            target: the video of each text, shape [Q].
            owner: the video of each segment, shape [G]; None: each segment is a video.
            num_candidates: K; None: all pairs.
        """
        self._similarity, self._match, self._target = similarity, match, target
        self._owner = owner
        self._near = _by_video(similarity, owner)
        self._forwards = nearest(similarity, num_candidates)
        self._backwards = nearest(self._near.T, num_candidates)

    def scores(self, lam: float) -> tuple[Floats, Floats]:
        """Scores match + λ · similarity; λ = 0 ranks by the match alone ("local").

        Returns:
            each text's scores for the videos [Q, V], as a search gives them, and each video's scores for the
            texts [V, Q].

        Raises:
            ValueError: a match score that is read is NaN.
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
    """The λ with the highest R@1 from text to video, then the highest R@SUM; of equal ones the middle one.

    Returns:
        λ, and {"lambda", "R@1", "R@SUM"} for each value tried.

    Raises:
        ValueError: the grid is empty.
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
    """The λ that `tune_lambda` chooses among rows of {"lambda", "R@1", "R@SUM"}."""
    top = max((row["R@1"], row["R@SUM"]) for row in tried)
    # Equal ones are usually neighbours: the middle one is the furthest from where results get worse.
    equal = sorted(row["lambda"] for row in tried if (row["R@1"], row["R@SUM"]) == top)
    return equal[(len(equal) - 1) // 2]


def _by_video(scores: Floats, owner: Rows | None) -> Floats:
    return scores if owner is None else best_of_videos(scores, owner)
