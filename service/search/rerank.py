"""The second stage: the best segments are judged anew by the matching head, on their salient frames.

Shapes: K candidates, n salient frames, V videos.
"""

import time
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.library.snapshot import Snapshot
from model.runtime.bundle import TextEncoding
from model.runtime.ranking import (
    LOGIT_DECIMALS,
    ensemble,
    match_score,
    relevance,
    select_salient,
    tail_scores,
)
from service.search.match_queue import Matcher
from service.search.retrieval import FirstStage

# Tokens of so many bytes are held at once: the largest search fetches them in parts.
_TOKEN_BYTES = 32 << 20


class Stopwatch:
    """Milliseconds by stage; a stage's laps add up."""

    def __init__(self) -> None:
        self.milliseconds: defaultdict[str, float] = defaultdict(float)
        self._started = self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Count the time since the last lap to `stage`."""
        now = time.perf_counter()
        self.milliseconds[stage] += (now - self._last) * 1000
        self._last = now

    def total(self) -> float:
        """Milliseconds since the start."""
        return (time.perf_counter() - self._started) * 1000


@dataclass(frozen=True)
class Block:
    """The re-ranked candidates, in the order of the first stage.

    Attributes:
        score: float64, shape [K].
        match_score: float64, shape [K], the mean of the chosen frames' logits.
        frames: int64, shape [K, n], the salient frames of each segment, most relevant first.
        chosen: bool, shape [K, n]: which of `frames` there are; short segments have fewer.
        logits: float32, shape [K, n], those of the frames; 0 where there is none.
    """

    score: NDArray[np.float64]
    match_score: NDArray[np.float64]
    frames: NDArray[np.int64]
    chosen: NDArray[np.bool_]
    logits: NDArray[np.float32]


def rerank(
    snapshot: Snapshot,
    matcher: Matcher,
    text: TextEncoding,
    candidates: FirstStage,
    num_salient_frames: int,
    deadline: float | None,
    watch: Stopwatch,
) -> Block | None:
    """Judge the candidates, K ≥ 1, for one text; None where that would pass the deadline.

    Args:
        snapshot: where the candidates are.
        matcher: of the snapshot's bundle.
        text: one text, encoded with tokens.
        candidates: segments of the first stage.
        num_salient_frames: n.
        deadline: of `time.monotonic()`, or None.
        watch: gets the laps `salience`, `tokens` and `match`.

    Raises:
        LibraryError: a table cannot be read.
        BundleError: the model fails.
    """
    if _is_late(deadline):
        return None
    frames, chosen, frame_rows = salient_frames(snapshot, text, candidates.rows, num_salient_frames)
    watch.lap("salience")
    manifest, sizes = matcher.bundle.manifest, matcher.bundle.token_sizes()
    step = max(matcher.bundle.max_pairs, _TOKEN_BYTES // (4 * sizes.hidden_dim * snapshot.tokens_per_frame))
    found = np.empty(len(frame_rows), np.float32)
    for start in range(0, len(frame_rows), step):
        if _is_late(deadline):
            return None
        tokens = snapshot.frame_tokens(frame_rows[start : start + step])
        watch.lap("tokens")
        following = max(0, len(frame_rows) - start - step)
        part = matcher.match(text, tokens, deadline, following)
        watch.lap("match")
        if part is None:
            return None
        found[start : start + step] = part
    logits = np.zeros(chosen.shape, np.float32)
    logits[chosen] = found.round(LOGIT_DECIMALS)
    matched = match_score(logits, chosen)
    return Block(
        ensemble(matched, candidates.similarity, manifest.ensemble_lambda), matched, frames, chosen, logits
    )


def salient_frames(
    snapshot: Snapshot, text: TextEncoding, rows: NDArray[np.int64], num_salient_frames: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]:
    """Where SFP sends the matcher: each segment's most relevant frames for a text.

    Args:
        snapshot: where the segments are.
        text: one text.
        rows: segments, shape [K].
        num_salient_frames: n.

    Returns:
        positions of the frames within their segments [K, n], most relevant first; which of them there are
        [K, n]; and the rows of these frames in the snapshot, flat.
    """
    salience, counts = snapshot.candidate_salience(rows)
    frames, chosen = select_salient(relevance(salience, text.salience[0]), counts, num_salient_frames)
    return frames, chosen, (snapshot.first_frame_rows(rows)[:, None] + frames)[chosen]


def scores_of(first: FirstStage, block: Block | None, ensemble_lambda: float) -> NDArray[np.float64]:
    """The final score of each of the first stage's segments, float64 [K]; the block stands at its start.

    What was not re-ranked comes below what was, in the first stage's order; without a block the score is the
    similarity.
    """
    if block is None:
        return first.similarity.astype(np.float64)
    tail = first.similarity[len(block.score) :]
    return np.concatenate([block.score, tail_scores(block.score, tail, ensemble_lambda)])


def best_of_each_video(
    scores: NDArray[np.float64], rows: NDArray[np.int64], video_rows: NDArray[np.int32], top_k: int
) -> NDArray[np.int64]:
    """Positions of the best segment of each of the `top_k` best videos; ties in the order of positions."""
    order = np.argsort(-scores, kind="stable")
    _, firsts = np.unique(video_rows[rows[order]], return_index=True)
    return order[np.sort(firsts)[:top_k]]


def _is_late(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline
