"""Finds sequences: several texts of one video, each shown after the one before ("A, then B").

1. Each text retrieves its nearest segments. Around these, as far as a sequence may reach, all segments get
   the exact first-stage score for every text.
2. In each video the best chains of segments are found (`chains.py`), one segment for each text in order. A
   video cannot have a better chain than the sum of its best score for each text, so the videos are taken in
   the order of that sum, until no further one can be among the best.
3. The segments of the best chains are re-ranked, and moments are found in them, for each text as a search
   for it alone does.
4. Of these moments the best chains are the hits. The score is the mean of the steps' scores.

So a sequence is found if one of its steps is among the nearest segments of its text, and if its chain is
among the best `num_candidates` by the first stage. Which videos are looked at is decided by pictures; lines
of text count in the last step.

Shapes: K texts, R segments, D joint space.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model.runtime.calibration import SearchEvidence
from model.runtime.ranking import SCORE_DECIMALS
from service.search.chains import Chain, Spans, best_chains, moments_follow, segments_may_follow
from service.search.damage import answer_around_damage
from service.search.encoded_query import EncodedTexts, encode_together
from service.search.hits import HitBuilder, hit_of
from service.search.queries import SequenceQuery, texts_of
from service.search.rerank import RerankedCandidates
from service.search.results import (
    Hit,
    LibraryWarning,
    RerankReduced,
    RerankSkipped,
    SearchResult,
    SequenceStep,
    StageTimings,
    VideoMoment,
)
from service.search.retrieval import RetrievedSegments
from service.search.scored_spans import ScoredSpan
from service.search.searcher import Asked, Searcher, SearchOptions
from service.search.stopwatch import Stopwatch

# Segments that each text retrieves, at least, and for each candidate or hit that is wanted.
_LEAST_RETRIEVED = 400
_RETRIEVED_EACH = 8
# Chains are looked for among the best segments of a video for each text, at most so many.
_MOST_OF_VIDEO = 256
# Chains of segments of one video, at most.
_CHAINS_OF_VIDEO = 4
# Further chains than there are hits: some turn out worse.
_SPARE = 4
# Segments whose vectors are read at once.
_ROWS_AT_ONCE = 16_384


def search_sequence(
    searcher: Searcher,
    query: SequenceQuery,
    top_k: int,
    options: SearchOptions,
    known: EncodedTexts | None = None,
    video_id: str | None = None,
) -> SearchResult:
    """The `top_k` best sequences, or the videos with the best ones.

    Args:
        searcher: searches.
        query: its texts are cleaned, see `clean_text`.
        top_k: number of hits, at least 1.
        options: how to search; each step has an equal share of the pairs and of the matching head's time.
        known: texts that were encoded before.
        video_id: the video to search; None: all.

    Raises:
        NotFoundError: there is no such video.
        NotUnderstoodError: the model knows no word of a text.
        QueryError: a text has no token.
        LibraryError: a table cannot be read.
        BundleError: the model fails.
        OverloadedError: the deadline passed while a text waited for the text encoder.
    """
    if video_id is not None:
        searcher.check_video(video_id, options)
    stopwatch = Stopwatch()
    if known is None:
        tokens = searcher.reads_tokens(options)
        encoder = searcher.text_encoder(options)
        known = encode_together(searcher.bundle, [*texts_of(query)], tokens=tokens, encoder=encoder)
    query_encoder = searcher.encoder(options, stopwatch, known)
    queries = [
        query_encoder.encode(step, f"/query/sequence/{place}") for place, step in enumerate(query.steps)
    ]
    share = _share_of_step(options, len(queries))
    asked = []
    for step, encoded in zip(query.steps, queries, strict=True):
        lines = searcher.lines_of(step.text, options, video_id)
        asked.append(Asked(encoded, top_k, share, stopwatch, lines, SearchEvidence(None, None)))
    stopwatch.lap("texts")
    search = _SequenceSearch(searcher, query, asked, top_k)
    rows = search.rows_around() if video_id is None else searcher.snapshot.segment_rows(video_id)
    scores = search.scores_of(rows)
    stopwatch.lap("retrieve")

    def rank(
        left_out: Sequence[int], skipped: RerankSkipped | None, warnings: Sequence[LibraryWarning]
    ) -> SearchResult:
        kept = ~np.isin(rows, np.array(left_out, np.int64))
        return search.rank(rows[kept], scores[:, kept], left_out, skipped, warnings)

    skipped = searcher.why_no_rerank(options, queries[0])
    of_lines = list(dict.fromkeys(warning for each in asked for warning in each.lines.warnings))
    return answer_around_damage(rank, (), skipped, searcher.known_warnings(of_lines))


def _share_of_step(options: SearchOptions, steps: int) -> SearchOptions:
    """The options for one step: what a search may cost is shared."""
    pairs, seconds = options.max_pairs, options.match_seconds
    return replace(
        options,
        max_pairs=None if pairs is None else pairs // steps,
        match_seconds=None if seconds is None else seconds / steps,
    )


@dataclass(frozen=True)
class _Step:
    """One step after re-ranking: its segments, how they were re-ranked, and what makes its hits."""

    retrieved: RetrievedSegments
    reranked: RerankedCandidates | None
    wanted: int


@dataclass(frozen=True)
class _SequenceSearch:
    """One search for a sequence.

    Attributes:
        searcher: searches.
        query: the sequence.
        asked: what is asked for each step, K.
        top_k: number of hits.
    """

    searcher: Searcher
    query: SequenceQuery
    asked: Sequence[Asked]
    top_k: int

    @property
    def _options(self) -> SearchOptions:
        return self.asked[0].options

    @property
    def _num_chains(self) -> int:
        """How many chains of segments to look into."""
        return max(self.searcher.num_candidates(self._options), self.top_k + _SPARE)

    def rows_around(self) -> NDArray[np.int64]:
        """The segments near to a text, and those around them that may belong to their sequence, int64 [R]."""
        snapshot = self.searcher.snapshot
        count = max(_LEAST_RETRIEVED, _RETRIEVED_EACH * self._num_chains)
        allowed = self.searcher.rows_left(self._options.where)
        num_segments = snapshot.num_segments if allowed is None else len(allowed)
        if not num_segments:
            return np.empty(0, np.int64)
        embeddings = np.stack([asked.query.embedding for asked in self.asked])
        _, found = snapshot.search(embeddings, min(count, num_segments), allowed=allowed)
        longest = self.searcher.bundle.manifest.segment_seconds
        reach = (len(self.asked) - 1) * (self.query.within_seconds + longest)
        around = []
        for row in np.unique(found[found >= 0]).tolist():
            start, end = snapshot.segment_span(row)
            around.append(snapshot.segment_rows(snapshot.video_id_of(row), start - reach, end + reach))
        return np.unique(np.concatenate(around))

    def scores_of(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The first-stage score of segments for each text, float32 [K, R]."""
        parts = [rows[start : start + _ROWS_AT_ONCE] for start in range(0, len(rows), _ROWS_AT_ONCE)]
        scores = np.empty((len(self.asked), len(rows)), np.float32)
        for place, asked in enumerate(self.asked):
            found = [self.searcher.snapshot.scores_of(asked.query.embedding, part) for part in parts]
            scores[place] = np.concatenate(found) if found else 0
        return scores

    def rank(
        self,
        rows: NDArray[np.int64],
        scores: NDArray[np.float32],
        left_out: Sequence[int],
        skipped: RerankSkipped | None,
        warnings: Sequence[LibraryWarning],
    ) -> SearchResult:
        """Find sequences in segments [R] with first-stage scores [K, R].

        Raises:
            DamagedRowsError: some of the segments are damaged.
            UnreadableTokensError: tokens of frames are damaged or cannot be read.
        """
        stopwatch = self.asked[0].stopwatch
        chosen = self._chosen(rows, scores)
        stopwatch.lap("retrieve")
        steps = [
            _Step(RetrievedSegments.from_index(scores[place][those], rows[those]), None, 0)
            for place, those in enumerate(chosen)
        ]
        if skipped is None and len(chosen[0]):
            steps, skipped = self._reranked(steps)
        found: list[list[ScoredSpan]] = []
        for asked, step in zip(self.asked, steps, strict=True):
            stage = self.searcher.moment_stage(asked, step.retrieved, step.reranked, left_out)
            # A moment may lie in a neighbour of the segment around which it is found.
            around = self.searcher.snapshot.stretches(step.retrieved.rows, stage.reach, left_out)
            known = [row for stretch in around for row in stretch.tolist()]
            stage = replace(stage, scorer=stage.scorer.knowing(known))
            found.append(stage.around(step.retrieved.rows))
        counts = [None if step.reranked is None else len(step.reranked.score) for step in steps]
        builders = [self.searcher.hit_builder(self._options, count) for count in counts]
        hits = self._hits(found, builders)
        stopwatch.lap("fetch")
        return SearchResult(
            hits=hits,
            best_guess=None,
            probability_skipped=self.searcher.why_no_probability(text_alone=False),
            snapshot=self.searcher.snapshot.number,
            reranked=skipped is None,
            rerank_skipped=skipped,
            num_candidates=sum(len(step.reranked.score) for step in steps if step.reranked is not None),
            num_candidates_wanted=sum(step.wanted for step in steps),
            rerank_reduced=self._why_fewer(steps),
            query_warnings=[warning for asked in self.asked for warning in asked.query.warnings],
            library_warnings=list(warnings),
            timings_ms=StageTimings.from_stopwatch(stopwatch),
            num_videos=self.searcher.num_searched(self._options),
        )

    def _chosen(self, rows: NDArray[np.int64], scores: NDArray[np.float32]) -> list[NDArray[np.int64]]:
        """The segments of the best chains: for each text, their places in `rows`."""
        chains = self._segment_chains(rows, scores)
        return [
            np.array(sorted({chain.places[step] for chain in chains}), np.int64)
            for step in range(len(self.asked))
        ]

    def _segment_chains(self, rows: NDArray[np.int64], scores: NDArray[np.float32]) -> list[Chain]:
        """The best chains of segments in all videos, best first; their places are those in `rows`."""
        if not len(rows):
            return []
        snapshot, wanted = self.searcher.snapshot, self._num_chains
        videos, number = np.unique(snapshot.video_rows[rows], return_inverse=True)
        best = np.full((len(self.asked), len(videos)), -np.inf)
        for step in range(len(self.asked)):
            np.maximum.at(best[step], number, scores[step])
        bound = best.sum(axis=0)
        by_video = np.split(np.argsort(number, kind="stable"), np.cumsum(np.bincount(number))[:-1])
        spans = snapshot.segment_spans(rows)
        follows = segments_may_follow(self.query.within_seconds)
        chains: list[Chain] = []
        for video in np.argsort(-bound, kind="stable").tolist():
            if len(chains) >= wanted:
                chains.sort(key=lambda chain: -chain.score)
                del chains[wanted:]
                if chains[-1].score >= bound[video]:
                    break
            own = [self._best_of(by_video[video], scores[step]) for step in range(len(self.asked))]
            steps = [
                Spans(spans[those, 0], spans[those, 1], scores[step][those].astype(np.float64))
                for step, those in enumerate(own)
            ]
            for score, places in best_chains(steps, follows, _CHAINS_OF_VIDEO):
                at = (int(those[place]) for those, place in zip(own, places, strict=True))
                chains.append(Chain(score, tuple(at)))
        return sorted(chains, key=lambda chain: -chain.score)[:wanted]

    @staticmethod
    def _best_of(places: NDArray[np.int64], scores: NDArray[np.float32]) -> NDArray[np.int64]:
        """At most `_MOST_OF_VIDEO` of the places, those with the best scores."""
        if len(places) <= _MOST_OF_VIDEO:
            return places
        return np.sort(places[np.argsort(-scores[places], kind="stable")[:_MOST_OF_VIDEO]])

    def _reranked(self, steps: Sequence[_Step]) -> tuple[list[_Step], RerankSkipped | None]:
        """All steps re-ranked, or none: scores of both kinds have no mean."""
        done: list[_Step] = []
        for asked, step in zip(self.asked, steps, strict=True):
            wanted = min(self.searcher.num_candidates(asked.options), len(step.retrieved.rows))
            retrieved, reranked = self.searcher.rerank(
                asked.query, step.retrieved, asked.options, asked.stopwatch
            )
            if reranked is None:
                return list(steps), "deadline"
            done.append(_Step(retrieved, reranked, wanted))
        return done, None

    def _why_fewer(self, steps: Sequence[_Step]) -> RerankReduced | None:
        for asked, step in zip(self.asked, steps, strict=True):
            reason = self.searcher.why_fewer(asked.query, asked.options, step.wanted, step.reranked)
            if reason is not None:
                return reason
        return None

    def _hits(self, found: Sequence[Sequence[ScoredSpan]], builders: Sequence[HitBuilder]) -> list[Hit]:
        """The best sequences of the moments that were found for each step, or their videos."""
        by_video: dict[str, list[Sequence[ScoredSpan]]] = {}
        for sequence in sequences_of(found, self.query.within_seconds):
            by_video.setdefault(sequence[0].video_id, []).append(sequence)
        options, most = self._options, self._options.moments_per_video
        if options.group_by == "video":
            groups = [(best, best[:most]) for best in by_video.values()]
            hits = [self._hit(best[0], shown, builders) for best, shown in groups]
        else:
            hits = [self._hit(each, None, builders) for best in by_video.values() for each in best]
        kept = [hit for hit in hits if hit is not None and self._passes(hit)]
        # What is missing comes last.
        kept.sort(key=lambda hit: (hit.missing, -hit.score))
        if options.sort is not None:
            kept = self.searcher.sorted_by(options.sort, kept, [hit.video_id for hit in kept])
        return kept[: self.top_k]

    def _passes(self, hit: Hit) -> bool:
        """Whether a sequence reaches what the options ask for."""
        score, similarity = self._options.min_score, self._options.min_similarity
        return (score is None or hit.score >= score) and (similarity is None or hit.similarity >= similarity)

    def _hit(
        self,
        sequence: Sequence[ScoredSpan],
        sequences: Sequence[Sequence[ScoredSpan]] | None,
        builders: Sequence[HitBuilder],
    ) -> Hit | None:
        label = self.searcher.snapshot.label(sequence[0].video_id)
        if label is None:  # never in an intact snapshot
            return None
        moments = [builder.moment(span) for builder, span in zip(builders, sequence, strict=True)]
        best, shown = _joined(moments), None
        if sequences is not None and "moments" in self._options.parts:
            # The first of them is this one.
            shown = [best, *(_whole(each, builders) for each in sequences[1:])]
        steps = zip(self.query.steps, moments, builders, sequence, strict=True)
        return hit_of(
            sequence[0].video_id,
            label,
            self.searcher.names,
            best,
            moments=shown,
            steps=[
                SequenceStep(step.text, moment, builder.explanation(span, moment))
                for step, moment, builder, span in steps
            ],
            explanation=None,
        )


