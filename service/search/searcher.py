"""Search without HTTP: the same code answers the API, `reelfind search` and `reelfind eval`.

The query is encoded (`encoded_query.py`); the index gives the nearest segments (`retrieval.py`); the best of
them are re-ranked by the frames most relevant to the query (`rerank.py`); in the best of those, and beside
them, moments are found (`moments.py`), which become hits (`hits.py`).

Shapes: B texts, V videos of the snapshot, including those that could not be indexed.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from indexer.library.errors import DamagedRowsError, LibraryError
from indexer.library.snapshot import Snapshot
from model.runtime.bundle import Bundle
from model.runtime.bundle.manifest import Calibration
from model.runtime.calibration import BACKGROUND_RANKS, SearchEvidence
from service.errors import NotUnderstoodError
from service.search.blocks import START, BlockRule, Blocks, Group, Position
from service.search.encoded_query import EncodedQuery, encode_text_queries, encode_text_query
from service.search.filters import Filter, joined
from service.search.hits import HitBuilder, cosine_of
from service.search.match_queue import MatchQueue, MatchTerms
from service.search.moment_scores import MomentScorer
from service.search.moments import MomentStage
from service.search.page_tokens import snapshot_mark, token_key
from service.search.probability import Rater, evidence_of
from service.search.query import check_min_probability, check_num_candidates, check_num_salient_frames
from service.search.rerank import (
    LEAST_CANDIDATES,
    RerankedCandidates,
    UnreadableTokensError,
    best_of_each_video,
    candidates_in_time,
    final_scores,
    rerank,
    rerank_by_salience,
)
from service.search.results import (
    ALL_PARTS,
    CannotRerank,
    GroupBy,
    Hit,
    HitPart,
    LibraryWarning,
    RerankReduced,
    RerankSkipped,
    SearchResult,
    StageTimings,
)
from service.search.retrieval import RetrievedSegments, best_segments, choose_candidates, further_segments
from service.search.scored_spans import ScoredSpan, segment_spans
from service.search.selection import Selection, Selections
from service.search.sorting import Sort
from service.search.stopwatch import Stopwatch
from service.search.texts import Modalities, TextEvidence, find_text, find_text_of
from service.search.video_finder import video_with_id

# Most query-segment scores, and most encoded texts, held at once when all videos are ranked.
_MAX_PAIRS = 8_000_000
_MAX_TEXTS = 256


@dataclass(frozen=True)
class SearchOptions:
    """How to search. `Searcher.check` checks the values.

    Attributes:
        group_by: what a hit is; "segment", as evaluation ranks videos, is not offered to users.
        moments_per_video: moments of a hit that is a video, at most.
        where: which videos to search; None: all that are visible.
        visible: which videos there are for whoever asks; None: all. With `where` alone, probabilities compare
            with the whole library; what is not visible does not count in them.
        modalities: how much each kind of evidence counts.
        min_probability: leave out less likely moments; None: leave out none. Needs a calibrated bundle.
        min_score: leave out moments with a lower score; None: leave out none.
        min_similarity: leave out moments with a lower similarity; None: leave out none.
        sort: in which order hits come; None: the best first. Sorted are the hits around the best
            `num_candidates` segments, whether these are re-ranked or not.
        parts: which parts of hits are wanted.
        rerank: whether to re-rank the best segments.
        num_candidates: number of segments to re-rank; None: the bundle's default.
        num_salient_frames: frames of each segment to match; None: the bundle's default.
        deadline: in seconds of `time.monotonic()`: as many candidates are re-ranked as can be in time; if
            these are too few, the first stage answers. None: no deadline.
        explain: whether to explain each score.
        max_pairs: most pairs of a part of the text and a frame that the search may match; None: any.
        client: whose search it is: clients have equal shares of the matching head.
        match_seconds: of the matching head's time that the search may take; None: any.
        is_wanted: whether somebody still waits for the answer; None: somebody does.
    """

    group_by: GroupBy = "segment"
    moments_per_video: int = 3
    where: Filter | None = None
    visible: Filter | None = None
    modalities: Modalities = field(default_factory=Modalities)
    min_probability: float | None = None
    min_score: float | None = None
    min_similarity: float | None = None
    sort: Sort | None = None
    parts: frozenset[HitPart] = ALL_PARTS
    rerank: bool = True
    num_candidates: int | None = None
    num_salient_frames: int | None = None
    deadline: float | None = None
    explain: bool = False
    max_pairs: int | None = None
    client: str | None = None
    match_seconds: float | None = None
    is_wanted: Callable[[], bool] | None = None

    @property
    def has_threshold(self) -> bool:
        """Whether hits may be left out."""
        return any(x is not None for x in (self.min_probability, self.min_score, self.min_similarity))

    @property
    def match_terms(self) -> MatchTerms:
        """On which terms the search uses the matching head."""
        return MatchTerms(self.client, self.deadline, self.match_seconds, self.is_wanted)


@dataclass(frozen=True)
class Ranking:
    """Scores of every video for every text, shape [B, V], in the order of the snapshot's list of videos.

    The score of a video is that of its best segment; -inf if it has no segment, or if an approximate index
    did not reach it.

    Attributes:
        similarity: score of the first stage, float32.
        ensemble: final score, float64; None if nothing was re-ranked.
        rerank_skipped: why nothing was re-ranked.
        not_understood: the number of texts of which the model knows no word.
        truncated: the number of texts whose end was not read.
    """

    similarity: NDArray[np.float32]
    ensemble: NDArray[np.float64] | None
    rerank_skipped: RerankSkipped | None
    not_understood: int
    truncated: int


@dataclass(frozen=True)
class _Texts:
    """The lines of text that fit a query; None: text does not count; and what is wrong with them."""

    evidence: TextEvidence | None = None
    warnings: tuple[LibraryWarning, ...] = ()


_NO_TEXT = _Texts()


@dataclass(frozen=True)
class _Asked:
    """What one search asks for, and what is known before anything is ranked."""

    query: EncodedQuery
    top_k: int
    options: SearchOptions
    stopwatch: Stopwatch
    texts: _Texts
    evidence: SearchEvidence
    allowed: NDArray[np.int64] | None
    missing: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class OpenSearch:
    """An answered search whose ranking can be read on.

    Attributes:
        result: the first page.
        following: where the next page starts; None: there is none.
        blocks: the ranking; None where hits are segments.
    """

    result: SearchResult
    following: Position | None
    blocks: Blocks | None


def _read_texts(find: Callable[[], TextEvidence]) -> _Texts:
    """The lines that `find` gives; where they cannot be read, pictures alone decide."""
    try:
        return _Texts(find())
    except LibraryError as error:
        return _Texts(None, (LibraryWarning("unreadable_texts", str(error)),))


@dataclass(frozen=True)
class Searcher:
    """One bundle and one snapshot made with it. It never changes, so a request sees one state throughout.

    Attributes:
        match_queue: runs the bundle's matching head.
        snapshot: what is searched.
        max_candidates: most segments that one search may re-rank.
        video_share: the share of the candidates that one video may have while there are others.
    """

    match_queue: MatchQueue
    snapshot: Snapshot
    max_candidates: int
    video_share: float = 1.0

    @property
    def bundle(self) -> Bundle:
        """The model."""
        return self.match_queue.bundle

    @property
    def calibration(self) -> Calibration | None:
        """What gives scores their probabilities; None: hits have none.

        A bundle's calibration was fitted to cosines of all dimensions: those of a library with cut embeddings
        are others.
        """
        return None if self.snapshot.is_cut else self.bundle.manifest.calibration

    @cached_property
    def selections(self) -> Selections:
        """What filters leave of the snapshot."""
        return Selections(self.snapshot)

    @cached_property
    def mark(self) -> bytes:
        """Identifies the snapshot in page tokens."""
        return snapshot_mark(self.snapshot.manifest)

    @cached_property
    def token_key(self) -> bytes:
        """What page tokens of the snapshot are signed with. Searches need it, and manifests are long."""
        return token_key(self.snapshot.manifest)

    @property
    def cannot_rerank(self) -> CannotRerank | None:
        """Why no search can be re-ranked; None if searches can."""
        kind = self.bundle.manifest.match_kind
        if kind is None:
            return "no_matcher"
        if kind == "salience":
            return None
        return None if self.snapshot.tokens_per_frame or not self.snapshot.num_segments else "no_tokens"

    @property
    def uses_matcher(self) -> bool:
        """Whether searches that are re-ranked ask a matching head, which reads the tokens of texts."""
        return self.cannot_rerank is None and self.bundle.manifest.match_kind == "matcher"

    def check(self, options: SearchOptions) -> SearchOptions:
        """Return the options if they are valid for this searcher.

        Raises:
            QueryError: a value is out of range, or the bundle has no probabilities.
        """
        if options.num_candidates is not None:
            check_num_candidates(options.num_candidates, self.max_candidates)
        if options.num_salient_frames is not None:
            check_num_salient_frames(options.num_salient_frames, self.bundle.manifest.frames_per_segment)
        if options.min_probability is not None:
            check_min_probability(options.min_probability, self.calibration is not None)
        return options

    def most_pairs(self, options: SearchOptions) -> int:
        """How many pairs a search for one part of a text asks the matching head for; 0: it asks for none."""
        if not self._uses_matcher(options):
            return 0
        wanted = min(self._num_candidates(options), self.snapshot.num_segments)
        return wanted * self._num_salient_frames(options)

    def search(self, text: str, top_k: int, options: SearchOptions | None = None) -> SearchResult:
        """The `top_k` best moments or videos for `text`, which `clean_text` has cleaned.

        Raises:
            NotUnderstoodError: the model knows no word of the text, and no line of text fits.
            QueryError: the text has no token.
            LibraryError: a table cannot be read.
            BundleError: the model fails.
        """
        return self.open(text, top_k, options).result

    def open(self, text: str, top_k: int, options: SearchOptions | None = None) -> OpenSearch:
        """As `search`, and further pages of `top_k` hits by `page`."""
        options = options or SearchOptions()
        stopwatch = Stopwatch()
        texts = _NO_TEXT
        if options.group_by != "segment":
            selected = self._selected(options.where, options.visible)
            present = self.selections.present(selected)
            videos = None if selected is None else selected.videos
            if present is not None:
                videos = present.videos
            texts = _read_texts(lambda: find_text(self.snapshot, text, options.modalities, videos))
            stopwatch.lap("texts")
        query, texts = self._encoded(text, texts, options)
        stopwatch.lap("encode_text")
        return self._search(query, top_k, options, stopwatch, texts)

    def search_encoded(
        self, query: EncodedQuery, top_k: int, options: SearchOptions | None = None
    ) -> SearchResult:
        """The `top_k` best moments or videos for an encoded query. A matching head needs a text with tokens.

        Raises:
            LibraryError: a table cannot be read.
            BundleError: the model fails.
        """
        return self.open_encoded(query, top_k, options).result

    def open_encoded(
        self, query: EncodedQuery, top_k: int, options: SearchOptions | None = None
    ) -> OpenSearch:
        """As `search_encoded`, and further pages of `top_k` hits by `page`."""
        return self._search(query, top_k, options or SearchOptions(), Stopwatch())

    def page(
        self,
        opened: OpenSearch,
        position: Position,
        options: SearchOptions,
        digest: bytes | None = None,
    ) -> OpenSearch:
        """A further page of an open search; `result` is that page. One thread at a time may read on.

        Args:
            opened: what `open` or `open_video` gave for the same query.
            position: where the page starts: what `following` of the page before it was.
            options: those of the search, on the terms of who asks for this page.
            digest: see `Blocks.page`.

        Raises:
            ValueError: there is no such page, or it would go on from another ranking.
            LibraryError: a table cannot be read.
            BundleError: the model fails.
        """
        blocks, before = opened.blocks, opened.result
        if blocks is None:
            raise ValueError("the hits of this search have no pages")
        stopwatch = Stopwatch()
        num_warnings = len(blocks.warnings)

        def stage_of(stage: MomentStage) -> MomentStage:
            scorer = replace(stage.scorer, terms=options.match_terms)
            return replace(stage, scorer=scorer, stopwatch=stopwatch)

        page = blocks.page(position, stage_of, digest)
        num_reranked = before.num_candidates if before.reranked else None
        hits = self._hits_of(page.groups, options, num_reranked)
        stopwatch.lap("fetch")
        result = replace(
            before,
            hits=hits,
            library_warnings=[*before.library_warnings, *blocks.warnings[num_warnings:]],
            timings_ms=StageTimings.from_stopwatch(stopwatch),
        )
        return OpenSearch(result, page.following, blocks)

    def search_video(
        self, video_id: str, text: str, top_k: int, options: SearchOptions | None = None
    ) -> SearchResult:
        """The `top_k` best moments of one video for `text`, which `clean_text` has cleaned.

        All segments of the video are candidates of the first stage, whatever else the library holds.

        Raises:
            NotFoundError: there is no such video, or the options leave it out.
            And as `search`.
        """
        return self.open_video(video_id, text, top_k, options).result

    def open_video(
        self, video_id: str, text: str, top_k: int, options: SearchOptions | None = None
    ) -> OpenSearch:
        """As `search_video`, and further pages of `top_k` hits by `page`."""
        options = options or SearchOptions()
        selected = self._selected(options.where, options.visible)
        video_with_id(self.snapshot, video_id, None if selected is None else selected.videos)
        stopwatch = Stopwatch()
        texts = _read_texts(lambda: find_text_of(self.snapshot, video_id, text, options.modalities))
        stopwatch.lap("texts")
        query, texts = self._encoded(text, texts, options)
        stopwatch.lap("encode_text")
        rows = self.snapshot.segment_rows(video_id)
        retrieved = RetrievedSegments.from_index(self.snapshot.scores_of(query.embedding, rows), rows)
        stopwatch.lap("retrieve")
        # Probabilities compare with the whole library, not with the video.
        evidence = self._evidence_of_library(query, options.visible)
        asked = _Asked(query, top_k, options, stopwatch, texts, evidence, np.sort(rows))
        return self._answer(asked, retrieved, self._why_no_rerank(options, query))

    def rank_all(
        self,
        texts: Sequence[str],
        options: SearchOptions | None = None,
        on_ranked: Callable[[], None] = lambda: None,
    ) -> Ranking:
        """Score every video for every text, without a deadline. `on_ranked` is called after each text.

        Raises:
            QueryError: a text has no token.
            LibraryError: a table cannot be read.
            BundleError: the model fails.
        """
        options = replace(options or SearchOptions(), deadline=None)
        skipped = self._why_no_rerank(options)
        num_segments = self.snapshot.num_segments
        shape = (len(texts), self.snapshot.catalog.num_rows)
        similarity = np.full(shape, -np.inf, dtype=np.float32)
        ensemble = np.full(shape if skipped is None else (0, 0), -np.inf, dtype=np.float64)
        not_understood = truncated = 0
        step = max(1, min(_MAX_TEXTS, _MAX_PAIRS // max(1, num_segments)))
        for start in range(0, len(texts), step):
            part = texts[start : start + step]
            queries = encode_text_queries(self.bundle, part, tokens=self._uses_matcher(options))
            embeddings = np.stack([query.embedding for query in queries])
            scores, rows = self.snapshot.search(embeddings, num_segments)
            not_understood += sum(not query.is_understood for query in queries)
            truncated += sum(any(w.kind == "truncated" for w in query.warnings) for query in queries)
            for place, query in enumerate(queries):
                retrieved = RetrievedSegments.from_index(scores[place], rows[place])
                videos = self.snapshot.video_rows[retrieved.rows]
                np.maximum.at(similarity[start + place], videos, retrieved.score)
                if skipped is None and len(retrieved.rows):
                    retrieved, reranked = self._rerank(query, retrieved, options, Stopwatch())
                    final = final_scores(retrieved, reranked, self.bundle.manifest.ensemble_lambda)
                    np.maximum.at(ensemble[start + place], videos, final)
                on_ranked()
        final_ranking = ensemble if skipped is None else None
        return Ranking(similarity, final_ranking, skipped, not_understood, truncated)

    def _evidence(self, query: EncodedQuery, scores: NDArray[np.float32]) -> SearchEvidence:
        """What is known of a query and the library; nothing, which costs nothing, without a calibration."""
        if self.calibration is None:
            return SearchEvidence(None, None)
        return evidence_of(self.bundle, query, scores)

    def _evidence_of_library(self, query: EncodedQuery, visible: Filter | None) -> SearchEvidence:
        """As `_evidence`, of the best segments of all that is visible."""
        if self.calibration is None:
            return SearchEvidence(None, None)
        scores = best_segments(
            self.snapshot, query, 1, 0, least=BACKGROUND_RANKS[1], allowed=self._rows(self._selected(visible))
        ).score
        return evidence_of(self.bundle, query, scores)

    def _selected(self, *filters: Filter | None) -> Selection | None:
        """What filters leave together; None: everything."""
        where = joined(*filters)
        return None if where is None else self.selections.of(where)

    @staticmethod
    def _rows(selected: Selection | None) -> NDArray[np.int64] | None:
        return None if selected is None else selected.rows

    def _encoded(self, text: str, texts: _Texts, options: SearchOptions) -> tuple[EncodedQuery, _Texts]:
        """A query encoded. If the model knows no word of it, lines of text alone decide, if there are any.

        Raises:
            NotUnderstoodError: the model knows no word of the text, and no line fits.
            QueryError: the text has no token.
        """
        tokens = self._uses_matcher(options)
        try:
            return encode_text_query(self.bundle, text, tokens=tokens), texts
        except NotUnderstoodError:
            if texts.evidence is None or not texts.evidence.lines:
                raise
            (query,) = encode_text_queries(self.bundle, [text], tokens=tokens)
            return query, replace(texts, evidence=texts.evidence.alone())

    def _search(
        self,
        query: EncodedQuery,
        top_k: int,
        options: SearchOptions,
        stopwatch: Stopwatch,
        texts: _Texts = _NO_TEXT,
    ) -> OpenSearch:
        skipped = self._why_no_rerank(options, query)
        num_candidates = self._num_candidates(options) if options.sort or not skipped else 0
        # The background of a search's probabilities is a mean over these ranks.
        least = BACKGROUND_RANKS[1] if self.calibration else 0
        selected = self._selected(options.where, options.visible)
        allowed = self._rows(selected)
        # What is missing comes last: see `further_segments`. Evaluation tells nothing apart.
        present = None if options.group_by == "segment" else self.selections.present(selected)
        if present is not None:
            allowed = present.rows
        retrieved = best_segments(
            self.snapshot, query, top_k, num_candidates, self.video_share, least, allowed
        )
        if options.where is None:
            evidence = self._evidence(query, retrieved.score)
        else:
            evidence = self._evidence_of_library(query, options.visible)
        stopwatch.lap("retrieve")
        missing = None if present is None else present.missing_rows
        asked = _Asked(query, top_k, options, stopwatch, texts, evidence, allowed, missing)
        return self._answer(asked, retrieved, skipped)

    def _answer(
        self, asked: _Asked, retrieved: RetrievedSegments, skipped: RerankSkipped | None
    ) -> OpenSearch:
        """Rank the retrieved segments, without those that turn out to be damaged."""
        warnings: list[LibraryWarning] = list(asked.texts.warnings)
        if self.snapshot.curation.problem is not None:
            warnings.append(LibraryWarning("unreadable_curation", self.snapshot.curation.problem))
        damaged: list[int] = []
        while True:
            try:
                return self._rank(asked, retrieved, skipped, damaged, warnings)
            except DamagedRowsError as error:
                # Leave out the damaged segments: the answer says so, and the others are served.
                warnings.append(LibraryWarning("damaged_segments", str(error)))
                damaged.extend(int(row) for row in error.rows)
                retrieved = retrieved.without(error.rows)
            except UnreadableTokensError as error:
                warnings.append(LibraryWarning("unreadable_tokens", str(error)))
                skipped = "unreadable_tokens"

    def _rank(
        self,
        asked: _Asked,
        retrieved: RetrievedSegments,
        skipped: RerankSkipped | None,
        damaged: Sequence[int],
        warnings: Sequence[LibraryWarning],
    ) -> OpenSearch:
        """Re-rank the retrieved segments unless that is skipped, and make hits of the best ones.

        Raises:
            DamagedRowsError: some of the segments are damaged.
            UnreadableTokensError: tokens of frames are damaged or cannot be read.
        """
        query, options, stopwatch = asked.query, asked.options, asked.stopwatch
        wanted = 0 if skipped else min(self._num_candidates(options), len(retrieved.rows))
        reranked = None
        if wanted:
            retrieved, reranked = self._rerank(query, retrieved, options, stopwatch)
            skipped = "deadline" if reranked is None else None
        following: Position | None = None
        if options.group_by == "segment":
            blocks = None
            hits = self._segments(asked, retrieved, reranked)
        else:
            blocks = self._blocks(asked, retrieved, reranked, damaged)
            page = blocks.page(START, lambda stage: stage)
            following = page.following
            hits = self._hits_of(page.groups, options, None if reranked is None else len(reranked.score))
            blocks.strip()
        stopwatch.lap("fetch")
        selected = self._selected(options.where, options.visible)
        result = SearchResult(
            hits=hits,
            best_guess=None if blocks is None else blocks.best_guess,
            snapshot=self.snapshot.number,
            reranked=skipped is None,
            rerank_skipped=skipped,
            num_candidates=0 if reranked is None else len(reranked.score),
            num_candidates_wanted=wanted,
            rerank_reduced=self._why_fewer(query, options, wanted, reranked),
            query_warnings=list(query.warnings),
            library_warnings=list(warnings),
            timings_ms=StageTimings.from_stopwatch(stopwatch),
            num_videos=self.snapshot.num_videos if selected is None else selected.num_searchable,
        )
        return OpenSearch(result, following, blocks)

    def _hits_of(
        self, groups: Sequence[Group], options: SearchOptions, num_reranked: int | None
    ) -> list[Hit]:
        """Moments or videos as hits."""
        lam = self.bundle.manifest.ensemble_lambda
        builder = HitBuilder(self.snapshot, num_reranked, lam, options.explain, options.parts)
        if options.group_by == "video":
            return builder.hits_of_videos(groups)
        return builder.hits([span for (span,) in groups])

    def _segments(
        self, asked: _Asked, retrieved: RetrievedSegments, reranked: RerankedCandidates | None
    ) -> list[Hit]:
        """The best segment of each of the best videos as hits."""
        query, options = asked.query, asked.options
        scores = final_scores(retrieved, reranked, self.bundle.manifest.ensemble_lambda)
        positions = best_of_each_video(scores, retrieved.rows, self.snapshot.video_rows, asked.top_k)
        num_frames = self._num_salient_frames(options)
        spans = segment_spans(
            self.snapshot, retrieved, reranked, scores, positions, query.salience, num_frames
        )
        return self._hits_of([[x] for x in spans], options, None if reranked is None else len(reranked.score))

    def _blocks(
        self,
        asked: _Asked,
        retrieved: RetrievedSegments,
        reranked: RerankedCandidates | None,
        damaged: Sequence[int],
    ) -> Blocks:
        """The ranking of moments or videos."""
        query, options = asked.query, asked.options
        lam, num_frames = self.bundle.manifest.ensemble_lambda, self._num_salient_frames(options)
        scores = final_scores(retrieved, reranked, lam)
        max_pairs = None
        if options.max_pairs is not None and reranked is not None:
            max_pairs = options.max_pairs - int(reranked.chosen.sum()) * len(query.parts or ())
        texts = asked.texts.evidence
        modalities = options.modalities if texts is None else texts.modalities
        rater = Rater.of(self.calibration, asked.evidence, modalities, scores, reranked=reranked is not None)
        scorer = MomentScorer(
            self.snapshot,
            self.match_queue,
            query,
            retrieved,
            reranked,
            num_frames,
            options.match_terms,
            max_pairs,
        )
        stage = MomentStage(scorer, damaged, rater, asked.stopwatch, texts)
        sort = options.sort
        rule = BlockRule(
            by_video=options.group_by == "video",
            of_video=options.moments_per_video,
            page_size=asked.top_k,
            keep=lambda group: [span for span in group if self._passes(span, options)],
            has_threshold=options.has_threshold,
            order=None if sort is None else lambda groups: self._sorted(groups, sort),
            num_sorted=0 if sort is None else self._num_candidates(options),
        )

        def more(known: RetrievedSegments) -> RetrievedSegments:
            found = further_segments(self.snapshot, query, known, asked.allowed, damaged)
            if asked.missing is None or len(found.rows) > len(known.rows):
                return found
            return further_segments(self.snapshot, query, known, asked.missing, damaged)

        return Blocks(stage, rule, more, lam)

    def _passes(self, span: ScoredSpan, options: SearchOptions) -> bool:
        """Whether a moment reaches what the options ask for."""
        least, similarity = options.min_probability, options.min_similarity
        return (
            (least is None or (span.probability or 0.0) >= least)
            and (options.min_score is None or span.score >= options.min_score)
            and (similarity is None or cosine_of(span, self.snapshot.hubness_weight) >= similarity)
        )

    def _sorted(self, groups: Sequence[Group], sort: Sort) -> list[Group]:
        """Hits by a field of their videos; those with the same value stay in their order."""
        ranks, catalog = self.selections.ranks(sort), self.snapshot.catalog
        rows = [catalog.row_of(group[0].video_id) for group in groups]
        order = np.argsort([0 if row is None else int(ranks[row]) for row in rows], kind="stable")
        return [groups[place] for place in order.tolist()]

    def _why_no_rerank(
        self, options: SearchOptions, query: EncodedQuery | None = None
    ) -> RerankSkipped | None:
        """Why this search is not re-ranked; None: it is. Without a query, the query is a text."""
        if not options.rerank:
            return "not_requested"
        if self.cannot_rerank is not None:
            return self.cannot_rerank
        has_text = query is None or query.parts is not None
        return None if has_text or not self._uses_matcher(options) else "no_text"

    def _uses_matcher(self, options: SearchOptions) -> bool:
        return options.rerank and self.uses_matcher

    def _num_candidates(self, options: SearchOptions) -> int:
        return min(options.num_candidates or self.bundle.manifest.num_candidates, self.max_candidates)

    def _num_salient_frames(self, options: SearchOptions) -> int:
        return options.num_salient_frames or self.bundle.manifest.num_salient_frames

    def _affordable(self, query: EncodedQuery, options: SearchOptions, wanted: int) -> int:
        """How many candidates the search may re-rank."""
        if options.max_pairs is None:
            return wanted
        most = options.max_pairs // self._pairs_per_candidate(query, options)
        return min(wanted, max(LEAST_CANDIDATES, most))

    def _pairs_per_candidate(self, query: EncodedQuery, options: SearchOptions) -> int:
        return self._num_salient_frames(options) * len(query.parts or ())

    def _why_fewer(
        self, query: EncodedQuery, options: SearchOptions, wanted: int, reranked: RerankedCandidates | None
    ) -> RerankReduced | None:
        if reranked is None or len(reranked.score) == wanted:
            return None
        return "cost" if len(reranked.score) == self._affordable(query, options, wanted) else "deadline"

    def _rerank(
        self,
        query: EncodedQuery,
        retrieved: RetrievedSegments,
        options: SearchOptions,
        stopwatch: Stopwatch,
    ) -> tuple[RetrievedSegments, RerankedCandidates | None]:
        """Re-rank the best candidates; of the segments that this gives, those that were come first."""
        wanted = min(self._num_candidates(options), len(retrieved.rows))
        terms = options.match_terms
        num_frames = self._num_salient_frames(options)
        if not self._uses_matcher(options):
            if terms.is_over(time.monotonic()):
                return retrieved, None
            chosen = choose_candidates(retrieved, self.snapshot.video_rows, wanted, self.video_share)
            manifest, candidates = self.bundle.manifest, retrieved.at(chosen)
            return retrieved.with_first(chosen), rerank_by_salience(
                self.snapshot, manifest, query, candidates, num_frames, stopwatch
            )
        count = candidates_in_time(
            self.match_queue,
            self._affordable(query, options, wanted),
            self._pairs_per_candidate(query, options),
            terms,
        )
        if not count:
            return retrieved, None
        chosen = choose_candidates(retrieved, self.snapshot.video_rows, count, self.video_share)
        candidates = retrieved.at(chosen)
        reranked = rerank(self.snapshot, self.match_queue, query, candidates, num_frames, terms, stopwatch)
        if reranked is None:
            return retrieved, None
        return retrieved.with_first(chosen[: len(reranked.score)]), reranked
