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

# Moments that text alone finds, at most.
_MOST_OF_TEXT = 50


@dataclass(frozen=True)
class MomentStage:
    """Finds the moments of one search.

    Attributes:
        scorer: scores them; it knows the query and what was retrieved.
        avoid: segments without moments: damaged ones, and those that moments were found in before.
        rater: rates the moments.
        stopwatch: gets the lap `moments`.
        texts: the lines of text that fit the query; None: there are none.
        rule: which spans are moments.
    """

    scorer: MomentScorer
    avoid: Sequence[int]
    rater: Rater
    stopwatch: Stopwatch
    texts: TextEvidence | None = None
    rule: MomentRule = field(default_factory=MomentRule)

    @property
    def _bundle(self) -> Bundle:
        return self.scorer.bundle

    @property
    def reach(self) -> int:
        """How many segments before and after one its moments may be in."""
        return reach_of_moments(self._bundle)

    @property
    def _snapshot(self) -> Snapshot:
        return self.scorer.snapshot

    @property
    def _query(self) -> EncodedQuery:
        return self.scorer.query

    def around(self, rows: NDArray[np.int64], *, spoken: bool = True) -> list[ScoredSpan]:
        """The moments around some of the retrieved segments, best first.

        Args:
            rows: the segments.
            spoken: whether moments of which only text speaks are found too, of all videos.

        Raises:
            DamagedRowsError: some of the segments are damaged.
            UnreadableTokensError: tokens of frames are damaged or cannot be read.
            LibraryError: a table cannot be read.
            BundleError: the model fails.
        """
        if not len(rows):
            return []
        reranked = self.scorer.reranked
        known = {} if reranked is None or not reranked.has_salience else reranked.segment_frames.places()
        stretches = read_stretches(self._snapshot, rows, known, self.avoid, self.reach)
        spans = self.scorer.scored(find_moments(self._bundle, self._query, stretches, self.rule))
        if self.texts is not None:
            spans = self._with_texts(spans, self.texts, spoken=spoken)
        rated = self.rater.rated(spans)
        self.stopwatch.lap("moments")
        return rated

    def _with_texts(
        self, spans: Sequence[ScoredSpan], texts: TextEvidence, *, spoken: bool
    ) -> list[ScoredSpan]:
        """The moments with what is said in them and how their videos are called, and those of text alone."""
        alone = self._spoken(spans, texts) if spoken else []
        known = []
        for span in [*spans, *alone]:
            said = texts.within(span.video_id, span.start_seconds, span.end_seconds)
            known.append(replace(span, texts=tuple(said)) if said else span)
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
