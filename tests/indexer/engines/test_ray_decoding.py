"""What an actor of Ray that decodes gives, without a cluster: a file, and the spans of a long one."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexer.decode import (
    SPAN_NOT_READ,
    Cut,
    DecodedSegment,
    DecodeSpec,
    FileVerdict,
    SpanOrder,
    StorageLimits,
)
from indexer.engines.local_decoders import Bounds
from indexer.engines.ray_actors import DecodingActor, PartReport, ReadOrder, SegmentReport, SpanEnd
from indexer.engines.writing import FileEnd
from indexer.plan import IndexTask
from model.runtime.preprocessing import Resizing
from tests.support.toy_videos import make_video

SPEC = DecodeSpec("pyav", Resizing(8), 16.0, 4, storage=StorageLimits(frame_bytes=10))
SPAN_SECONDS = 64.0


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """216 seconds: fourteen segments in four spans."""
    moving = [("red", 3.0), ("blue", 3.0), ("green", 3.0)] * 24
    return make_video(tmp_path_factory.mktemp("media") / "film.mp4", parts=moving, fps=1)


@pytest.fixture(scope="module")
def actor() -> Iterator[DecodingActor]:
    yield from opened(SPEC)


def opened(spec: DecodeSpec) -> Iterator[DecodingActor]:
    actor = DecodingActor(Bounds(timeout_seconds=120.0), spec, None)
    actor.open()
    yield actor
    actor.close()


def read(
    actor: DecodingActor, path: Path, span: int | None = None, skip: int = 0
) -> tuple[list[PartReport], list[DecodedSegment]]:
    """What it says of a file or a span, and the segments."""
    order = None if span is None else SpanOrder(span, SPAN_SECONDS)
    report, found = actor.next(ReadOrder(IndexTask(path, "1" * 16), skip=skip, span=order))
    reports, segments = [], []
    while report is not None:
        reports.append(report)
        if found is not None:
            segments.append(found[1])
        report, found = actor.next()
    return reports, segments


def test_the_spans_of_a_file_are_the_whole_of_it(actor: DecodingActor, film: Path) -> None:
    (*_, end), whole = read(actor, film)
    assert isinstance(end, FileEnd)
    assert len(whole) == 14
    found, stored_bytes = [], 0
    for span in range(4):
        (cut, *reports, span_end), segments = read(actor, film, span)
        assert cut == Cut(4)
        assert [type(report) for report in reports] == [SegmentReport] * len(segments)
        assert isinstance(span_end, SpanEnd)
        assert span_end.read.is_exact
        assert span_end.end == (end if span == 0 else None)
        found += segments
        stored_bytes += span_end.read.stored_bytes
    assert stored_bytes == sum(10 * len(each.frames) + sum(map(len, each.thumbnails)) for each in whole)
    for segment, expected in zip(found, whole, strict=True):
        assert np.array_equal(segment.frames, expected.frames)
        assert np.array_equal(segment.pts_seconds, expected.pts_seconds)
        assert replace(segment, frames=expected.frames, pts_seconds=expected.pts_seconds) == expected


def test_segments_that_the_driver_has_are_left_out(actor: DecodingActor, film: Path) -> None:
    reports, segments = read(actor, film, span=1, skip=2)
    _, of_span = read(actor, film, span=1)
    assert [each.index for each in segments] == [each.index for each in of_span[2:]]
    assert isinstance(reports[-1], SpanEnd)


def test_a_file_that_is_not_long_is_not_cut(actor: DecodingActor, tmp_path: Path) -> None:
    clip = make_video(tmp_path / "clip.mp4", parts=[("red", 30.0), ("blue", 30.0)], fps=1)
    assert read(actor, clip, span=0)[0] == read(actor, clip)[0]
    # A long film was replaced, or removed, while its first span was read.
    for path in (clip, tmp_path / "none.mp4"):
        (end,), segments = read(actor, path, span=1)
        assert isinstance(end, SpanEnd)
        assert not end.read.is_exact
        assert segments == []


def test_a_damaged_span_says_so(actor: DecodingActor, film: Path, tmp_path: Path) -> None:
    data = bytearray(film.read_bytes())
    place = len(data) * 5 // 8
    data[place : place + 150] = bytes(150)
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(data)
    exact = []
    for span in range(4):
        end = read(actor, damaged, span)[0][-1]
        assert isinstance(end, SpanEnd)
        exact.append(end.read.is_exact)
    assert exact[0]
    assert not all(exact)
    end = read(actor, damaged)[0][-1]
    assert isinstance(end, FileEnd)
    assert isinstance(end.outcome, FileVerdict)
    assert end.outcome.verdict == "partial"


def test_a_span_that_takes_more_than_its_file_may_says_so(film: Path) -> None:
    for actor in opened(replace(SPEC, storage=StorageLimits(10, megabytes=0.002, bytes_per_byte=0.0))):
        reports, _ = read(actor, film, span=0)
        assert reports[-1] == SpanEnd(SPAN_NOT_READ, None)
