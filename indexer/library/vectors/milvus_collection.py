"""A collection of a Milvus server: vectors by their ids, which are added and never change.

Shapes: B queries, D joint space, K results, R ids.
"""

import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.library.errors import LibraryError
from indexer.library.vectors.base import check_rows, no_results, results_per_query
from indexer.library.vectors.milvus_server import REBUILD_REMEDY, MilvusServer, import_pymilvus

#: Names of collections begin so.
PREFIX = "reelfind_"
#: More results than this are given by no server.
MOST_RESULTS = 16_384
_ID, _VECTOR = "id", "vector"
#: Bounds a message; servers take 64 MiB.
_MESSAGE_BYTES = 8 << 20
#: A server lists so many vectors at most at a time.
_MOST_LISTED = 8192
#: How long calls take at most that change something, and one that waits until all is in files.
_CHANGE_SECONDS = 60.0
_FLUSH_SECONDS = 600.0
_POLL_SECONDS = 0.2
#: A search reads one of this many lists of each of the server's segments, but not fewer than the least.
_LISTS_SHARE = 16
_LEAST_LISTS = 16
#: A search among chosen ids reads this many times the lists needed to see as many as one among all, and asks
#: for this many times the results of which it expects enough to be allowed.
_FILTERED_EFFORT = 2
#: Most ids that one request lists: a server takes some 0.1 s to read them.
_LISTED_IDS = 16_384
#: Ids in a row are named by their ends where there are more than so many of them, but only the longest such
#: runs: servers refuse conditions that are nested a hundred deep.
_SHORTEST_RUN = 16
_MOST_RUNS = 30


