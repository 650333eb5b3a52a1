"""The write side: long videos, leftovers of killed runs, joining of files, the index that grows."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.library.folder import Library
from indexer.library.fragments import write_segments
from indexer.library.publish import PublishOptions, publish
from indexer.library.schema import FileRow, SegmentRow, VideoRow
from indexer.library.snapshot import Snapshot
from indexer.library.verify import verify_library
from indexer.library.writer import LibraryWriter
from model.runtime.bundle import Bundle
from model.runtime.tokens import QuantisedTokens, dequantise, quantise
from tests.support.toy_bundle import make_toy_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy"))


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows are made up: their paths, thumbnails and times cannot be true, and need not be."""
    monkeypatch.setattr("indexer.library.verify.wrong_meaning", lambda *_: ())


def segment_row(library: Library, video: int, index: int, frames: int) -> SegmentRow:
    rng = np.random.default_rng([video, index])
    vector = rng.normal(size=library.layout.embedding_dim).astype(np.float32)
    return SegmentRow(
        ingest_id=f"{video + 100:016x}",
        segment_index=index,
        start_seconds=float(index),
        end_seconds=index + 1.0,
        frame_pts_seconds=np.arange(frames, dtype=np.float64) + index,
        frame_salience=rng.normal(size=(frames, library.layout.salience_dim)).astype(np.float32),
        embedding=vector / np.linalg.norm(vector),
        thumbnails=tuple(f"{video}-{index}-{i}".encode() for i in range(frames)),
        tokens=tokens_of(library, video, index, frames),
    )


def tokens_of(
    library: Library, video: int, index: int, frames: int
) -> QuantisedTokens | NDArray[np.float32] | None:
    layout = library.layout
    shape = (frames, layout.tokens_per_frame, layout.token_dim)
    tokens = np.random.default_rng([9, video, index]).normal(size=shape).astype(np.float32)
    stored: dict[str, QuantisedTokens | NDArray[np.float32] | None] = {
        "int8": quantise(tokens),
        "float32": tokens,
        "none": None,
    }
    return stored[layout.tokens]


def video_row(video: int, segments: list[SegmentRow]) -> VideoRow:
    return VideoRow(
        video_id=f"{video:032x}",
        ingest_id=f"{video + 100:016x}",
        sha256="0" * 64,
        bytes=1,
        duration_seconds=float(len(segments)),
        fps=1.0,
        width=1,
        height=1,
        codec="none",
        container="none",
        title=None,
        verdict="ok" if segments else "corrupt",
        reason=None if segments else "nothing in it",
        num_segments=len(segments),
        num_frames=sum(len(s.thumbnails) for s in segments),
        indexed_at=datetime.now(UTC),
    )


def finish(writer: LibraryWriter, video: VideoRow) -> None:
    """Finish a video that is in one file."""
    writer.finish(video)
    path = f"/media/{int(video.video_id, 16)}.mp4".encode()
    writer.put_file(FileRow(path, video.video_id, 1, datetime.now(UTC)))


def check_evidence(snapshot: Snapshot, video: int, count: int) -> None:
    rows = snapshot.segment_rows(f"{video:032x}")
    segments = {s.segment_index: s for s in snapshot.segments(rows)}
    assert sorted(segments) == list(range(count))
    if snapshot.tokens_per_frame:
        library = Library.open(snapshot.library)
        stored = [tokens_of(library, video, i, len(s.frame_pts_seconds)) for i, s in segments.items()]
        tokens = np.concatenate([dequantise(t) if isinstance(t, QuantisedTokens) else t for t in stored])
        segment_rows = np.concatenate([[s.row] * len(s.frame_ids) for s in segments.values()])
        frame_indices = np.concatenate([np.arange(len(s.frame_ids)) for s in segments.values()])
        # In one read, in another order than stored.
        order = np.random.default_rng(0).permutation(len(segment_rows))
        found = snapshot.frame_tokens(segment_rows[order], frame_indices[order])
        np.testing.assert_array_equal(found, tokens[order])
    for i, segment in segments.items():
        expected = [f"{video}-{i}-{k}".encode() for k in range(len(segment.frame_pts_seconds))]
        assert [snapshot.thumbnail(frame_id) for frame_id in segment.frame_ids] == expected


