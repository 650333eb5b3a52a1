"""Opens an index of vectors and searches it, as a process of its own, and prints figures as JSON.

The arguments are the backend's name, the snapshot's folder, and a file of queries with what they should find.
"""

import gc
import json
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.library.vectors.base import VectorIndex
from indexer.library.vectors.registry import vector_backend
from service.bench.ann import RECALL_AT, recall


def measure(name: str, folder: Path, question: Path) -> dict[str, float]:
    """The time to open the index, of queries and filtered ones, their recall, and the memory it takes."""
    with np.load(question) as loaded:
        queries, allowed, nearest, nearest_allowed = (
            loaded[key] for key in ("queries", "allowed", "nearest", "nearest_allowed")
        )
    backend = vector_backend(name)
    gc.collect()
    before = _resident_bytes()
    started = time.perf_counter()
    index: VectorIndex = backend.open(folder)
    open_seconds = time.perf_counter() - started
    # The first queries read from the disk what the next ones find in memory.
    _search(index, queries, None)
    milliseconds, found = _search(index, queries, None)
    memory = _resident_bytes() - before
    _search(index, queries[:10], allowed)
    milliseconds_allowed, found_allowed = _search(index, queries, allowed)
    return {
        "open_seconds": open_seconds,
        "milliseconds": milliseconds,
        "recall": recall(found, nearest),
        "milliseconds_allowed": milliseconds_allowed,
        "recall_allowed": recall(found_allowed, nearest_allowed),
        "memory_bytes": memory,
    }


def _search(
    index: VectorIndex, queries: NDArray[np.float32], allowed: NDArray[np.int64] | None
) -> tuple[float, NDArray[np.int64]]:
    """The median time of a query in milliseconds, and all rows found."""
    times, found = [], []
    for row in range(len(queries)):
        started = time.perf_counter()
        found.append(index.search(queries[row : row + 1], RECALL_AT, allowed=allowed)[1])
        times.append(time.perf_counter() - started)
    return 1000 * float(np.median(times)), np.concatenate(found)


def _resident_bytes() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    raise OSError("/proc/self/status has no VmRSS")


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))))
