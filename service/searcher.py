"""Search without HTTP: the same code answers the API, `reelfind search` and `reelfind eval`.

Legend of shapes: B batch, D joint space, S salience, K results, V videos of the snapshot, failures included.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.snapshot import Snapshot
from model.runtime.bundle import Bundle, TextEncoding
from service.errors import QueryError
from service.schemas import FrameHit, Hit, SearchResponse, Timings

# Candidates a hit asked for: segments of one video stand next to each other in the ranking.
_OVER_FETCH = 4
# Scores are cosines in single precision: further digits differ between batch sizes and kernels, and would
# make the order of equal scores a matter of chance.
_SCORE_DECIMALS = 6
# Scores of this many query-segment pairs are held at once when all are ranked.
_MAX_PAIRS = 8_000_000


@dataclass(frozen=True)
class Searcher:
    """One bundle and one snapshot made with it; never changes, so a request that holds it sees one state."""

    bundle: Bundle
    snapshot: Snapshot

    def search(self, text: str, top_k: int) -> SearchResponse:
        """The `top_k` best videos for `text`, each at its best segment. `text` is clean already."""
        started = time.perf_counter()
        encoding = self._encode([text])
        encoded = time.perf_counter()
        scores, rows = self._best_segments(encoding.embedding, top_k)
        retrieved = time.perf_counter()
        hits = self._fetch(scores, rows, encoding.salience[0])
        done = time.perf_counter()
        return SearchResponse(
            hits=hits,
            snapshot=self.snapshot.number,
            reranked=False,
            rerank_skipped="no_matcher",
            num_candidates=0,
            timings_ms=Timings(
                encode_text=_milliseconds(started, encoded),
                retrieve=_milliseconds(encoded, retrieved),
                salience=0.0,
                tokens=0.0,
                match=0.0,
                fetch=_milliseconds(retrieved, done),
                total=_milliseconds(started, done),
            ),
        )

    def rank_all(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Score of every video for every text: its best segment's.

        Returns:
            Scores, shape [B, V], in the order of the snapshot's list of all videos; -inf where a video
            has no segment or an approximate index did not reach it.
        """
        num_segments = self.snapshot.num_segments
        result = np.full((len(texts), self.snapshot.count_videos()), -np.inf, dtype=np.float32)
        step = max(1, _MAX_PAIRS // max(1, num_segments))
        for first in range(0, len(texts), step):
            embeddings = self._encode(texts[first : first + step]).embedding
            scores, rows = self.snapshot.search(embeddings, num_segments)
            query, column = np.nonzero(rows >= 0)
            videos = self.snapshot.video_rows[rows[query, column]]
            np.maximum.at(result, (first + query, videos), scores[query, column].round(_SCORE_DECIMALS))
        return result

    def _encode(self, texts: Sequence[str]) -> TextEncoding:
        try:
            return self.bundle.encode_text(texts)
        except ValueError as error:
            raise QueryError(f"The model reads nothing in the query: {error}.", "/query/text") from error

    def _best_segments(
        self, embedding: NDArray[np.float32], top_k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores [K] and segment rows [K] of the best videos, K ≤ `top_k`; ties in the order of rows."""
        num_segments = self.snapshot.num_segments
        num_candidates = min(num_segments, top_k * _OVER_FETCH)
        while num_candidates:
            scores, rows = (found[0] for found in self.snapshot.search(embedding, num_candidates))
            reached = rows >= 0
            exhausted = num_candidates >= num_segments or not reached.all()
            scores, rows = scores[reached].round(_SCORE_DECIMALS), rows[reached]
            order = np.lexsort((rows, -scores))
            scores, rows = scores[order], rows[order]
            _, firsts = np.unique(self.snapshot.video_rows[rows], return_index=True)
            firsts = np.sort(firsts)[:top_k]
            # A tie with the last candidate may go on among the segments that were not fetched.
            if exhausted or (len(firsts) == top_k and scores[firsts[-1]] > scores[-1]):
                return scores[firsts], rows[firsts]
            num_candidates = min(num_segments, num_candidates * 2)
        return np.empty(0, np.float32), np.empty(0, np.int64)

    def _fetch(
        self, scores: NDArray[np.float32], rows: NDArray[np.int64], text_salience: NDArray[np.float32]
    ) -> list[Hit]:
        hits = []
        for score, segment in zip(scores, self.snapshot.segments(rows.tolist()), strict=True):
            label = self.snapshot.label(segment.video_id)
            if label is None:  # a snapshot is whole by contract; a hit without a video helps nobody
                continue
            path, title = label
            relevance = (segment.frame_salience @ text_salience).round(_SCORE_DECIMALS)
            frames = zip(segment.frame_ids, segment.frame_pts_seconds, relevance, strict=True)
            hits.append(
                Hit(
                    video_id=segment.video_id,
                    path=path,
                    title=title,
                    start_seconds=segment.start_seconds,
                    end_seconds=segment.end_seconds,
                    score=round(float(score), _SCORE_DECIMALS),
                    similarity=round(float(score), _SCORE_DECIMALS),
                    match_score=None,
                    explanation=None,
                    frames=[
                        FrameHit(
                            frame_id=frame_id,
                            pts_seconds=pts_seconds,
                            relevance=round(float(value), _SCORE_DECIMALS),
                            salient=False,
                            match_score=None,
                        )
                        for frame_id, pts_seconds, value in frames
                    ],
                )
            )
        return hits


def _milliseconds(start: float, end: float) -> float:
    return round((end - start) * 1000, 3)