@dataclass(frozen=True)
class Collection:
    """The vectors of ids 0 to `num_rows` - 1 of a collection, which may hold further ones: a `VectorIndex`.

    Attributes:
        server: where it is.
        name: the collection's.
        num_rows: how many ids there are. Some may have no vector.
        dim: D, the size of a vector.
        lists: how many lists the index of each of the server's segments has; 0: all vectors are compared.
        seconds: how long a search takes at most, and a call of `vectors`.
        is_own: whether vectors may be added: a copy of a library searches the collection of the original.
    """

    server: MilvusServer
    name: str
    num_rows: int
    dim: int
    lists: int
    seconds: float
    is_own: bool = True

    def search(
        self, embeddings: NDArray[np.float32], k: int, *, allowed: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """See `VectorIndex`. No more than `MOST_RESULTS` are found.

        Raises:
            VectorsAwayError: the server does not answer in time.
        """
        k = results_per_query(self.num_rows, k, allowed)
        if k == 0 or not len(embeddings):
            return no_results(len(embeddings))
        search = _Search(self, np.ascontiguousarray(embeddings, np.float32), k)
        if allowed is None or len(allowed) == self.num_rows:
            return search.among_all()
        return search.among(allowed)

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `VectorIndex`. Servers keep the vectors as they were added."""
        check_rows(rows, self.num_rows)
        ids, places = np.unique(rows, return_inverse=True)
        until = time.monotonic() + self.seconds
        found = np.empty((len(ids), self.dim), np.float32)
        step = max(1, min(_MOST_LISTED, _MESSAGE_BYTES // (4 * self.dim)))
        for start in range(0, len(ids), step):
            part = ids[start : start + step]
            got = self._query(_as_filter(*_condensed(part)), [_VECTOR], _left(until))
            if sorted(row[_ID] for row in got) != part.tolist():
                raise LibraryError(
                    f"{self.server.address.shown} has lost some of the library's vectors: {REBUILD_REMEDY}"
                )
            at = np.searchsorted(part, [row[_ID] for row in got])
            found[start + at] = [row[_VECTOR] for row in got]
        return found[places.reshape(-1)]

    def exists(self) -> bool:
        """Whether the server has it."""
        return bool(
            self.server.ask(
                lambda client, seconds: client.has_collection(self.name, timeout=seconds), _CHANGE_SECONDS
            )
        )

    def count(self, first: int = 0, stop: int | None = None) -> int:
        """How many vectors have ids from `first` on, and below `stop`, seen all that was added before."""
        wanted = f"{_ID} >= {first}" + ("" if stop is None else f" and {_ID} < {stop}")
        (row,) = self._query(wanted, ["count(*)"], _CHANGE_SECONDS, consistency_level="Strong")
        return int(row["count(*)"])

    def next_id(self) -> int:
        """The first id from `num_rows` on from which no vector has one."""
        low = self.num_rows
        if not self.count(low):
            return low
        step = 1
        while self.count(low + step):
            step *= 2
        # There is a vector from `low` on, and none from `high` on.
        high = low + step
        while high - low > 1:
            middle = (low + high) // 2
            if self.count(middle):
                low = middle
            else:
                high = middle
        return high

    def add(self, batches: Iterable[NDArray[np.float32]], first: int) -> "Collection":
        """Add vectors with the ids from `first` on. → The collection with them, all of which can be found.

        Raises:
            VectorsAwayError: the server does not answer in time.
            LibraryError: the vectors cannot be read, or the server has not kept them.
        """
        stop = first
        for batch in _messages(batches, self.dim):
            rows = [{_ID: stop + place, _VECTOR: vector} for place, vector in enumerate(batch)]
            self.server.ask(partial(_insert, self.name, rows), _CHANGE_SECONDS)
            stop += len(batch)
        return replace(self, num_rows=stop)

    def _query(self, wanted: str, fields: list[str], seconds: float, **options: Any) -> list[dict[str, Any]]:
        found = self.server.ask(
            lambda client, left: client.query(self.name, wanted, fields, timeout=left, **options), seconds
        )
        return list(found)


class _Search:
    """One search: all its calls together take no longer than a search may."""

    def __init__(self, collection: Collection, queries: NDArray[np.float32], k: int) -> None:
        self._collection = collection
        self._queries = queries
        self._k = k
        self._until = time.monotonic() + collection.seconds

    def among_all(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        return self._ask(self._k, 1.0, self._filled())

    def among(self, allowed: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The best of some ids.

        Where too many would have to be listed, more results are asked for than are wanted, of which most
        often enough are allowed.
        """
        runs, others = _condensed(allowed)
        share = len(allowed) / self._collection.num_rows
        wanted = int(np.ceil(_FILTERED_EFFORT * self._k / share))
        if len(others) > _LISTED_IDS and wanted <= MOST_RESULTS:
            scores, ids = _only(allowed, *self._ask(wanted, share, self._filled()))
            if (ids[:, self._k - 1] >= 0).all():
                return scores[:, : self._k], ids[:, : self._k]
        found = []
        for start in range(0, max(1, len(others)), _LISTED_IDS):
            filter_of_part = _as_filter(runs if start == 0 else [], others[start : start + _LISTED_IDS])
            found.append(_only(allowed, *self._ask(self._k, share, filter_of_part)))
        each_scores, each_ids = zip(*found, strict=True)
        return _best(np.concatenate(each_scores, axis=1), np.concatenate(each_ids, axis=1), self._k)

    def _filled(self) -> str:
        """Leaves out what was added for later snapshots."""
        return f"{_ID} < {self._collection.num_rows}"

    def _ask(self, k: int, share: float, wanted: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The best `k` of the ids that `wanted` lets through, which are this share of all."""
        collection = self._collection
        parameters: dict[str, Any] = {"metric_type": "IP", "params": {}}
        if collection.lists:
            read = max(_LEAST_LISTS, collection.lists // _LISTS_SHARE)
            if share < 1:
                read = int(np.ceil(_FILTERED_EFFORT * read / share))
            parameters["params"] = {"nprobe": min(collection.lists, read)}
        found = collection.server.ask(
            lambda client, seconds: client.search(
                collection.name,
                list(self._queries),
                wanted,
                limit=min(k, MOST_RESULTS),
                output_fields=[_ID],
                search_params=parameters,
                timeout=seconds,
            ),
            _left(self._until),
        )
        scores = np.full((len(self._queries), k), -np.inf, np.float32)
        ids = np.full((len(self._queries), k), -1, np.int64)
        for place, hits in enumerate(found):
            scores[place, : len(hits)] = hits.distances
            ids[place, : len(hits)] = hits.ids
        # Never return an id that the caller may not see, or that it does not know.
        is_known = (ids >= 0) & (ids < collection.num_rows)
        return _best(np.where(is_known, scores, -np.inf), np.where(is_known, ids, -1), k)


def new_collection(server: MilvusServer, name: str, dim: int, lists: int) -> Collection:
    """Make an empty collection.

    Raises:
        VectorsAwayError: the server does not answer in time.
    """
    kinds = import_pymilvus().DataType

    def create(client: Any, seconds: float) -> None:
        schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(_ID, kinds.INT64, is_primary=True)
        schema.add_field(_VECTOR, kinds.FLOAT_VECTOR, dim=dim)
        # What was added more than five seconds ago is found by every search, without waiting for it.
        client.create_collection(name, schema=schema, consistency_level="Bounded", timeout=seconds)

    server.ask(create, _CHANGE_SECONDS)
    return Collection(server, name, 0, dim, lists, server.search_seconds)


def _insert(name: str, rows: list[dict[str, Any]], client: Any, seconds: float) -> None:
    client.insert(name, rows, timeout=seconds)


def index_and_load(collection: Collection) -> None:
    """Let the server index what a collection holds, and what is added later, and load it for searches.

    It takes as long as the server says that it is at work.

    Raises:
        VectorsAwayError: the server does not answer in time.
        LibraryError: the server cannot index the vectors.
    """
    server, name = collection.server, collection.name

    def index(client: Any, seconds: float) -> None:
        parameters = client.prepare_index_params()
        kind = "IVF_SQ8" if collection.lists else "FLAT"
        # All servers read parameters that are nested so; Milvus Lite reads no others.
        nested = {"params": {"nlist": collection.lists}} if collection.lists else {}
        parameters.add_index(_VECTOR, index_type=kind, metric_type="IP", params=nested)
        client.create_index(name, parameters, timeout=seconds, sync=False)

    def is_indexed(client: Any, seconds: float) -> bool:
        found = client.describe_index(name, _VECTOR, timeout=seconds)
        if found["state"] == "Failed":
            raise LibraryError(f"{server.address.shown} cannot index the vectors: {found.get('fail_reason')}")
        return bool(found["state"] == "Finished")

    def load(client: Any, seconds: float) -> None:
        client.load_collection(name, timeout=seconds, _async=True)

    def is_loaded(client: Any, seconds: float) -> bool:
        return bool(client.get_load_state(name, timeout=seconds)["state"].name == "Loaded")

    server.ask(lambda client, seconds: client.flush(name, timeout=seconds), _FLUSH_SECONDS)
    for begin, is_done in ((index, is_indexed), (load, is_loaded)):
        server.ask(begin, _CHANGE_SECONDS)
        while not server.ask(is_done, _CHANGE_SECONDS):
            time.sleep(_POLL_SECONDS)


def drop_collection(server: MilvusServer, name: str) -> None:
    """Remove a collection, if the server has it.

    Raises:
        VectorsAwayError: the server does not answer in time.
    """
    server.ask(lambda client, seconds: client.drop_collection(name, timeout=seconds), _CHANGE_SECONDS)


def new_name() -> str:
    """A name that no collection has."""
    return f"{PREFIX}{secrets.token_hex(8)}"


def _left(until: float) -> float:
    """The seconds until then; hardly any after it."""
    return max(0.001, until - time.monotonic())


def _condensed(ids: NDArray[np.int64]) -> tuple[list[tuple[int, int]], NDArray[np.int64]]:
    """The first and the last of each long run of ascending ids, and the ids in no such run."""
    starts = np.append(0, 1 + np.flatnonzero(np.diff(ids) != 1))
    stops = np.append(starts[1:], len(ids))
    longest = np.argsort(starts - stops, kind="stable")[:_MOST_RUNS]
    chosen = np.sort(longest[(stops - starts)[longest] > _SHORTEST_RUN])
    is_other = np.ones(len(ids), np.bool_)
    for run in chosen:
        is_other[starts[run] : stops[run]] = False
    return [(int(ids[starts[run]]), int(ids[stops[run] - 1])) for run in chosen], ids[is_other]


def _as_filter(runs: list[tuple[int, int]], others: NDArray[np.int64]) -> str:
    """What lets through the ids of these runs, and the others, in Milvus's notation."""
    parts = [f"({_ID} >= {first} and {_ID} <= {last})" for first, last in runs]
    if len(others):
        parts.append(f"{_ID} in [{','.join(map(str, others.tolist()))}]")
    return " or ".join(parts)


def _only(
    allowed: NDArray[np.int64], scores: NDArray[np.float32], ids: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The results that are allowed, best first; others are -1, which come last."""
    is_allowed = np.isin(ids, allowed)
    return _best(np.where(is_allowed, scores, -np.inf), np.where(is_allowed, ids, -1), ids.shape[1])


def _best(
    scores: NDArray[np.float32], ids: NDArray[np.int64], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(ids, order, axis=1)


def _messages(batches: Iterable[NDArray[np.float32]], dim: int) -> Iterator[NDArray[np.float32]]:
    """The batches in parts that fit into a message."""
    step = max(1, _MESSAGE_BYTES // (4 * dim))
    for batch in batches:
        for start in range(0, len(batch), step):
            yield batch[start : start + step]