def test_segments_that_were_written_elsewhere_are_as_those_of_the_writer(
    bundle: Bundle, tmp_path: Path
) -> None:
    """A long video in parts, after rows that the writer has; two short ones together, and one that goes."""
    library = Library.open_or_create(tmp_path / "library", bundle)
    long = [segment_row(library, 1, i, 1 + i % 3) for i in range(7)]
    short = {video: [segment_row(library, video, 0, 2)] for video in (2, 3, 4)}
    ingest_of = {video: row.ingest_id for video, (row,) in short.items()}
    with library.writing():
        writer = LibraryWriter(library)
        writer.add_segments(long[:1])
        for part in (long[1:4], long[4:]):
            writer.add_written(write_segments(library.tables, library.layout, part), {part[0].ingest_id})
            writer.flush()
            assert writer.datasets["segments"].count_rows() == 0
        together = [row for rows in short.values() for row in rows]
        written = write_segments(library.tables, library.layout, together)
        writer.add_written(written, set(ingest_of.values()))
        for video, rows in ((1, long), (2, short[2]), (4, short[4])):
            finish(writer, video_row(video, rows))
        writer.discard(ingest_of[3])
        writer.flush()
        publish(writer, PublishOptions(), last=True)
        assert writer.datasets["segments"].count_rows() == 9
    snapshot = Snapshot.open(tmp_path / "library")
    assert verify_library(tmp_path / "library").ok
    assert snapshot.num_segments == 9
    for video, count in ((1, 7), (2, 1), (4, 1)):
        check_evidence(snapshot, video, count)


