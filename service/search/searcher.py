"""Search without HTTP: the same code answers the API, `reelfind search` and `reelfind eval`.

The query is encoded (`query_encoder.py`); the index gives the nearest segments (`retrieval.py`); the best of
them are re-ranked by the frames most relevant to the query (`rerank.py`); in the best of those, and beside
them, moments are found (`moments.py`), which become hits (`hits.py`). `sequences.py` does so for each text of
a sequence.

Shapes: B texts, V videos of the snapshot, including those that could not be indexed.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TypeVar

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from indexer.library.curated import CuratedSnapshot
from indexer.library.errors import LibraryError
from indexer.library.snapshot import Snapshot
from model.runtime.bundle import Bundle
from model.runtime.bundle.manifest import Calibration
from model.runtime.calibration import BACKGROUND_RANKS, SearchEvidence
from service.errors import NotUnderstoodError
from service.search.blocks import START, BlockRule, Blocks, Group, Position
from service.search.damage import answer_around_damage
from service.search.encoded_query import EncodedQuery, EncodedTexts, encode_text_queries
from service.search.example_encoder import example_rows
from service.search.filters import Filter
from service.search.hits import HitBuilder, cosine_of
from service.search.match_queue import MatchQueue, MatchTerms
from service.search.moment_scores import MomentScorer
from service.search.moments import MomentStage
from service.search.page_tokens import snapshot_mark, token_key
from service.search.probability import Rater, evidence_of
from service.search.queries import (
    SearchQuery,
    SingleQuery,
    TextQuery,
    examples_left_out,
    is_text_alone,
    text_of,
)
from service.search.query import check_min_probability, check_num_candidates, check_num_salient_frames
from service.search.query_encoder import QueryEncoder
from service.search.queues import SearchQueues
from service.search.rerank import (
    LEAST_CANDIDATES,
    RerankedCandidates,
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
    ProbabilitySkipped,
    RerankReduced,
    RerankSkipped,
    SearchResult,
    StageTimings,
)
from service.search.retrieval import (
    FindNearest,
    RetrievedSegments,
    best_segments,
    choose_candidates,
    further_segments,
)
from service.search.scored_spans import ScoredSpan, segment_spans
from service.search.selection import Selection, Selections
from service.search.sorting import Sort
from service.search.stopwatch import Stopwatch
from service.search.text_queue import TextEncoder
from service.search.texts import Modalities, TextEvidence, find_text, find_text_of
from service.search.video_finder import video_with_id
from service.search.views import WHOLE, PathNames, View

Result = TypeVar("Result")

# Views that are kept for a searcher: each may have selections of its own.
_MOST_VIEWS = 32
# Most query-segment scores, and most encoded texts, held at once when all videos are ranked.
_MAX_PAIRS = 8_000_000
_MAX_TEXTS = 256


@dataclass(frozen=True)
class SearchOptions:
    """How to search. `Searcher.check` checks the values.

    Attributes:
        group_by: what a hit is; "segment", as evaluation ranks videos, is not offered to users.
        moments_per_video: moments of a hit that is a video, at most.
        where: which videos to search; None: all. Probabilities compare with all that are seen.
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
        return MatchTerms(self.client, self.deadline, self.is_wanted, self.match_seconds)


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
class Lines:
    """The lines of text that fit a query; None: text does not count; and what is wrong with them."""

    evidence: TextEvidence | None = None
    warnings: tuple[LibraryWarning, ...] = ()

    @classmethod
    def read(cls, find: Callable[[], TextEvidence]) -> "Lines":
        """The lines that `find` gives; where they cannot be read, pictures alone decide."""
        try:
            return cls(find())
        except LibraryError as error:
            return cls(None, (LibraryWarning("unreadable_texts", str(error)),))


