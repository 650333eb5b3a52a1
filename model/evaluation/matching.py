"""Matches the pairs to re-rank: by the matcher, one logit for each text and distinct frame, or by relevance.

Shapes: Q texts, G segments, F distinct frames, N frame slots, K candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.arrays import Array, Rows
from model.evaluation.corpus import Corpus, Texts
from model.evaluation.rerank import salient_match
from model.families.encoder import Encoder
from model.progress import Progress, Report, silent
from model.runtime.bundle import TextEncoding
from model.runtime.bundle.manifest import SalienceMatch
from model.runtime.ranking import (
    LOGIT_DECIMALS,
    blended_match,
    coherence,
    match_score,
    relevance,
    salience_logits,
    select_salient,
)

# Pairs passed to the matcher at once: with 49 tokens of 256 numbers, they are 50 MB.
_PAIRS_A_CALL = 1024


def match_pairs(
    encoder: Encoder,
    texts: Texts,
    corpus: Corpus,
    pairs: NDArray[np.bool_],
    num_salient: Sequence[int],
    report: Report = silent,
) -> dict[int, Array]:
    """Match scores of some pairs of a text and a segment, for several N_salient.

    A text and a distinct frame are matched once, however many segments and numbers of salient frames read the
    logit.

    Args:
        encoder: has a matcher.
        texts: encoded with tokens.
        corpus: encoded with tokens.
        pairs: which pairs to score, bool [Q, G].
        num_salient: the numbers of salient frames.
        report: told how long it will take.

    Returns:
        for each number float32 [Q, G], NaN for pairs that are not scored.

    Raises:
        ValueError: texts or corpus have no tokens, or there is no number of salient frames.
    """
    if corpus.tokens is None:
        raise ValueError("the corpus has no frame tokens, which the matcher reads: encode it with tokens")
    if not num_salient:
        raise ValueError("no number of salient frames: pass at least one")
    scores = {n: np.full(pairs.shape, np.nan, np.float32) for n in num_salient}
    progress = Progress("text and segment pairs", int(pairs.sum()), report)
    logits = np.full(len(corpus.salience), np.nan, np.float32)
    for rows, encoding in texts.parts:
        for start, stop in _calls(pairs[rows].sum(axis=1) * max(num_salient)):
            frames = [_salient_frames(texts, corpus, pairs, q, num_salient) for q in rows[start:stop]]
            sizes = [len(part) for part in frames]
            # The whole part is passed, with row numbers: the matcher cuts it to the longest of those texts.
            text_rows = np.repeat(np.arange(start, stop), sizes)
            matched = _match(encoder, encoding, text_rows, corpus, np.concatenate(frames))
            pieces = np.split(matched, np.cumsum(sizes)[:-1])
            for q, text_frames, values in zip(rows[start:stop], frames, pieces, strict=True):
                logits[text_frames] = values
                columns = np.flatnonzero(pairs[q])
                if len(columns):
                    relevant = _relevance(texts, corpus, q, columns)
                    slots, counts = corpus.slots[columns], corpus.counts[columns]
                    for n, row in salient_match(logits, relevant, slots, counts, num_salient).items():
                        scores[n][q, columns] = row
                logits[text_frames] = np.nan
                progress.step(len(columns))
    return scores


def salience_match(
    texts: Texts,
    corpus: Corpus,
    pairs: NDArray[np.bool_],
    num_salient: Sequence[int],
    match: SalienceMatch,
    similarity: Array,
) -> dict[int, Array]:
    """As `match_pairs`, by the relevance of the salient frames (LGDN's Table 8): no token is read.

    `similarity` is that of the first stage, [Q, G], which the match may read too.
    """
    alike = coherence(corpus.salience[corpus.slots], corpus.counts)
    scores = {n: np.full(pairs.shape, np.nan, np.float32) for n in num_salient}
    for text in range(len(pairs)):
        segments = np.flatnonzero(pairs[text])
        if not len(segments):
            continue
        relevant = _relevance(texts, corpus, text, segments)
        index, mask = select_salient(relevant, corpus.counts[segments], max(num_salient))
        salient = np.take_along_axis(relevant, index, axis=1)
        logits = salience_logits(salient, mask, match.scale, match.bias)
        for n in num_salient:
            score = match_score(logits[:, :n], mask[:, :n])
            if match.coherence is not None:
                of_similarity = match.scale * similarity[text, segments] + match.bias
                score = blended_match(score, of_similarity, alike[segments], match.coherence)
            scores[n][text, segments] = score
    return scores


def _calls(sizes: Rows) -> list[tuple[int, int]]:
    """Ranges of texts to score together: as many as fit one call, at least one."""
    spans, start, total = [], 0, 0
    for i, size in enumerate(sizes):
        if i > start and total + size > _PAIRS_A_CALL:
            spans.append((start, i))
            start, total = i, 0
        total += int(size)
    return [*spans, (start, len(sizes))]


def _relevance(texts: Texts, corpus: Corpus, text: int, segments: Rows) -> Array:
    """The relevance of each frame slot of some segments for a text. Shape [K] → [K, N]."""
    return relevance(corpus.salience[corpus.slots[segments]], texts.salience[text])


def _salient_frames(
    texts: Texts, corpus: Corpus, pairs: NDArray[np.bool_], text: int, num_salient: Sequence[int]
) -> Rows:
    """The distinct frames whose logits a text needs."""
    segments = np.flatnonzero(pairs[text])
    if len(segments) == 0:
        return np.empty(0, np.int64)
    index, mask = select_salient(
        _relevance(texts, corpus, text, segments), corpus.counts[segments], max(num_salient)
    )
    frames = np.take_along_axis(corpus.slots[segments], index, axis=1)
    distinct: Rows = np.unique(frames[mask])
    return distinct


def _match(encoder: Encoder, text: TextEncoding, text_rows: Rows, corpus: Corpus, frames: Rows) -> Array:
    out = np.empty(len(frames), np.float32)
    if corpus.tokens is None or len(frames) == 0:
        return out
    for start in range(0, len(frames), _PAIRS_A_CALL):
        part = slice(start, start + _PAIRS_A_CALL)
        out[part] = encoder.match(text, text_rows[part], corpus.tokens.take(frames[part]))
    return out.round(LOGIT_DECIMALS)
