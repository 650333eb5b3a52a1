"""The stage that finds cuts: from files to libraries, snapshots, commands and searches."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest

from indexer.events import Event, IndexSummary, StageFileDone
from indexer.library.errors import LibraryError
from indexer.library.schema import CUTS
from indexer.library.snapshot import Snapshot
from indexer.library.switching import rollback
from indexer.library.tables import table_path
from indexer.library.verify import verify_library
from indexer.options import IndexOptions
from indexer.run import index_paths
from indexer.stages import shots
from indexer.stages.shots import ShotsStage
from model.runtime.bundle import Bundle
from model.runtime.errors import InputError
from tests.support.command_line import invoke
from tests.support.copies import distinct_copy
from tests.support.crafted_library import change_table, set_column, stamp_again
from tests.support.server import running_server
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_shots import film_of_shots, write_frames
from tests.support.toy_videos import make_video

LENGTHS, FADES = (40, 35, 45), (0, 0, 12)


@pytest.fixture(scope="module")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy", moments="edges")


@pytest.fixture(scope="module")
def bundle(bundle_folder: Path) -> Bundle:
    return Bundle.open(bundle_folder)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shots: a cut after 40 frames, a fade that begins after 75."""
    folder = tmp_path_factory.mktemp("film")
    return write_frames(folder / "film.mp4", film_of_shots(LENGTHS, FADES, (160, 90)))


def index(bundle: Bundle, library: Path, *paths: Path, **options: Any) -> IndexSummary:
    given = IndexOptions(**{"workers": 0, "shots": True, "threads": 1, **options})
    return index_paths(paths, library, bundle, given, lambda _: None)


def cuts_of(library: Path, name: str = "film.mp4", number: int | None = None) -> Sequence[float] | None:
    snapshot = Snapshot.open(library, number)
    for row in range(snapshot.num_segments):
        video = snapshot.video(snapshot.video_id_of(row))
        if video is not None and video.file.name == name:
            cuts = snapshot.cuts(row)
            return None if cuts is None else cuts.tolist()
    raise AssertionError(f"{name} is not in {library}")


def check(found: Sequence[float] | None) -> None:
    """The cuts of the film: the first to the frame, the second in the middle of the fade."""
    assert found is not None
    assert len(found) == 2
    assert found[0] == 1.6
    assert found[1] == pytest.approx((75 + 6) / 25, abs=0.13)


def test_an_indexed_library_gets_cuts_later_and_once(bundle: Bundle, film: Path, tmp_path: Path) -> None:
    media, library = tmp_path / "media", tmp_path / "library"
    media.mkdir()
    distinct_copy(film, media)
    index(bundle, library, media, shots=False)
    assert cuts_of(library) is None
    before = lance.dataset(str(table_path(library, "segments"))).version
    summary = index(bundle, library, media)
    assert (summary.stages["shots"].videos, summary.stages["shots"].cuts) == (1, 2)
    check(cuts_of(library))
    assert cuts_of(library, number=1) is None
    assert lance.dataset(str(table_path(library, "segments"))).version == before
    again = index(bundle, library, media)
    assert (again.stages["shots"].videos, again.stages["shots"].done_before) == (0, 1)
    check(cuts_of(library))
    assert verify_library(library).ok
    rollback(library, 1)
    assert cuts_of(library) is None


def test_an_interrupted_run_goes_on(bundle: Bundle, film: Path, tmp_path: Path) -> None:
    media, library = tmp_path / "media", tmp_path / "library"
    media.mkdir()
    for name in ("a.mp4", "b.mp4"):
        distinct_copy(film, media / name)
    stop = threading.Event()

    def stop_after_one(event: Event) -> None:
        if isinstance(event, StageFileDone):
            stop.set()

    options = IndexOptions(workers=0, shots=True, threads=1)
    first = index_paths([media], library, bundle, options, stop_after_one, stop)
    assert (first.stages["shots"].videos, first.stages["shots"].left) == (1, 1)
    check(cuts_of(library, "a.mp4"))
    assert cuts_of(library, "b.mp4") is None
    second = index(bundle, library, media)
    assert (second.stages["shots"].videos, second.stages["shots"].done_before) == (1, 1)
    check(cuts_of(library, "b.mp4"))


def test_a_changed_file_is_looked_at_again(bundle: Bundle, film: Path, tmp_path: Path) -> None:
    media, library = tmp_path / "media", tmp_path / "library"
    media.mkdir()
    distinct_copy(film, media)
    index(bundle, library, media)
    write_frames(media / "film.mp4", film_of_shots((50,), (0,), (160, 90)))
    index(bundle, library, media, shots=False)
    assert cuts_of(library) is None
    index(bundle, library, media)
    assert cuts_of(library) == []


def test_cuts_are_where_frames_say_in_videos_of_odd_times(bundle: Bundle, tmp_path: Path) -> None:
    media, library = tmp_path / "media", tmp_path / "library"
    media.mkdir()
    rng = np.random.default_rng(0)
    ticks = np.cumsum(rng.integers(11, 99, sum(LENGTHS))) + 1500
    write_frames(media / "uneven.mkv", film_of_shots(LENGTHS, (0, 0, 0), (160, 90)), ticks=ticks.tolist())
    write_frames(media / "frame.mkv", film_of_shots((1,), (0,), (160, 90)))
    write_frames(media / "short.mkv", film_of_shots((2, 2), (0, 0), (160, 90)))
    summary = index(bundle, library, media)
    assert not summary.stages["shots"].problems
    # Seconds count from the first frame.
    expected = (ticks[np.cumsum(LENGTHS)[:-1]] - ticks[0]) / 1000
    assert cuts_of(library, "uneven.mkv") == expected.tolist()
    assert cuts_of(library, "frame.mkv") == []
    short = cuts_of(library, "short.mkv")
    assert short is not None
    assert set(short) <= {0.04, 0.08, 0.12}


