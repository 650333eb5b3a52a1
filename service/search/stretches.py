"""Runs of neighbouring segments, and the moments in them.

A stretch is a run of neighbouring segments of a video. The moment head of the bundle says where in it the
query's moments start and end. The rule of `find_spans_by_shots` does where the bundle has no head, where a
library does not hold the frame embeddings that it reads, and where the query is not one text. Where the cuts
of a video are known, spans of the head snap to them, and whole shots that fit nearly as well are moments too;
without a head there are these shots alone. A bundle that says nothing of single frames tells only how well
whole segments fit: its moments are segments.

Shapes: R segments of a stretch, F stored frames, T cells, D joint space, S salience, C cuts, K spans.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.library.snapshot import SegmentFrames, Snapshot
from model.runtime.bundle import Bundle
from model.runtime.known_cuts import (
    SNAP_CELLS,
    Spans,
    frames_between,
    grow_over_alike,
    snap_to_cuts,
    spans_of_shots,
)
from model.runtime.moment_spans import (
    Cells,
    FoundSpan,
    MomentRule,
    cut_into_cells,
    find_spans,
    find_spans_by_shots,
)
from model.runtime.ranking import relevance
from service.search.encoded_query import EncodedQuery

# Segments before and after one, in which its moment may start or end.
_REACH = 1
# A bundle without a moment head: about the seconds from one cell to the next.
_EVERY_SECONDS = 1.0
# Cuts of one stretch, at most: each takes time, and no film has so many.
_MOST_CUTS = 10_000
# Segments of one stretch, at most: attention compares every two frames of it.
_MOST_SEGMENTS = 8


@dataclass(frozen=True)
class Stretch:
    """A run of neighbouring segments of one video, with their stored frames in time order.

    Attributes:
        rows: the segments, int64 [R].
        frame_rows: the segment of each frame, int64 [F].
        places: the place of each frame in its segment, int64 [F].
        pts_seconds: when each is shown, float64 [F].
        times: where it lies in the stretch, rising: its time, but within its segment, float64 [F].
        salience: float32 [F, S].
        start_seconds: where the first segment starts.
        end_seconds: where the last one ends.
        cuts: where shots begin after its start and before its end, rising, float64 [C]; None: not known.
        spans: start and end of each segment, float64 [R, 2].
    """

    rows: NDArray[np.int64]
    frame_rows: NDArray[np.int64]
    places: NDArray[np.int64]
    pts_seconds: NDArray[np.float64]
    times: NDArray[np.float64]
    salience: NDArray[np.float32]
    start_seconds: float
    end_seconds: float
    cuts: NDArray[np.float64] | None
    spans: NDArray[np.float64]


@dataclass(frozen=True)
class Moment:
    """A span of a stretch. `row` is the segment that holds most of its frames; `frames` are some of F."""

    stretch: Stretch
    start_seconds: float
    end_seconds: float
    frames: slice
    row: int

    @property
    def is_segment(self) -> bool:
        """Whether it has all frames of its segment, and no others."""
        first, last = self.frames.start, self.frames.stop
        rows = self.stretch.frame_rows
        return bool(
            rows[first] == rows[last - 1] == self.row
            and (first == 0 or rows[first - 1] != self.row)
            and (last == len(rows) or rows[last] != self.row)
        )


def reach_of_moments(bundle: Bundle) -> int:
    """How many segments before and after one its moment may start or end in."""
    return _REACH if bundle.manifest.has_salience else 0


def read_stretches(
    snapshot: Snapshot,
    rows: NDArray[np.int64],
    known: Mapping[int, tuple[SegmentFrames, int]],
    avoid: Sequence[int],
    reach: int,
) -> list[Stretch]:
    """The stretches of some segments, each with `reach` segments before it and after it.

    Args:
        snapshot: holds the segments.
        rows: the segments.
        known: frames that were read already, see `SegmentFrames.places`.
        avoid: segments that belong to no stretch.
        reach: how many neighbours belong to a segment's stretch on either side.

    Raises:
        DamagedRowsError: some of the segments are damaged.
        LibraryError: the table cannot be read.
    """
    runs = [part for run in snapshot.stretches(rows, reach, avoid) for part in _parts(run)]
    missing = [row for run in runs for row in run.tolist() if row not in known]
    frames = {**known, **snapshot.segment_frames(missing).places()} if missing else known
    return [_stretch(snapshot, run, frames) for run in runs]


def _parts(run: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """A run, in parts of about equal length where it is too long for one stretch."""
    return [run] if len(run) <= _MOST_SEGMENTS else np.array_split(run, -(-len(run) // _MOST_SEGMENTS))


def _stretch(
    snapshot: Snapshot, rows: NDArray[np.int64], frames: Mapping[int, tuple[SegmentFrames, int]]
) -> Stretch:
    spans = [snapshot.segment_span(row) for row in rows.tolist()]
    counts, pts, times, salience = [], [], [], []
    for row, (start, end) in zip(rows.tolist(), spans, strict=True):
        read, place = frames[row]
        count = int(read.counts[place])
        shown = read.pts_seconds[place, :count]
        counts.append(count)
        pts.append(shown)
        # The only frame of a segment stands still; another one may have appeared before its segment.
        times.append(np.clip(shown, start, end) if count > 1 else np.array([(start + end) / 2]))
        salience.append(read.salience[place, :count])
    start, end = spans[0][0], max(end for _, end in spans)
    cuts = snapshot.cuts(int(rows[0]))
    if cuts is not None:
        cuts = np.unique(cuts[(cuts > start) & (cuts < end)])
    return Stretch(
        rows,
        np.repeat(rows, counts),
        np.concatenate([np.arange(count) for count in counts]),
        np.concatenate(pts),
        np.maximum.accumulate(np.concatenate(times)),
        np.concatenate(salience),
        start,
        end,
        None if cuts is None or len(cuts) > _MOST_CUTS else cuts,
        np.array(spans, np.float64),
    )


def find_moments(
    bundle: Bundle, query: EncodedQuery, stretches: Sequence[Stretch], rule: MomentRule
) -> list[Moment]:
    """The moments of each stretch, best first, at least one of each.

    Of a bundle that says nothing of single frames they are the segments of the stretch, in time order.

    Raises:
        BundleError: the moment head fails.
    """
    if not bundle.manifest.has_salience:
        return [moment for stretch in stretches for moment in _segments_of(stretch)]
    moments = bundle.manifest.moments
    # The head was trained with the embeddings of texts.
    has_head = moments is not None and bundle.manifest.embedding_in_salience and query.is_text_alone
    cells = _cut(stretches, moments.every_seconds if moments and has_head else _EVERY_SECONDS)
    if has_head:
        found = _by_head(bundle, query, stretches, cells, rule)
    else:
        found = [_by_rule(query, *pair, rule) for pair in zip(stretches, cells, strict=True)]
    out: list[Moment] = []
    for stretch, cell, spans in zip(stretches, cells, found, strict=True):
        if stretch.cuts is None:
            out += [_moment(stretch, cell, span) for span in spans]
        else:
            out += _by_cuts(query, stretch, stretch.cuts, cell, spans, rule)
    return out


def _segments_of(stretch: Stretch) -> list[Moment]:
    """Each segment of a stretch as a moment."""
    moments = []
    for row, (start, end) in zip(stretch.rows.tolist(), stretch.spans.tolist(), strict=True):
        own = np.flatnonzero(stretch.frame_rows == row)
        moments.append(Moment(stretch, start, end, slice(int(own[0]), int(own[-1]) + 1), row))
    return moments


def _cut(stretches: Sequence[Stretch], every_seconds: float) -> list[Cells]:
    return [cut_into_cells(x.start_seconds, x.end_seconds, x.times, every_seconds) for x in stretches]


def _by_rule(query: EncodedQuery, stretch: Stretch, cells: Cells, rule: MomentRule) -> list[FoundSpan]:
    """What a bundle without a moment head finds; nothing where the cuts are known, since they say more."""
    if stretch.cuts is not None:
        return []
    vectors = stretch.salience[cells.frames]
    fit = relevance(vectors[None], query.salience)[0]
    return find_spans_by_shots(vectors, fit, cells.seconds, rule)


def _by_cuts(
    query: EncodedQuery,
    stretch: Stretch,
    cuts: NDArray[np.float64],
    cells: Cells,
    found: Sequence[FoundSpan],
    rule: MomentRule,
) -> list[Moment]:
    """The spans of the moment head, snapped to known cuts, and then the shots that are moments too.

    Both grow over the shots beside them that look like them.
    """
    borders = np.array([cells.borders(span.first, span.last) for span in found], np.float64).reshape(-1, 2)
    taken = snap_to_cuts(borders, cuts, SNAP_CELLS * cells.seconds)
    fit = relevance(stretch.salience[None], query.salience)[0]
    extent = stretch.start_seconds, stretch.end_seconds
    shots = spans_of_shots(extent, cuts, stretch.times, fit, taken, rule)
    spans = np.concatenate([taken, shots])
    spans = grow_over_alike(spans, extent, cuts, stretch.times, stretch.salience, rule)
    return _moments_between(stretch, spans)


def _moments_between(stretch: Stretch, spans: Spans) -> list[Moment]:
    inside = frames_between(stretch.times, spans).tolist()
    return [_moment_of(stretch, *span, *frames) for span, frames in zip(spans.tolist(), inside, strict=True)]


def _by_head(
    bundle: Bundle,
    query: EncodedQuery,
    stretches: Sequence[Stretch],
    cells: Sequence[Cells],
    rule: MomentRule,
) -> list[list[FoundSpan]]:
    lengths = np.array([len(cell.frames) for cell in cells])
    found: list[list[FoundSpan]] = [[] for _ in cells]
    # Stretches of similar length go together, since padding costs as much as frames, and a call costs too.
    size = np.ceil(np.log2(lengths) / 2)
    for each in np.unique(size).tolist():
        group = np.flatnonzero(size == each).tolist()
        longest = int(lengths[group].max())
        dim = bundle.manifest.embedding_dim
        frames = np.zeros((len(group), longest, dim), np.float32)
        fit = np.zeros((len(group), longest), np.float32)
        for row, number in enumerate(group):
            vectors = stretches[number].salience[cells[number].frames]
            frames[row, : len(vectors)] = vectors[:, :dim]
            fit[row, : len(vectors)] = vectors @ query.salience
        mask = np.arange(longest)[None, :] < lengths[group][:, None]
        texts = np.repeat(query.embedding[None], len(group), axis=0)
        logits = bundle.moments(texts, frames, mask)
        seconds = np.array([cells[number].seconds for number in group])
        spans = find_spans(logits.start, logits.end, fit, mask, seconds, rule)
        for number, of_stretch in zip(group, spans, strict=True):
            found[number] = of_stretch
    return found


def moment_between(stretch: Stretch, start_seconds: float, end_seconds: float) -> Moment:
    """The part of a stretch between two times: its frames, or the nearest one where there is none."""
    start = min(max(start_seconds, stretch.start_seconds), stretch.end_seconds)
    end = min(max(end_seconds, start), stretch.end_seconds)
    first, last = np.searchsorted(stretch.times, [start, end]).tolist()
    if first == last:
        first = int(np.abs(stretch.times - (start + end) / 2).argmin())
        last = first + 1
    return _moment_of(stretch, start, end, first, last)


def _moment(stretch: Stretch, cells: Cells, span: FoundSpan) -> Moment:
    start, end = cells.borders(span.first, span.last)
    first = min(int(cells.frames[span.first]), int(np.searchsorted(stretch.times, start)))
    last = max(int(cells.frames[span.last]) + 1, int(np.searchsorted(stretch.times, end)))
    return _moment_of(stretch, start, end, first, last)


def _moment_of(stretch: Stretch, start: float, end: float, first: int, last: int) -> Moment:
    # The last cell ends where the stretch does, but for rounding.
    row = _home_of(stretch.frame_rows[first:last])
    return Moment(stretch, start, min(end, stretch.end_seconds), slice(first, last), row)


def _home_of(frame_rows: NDArray[np.int64]) -> int:
    """The segment that most of these frames are of, which are those of each segment together."""
    if frame_rows[0] == frame_rows[-1]:
        return int(frame_rows[0])
    rows, counts = np.unique(frame_rows, return_counts=True)
    return int(rows[counts.argmax()])
