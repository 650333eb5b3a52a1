"""FAISS: the index is in files of the snapshot's folder, searched in memory.

    segments.faiss        the index as it was built; snapshots that share it share the file, by a hard link
    segments-tail.faiss   the vectors that were added since, if any
    segments-gone.bits    the vectors of both that are no rows any more, if any: a bit for each vector

The only module that imports `faiss`.
"""

import os
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer.library.errors import VERIFY_REMEDY, LibraryError, storage_errors
from indexer.library.vectors.base import (
    DEFAULT_BACKEND,
    VectorSource,
    check_rows,
    difference,
    finite_batches,
    no_results,
    results_per_query,
)
from indexer.library.vectors.grown import GrownIndex, read_present, write_gone
from model.runtime.errors import InputError
from model.runtime.files import link_or_copy, sha256_once
from model.runtime.limited import ChildEndedError, Limits, answer, ask_child, limit_this_process
from model.runtime.remembered import recall, remember

INDEX_FILE = "segments.faiss"
TAIL_FILE = "segments-tail.faiss"
GONE_FILE = "segments-gone.bits"
#: More vectors than this beside the index are added to it: they are scanned at each search.
TAIL_ROWS = 16_384
#: Up to this many vectors, an exact scan takes about 20 ms on two cores.
FLAT_LIMIT = 200_000
_TRAINING_PER_LIST = 40
_MIN_TRAINING_ROWS = 4096
#: A search among chosen rows probes this many times the lists needed to see as many rows as one among all.
_FILTERED_EFFORT = 2
#: So many queries, which searches at the same time may share a call for, are searched by one thread.
_FEW_QUERIES = 32
#: The index is built anew when more than this share of its vectors is gone.
_MOST_GONE = 0.2
#: An index with lists is built anew when, in a sample, the lists that a search reads hold this much less of
#: the nearest vectors of those added last than of those that were there first.
_DRIFT = 0.1
_DRIFT_SAMPLE = 16
_DRIFT_AT = 100
_KIND = "vectors"
_TRIAL_MEMORY = 1 << 30
_TRIAL_SECONDS = 60
_TRIAL_BYTES_PER_SECOND = 10_000_000
#: Kind, D, rows, two fields that FAISS does not use, trained, metric, length of the vectors.
_FLAT_HEADER = struct.Struct("<4siqqq?iQ")
_FLAT = b"IxFI"
_ALL_THREADS: int = faiss.omp_get_max_threads()