def test_an_unfinished_video_is_in_no_snapshot_and_is_not_cleaned_away(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.library.writer._SPILL_SEGMENTS", 2)
    library = Library.open_or_create(tmp_path / "library", bundle)
    long = [segment_row(library, 1, i, 1 + i % 3) for i in range(9)]
    with library.writing():
        writer = LibraryWriter(library)
        writer.add_segments(long[:5])
        for video in (2, 3):
            short = [segment_row(library, video, 0, 2)]
            writer.add_segments(short)
            finish(writer, video_row(video, short))
            writer.flush()
            publish(writer, PublishOptions(keep_snapshots=1, keep_seconds=0.0), last=False)
        assert Snapshot.open(tmp_path / "library").num_segments == 2
        assert verify_library(tmp_path / "library").ok
        writer.add_segments(long[5:])
        finish(writer, video_row(1, long))
        writer.flush()
        publish(writer, PublishOptions(), last=True)
    snapshot = Snapshot.open(tmp_path / "library")
    for video, count in ((1, 9), (2, 1), (3, 1)):
        check_evidence(snapshot, video, count)
    assert verify_library(tmp_path / "library").ok


def test_leftovers_of_a_killed_run_are_removed(bundle: Bundle, tmp_path: Path) -> None:
    """Rows without their video's row, and a video without some of its rows, as kills can leave them."""
    library = Library.open_or_create(tmp_path / "library", bundle)
    with library.writing():
        writer = LibraryWriter(library)
        for video in (1, 2, 3):
            rows = [segment_row(library, video, i, 3) for i in range(2)]
            writer.add_segments(rows)
            finish(writer, video_row(video, rows))
        writer.flush()
        writer._delete("videos", "video_id", [f"'{1:032x}'"])
        writer._delete("frames", "ingest_id", [f"'{102:016x}'"])
    with library.writing():
        writer = LibraryWriter(library)
        assert list(writer.videos) == [f"{3:032x}"]
        publish(writer, PublishOptions(), last=True)
    snapshot = Snapshot.open(tmp_path / "library")
    assert (snapshot.num_videos, snapshot.num_segments) == (1, 2)
    check_evidence(snapshot, 3, 2)
    assert verify_library(tmp_path / "library").ok


def test_many_small_commits_are_joined_in_order(bundle: Bundle, tmp_path: Path) -> None:
    library = Library.open_or_create(tmp_path / "library", bundle)
    with library.writing():
        writer = LibraryWriter(library)
        for video in range(1, 15):
            rows = [segment_row(library, video, i, 1 + (video + i) % 4) for i in range(3)]
            writer.add_segments(rows)
            finish(writer, video_row(video, rows))
            writer.flush()
        for video in (2, 3, 9):
            writer.forget_file(f"/media/{video}.mp4".encode())
        writer.flush()
        assert len(writer.datasets["segments"].get_fragments()) > 8
        publish(writer, PublishOptions(), last=True)
        for name in ("videos", "segments", "frames"):
            assert len(writer.datasets[name].get_fragments()) == 1
    snapshot = Snapshot.open(tmp_path / "library")
    for video in set(range(1, 15)) - {2, 3, 9}:
        check_evidence(snapshot, video, 3)
    assert verify_library(tmp_path / "library").ok


def test_tokens_that_are_no_numbers_are_found(bundle: Bundle, tmp_path: Path) -> None:
    library = Library.open_or_create(tmp_path / "library", bundle)
    row = segment_row(library, 1, 0, 2)
    assert isinstance(row.tokens, QuantisedTokens)
    row.tokens.scale[1, 0] = np.nan
    with library.writing():
        writer = LibraryWriter(library)
        writer.add_segments([row])
        finish(writer, video_row(1, [row]))
        writer.flush()
        publish(writer, PublishOptions(), last=True)
    (report,) = verify_library(tmp_path / "library").snapshots
    assert report.problems == [
        f"snapshot 1: {tmp_path / 'library/frames.lance'} holds tokens that are not finite"
    ]


def test_a_segment_without_the_tokens_of_the_library_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    library = Library.open_or_create(tmp_path / "library", bundle)
    row = segment_row(library, 1, 0, 2)
    with library.writing():
        writer = LibraryWriter(library)
        for tokens in (None, np.zeros((2, 4, 3), np.float32), quantise(np.zeros((1, 4, 3), np.float32))):
            writer.add_segments([replace(row, tokens=tokens)])
            finish(writer, video_row(1, [row]))
            with pytest.raises(ValueError, match=r"tokens .*the table stores int8 \(2, 4, 3\)"):
                writer.flush()


@pytest.mark.parametrize("factory", [None, "IVF4,Flat", "HNSW8"])
def test_an_index_added_to_equals_a_new_one(bundle: Bundle, tmp_path: Path, factory: str | None) -> None:
    def fill(path: Path, steps: list[range]) -> Snapshot:
        library = Library.open_or_create(path, bundle)
        with library.writing():
            writer = LibraryWriter(library)
            for step in steps:
                for video in step:
                    rows = [segment_row(library, video, i, 1) for i in range(20)]
                    writer.add_segments(rows)
                    finish(writer, video_row(video, rows))
                writer.flush()
                manifest = publish(writer, PublishOptions(index_factory=factory), last=True)
        assert manifest.index_factory == (factory or "Flat")
        assert verify_library(path).ok
        return Snapshot.open(path)

    grown = fill(tmp_path / "grown", [range(1, 15), range(15, 16), range(16, 21)])
    fresh = fill(tmp_path / "fresh", [range(1, 21)])
    queries = np.stack([segment_row(Library.open(tmp_path / "grown"), 99, i, 1).embedding for i in range(8)])
    scores, rows = grown.search(queries, 10)
    expected_scores, expected_rows = fresh.search(queries, 10)
    if factory != "IVF4,Flat":
        assert np.array_equal(rows, expected_rows)
        assert np.allclose(scores, expected_scores)
    exact = fresh.index.vectors(np.arange(400)) if factory is None else None
    if exact is not None:
        assert np.array_equal(rows[:, 0], (queries @ exact.T).argmax(axis=1))
    assert scores.shape == (8, 10)
    assert (np.diff(scores, axis=1) <= 0).all()
