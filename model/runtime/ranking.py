"""Re-ranks candidates: salient frames, match score, ensemble. Serving and evaluation both use this.

Shapes: K candidates, N frames, S salience, n salient frames.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Decimals that are compared. Further ones of a cosine in single precision differ between batch sizes and
#: kernels, those of a logit with the other pairs of its batch: the order of ties would be random.
SCORE_DECIMALS, LOGIT_DECIMALS = 6, 4
# Keeps the best of the tail below the worst re-ranked candidate, and the tail in order where λ is 0.
_STEP = 1e-3


def cut_embeddings(embeddings: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    """The first `dim` dimensions, scaled to unit length. [B, D] → [B, dim].

    Matryoshka representation learning (Kusupati et al., 2022, section 3) trains these prefixes as embeddings
    of their own. A prefix that is all zeros stays so: its cosine with everything is 0.
    """
    prefix = embeddings[:, :dim]
    length = np.linalg.norm(prefix, axis=1, keepdims=True)
    return (prefix / np.where(length > 0, length, 1)).astype(np.float32)


def relevance(frame_salience: NDArray[np.float32], text_salience: NDArray[np.float32]) -> NDArray[np.float32]:
    """How relevant each frame is for one text. [K, N, S], [S] → [K, N]; ignore those of padding frames.

    Raises:
        ValueError: the shapes do not fit.
    """
    if frame_salience.ndim != 3 or text_salience.shape != frame_salience.shape[2:]:
        raise ValueError(
            f"frame_salience {list(frame_salience.shape)} and text_salience {list(text_salience.shape)}: "
            "pass [K, N, S] and [S]"
        )
    result: NDArray[np.float32] = frame_salience @ text_salience
    return result


def select_salient(
    relevance: NDArray[np.float32], counts: NDArray[np.int64], n: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Choose the most relevant frames of each candidate, best first; among ties, the earlier frame.

    Args:
        relevance: float, shape [K, N].
        counts: int, shape [K]: how many of the N frames are real; they come first.
        n: frames to choose; a candidate with fewer gives fewer.

    Returns:
        Frames int64 [K, n], and a mask bool [K, n] of those that were chosen; the others are 0.

    Raises:
        ValueError: `n` is below 1, or a count is below 1 or above N.
    """
    if relevance.ndim != 2 or counts.shape != relevance.shape[:1]:
        raise ValueError(
            f"relevance {list(relevance.shape)} and counts {list(counts.shape)}: pass [K, N] and [K]"
        )
    if n < 1:
        raise ValueError(f"n is {n}: choose at least 1 frame")
    most = relevance.shape[1]
    if len(counts) and not (counts.min() >= 1 and counts.max() <= most):
        raise ValueError(f"counts are {counts.min()} to {counts.max()}: each must be 1 to {most}")
    real = np.arange(most)[None, :] < counts[:, None]
    order = np.argsort(np.where(real, -relevance, np.inf), axis=1, kind="stable")[:, :n]
    index = np.zeros((len(order), n), np.int64)
    index[:, : order.shape[1]] = order
    mask = np.arange(n)[None, :] < counts[:, None]
    index[~mask] = 0
    return index, mask


def salience_logits(
    relevance: NDArray[np.float32], mask: NDArray[np.bool_], scale: float, bias: float
) -> NDArray[np.float32]:
    """The match of frames by their relevance alone: scale · relevance + bias, 0 where the mask is False."""
    logits: NDArray[np.float32] = np.where(mask, np.float32(scale) * relevance + np.float32(bias), 0)
    return logits.round(LOGIT_DECIMALS)


def coherence(frame_salience: NDArray[np.float32], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """How alike the frames of each candidate are: the length of the mean of their vectors, each of length 1.

    1 where all frames are the same; smaller, the more the candidate shows. [K, N, S], [K] → [K].
    """
    real = np.arange(frame_salience.shape[1])[None, :] < counts[:, None]
    lengths = np.sqrt(np.einsum("kns,kns->kn", frame_salience, frame_salience))
    weight = np.where(real & (lengths > 0), 1 / np.maximum(lengths, 1e-12), 0).astype(np.float32)
    mean = (weight[:, None, :] @ frame_salience)[:, 0] / counts[:, None]
    length: NDArray[np.float64] = np.linalg.norm(mean, axis=1)
    return length


def similarity_share(coherence: NDArray[np.floating], limits: tuple[float, float]) -> NDArray[np.float64]:
    """How much of a candidate's match is that of its similarity, not of its salient frames. [K] → [K].

    0 up to the lower limit of the coherence, where a candidate shows many things; 1 from the upper one on,
    where it shows one; in between it rises linearly.
    """
    low, high = limits
    share: NDArray[np.float64] = np.clip((coherence - low) / (high - low), 0.0, 1.0)
    return share


def blended_match(
    salient: NDArray[np.floating], similar: NDArray[np.floating], share: NDArray[np.floating]
) -> NDArray[np.float64]:
    """(1 − share) · the match of the salient frames + share · that of the similarity. All [K] → [K]."""
    blended: NDArray[np.float64] = (1 - share) * salient + share * similar
    return blended.round(LOGIT_DECIMALS)


def match_score(logits: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The mean match logit over each candidate's salient frames. [K, n], bool [K, n] → [K].

    Raises:
        ValueError: the shapes differ, or a candidate has no frame.
    """
    if logits.shape != mask.shape or logits.ndim != 2:
        raise ValueError(f"logits {list(logits.shape)} and mask {list(mask.shape)}: pass [K, n] twice")
    frames = mask.sum(axis=1)
    if (frames == 0).any():
        raise ValueError(
            f"mask[{int(np.argmin(frames))}] has no frame: choose at least one of each candidate"
        )
    total: NDArray[np.float64] = np.where(mask, logits, 0).sum(axis=1, dtype=np.float64)
    mean: NDArray[np.float64] = total / frames
    return mean


def ensemble(
    match_score: NDArray[np.floating], similarity: NDArray[np.floating], lam: float
) -> NDArray[np.float64]:
    """The final score: match_score + λ · similarity. [K], [K] → [K]."""
    return match_score.astype(np.float64) + lam * similarity.astype(np.float64)


def tail_scores(
    reranked: NDArray[np.floating], tail_similarity: NDArray[np.floating], lam: float
) -> NDArray[np.float64]:
    """Scores of the candidates that were not re-ranked: below all others, in the order of similarity.

    min(reranked) − 0.001 + λ · (similarity − max similarity of the tail). Where nothing was re-ranked, the
    similarity itself.

    Args:
        reranked: scores of the re-ranked candidates, shape [K].
        tail_similarity: similarities of the others, shape [T].
        lam: λ; where it is 0, a small weight replaces it to avoid ties.

    Returns:
        float64, shape [T].
    """
    tail = tail_similarity.astype(np.float64)
    if len(reranked) == 0 or len(tail) == 0:
        return tail
    weight = lam if lam > 0 else _STEP
    scores: NDArray[np.float64] = float(reranked.min()) - _STEP + weight * (tail - tail.max())
    return scores
