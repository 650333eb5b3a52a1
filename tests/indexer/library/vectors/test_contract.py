"""What every store of vectors promises, whichever it is: `indexer.library.vectors.base`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.library.errors import LibraryError, NotFiniteError
from indexer.library.vectors.base import AnyBackend, ArrayVectors, VectorIndex, shared_folder
from indexer.library.vectors.faiss import FaissBackend
from indexer.library.vectors.lance import LanceBackend
from indexer.library.vectors.milvus import MilvusBackend
from model.runtime.errors import InputError
from tests.support.milvus import WHOLE_SERVER, lite_server, whole_server
from tests.support.numpy_vectors import NumpyBackend

DIM = 24
NUM_ROWS = 1500
NUM_QUERIES = 12


@dataclass(frozen=True)
class Case:
    """A backend with one of its specs.

    `exact`: it finds the true neighbours. `keeps`: it can give back the vectors as they were.
    """

    backend: AnyBackend
    spec: str
    exact: bool
    keeps: bool
    bad_spec: str

    def build(self, vectors: NDArray[np.float32], folder: Path) -> VectorIndex:
        index: VectorIndex
        index, spec = self.backend.build(ArrayVectors(vectors), self.spec, folder)
        assert spec == self.spec
        return index


FAISS, LANCE, MILVUS = FaissBackend(), LanceBackend(), MilvusBackend(lite_server)
#: Of more vectors beside the index than this one writes a new index.
PARTS = FaissBackend(tail_rows=300)
CASES = {
    "numpy": Case(NumpyBackend(), "exact", True, True, "Flat"),
    "Flat": Case(FAISS, "Flat", True, True, "Plane"),
    # It searches 8 lists at least: all of them.
    "IVF8,Flat": Case(FAISS, "IVF8,Flat", True, False, "IVF8,Plane"),
    "IVF64,SQ8": Case(FAISS, "IVF64,SQ8", False, False, "IVF,SQ8"),
    "HNSW16": Case(FAISS, "HNSW16", False, False, "HNSW16,Plane"),
    "RR24,HNSW16": Case(FAISS, "RR24,HNSW16", False, False, "RR24"),
    "Flat in parts": Case(PARTS, "Flat", True, True, "Plane"),
    "IVF64,SQ8 in parts": Case(PARTS, "IVF64,SQ8", False, False, "IVF,SQ8"),
    "RR24,HNSW16 in parts": Case(PARTS, "RR24,HNSW16", False, False, "RR24"),
    "Lance Flat": Case(LANCE, "Flat", True, True, "HNSW16"),
    "Lance IVF32,SQ8": Case(LANCE, "IVF32,SQ8", False, True, "IVF0,SQ8"),
    "Milvus Flat": Case(MILVUS, "Flat", True, True, "HNSW16"),
    "Milvus IVF32,SQ8": Case(MILVUS, "IVF32,SQ8", False, True, "IVF65537,SQ8"),
}
if WHOLE_SERVER:
    WHOLE = MilvusBackend(whole_server)
    CASES = {
        "Milvus server Flat": Case(WHOLE, "Flat", True, True, "HNSW16"),
        "Milvus server IVF32,SQ8": Case(WHOLE, "IVF32,SQ8", False, True, "IVF65537,SQ8"),
    }


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def unit_vectors(count: int, seed: int) -> NDArray[np.float32]:
    """Around 20 centres, in 12 of the dimensions, so that compressing loses little; near vectors differ."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(20, 12))
    points = np.zeros((count, DIM), np.float32)
    points[:, ::2] = centres[rng.integers(0, 20, count)] + 0.7 * rng.normal(size=(count, 12))
    lengths: NDArray[np.float32] = np.linalg.norm(points, axis=1, keepdims=True)
    return points / lengths


@pytest.fixture(scope="module")
def vectors() -> NDArray[np.float32]:
    return unit_vectors(NUM_ROWS, 1)


