"""The FAISS index over the segments: choosing its kind, building it, adding to it."""

from collections.abc import Iterator
from pathlib import Path

import faiss
import lance
import numpy as np
from numpy.typing import NDArray

from indexer.library.errors import LibraryError
from indexer.library.schema import fixed_to_numpy
from indexer.library.tables import lance_errors

AUTOMATIC = "auto"
#: Up to here an exact scan answers in some 20 ms on two cores.
FLAT_LIMIT = 200_000
_BATCH_ROWS = 16_384
_TRAINING_PER_LIST = 40


def automatic_factory(num_segments: int) -> str:
    """The kind of index for so many segments: exact up to `FLAT_LIMIT`, then lists of 8-bit vectors.

    The number of lists is about 4·√n as a power of two, so it changes, and the index is trained anew, each
    time the library has grown about fourfold.
    """
    if num_segments <= FLAT_LIMIT:
        return "Flat"
    return f"IVF{2 ** round(np.log2(4 * np.sqrt(num_segments)))},SQ8"


def check_factory(factory: str, dim: int) -> None:
    """ValueError when FAISS cannot make such an index of inner products."""
    if factory == AUTOMATIC:
        return
    remedy = "use one like 'Flat', 'IVF4096,SQ8' or 'HNSW32', or 'auto'"
    try:
        index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    except (RuntimeError, ValueError, MemoryError) as error:
        raise ValueError(f"index factory {factory!r} is not one for {dim} dimensions: {remedy}") from error
    if index.metric_type != faiss.METRIC_INNER_PRODUCT or not hasattr(index, "add"):
        raise ValueError(f"index factory {factory!r} does not rank by inner product: {remedy}")


def build_index(
    segments: lance.LanceDataset, path: Path, dim: int, factory: str, *, gpu: bool = False
) -> tuple[faiss.Index, str]:
    """Build an index of all rows of the segments table; row = offset.

    Args:
        segments: the table at one version.
        path: where it is, for messages.
        dim: D.
        factory: what to build, never `auto`.
        gpu: train and add on the GPUs, when FAISS has any.

    Returns:
        The index, and the factory that made it: `Flat` when there are too few segments to train another.
    """
    count = segments.count_rows()
    index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    if not index.is_trained:
        sample = _training_sample(segments, path, _num_lists(index) * _TRAINING_PER_LIST)
        try:
            index = _on_gpu(index) if gpu else index
            index.train(sample)
        except RuntimeError:
            # FAISS cannot make more lists or codes than there are vectors.
            index, factory = faiss.index_factory(dim, "Flat", faiss.METRIC_INNER_PRODUCT), "Flat"
    elif gpu:
        index = _on_gpu(index)
    _add_rows(index, segments, path, 0, count)
    index = _on_cpu(index)
    _set_effort(index)
    return index, factory


def extend_index(index: faiss.Index, segments: lance.LanceDataset, path: Path) -> None:
    """Add the rows that the index lacks; those it has must be the table's first."""
    _add_rows(index, segments, path, index.ntotal, segments.count_rows())


def gpu_available() -> bool:
    """Whether this FAISS can build on a GPU here."""
    return hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0


def embeddings(
    segments: lance.LanceDataset, path: Path, start: int, stop: int
) -> Iterator[NDArray[np.float32]]:
    """The embeddings of rows `start` to `stop`, in batches [B, D]."""
    if start >= stop:
        return
    with lance_errors(path):
        scanner = segments.scanner(
            columns=["embedding"], offset=start, limit=stop - start, batch_size=_BATCH_ROWS
        )
        for batch in scanner.to_batches():
            yield np.ascontiguousarray(fixed_to_numpy(batch["embedding"]), np.float32)


def _add_rows(index: faiss.Index, segments: lance.LanceDataset, path: Path, start: int, stop: int) -> None:
    for batch in embeddings(segments, path, start, stop):
        if not np.isfinite(batch).all():
            raise LibraryError(f"{path} holds embeddings that are not numbers: index into a new folder")
        index.add(batch)


def _training_sample(segments: lance.LanceDataset, path: Path, wanted: int) -> NDArray[np.float32]:
    count = segments.count_rows()
    rows = np.linspace(0, max(count - 1, 0), min(count, max(wanted, 4096))).astype(np.int64)
    with lance_errors(path):
        table = segments.take(np.unique(rows).tolist(), columns=["embedding"])
    return np.ascontiguousarray(fixed_to_numpy(table["embedding"]), np.float32)


def _num_lists(index: faiss.Index) -> int:
    try:
        return int(faiss.extract_index_ivf(index).nlist)
    except RuntimeError:
        return 1


def _set_effort(index: faiss.Index) -> None:
    """Search widely enough for a recall@100 near 1; kept in the index file."""
    try:
        ivf = faiss.extract_index_ivf(index)
    except RuntimeError:
        ivf = None
    if ivf is not None:
        ivf.nprobe = max(8, ivf.nlist // 32)
    inner = faiss.downcast_index(index.index) if isinstance(index, faiss.IndexPreTransform) else index
    if isinstance(inner, faiss.IndexHNSW):
        inner.hnsw.efSearch = 256


def _on_gpu(index: faiss.Index) -> faiss.Index:
    return faiss.index_cpu_to_all_gpus(index) if gpu_available() else index


def _on_cpu(index: faiss.Index) -> faiss.Index:
    return faiss.index_gpu_to_cpu(index) if gpu_available() else index
