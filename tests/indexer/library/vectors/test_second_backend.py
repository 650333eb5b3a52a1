"""Libraries whose vectors FAISS does not store: indexed, searched, extended, verified and pruned as usual."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.library.errors import LibraryError
from indexer.library.manifest import read_snapshot_manifest, snapshot_numbers
from indexer.library.snapshot import Snapshot
from indexer.library.switching import rollback
from indexer.library.vectors.base import AnyBackend
from indexer.library.vectors.registry import BACKENDS
from indexer.library.verify import verify_library
from indexer.options import IndexOptions
from indexer.run import index_paths
from model.runtime.bundle import Bundle
from model.runtime.errors import InputError
from service.live import open_searcher
from service.settings import load_settings
from tests.support.numpy_vectors import NumpyBackend, ShelfBackend
from tests.support.toy_bundle import COLOURS, text_embedding


@pytest.fixture(params=["numpy", "shelf"])
def backend(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AnyBackend:
    backend = NumpyBackend() if request.param == "numpy" else ShelfBackend(tmp_path / "shelf")
    monkeypatch.setitem(BACKENDS, backend.name, backend)
    return backend


def run(bundle: Bundle, library: Path, films: list[Path], **options: Any) -> None:
    chosen = IndexOptions(**{"workers": 0, **options})
    index_paths(films, library, bundle, chosen, lambda _: None)


def answers(library: Path) -> dict[str, list[tuple[str, float]]]:
    """What each colour finds: names without the rows, which two libraries need not share."""
    snapshot = Snapshot.open(library)
    found: dict[str, list[tuple[str, float]]] = {}
    for colour in COLOURS:
        scores, rows = snapshot.search(text_embedding(colour)[None], 100)
        videos = [snapshot.video(segment.video_id) for segment in snapshot.segments(rows[0])]
        names = [video.file.stem for video in videos if video is not None]
        found[colour] = sorted(zip(names, scores[0].round(4).tolist(), strict=True))
    return found


def test_it_answers_as_faiss_does(
    backend: AnyBackend, bundle: Bundle, films: list[Path], tmp_path: Path
) -> None:
    run(bundle, tmp_path / "library", films[:5], index_backend=backend.name)
    # The next run goes on with the library's backend.
    run(bundle, tmp_path / "library", films)
    run(bundle, tmp_path / "faiss", films)
    assert answers(tmp_path / "library") == answers(tmp_path / "faiss")

    manifest = read_snapshot_manifest(tmp_path / "library", 2)
    assert (manifest.index_backend, manifest.index_factory) == (backend.name, "exact")
    assert manifest.index_requested == "auto"
    assert verify_library(tmp_path / "library").ok
    assert not list((tmp_path / "library").rglob("*.faiss"))

    for library in ("library", "faiss"):
        settings = load_settings({"library": tmp_path / library, "bundle": bundle.folder})
        searcher = open_searcher(settings)
        hits = searcher.search("a green thing", 3).hits
        assert hits[0].path.endswith("green.mp4")
        assert searcher.search("a green thing", 3).reranked
        searcher.match_queue.close()


def test_it_searches_among_chosen_segments(
    backend: AnyBackend, bundle: Bundle, films: list[Path], tmp_path: Path
) -> None:
    for name in (backend.name, "faiss"):
        library = tmp_path / f"{name} library"
        run(bundle, library, films, index_backend=name)
        snapshot = Snapshot.open(library)
        green = text_embedding("green")[None]
        (best, *_others), allowed = snapshot.search(green, 8)[1][0], np.arange(8)
        rows = snapshot.search(green, 8, allowed=allowed[allowed != best])[1]
        assert sorted(rows[0]) == [row for row in range(8) if row != best]
        with pytest.raises(ValueError, match=r"allowed row 8 is not in 0\.\.7"):
            snapshot.search(green, 8, allowed=np.array([1, 8]))


def test_changing_the_backend_makes_the_index_anew(
    backend: AnyBackend, bundle: Bundle, films: list[Path], tmp_path: Path
) -> None:
    library = tmp_path / "library"
    run(bundle, library, films, index_factory="Flat")
    before = answers(library)
    for number, name in ((2, backend.name), (3, "faiss")):
        run(bundle, library, films, index_backend=name)
        manifest = read_snapshot_manifest(library, number)
        # What was asked of one backend is nothing to another.
        assert (manifest.index_backend, manifest.index_requested) == (name, "auto")
        assert answers(library) == before
        assert verify_library(library).ok
        for again in (name, None):
            run(bundle, library, films, index_backend=again)
            assert snapshot_numbers(library)[-1] == number, "nothing has changed"
    assert rollback(library) == 2
    assert answers(library) == before


def test_old_and_unfinished_indexes_are_dropped(
    backend: AnyBackend, bundle: Bundle, films: list[Path], tmp_path: Path
) -> None:
    library, shelf = tmp_path / "library", tmp_path / "shelf"
    for count in range(1, 5):
        run(bundle, library, films[:count], index_backend=backend.name, keep_snapshots=2, keep_seconds=0.0)
    assert snapshot_numbers(library) == [3, 4]
    assert len(list(tmp_path.rglob("*.npy"))) == 2
    # A kill while a snapshot is written, and while one is removed.
    index = backend.open(library / "snapshots/4")
    for leftover in (".5.new", ".1.removed"):
        (library / "snapshots" / leftover).mkdir()
        backend.save(index, library / "snapshots" / leftover)
    assert len(list(tmp_path.rglob("*.npy"))) == 4
    run(bundle, library, films[:4])
    assert len(list(tmp_path.rglob("*.npy"))) == 2
    assert not shelf.exists() or len(list(shelf.iterdir())) == 2
    assert verify_library(library).ok


def test_a_damaged_index_is_named_and_made_anew(
    backend: AnyBackend, bundle: Bundle, films: list[Path], tmp_path: Path
) -> None:
    library = tmp_path / "library"
    run(bundle, library, films, index_backend=backend.name)
    before = answers(library)
    (name,) = read_snapshot_manifest(library, 1).index_files
    content = (library / name).read_bytes()
    (library / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(LibraryError, match=rf"{name} is damaged: its SHA-256 differs"):
        Snapshot.open(library)
    report = verify_library(library)
    assert report.remedy == f"only {name} is damaged: `reelfind index` rebuilds it from the tables"
    run(bundle, library, films)
    assert read_snapshot_manifest(library, 2).index_backend == backend.name
    assert answers(library) == before
    assert verify_library(library).ok


def test_verify_asks_the_backend(
    backend: AnyBackend, bundle: Bundle, films: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(bundle, tmp_path / "library", films, index_backend=backend.name)
    (file,) = tmp_path.rglob("*.npy")
    vectors = np.load(file)
    vectors[3, 0] += 1e-3
    np.save(file, vectors)
    (report,) = verify_library(tmp_path / "library").snapshots
    (problem,) = report.problems
    if backend.name == "numpy":
        assert problem.endswith("vectors.npy: its SHA-256 differs")
    else:
        assert problem.endswith(f"the index holds other vectors than {tmp_path / 'library/segments.lance'}")


def test_what_the_backend_cannot_be_or_do(
    backend: AnyBackend, bundle: Bundle, films: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "library"
    with pytest.raises(
        InputError,
        match=f"index_backend is 'milk': it must be one of faiss, lance, milvus, {backend.name}, or auto",
    ):
        run(bundle, library, films, index_backend="milk")
    with pytest.raises(InputError, match="index factory 'Flat' is not one: use 'exact', or 'auto'"):
        run(bundle, library, films, index_backend=backend.name, index_factory="Flat")
    with pytest.raises(InputError, match="index factory 'exact' is invalid for 8 dimensions"):
        run(bundle, library, films, index_factory="exact")
    assert not library.exists()

    run(bundle, library, films, index_backend=backend.name)
    with pytest.raises(InputError, match="index factory 'Flat' is not one: use 'exact', or 'auto'"):
        run(bundle, library, films, index_factory="Flat")
    # A program without the backend.
    monkeypatch.delitem(BACKENDS, backend.name)
    for use in (lambda: Snapshot.open(library), lambda: run(bundle, library, films)):
        with pytest.raises(
            LibraryError, match=f"stored by '{backend.name}', this program knows faiss, lance, milvus: use"
        ):
            use()


def test_a_manifest_of_a_faiss_library_is_as_it_always_was(
    bundle: Bundle, films: list[Path], tmp_path: Path
) -> None:
    run(bundle, tmp_path / "library", films[:2])
    body = json.loads((tmp_path / "library/snapshots/1/manifest.json").read_text())
    assert list(body) == [
        "checksum",
        "format_version",
        "number",
        "created",
        "bundle_name",
        "bundle_checksum",
        "embedding_dim",
        "salience_dim",
        "num_videos",
        "num_segments",
        "num_frames",
        "verdicts",
        "index_factory",
        "index_requested",
        "tables",
        "media_roots",
        "files",
    ]
    assert next(iter(body["files"])) == "snapshots/1/segments.faiss"
    assert read_snapshot_manifest(tmp_path / "library", 1).index_backend == "faiss"
