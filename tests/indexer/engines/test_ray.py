"""The engine on Ray: a cluster of three nodes gives what one machine gives, whatever is lost meanwhile.

It takes minutes and some 2 GB of memory: `make cluster` runs these tests, `make test` does not.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import lance
import pytest

from indexer.engines.base import Engine
from indexer.engines.local_decoders import Bounds
from indexer.events import Event, Note, SegmentEncoded
from indexer.library.verify import verify_library
from indexer.options import IndexOptions
from indexer.run import index_paths
from model.runtime.bundle import Bundle
from model.runtime.errors import InputError
from service.bench.engines import compare_engines, distinct
from service.bench.indexing import VideoSet
from tests.indexer.engines import test_contract as contract
from tests.indexer.engines.test_contract import NewEngine, Run, assert_same, sequential, sorted_rows
from tests.support.copies import distinct_copy
from tests.support.otlp import attributes_of, collecting
from tests.support.processes import wait_until
from tests.support.ray_nodes import ENVIRONMENT, Nodes, processes_with, three_nodes
from tests.support.server import REELFIND, clean_environment
from tests.support.toy_bundle import COLOURS, make_toy_bundle
from tests.support.toy_videos import make_video

# Not imported before the environment of the cluster is set, which it reads.
if os.environ.get("REELFIND_CLUSTER_TESTS") != "1":
    pytest.skip("`make cluster` runs these: they take minutes", allow_module_level=True)
if importlib.util.find_spec("ray") is None:
    pytest.skip("Ray is not installed: it is in the extra 'ray'", allow_module_level=True)

from indexer.engines.ray import RayEngine
from indexer.engines.ray_actors import SharedTables, same_versions
from indexer.engines.ray_cluster import RayOptions, connected
from indexer.engines.ray_files import FileQueue
from indexer.engines.ray_readings import Reading

pytestmark = pytest.mark.slow

#: On every node: a process that decodes a file of this name dies after a segment.
POISON = "kill decoded.poison.mp4 1"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    with three_nodes(REELFIND_FAULT=POISON) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def ray(cluster: Nodes) -> Iterator[Any]:
    """This process, connected: engines use the connection and leave it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        with connected(cluster.address) as module:
            yield module


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy"))


def on_ray(_bundle: Bundle) -> Engine:
    return RayEngine(RayOptions(decoders=2, encoders=1), Bounds(timeout_seconds=60.0))


def index(
    engine: Engine | None,
    bundle: Bundle,
    library: Path,
    media: Path,
    on_event: Callable[[Event], None] = lambda _: None,
    **options: Any,
) -> Any:
    return index_paths([media], library, bundle, IndexOptions(**options), on_event, engine=engine)