def sequences_of(
    found: Sequence[Sequence[ScoredSpan]], within_seconds: float
) -> list[tuple[ScoredSpan, ...]]:
    """The best sequences of the moments of each step, best first; those of one video do not overlap.

    Args:
        found: the moments of each step, of any videos, K lists.
        within_seconds: how long after the end of a step the next one begins, at most.
    """
    videos = set.intersection(*({span.video_id for span in step} for step in found))
    sequences: list[tuple[float, tuple[ScoredSpan, ...]]] = []
    for video_id in sorted(videos):
        own = [
            sorted((span for span in step if span.video_id == video_id), key=_place_in_time) for step in found
        ]
        taken: list[tuple[float, float]] = []
        for score, places in best_chains(
            [_spans(step) for step in own], moments_follow(within_seconds), len(own[-1])
        ):
            sequence = tuple(step[place] for step, place in zip(own, places, strict=True))
            start, end = sequence[0].start_seconds, sequence[-1].end_seconds
            if all(end <= other[0] or start >= other[1] for other in taken):
                taken.append((start, end))
                sequences.append((score, sequence))
    return [sequence for _, sequence in sorted(sequences, key=lambda each: -each[0])]


def _place_in_time(span: ScoredSpan) -> tuple[float, float]:
    return span.start_seconds, span.end_seconds


