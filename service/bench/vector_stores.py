"""Compares the backends of vectors: building, publishing a small change, searching, memory.

Legend of shapes: V vectors, Q queries, D joint space, K results.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.library.vectors.base import AnyBackend, ArrayVectors, VectorIndex
from indexer.library.vectors.registry import BACKENDS, available_backends
from model.runtime.errors import ReelfindError
from model.runtime.files import sha256_of
from service.bench.ann import RECALL_AT, clustered_vectors
from service.bench.figures import Grid, Section

#: The segments of one video that comes, and of one that goes.
_VIDEO_SEGMENTS = 100
_CLUSTER_SIZE = 500
_ALLOWED_SHARE = 0.1
_SCORED_ROWS = 65_536
_MEBIBYTE = 1 << 20
_COLUMNS = (
    "backend",
    "kind",
    "build s",
    "disk MiB",
    "video added: s",
    "MiB written",
    "video removed: s",
    "MiB written ",
    "open s",
    "query ms",
    f"recall@{RECALL_AT}",
    f"query ms, {_ALLOWED_SHARE:.0%} allowed",
    f"recall@{RECALL_AT}, {_ALLOWED_SHARE:.0%} allowed",
    "memory MiB",
)


@dataclass
class _Change:
    """What a publication took."""

    seconds: float = 0.0
    written: int = 0


def measure_stores(count: int, queries: int, dim: int, backends: tuple[str, ...] = ()) -> Grid:
    """A row for each backend, with its automatic kind of index.

    A publication opens the last snapshot's index, changes it, saves it and hashes what is new. Queries are
    sent one at a time by a process of its own, of which the memory is what it has more than before it opened
    the index: Lance reads from the disk what it has not kept, and the system's cache does not count.

    Args:
        count: V, how many vectors there are.
        queries: Q, how many queries are sent.
        dim: D, the size of a vector.
        backends: the names of those to compare; none: all, Milvus only where the environment names a server.

    Raises:
        ReelfindError: a search fails.
    """
    corpus, asked = clustered_vectors(
        count + _VIDEO_SEGMENTS, queries, dim, clusters=max(1, count // _CLUSTER_SIZE), seed=7
    )
    allowed = np.sort(
        np.random.default_rng(3).choice(count, max(1, round(count * _ALLOWED_SHARE)), replace=False)
    )
    first = corpus[:count]
    question = {
        "queries": asked,
        "allowed": allowed,
        "nearest": nearest_rows(first, asked, np.arange(count)),
        "nearest_allowed": nearest_rows(first, asked, allowed),
    }
    rows = []
    for name in backends or available_backends():
        with tempfile.TemporaryDirectory() as folder:
            np.savez(Path(folder) / "question.npz", **question)  # type: ignore[arg-type]
            rows.append(_row(BACKENDS[name], Path(folder), first, corpus))
    return Grid(
        Section.VECTORS,
        _COLUMNS,
        tuple(rows),
        note=f"{count:,} vectors of {dim} in clusters, {queries} queries one at a time; "
        f"a video of {_VIDEO_SEGMENTS} segments",
    )


def nearest_rows(
    corpus: NDArray[np.float32], queries: NDArray[np.float32], rows: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The nearest of some rows [V] to each query, in no order: int64 [Q, K]."""
    scores: NDArray[np.float32] = np.empty((len(queries), 0), np.float32)
    found: NDArray[np.int64] = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(rows), _SCORED_ROWS):
        part = rows[start : start + _SCORED_ROWS]
        scores = np.concatenate([scores, queries @ corpus[part].T], axis=1)
        found = np.concatenate([found, np.broadcast_to(part, (len(queries), len(part)))], axis=1)
        best = np.argsort(-scores, axis=1)[:, :RECALL_AT]
        scores = np.take_along_axis(scores, best, axis=1)
        found = np.take_along_axis(found, best, axis=1)
    return found


def _row(
    backend: AnyBackend, folder: Path, first: NDArray[np.float32], corpus: NDArray[np.float32]
) -> tuple[str | int | float, ...]:
    library = folder / "library"
    spec = backend.automatic_spec(len(first))
    with _measured(library, 1) as built:
        index, spec = backend.build(ArrayVectors(first), spec, _snapshot(library, 1))
        backend.save(index, _snapshot(library, 1))
    del index
    asked = _ask(backend.name, _snapshot(library, 1), folder / "question.npz")
    with _measured(library, 2) as added:
        _publish(backend, library, 2, corpus, np.arange(len(first)))
    kept = np.delete(np.arange(len(corpus)), slice(len(first) // 2, len(first) // 2 + _VIDEO_SEGMENTS))
    now = corpus[kept]
    with _measured(library, 3) as removed:
        _publish(backend, library, 3, now, kept)
    return (
        backend.name,
        spec,
        round(built.seconds, 1),
        round(built.written / _MEBIBYTE, 1),
        round(added.seconds, 2),
        round(added.written / _MEBIBYTE, 1),
        round(removed.seconds, 2),
        round(removed.written / _MEBIBYTE, 1),
        round(asked["open_seconds"], 2),
        round(asked["milliseconds"], 2),
        round(asked["recall"], 3),
        round(asked["milliseconds_allowed"], 2),
        round(asked["recall_allowed"], 3),
        round(asked["memory_bytes"] / _MEBIBYTE),
    )


def _publish(
    backend: AnyBackend, library: Path, number: int, now: NDArray[np.float32], kept: NDArray[np.int64]
) -> None:
    """Save the index of `now`, made from the snapshot's before, by a process that has not opened that."""
    fresh: AnyBackend = type(backend)()
    index: VectorIndex = fresh.open(_snapshot(library, number - 1))
    folder = _snapshot(library, number)
    changed = fresh.extend(index, ArrayVectors(now), kept)
    if changed is None:
        changed, _ = fresh.build(ArrayVectors(now), fresh.automatic_spec(len(now)), folder)
    fresh.save(changed, folder)


def _snapshot(library: Path, number: int) -> Path:
    return library / "snapshots" / str(number)


@contextmanager
def _measured(library: Path, number: int) -> Iterator[_Change]:
    """The time and the bytes of what is written into a library for a snapshot, hashing included."""
    _snapshot(library, number).mkdir(parents=True)
    before = _files(library).keys()
    change = _Change()
    started = time.perf_counter()
    yield change
    new = {key: path for key, path in _files(library).items() if key not in before}
    for path in new.values():
        sha256_of(path)
    change.seconds = time.perf_counter() - started
    change.written = sum(path.stat().st_size for path in new.values())


def _files(library: Path) -> dict[tuple[int, int], Path]:
    """The files of a library by their inodes: snapshots may share one under several names."""
    found = {}
    for path in library.rglob("*"):
        if path.is_file():
            status = path.stat()
            found[status.st_dev, status.st_ino] = path
    return found


def _ask(name: str, folder: Path, question: Path) -> dict[str, float]:
    """What `service.bench.asked_store` measures in a process of its own."""
    command = [sys.executable, "-P", "-m", "service.bench.asked_store", name, str(folder), str(question)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise ReelfindError(f"the index of {name} could not be searched: {lines[-1] if lines else 'killed'}")
    answer: dict[str, float] = json.loads(done.stdout)
    return answer
