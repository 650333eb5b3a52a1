"""The commit policy, called step by step: when rows are committed, published and pruned."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest

from indexer.decode import DecodedSegment, FileKnown, FileVerdict
from indexer.encode import EncodeSpec, encode_batch
from indexer.events import Event, FileDone, IndexSummary, Note, Published
from indexer.library.folder import Library
from indexer.library.fragments import write_segments
from indexer.library.manifest import current_number
from indexer.library.publish import PublishOptions
from indexer.library.records import Verdict, content_id
from indexer.library.schema import SegmentRow, fixed_to_numpy
from indexer.library.snapshot import Snapshot
from indexer.library.tables import table_path
from indexer.library.verify import verify_library
from indexer.library.writer import LibraryWriter
from indexer.plan import IndexTask
from indexer.sink import CommitOptions, LibrarySink
from model.runtime.bundle import Bundle
from tests.support.toy_bundle import make_toy_bundle, random_frames


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows are made up: their paths, thumbnails and times cannot be true, and need not be."""
    monkeypatch.setattr("indexer.library.verify.wrong_meaning", lambda *_: ())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy"))


@dataclass
class Bench:
    """A sink on a new library, with a clock that stands still."""

    bundle: Bundle
    writer: LibraryWriter
    now: float = 0.0
    publishing_takes: float = 0.0
    summary: IndexSummary = field(default_factory=IndexSummary)
    events: list[Event] = field(default_factory=list)

    def sink(self, gone: tuple[bytes, ...] = ()) -> LibrarySink:
        options = CommitOptions(
            publish=PublishOptions(),
            publish_seconds=100.0,
            flush_seconds=10.0,
            gone=gone,
            missing=gone,
            prune=bool(gone),
        )
        return LibrarySink(self.writer, options, self._take, self.summary, clock=lambda: self.now)

    def _take(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Published):
            self.now += self.publishing_takes

    def add(self, sink: LibrarySink, name: str, segments: int = 1) -> IndexTask:
        task = task_of(name)
        for index in range(segments):
            sink.add([self.encode(task, index)])
        return task

    def encode(self, task: IndexTask, index: int) -> SegmentRow:
        """The row of a segment."""
        decoded = DecodedSegment(
            index=index,
            start_seconds=32.0 * index,
            end_seconds=32.0 * (index + 1),
            frames=random_frames(2),
            pts_seconds=np.array([8.0, 24.0]),
            thumbnails=(b"one", b"two"),
        )
        spec = EncodeSpec.of(self.bundle, self.writer.layout, 16)
        (row,) = encode_batch(self.bundle, spec, [(task, decoded)])
        assert isinstance(row, SegmentRow)
        return row

    def index(self, sink: LibrarySink, name: str, segments: int = 1, verdict: Verdict = "ok") -> None:
        task = self.add(sink, name, segments)
        sink.finish(task, verdict_of(task, verdict))

    def served(self) -> int | None:
        """The number of the snapshot that is served."""
        return current_number(self.writer.library.path)

    def snapshot(self) -> Snapshot:
        return Snapshot.open(self.writer.library.path)


def task_of(name: str) -> IndexTask:
    return IndexTask(Path("/media") / name, f"{sha_of(name)[:8]}00000001")


def sha_of(name: str) -> str:
    """The checksum of the content that the file has."""
    return hashlib.sha256(name.encode()).hexdigest()


def video_of(name: str) -> str:
    return content_id(sha_of(name))


def verdict_of(task: IndexTask, verdict: Verdict) -> FileVerdict:
    reason = None if verdict == "ok" else "a reason"
    return FileVerdict(verdict, reason, None, sha_of(task.path.name), bytes=9, mtime_ns=5)


@pytest.fixture
def bench(bundle: Bundle, tmp_path: Path) -> Iterator[Bench]:
    library = Library.open_or_create(tmp_path / "library", bundle)
    with library.writing():
        yield Bench(bundle, LibraryWriter(library))


def test_finished_files_are_committed_after_the_flush_time(bench: Bench) -> None:
    sink = bench.sink()
    bench.now = 9.9
    bench.index(sink, "a.mp4")
    assert bench.writer.uncommitted_segments == 1
    bench.now = 10.0
    bench.index(sink, "b.mp4")
    assert (bench.writer.uncommitted_segments, len(bench.writer.videos)) == (0, 2)
    bench.now = 19.0
    bench.index(sink, "c.mp4")
    assert bench.writer.uncommitted_segments == 1
    assert bench.served() is None


