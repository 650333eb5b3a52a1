"""The ranking of a search in blocks, so that it can be read page by page.

The first block has the moments around the best segments, best first. Each further one goes on in the order of
the segments' scores, which is that of the first stage where nothing was re-ranked: it has the moments around
the next segments that no moment was looked for in before, best first. So every segment belongs to one block,
and no moment comes twice. Where hits are videos, a block has the next videos, each with its best moments.

Which segments a block looks at depends on nothing but the first block and what the first stage retrieves: any
block can be computed without those between.

Shapes: K retrieved segments, R segments of the snapshot.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.library.errors import DamagedRowsError
from indexer.library.snapshot import Snapshot
from model.runtime.errors import ReelfindError
from service.search.moments import MomentStage
from service.search.probability import is_best_guess
from service.search.rerank import UnreadableTokensError, final_scores
from service.search.results import LibraryWarning
from service.search.retrieval import RetrievedSegments, place_in_video
from service.search.scored_spans import ScoredSpan

#: Moments are looked for around more segments, or in more videos, than a page has hits: some turn out worse.
_SPARE = 4
# An edge that a span shares with the next segment is not of that.
_EDGE_SECONDS = 0.001

# About what is kept of a moment, and of everything that is not counted.
_SPAN_BYTES = 4 << 10
_OVERHEAD_BYTES = 64 << 10

#: A hit: one moment, or the best moments of a video.
Group = list[ScoredSpan]


class Position(NamedTuple):
    """Where a page starts: in which block, and how many hits after that block's first."""

    block: int
    offset: int


START = Position(0, 0)


@dataclass(frozen=True)
class BlockRule:
    """How a ranking is divided and what of it counts.

    Attributes:
        by_video: whether hits are videos.
        of_video: most moments of a hit that is a video.
        page_size: hits of a page; a block is a little larger.
        keep: the moments of a hit that pass a threshold; none: the hit is left out.
        has_threshold: whether `keep` may leave something out.
        order: sorts the hits of the only block; None: they stay in the order of their scores, and further
            blocks follow.
        num_sorted: segments that the only block looks at, at least.
    """

    by_video: bool
    of_video: int
    page_size: int
    keep: Callable[[Group], Group]
    has_threshold: bool
    order: Callable[[list[Group]], list[Group]] | None = None
    num_sorted: int = 0


