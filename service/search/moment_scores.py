"""Scores moments as segments are scored: by the embedding of their frames, or of their segment if that fits
better, and by the match of their salient frames.

Shapes: K moments, N frames of a moment, n salient frames, D joint space.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from indexer.library.errors import LibraryError
from indexer.library.snapshot import SegmentFrames, Snapshot
from model.runtime.bundle import Bundle
from model.runtime.ranking import (
    LOGIT_DECIMALS,
    SCORE_DECIMALS,
    ensemble,
    match_score,
    relevance,
    select_salient,
    tail_scores,
)
from service.search.encoded_query import EncodedQuery
from service.search.match_queue import MatchQueue, MatchTerms
from service.search.rerank import RerankedCandidates, UnreadableTokensError, match_parts, score_by_salience
from service.search.retrieval import RetrievedSegments
from service.search.scored_spans import ScoredSpan
from service.search.stretches import Moment


@dataclass(frozen=True)
class MomentScorer:
    """Scores the moments of one search.

    Attributes:
        snapshot: what is searched.
        match_queue: runs the matching head of the snapshot's bundle.
        query: the query.
        retrieved: what the first stage found; the re-ranked segments are its first.
        reranked: how these were re-ranked; None: they were not.
        num_salient_frames: n.
        terms: on which the search uses the matching head.
        max_pairs: pairs of a part of the text and a frame that may still be matched; None: any number.
        tail_top: the first stage's score of the best segment that was not re-ranked, for moments that follow
            others: so they have no better scores than those; None: they are the first.
    """

    snapshot: Snapshot
    match_queue: MatchQueue
    query: EncodedQuery
    retrieved: RetrievedSegments
    reranked: RerankedCandidates | None
    num_salient_frames: int
    terms: MatchTerms
    max_pairs: int | None = None
    tail_top: float | None = None

    @property
    def bundle(self) -> Bundle:
        """The model."""
        return self.match_queue.bundle

    def knowing(self, rows: Sequence[int]) -> "MomentScorer":
        """This scorer, with further segments as if they were the last that the first stage retrieved."""
        known = set(self.retrieved.rows.tolist())
        new = np.array(sorted({row for row in rows if row not in known}), np.int64)
        if not len(new):
            return self
        scores = self.snapshot.scores_of(self.query.embedding, new).round(SCORE_DECIMALS)
        ranks = np.full(len(new), len(self.retrieved.ranks))
        retrieved = RetrievedSegments(
            np.concatenate([self.retrieved.score, scores]),
            np.concatenate([self.retrieved.rows, new]),
            np.concatenate([self.retrieved.ranks, ranks]),
        )
        return replace(self, retrieved=retrieved)

    def scored(self, moments: Sequence[Moment], *, are_retrieved: bool = True) -> list[ScoredSpan]:
        """The moments with their scores. Those that text found are matched too where that costs nothing.

        Raises:
            UnreadableTokensError: tokens of frames are damaged or cannot be read.
            LibraryError: a table cannot be read.
            BundleError: the model fails.
        """
        manifest = self.bundle.manifest
        read = _frames_of(moments, manifest.salience_dim or 0)
        position_of = {row: place for place, row in enumerate(self.retrieved.rows.tolist())}
        homes = [self._home(moment, position_of) for moment in moments]
        first = self._first_scores(moments, read, homes, position_of)
        fit = relevance(read.salience, self.query.salience)
        num_reranked = 0 if self.reranked is None else len(self.reranked.score)
        is_free = not are_retrieved and num_reranked > 0 and manifest.match_kind == "salience"
        is_reranked = np.array([home < num_reranked or is_free for home in homes])
        frames, chosen = select_salient(fit, read.counts, self.num_salient_frames)
        matched = self._match(moments, read, frames, chosen, first, homes, is_reranked)
        hubness = self.snapshot.hubness
        spans = []
        for place, moment in enumerate(moments):
            valid = chosen[place] if manifest.has_salience else np.zeros_like(chosen[place])
            reranked = matched is not None and is_reranked[place]
            share = None if matched is None or not reranked else matched.share(place)
            spans.append(
                ScoredSpan(
                    video_id=self.snapshot.video_id_of(moment.row),
                    start_seconds=round(moment.start_seconds, 3),
                    end_seconds=round(moment.end_seconds, 3),
                    frame_ids=self._frame_ids(moment),
                    pts_seconds=moment.stretch.pts_seconds[moment.frames].tolist(),
                    relevance=fit[place, : read.counts[place]] if manifest.has_salience else None,
                    salient=frames[place][valid].tolist(),
                    logits=matched.logits[place][valid].tolist() if matched and reranked else None,
                    score=float(first[place]) if matched is None else float(matched.score[place]),
                    first_score=float(first[place]),
                    hubness=None if hubness is None else float(hubness[moment.row]),
                    match_score=float(matched.match_score[place]) if matched and reranked else None,
                    similarity_share=share,
                    first_stage_rank=int(self.retrieved.ranks[homes[place]]) + 1,
                )
            )
        return spans

    def _home(self, moment: Moment, position_of: Mapping[int, int]) -> int:
        """The place among the retrieved segments of the one that a moment belongs to."""
        own = position_of.get(moment.row)
        if own is not None:
            return own
        return min(position_of[row] for row in moment.stretch.rows.tolist() if row in position_of)

    def _first_scores(
        self,
        moments: Sequence[Moment],
        read: SegmentFrames,
        homes: Sequence[int],
        position_of: Mapping[int, int],
    ) -> NDArray[np.float32]:
        """The first stage's score of each moment as if it were a segment, or that of its segment if higher.

        What fits a whole segment is not to lose by a moment that was found too short in it. A video encoder
        embeds whole segments alone, so that a moment has the score of its segment.
        """
        manifest = self.bundle.manifest
        scores = self.retrieved.score[list(homes)]
        if manifest.has_video_encoder or not manifest.embedding_in_salience:
            return scores
        # A moment that is a whole segment has its score already.
        parts = [i for i, x in enumerate(moments) if not (x.is_segment and x.row in position_of)]
        if not parts:
            return scores
        embeddings, mask = _thinned(read.at(parts), manifest.frames_per_segment, manifest.embedding_dim)
        (query,) = self.snapshot.cut(self.query.embedding[None])
        similarity = self.snapshot.cut(self.bundle.encode_segments(embeddings, mask)) @ query
        if self.snapshot.hubness is not None:
            rows = [moments[i].row for i in parts]
            similarity = similarity - self.snapshot.hubness_weight * self.snapshot.hubness[rows]
        own = similarity.astype(np.float32).round(SCORE_DECIMALS)
        whole = [scores[i] if moments[i].row in position_of else -np.inf for i in parts]
        scores[parts] = np.maximum(own, np.array(whole, np.float32))
        return scores

    def _match(
        self,
        moments: Sequence[Moment],
        read: SegmentFrames,
        frames: NDArray[np.int64],
        chosen: NDArray[np.bool_],
        first: NDArray[np.float32],
        homes: Sequence[int],
        is_reranked: NDArray[np.bool_],
    ) -> "MatchedMoments | None":
        """The match of the moments whose segments were re-ranked, and the score of all; None: none were."""
        if self.reranked is None:
            return None
        manifest = self.bundle.manifest
        if manifest.match_kind == "salience":
            scored = score_by_salience(read, manifest, self.query, first, self.num_salient_frames)
            match, logits, shares = scored.match_score, scored.logits, scored.similarity_share
        else:
            chosen = chosen & is_reranked[:, None]
            usual = self.reranked.match_score[np.minimum(homes, len(self.reranked.score) - 1)]
            logits = self._logits(_known_logits(self.reranked), moments, frames, chosen, usual)
            chosen[:, 0] = True
            match, shares = match_score(logits, chosen), None
        score = np.empty(len(moments), np.float64)
        lam = manifest.ensemble_lambda
        score[is_reranked] = ensemble(match[is_reranked], first[is_reranked], lam)
        least = score[is_reranked] if is_reranked.any() else self.reranked.score
        if self.tail_top is None:
            score[~is_reranked] = tail_scores(least, first[~is_reranked], lam)
        else:
            least = np.append(least, self.reranked.score)
            tail = np.append(self.tail_top, np.minimum(first[~is_reranked], self.tail_top))
            score[~is_reranked] = tail_scores(least, tail, lam)[1:]
        return MatchedMoments(score, match, logits, shares)

    def _logits(
        self,
        known: Mapping[tuple[int, int], float],
        moments: Sequence[Moment],
        frames: NDArray[np.int64],
        chosen: NDArray[np.bool_],
        usual: NDArray[np.float64],
    ) -> NDArray[np.float32]:
        """The matching head's logits of the salient frames of moments, [K, n].

        Those of frames that the re-ranking matched are read from it, and the others are matched now, as far
        as time and cost allow: what is left has its segment's match.
        """
        logits = np.where(chosen, usual[:, None], 0).astype(np.float32)
        missing: list[tuple[int, int, int, int]] = []
        for place, column in zip(*np.nonzero(chosen), strict=True):
            stretch, first = moments[place].stretch, moments[place].frames.start
            frame = first + int(frames[place, column])
            key = int(stretch.frame_rows[frame]), int(stretch.places[frame])
            if key in known:
                logits[place, column] = known[key]
            else:
                missing.append((int(place), int(column), *key))
        parts = self.query.parts or ()
        if self.max_pairs is not None:
            missing = missing[: max(0, self.max_pairs) // max(1, len(parts))]
        if missing and not self.terms.is_over(time.monotonic()):
            try:
                tokens = self.snapshot.frame_tokens([x[2] for x in missing], [x[3] for x in missing])
            except LibraryError as error:
                raise UnreadableTokensError(str(error)) from error
            values = match_parts(self.match_queue, parts, tokens, self.terms).round(LOGIT_DECIMALS)
            for (place, column, _, _), value in zip(missing, values.tolist(), strict=False):
                logits[place, column] = value
        return logits

    def _frame_ids(self, moment: Moment) -> list[str]:
        rows, places = moment.stretch.frame_rows[moment.frames], moment.stretch.places[moment.frames]
        return self.snapshot.frame_ids(rows.tolist(), places.tolist())


@dataclass(frozen=True)
class MatchedMoments:
    """Scores of K moments; `match_score` and `logits` count only for those that were re-ranked."""

    score: NDArray[np.float64]
    match_score: NDArray[np.float64]
    logits: NDArray[np.float32]
    similarity_share: NDArray[np.float64] | None

    def share(self, place: int) -> float | None:
        """The share of the similarity in the match of a moment; None: there is none."""
        return None if self.similarity_share is None else float(self.similarity_share[place])


def _frames_of(moments: Sequence[Moment], salience_dim: int) -> SegmentFrames:
    """The frames of moments as if they were segments."""
    counts = np.array([moment.frames.stop - moment.frames.start for moment in moments], np.int64)
    most = int(counts.max())
    pts = np.zeros((len(moments), most))
    salience = np.zeros((len(moments), most, salience_dim), np.float32)
    for place, (moment, count) in enumerate(zip(moments, counts.tolist(), strict=True)):
        pts[place, :count] = moment.stretch.pts_seconds[moment.frames]
        salience[place, :count] = moment.stretch.salience[moment.frames]
    return SegmentFrames(np.array([moment.row for moment in moments]), counts, pts, salience)


def _thinned(read: SegmentFrames, most: int, dim: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """At most `most` frames of each moment, evenly spread, as a segment encoder reads them."""
    counts = np.minimum(read.counts, most)
    places = np.arange(min(most, read.salience.shape[1]))
    mask = places[None, :] < counts[:, None]
    spread = ((places[None, :] + 0.5) * read.counts[:, None] / counts[:, None]).astype(np.int64)
    index = np.where(mask, spread, 0)
    frames = np.take_along_axis(read.salience[..., :dim], index[..., None], axis=1)
    return np.where(mask[..., None], frames, np.float32(0)), mask


def _known_logits(reranked: RerankedCandidates) -> dict[tuple[int, int], float]:
    """The logits of the frames that were matched, by segment row and place in the segment."""
    rows = reranked.segment_frames.rows
    where = np.nonzero(reranked.chosen)
    keys = zip(rows[where[0]].tolist(), reranked.frames[where].tolist(), strict=True)
    return dict(zip(keys, reranked.logits[where].tolist(), strict=True))