@pytest.fixture(scope="module")
def runs(
    ray: Any, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> dict[NewEngine, tuple[Run, Run]]:
    with pytest.MonkeyPatch.context() as patch:
        # The video of three segments is stored in parts while it is read.
        patch.setattr("indexer.engines.ray_loop._ROWS_OF_ONE", 2)
        return contract.index_twice([sequential, on_ray], bundle, tmp_path_factory.mktemp("ray"))


@pytest.mark.parametrize(
    "check",
    [
        contract.test_every_engine_reads_texts_and_names_what_it_cannot_read,
        contract.test_every_engine_gives_the_same_tables,
        contract.test_every_engine_gives_the_same_answers,
        contract.test_every_engine_gives_the_same_summaries_and_events,
        contract.test_a_file_ends_after_it_began_and_after_its_segments,
    ],
)
def test_ray_gives_what_one_machine_gives(
    runs: dict[NewEngine, tuple[Run, Run]],
    check: Callable[[dict[NewEngine, tuple[Run, Run]], NewEngine], None],
) -> None:
    check(runs, on_ray)


def test_a_stop_in_the_middle_keeps_what_is_done(ray: Any, bundle: Bundle, tmp_path: Path) -> None:
    contract.test_a_stop_in_the_middle_keeps_what_is_done(bundle, tmp_path, on_ray)


def test_a_failing_encoder_raises_its_error_and_leaves_the_library_whole(ray: Any, tmp_path: Path) -> None:
    contract.test_a_failing_encoder_raises_its_error_and_leaves_the_library_whole(tmp_path, on_ray)


def test_what_the_model_gives_no_numbers_for_is_set_aside_alone(ray: Any, tmp_path: Path) -> None:
    contract.test_a_video_for_which_the_model_gives_nan_is_set_aside_alone(tmp_path, on_ray)


def test_confinement_is_told_once_and_no_mark_is_left(runs: dict[NewEngine, tuple[Run, Run]]) -> None:
    run = runs[on_ray][0]
    notes = [event.text for event in run.events if isinstance(event, Note)]
    assert len([text for text in notes if "confined" in text]) == len(notes) == 1
    assert list(run.library.glob(".ray-*")) == []


def elsewhere(folder: Path) -> Callable[[Path], AbstractContextManager[SharedTables]]:
    """Tables that no node sees."""

    @contextmanager
    def shared(_: Path) -> Iterator[SharedTables]:
        yield SharedTables(str(folder / "on another disk"), "mark")

    return shared


def test_nodes_that_do_not_see_the_library_send_their_rows(
    ray: Any, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    media = make_many(tmp_path / "media", poison=False)
    notes: list[str] = []

    def note(event: Event) -> None:
        if isinstance(event, Note):
            notes.append(event.text)

    monkeypatch.setattr("indexer.engines.ray._shared", elsewhere(tmp_path))
    index(on_ray(bundle), bundle, tmp_path / "ray", media, note)
    assert len([text for text in notes if "does not see the library's folder" in text]) == 1
    index(None, bundle, tmp_path / "local", media)
    assert_same_libraries(tmp_path / "ray", tmp_path / "local")


def test_without_an_address_a_cluster_lives_as_long_as_the_run(bundle: Bundle, tmp_path: Path) -> None:
    make_video(tmp_path / "media/a.mp4", parts=[("red", 0.3)])
    before = set(Path("/tmp").glob("ray-*")), set(processes_with("/tmp/ray-"))
    paths = [str(tmp_path / "media"), "--library", str(tmp_path / "library")]
    command = [*REELFIND, "index", *paths, "--engine", "ray"]
    environment = {k: v for k, v in clean_environment().items() if not k.startswith("RAY_")}
    run = subprocess.run(
        [*command, "--bundle", str(bundle.folder), "--ray-encoders", "1", "--json"],
        env={**environment, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["verdicts"]["ok"] == 1
    wait_until(lambda: (set(Path("/tmp").glob("ray-*")), set(processes_with("/tmp/ray-"))) == before)


def test_nodes_with_other_versions_are_refused(
    ray: Any, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_video(tmp_path / "media/a.mp4", parts=[("red", 0.3)])
    other = tuple((name, "0.1" if name == "av" else found) for name, found in same_versions())
    monkeypatch.setattr("indexer.engines.ray_fleet.same_versions", lambda: other)
    with pytest.raises(InputError, match=r"the node .* has av .*, not 0\.1: use the same image"):
        index(on_ray(bundle), bundle, tmp_path / "library", tmp_path / "media")


def test_the_benchmark_compares_both_engines(ray: Any, bundle: Bundle, tmp_path: Path) -> None:
    clip = make_video(tmp_path / "clip.mp4", parts=[("red", 0.3)])
    copies = [Path(shutil.copy(clip, tmp_path / f"{name}.mp4")) for name in "ab"]
    videos = distinct(VideoSet("two clips", tmp_path, tuple(copies), 0.6), tmp_path / "distinct")
    options = IndexOptions(workers=1)
    figures = compare_engines(videos, bundle, options, 1, lambda: on_ray(bundle))
    assert [figure.unit for figure in figures] == ["ratio", "s", "s", "s", "s"]
    ratio, local, ray_took, *_ = figures
    assert ratio.values == (local.values[0] / ray_took.values[0],)


def test_a_node_that_is_killed_costs_what_was_under_way(
    cluster: Nodes, ray: Any, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside it, a file that kills every process that decodes it gets the verdict of one machine."""
    media = make_many(tmp_path / "media")
    killed = threading.Event()

    def kill_at_the_fourth(event: Event) -> None:
        if isinstance(event, SegmentEncoded):
            encoded.append(event.path)
            if len(encoded) == 4:
                killed.set()
                cluster.kill()

    encoded: list[Path] = []
    # On both nodes: whichever is killed has actors of either kind, or holds what they need.
    options = RayOptions(decoders=2, encoders=2, span_seconds=64.0)
    engine = RayEngine(options, Bounds(timeout_seconds=60.0))
    summary = index(engine, bundle, tmp_path / "ray", media, kill_at_the_fourth)
    cluster.add()
    assert killed.is_set()
    monkeypatch.setenv("REELFIND_FAULT", POISON)
    expected = index(None, bundle, tmp_path / "local", media)
    assert summary.verdicts == expected.verdicts == {"ok": 10, "corrupt": 1}
    (failure,), (expected_failure,) = summary.failures, expected.failures
    assert failure == expected_failure
    assert failure.reason == "the decoder crashed on it twice (SIGKILL)"
    assert_same_libraries(tmp_path / "ray", tmp_path / "local")


def make_long(media: Path) -> Path:
    """Three long videos: one moves, one has a still across cuts, one is damaged in a later span."""
    moving = [("red", 3.0), ("blue", 3.0), ("green", 3.0)] * 24
    film = make_video(media / "film.mp4", parts=moving, fps=1)
    make_video(media / "still.mp4", parts=[*moving[:20], ("cyan", 700.0), *moving[:20]], fps=1)
    data = bytearray(film.read_bytes())
    place = len(data) * 5 // 8
    data[place : place + 150] = bytes(150)
    (media / "damaged.mp4").write_bytes(data)
    return media


def in_spans(_bundle: Bundle) -> Engine:
    """Decodes four minutes of moving pictures in four spans or more."""
    options = RayOptions(decoders=3, encoders=2, span_seconds=64.0)
    return RayEngine(options, Bounds(timeout_seconds=60.0))


def cuts_of(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The files that are cut from now on, and into how many spans."""
    cuts: list[tuple[str, int]] = []
    cut = FileQueue.cut

    def counted(files: FileQueue, reading: Reading, count: int) -> None:
        cuts.append((reading.attempt.task.path.name, count))
        cut(files, reading, count)

    monkeypatch.setattr(FileQueue, "cut", counted)
    return cuts


@pytest.mark.parametrize("sees_library", [True, False], ids=["stored by encoders", "sent to the driver"])
def test_long_files_are_read_in_spans_that_give_what_one_reader_gives(
    ray: Any, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sees_library: bool
) -> None:
    media = make_long(tmp_path / "media")
    cuts = cuts_of(monkeypatch)
    # Rows of a span are stored in several parts.
    monkeypatch.setattr("indexer.engines.ray_loop._ROWS_OF_ONE", 2)
    if not sees_library:
        monkeypatch.setattr("indexer.engines.ray._shared", elsewhere(tmp_path))
    summary = index(in_spans(bundle), bundle, tmp_path / "ray", media)
    expected = index(None, bundle, tmp_path / "local", media)
    assert sorted(name for name, _ in cuts) == ["damaged.mp4", "film.mp4", "still.mp4"]
    assert min(count for _, count in cuts) >= 4
    assert summary.verdicts == expected.verdicts == {"ok": 2, "partial": 1}
    assert summary.failures == expected.failures
    assert_same_libraries(tmp_path / "ray", tmp_path / "local")
    for table in ("segments", "frames"):
        check_order(tmp_path / "ray", table)


def check_order(library: Path, table: str) -> None:
    """Check that the rows of each file are stored in the order of their segments."""
    rows = lance.dataset(str(library / f"{table}.lance")).to_table(columns=["ingest_id", "segment_index"])
    of_file: dict[str, list[int]] = {}
    for row in rows.to_pylist():
        of_file.setdefault(row["ingest_id"], []).append(row["segment_index"])
    assert len(of_file) == 3
    for numbers in of_file.values():
        assert numbers == sorted(numbers)


def test_a_span_that_kills_its_decoder_gives_the_file_its_verdict(
    ray: Any, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    media = tmp_path / "media"
    make_long(media)
    (media / "film.mp4").rename(media / "poison.mp4")
    cuts = cuts_of(monkeypatch)
    monkeypatch.setenv("REELFIND_FAULT", POISON)
    summary = index(in_spans(bundle), bundle, tmp_path / "ray", media)
    expected = index(None, bundle, tmp_path / "local", media)
    assert len(cuts) == 3
    assert summary.verdicts == expected.verdicts == {"ok": 1, "partial": 1, "corrupt": 1}
    by_path = [sorted(run.failures, key=lambda each: each.path) for run in (summary, expected)]
    assert by_path[0] == by_path[1]
    assert_same_libraries(tmp_path / "ray", tmp_path / "local")


def test_a_driver_that_is_killed_goes_on_where_it_was(
    cluster: Nodes, ray: Any, bundle: Bundle, tmp_path: Path
) -> None:
    media = make_many(tmp_path / "media", poison=False)
    library = tmp_path / "ray"
    arguments = [cluster.address, str(media), str(library), str(bundle.folder)]
    command = [sys.executable, "-c", DRIVER, *arguments]
    environment = {**os.environ, **ENVIRONMENT, "REELFIND_FAULT": "kill append.segments 4"}
    killed = subprocess.run(command, env=environment)
    assert killed.returncode == -signal.SIGKILL
    # The actors end with their driver.
    wait_until(lambda: not processes_with("ray::DecodingActor") + processes_with("ray::EncodingActor"))
    again = index(on_ray(bundle), bundle, library, media)
    assert 1 <= again.unchanged < 10
    assert again.verdicts == {"ok": 10 - again.unchanged}
    index(None, bundle, tmp_path / "local", media)
    assert_same_libraries(library, tmp_path / "local")


def test_a_driver_that_is_told_to_end_keeps_what_is_done(
    cluster: Nodes, ray: Any, bundle: Bundle, tmp_path: Path
) -> None:
    """By SIGTERM, as KubeRay ends a job."""
    media, library = make_many(tmp_path / "media", poison=False), tmp_path / "ray"
    # It takes its decoder minutes to take the checksum of this, so the run is not over before.
    endless = media / "endless.mp4"
    with endless.open("wb") as file:
        file.truncate(1 << 40)
    command = driver_command(cluster, media, library, bundle)
    with subprocess.Popen(
        command,
        env={**clean_environment(), **ENVIRONMENT, "HOME": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        # What an encoder has stored is decoded, and what is decoded is kept.
        wait_until(lambda: any(library.glob("segments.lance/data/*.lance")), 180.0)
        run.send_signal(signal.SIGTERM)
        _, said = run.communicate()
    assert run.returncode == 128 + signal.SIGTERM, said
    assert "stopped: what was done is published" in said
    wait_until(lambda: not processes_with("ray::DecodingActor") + processes_with("ray::EncodingActor"))
    assert verify_library(library).ok
    endless.unlink()
    again = index(on_ray(bundle), bundle, library, media)
    assert again.unchanged >= 1
    assert again.verdicts == ({"ok": 10 - again.unchanged} if again.unchanged < 10 else {})
    index(None, bundle, tmp_path / "local", media)
    assert_same_libraries(library, tmp_path / "local")


def driver_command(cluster: Nodes, media: Path, library: Path, bundle: Bundle) -> list[str]:
    paths = [str(media), "--library", str(library), "--bundle", str(bundle.folder)]
    engine = ["--engine", "ray", "--ray-address", cluster.address, "--workers", "2", "--ray-encoders", "1"]
    return [*REELFIND, "index", *paths, *engine]


def test_a_run_is_one_trace_on_all_nodes(cluster: Nodes, ray: Any, bundle: Bundle, tmp_path: Path) -> None:
    media, library = tmp_path / "media", tmp_path / "ray"
    for colour in ("red", "blue"):
        make_video(media / f"{colour}.mp4", parts=[(colour, 0.3)])
    with collecting() as collector:
        own = {**collector.environment, **ENVIRONMENT, "HOME": str(tmp_path)}
        command = driver_command(cluster, media, library, bundle)
        subprocess.run(command, env=clean_environment() | own, capture_output=True, check=True)
        run = collector.wait_for("index")
    steps = collector.within(run)
    names = [step.name for step in steps]
    assert {"scan", "plan", "decode", "encode", "store", "commit", "publish"} == set(names)
    assert {step.trace_id for step in steps} == {run.trace_id}
    decoded = [attributes_of(step)["file.path"] for step in steps if step.name == "decode"]
    assert sorted(decoded) == [str(media / "blue.mp4"), str(media / "red.mp4")]
    segments = [attributes_of(step)["reelfind.segments"] for step in steps if step.name == "store"]
    assert sum(segments) == 2
    hosts = [resource["host.name"] for resource in collector.resources if "host.name" in resource]
    assert set(hosts) == {platform.node()}


class Recorded:
    """In place of a metric of Ray, which shows its values only where its dashboard is installed."""

    values: ClassVar[dict[tuple[str, ...], float]] = {}
    most: ClassVar[dict[str, float]] = {}

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...] = ()) -> None:
        assert description
        self.name, self.tag_keys = name, tag_keys

    def inc(self, value: float = 1.0, tags: dict[str, str] | None = None) -> None:
        assert value > 0
        assert tuple(tags or {}) == self.tag_keys
        key = (self.name, *(tags or {}).values())
        self.values[key] = self.values.get(key, 0.0) + value

    def set(self, value: float) -> None:
        self.values[self.name,] = value
        self.most[self.name] = max(value, self.most.get(self.name, 0.0))


def test_metrics_count_what_a_run_does(
    ray: Any, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    media = make_many(tmp_path / "media", poison=False)
    (media / "empty.mp4").write_bytes(b"")
    monkeypatch.setattr("ray.util.metrics.Counter", Recorded)
    monkeypatch.setattr("ray.util.metrics.Gauge", Recorded)
    monkeypatch.setattr("indexer.engines.ray_loop._MEASURE_SECONDS", 0.0)
    index(on_ray(bundle), bundle, tmp_path / "ray", media)
    os.utime(media / "red.mp4", (9, 9))
    index(on_ray(bundle), bundle, tmp_path / "ray", media)
    rows = {table: lance.dataset(str(tmp_path / f"ray/{table}.lance")) for table in ("segments", "frames")}
    spans = rows["segments"].to_table(columns=["start_seconds", "end_seconds"]).to_pylist()
    seconds = sum(row["end_seconds"] - row["start_seconds"] for row in spans)
    assert Recorded.values == {
        ("reelfind_index_files", "ok"): 10,
        ("reelfind_index_files", "corrupt"): 1,
        ("reelfind_index_files", "known"): 1,
        ("reelfind_index_decoded_seconds",): pytest.approx(seconds),
        ("reelfind_index_encoded_frames",): rows["frames"].count_rows(),
        ("reelfind_index_bytes_in_flight",): 0,
    }
    assert Recorded.most["reelfind_index_bytes_in_flight"] > 0


#: A driver that stores and commits each video by itself.
DRIVER = """
import sys
from indexer.engines import ray_loop
from indexer.engines.local_decoders import Bounds
from indexer.engines.ray import RayEngine
from indexer.engines.ray_actors import SharedTables, same_versions
from indexer.engines.ray_cluster import RayOptions
from indexer.options import IndexOptions
from indexer.run import index_paths
from model.runtime.bundle import Bundle
from model.runtime.errors import InputError
from service.bench.engines import compare_engines, distinct
from service.bench.indexing import VideoSet

ray_loop._ROWS_OF_MANY = 1
address, media, library, bundle = sys.argv[1:]
engine = RayEngine(RayOptions(address, decoders=2, encoders=1), Bounds())
options = IndexOptions(flush_seconds=0.0)
index_paths([media], library, Bundle.open(bundle), options, lambda _: None, engine=engine)
"""


def make_many(media: Path, *, poison: bool = True) -> Path:
    """Nine videos of one to three segments, one to cut into spans, and one that kills its decoders."""
    for colour in COLOURS:
        make_video(media / f"{colour}.mp4", parts=[(colour, 0.3)])
    make_video(media / "long.mp4", parts=[("red", 40.0), ("blue", 40.0)], fps=1)
    make_video(media / "cut.mp4", parts=[("red", 3.0), ("blue", 3.0)] * 32, fps=1)
    if poison:
        distinct_copy(media / "red.mp4", media / "poison.mp4")
    return media


def assert_same_libraries(library: Path, expected: Path) -> None:
    assert verify_library(library).ok
    for table in ("videos", "segments", "frames", "texts"):
        rows, expected_rows = sorted_rows(library, table), sorted_rows(expected, table)
        assert rows.num_rows == expected_rows.num_rows > 0
        for name in rows.column_names:
            assert_same(rows[name], expected_rows[name], f"{table}.{name}")