def test_a_damaged_file_keeps_the_cuts_of_what_can_be_read(
    bundle: Bundle, film: Path, tmp_path: Path
) -> None:
    media, library = tmp_path / "media", tmp_path / "library"
    media.mkdir()
    whole = tmp_path / "whole.mkv"
    write_frames(whole, film_of_shots(LENGTHS, FADES, (160, 90)))
    data = whole.read_bytes()
    (media / "film.mkv").write_bytes(data[: len(data) * 2 // 3])
    (media / "tone.mp4").write_bytes(film.read_bytes()[:900])
    summary = index(bundle, library, media)
    assert summary.verdicts["partial"] == 1
    assert summary.stages["shots"].videos == 1
    found = cuts_of(library, "film.mkv")
    assert found
    assert found[0] == 1.6


def test_damaged_cuts_are_found(bundle: Bundle, film: Path, tmp_path: Path) -> None:
    library = tmp_path / "library"
    index(bundle, library, film)

    path = str(table_path(library, "videos"))
    table = lance.dataset(path).to_table()
    lance.write_dataset(set_column(table, CUTS, [[1.64, 3.24]]), path, mode="overwrite")
    stamp_again(library)
    assert not verify_library(library).ok
    with pytest.raises(LibraryError, match=r"is damaged: the row of video "):
        index(bundle, library, film)


@pytest.mark.parametrize("cuts", [[3.0, 2.0], [float("nan")], [-1.0]], ids=str)
def test_cuts_that_cannot_be_true_are_named(
    bundle: Bundle, film: Path, tmp_path: Path, cuts: list[float]
) -> None:
    library = tmp_path / "library"
    index(bundle, library, film, shots=False)
    change_table(library, "videos", lambda table: set_column(table, CUTS, [cuts]))
    (problem,) = verify_library(library).snapshots[-1].problems
    assert "its cut_seconds is not finite and rising" in problem


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.string()), pa.float64(), pa.list_(pa.list_(pa.float64()))], ids=str
)
def test_cuts_of_another_type_are_refused(
    bundle: Bundle, film: Path, tmp_path: Path, kind: pa.DataType
) -> None:
    library = tmp_path / "library"
    index(bundle, library, film, shots=False)
    path = str(table_path(library, "videos"))
    table = lance.dataset(path).to_table()
    place = table.column_names.index(CUTS)
    table = table.set_column(place, CUTS, pa.nulls(table.num_rows, kind))
    lance.write_dataset(table, path, mode="overwrite")
    stamp_again(library)
    with pytest.raises(LibraryError, match="cut_seconds is"):
        Snapshot.open(library)


def test_a_library_made_before_opens_as_it_is(bundle: Bundle, film: Path, tmp_path: Path) -> None:
    library = tmp_path / "library"
    index(bundle, library, film, shots=False)
    lance.dataset(str(table_path(library, "videos"))).drop_columns([CUTS])
    stamp_again(library)
    assert cuts_of(library) is None
    index(bundle, library, film)
    check(cuts_of(library))


def test_thousands_of_cuts_are_stored_and_read(bundle: Bundle, film: Path, tmp_path: Path) -> None:
    library = tmp_path / "library"
    index(bundle, library, film)
    many = np.unique(np.random.default_rng(1).uniform(0, 36_000, 20_000)).tolist()

    def stored(table: pa.Table) -> pa.Table:
        return set_column(table, CUTS, [many])

    change_table(library, "videos", stored)
    assert cuts_of(library) == many


def test_an_incomplete_installation_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shots, "GRAPH", tmp_path / "transnetv2.onnx")
    with pytest.raises(InputError, match="is missing: install reelfind again"):
        ShotsStage()


def test_moments_start_and_end_with_shots(bundle_folder: Path, tmp_path: Path) -> None:
    """With the command and over HTTP: stored frames are seconds apart, and cuts are between them."""
    media, library = tmp_path / "media", tmp_path / "library"
    parts = [("blue", 7.3), ("red", 9.7), ("black", 6.1), ("red", 5.9), ("white", 14.8)]
    make_video(media / "tape.mp4", parts=parts)
    options = ["--library", str(library), "--bundle", str(bundle_folder)]
    run = invoke("index", media, *options, "--shots", "--threads", "1", "--json")
    assert run.exit_code == 0, run.stderr
    stage = json.loads(run.stdout)["stages"]["shots"]
    assert (stage["videos"], stage["cuts"]) == (1, 4)
    with running_server(*options) as server:
        hits = server.search("red", group_by="moment")
        video = server.video_id("tape.mp4")
        alone = server.client.post(f"/v1/videos/{video}/moments", json={"query": {"text": "red"}}).json()
    for found in (hits, alone["hits"]):
        spans = [(hit["start_seconds"], hit["end_seconds"]) for hit in found[:2]]
        assert sorted(spans) == [(7.3, 17.0), (23.1, 29.0)]
        for hit in found[:2]:
            assert all(hit["start_seconds"] <= f["pts_seconds"] < hit["end_seconds"] for f in hit["frames"])
