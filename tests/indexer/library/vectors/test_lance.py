"""Libraries whose vectors Lance stores, in a table that the snapshots share."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from indexer.library.errors import LibraryError, NotFiniteError
from indexer.library.manifest import read_snapshot_manifest, snapshot_numbers
from indexer.library.rebuilding import rebuild_vectors
from indexer.library.snapshot import Snapshot
from indexer.library.switching import rollback
from indexer.library.vectors import registry
from indexer.library.vectors.base import ArrayVectors, shared_folder
from indexer.library.vectors.lance import FLAT_LIMIT, LanceBackend
from indexer.library.vectors.lance_table import PLACE_FILE, open_version
from indexer.library.verify import verify_library
from model.runtime.bundle import Bundle
from tests.indexer.library.vectors.test_contract import new_folder, unit_vectors
from tests.indexer.library.vectors.test_second_backend import answers, run
from tests.support.toy_videos import make_video

BACKEND = LanceBackend()


def tables(library: Path) -> list[Path]:
    """The tables of vectors in a library."""
    return sorted((library / "vectors").iterdir())


def test_the_automatic_kind_and_backend_follow_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    assert BACKEND.automatic_spec(FLAT_LIMIT) == "Flat"
    assert BACKEND.automatic_spec(FLAT_LIMIT + 1) == "IVF128,SQ8"
    assert BACKEND.automatic_spec(10**6) == "IVF1024,SQ8"
    monkeypatch.setattr(registry, "LANCE_FROM", 100)
    for num_rows, before, expected in (
        (100, "faiss", "faiss"),
        (101, "faiss", "lance"),
        (60, "lance", "lance"),
        (50, "lance", "faiss"),
        (60, "faiss", "faiss"),
    ):
        assert registry.automatic_backend(num_rows, before) == expected


def test_too_few_vectors_for_the_lists_give_an_exact_index(tmp_path: Path) -> None:
    index, spec = BACKEND.build(ArrayVectors(unit_vectors(31, 1)), "IVF32,SQ8", new_folder(tmp_path))
    assert (index.num_rows, spec) == (31, "Flat")


def test_many_small_changes_leave_few_files(tmp_path: Path) -> None:
    """Whoever publishes a video an hour must not read a thousand files at a search."""
    folder = new_folder(tmp_path, "0")
    now = unit_vectors(2000, 1)
    index, _ = BACKEND.build(ArrayVectors(now), "IVF32,SQ8", folder)
    BACKEND.save(index, folder)
    for step in range(1, 31):
        kept = np.delete(np.arange(len(now)), step)
        now = np.concatenate([now[kept], unit_vectors(10, 10 + step)])
        changed = BACKEND.extend(BACKEND.open(folder), ArrayVectors(now), kept)
        assert changed is not None
        previous, folder = folder, new_folder(tmp_path, str(step))
        BACKEND.save(changed, folder)
        BACKEND.drop(previous)
    index = BACKEND.open(folder)
    np.testing.assert_array_equal(index.vectors(np.arange(len(now))), now)
    assert len(index.dataset.get_fragments()) <= 5
    assert len([path for path in index.path.rglob("*") if path.is_file()]) < 60
    queries = unit_vectors(20, 2)
    nearest = np.argsort(-(queries @ now.T), axis=1)[:, :20]
    found = index.search(queries, 20)[1]
    assert np.mean([np.isin(right, got).mean() for got, right in zip(found, nearest, strict=True)]) > 0.95


@pytest.mark.parametrize("moment", ["rows added", "not finite"])
def test_a_change_that_was_not_saved_is_forgotten(tmp_path: Path, moment: str) -> None:
    """A kill before the snapshot is complete leaves a newer version of the table."""
    vectors, folder = unit_vectors(1500, 1), new_folder(tmp_path)
    index, _ = BACKEND.build(ArrayVectors(vectors[:1000]), "IVF32,SQ8", folder)
    BACKEND.save(index, folder)
    if moment == "rows added":
        BACKEND.extend(BACKEND.open(folder), ArrayVectors(unit_vectors(1200, 3)), np.arange(5, 1000))
    else:
        wrong = vectors.copy()
        wrong[1499, 0] = np.nan
        with pytest.raises(NotFiniteError):
            BACKEND.extend(BACKEND.open(folder), ArrayVectors(wrong), np.arange(1000))
    assert BACKEND.verify(BACKEND.open(folder), ArrayVectors(vectors[:1000])) is None
    changed = BACKEND.extend(BACKEND.open(folder), ArrayVectors(vectors))
    assert changed is not None
    np.testing.assert_array_equal(changed.vectors(np.arange(1500)), vectors)
    second = new_folder(tmp_path, "2")
    BACKEND.save(changed, second)
    BACKEND.drop(folder)
    assert BACKEND.verify(BACKEND.open(second), ArrayVectors(vectors)) is None


#: Publishes a snapshot with other vectors than the one before: each time in a forked process, with a fault.
_PUBLISHER = """
import importlib, json, os, sys
from pathlib import Path
import numpy as np
import indexer.library.vectors.lance
import model.runtime.faults
from indexer.library.vectors.base import ArrayVectors