@dataclass(frozen=True)
class Asked:
    """What one search asks for, and what is known before anything is ranked.

    Attributes:
        query: the query.
        top_k: number of hits.
        options: how to search.
        stopwatch: times the stages.
        lines: the lines of text that fit the query.
        evidence: what gives scores their probabilities.
        allowed: the segments to search among, ascending; None: all.
        missing: those that come after them, ascending; None: none do.
        left_out: the segments of the example, which are not in the answer.
    """

    query: EncodedQuery
    top_k: int
    options: SearchOptions
    stopwatch: Stopwatch
    lines: Lines
    evidence: SearchEvidence
    allowed: NDArray[np.int64] | None = None
    missing: NDArray[np.int64] | None = None
    left_out: tuple[int, ...] = ()


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


class _Views:
    """The views of one searcher that were asked for lately."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.kept: LRUCache[View, Searcher] = LRUCache(_MOST_VIEWS)


@dataclass(frozen=True)
class Searcher:
    """One bundle and one snapshot made with it. It never changes, so a request sees one state throughout.

    Attributes:
        queues: what it shares with others: the bundle's text encoder and matching head, and the index.
        snapshot: what is searched.
        max_candidates: most segments that one search may re-rank.
        video_share: the share of the candidates that one video may have while there are others.
        images_allowed: whether pictures may be queries, for which the frame encoder is opened.
        view: what of the library is seen, and how its paths look.
    """

    queues: SearchQueues
    snapshot: Snapshot
    max_candidates: int
    video_share: float = 1.0
    images_allowed: bool = True
    view: View = WHOLE
    _views: _Views = field(default_factory=_Views, init=False, repr=False, compare=False)

    def seen_by(self, view: View) -> "Searcher":
        """The same with what is seen in a view alone.

        Raises:
            ValueError: it is limited to another view.
        """
        if view == self.view:
            return self
        if self.view != WHOLE:
            raise ValueError(f"what is seen in {self.view} says nothing of {view}")
        with self._views.lock:
            seen = self._views.kept.get(view)
            if seen is None:
                snapshot = self.snapshot
                if view.folder is not None:
                    folder = os.fsencode(view.folder)
                    snapshot = CuratedSnapshot.of(snapshot, snapshot.curation, folder)
                seen = self._views.kept[view] = replace(self, snapshot=snapshot, view=view)
        return seen

    @cached_property
    def names(self) -> PathNames:
        """How paths look."""
        return PathNames(self.view, self.snapshot.media_roots)

    @property
    def bundle(self) -> Bundle:
        """The model."""
        return self.queues.bundle

    @property
    def match_queue(self) -> MatchQueue:
        """What runs the bundle's matching head."""
        return self.queues.match

    def calibration_for(self, *, text_alone: bool) -> Calibration | None:
        """What gives the scores of a query their probabilities; None: hits have none."""
        skipped = self.why_no_probability(text_alone=text_alone)
        return self.bundle.manifest.calibration if skipped is None else None

    def why_no_probability(self, *, text_alone: bool) -> ProbabilitySkipped | None:
        """Why hits have no probability; None: they have. `text_alone`: whether the query is one text.

        A bundle's calibration was fitted to texts, and to cosines of all dimensions: those of pictures, and
        of a library with cut embeddings, are others.
        """
        if self.bundle.manifest.calibration is None:
            return "not_calibrated"
        if self.snapshot.is_cut:
            return "cut_embeddings"
        return None if text_alone else "not_a_text"

    @cached_property
    def selections(self) -> Selections:
        """What filters leave of the snapshot."""
        return Selections(self.snapshot, self.names)

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

    def check(self, options: SearchOptions, query: SearchQuery | None = None) -> SearchOptions:
        """Return the options if they are valid for this searcher and a query; None: for a text.

        Raises:
            QueryError: a value is out of range, or the bundle has no probabilities.
        """
        if options.num_candidates is not None:
            check_num_candidates(options.num_candidates, self.max_candidates)
        if options.num_salient_frames is not None:
            check_num_salient_frames(options.num_salient_frames, self.bundle.manifest.frames_per_segment)
        if options.min_probability is not None:
            skipped = self.why_no_probability(text_alone=query is None or is_text_alone(query))
            check_min_probability(options.min_probability, skipped)
        return options

    def most_pairs(self, options: SearchOptions) -> int:
        """How many pairs a search for one part of a text asks the matching head for; 0: it asks for none."""
        if not self.reads_tokens(options):
            return 0
        wanted = min(self.num_candidates(options), self.snapshot.num_segments)
        return wanted * self._num_salient_frames(options)

    def search(
        self,
        query: str | SingleQuery,
        top_k: int,
        options: SearchOptions | None = None,
    ) -> SearchResult:
        """The `top_k` best moments or videos for a query; a string is a text alone.

        Args:
            query: its texts are cleaned, see `clean_text`.
            top_k: number of moments or videos, at least 1.
            options: how to search.

        Raises:
            NotUnderstoodError: the model knows no word of a text, and no line of text fits.
            QueryError: the query cannot be encoded, see `QueryEncoder.encode`.
            NoImageQueryError: it has a picture, and pictures cannot be queries.
            LibraryError: a table cannot be read.
            BundleError: the model fails.
            OverloadedError: the deadline passed while it waited for the text encoder or the index.
        """
        return self.open(query, top_k, options).result

    def open(
        self,
        query: str | SingleQuery,
        top_k: int,
        options: SearchOptions | None = None,
        known: EncodedTexts | None = None,
    ) -> OpenSearch:
        """As `search`, and further pages of `top_k` hits by `page`; `known` are texts encoded before."""
        query = TextQuery(query) if isinstance(query, str) else query
        options = options or SearchOptions()
        stopwatch = Stopwatch()
        text, lines = text_of(query), Lines()
        if options.group_by != "segment" and text is not None:
            lines = self.lines_of(text, options)
            stopwatch.lap("texts")
        encoded, lines = self._encoded(query, lines, options, stopwatch, known)
        return self._search(encoded, top_k, options, stopwatch, lines, self._left_out(query))

    def lines_of(self, text: str, options: SearchOptions, video_id: str | None = None) -> Lines:
        """The lines of text that fit, of all videos that are there, or of one."""
        if video_id is not None:
            return Lines.read(lambda: find_text_of(self.snapshot, video_id, text, options.modalities))
        videos = self._present_videos(options)
        return Lines.read(lambda: find_text(self.snapshot, text, options.modalities, videos))

    def _present_videos(self, options: SearchOptions) -> NDArray[np.bool_] | None:
        """Which videos the options leave that are there, bool, one a row of the catalog; None: all."""
        selected = self._selected(options.where)
        present = self.selections.present(selected)
        if present is not None:
            return present.videos
        return None if selected is None else selected.videos

    def search_encoded(
        self, query: EncodedQuery, top_k: int, options: SearchOptions | None = None
    ) -> SearchResult:
        """The `top_k` best moments or videos for an encoded query. A matching head needs a text with tokens.

        Raises:
            LibraryError: a table cannot be read.
            BundleError: the model fails.
            OverloadedError: the deadline passed while it waited for the index.
        """
        return self.open_encoded(query, top_k, options).result

    def open_encoded(
        self, query: EncodedQuery, top_k: int, options: SearchOptions | None = None
    ) -> OpenSearch:
        """As `search_encoded`, and further pages of `top_k` hits by `page`."""
        return self._search(query, top_k, options or SearchOptions(), Stopwatch(), Lines())

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
        self,
        video_id: str,
        query: str | SingleQuery,
        top_k: int,
        options: SearchOptions | None = None,
    ) -> SearchResult:
        """The `top_k` best moments of one video for a query; a string is a text alone.

        All segments of the video are candidates of the first stage, whatever else the library holds.

        Raises:
            NotFoundError: there is no such video, or the options leave it out.
            And as `search`.
        """
        return self.open_video(video_id, query, top_k, options).result

    def open_video(
        self,
        video_id: str,
        query: str | SingleQuery,
        top_k: int,
        options: SearchOptions | None = None,
    ) -> OpenSearch:
        """As `search_video`, and further pages of `top_k` hits by `page`."""
        query = TextQuery(query) if isinstance(query, str) else query
        options = options or SearchOptions()
        self.check_video(video_id, options)
        stopwatch = Stopwatch()
        text, lines = text_of(query), Lines()
        if text is not None:
            lines = self.lines_of(text, options, video_id)
            stopwatch.lap("texts")
        encoded, lines = self._encoded(query, lines, options, stopwatch)
        rows = self.snapshot.segment_rows(video_id)
        retrieved = RetrievedSegments.from_index(self.snapshot.scores_of(encoded.embedding, rows), rows)
        stopwatch.lap("retrieve")
        # Probabilities compare with the whole library, not with the video.
        evidence = self._evidence(encoded, options)
        left_out = self._left_out(query)
        asked = Asked(encoded, top_k, options, stopwatch, lines, evidence, np.sort(rows), left_out=left_out)
        return self._answer(asked, retrieved)

    def check_video(self, video_id: str, options: SearchOptions) -> None:
        """Check that a video can be searched.

        Raises:
            NotFoundError: there is no such video, or the options leave it out.
        """
        selected = self._selected(options.where)
        video_with_id(self.snapshot, video_id, None if selected is None else selected.videos)

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
        skipped = self.why_no_rerank(options)
        num_segments = self.snapshot.num_segments
        shape = (len(texts), self.snapshot.catalog.num_rows)
        similarity = np.full(shape, -np.inf, dtype=np.float32)
        ensemble = np.full(shape if skipped is None else (0, 0), -np.inf, dtype=np.float64)
        not_understood = truncated = 0
        step = max(1, min(_MAX_TEXTS, _MAX_PAIRS // max(1, num_segments)))
        for start in range(0, len(texts), step):
            part = texts[start : start + step]
            queries = encode_text_queries(self.bundle, part, tokens=self.reads_tokens(options))
            embeddings = np.stack([query.embedding for query in queries])
            scores, rows = self.snapshot.search(embeddings, num_segments)
            not_understood += sum(not query.is_understood for query in queries)
            truncated += sum(any(w.kind == "truncated" for w in query.warnings) for query in queries)
            for place, query in enumerate(queries):
                retrieved = RetrievedSegments.from_index(scores[place], rows[place])
                videos = self.snapshot.video_rows[retrieved.rows]
                np.maximum.at(similarity[start + place], videos, retrieved.score)
                if skipped is None and len(retrieved.rows):
                    retrieved, reranked = self.rerank(query, retrieved, options, Stopwatch())
                    final = final_scores(retrieved, reranked, self.bundle.manifest.ensemble_lambda)
                    np.maximum.at(ensemble[start + place], videos, final)
                on_ranked()
        final_ranking = ensemble if skipped is None else None
        return Ranking(similarity, final_ranking, skipped, not_understood, truncated)

    def _evidence(
        self, query: EncodedQuery, options: SearchOptions, scores: NDArray[np.float32] | None = None
    ) -> SearchEvidence:
        """What is known of a query and the library; nothing, which costs nothing, without a calibration.

        `scores` are those of the best segments of all that is seen; None: they are looked for.
        """
        if self.calibration_for(text_alone=query.is_text_alone) is None:
            return SearchEvidence(None, None)
        if scores is None:
            find, least = self._find_nearest(options), BACKGROUND_RANKS[1]
            scores = best_segments(self.snapshot, query, 1, 0, least=least, find=find).score
        return evidence_of(self.bundle, query, scores)

    def _find_nearest(self, options: SearchOptions) -> FindNearest:
        """What searches the index for a search with these options: in calls that others may share."""
        return partial(self.queues.vectors.search, terms=options.match_terms)

    def _selected(self, where: Filter | None) -> Selection | None:
        """What a filter leaves; None: everything."""
        return None if where is None else self.selections.of(where)

    def rows_left(self, where: Filter | None) -> NDArray[np.int64] | None:
        """The segments that a filter leaves, ascending; None: all."""
        selected = self._selected(where)
        return None if selected is None else selected.rows

    def encoder(
        self, options: SearchOptions, stopwatch: Stopwatch, known: EncodedTexts | None = None
    ) -> QueryEncoder:
        """What encodes the queries of a search."""
        return QueryEncoder(
            self.bundle,
            self.snapshot,
            self.reads_tokens(options),
            self.images_allowed,
            known or EncodedTexts(),
            self.text_encoder(options),
            stopwatch,
        )

    def text_encoder(self, options: SearchOptions) -> TextEncoder:
        """What encodes the texts of a search with these options: in calls that others may share."""
        return self.queues.texts.on_terms(options.match_terms)

    def _encoded(
        self,
        query: SingleQuery,
        lines: Lines,
        options: SearchOptions,
        stopwatch: Stopwatch,
        known: EncodedTexts | None = None,
    ) -> tuple[EncodedQuery, Lines]:
        """A query encoded. If the model knows no word of a text, lines alone decide, if there are any.

        Raises:
            As `search`.
        """
        try:
            return self.encoder(options, stopwatch, known).encode(query), lines
        except NotUnderstoodError:
            if not isinstance(query, TextQuery) or query.not_text is not None:
                raise
            if lines.evidence is None or not lines.evidence.lines:
                raise
            (encoded,) = encode_text_queries(
                self.bundle,
                [query.text],
                tokens=self.reads_tokens(options),
                encoder=self.text_encoder(options),
            )
            stopwatch.lap("encode_text")
            return encoded, replace(lines, evidence=lines.evidence.alone())

    def _left_out(self, query: SingleQuery) -> tuple[int, ...]:
        """The segments of the example, unless it may be in the answer."""
        return tuple(example_rows(self.snapshot, examples_left_out(query)).tolist())

    def _search(
        self,
        query: EncodedQuery,
        top_k: int,
        options: SearchOptions,
        stopwatch: Stopwatch,
        lines: Lines,
        left_out: tuple[int, ...] = (),
    ) -> OpenSearch:
        skipped = self.why_no_rerank(options, query)
        num_candidates = self.num_candidates(options) if options.sort or not skipped else 0
        # The background of a search's probabilities is a mean over these ranks.
        least = BACKGROUND_RANKS[1] if self.calibration_for(text_alone=query.is_text_alone) else 0
        selected = self._selected(options.where)
        allowed = None if selected is None else selected.rows
        # What is missing comes last: see `further_segments`. Evaluation tells nothing apart.
        present = None if options.group_by == "segment" else self.selections.present(selected)
        if present is not None:
            allowed = present.rows
        retrieved = best_segments(
            self.snapshot,
            query,
            top_k,
            num_candidates,
            self.video_share,
            least,
            allowed,
            left_out,
            self._find_nearest(options),
        )
        # Under a filter, probabilities compare with the whole library, too.
        evidence = self._evidence(query, options, retrieved.score if options.where is None else None)
        stopwatch.lap("retrieve")
        missing = None if present is None else present.missing_rows
        asked = Asked(query, top_k, options, stopwatch, lines, evidence, allowed, missing, left_out)
        return self._answer(asked, retrieved)

    def _answer(self, asked: Asked, retrieved: RetrievedSegments) -> OpenSearch:
        """Rank the retrieved segments, without those that turn out to be damaged."""

        def rank(
            left_out: Sequence[int], skipped: RerankSkipped | None, warnings: Sequence[LibraryWarning]
        ) -> OpenSearch:
            kept = retrieved.without(np.array(left_out, np.int64))
            return self._rank(asked, kept, skipped, left_out, warnings)

        skipped = self.why_no_rerank(asked.options, asked.query)
        return answer_around_damage(rank, asked.left_out, skipped, self.known_warnings(asked.lines.warnings))

    def known_warnings(self, of_lines: Sequence[LibraryWarning]) -> list[LibraryWarning]:
        """What is wrong with the library, as far as it is known before anything is ranked."""
        warnings = list(of_lines)
        if self.snapshot.curation.problem is not None:
            warnings.append(LibraryWarning("unreadable_curation", self.snapshot.curation.problem))
        return warnings

    def _rank(
        self,
        asked: Asked,
        retrieved: RetrievedSegments,
        skipped: RerankSkipped | None,
        left_out: Sequence[int],
        warnings: Sequence[LibraryWarning],
    ) -> OpenSearch:
        """Re-rank the retrieved segments unless that is skipped, and make hits of the best ones.

        Raises:
            DamagedRowsError: some of the segments are damaged.
            UnreadableTokensError: tokens of frames are damaged or cannot be read.
        """
        query, options, stopwatch = asked.query, asked.options, asked.stopwatch
        wanted = 0 if skipped else min(self.num_candidates(options), len(retrieved.rows))
        reranked = None
        if wanted:
            retrieved, reranked = self.rerank(query, retrieved, options, stopwatch)
            skipped = "deadline" if reranked is None else None
        following: Position | None = None
        if options.group_by == "segment":
            blocks = None
            hits = self._segments(asked, retrieved, reranked)
        else:
            blocks = self._blocks(asked, retrieved, reranked, left_out)
            page = blocks.page(START, lambda stage: stage)
            following = page.following
            hits = self._hits_of(page.groups, options, None if reranked is None else len(reranked.score))
            blocks.strip()
        stopwatch.lap("fetch")
        result = SearchResult(
            hits=hits,
            best_guess=None if blocks is None else blocks.best_guess,
            probability_skipped=self.why_no_probability(text_alone=query.is_text_alone),
            snapshot=self.snapshot.number,
            reranked=skipped is None,
            rerank_skipped=skipped,
            num_candidates=0 if reranked is None else len(reranked.score),
            num_candidates_wanted=wanted,
            rerank_reduced=self.why_fewer(query, options, wanted, reranked),
            query_warnings=list(query.warnings),
            library_warnings=list(warnings),
            timings_ms=StageTimings.from_stopwatch(stopwatch),
            num_videos=self.num_searched(options),
        )
        return OpenSearch(result, following, blocks)

    def num_searched(self, options: SearchOptions) -> int:
        """How many videos the options leave that have segments."""
        selected = self._selected(options.where)
        return self.snapshot.num_videos if selected is None else selected.num_searchable

    def hit_builder(self, options: SearchOptions, num_reranked: int | None) -> HitBuilder:
        """What makes the hits of a search of which so many candidates were re-ranked; None: none."""
        lam = self.bundle.manifest.ensemble_lambda
        return HitBuilder(self.snapshot, num_reranked, lam, options.explain, options.parts, self.names)

    def _hits_of(
        self, groups: Sequence[Group], options: SearchOptions, num_reranked: int | None
    ) -> list[Hit]:
        """Moments or videos as hits."""
        builder = self.hit_builder(options, num_reranked)
        if options.group_by == "video":
            return builder.hits_of_videos(groups)
        return builder.hits([span for (span,) in groups])

    def _segments(
        self, asked: Asked, retrieved: RetrievedSegments, reranked: RerankedCandidates | None
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

    def moment_stage(
        self,
        asked: Asked,
        retrieved: RetrievedSegments,
        reranked: RerankedCandidates | None,
        left_out: Sequence[int],
    ) -> MomentStage:
        """What finds the moments in the retrieved segments and beside them."""
        query, options = asked.query, asked.options
        scores = final_scores(retrieved, reranked, self.bundle.manifest.ensemble_lambda)
        max_pairs = None
        if options.max_pairs is not None and reranked is not None:
            max_pairs = options.max_pairs - int(reranked.chosen.sum()) * len(query.parts or ())
        lines = asked.lines.evidence
        modalities = options.modalities if lines is None else lines.modalities
        calibration = self.calibration_for(text_alone=query.is_text_alone)
        rater = Rater.of(calibration, asked.evidence, modalities, scores, reranked=reranked is not None)
        scorer = MomentScorer(
            self.snapshot,
            self.match_queue,
            query,
            retrieved,
            reranked,
            self._num_salient_frames(options),
            options.match_terms,
            max_pairs,
        )
        return MomentStage(scorer, left_out, rater, asked.stopwatch, lines)

    def _blocks(
        self,
        asked: Asked,
        retrieved: RetrievedSegments,
        reranked: RerankedCandidates | None,
        left_out: Sequence[int],
    ) -> Blocks:
        """The ranking of moments or videos."""
        query, options = asked.query, asked.options
        stage = self.moment_stage(asked, retrieved, reranked, left_out)
        sort = options.sort
        rule = BlockRule(
            by_video=options.group_by == "video",
            of_video=options.moments_per_video,
            page_size=asked.top_k,
            keep=lambda group: [span for span in group if self._passes(span, options)],
            has_threshold=options.has_threshold,
            order=None
            if sort is None
            else lambda groups: self.sorted_by(sort, groups, [group[0].video_id for group in groups]),
            num_sorted=0 if sort is None else self.num_candidates(options),
        )

        def more(known: RetrievedSegments) -> RetrievedSegments:
            found = further_segments(self.snapshot, query, known, asked.allowed, left_out)
            if asked.missing is None or len(found.rows) > len(known.rows):
                return found
            return further_segments(self.snapshot, query, known, asked.missing, left_out)

        return Blocks(stage, rule, more, self.bundle.manifest.ensemble_lambda)

    def _passes(self, span: ScoredSpan, options: SearchOptions) -> bool:
        """Whether a moment reaches what the options ask for."""
        least, similarity = options.min_probability, options.min_similarity
        return (
            (least is None or (span.probability or 0.0) >= least)
            and (options.min_score is None or span.score >= options.min_score)
            and (similarity is None or cosine_of(span, self.snapshot.hubness_weight) >= similarity)
        )

    def sorted_by(self, sort: Sort, hits: Sequence[Result], video_ids: Sequence[str]) -> list[Result]:
        """Hits by a field of their videos; those with the same value stay in their order."""
        ranks, catalog = self.selections.ranks(sort), self.snapshot.catalog
        rows = [catalog.row_of(video_id) for video_id in video_ids]
        order = np.argsort([0 if row is None else int(ranks[row]) for row in rows], kind="stable")
        return [hits[place] for place in order.tolist()]

    def why_no_rerank(
        self, options: SearchOptions, query: EncodedQuery | None = None
    ) -> RerankSkipped | None:
        """Why this search is not re-ranked; None: it is. Without a query, the query is a text."""
        if not options.rerank:
            return "not_requested"
        if self.cannot_rerank is not None:
            return self.cannot_rerank
        has_text = query is None or query.parts is not None
        return None if has_text or not self.reads_tokens(options) else "no_text"

    def reads_tokens(self, options: SearchOptions) -> bool:
        """Whether a search with these options asks a matching head, which reads the tokens of texts."""
        return options.rerank and self.uses_matcher

    def num_candidates(self, options: SearchOptions) -> int:
        """How many segments a search re-ranks, if there are so many and time and cost allow."""
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

    def why_fewer(
        self, query: EncodedQuery, options: SearchOptions, wanted: int, reranked: RerankedCandidates | None
    ) -> RerankReduced | None:
        """Why fewer candidates were re-ranked than were wanted; None: all were, or none."""
        if reranked is None or len(reranked.score) == wanted:
            return None
        return "cost" if len(reranked.score) == self._affordable(query, options, wanted) else "deadline"

    def rerank(
        self,
        query: EncodedQuery,
        retrieved: RetrievedSegments,
        options: SearchOptions,
        stopwatch: Stopwatch,
    ) -> tuple[RetrievedSegments, RerankedCandidates | None]:
        """Re-rank the best candidates; of the segments that this gives, those that were come first."""
        wanted = min(self.num_candidates(options), len(retrieved.rows))
        terms = options.match_terms
        num_frames = self._num_salient_frames(options)
        if not self.reads_tokens(options):
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
