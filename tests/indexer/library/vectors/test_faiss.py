"""What FAISS does that other stores of vectors need not."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.library.errors import LibraryError
from indexer.library.vectors.base import ArrayVectors
from indexer.library.vectors.faiss import FLAT_LIMIT, FaissBackend
from tests.indexer.library.vectors.test_contract import unit_vectors

BACKEND = FaissBackend()


def test_too_few_vectors_to_train_give_an_exact_index() -> None:
    for count in (0, 1, 63):
        index, spec = BACKEND.build(ArrayVectors(unit_vectors(count, 1)), "IVF64,Flat")
        assert (index.num_rows, spec) == (count, "Flat")


def test_the_automatic_kind_is_exact_as_long_as_that_is_fast() -> None:
    assert BACKEND.automatic_spec(FLAT_LIMIT) == "Flat"
    assert BACKEND.automatic_spec(FLAT_LIMIT + 1) == "IVF2048,SQ8"
    assert BACKEND.automatic_spec(10**7) == "IVF16384,SQ8"


@pytest.mark.parametrize("spec", ["IVF8,SQ8,RFlat", "NSG16"])
def test_a_kind_that_cannot_search_among_chosen_rows_says_so(spec: str) -> None:
    vectors = unit_vectors(600, 1)
    index, built = BACKEND.build(ArrayVectors(vectors), spec)
    assert built == spec
    assert index.search(vectors[:2], 5)[1].shape == (2, 5)
    with pytest.raises(LibraryError, match=r"cannot search among chosen rows: .*--index-factory"):
        index.search(vectors[:2], 5, allowed=np.arange(100))


@pytest.mark.parametrize(
    ("spec", "least"), [("HNSW16", 1.0), ("HNSW16,SQ8", 0.95), ("IVF64,Flat", 0.95), ("SQ8", 0.95)]
)
def test_few_allowed_rows_are_found_as_well_as_many(spec: str, least: float) -> None:
    """Where a graph or a few lists alone would lose them: recall@20 of 6,000 vectors."""
    vectors, queries = unit_vectors(6000, 1), unit_vectors(30, 2)
    index, _ = BACKEND.build(ArrayVectors(vectors), spec)
    for count in (20, 60, 600, 3000):
        allowed = np.sort(np.random.default_rng(count).choice(len(vectors), count, replace=False))
        rows = index.search(queries, 20, allowed=allowed)[1]
        exact = allowed[np.argsort(-(queries @ vectors[allowed].T), axis=1)[:, :20]]
        recall = np.mean([np.isin(right, got).mean() for got, right in zip(rows, exact, strict=True)])
        assert recall >= least, count


def grow(
    backend: FaissBackend, folder: Path, kept: NDArray[np.int64], added: NDArray[np.float32]
) -> tuple[Path, bool]:
    """Save an index of what another one keeps and what is added. → Whether it was made from the other."""
    index = backend.open(folder)
    stored = index.vectors(np.arange(index.num_rows))
    assert stored is not None
    now = np.concatenate([stored[kept], added])
    changed = backend.extend(index, ArrayVectors(now), kept)
    target = folder.with_name(str(int(folder.name) + 1))
    target.mkdir()
    backend.save(changed or backend.build(ArrayVectors(now), "Flat")[0], target)
    return target, changed is not None


def test_a_small_change_writes_little(tmp_path: Path) -> None:
    """The file of the index is shared until much is beside it, or gone."""
    backend = FaissBackend(tail_rows=100)
    (tmp_path / "1").mkdir()
    backend.save(backend.build(ArrayVectors(unit_vectors(1000, 1)), "Flat")[0], tmp_path / "1")
    base = (tmp_path / "1" / "segments.faiss").stat().st_ino
    more = unit_vectors(400, 2)
    second, _ = grow(backend, tmp_path / "1", np.arange(1000), more[:60])
    third, _ = grow(backend, second, np.arange(1, 1060), more[60:90])
    for folder, names in (
        (second, ["segments-tail.faiss", "segments.faiss"]),
        (third, ["segments-gone.bits", "segments-tail.faiss", "segments.faiss"]),
    ):
        assert sorted(path.name for path in folder.iterdir()) == names
        assert (folder / "segments.faiss").stat().st_ino == base
    # More than 100 vectors beside the index: it is written with them.
    fourth, was_extended = grow(backend, third, np.arange(1089), more[90:101])
    assert was_extended
    assert sorted(path.name for path in fourth.iterdir()) == ["segments-gone.bits", "segments.faiss"]
    assert (fourth / "segments.faiss").stat().st_ino != base
    # More than a fifth is gone.
    fifth, was_extended = grow(backend, fourth, np.arange(250, 1100), more[:0])
    assert not was_extended
    assert [path.name for path in fifth.iterdir()] == ["segments.faiss"]


def test_snapshots_in_use_share_what_their_indexes_share(tmp_path: Path) -> None:
    backend = FaissBackend(tail_rows=100)
    (tmp_path / "1").mkdir()
    backend.save(backend.build(ArrayVectors(unit_vectors(1000, 1)), "Flat")[0], tmp_path / "1")
    second, _ = grow(backend, tmp_path / "1", np.arange(1000), unit_vectors(60, 2))
    first = backend.open(tmp_path / "1")
    assert backend.open(second).base is first.base
    assert FaissBackend().open(second).base is not first.base
    # The snapshot that it was read from is removed: the next one has the vectors still.
    backend.drop(tmp_path / "1")
    third, _ = grow(backend, second, np.arange(1060), unit_vectors(3, 3))
    assert FaissBackend().open(third).num_rows == 1063


def test_lists_that_do_not_suit_new_vectors_are_made_anew() -> None:
    backend = FaissBackend(tail_rows=100)
    rng = np.random.default_rng(4)

    def around(centres: NDArray[np.float64], count: int) -> NDArray[np.float32]:
        points = centres[rng.integers(0, len(centres), count)] + 0.05 * rng.normal(size=(count, 24))
        unit: NDArray[np.float32] = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(
            np.float32
        )
        return unit

    centres = rng.normal(size=(256, 24))
    known = around(centres, 8000)
    index, spec = backend.build(ArrayVectors(known), "IVF256,Flat")
    assert spec == "IVF256,Flat"
    alike = np.concatenate([known, around(centres, 2000)])
    assert backend.extend(index, ArrayVectors(alike)) is not None
    elsewhere = np.concatenate([known, around(rng.normal(size=(2000, 24)), 2000)])
    assert backend.extend(index, ArrayVectors(elsewhere)) is None


@pytest.mark.parametrize("damage", ["fewer", "more", "tail of another size", "tail of another kind"])
def test_damaged_parts_are_refused(tmp_path: Path, damage: str) -> None:
    backend = FaissBackend(tail_rows=100)
    (tmp_path / "1").mkdir()
    backend.save(backend.build(ArrayVectors(unit_vectors(1000, 1)), "Flat")[0], tmp_path / "1")
    folder, _ = grow(backend, tmp_path / "1", np.arange(1, 1000), unit_vectors(60, 2))
    tail, gone = folder / "segments-tail.faiss", folder / "segments-gone.bits"
    other, kind = (np.eye(8, dtype=np.float32), "Flat") if "size" in damage else (unit_vectors(60, 2), "SQ8")
    if damage == "fewer":
        gone.write_bytes(gone.read_bytes()[:-1])
    elif damage == "more":
        gone.write_bytes(gone.read_bytes()[:-1] + b"\xff")
    else:
        (tmp_path / "other").mkdir()
        backend.save(backend.build(ArrayVectors(other), kind)[0], tmp_path / "other")
        (tmp_path / "other" / "segments.faiss").replace(tail)
    with pytest.raises(LibraryError, match=r"segments-(tail|gone).*library verify"):
        FaissBackend().open(folder)
