"""Compares FAISS index types with exact search, on synthetic clustered vectors.

Legend of shapes: V vectors, Q queries, D joint space, K results.
"""

import time

import numpy as np
from numpy.typing import NDArray

from indexer.library.vectors.base import ArrayVectors, VectorIndex
from indexer.library.vectors.faiss import FaissBackend
from service.bench.figures import Figure, Section, milliseconds, ratios

RECALL_AT = 100
# The length of the noise added to a cluster's unit-length centre: members are about 60° apart.
_SPREAD = 1.0
_CLUSTER_SIZE = 500
# FAISS warns about fewer training vectors.
_TRAINING_PER_LIST = 39


def clustered_vectors(
    count: int, queries: int, dim: int, *, clusters: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Unit vectors around random centres: a corpus [V, D], and queries [Q, D] from the same clusters."""
    rng = np.random.default_rng(seed)
    centres = _unit(rng.standard_normal((clusters, dim), np.float32))
    members = rng.integers(0, clusters, count + queries)
    noise = rng.standard_normal((count + queries, dim), np.float32) * np.float32(_SPREAD / np.sqrt(dim))
    points = _unit(centres[members] + noise)
    return points[:count], points[count:]


def recall(approximate: NDArray[np.int64], exact: NDArray[np.int64]) -> float:
    """The share of the exact neighbours [Q, K] that are among the approximate ones [Q, K]."""
    hits = [np.intersect1d(a, b).size for a, b in zip(approximate, exact, strict=True)]
    return float(np.sum(hits)) / exact.size


def index_kinds(count: int) -> tuple[str, ...]:
    """The `index_factory` strings that are compared on `count` vectors."""
    lists = 2 ** round(np.log2(4 * np.sqrt(count)))
    while lists * _TRAINING_PER_LIST > count:
        lists //= 2
    return ("Flat", "SQ8", "HNSW32", f"IVF{lists},Flat", f"IVF{lists},SQ8")


def measure_faiss(count: int, queries: int, dim: int, repeats: int) -> list[Figure]:
    """Recall@100 and the time of a query, relative to exact search, of every kind of index.

    The indexer's own code builds each index and sets its search effort. Queries are sent one at a time, as by
    the service. In every repetition, all kinds take turns.
    """
    corpus, query_vectors = clustered_vectors(
        count, queries, dim, clusters=max(1, count // _CLUSTER_SIZE), seed=7
    )
    kinds = index_kinds(count)
    backend, vectors = FaissBackend(), ArrayVectors(corpus)
    exact, *indexes = (backend.build(vectors, kind)[0] for kind in ("Flat", *kinds))
    _, exact_rows = exact.search(query_vectors, RECALL_AT)
    exact_seconds: list[float] = []
    seconds: list[list[float]] = [[] for _ in indexes]
    for _ in range(repeats):
        exact_seconds.append(_time_queries(exact, query_vectors))
        for index, times in zip(indexes, seconds, strict=True):
            times.append(_time_queries(index, query_vectors))
    figures = [
        Figure(
            Section.FAISS,
            "exact: time of a query",
            milliseconds(exact_seconds),
            "ms",
            note=f"{count:,} vectors of {dim} in clusters, {queries} queries one at a time, top {RECALL_AT}",
        )
    ]
    for kind, index, times in zip(kinds, indexes, seconds, strict=True):
        share = recall(index.search(query_vectors, RECALL_AT)[1], exact_rows)
        figures.append(Figure(Section.FAISS, f"{kind}: recall@{RECALL_AT}", (share,)))
        figures.append(
            Figure(Section.FAISS, f"{kind}: time of a query ÷ exact", ratios(times, exact_seconds))
        )
    return figures


def _time_queries(index: VectorIndex, query_vectors: NDArray[np.float32]) -> float:
    started = time.perf_counter()
    for row in range(len(query_vectors)):
        index.search(query_vectors[row : row + 1], RECALL_AT)
    return (time.perf_counter() - started) / len(query_vectors)


def _unit(points: NDArray[np.float32]) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = points / np.linalg.norm(points, axis=1, keepdims=True)
    return scaled