def new_folder(library: Path, name: str = "1") -> Path:
    """The folder of a snapshot in a library."""
    folder = library / "snapshots" / name
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a snapshot in a library of its own."""
    return new_folder(tmp_path)


@pytest.fixture(scope="module")
def index(case: Case, vectors: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory) -> VectorIndex:
    """Of all vectors; nothing extends or saves it."""
    return case.build(vectors, new_folder(tmp_path_factory.mktemp("library")))


@pytest.fixture(scope="module")
def queries() -> NDArray[np.float32]:
    return unit_vectors(NUM_QUERIES, 2)


def nearest(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int, allowed: NDArray[np.int64]
) -> list[list[int]]:
    """The naive twin: every query and every allowed row in a loop."""
    return [sorted(allowed.tolist(), key=lambda row: -float(vectors[row] @ query))[:k] for query in queries]


def recall(rows: NDArray[np.int64], expected: list[list[int]]) -> float:
    return float(np.mean([np.isin(right, got).mean() for got, right in zip(rows, expected, strict=True)]))


def check_ranking(
    scores: NDArray[np.float32],
    rows: NDArray[np.int64],
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    atol: float = 0.02,
) -> None:
    """Of what every search returns: types, order, distinct rows, true scores."""
    assert (scores.dtype, rows.dtype) == (np.dtype(np.float32), np.dtype(np.int64))
    for query, row_scores, found in zip(queries, scores, rows, strict=True):
        reached = found >= 0
        assert not reached[np.argmin(reached) :].any() or reached.all(), "-1 comes last"
        assert (np.diff(row_scores[reached]) <= 0).all()
        assert len(set(found[reached])) == reached.sum()
        # A compressing index knows its vectors about.
        np.testing.assert_allclose(row_scores[reached], vectors[found[reached]] @ query, atol=atol)


@pytest.mark.parametrize("k", [1, 10, 100])
@pytest.mark.parametrize("batch", [1, NUM_QUERIES])
def test_a_search_finds_what_the_naive_twin_finds(
    case: Case,
    index: VectorIndex,
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    k: int,
    batch: int,
) -> None:
    assert (index.num_rows, index.dim) == (NUM_ROWS, DIM)
    parts = [index.search(queries[i : i + batch], k) for i in range(0, NUM_QUERIES, batch)]
    scores, rows = (np.concatenate(each) for each in zip(*parts, strict=True))
    assert scores.shape == rows.shape == (NUM_QUERIES, k)
    check_ranking(scores, rows, vectors, queries)
    expected = nearest(vectors, queries, k, np.arange(NUM_ROWS))
    if case.exact:
        assert rows.tolist() == expected
    else:
        assert recall(rows, expected) > 0.8


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5, 0.99])
def test_only_allowed_rows_are_found(
    case: Case, index: VectorIndex, vectors: NDArray[np.float32], queries: NDArray[np.float32], share: float
) -> None:
    allowed = np.sort(np.random.default_rng(3).choice(NUM_ROWS, round(NUM_ROWS * share), replace=False))
    scores, rows = index.search(queries, 20, allowed=allowed)
    assert scores.shape == rows.shape == (NUM_QUERIES, min(20, len(allowed)))
    assert np.isin(rows, [-1, *allowed]).all()
    check_ranking(scores, rows, vectors, queries)
    expected = nearest(vectors, queries, 20, allowed)
    if case.exact:
        assert rows.tolist() == expected
    else:
        assert recall(rows, expected) >= 0.95


def test_allowed_rows_far_from_the_query_are_found(
    case: Case, index: VectorIndex, vectors: NDArray[np.float32], queries: NDArray[np.float32]
) -> None:
    """The hardest set for an approximate index: the neighbours of another query."""
    shares = []
    for query, other in zip(queries, queries[::-1], strict=True):
        allowed = np.sort(np.argsort(-(vectors @ other))[:50])
        rows = index.search(query[None], 10, allowed=allowed)[1]
        assert np.isin(rows, allowed).all()
        shares.append(recall(rows, nearest(vectors, query[None], 10, allowed)))
    assert np.mean(shares) >= (1.0 if case.exact else 0.95)


def test_more_results_than_rows(
    case: Case, index: VectorIndex, vectors: NDArray[np.float32], queries: NDArray[np.float32]
) -> None:
    scores, rows = index.search(queries, 10 * NUM_ROWS)
    assert scores.shape == rows.shape == (NUM_QUERIES, NUM_ROWS)
    check_ranking(scores, rows, vectors, queries)
    rows = index.search(queries, 5, allowed=np.array([7, 70, 700]))[1]
    assert rows.shape == (NUM_QUERIES, 3)
    assert np.isin(rows, [7, 70, 700]).all()
    rows = index.search(queries, 5, allowed=np.arange(NUM_ROWS))[1]
    assert rows.shape == (NUM_QUERIES, 5)


@pytest.mark.parametrize("allowed", [[3, 2], [2, 2], [-1, 4], [4, NUM_ROWS], [[1, 2]], [1.0, 2.0]], ids=str)
def test_allowed_rows_that_cannot_be_are_refused(
    index: VectorIndex, queries: NDArray[np.float32], allowed: list[Any]
) -> None:
    with pytest.raises(ValueError, match="allowed row"):
        index.search(queries, 5, allowed=np.array(allowed))


def test_none_allowed_and_none_there(
    case: Case, index: VectorIndex, vectors: NDArray[np.float32], queries: NDArray[np.float32], folder: Path
) -> None:
    scores, rows = index.search(queries, 5, allowed=np.empty(0, np.int64))
    assert scores.shape == rows.shape == (NUM_QUERIES, 0)

    # An empty index may be of another, exact kind: there is nothing to train.
    empty, spec = case.backend.build(ArrayVectors(vectors[:0]), case.spec, folder)
    case.backend.check_spec(spec, DIM)
    case.backend.save(empty, folder)
    for each in (empty, case.backend.open(folder)):
        assert (each.num_rows, each.dim) == (0, DIM)
        scores, rows = each.search(queries, 5)
        assert scores.shape == rows.shape == (NUM_QUERIES, 0)
        assert (scores.dtype, rows.dtype) == (np.dtype(np.float32), np.dtype(np.int64))
        assert case.backend.verify(each, ArrayVectors(vectors[:0])) is None
    with pytest.raises(ValueError, match="k is 0"):
        each.search(queries, 0)


def test_an_opened_index_is_the_saved_one(
    case: Case, vectors: NDArray[np.float32], queries: NDArray[np.float32], tmp_path: Path
) -> None:
    folder = new_folder(tmp_path, ".1.new")
    index = case.build(vectors, folder)
    files = case.backend.save(index, folder)
    own = {path for path in files if path.is_relative_to(folder)}
    assert set(folder.iterdir()) == own
    assert all(path.is_file() and path.is_relative_to(shared_folder(folder)) for path in set(files) - own)
    # A snapshot's folder gets its name when it is complete.
    opened = case.backend.open(folder.rename(folder.with_name("1")))
    assert (opened.num_rows, opened.dim) == (NUM_ROWS, DIM)
    for allowed in (None, np.arange(0, NUM_ROWS, 7)):
        for left, right in zip(
            index.search(queries, 20, allowed=allowed),
            opened.search(queries, 20, allowed=allowed),
            strict=True,
        ):
            np.testing.assert_array_equal(left, right)


def test_an_index_gives_its_vectors_back_or_says_that_it_cannot(
    case: Case, index: VectorIndex, vectors: NDArray[np.float32]
) -> None:
    rows = np.array([5, 0, NUM_ROWS - 1, 5])
    if case.keeps:
        np.testing.assert_array_equal(index.vectors(rows), vectors[rows])
        for wrong in (-1, NUM_ROWS):
            with pytest.raises(ValueError, match=r"not in 0\.\."):
                index.vectors(np.array([0, wrong]))
    else:
        assert index.vectors(rows) is None


def test_an_extended_index_is_a_built_one(
    case: Case, vectors: NDArray[np.float32], queries: NDArray[np.float32], tmp_path: Path
) -> None:
    folder = new_folder(tmp_path)
    case.backend.save(case.build(vectors[:1000], folder), folder)
    grown = case.backend.open(folder)
    for count in (1000, 1001, NUM_ROWS):
        before, grown = grown, case.backend.extend(grown, ArrayVectors(vectors[:count]))
        assert grown is not None
        assert grown.num_rows == count
        assert case.backend.verify(grown, ArrayVectors(vectors[:count])) is None
        # A searcher may still have the one before.
        assert case.backend.verify(before, ArrayVectors(vectors[: before.num_rows])) is None
    scores, rows = grown.search(queries, 20)
    check_ranking(scores, rows, vectors, queries)
    if case.exact:
        built = case.build(vectors, new_folder(tmp_path, "2")).search(queries, 20)
        assert rows.tolist() == built[1].tolist()
        np.testing.assert_allclose(scores, built[0], atol=1e-6)
    else:
        assert recall(rows, nearest(vectors, queries, 20, np.arange(NUM_ROWS))) > 0.8


def test_an_index_of_which_rows_come_and_go_is_a_built_one(
    case: Case, vectors: NDArray[np.float32], queries: NDArray[np.float32], tmp_path: Path
) -> None:
    """Videos are replaced and removed: each snapshot's index is made from that of the one before."""
    rng = np.random.default_rng(6)
    now, extended = vectors[:1000], 0
    index = case.build(now, new_folder(tmp_path, "first"))
    for step, (num_gone, num_added) in enumerate(
        [(1, 1), (0, 40), (30, 0), (1, 300), (90, 2), (2, 20), (3, 0)]
    ):
        if step % 2:
            folder = new_folder(tmp_path, str(step))
            case.backend.save(index, folder)
            index = case.backend.open(folder)
        # What was added last often goes first.
        newest = np.arange(len(now) - 5, len(now))
        gone = np.union1d(rng.choice(len(now), num_gone, replace=False), newest[: num_gone // 2])
        kept = np.setdiff1d(np.arange(len(now)), gone)
        now = np.concatenate([now[kept], unit_vectors(num_added, 10 + step)])
        changed = case.backend.extend(index, ArrayVectors(now), kept)
        extended += changed is not None
        index = changed or case.build(now, new_folder(tmp_path, f"{step} anew"))
        assert case.backend.verify(index, ArrayVectors(now)) is None
        every = np.arange(len(now))
        for allowed in (None, every[::3], every[-50:], every[:900]):
            scores, rows = index.search(queries, 30, allowed=allowed)
            expected = nearest(now, queries, 30, every if allowed is None else allowed)
            assert rows.shape == (NUM_QUERIES, 30)
            # Numbers beyond those that an index was trained with are cut.
            check_ranking(scores, rows, now, queries, atol=0.1 if "SQ8" in case.spec else 0.02)
            assert allowed is None or np.isin(rows, [-1, *allowed]).all()
            if case.exact:
                assert rows.tolist() == expected
            else:
                assert recall(rows, expected) > 0.8
        if case.keeps:
            np.testing.assert_array_equal(index.vectors(every), now)
    # An index as small as most of these is built anew where rows are gone.
    assert extended >= (6 if case.backend is PARTS else 1)


def test_an_index_of_other_vectors_is_noticed(
    case: Case, index: VectorIndex, vectors: NDArray[np.float32]
) -> None:
    assert case.backend.verify(index, ArrayVectors(vectors)) is None
    fault = case.backend.verify(index, ArrayVectors(vectors[:-1], "the table"))
    assert fault is not None
    assert "the table" in fault
    if case.keeps:
        for row in (0, NUM_ROWS - 1):
            other = vectors.copy()
            other[row, 3] += 1e-6
            fault = case.backend.verify(index, ArrayVectors(other, "the table"))
            assert fault == "the index holds other vectors than the table"


@pytest.mark.parametrize("damage", ["cut", "noise", "empty", "gone"])
def test_a_damaged_index_is_a_library_error(
    case: Case, vectors: NDArray[np.float32], folder: Path, damage: str
) -> None:
    for path in case.backend.save(case.build(vectors, folder), folder):
        if not path.is_relative_to(folder):
            # Whoever opens a snapshot compares the sizes of shared files first.
            continue
        content = path.read_bytes()
        if damage == "gone":
            path.unlink()
        else:
            damaged = {"cut": content[:-40], "noise": b"noise" + content[5:], "empty": b""}
            path.write_bytes(damaged[damage])
    with pytest.raises(LibraryError, match=str(folder)):
        case.backend.open(folder)


def test_drop_removes_what_was_saved(
    case: Case, vectors: NDArray[np.float32], queries: NDArray[np.float32], tmp_path: Path
) -> None:
    first, second = new_folder(tmp_path, "1"), new_folder(tmp_path, "2")
    (first / "manifest.json").write_text("{}")
    case.backend.drop(first)
    case.backend.save(case.build(vectors[:1000], first), first)
    assert len(list(first.iterdir())) > 1
    # What a later snapshot shares with this one stays.
    later = case.backend.extend(case.backend.open(first), ArrayVectors(vectors))
    assert later is not None
    case.backend.save(later, second)
    found = later.search(queries, 20)
    for _ in range(2):
        case.backend.drop(first)
        assert [path.name for path in first.iterdir()] == ["manifest.json"]
    with pytest.raises(LibraryError):
        case.backend.open(first)
    np.testing.assert_array_equal(case.backend.open(second).search(queries, 20), found)
    case.backend.drop(second)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [first / "manifest.json"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_refused(
    case: Case, vectors: NDArray[np.float32], folder: Path, value: float
) -> None:
    for row in (0, NUM_ROWS - 1):
        wrong = vectors.copy()
        wrong[row, 2] = value
        with pytest.raises(NotFiniteError, match="the table holds embeddings that are not finite"):
            case.backend.build(ArrayVectors(wrong, "the table"), case.spec, folder)
    grown = case.build(vectors[:1000], folder)
    with pytest.raises(NotFiniteError, match="the table holds embeddings that are not finite"):
        case.backend.extend(grown, ArrayVectors(wrong, "the table"))


def test_specs_are_checked(case: Case) -> None:
    case.backend.check_spec(case.spec, DIM)
    for count in (0, 1, 10**6):
        case.backend.check_spec(case.backend.automatic_spec(count), DIM)
    with pytest.raises(InputError, match=f"index factory '{case.bad_spec}'"):
        case.backend.check_spec(case.bad_spec, DIM)
