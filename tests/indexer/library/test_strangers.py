"""Libraries made to do harm, or damaged with checksums to match: a LibraryError, or they are read."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import faiss
import lance
import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.library.errors import LibraryError
from indexer.library.manifest import (
    FileStamp,
    read_snapshot_manifest,
    snapshot_folder,
    to_json,
)
from indexer.library.snapshot import Snapshot
from indexer.library.storage.base import MANIFEST_FILE
from indexer.library.tables import table_path
from indexer.library.vectors.base import ArrayVectors
from indexer.library.vectors.faiss import INDEX_FILE, FaissBackend, is_whole_flat
from model.runtime.files import sha256_of
from tests.support.crafted_library import stamp_again
from tests.support.mutations import mutated
from tests.support.toy_library import ToyLibrary, make_library

DIM = 8
SIZES = (1 << 31, 1 << 39, 1 << 62, (1 << 64) - 1)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_library(tmp_path_factory.mktemp("strangers"))


@pytest.fixture
def library(toy: ToyLibrary, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy.library, tmp_path / "library"))


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def replace_file(library: Path, name: str, data: bytes) -> None:
    """Put other content in a file, with the checksum to match."""
    (library / name).write_bytes(data)
    manifest = read_snapshot_manifest(library, 1)
    stamp = FileStamp(sha256_of(library / name), len(data))
    changed = replace(manifest, files={**manifest.files, name: stamp})
    (snapshot_folder(library, 1) / MANIFEST_FILE).write_text(to_json(changed))


def unit_vectors(count: int) -> NDArray[np.float32]:
    vectors = np.random.default_rng(0).normal(size=(count, DIM))
    unit: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def write_index(folder: Path, spec: str) -> Path:
    """An index of 400 vectors as a stranger has it: not remembered here."""
    backend = FaissBackend()
    index, built = backend.build(ArrayVectors(unit_vectors(400)), spec)
    assert built == spec
    folder.mkdir()
    (path,) = backend.save(index, folder)
    shutil.rmtree(os.environ["XDG_STATE_HOME"], ignore_errors=True)
    return path


def test_a_flat_index_is_read_if_its_header_says_the_size_it_has(tmp_path: Path) -> None:
    path = write_index(tmp_path / "flat", "Flat")
    assert is_whole_flat(path)
    data = path.read_bytes()
    for start, kind, value in ((4, "<i", 1 << 30), (8, "<q", 1 << 40), (37, "<Q", 1 << 39), (33, "<i", 1)):
        changed = bytearray(data)
        struct.pack_into(kind, changed, start, value)
        path.write_bytes(changed)
        assert not is_whole_flat(path)
        with pytest.raises(LibraryError, match=r"segments\.faiss"):
            FaissBackend().open(path.parent)
    path.write_bytes(data + b"\0")
    assert not is_whole_flat(path)


@pytest.mark.parametrize("spec", ["IVF4,SQ8", "HNSW8", "PCA4,Flat", "SQ8"])
def test_another_index_is_tried_first_and_then_searched(tmp_path: Path, spec: str) -> None:
    folder = write_index(tmp_path / "index", spec).parent
    opened = FaissBackend().open(folder)
    assert opened.num_rows == 400
    assert any((tmp_path / "state" / "reelfind" / "vectors").iterdir()), "it is not remembered"
    assert opened.search(unit_vectors(2), 5)[1].shape == (2, 5)


def test_a_graph_that_leads_outside_of_the_index_is_refused(tmp_path: Path) -> None:
    path = write_index(tmp_path / "index", "HNSW8")
    index = faiss.read_index(str(path))
    neighbours = faiss.vector_to_array(index.hnsw.neighbors)
    neighbours[neighbours >= 0] = 1 << 30
    faiss.copy_array_to_vector(neighbours, index.hnsw.neighbors)
    faiss.write_index(index, str(path))
    with pytest.raises(LibraryError, match=r"no index that can be searched|ended the process that tried it"):
        FaissBackend().open(path.parent)


def test_lists_that_name_other_rows_are_refused(tmp_path: Path) -> None:
    path = write_index(tmp_path / "index", "IVF4,SQ8")
    index = faiss.read_index(str(path))
    size = index.invlists.list_size(0)
    faiss.rev_swig_ptr(index.invlists.get_ids(0), size)[:] = 5_000_000
    faiss.write_index(index, str(path))
    with pytest.raises(LibraryError, match="its lists name vectors that do not exist"):
        FaissBackend().open(path.parent)


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["IVF4,SQ8", "HNSW8"])
def test_changed_sizes_in_an_index_harm_nobody(tmp_path: Path, spec: str) -> None:
    path = write_index(tmp_path / "index", spec)
    data = path.read_bytes()
    rng = np.random.default_rng(4)
    for number in range(6):
        changed = bytearray(data)
        if number % 2:
            place = int(rng.integers(4, 200))
            struct.pack_into("<Q", changed, place, SIZES[int(rng.integers(0, len(SIZES)))])
        else:
            changed = bytearray(mutated(data, rng))
        path.write_bytes(changed)
        try:
            FaissBackend().open(path.parent).search(unit_vectors(3), 10)
        except LibraryError:
            continue


@pytest.mark.parametrize("name", ["/dev/zero", "../outside", "a/../../b", ""])
def test_a_manifest_names_no_file_outside_of_the_library(library: Path, name: str) -> None:
    stamp_again(library)
    manifest = read_snapshot_manifest(library, 1)
    changed = replace(manifest, files={**manifest.files, name: FileStamp("0" * 64, 0)})
    (snapshot_folder(library, 1) / MANIFEST_FILE).write_text(to_json(changed))
    with pytest.raises(
        LibraryError, match=r"files is no value that it can have|is no regular file|bytes, expected"
    ):
        Snapshot.open(library)


def test_a_pipe_or_a_device_in_a_library_is_not_read(library: Path) -> None:
    manifest = read_snapshot_manifest(library, 1)
    name = next(name for name in manifest.files if name.startswith("videos.lance/data"))
    replace_file(library, name, b"")
    (library / name).unlink()
    os.mkfifo(library / name)
    with pytest.raises(LibraryError, match="is no regular file"):
        Snapshot.open(library)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_segments", "many"),
        ("num_segments", -1),
        ("created", "yesterday"),
        ("media_roots", [1]),
        ("media_roots", None),
        ("tables", {"videos": "x"}),
        ("verdicts", []),
        ("files", {"a": {"sha256": 1, "bytes": 1}}),
        ("files", {"a": {}}),
        ("files", []),
        ("unknown", 1),
        ("index_backend", "evil"),
        ("index_backend", 5),
    ],
)
def test_values_of_a_manifest_of_another_kind(library: Path, field: str, value: object) -> None:
    from indexer.library.manifest import _checksum

    path = snapshot_folder(library, 1) / MANIFEST_FILE
    body = json.loads(path.read_text())
    body[field] = value
    del body["checksum"]
    path.write_text(json.dumps({"checksum": _checksum(body), **body}))
    with pytest.raises(LibraryError):
        Snapshot.open(library)


def test_a_table_that_names_files_elsewhere_is_refused(library: Path, tmp_path: Path) -> None:
    path = table_path(library, "videos")
    table = lance.dataset(str(path)).to_table()
    shutil.rmtree(path)
    elsewhere = lance.DatasetBasePath(str(tmp_path / "elsewhere"), "elsewhere")
    lance.write_dataset(
        table, str(path), initial_bases=[elsewhere], target_bases=["elsewhere"], mode="create"
    )
    stamp_again(library)
    with pytest.raises(LibraryError, match="names files outside of the library: do not use it"):
        Snapshot.open(library)


@pytest.mark.slow
def test_changed_bytes_in_any_file_end_in_an_error_or_in_nothing(toy: ToyLibrary, tmp_path: Path) -> None:
    """Some hundred mutations with checksums to match, all read in one process, which must survive."""
    rng = np.random.default_rng(11)
    names = sorted(read_snapshot_manifest(toy.library, 1).files)
    folders = []
    for number in range(240):
        library = Path(shutil.copytree(toy.library, tmp_path / "many" / str(number)))
        name = names[number % len(names)]
        if name.endswith(INDEX_FILE):  # has tests of its own, each with a process
            name = names[0]
        replace_file(library, name, mutated((library / name).read_bytes(), rng))
        folders.append(library)
    run = subprocess.run(
        [sys.executable, "-c", _READ_ALL, *map(str, folders)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    outcomes = Counter(line for line in run.stdout.splitlines() if not line.startswith("  "))
    assert run.returncode == 0, f"{outcomes}\n{run.stderr[-2000:]}"
    assert outcomes.total() == len(folders)
    assert set(outcomes) <= {"LibraryError", "not intact", "intact"}, outcomes
    assert outcomes["LibraryError"] > 20, outcomes


_READ_ALL = """
import sys
import numpy as np
from indexer.library.errors import LibraryError
from indexer.library.snapshot import Snapshot
from indexer.library.verify import verify_library
for folder in sys.argv[1:]:
    try:
        snapshot = Snapshot.open(folder)
        query = np.full((1, snapshot.embedding_dim), snapshot.embedding_dim**-0.5, np.float32)
        rows = snapshot.search(query, 3)[1][0]
        rows = rows[rows >= 0]
        for segment in snapshot.segments(rows):
            for frame_id in segment.frame_ids:
                snapshot.thumbnail(frame_id)
        snapshot.segment_frames(rows)
        snapshot.frame_tokens(rows, np.zeros(len(rows), np.int64))
        for video in snapshot.videos(0, 100):
            snapshot.label(video.video_id), snapshot.segment_rows(video.video_id), video.path
        outcome = "read"
    except LibraryError as error:
        outcome = "LibraryError"
    except BaseException as error:
        outcome = f"{type(error).__name__}: {error}"
    try:
        report = verify_library(folder)
    except LibraryError as error:
        report = None
    if outcome == "read":
        outcome = "intact" if report is not None and report.ok else "not intact"
    print(outcome, flush=True)
"""