@dataclass(frozen=True, eq=False)
class FaissIndex:
    """An inner-product FAISS index; its ids are the rows. It does not change any more.

    How a search among chosen rows works depends on the kind of index. In brackets: the recall@100, measured
    with 100,000 clustered vectors, of which 50 to 90,000 were allowed.

    - `Flat` reads only the allowed vectors: exact (1.0); the fewer they are, the faster.
    - `SQ…` skips the other rows as it scans: as good as a search among all (0.99).
    - `IVF…` probes more lists the fewer rows are allowed, up to all of them (0.94 to 1.0; with its usual
    number
      of lists and 5 % of the rows allowed: 0.03 to 0.5).
    - `HNSW…` scans the vectors at the nodes of its graph: exact (1.0), as fast as `Flat`. A walk through the
      graph misses chosen rows (0.01 to 0.3 with up to 10 % allowed).
    - Some other kinds cannot search among chosen rows (`PQ…`, `NSG…`, `…,RFlat`): they raise a LibraryError.
    """

    faiss_index: faiss.Index
    #: The file that it was read from.
    path: Path | None = None

    @property
    def num_rows(self) -> int:
        """How many vectors it holds."""
        return int(self.faiss_index.ntotal)

    @property
    def dim(self) -> int:
        """D: the size of a vector."""
        return int(self.faiss_index.d)

    def search(
        self, embeddings: NDArray[np.float32], k: int, *, allowed: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """See `VectorIndex`."""
        k = results_per_query(self.num_rows, k, allowed)
        if k == 0:
            return no_results(len(embeddings))
        # OpenMP keeps this number for each calling thread. The service searches beside other work; on busy
        # cores the threads of one call wait for each other longer than they work.
        faiss.omp_set_num_threads(1 if len(embeddings) <= _FEW_QUERIES else _ALL_THREADS)
        # From two queries on, a product of matrices reads each vector once for all of them: FAISS compares
        # the number of queries times D. 16 queries then take a tenth of the time of 16 searches.
        faiss.cvar.distance_compute_blas_threshold = 2 * self.dim
        queries = np.ascontiguousarray(embeddings, np.float32)
        scores: NDArray[np.float32]
        rows: NDArray[np.int64]
        if allowed is None:
            scores, rows = self.faiss_index.search(queries, k)
        else:
            scores, rows = self._search_among(allowed, queries, k)
        return scores, rows

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """See `VectorIndex`. Only a flat index stores them exactly."""
        if not isinstance(self.faiss_index, faiss.IndexFlat):
            return None
        check_rows(rows, self.num_rows)
        vectors: NDArray[np.float32] = self.faiss_index.reconstruct_batch(np.asarray(rows, np.int64))
        return vectors

    def _search_among(
        self, allowed: NDArray[np.int64], queries: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        scores: NDArray[np.float32]
        rows: NDArray[np.int64]
        index, queries = _without_transform(self.faiss_index, queries)
        if isinstance(index, faiss.IndexHNSW):
            index = faiss.downcast_index(index.storage)
        try:
            scores, rows = index.search(queries, k, params=_parameters(index, allowed))
        except RuntimeError as error:
            raise _no_filter(index) from error
        # Some kinds of index ignore the parameters: never return a row that the caller may not see.
        if not np.isin(rows[rows >= 0], allowed).all():
            raise _no_filter(index)
        return scores, rows


FaissParts = GrownIndex[FaissIndex]


class FaissBackend:
    """Builds FAISS indexes from factory strings: 'Flat', 'IVF4096,SQ8', 'HNSW32', …

    Args:
        tail_rows: how many vectors may lie beside an index, which is not written again then.
    """

    name = DEFAULT_BACKEND

    def __init__(self, tail_rows: int = TAIL_ROWS) -> None:
        self._tail_rows = tail_rows
        #: Indexes in use, by the device, inode, size and time of their files: snapshots share them.
        self._opened: WeakValueDictionary[tuple[int, int, int, int], FaissIndex] = WeakValueDictionary()

    def automatic_spec(self, num_rows: int) -> str:
        """Exact up to `FLAT_LIMIT` vectors, then lists of 8-bit vectors.

        The number of lists is the power of two nearest to 4·√n, so it changes, and the index is trained
        again, each time the library has grown about fourfold.
        """
        if num_rows <= FLAT_LIMIT:
            return "Flat"
        return f"IVF{2 ** round(np.log2(4 * np.sqrt(num_rows)))},SQ8"

    def check_spec(self, spec: str, dim: int) -> None:
        """See `VectorBackend`."""
        remedy = "use one like 'Flat', 'IVF4096,SQ8' or 'HNSW32', or 'auto'"
        try:
            index = _new_index(dim, spec)
        except (RuntimeError, ValueError, MemoryError) as error:
            raise InputError(f"index factory {spec!r} is invalid for {dim} dimensions: {remedy}") from error
        if index.metric_type != faiss.METRIC_INNER_PRODUCT or not hasattr(index, "add"):
            raise InputError(f"index factory {spec!r} does not rank by inner product: {remedy}")

    def build(
        self,
        source: VectorSource,
        spec: str,
        folder: Path | None = None,  # noqa: ARG002  it is built in memory
        *,
        gpu: bool = False,
    ) -> tuple[FaissParts, str]:
        """See `VectorBackend`. The index is `Flat` when there are too few vectors to train another kind."""
        index = _new_index(source.dim, spec)
        if not index.is_trained:
            sample = _training_sample(source, _num_lists(index) * _TRAINING_PER_LIST)
            try:
                index = _on_gpu(index) if gpu else index
                index.train(sample)
            except RuntimeError:
                # FAISS cannot make more lists or codes than there are vectors.
                index, spec = _new_index(source.dim, "Flat"), "Flat"
        elif gpu:
            index = _on_gpu(index)
        for batch in finite_batches(source):
            index.add(batch)
        index = _on_cpu(index)
        _set_effort(index)
        return _whole(FaissIndex(index)), spec

    def extend(
        self, index: FaissParts, source: VectorSource, kept: NDArray[np.int64] | None = None
    ) -> FaissParts | None:
        """See `VectorBackend`.

        Few new vectors are put beside the index, more are added to a copy of it. Its trained parts do not
        change: it is built anew where it does not fit the new vectors, see `_has_drifted`, or where many are
        gone.
        """
        kept = np.arange(index.num_rows) if kept is None else kept
        present = np.zeros(index.num_ids + source.num_rows - len(kept), np.bool_)
        present[index.ids_of(kept)] = True
        present[index.num_ids :] = True
        num_gone = len(present) - source.num_rows
        is_small = index.base.num_rows <= self._tail_rows
        if num_gone and (is_small or num_gone > _MOST_GONE * len(present) or not _can_choose(index.base)):
            return None
        added = list(finite_batches(source, len(kept)))
        tail = faiss.clone_index(index.tail.faiss_index)
        for batch in added:
            tail.add(batch)
        if not is_small and tail.ntotal <= self._tail_rows:
            return GrownIndex(index.base, FaissIndex(tail), present)
        base = faiss.clone_index(index.base.faiss_index)
        if tail.ntotal:
            base.add(tail.reconstruct_n(0, tail.ntotal))
        if not is_small and _has_drifted(base, source, tail.ntotal):
            return None
        return GrownIndex(FaissIndex(base), _no_vectors(index.dim), present)

    def save(self, index: FaissParts, folder: Path) -> tuple[Path, ...]:
        """See `VectorBackend`."""
        path, tail_path, gone_path = (folder / name for name in (INDEX_FILE, TAIL_FILE, GONE_FILE))
        written = [path]
        with storage_errors(folder):
            _write_base(index.base, path)
            if index.tail.num_rows:
                faiss.write_index(index.tail.faiss_index, str(tail_path))
                written.append(tail_path)
            if not index.present.all():
                write_gone(gone_path, index.present)
                written.append(gone_path)
        return tuple(written)

    def open(self, folder: Path) -> FaissParts:
        """Read the index's files.

        FAISS believes the sizes in a file, so that a wrong one can crash it or fill the memory. The sizes of
        a flat index are compared with the file's; another index that this user has neither written nor read
        before is read in a process with limits first.
        """
        base = self._open_base(folder / INDEX_FILE)
        tail_path, gone_path = folder / TAIL_FILE, folder / GONE_FILE
        tail = _no_vectors(base.dim)
        with storage_errors(tail_path):
            if tail_path.exists():
                if not is_whole_flat(tail_path):
                    raise LibraryError(f"{tail_path} is no flat index; {VERIFY_REMEDY}")
                tail = FaissIndex(faiss.read_index(str(tail_path)))
        if tail.dim != base.dim:
            raise LibraryError(f"{tail_path} has {tail.dim} dimensions, not {base.dim}; {VERIFY_REMEDY}")
        present = np.ones(base.num_rows + tail.num_rows, np.bool_)
        with storage_errors(gone_path):
            if gone_path.exists():
                present = read_present(gone_path, len(present))
        return GrownIndex(base, tail, present)

    def verify(self, index: FaissParts, source: VectorSource) -> str | None:
        """See `VectorBackend`. Vectors are compared only in a flat index, which alone stores them exactly."""
        return difference(index, source)

    def drop(self, folder: Path) -> None:
        """Remove the index's files."""
        for name in (INDEX_FILE, TAIL_FILE, GONE_FILE):
            with storage_errors(folder / name):
                (folder / name).unlink(missing_ok=True)

    def _open_base(self, path: Path) -> FaissIndex:
        with storage_errors(path):
            found = path.stat()
            key = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
            opened = self._opened.get(key)
            if opened is not None:
                return opened
            if not is_whole_flat(path):
                _try_first(path)
            index = faiss.read_index(str(path))
        if index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise LibraryError(f"{path} does not rank by inner product; {VERIFY_REMEDY}")
        base = FaissIndex(index, path)
        self._opened[key] = base
        return base


def is_whole_flat(path: Path) -> bool:
    """Whether a file is a flat index of inner products, of exactly the size that its header says.

    The layout is that of `write_index`: little endian and packed, the vectors' length in units of 4 bytes.
    """
    with path.open("rb") as file:
        header = file.read(_FLAT_HEADER.size)
        size = os.fstat(file.fileno()).st_size
    if len(header) < _FLAT_HEADER.size:
        return False
    kind, dim, rows, _, _, trained, metric, length = _FLAT_HEADER.unpack(header)
    return (
        (kind, trained, metric) == (_FLAT, 1, int(faiss.METRIC_INNER_PRODUCT))
        and (dim > 0 and rows >= 0 and length == dim * rows)
        and size == _FLAT_HEADER.size + 4 * length
    )


def _try_first(path: Path) -> None:
    """Read an index in a process with limits, unless this user did before.

    Raises:
        LibraryError: it ended the process, or it is not as an index must be.
    """
    checksum = sha256_once(path)
    if recall(_KIND, checksum) is not None:
        return
    size = path.stat().st_size
    limits = Limits(_TRIAL_MEMORY + 4 * size, _TRIAL_SECONDS + size // _TRIAL_BYTES_PER_SECOND)
    try:
        problems = ask_child("indexer.library.vectors.faiss", [str(path)], limits)
    except ChildEndedError as error:
        raise LibraryError(f"{path} ended the process that tried it ({error}); {VERIFY_REMEDY}") from error
    if problems:
        raise LibraryError(f"{path} is no index that can be searched ({problems[0]}); {VERIFY_REMEDY}")
    remember(_KIND, checksum)


def _faults(path: Path) -> list[str]:
    """What is wrong with an index that may come from a stranger, whatever FAISS raises."""
    try:
        index = faiss.read_index(str(path))
        found = list(_wrong_structure(index, int(index.ntotal)))
        if not found:
            k = min(int(index.ntotal), 10)
            queries = np.random.default_rng(0).normal(size=(4, int(index.d))).astype(np.float32)
            queries[0] = 0
            rows = index.search(queries, k)[1] if k else np.empty(0, np.int64)
            if ((rows < -1) | (rows >= index.ntotal)).any():
                found.append("a search gives rows that do not exist")
    except Exception as error:
        return [f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"]
    return found


def _wrong_structure(index: faiss.Index, num_rows: int) -> Iterator[str]:
    """What of an index leads outside of its arrays: FAISS does not look when it searches."""
    if index.ntotal != num_rows:
        yield f"a part holds {index.ntotal} vectors, not {num_rows}"
    elif index.metric_type != faiss.METRIC_INNER_PRODUCT:
        yield "it does not rank by inner product"
    elif isinstance(index, faiss.IndexPreTransform):
        yield from _wrong_structure(faiss.downcast_index(index.index), num_rows)
    elif isinstance(index, faiss.IndexHNSW):
        graph = index.hnsw
        levels, offsets = faiss.vector_to_array(graph.levels), faiss.vector_to_array(graph.offsets)
        neighbours = faiss.vector_to_array(graph.neighbors)
        if len(levels) != num_rows or len(offsets) != num_rows + 1 or offsets[-1] != len(neighbours):
            yield "its graph has another size"
        elif (np.diff(offsets.astype(np.int64)) < 0).any() or not -1 <= graph.entry_point < num_rows:
            yield "its graph leads outside"
        elif ((neighbours < -1) | (neighbours >= num_rows)).any():
            yield "its graph leads to vectors that do not exist"
        yield from _wrong_structure(faiss.downcast_index(index.storage), num_rows)
    elif isinstance(index, faiss.IndexIVF):
        lists = index.invlists
        sizes = [lists.list_size(number) for number in range(index.nlist)]
        if lists.nlist != index.nlist or sum(sizes) != num_rows or index.quantizer.ntotal != index.nlist:
            yield "its lists have another size"
            return
        for number, size in enumerate(sizes):
            ids = faiss.rev_swig_ptr(lists.get_ids(number), size) if size else np.empty(0, np.int64)
            if ((ids < 0) | (ids >= num_rows)).any():
                yield "its lists name vectors that do not exist"
                return


def _whole(base: FaissIndex) -> FaissParts:
    """An index of which nothing is gone, with nothing beside it."""
    return GrownIndex(base, _no_vectors(base.dim), np.ones(base.num_rows, np.bool_))


def _no_vectors(dim: int) -> FaissIndex:
    return FaissIndex(faiss.IndexFlatIP(dim))


def _write_base(base: FaissIndex, path: Path) -> None:
    """Write an index, or share the file that it was read from. OSError, or what FAISS raises, if it fails."""
    if base.path is not None:
        try:
            link_or_copy(base.path, path)
        except FileNotFoundError:
            # The snapshot that it was read from is removed.
            pass
        else:
            return
    faiss.write_index(base.faiss_index, str(path))
    if not is_whole_flat(path):
        remember(_KIND, sha256_once(path))


def _can_choose(index: FaissIndex) -> bool:
    """Whether a search among chosen rows is possible, which must be so where some are gone."""
    try:
        index.search(np.zeros((1, index.dim), np.float32), 1, allowed=np.zeros(1, np.int64))
    except LibraryError:
        return False
    return True


def _has_drifted(index: faiss.Index, source: VectorSource, num_added: int) -> bool:
    """Whether the lists of an index suit the vectors added last less than those that were there first.

    The measure is the recall of a search in the lists that one usually reads against one in all lists, for
    a sample of both. Other kinds of index are not trained for the place of vectors in space.
    """
    if _num_lists(index) == 1:
        return False
    num_first = max(1, source.num_rows // 4)
    recalls = []
    for start, stop in ((0, num_first), (source.num_rows - num_added, source.num_rows)):
        rows = np.unique(np.linspace(start, stop - 1, _DRIFT_SAMPLE).astype(np.int64))
        lists, queries = _without_transform(index, source.take(rows))
        k = min(_DRIFT_AT, int(index.ntotal))
        usual = lists.search(queries, k)[1]
        every = lists.search(queries, k, params=faiss.SearchParametersIVF(nprobe=lists.nlist))[1]
        found = [np.isin(right, got).mean() for got, right in zip(usual, every, strict=True)]
        recalls.append(float(np.mean(found)))
    return recalls[1] < recalls[0] - _DRIFT


def _without_transform(
    index: faiss.Index, queries: NDArray[np.float32]
) -> tuple[faiss.Index, NDArray[np.float32]]:
    """The index behind transforms of vectors, and the queries as these make them."""
    if not isinstance(index, faiss.IndexPreTransform):
        return index, queries
    for i in range(index.chain.size()):
        queries = faiss.downcast_VectorTransform(index.chain.at(i)).apply(queries)
    return faiss.downcast_index(index.index), queries


def _new_index(dim: int, spec: str) -> faiss.Index:
    return faiss.index_factory(dim, spec, faiss.METRIC_INNER_PRODUCT)


def _parameters(index: faiss.Index, allowed: NDArray[np.int64]) -> faiss.SearchParameters:
    """The parameters that make an index search among some of its rows, at least one."""
    if isinstance(index, faiss.IndexFlat):
        # With an array, FAISS reads only the allowed rows.
        return faiss.SearchParameters(sel=faiss.IDSelectorArray(allowed))
    mask = np.zeros(index.ntotal, np.bool_)
    mask[allowed] = True
    selector = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
    if isinstance(index, faiss.IndexIVF):
        share = len(allowed) / index.ntotal
        nprobe = min(index.nlist, int(np.ceil(_FILTERED_EFFORT * index.nprobe / share)))
        return faiss.SearchParametersIVF(sel=selector, nprobe=nprobe)
    return faiss.SearchParameters(sel=selector)


def _no_filter(index: faiss.Index) -> LibraryError:
    return LibraryError(
        f"a FAISS index of the kind {type(index).__name__} cannot search among chosen rows: "
        "index again with another --index-factory, like 'auto'"
    )


def _training_sample(source: VectorSource, size: int) -> NDArray[np.float32]:
    count = source.num_rows
    rows = np.linspace(0, max(count - 1, 0), min(count, max(size, _MIN_TRAINING_ROWS)))
    return source.take(np.unique(rows.astype(np.int64)))


def _num_lists(index: faiss.Index) -> int:
    try:
        return int(faiss.extract_index_ivf(index).nlist)
    except RuntimeError:
        return 1


def _set_effort(index: faiss.Index) -> None:
    """Set the search effort for a recall@100 near 1; the index file stores it."""
    try:
        ivf = faiss.extract_index_ivf(index)
    except RuntimeError:
        ivf = None
    if ivf is not None:
        ivf.nprobe = max(8, ivf.nlist // 32)
    inner = faiss.downcast_index(index.index) if isinstance(index, faiss.IndexPreTransform) else index
    if isinstance(inner, faiss.IndexHNSW):
        inner.hnsw.efSearch = 256


def _gpu_available() -> bool:
    return hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0


def _on_gpu(index: faiss.Index) -> faiss.Index:
    return faiss.index_cpu_to_all_gpus(index) if _gpu_available() else index


def _on_cpu(index: faiss.Index) -> faiss.Index:
    return faiss.index_gpu_to_cpu(index) if _gpu_available() else index


if __name__ == "__main__":
    answer(_faults(Path(limit_this_process(sys.argv[1:])[0])))
