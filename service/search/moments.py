"""Finds moments in and around the segments that a search ranked best, and those of which only text speaks."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from indexer.library.snapshot import Snapshot
from model.runtime.bundle import Bundle
from model.runtime.moment_spans import MomentRule
from service.search.encoded_query import EncodedQuery
from service.search.moment_scores import MomentScorer
from service.search.probability import Rater
from service.search.retrieval import place_in_video
from service.search.scored_spans import ScoredSpan
from service.search.stopwatch import Stopwatch
from service.search.stretches import (
    Moment,
    find_moments,
    moment_between,
    reach_of_moments,
    read_stretches,
)
from service.search.texts import TextEvidence

# Moments are looked for around more segments, or in more videos, than there are hits: some turn out worse.
_SPARE = 4
# Moments that text alone finds, at most.
_MOST_OF_TEXT = 50


@dataclass(frozen=True)
class MomentStage:
    """Finds the moments of one search.

    Attributes:
        scorer: scores them; it knows the query and what was retrieved.
        scores: the final score of each retrieved segment.
        avoid: damaged segments.
        rater: rates the moments.
        stopwatch: gets the lap `moments`.
        texts: the lines of text that fit the query; None: there are none.
        rule: which spans are moments.
    """

    scorer: MomentScorer
    scores: NDArray[np.float64]
    avoid: Sequence[int]
    rater: Rater
    stopwatch: Stopwatch
    texts: TextEvidence | None = None
    rule: MomentRule = field(default_factory=MomentRule)

    @property
    def _bundle(self) -> Bundle:
        return self.scorer.bundle

    @property
    def _snapshot(self) -> Snapshot:
        return self.scorer.snapshot

    @property
    def _query(self) -> EncodedQuery:
        return self.scorer.query

    def best(self, top_k: int) -> list[ScoredSpan]:
        """The `top_k` best moments, best first.

        Raises:
            DamagedRowsError: some of the segments are damaged.
            UnreadableTokensError: tokens of frames are damaged or cannot be read.
            LibraryError: a table cannot be read.
            BundleError: the model fails.
        """
        order = np.argsort(-self.scores, kind="stable")
        seeds = top_k + _SPARE
        while True:
            found = self._moments(order[:seeds])
            # Neighbouring segments may share one moment: then more are needed.
            if len(found) >= top_k or seeds >= len(order):
                return found[:top_k]
            seeds *= 2

    def best_of_videos(self, top_k: int, of_video: int) -> list[list[ScoredSpan]]:
        """The `top_k` best videos, each with its `of_video` best moments, best first. Raises as `best`."""
        order = np.argsort(-self.scores, kind="stable")
        videos = self._snapshot.video_rows[self.scorer.retrieved.rows[order]]
        _, first, number = np.unique(videos, return_index=True, return_inverse=True)
        rank_of_video = np.argsort(np.argsort(first))[number]
        chosen = (rank_of_video < top_k + _SPARE) & (place_in_video(videos) < of_video)
        groups: dict[str, list[ScoredSpan]] = {}
        for span in self._moments(order[chosen]):
            groups.setdefault(span.video_id, []).append(span)
        return [spans[:of_video] for spans in list(groups.values())[:top_k]]

    def _moments(self, seeds: NDArray[np.int64]) -> list[ScoredSpan]:
        """The moments around some of the retrieved segments, best first."""
        if not len(seeds):
            return []
        reranked = self.scorer.reranked
        known = {} if reranked is None else reranked.segment_frames.places()
        rows, reach = self.scorer.retrieved.rows[seeds], reach_of_moments(self._bundle)
        stretches = read_stretches(self._snapshot, rows, known, self.avoid, reach)
        spans = self.scorer.scored(find_moments(self._bundle, self._query, stretches, self.rule))
        if self.texts is not None:
            spans = self._with_texts(spans, self.texts)
        rated = self.rater.rated(spans)
        self.stopwatch.lap("moments")
        return rated

    def _with_texts(self, spans: Sequence[ScoredSpan], texts: TextEvidence) -> list[ScoredSpan]:
        """The moments with what is said in them and how their videos are called, and those of text alone."""
        known = [
            replace(span, texts=tuple(texts.within(span.video_id, span.start_seconds, span.end_seconds)))
            for span in [*spans, *self._spoken(spans, texts)]
        ]
        return known if texts.modalities.visual else [span for span in known if span.texts]

    def _spoken(self, spans: Sequence[ScoredSpan], texts: TextEvidence) -> list[ScoredSpan]:
        """Moments of which only text speaks: where it is said, or for a name the best one of its video."""
        taken: dict[str, list[ScoredSpan]] = {}
        for span in spans:
            taken.setdefault(span.video_id, []).append(span)
        wanted: list[tuple[NDArray[np.int64], tuple[float, float] | None]] = []
        for video_id in texts.lines:
            spoken = [
                (start, end)
                for start, end in texts.spans(video_id)
                if not any(x.start_seconds < end and x.end_seconds > start for x in taken.get(video_id, ()))
            ]
            wanted += [(self._rows(video_id, start, end), (start, end)) for start, end in spoken]
            if not spoken and video_id not in taken:
                rows = self._rows(video_id)
                scores = self._snapshot.scores_of(self._query.embedding, rows)
                wanted.append((rows[scores.argsort()[::-1][:1]], None))
        wanted = [(rows, said) for rows, said in wanted if len(rows)][:_MOST_OF_TEXT]
        if not wanted:
            return []
        # Read all at once: each reading of the library takes its time.
        known = self._snapshot.segment_frames(np.unique(np.concatenate([x for x, _ in wanted]))).places()
        moments: list[Moment] = []
        for rows, said in wanted:
            stretch = read_stretches(self._snapshot, rows, known, self.avoid, 0)[0]
            if said is not None:
                moments.append(moment_between(stretch, *said))
            else:
                moments += find_moments(self._bundle, self._query, [stretch], self.rule)[:1]
        scorer = self.scorer.knowing([moment.row for moment in moments])
        return scorer.scored(moments, are_retrieved=False)

    def _rows(
        self, video_id: str, start_seconds: float = -np.inf, end_seconds: float = np.inf
    ) -> NDArray[np.int64]:
        """The segments of a video that touch a span, without the damaged ones."""
        rows = self._snapshot.segment_rows(video_id, start_seconds, end_seconds)
        return rows[~np.isin(rows, self.avoid)]
