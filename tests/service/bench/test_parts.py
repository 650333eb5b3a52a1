"""The benchmark measures what it says: its arithmetic, its inputs and its parts on small ones."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.options import IndexOptions
from model.runtime.bundle import Bundle
from model.runtime.errors import InputError, ReelfindError
from model.runtime.video import VideoReader, probe
from service.bench import (
    ann,
    indexing,
    isolation,
    memory,
    publishing,
    renames,
    rescan,
    serving,
    stages,
    vector_stores,
)
from service.bench.figures import Bar, Figure, Section, ratios
from service.bench.load import drive
from service.bench.media import cached, repeat_video, write_video
from service.server_process import running_server
from tests.support.server import clean_environment
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_library import make_library

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy")


def by_name(figures: list[Figure], part: str) -> Figure:
    (found,) = [figure for figure in figures if part in figure.name]
    return found


def test_a_figure_shows_its_median_range_and_bar() -> None:
    figure = Figure("section", "name", (1.5, 0.9, 1.0), bar=Bar("<=", 1.0))
    assert figure.passed
    shown = figure.to_json()
    assert (shown["n"], shown["median"], shown["min"], shown["max"]) == (3, 1.0, 0.9, 1.5)
    assert (shown["bar"], shown["passed"]) == ("<= 1", True)
    assert not Figure("section", "name", (0.84,), bar=Bar(">=", 0.85)).passed
    assert Figure("section", "name", (0.84,)).passed is None
    with pytest.raises(ValueError, match="'name' has no values"):
        Figure("section", "name", ())


def test_a_rescan_finds_every_file_again() -> None:
    (figure,) = rescan.measure_rescan(files=450, repeats=2)
    assert (figure.unit, len(figure.values)) == ("files/s", 2)
    assert min(figure.values) > 0


def test_renamed_files_are_recognised_and_not_decoded(bundle: Path) -> None:
    seconds, relative = renames.measure_renames(bundle, files=210, repeats=2)
    assert (seconds.unit, len(seconds.values)) == ("s", 2)
    assert len(relative.values) == 2


def test_a_video_is_added_replaced_and_removed(bundle: Path) -> None:
    figures = publishing.measure_publishing(bundle, segments=3000, repeats=2)
    for change in ("added", "replaced", "removed"):
        written = by_name(figures, f"{change}: written")
        assert (written.unit, len(written.values)) == ("MiB", 2)
        # What is not changed is not written again.
        assert 0 < max(written.values) < 1
    assert all(figure.bar is None for figure in figures)


def test_ratios_pair_repetitions() -> None:
    assert ratios([2.0, 9.0], [1.0, 3.0]) == (2.0, 3.0)
    with pytest.raises(ValueError, match="zip"):
        ratios([1.0], [1.0, 2.0])


def test_recall_is_the_share_of_exact_neighbours_found() -> None:
    exact = np.array([[0, 1, 2, 3], [4, 5, 6, 7]])
    found = np.array([[3, 2, 9, -1], [4, 5, 6, 7]])
    assert ann.recall(found, exact) == 6 / 8


def test_vectors_are_of_unit_length_and_in_clusters() -> None:
    corpus, queries = ann.clustered_vectors(1000, 50, 64, clusters=4, seed=1)
    assert np.allclose(np.linalg.norm(corpus, axis=1), 1, atol=1e-5)
    similarity = np.sort(queries @ corpus.T, axis=1)
    # A quarter of the corpus is in a query's cluster, the rest elsewhere.
    assert similarity[:, -150:].min() > similarity[:, :600].max()


def test_exact_search_finds_everything_and_lists_do_not_lose_much() -> None:
    figures = ann.measure_faiss(2000, queries=20, dim=32, repeats=2)
    recalls = {figure.name: figure.median for figure in figures if "recall" in figure.name}
    assert recalls["Flat: recall@100"] == 1.0
    assert len(recalls) == 5
    assert all(0.5 < value <= 1 for value in recalls.values())
    assert all(len(figure.values) == 2 for figure in figures if "time" in figure.name)


def test_backends_of_vectors_are_compared_with_exact_search() -> None:
    corpus, queries = ann.clustered_vectors(1500, 4, 16, clusters=3, seed=1)
    rows = np.arange(0, 1500, 3)
    expected = rows[np.argsort(-(queries @ corpus[rows].T), axis=1)[:, :100]]
    found = vector_stores.nearest_rows(corpus, queries, rows)
    assert np.array_equal(np.sort(found), np.sort(expected))

    grid = vector_stores.measure_stores(2000, queries=5, dim=16)
    faiss, lance = (dict(zip(grid.columns, row, strict=True)) for row in grid.rows)
    for row, name in ((faiss, "faiss"), (lance, "lance")):
        assert (row["backend"], row["kind"], row["recall@100"]) == (name, "Flat", 1.0)
        assert row["recall@100, 10% allowed"] == 1.0
        assert isinstance(row["disk MiB"], float)
        assert row["disk MiB"] >= 0.1


def test_a_repeated_video_is_as_long_as_it_says(tmp_path: Path) -> None:
    block = tmp_path / "block.mp4"
    write_video(block, width=160, height=90, seconds=2, seed=1)
    long = tmp_path / "long.mp4"
    repeat_video(block, long, 20)
    assert probe(long).duration_seconds == pytest.approx(40, abs=0.05)
    with VideoReader(long) as reader:
        segments = list(reader.segments(segment_seconds=20.0))
    assert reader.damage is None
    times = np.concatenate([segment.frames.pts_seconds for segment in segments])
    assert len(times) == 32
    assert np.allclose(np.diff(times), 40 / 32, atol=0.05)


def test_a_file_is_made_once_and_never_half(tmp_path: Path) -> None:
    target = tmp_path / "folder" / "video.mp4"

    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        cached(target, fail)
    assert not target.exists()
    assert cached(target, lambda path: path.write_bytes(b"whole")) == target
    assert cached(target, fail).read_bytes() == b"whole"


def test_memory_of_a_tree_counts_grandchildren() -> None:
    hold = "import time; data = bytearray(100 << 20); print(flush=True); time.sleep(60)"
    spawn = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
    with subprocess.Popen([sys.executable, "-c", spawn], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            assert memory.tree_bytes(process.pid) > 100 << 20
            assert memory.tree_bytes(process.pid) > memory._resident_bytes(process.pid) + (100 << 20)
        finally:
            _kill_children(process.pid)
            process.kill()


def _kill_children(pid: int) -> None:
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        subprocess.run(["kill", child], check=False)


def test_indexing_is_compared_with_its_halves(tmp_path: Path, bundle: Path) -> None:
    videos = indexing.small_clips(tmp_path, 5)
    assert [path.name for path in videos.files] == [f"video-{n:03d}.mp4" for n in range(5)]
    figures = indexing.measure_videos(videos, Bundle.open(bundle), IndexOptions(workers=1), repeats=2)
    ratio = by_name(figures, "over the slower half")
    slower = [
        max(pair)
        for pair in zip(
            by_name(figures, "decoding alone").values, by_name(figures, "encoding alone").values, strict=True
        )
    ]
    assert ratio.values == pytest.approx(
        [a / b for a, b in zip(slower, by_name(figures, ": indexing").values, strict=True)]
    )
    assert "80 frames in 5 segments" in ratio.note
    assert ratio.bar == Bar(">=", 0.85)
    # What the cores allow takes at least as long as the slower half.
    assert by_name(figures, "allow for both").median >= ratio.median


def test_indexing_is_measured_with_and_without_confined_decoders(tmp_path: Path, bundle: Path) -> None:
    videos = indexing.small_clips(tmp_path, 3)
    figures = isolation.compare_modes(videos, Bundle.open(bundle), IndexOptions(workers=1), pairs=2)
    ratio = by_name(figures, "time to index")
    confined, free = by_name(figures, "indexing, confined"), by_name(figures, "indexing, not confined")
    assert ratio.values == ratios(confined.values, free.values)
    assert ratio.bar == Bar("<=", 1.03)
    assert {len(figure.values) for figure in figures} == {2}


def test_search_is_measured_on_a_real_server(tmp_path: Path) -> None:
    toy = make_library(tmp_path)
    figures = serving.measure_serving(toy.library, toy.bundle, repeats=2, queries=8, clients=(1, 3))
    assert by_name(figures, "÷ median in process").bar == Bar("<=", 1.1)
    assert {len(figure.values) for figure in figures} == {2}
    shared = by_name(figures, "queries a second, 3 clients").values
    apart = by_name(figures, "queries a second without shared calls, 3 clients").values
    faster = by_name(figures, "with shared calls ÷ without, 3 clients")
    assert faster.values == ratios(shared, apart)
    alone = by_name(figures, "queries a second, 1 client").values
    many = by_name(figures, "queries a second of 3 clients ÷ of 1 client")
    assert (many.values, many.bar) == (ratios(shared, alone), Bar(">=", 2.0))
    assert by_name(figures, "median with shared calls ÷ without, 1 client").median > 0


def test_clients_share_searches_and_say_what_was_refused(tmp_path: Path) -> None:
    toy = make_library(tmp_path)
    with running_server(toy.library, bundle=toy.bundle) as server:
        bodies: list[dict[str, Any]] = [{"query": {"text": text}} for text in ("red", "green", "blue", "red")]
        with server.client() as client:
            candidates = client.search(**bodies[0]).num_candidates
        for clients in (1, 2, 7):
            load = drive(server, bodies, clients)
            assert len(load.latencies) == len(load.moments) == len(bodies)
            assert 0 < max(load.latencies) <= load.seconds
            assert (load.reranked, load.candidates) == (1.0, candidates)
        with pytest.raises(ReelfindError, match="422"):
            drive(server, [*bodies, {"query": {"text": ""}}], 2)


def test_queries_never_come_twice() -> None:
    texts = serving.query_texts()
    assert len({next(texts) for _ in range(5000)}) == 5000


def test_the_command_prints_json_and_goes_on_after_a_part_that_fails(tmp_path: Path) -> None:
    run = subprocess.run(
        [
            *(sys.executable, "-P", "-m", "service", "bench", "--quick", "--json"),
            *("--only", "search", "--only", "faiss", "--bundle", str(tmp_path / "none")),
            *("--cache", str(tmp_path / "cache")),
        ],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 3, run.stderr
    body = json.loads(run.stdout)
    assert list(body["failed"]) == ["search"]
    assert str(tmp_path / "none") in body["failed"]["search"]
    assert {figure["section"] for figure in body["figures"]} == {Section.FAISS}
    assert "Traceback" not in run.stderr


def test_the_stages_are_measured_and_the_plan_is_compared_with_a_run(tmp_path: Path, bundle: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    for number in range(3):
        write_video(own / f"{number}.mp4", width=160, height=90, seconds=2, seed=number)
    (own / "damaged.mp4").write_bytes(b"no video")
    scale = stages.StageScale(clips=1, segments=200, written=8, repeats=1)
    rates, figures = stages.measure_stages(tmp_path / "cache", bundle, [own], scale)
    measured = rates.decoding["own"]
    assert measured.files == 2
    assert measured.seconds == pytest.approx(4.0)
    sizes = [(own / f"{number}.mp4").stat().st_size for number in (0, 2)]
    assert measured.media_bytes_per_second == pytest.approx(sum(sizes) / 4)
    assert (rates.bundle, rates.encoding.provider, rates.publishing.segments) == ("toy", "cpu", 200)
    assert rates.writing.library_bytes_per_segment > 1000
    for name in ("CPU time to index", "time to index"):
        apart, predicted, taken = (figure for figure in figures if figure.name.startswith(name))
        assert "1 other videos of own" in apart.name
        (value,) = predicted.values
        assert apart.values == pytest.approx([max(value / each, each / value) for each in taken.values])
        assert len(taken.values) == 1
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="holds 0 videos"):
        stages.measure_rates(tmp_path, bundle, [empty], scale)
