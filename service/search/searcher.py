"""Search without HTTP: the same code answers the API, `reelfind search` and `reelfind eval`.

A text is encoded; the index gives the nearest segments (`retrieval.py`); the matching head judges the best of
them anew on the frames that matter for the text (`rerank.py`); the best segment of each video becomes a hit
(`hits.py`).

Shapes: B texts, V videos of the snapshot, failures included.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.library.snapshot import Snapshot
from model.runtime.bundle import Bundle, TextEncoding
from service.api.schemas import CannotRerank, RerankSkipped, SearchResponse, Timings
from service.errors import QueryError
from service.search.hits import HitMaker
from service.search.match_queue import Matcher
from service.search.query import check_num_candidates, check_num_salient_frames
from service.search.rerank import Block, Stopwatch, best_of_each_video, rerank, scores_of
from service.search.retrieval import FirstStage, best_segments

# Scores of this many query-segment pairs, and so many encoded texts, are held at once when all are ranked.
_MAX_PAIRS = 8_000_000
_MAX_TEXTS = 256


@dataclass(frozen=True)
class SearchOptions:
    """How to search; None is the bundle's default. `Searcher.check` checks the values.

    `deadline` is one of `time.monotonic()`, or None: when re-ranking would pass it, the first stage answers.
    """

    rerank: bool = True
    num_candidates: int | None = None
    num_salient_frames: int | None = None
    deadline: float | None = None
    explain: bool = False


@dataclass(frozen=True)
class Ranking:
    """Scores of every video for every text, shape [B, V], in the order of the snapshot's list of all videos.

    A video's score is its best segment's; -inf where it has none, or an approximate index did not reach it.

    Attributes:
        similarity: float32, the first stage's.
        ensemble: float64, what a search ranks by; None where nothing was re-ranked.
        rerank_skipped: why not.
    """

    similarity: NDArray[np.float32]
    ensemble: NDArray[np.float64] | None
    rerank_skipped: RerankSkipped | None


@dataclass(frozen=True)
class Searcher:
    """One bundle and one snapshot made with it; never changes, so a request that holds it sees one state."""

    matcher: Matcher
    snapshot: Snapshot
    max_candidates: int

    @property
    def bundle(self) -> Bundle:
        """The model."""
        return self.matcher.bundle

    def check(self, options: SearchOptions) -> SearchOptions:
        """The options themselves where this searcher can follow them.

        Raises:
            QueryError: more candidates than may be re-ranked, more frames than a segment has, or none.
        """
        if options.num_candidates is not None:
            check_num_candidates(options.num_candidates, self.max_candidates)
        if options.num_salient_frames is not None:
            check_num_salient_frames(options.num_salient_frames, self.bundle.manifest.frames_per_segment)
        return options

    def search(self, text: str, top_k: int, options: SearchOptions | None = None) -> SearchResponse:
        """The `top_k` best videos for `text`, each at its best segment. `text` is clean already."""
        options = options or SearchOptions()
        watch = Stopwatch()
        skipped = self._why_no_rerank(options)
        encoding = self._encode([text], tokens=skipped is None)
        watch.lap("encode_text")
        num_candidates = 0 if skipped else self._num_candidates(options)
        first = best_segments(self.snapshot, encoding.embedding, top_k, num_candidates)
        watch.lap("retrieve")
        block = None
        if num_candidates and len(first.rows):
            block = self._rerank(encoding, first, options, options.deadline, watch)
            skipped = "deadline" if block is None else None
        scores = scores_of(first, block, self.bundle.manifest.ensemble_lambda)
        shown = best_of_each_video(scores, first.rows, self.snapshot.video_rows, top_k)
        hits = HitMaker(
            self.snapshot,
            first,
            block,
            scores,
            encoding.salience[0],
            self._num_salient_frames(options),
            self.bundle.manifest.ensemble_lambda,
            options.explain,
        ).hits(shown)
        watch.lap("fetch")
        return SearchResponse(
            hits=hits,
            snapshot=self.snapshot.number,
            reranked=skipped is None,
            rerank_skipped=skipped,
            num_candidates=0 if block is None else len(block.score),
            timings_ms=_timings(watch),
        )

    def rank_all(
        self,
        texts: Sequence[str],
        options: SearchOptions | None = None,
        on_ranked: Callable[[], None] = lambda: None,
    ) -> Ranking:
        """Scores of every video for every text, without a deadline; `on_ranked` is called after each text."""
        options = options or SearchOptions()
        skipped = self._why_no_rerank(options)
        num_segments = self.snapshot.num_segments
        shape = (len(texts), self.snapshot.count_videos())
        similarity = np.full(shape, -np.inf, dtype=np.float32)
        ensemble = np.full(shape if skipped is None else (0, 0), -np.inf, dtype=np.float64)
        step = max(1, min(_MAX_TEXTS, _MAX_PAIRS // max(1, num_segments)))
        for start in range(0, len(texts), step):
            encoding = self._encode(texts[start : start + step], tokens=skipped is None)
            found = self.snapshot.search(encoding.embedding, num_segments)
            for query, (scores, rows) in enumerate(zip(*found, strict=True)):
                first = FirstStage.of(scores, rows)
                videos = self.snapshot.video_rows[first.rows]
                np.maximum.at(similarity[start + query], videos, first.similarity)
                if skipped is None and len(first.rows):
                    block = self._rerank(_one(encoding, query), first, options, None, Stopwatch())
                    final = scores_of(first, block, self.bundle.manifest.ensemble_lambda)
                    np.maximum.at(ensemble[start + query], videos, final)
                on_ranked()
        return Ranking(similarity, ensemble if skipped is None else None, skipped)

    @property
    def cannot_rerank(self) -> CannotRerank | None:
        """Why no search is re-ranked, if none is."""
        if "match" not in self.bundle.capabilities:
            return "no_matcher"
        return None if self.snapshot.tokens_per_frame or not self.snapshot.num_segments else "no_tokens"

    def _why_no_rerank(self, options: SearchOptions) -> RerankSkipped | None:
        return self.cannot_rerank if options.rerank else "not_requested"

    def _num_candidates(self, options: SearchOptions) -> int:
        return min(options.num_candidates or self.bundle.manifest.num_candidates, self.max_candidates)

    def _num_salient_frames(self, options: SearchOptions) -> int:
        return options.num_salient_frames or self.bundle.manifest.num_salient_frames

    def _rerank(
        self,
        text: TextEncoding,
        first: FirstStage,
        options: SearchOptions,
        deadline: float | None,
        watch: Stopwatch,
    ) -> Block | None:
        count = self._num_candidates(options)
        candidates = FirstStage(first.similarity[:count], first.rows[:count])
        frames = self._num_salient_frames(options)
        return rerank(self.snapshot, self.matcher, text, candidates, frames, deadline, watch)

    def _encode(self, texts: Sequence[str], *, tokens: bool) -> TextEncoding:
        try:
            return self.bundle.encode_text(texts, tokens=tokens)
        except ValueError as error:
            raise QueryError(f"The model reads nothing in the query: {error}.", "/query/text") from error


def _one(texts: TextEncoding, row: int) -> TextEncoding:
    """One text of several."""
    part = slice(row, row + 1)
    return TextEncoding(
        texts.embedding[part],
        texts.salience[part],
        None if texts.tokens is None else texts.tokens[part],
        texts.attention_mask[part],
        texts.input_ids[part],
    )


def _timings(watch: Stopwatch) -> Timings:
    values = {
        stage: round(watch.milliseconds[stage], 3) for stage in Timings.model_fields if stage != "total"
    }
    return Timings(**values, total=round(watch.total(), 3))
