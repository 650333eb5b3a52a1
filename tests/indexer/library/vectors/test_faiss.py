"""What FAISS does that other stores of vectors need not."""

import numpy as np
import pytest

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