def test_files_that_an_engine_has_stored_are_finished_together(bench: Bench) -> None:
    """Nothing is published between them, and what is in the library already does not come twice."""
    sink = bench.sink()
    bench.index(sink, "a.mp4")
    tasks = [task_of(name) for name in ("b.mp4", "c.mp4")]
    again = replace(task_of("d.mp4"), ingest_id="d" * 16)
    rows = [bench.encode(task, 0) for task in (*tasks, again)]
    written = write_segments(sink.tables, bench.writer.layout, rows)
    ends = [(task, verdict_of(task, "ok"), None) for task in tasks]
    # It has the content of the first one.
    ends.append((again, replace(verdict_of(task_of("a.mp4"), "ok")), None))
    bench.now = 1000.0
    sink.add_written(written, {row.ingest_id: (1, 2) for row in rows}, ends)
    assert [type(event) for event in bench.events] == [FileDone, FileDone, FileDone, FileDone, Published]
    assert (bench.summary.segments, bench.summary.frames, bench.summary.recognised) == (3, 6, 1)
    assert bench.snapshot().num_segments == 3
    assert verify_library(bench.writer.library.path).ok


def test_many_segments_or_much_memory_are_committed_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.sink._FLUSH_SEGMENTS", 3)
    sink = bench.sink()
    bench.index(sink, "a.mp4", segments=2)
    assert bench.writer.uncommitted_segments == 2
    bench.index(sink, "b.mp4")
    assert bench.writer.uncommitted_segments == 0
    monkeypatch.setattr("indexer.sink._FLUSH_BYTES", 1)
    bench.index(sink, "c.mp4")
    assert bench.writer.uncommitted_segments == 0


def test_publishing_waits_for_its_time_and_takes_a_small_share_of_it(bench: Bench) -> None:
    sink = bench.sink()
    bench.publishing_takes = 30.0
    bench.index(sink, "a.mp4")
    assert bench.served() is None
    bench.now = 100.0
    bench.index(sink, "b.mp4")
    assert (bench.served(), bench.now) == (1, 130.0)
    # One that took 30 seconds is the last one for 20 times as long.
    bench.now = 130.0 + 599.0
    bench.index(sink, "c.mp4")
    assert (bench.served(), bench.snapshot().num_videos) == (1, 2)
    bench.now = 130.0 + 600.0
    bench.index(sink, "d.mp4")
    assert (bench.served(), bench.snapshot().num_videos) == (2, 4)


def test_closing_commits_and_publishes_what_is_finished_alone(bench: Bench) -> None:
    sink = bench.sink()
    bench.index(sink, "a.mp4", segments=3)
    bench.add(sink, "half-read.mp4", segments=2)
    bench.index(sink, "broken.mp4", segments=2, verdict="corrupt")
    nothing = task_of("nothing in it.mp4")
    sink.finish(nothing, verdict_of(nothing, "ok"))
    assert bench.served() is None
    sink.close(interrupted=False)
    assert (bench.snapshot().num_videos, bench.snapshot().num_segments) == (1, 3)
    verdicts = {video.file.name: (video.verdict, video.reason) for video in bench.snapshot().videos(0, 9)}
    assert verdicts == {
        "a.mp4": ("ok", None),
        "broken.mp4": ("corrupt", "a reason"),
        "nothing in it.mp4": ("corrupt", "no frame could be decoded"),
    }
    summary = bench.summary
    assert summary.verdicts == {"ok": 1, "corrupt": 2}
    assert (summary.segments, summary.frames, summary.num_segments, summary.snapshot) == (3, 6, 3, 1)
    assert [failure.path.name for failure in summary.failures] == ["broken.mp4", "nothing in it.mp4"]
    assert [(e.path.name, e.num_segments) for e in bench.events if isinstance(e, FileDone)] == [
        ("a.mp4", 3),
        ("broken.mp4", 0),
        ("nothing in it.mp4", 0),
    ]
    assert bench.events[-1] == Published(1, 1, 3)