def _spans(spans: Sequence[ScoredSpan]) -> Spans:
    values = np.array([(x.start_seconds, x.end_seconds, x.score) for x in spans], np.float64).reshape(-1, 3)
    return Spans(*values.T)


def _whole(sequence: Sequence[ScoredSpan], builders: Sequence[HitBuilder]) -> VideoMoment:
    return _joined([builder.moment(span) for builder, span in zip(builders, sequence, strict=True)])


def _joined(moments: Sequence[VideoMoment]) -> VideoMoment:
    """The span from the first moment to the last, with the means of their scores and the frames of all.

    A frame that several steps share is that of the first.
    """
    frames = {frame.frame_id: frame for moment in reversed(moments) for frame in moment.frames}
    matched = [moment.match_score for moment in moments if moment.match_score is not None]
    return VideoMoment(
        start_seconds=moments[0].start_seconds,
        end_seconds=max(moment.end_seconds for moment in moments),
        score=_mean([moment.score for moment in moments]),
        similarity=_mean([moment.similarity for moment in moments]),
        match_score=_mean(matched) if len(matched) == len(moments) else None,
        probability=None,
        level=None,
        frames=sorted(frames.values(), key=lambda frame: frame.pts_seconds),
        text_matches=[match for moment in moments for match in moment.text_matches],
    )


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), SCORE_DECIMALS)
