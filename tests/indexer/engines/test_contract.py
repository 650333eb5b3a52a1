"""What every engine must do: the same library, whatever the order and the place of the work."""

import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lance
import numpy as np
import onnx
import pyarrow as pa
import pytest
from onnx import TensorProto, helper, numpy_helper

from indexer.encode import EncodeSpec
from indexer.engines.base import Engine
from indexer.engines.local import LocalEngine
from indexer.engines.local_decoders import Bounds
from indexer.events import Event, FileDone, FileStarted, IndexSummary, Scanned, SegmentEncoded
from indexer.library.folder import make_layout
from indexer.library.snapshot import Snapshot
from indexer.library.verify import verify_library
from indexer.options import IndexOptions
from indexer.plan import IndexTask
from indexer.run import decode_spec, index_paths
from model.runtime.bundle import Bundle
from model.runtime.errors import BundleError
from model.runtime.files import sha256_of
from tests.support.copies import distinct_copy
from tests.support.sequential_engine import SequentialEngine, sent
from tests.support.text_tracks import make_video_with_text
from tests.support.toy_bundle import COLOURS, make_toy_bundle, text_embedding
from tests.support.toy_videos import make_audio, make_corrupt_files, make_video


def local_processes(bundle: Bundle) -> Engine:
    return LocalEngine(bundle, workers=2, encoders=2, bounds=Bounds(timeout_seconds=60.0))


def local_inline(bundle: Bundle) -> Engine:
    return LocalEngine(bundle, workers=0, encoders=1, bounds=Bounds(timeout_seconds=60.0))


def sequential(_bundle: Bundle) -> Engine:
    return SequentialEngine()


NewEngine = Callable[[Bundle], Engine]
ENGINES: list[NewEngine] = [local_processes, local_inline, sequential]
every_engine = pytest.mark.parametrize("new_engine", ENGINES)

#: What a run draws anew, so that it differs from one library to the other.
DRAWN = {"ingest_id", "texts_ingest_id", "indexed_at", "checksums"}
KEYS = ("of_video", "segment_index", "frame_index", "kind", "start_seconds", "text")


@dataclass
class Run:
    """A library, and what the run that made it told."""

    summary: IndexSummary
    library: Path
    events: list[Event]


def run_index(
    new_engine: NewEngine,
    bundle: Bundle,
    library: Path,
    media: Path,
    stop: threading.Event | None = None,
    on_event: Callable[[Event], None] = lambda _event: None,
    **options: Any,
) -> Run:
    events: list[Event] = []

    def tell(event: Event) -> None:
        events.append(event)
        on_event(event)

    summary = index_paths(
        [media], library, bundle, IndexOptions(**options), tell, stop, engine=new_engine(bundle)
    )
    return Run(summary, library, events)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy"))