class Blocks:
    """The blocks of one search. One thread at a time may use them.

    Args:
        stage: finds moments.
        rule: how the ranking is divided.
        more: gives the retrieved segments and further ones after them, or the same where there are no more.
        ensemble_lambda: λ of the bundle.
    """

    def __init__(
        self,
        stage: MomentStage,
        rule: BlockRule,
        more: Callable[[RetrievedSegments], RetrievedSegments],
        ensemble_lambda: float,
    ) -> None:
        self.rule = rule
        self._stage = stage
        self._more = more
        self._lambda = ensemble_lambda
        self._rank(stage.scorer.retrieved)
        self.warnings: list[LibraryWarning] = []
        #: Whether none of the first page's hits is likely; None: the bundle is not calibrated.
        self.best_guess: bool | None = None
        self._first = self._first_block()
        self._rewind()

    @property
    def _snapshot(self) -> Snapshot:
        return self._stage.scorer.snapshot

    @property
    def num_bytes(self) -> int:
        """What it takes in memory, about."""
        query = self._stage.scorer.query
        tokens = [part.text.tokens for part in query.parts or ()]
        num_bytes = sum(0 if array is None else array.nbytes for array in tokens)
        for retrieved in (self._retrieved, self._stage.scorer.retrieved):
            num_bytes += retrieved.score.nbytes + retrieved.rows.nbytes + retrieved.ranks.nbytes
        num_spans = sum(len(group) for groups in (self._first, self._groups) for group in groups)
        num_bytes += self._rows.nbytes + self._used_first.nbytes + self._used.nbytes
        return num_bytes + num_spans * _SPAN_BYTES + _OVERHEAD_BYTES

    def digest(self, position: Position) -> bytes:
        """Identifies the hits of the first block, or of the last one that was computed, 8 bytes."""
        groups = self._groups if position.block else self._first
        spans = [
            [(span.video_id, span.start_seconds, span.end_seconds) for span in group] for group in groups
        ]
        return hashlib.sha256(repr(spans).encode()).digest()[:8]

    def page(
        self,
        position: Position,
        stage_of: Callable[[MomentStage], MomentStage],
        digest: bytes | None = None,
    ) -> "BlockPage":
        """The hits from a position on, as many as a page has; and where the next page starts.

        Args:
            position: where the page starts.
            stage_of: gives the stage that looks for further moments: on the terms of who asks for this page.
            digest: what `digest` said of the block where the page starts; None: nothing is known of it.

        Raises:
            ValueError: there is no such position, or the block has other hits.
            LibraryError: a table cannot be read.
            BundleError: the model fails.
        """
        block, offset = position
        groups: list[Group] = []
        while True:
            found = self._block(block, stage_of)
            if found is None:
                return BlockPage(groups, None)
            if offset > len(found) or (digest and not groups and digest != self.digest(position)):
                raise ValueError(f"there is no position {position}")
            wanted = self.rule.page_size - len(groups)
            groups += found[offset : offset + wanted]
            if offset + wanted < len(found):
                return BlockPage(groups, Position(block, offset + wanted))
            block, offset = block + 1, 0
            if len(groups) == self.rule.page_size:
                return BlockPage(groups, Position(block, 0) if self._goes_on() else None)

    def strip(self) -> None:
        """Forget what can be read again, before this is kept."""
        scorer = self._stage.scorer
        if scorer.reranked is not None:
            scorer = replace(scorer, reranked=scorer.reranked.without_salience())
            self._stage = replace(self._stage, scorer=scorer)

    # What has been computed: the first block, and the last one.

    def _rewind(self) -> None:
        # What is retrieved too: the moments of a video depend on how many of its segments are.
        self._rank(self._stage.scorer.retrieved)
        self._is_exhausted = False
        self._number = 0
        self._groups: list[Group] = self._first
        self._used = self._used_first.copy()
        self._is_over = self.rule.order is not None or not self._stage.rater.modalities.visual

    def _block(self, number: int, stage_of: Callable[[MomentStage], MomentStage]) -> list[Group] | None:
        """The hits of a block; None: the ranking has ended before it."""
        if number < self._number:
            self._rewind()
        while self._number < number:
            if self._is_over:
                return None
            seeds, avoid = self._next_seeds()
            if not len(seeds):
                self._is_over = True
                return None
            self._number += 1
            self._groups = []
            if self._number == number or self.rule.has_threshold:
                # With a threshold a block may be the last one, which only its moments tell.
                try:
                    self._groups = self._found(seeds, avoid, stage_of)
                except ReelfindError:
                    self._rewind()
                    raise
                self._is_over = self.rule.has_threshold and not self._groups
        return self._groups

    def _goes_on(self) -> bool:
        """Whether further blocks may follow the last one."""
        return not self._is_over and bool(len(self._unused(1)))

    # The first block.

    def _first_block(self) -> list[Group]:
        rule, stage = self.rule, self._stage
        self._used_first = np.zeros(self._snapshot.num_segments, np.bool_)
        if rule.by_video:
            seeds = self._seeds_of_videos(self._rows, rule.page_size + _SPARE, rule.num_sorted)
            groups = self._grouped(stage.around(seeds))
        else:
            count = max(rule.page_size + _SPARE, rule.num_sorted)
            while True:
                seeds = self._rows[:count]
                groups = [[span] for span in stage.around(seeds)]
                # Neighbouring segments may share one moment: then more are needed.
                if len(groups) >= rule.page_size or count >= len(self._rows):
                    break
                count *= 2
        if len(seeds):
            self._mark(self._used_first, seeds, groups)
        self.best_guess = is_best_guess(groups[: rule.page_size])
        kept = self._kept(groups)
        return kept if rule.order is None else rule.order(kept)

    def _mark(self, used: NDArray[np.bool_], seeds: NDArray[np.int64], groups: Sequence[Group]) -> None:
        """Note the segments that need not be looked at any more."""
        snapshot = self._snapshot
        if self.rule.by_video:
            for video in np.unique(snapshot.video_rows[seeds]).tolist():
                used[snapshot.segment_rows(snapshot.video_id_at(video))] = True
            for group in groups:
                used[snapshot.segment_rows(group[0].video_id)] = True
            return
        for run in snapshot.stretches(seeds, self._stage.reach, self._stage.avoid):
            used[run] = True
        for (span,) in groups:
            if span.texts:
                start, end = span.start_seconds + _EDGE_SECONDS, span.end_seconds - _EDGE_SECONDS
                used[snapshot.segment_rows(span.video_id, min(start, end), max(start, end))] = True

    # Further blocks.

    def _next_seeds(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The segments of the next block, and those that its moments must not be in; marks them."""
        count = self.rule.page_size + _SPARE
        rows = self._unused(count)
        # A block of the last videos that are there has none of those that are missing.
        missing = self._snapshot.catalog.missing[self._snapshot.video_rows[rows]]
        rows = rows[missing == missing[:1]]
        none = np.empty(0, np.int64)
        if self.rule.by_video:
            seeds = self._seeds_of_videos(rows, count)
            self._mark(self._used, seeds, ())
            return seeds, none
        seeds = rows[:count]
        if not len(seeds):
            return seeds, none
        around = np.concatenate(self._snapshot.stretches(seeds, self._stage.reach))
        avoid = around[self._used[around]]
        for run in self._snapshot.stretches(seeds, self._stage.reach, avoid.tolist()):
            self._used[run] = True
        return seeds, avoid

    def _unused(self, count: int) -> NDArray[np.int64]:
        """Retrieved segments that no block has looked at, best first; enough for `count` hits if possible."""
        while True:
            rows = self._rows[~self._used[self._rows]]
            found = len(np.unique(self._snapshot.video_rows[rows])) if self.rule.by_video else len(rows)
            if found >= count or self._is_exhausted:
                return rows
            further = self._more(self._retrieved)
            if len(further.rows) == len(self._retrieved.rows):
                self._is_exhausted = True
            else:
                self._rank(further)

    def _rank(self, retrieved: RetrievedSegments) -> None:
        """Order segments by their final scores."""
        scores = final_scores(retrieved, self._stage.scorer.reranked, self._lambda)
        snapshot = self._snapshot
        # Videos that are missing are never served before those that are there.
        missing = snapshot.catalog.missing[snapshot.video_rows[retrieved.rows]]
        self._retrieved = retrieved
        self._rows: NDArray[np.int64] = retrieved.rows[np.lexsort((-scores, missing))]

    def _found(
        self,
        seeds: NDArray[np.int64],
        avoid: NDArray[np.int64],
        stage_of: Callable[[MomentStage], MomentStage],
    ) -> list[Group]:
        """The hits around some segments, best first, without those that are damaged."""
        stage = stage_of(self._stage)
        damaged = list(self._stage.avoid)
        while len(seeds):
            scorer = replace(stage.scorer, retrieved=self._nearby(seeds), tail_top=self._tail_top)
            asked = replace(stage, scorer=scorer, avoid=[*damaged, *avoid.tolist()])
            try:
                spans = asked.around(seeds, spoken=False)
            except DamagedRowsError as error:
                self.warnings.append(LibraryWarning("damaged_segments", str(error)))
                damaged += [int(row) for row in error.rows]
                seeds = seeds[~np.isin(seeds, damaged)]
            except UnreadableTokensError as error:
                # The moments have the match of their segments.
                self.warnings.append(LibraryWarning("unreadable_tokens", str(error)))
                stage = replace(stage, scorer=replace(stage.scorer, max_pairs=0))
            else:
                return self._kept(self._grouped(spans) if self.rule.by_video else [[x] for x in spans])
        return []

    def _nearby(self, seeds: NDArray[np.int64]) -> RetrievedSegments:
        """The re-ranked segments, and those of the retrieved ones that moments around `seeds` may be in."""
        scorer = self._stage.scorer
        num_reranked = 0 if scorer.reranked is None else len(scorer.reranked.score)
        around = np.concatenate(self._snapshot.stretches(seeds, self._stage.reach))
        others = num_reranked + np.flatnonzero(np.isin(self._retrieved.rows[num_reranked:], around))
        return self._retrieved.at(np.concatenate([np.arange(num_reranked), others]))

    @cached_property
    def _tail_top(self) -> float | None:
        reranked = self._stage.scorer.reranked
        tail = self._retrieved.score[0 if reranked is None else len(reranked.score) :]
        return float(tail.max()) if len(tail) else None

    def _seeds_of_videos(self, rows: NDArray[np.int64], count: int, num_rows: int = 0) -> NDArray[np.int64]:
        """The best segments of the first `count` videos among `rows`, and of those of the first rows."""
        videos = self._snapshot.video_rows[rows]
        _, first, number = np.unique(videos, return_index=True, return_inverse=True)
        is_wanted = (np.argsort(np.argsort(first)) < count) | (first < num_rows)
        return rows[is_wanted[number] & (place_in_video(videos) < self.rule.of_video)]

    def _grouped(self, spans: Sequence[ScoredSpan]) -> list[Group]:
        groups: dict[str, Group] = {}
        for span in spans:
            groups.setdefault(span.video_id, []).append(span)
        return [group[: self.rule.of_video] for group in groups.values()]

    def _kept(self, groups: Sequence[Group]) -> list[Group]:
        kept = (self.rule.keep(group) for group in groups)
        return [group for group in kept if group]


@dataclass(frozen=True)
class BlockPage:
    """Hits, best first, and where the next page starts; None: these are the last."""

    groups: list[Group]
    following: Position | None