for line in sys.stdin:
    library, fault = json.loads(line)
    child = os.fork()
    if child == 0:
        os.environ.update(fault)
        importlib.reload(model.runtime.faults)
        indexer.library.vectors.lance_table.checkpoint = model.runtime.faults.checkpoint
        try:
            backend = indexer.library.vectors.lance.LanceBackend()
            old, new = (Path(library) / "snapshots" / name for name in ("1", "2"))
            with np.load(Path(library) / "change.npz") as change:
                index = backend.extend(backend.open(old), ArrayVectors(change["now"]), change["kept"])
            new.mkdir()
            backend.save(index, new)
            backend.drop(old)
        except BaseException:
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_a_kill_at_any_step_of_a_change_leaves_a_whole_snapshot(tmp_path: Path) -> None:
    before, start = unit_vectors(1000, 1), tmp_path / "start"
    folder = new_folder(start)
    BACKEND.save(BACKEND.build(ArrayVectors(before), "IVF32,SQ8", folder)[0], folder)
    # A change before it, so that there is something to join.
    more = np.concatenate([before, unit_vectors(100, 3)])
    grown = BACKEND.extend(BACKEND.open(folder), ArrayVectors(more))
    assert grown is not None
    BACKEND.save(grown, folder)
    # And one that was killed, so that there is something to forget.
    BACKEND.extend(BACKEND.open(folder), ArrayVectors(unit_vectors(1200, 4)), np.arange(1100))
    kept = np.delete(np.arange(1100), [3, 5, 1090])
    now = np.concatenate([more[kept], unit_vectors(90, 5)])
    np.savez(start / "change.npz", now=now, kept=kept)
    with subprocess.Popen(
        [sys.executable, "-c", _PUBLISHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as publisher:

        def publish(library: Path, **fault: str) -> int:
            assert publisher.stdin is not None
            assert publisher.stdout is not None
            publisher.stdin.write(json.dumps([str(library), fault]) + "\n")
            publisher.stdin.flush()
            return int(publisher.stdout.readline())

        log = tmp_path / "points"
        assert publish(Path(shutil.copytree(start, tmp_path / "plain")), REELFIND_FAULT_LOG=str(log)) == 0
        points = log.read_text().split()
        assert points == [
            f"vectors.{step}" for step in ("restored", "deleted", "written", "indexed", "joined", "remove")
        ]
        for point in points:
            library = Path(shutil.copytree(start, tmp_path / point))
            assert publish(library, REELFIND_FAULT=f"kill {point} 1") == -signal.SIGKILL, point
            old, new = (library / "snapshots" / name for name in ("1", "2"))
            if new.exists():
                assert BACKEND.verify(BACKEND.open(new), ArrayVectors(now)) is None, point
                BACKEND.drop(old)
            else:
                assert BACKEND.verify(BACKEND.open(old), ArrayVectors(more)) is None, point
                assert publish(library) == 0, point
            index = BACKEND.open(new)
            np.testing.assert_array_equal(index.vectors(np.arange(len(now))), now)
            versions = {each["version"] for each in index.dataset.versions()}
            assert versions == {index.dataset.version}, point
        publisher.communicate()


def test_snapshots_share_a_table(bundle: Bundle, films: list[Path], tmp_path: Path) -> None:
    library = tmp_path / "library"
    run(bundle, library, films[:5], index_backend="lance", keep_snapshots=2, keep_seconds=0.0)
    for count in (6, 7, 8):
        # The next run goes on with the library's backend.
        run(bundle, library, films[:count], keep_snapshots=2, keep_seconds=0.0)
    assert snapshot_numbers(library) == [3, 4]
    (table,) = tables(library)
    named = {json.loads((library / "snapshots" / each / PLACE_FILE).read_text())["version"] for each in "34"}
    assert {each["version"] for each in open_version(table).versions()} == named
    run(bundle, tmp_path / "faiss", films)
    assert answers(library) == answers(tmp_path / "faiss")
    assert verify_library(library).ok
    manifest = read_snapshot_manifest(library, 4)
    assert (manifest.index_backend, manifest.backend_requested) == ("lance", "lance")
    assert manifest.index_files[0] == f"snapshots/4/{PLACE_FILE}"
    assert all((library / name).is_relative_to(table) for name in manifest.shared_index_files)

    # An earlier snapshot, then another end than the one that followed it.
    assert rollback(library) == 3
    other = make_video(tmp_path / "other.mp4", parts=[("red", 0.2), ("blue", 0.2)])
    run(bundle, library, [*films[:7], other])
    assert tables(library) == [table]
    assert verify_library(library).ok
    run(bundle, tmp_path / "other", [*films[:7], other])
    assert answers(library) == answers(tmp_path / "other")
    run(bundle, library, films, index_backend="faiss", keep_snapshots=1, keep_seconds=0.0)
    assert read_snapshot_manifest(library, snapshot_numbers(library)[-1]).backend_requested == "faiss"
    run(bundle, library, films[1:], keep_snapshots=1, keep_seconds=0.0)
    assert not tables(library)


def test_a_damaged_table_is_named_and_made_anew(bundle: Bundle, films: list[Path], tmp_path: Path) -> None:
    library = tmp_path / "library"
    run(bundle, library, films, index_backend="lance")
    before = answers(library)
    (table,) = tables(library)
    (data,) = (table / "data").iterdir()
    content = data.read_bytes()
    data.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    report = verify_library(library)
    command = f"`reelfind library vectors rebuild --library {library}`"
    assert report.remedy == (
        f"only {data.relative_to(library)} is damaged: {command} makes the index anew from the tables"
    )
    manifest = rebuild_vectors(library)
    assert (manifest.number, manifest.index_backend) == (2, "lance")
    assert answers(library) == before
    # Shorter than it was: the next run sees that by itself.
    (new,) = [each for each in tables(library) if each != table]
    (data,) = (new / "data").iterdir()
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(LibraryError, match=rf"{data.name} is damaged: \d+ bytes, expected"):
        Snapshot.open(library)
    run(bundle, library, films)
    assert answers(library) == before


def test_the_size_of_a_library_chooses_unless_somebody_did(
    bundle: Bundle, films: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "library"
    run(bundle, library, films[:4])
    assert read_snapshot_manifest(library, 1).index_backend == "faiss"
    monkeypatch.setattr(registry, "LANCE_FROM", 4)
    run(bundle, library, films)
    assert read_snapshot_manifest(library, 2).index_backend == "lance"
    run(bundle, library, films)
    assert snapshot_numbers(library) == [1, 2], "nothing has changed"
    for requested, expected in (("faiss", "faiss"), (None, "faiss"), ("auto", "lance")):
        manifest = rebuild_vectors(library, requested)
        assert manifest.index_backend == expected
    # A kind of index is one of a backend.
    assert rebuild_vectors(library, "faiss", "Flat").index_backend == "faiss"
    assert verify_library(library).ok


@pytest.mark.parametrize(
    "change",
    [
        {"table": "../../etc"},
        {"table": 5},
        {"version": True},
        {"version": -1},
        {"num_rows": 999},
        {"dim": 25},
        {"lists": 0},
        {"unknown": 1},
    ],
    ids=str,
)
def test_a_place_that_cannot_be_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    folder = new_folder(tmp_path)
    index, _ = BACKEND.build(ArrayVectors(unit_vectors(1000, 1)), "IVF32,SQ8", folder)
    BACKEND.save(index, folder)
    path = folder / PLACE_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(LibraryError, match=str(tmp_path)):
        BACKEND.open(folder)
    # What a snapshot may still need is not removed for a file that says nothing.
    other = new_folder(tmp_path, "2")
    BACKEND.drop(other)
    assert list(shared_folder(folder).iterdir()) == [index.path]