def test_an_unchanged_file_keeps_its_segments_and_gets_its_new_time(bench: Bench) -> None:
    first = bench.sink()
    bench.index(first, "a.mp4")
    first.close(interrupted=False)
    second = bench.sink()
    task = replace(task_of("a.mp4"), video_id=video_of("a.mp4"))
    second.finish(task, FileKnown(sha_of("a.mp4"), mtime_ns=77))
    second.close(interrupted=False)
    assert (bench.summary.unchanged, bench.summary.recognised) == (1, 0)
    assert bench.writer.files[b"/media/a.mp4"].mtime_ns == 77
    assert bench.snapshot().num_segments == 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("column", ["embedding", "frame_salience"])
def test_a_row_that_is_not_finite_is_left_out_and_names_its_video(
    bench: Bench, column: str, value: float
) -> None:
    sink = bench.sink()
    bench.index(sink, "good.mp4")
    for name, segments in (("all bad.mp4", 1), ("half bad.mp4", 2)):
        task = task_of(name)
        rows = []
        for index in range(segments):
            row = bench.encode(task, index)
            vectors = getattr(row, column).copy()
            if index == segments - 1:
                vectors[..., 1] = value
            rows.append(replace(row, **{column: vectors}))
        sink.add(rows)
        sink.finish(task, verdict_of(task, "ok"))
    sink.close(interrupted=False)
    assert {video.file.name: (video.verdict, video.reason) for video in bench.snapshot().videos(0, 9)} == {
        "good.mp4": ("ok", None),
        "all bad.mp4": (
            "unsupported",
            f"a segment is left out, from 0.0 s on: its {column} holds NaN or infinity",
        ),
        "half bad.mp4": (
            "partial",
            f"a segment is left out, from 32.0 s on: its {column} holds NaN or infinity",
        ),
    }
    assert bench.snapshot().num_segments == 2


def test_nan_that_the_table_holds_does_not_keep_other_videos_from_being_published(bench: Bench) -> None:
    first = bench.sink()
    bench.index(first, "a.mp4", segments=2)
    bench.index(first, "bad.mp4", segments=3)
    bench.writer.flush()
    # Another program, or a damaged disk, writes NaN into the table.
    bad = bench.writer.videos[video_of("bad.mp4")]
    segments = lance.dataset(str(table_path(bench.writer.library.path, "segments")))
    rows = segments.to_table()
    vectors = fixed_to_numpy(rows["embedding"]).copy()
    vectors[rows["ingest_id"].to_pylist().index(bad.ingest_id) + 1, 3] = np.nan
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    place = rows.schema.get_field_index("embedding")
    lance.write_dataset(
        rows.set_column(place, rows.schema.field(place), column), segments.uri, mode="overwrite"
    )
    writer = LibraryWriter(Library.open(bench.writer.library.path))
    second = LibrarySink(writer, CommitOptions(PublishOptions(), 100.0, 10.0), bench._take, bench.summary)
    second.close(interrupted=False)
    reason = "its embedding at 32.0 s holds NaN or infinity; `--retry-failed` reads it again"
    assert {v.file.name: (v.verdict, v.reason) for v in bench.snapshot().videos(0, 9)} == {
        "a.mp4": ("ok", None),
        "bad.mp4": ("unsupported", reason),
    }
    assert (bench.snapshot().num_segments, bench.summary.snapshot) == (2, 1)
    assert [(f.path.name, f.reason) for f in bench.summary.failures] == [("bad.mp4", reason)]
    assert Note(f"/media/bad.mp4 is set aside: {reason}") in bench.events
    assert verify_library(bench.writer.library.path).ok


@pytest.mark.parametrize("interrupted", [False, True])
def test_what_vanished_is_removed_at_the_end_of_a_whole_run(bench: Bench, interrupted: bool) -> None:
    first = bench.sink()
    bench.index(first, "a.mp4")
    bench.index(first, "gone.mp4")
    first.close(interrupted=False)
    second = bench.sink(gone=(b"/media/gone.mp4", b"/media/not in the library.mp4"))
    second.mark_missing()
    second.close(interrupted=interrupted)
    removed, vanished = bench.summary.removed, bench.summary.vanished
    assert (removed, vanished, bench.snapshot().num_videos) == ((0, 1, 2) if interrupted else (1, 0, 1))