@pytest.fixture(scope="module")
def runs(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[NewEngine, tuple[Run, Run]]:
    """Each engine's first run over the same media, and its second one after they changed."""
    return index_twice(ENGINES, bundle, tmp_path_factory.mktemp("contract"))


def index_twice(engines: list[NewEngine], bundle: Bundle, root: Path) -> dict[NewEngine, tuple[Run, Run]]:
    media = root / "media"
    for colour in COLOURS:
        make_video(media / f"{colour}.mp4", parts=[(colour, 0.3)])
    make_video(media / "long.mkv", parts=[("red", 40.0), ("blue", 40.0)], fps=2, title="Two parts")
    make_audio(media / "sound.mp4")
    make_corrupt_files(media)
    make_video_with_text(media / "tracks.mkv", "subrip", {"eng": [(0.2, 0.8, "in the file")]})
    (media / "long.en.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nbeside it\n")
    (media / "red.srt").write_text("1\n00:00:00,100 --> 00:00:00,200\nof red\n")
    (media / "white.srt").write_text("a letter")

    def index_with(new_engine: NewEngine) -> Run:
        return run_index(new_engine, bundle, root / new_engine.__name__, media, prune=True)

    first = {new_engine: index_with(new_engine) for new_engine in engines}
    os.utime(media / "red.mp4", (9, 9))
    os.utime(media / "noise.mp4", (9, 9))
    make_video(media / "green.mp4", parts=[("green", 33.0)], fps=1)
    (media / "blue.mp4").write_bytes(b"")
    (media / "cyan.mp4").unlink()
    make_video(media / "new.mp4", parts=[("yellow", 0.3)])
    (media / "long.en.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nwritten anew\n")
    (media / "red.srt").unlink()
    return {new_engine: (first[new_engine], index_with(new_engine)) for new_engine in engines}


@every_engine
def test_every_engine_reads_texts_and_names_what_it_cannot_read(
    runs: dict[NewEngine, tuple[Run, Run]], new_engine: NewEngine
) -> None:
    first, second = runs[new_engine]
    assert [(p.path.name, p.verdict) for p in first.summary.text_problems] == [("white.srt", "corrupt")]
    assert (first.summary.lines, second.summary.lines) == (3, 1)
    texts = Snapshot.open(second.library).find_lines("written anew in the file of red", 10)
    assert {line.text for line in texts if line.kind == "speech"} == {"written anew", "in the file"}


@every_engine
def test_every_engine_gives_the_same_tables(
    runs: dict[NewEngine, tuple[Run, Run]], new_engine: NewEngine
) -> None:
    for table in ("videos", "segments", "frames", "texts"):
        rows = sorted_rows(runs[new_engine][1].library, table)
        expected = sorted_rows(runs[sequential][1].library, table)
        assert rows.schema == expected.schema
        assert rows.num_rows == expected.num_rows > 0
        for name in rows.column_names:
            assert_same(rows[name], expected[name], f"{table}.{name}")


@every_engine
def test_every_engine_gives_the_same_answers(
    runs: dict[NewEngine, tuple[Run, Run]], new_engine: NewEngine
) -> None:
    library = runs[new_engine][1].library
    assert verify_library(library).ok
    for colour in COLOURS:
        scores, expected = answers(library, colour), answers(runs[sequential][1].library, colour)
        assert scores == pytest.approx(expected, abs=1e-5)
        assert len(scores) == 13


@every_engine
def test_every_engine_gives_the_same_summaries_and_events(
    runs: dict[NewEngine, tuple[Run, Run]], new_engine: NewEngine
) -> None:
    for run, expected in zip(runs[new_engine], runs[sequential], strict=True):
        assert comparable(run.summary) == comparable(expected.summary)
        assert isinstance(run.events[0], Scanned)
        for kind in (Scanned, FileStarted, SegmentEncoded, FileDone):
            told, expected_told = (
                sorted(repr(event) for event in events if isinstance(event, kind))
                for events in (run.events, expected.events)
            )
            assert told == expected_told
        assert repr(run.events[-1]) == repr(expected.events[-1])
    first, second = runs[new_engine]
    assert first.summary.verdicts == {"ok": 10, "partial": 1, "corrupt": 3, "unsupported": 2}
    # What changed is new, green and blue, which is now as empty as another file; red and noise have a new
    # time alone.
    assert second.summary.verdicts == {"ok": 2}
    assert (second.summary.unchanged, second.summary.failed_before, second.summary.removed) == (14, 6, 1)
    assert second.summary.recognised == 1


@every_engine
def test_a_file_ends_after_it_began_and_after_its_segments(
    runs: dict[NewEngine, tuple[Run, Run]], new_engine: NewEngine
) -> None:
    under_way: dict[Path, float] = {}
    for event in runs[new_engine][0].events:
        if isinstance(event, FileStarted):
            under_way[event.path] = 0.0
        elif isinstance(event, SegmentEncoded):
            under_way[event.path] += event.seconds
        elif isinstance(event, FileDone):
            seconds = under_way.pop(event.path)
            assert seconds == pytest.approx(event.duration_seconds if event.num_segments else 0.0, abs=0.6)
    assert under_way == {}


@every_engine
def test_a_stop_in_the_middle_keeps_what_is_done(
    bundle: Bundle, tmp_path: Path, new_engine: NewEngine
) -> None:
    make_video(tmp_path / "media/00.mp4", parts=[("red", 0.3)])
    for i in range(1, 12):
        distinct_copy(tmp_path / "media/00.mp4", tmp_path / f"media/{i:02}.mp4")
    stop = threading.Event()
    started: list[Path] = []

    def stop_at_the_fourth(event: Event) -> None:
        if isinstance(event, FileStarted):
            started.append(event.path)
            if len(started) == 4:
                stop.set()

    library = tmp_path / "library"
    run = run_index(new_engine, bundle, library, tmp_path / "media", stop, stop_at_the_fourth)
    done = {event.path for event in run.events if isinstance(event, FileDone)}
    assert run.summary.interrupted
    # Two decoders have read two files at least when the fourth one is begun, and begin at most one more.
    assert 2 <= len(done) <= 5
    assert {video.file for video in Snapshot.open(library).videos(0, 20)} == done
    assert verify_library(library).ok
    rest = run_index(new_engine, bundle, library, tmp_path / "media")
    assert (rest.summary.unchanged, rest.summary.num_videos) == (len(done), 12)
    assert not rest.summary.interrupted


@every_engine
def test_a_stop_prunes_nothing(bundle: Bundle, tmp_path: Path, new_engine: NewEngine) -> None:
    for name in "abc":
        make_video(tmp_path / f"media/{name}.mp4", parts=[("red", 0.3)])
    library = tmp_path / "library"
    run_index(new_engine, bundle, library, tmp_path / "media")
    (tmp_path / "media/a.mp4").unlink()
    stop = threading.Event()
    stop.set()
    stopped = run_index(new_engine, bundle, library, tmp_path / "media", stop, prune=True)
    assert (stopped.summary.removed, stopped.summary.vanished, stopped.summary.num_videos) == (0, 1, 3)


@every_engine
def test_a_failing_encoder_raises_its_error_and_leaves_the_library_whole(
    tmp_path: Path, new_engine: NewEngine
) -> None:
    failing = Bundle.open(fail_on_white(make_toy_bundle(tmp_path / "toy"), with_error=True))
    media, library = tmp_path / "media", tmp_path / "library"
    for name, colour in (("a", "red"), ("b", "green")):
        make_video(media / f"{name}.mp4", parts=[(colour, 0.3)])
    run_index(new_engine, failing, library, media)
    for name, colour in (("c", "blue"), ("d", "white"), ("e", "cyan"), ("f", "black")):
        make_video(media / f"{name}.mp4", parts=[(colour, 0.3)])
    threads = set(threading.enumerate())
    with pytest.raises(BundleError, match=r"frame_encoder\.onnx failed on frames"):
        run_index(new_engine, failing, library, media)
    assert set(threading.enumerate()) <= threads
    assert [v.file.name for v in Snapshot.open(library).videos(0, 9)] == ["a.mp4", "b.mp4"]
    assert verify_library(library).ok
    (media / "d.mp4").unlink()
    assert run_index(new_engine, failing, library, media).summary.num_videos == 5
    assert verify_library(library).ok


@every_engine
def test_a_video_for_which_the_model_gives_nan_is_set_aside_alone(
    tmp_path: Path, new_engine: NewEngine
) -> None:
    bundle = Bundle.open(fail_on_white(make_toy_bundle(tmp_path / "toy"), with_error=False))
    media, library = tmp_path / "media", tmp_path / "library"
    parts = {
        "a.mp4": [("red", 0.3)],
        "white.mp4": [("white", 0.3)],
        "mixed.mp4": [("red", 32.0), ("white", 32.0), ("blue", 32.0)],
        "z.mp4": [("cyan", 0.3)],
    }
    for name, colours in parts.items():
        make_video(media / name, parts=colours, fps=1 if name == "mixed.mp4" else 10)
    run = run_index(new_engine, bundle, library, media)
    assert run.summary.verdicts == {"ok": 2, "partial": 1, "unsupported": 1}
    cause = "the model gives no usable numbers for it: frame_salience holds NaN or infinity"
    reasons = {failure.path.name: failure.reason for failure in run.summary.failures}
    assert reasons["white.mp4"].startswith(f"a segment is left out, from 0.0 s on: {cause}")
    assert reasons["mixed.mp4"].startswith(f"a segment is left out, from 32.0 s on: {cause}")
    snapshot = Snapshot.open(library)
    assert {v.file.name: v.num_segments for v in snapshot.videos(0, 9)} == {
        "a.mp4": 1,
        "white.mp4": 0,
        "mixed.mp4": 2,
        "z.mp4": 1,
    }
    by_name = {v.file.name: v.video_id for v in snapshot.videos(0, 9)}
    _, rows = snapshot.search(text_embedding("blue")[None], 1)
    (found,) = snapshot.segments(rows[0])
    assert (snapshot.video_id_of(found.row), found.start_seconds) == (by_name["mixed.mp4"], 64.0)
    assert found.segment_index == 1
    assert snapshot.thumbnail(found.frame_ids[0])
    assert verify_library(library).ok
    again = run_index(new_engine, bundle, library, media).summary
    assert (again.unchanged, again.failed_before, again.published) == (4, 1, False)


@every_engine
def test_a_model_that_gives_nan_for_everything_ends_the_run(tmp_path: Path, new_engine: NewEngine) -> None:
    bundle = Bundle.open(fail_on_white(make_toy_bundle(tmp_path / "toy"), with_error=False, from_level=-1.0))
    make_video(tmp_path / "media/a.mp4", parts=[("red", 0.3)])
    with pytest.raises(BundleError, match="frame_salience holds NaN or infinity"):
        run_index(new_engine, bundle, tmp_path / "library", tmp_path / "media")


def test_what_an_engine_hands_around_is_picklable(bundle: Bundle, tmp_path: Path) -> None:
    """The sequential engine sends also all that is decoded and encoded through pickle."""
    path = Path(os.fsdecode(b"/media/bad\xff.mp4"))
    task = IndexTask(path, "1234567890abcdef", known_sha256=("0" * 64,))
    decoding = decode_spec(bundle.manifest, "pyav")
    encoding = EncodeSpec.of(bundle, make_layout(bundle, None, None), 16)
    for value in (task, decoding, decoding.job(path), encoding):
        assert sent(value) == value


def test_a_bundle_that_was_replaced_is_not_used(bundle: Bundle, tmp_path: Path) -> None:
    spec = EncodeSpec.of(bundle, make_layout(bundle, None, None), 16)
    assert spec.open_bundle().checksum == bundle.checksum
    other = make_toy_bundle(tmp_path / "other", name="other")
    with pytest.raises(BundleError, match="has changed since the run began"):
        replace(spec, bundle_folder=other).open_bundle()


def sorted_rows(library: Path, table: str) -> pa.Table:
    """A table's rows in an order that does not depend on the run, without what a run draws."""
    rows, videos = (lance.dataset(str(library / f"{name}.lance")).to_table() for name in (table, "videos"))
    key = "texts_ingest_id" if table == "texts" else "ingest_id"
    video_of = dict(zip(videos[key].to_pylist(), videos["video_id"].to_pylist(), strict=True))
    of_rows = pa.array([video_of[ingest_id] for ingest_id in rows["ingest_id"].to_pylist()])
    rows = rows.drop_columns([name for name in rows.column_names if name in DRAWN])
    rows = rows.append_column("of_video", of_rows)
    return rows.sort_by([(key, "ascending") for key in KEYS if key in rows.column_names])


def assert_same(values: pa.ChunkedArray, expected: pa.ChunkedArray, name: str) -> None:
    """Equal, but for the last bits of floats: these depend on the size of the batches."""
    for left, right in zip(values.to_pylist(), expected.to_pylist(), strict=True):
        if any(isinstance(item, float) for item in flat(right)):
            np.testing.assert_allclose(np.array(left), np.array(right), atol=1e-5, err_msg=name)
        else:
            assert left == right, name


def flat(value: object) -> Iterator[object]:
    if isinstance(value, list):
        for item in value:
            yield from flat(item)
    else:
        yield value


def answers(library: Path, colour: str) -> dict[tuple[str, int, bytes | None], float]:
    """The score of every segment, by its place and its first thumbnail."""
    snapshot = Snapshot.open(library)
    scores, rows = snapshot.search(text_embedding(colour)[None], 100)
    return {
        (s.video_id, s.segment_index, snapshot.thumbnail(s.frame_ids[0])): float(score)
        for score, s in zip(scores[0], snapshot.segments(rows[0]), strict=True)
    }


def comparable(summary: IndexSummary) -> IndexSummary:
    failures = sorted(summary.failures, key=lambda failure: failure.path)
    return replace(
        summary, failures=failures, elapsed_seconds=0.0, video_seconds=round(summary.video_seconds, 6)
    )


def fail_on_white(folder: Path, *, with_error: bool, from_level: float = 245.0) -> Path:
    """Change a toy bundle so that it fails on white frames: with an error, or with an infinite salience.

    `from_level` is the mean level, 0 to 255, from which on a frame counts as white.
    """
    path = folder / "frame_encoder.onnx"
    model = onnx.load(str(path))
    for node in model.graph.node:
        node.output[:] = ["finite_salience" if name == "frame_salience" else name for name in node.output]
    node = helper.make_node
    model.graph.node.extend(
        [
            node("Cast", ["frames"], ["levels"], to=TensorProto.FLOAT),
            node("ReduceMean", ["levels", "all_axes"], ["level"], keepdims=0),
            node("Less", ["level", "nearly_white"], ["is_darker"]),
            node("Cast", ["is_darker"], ["darker"], to=TensorProto.FLOAT),
            *(
                [
                    # 0 is the only row there is; white frames look for row −2.
                    node("Sub", ["darker", "float_one"], ["zero_or_minus_one"]),
                    node("Add", ["zero_or_minus_one", "zero_or_minus_one"], ["zero_or_minus_two"]),
                    node("Cast", ["zero_or_minus_two"], ["row_of_zeros"], to=TensorProto.INT64),
                    node("Gather", ["only_zero", "row_of_zeros"], ["found_zero"]),
                    node("Unsqueeze", ["found_zero", "last_axis"], ["penalty"]),
                ]
                if with_error
                else [
                    node("Log", ["darker"], ["zero_or_infinite"]),
                    node("Unsqueeze", ["zero_or_infinite", "last_axis"], ["penalty"]),
                ]
            ),
            node("Add", ["finite_salience", "penalty"], ["frame_salience"]),
        ]
    )
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.array([1, 2, 3], np.int64), "all_axes"),
            numpy_helper.from_array(np.array(from_level, np.float32), "nearly_white"),
            numpy_helper.from_array(np.array(1, np.float32), "float_one"),
            numpy_helper.from_array(np.zeros(1, np.float32), "only_zero"),
            numpy_helper.from_array(np.array([1], np.int64), "last_axis"),
        ]
    )
    onnx.save(model, str(path))
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["files"][path.name] = {"sha256": sha256_of(path), "bytes": path.stat().st_size}
    (folder / "bundle.json").write_text(json.dumps(manifest))
    return folder
