"""Milvus: vectors in a collection of a server; the folder of a snapshot says which of them are its own.

    library/vectors/reelfind_0123456789abcdef.milvus  this library has made the collection of this name
    library/snapshots/7/milvus.json                   the collection, and how many ids the snapshot knows
    library/snapshots/7/milvus-gone.bits              ids that are no rows of the snapshot, if any: a bit each

Snapshots share a collection, so that a publication adds what is new and nothing else. Its vectors never
change: a snapshot searches the ids that it knows, without those that are gone. A collection is removed when
no snapshot names it. All of it can be made anew from the tables at any time.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.library.errors import LibraryError, VectorsAwayError, storage_errors
from indexer.library.storage.registry import storage_of
from indexer.library.vectors import place_files
from indexer.library.vectors.base import VectorSource, difference, finite_batches, shared_folder
from indexer.library.vectors.grown import GrownIndex, read_present, write_gone
from indexer.library.vectors.milvus_collection import (
    MOST_RESULTS,
    PREFIX,
    Collection,
    drop_collection,
    index_and_load,
    new_collection,
    new_name,
)
from indexer.library.vectors.milvus_server import REBUILD_REMEDY, MilvusServer, server_in_environment
from model.runtime.errors import InputError
from model.runtime.faults import checkpoint

PLACE_FILE = "milvus.json"
GONE_FILE = "milvus-gone.bits"
#: Up to this many vectors, all are compared: a server finds no more than these.
FLAT_LIMIT = MOST_RESULTS
_FLAT = "Flat"
#: The most lists that servers make of a segment.
_MOST_LISTS = 65_536
_SPEC = re.compile(r"IVF([1-9]\d{0,4}),SQ8")
_NAME = re.compile(rf"{PREFIX}[0-9a-f]{{16}}")
_OWNED = ".milvus"
_NOTE = re.compile(_NAME.pattern + re.escape(_OWNED))
_VERIFY_SECONDS = 60.0
#: A new collection is made when more than this share of its vectors is gone.
_MOST_GONE = 0.2

MilvusIndex = GrownIndex[Collection]


@dataclass(frozen=True)
class _Place:
    """The content of `milvus.json`.

    Attributes:
        collection: its name.
        num_ids: ids from 0 on that the snapshot knows.
        dim: D, the size of a vector.
        lists: how many lists the index of each of the server's segments has; 0: all vectors are compared.
    """

    collection: str
    num_ids: int
    dim: int
    lists: int


class MilvusBackend:
    """Makes indexes of two kinds: 'Flat', and lists of 8-bit vectors: 'IVF1024,SQ8'.

    Opening an index asks the server nothing, so that a library can be opened while the server is away.

    Args:
        server: the server of the vectors; called when one is needed.
    """

    name = "milvus"

    def __init__(self, server: Callable[[], MilvusServer] = server_in_environment) -> None:
        self._server = server

    def automatic_spec(self, num_rows: int) -> str:
        """Exact up to `FLAT_LIMIT` vectors, then lists of 8-bit vectors.

        The server divides a collection into segments of limited size, each with lists of its own: their
        number need not grow with the library.
        """
        return _FLAT if num_rows <= FLAT_LIMIT else "IVF1024,SQ8"

    def check_spec(self, spec: str, dim: int) -> None:  # noqa: ARG002  each kind is one for any size
        """See `VectorBackend`."""
        if spec != _FLAT and not 0 < _lists_of(spec) <= _MOST_LISTS:
            raise InputError(
                f"index factory {spec!r} is none of the backend 'milvus': use one like 'Flat' or "
                "'IVF1024,SQ8', or 'auto'"
            )

    def build(
        self,
        source: VectorSource,
        spec: str,
        folder: Path,
        *,
        gpu: bool = False,  # noqa: ARG002  the server builds the index
    ) -> tuple[MilvusIndex, str]:
        """See `VectorBackend`. The index is `Flat` when there are fewer vectors than lists.

        Raises:
            VectorsAwayError: the server does not answer in time.
        """
        lists = _lists_of(spec)
        if lists > source.num_rows:
            lists, spec = 0, _FLAT
        server, name = self._server(), new_name()
        _note_owned(folder, name)
        checkpoint("vectors.collection")
        empty = new_collection(server, name, source.dim, lists)
        collection = empty.add(finite_batches(source), 0)
        checkpoint("vectors.added")
        index_and_load(collection)
        _check_all_there(collection, 0)
        return _of(collection, np.ones(collection.num_rows, np.bool_)), spec

    def extend(
        self, index: MilvusIndex, source: VectorSource, kept: NDArray[np.int64] | None = None
    ) -> MilvusIndex | None:
        """See `VectorBackend`.

        It is built anew where many vectors are gone, the server has lost them, or the collection is that of
        another library, of which this one is a copy.

        Raises:
            VectorsAwayError: the server does not answer in time.
        """
        kept = np.arange(index.num_rows) if kept is None else kept
        collection = index.base
        num_added = source.num_rows - len(kept)
        first = collection.num_rows
        if num_added:
            if not collection.is_own or not collection.exists():
                return None
            # A run that was killed, or a later snapshot, may have taken the ids that follow.
            first = collection.next_id()
        if first + num_added - source.num_rows > _MOST_GONE * (first + num_added):
            return None
        if num_added:
            collection = collection.add(finite_batches(source, len(kept)), first)
            checkpoint("vectors.added")
            _check_all_there(collection, first)
        present = np.zeros(collection.num_rows, np.bool_)
        present[index.ids_of(kept)] = True
        present[first:] = True
        return _of(collection, present)

    def save(self, index: MilvusIndex, folder: Path) -> tuple[Path, ...]:
        """Write which vectors are the snapshot's."""
        collection = index.base
        place = _Place(collection.name, collection.num_rows, collection.dim, collection.lists)
        path, gone_path = folder / PLACE_FILE, folder / GONE_FILE
        place_files.write_place(path, place)
        if index.present.all():
            return (path,)
        with storage_errors(gone_path):
            write_gone(gone_path, index.present)
        return path, gone_path

    def open(self, folder: Path) -> MilvusIndex:
        """Read which vectors are the snapshot's. The server is not asked.

        Raises:
            LibraryError: a file is missing or damaged.
            InputError: the environment does not say where the vectors are.
        """
        place = _read_place(folder)
        gone_path = folder / GONE_FILE
        with storage_errors(folder / PLACE_FILE):
            present = np.ones(place.num_ids, np.bool_)
            if gone_path.exists():
                present = read_present(gone_path, place.num_ids)
        server = self._server()
        stored = Collection(
            server,
            place.collection,
            place.num_ids,
            place.dim,
            place.lists,
            server.search_seconds,
            _is_own(_note_of(folder, place.collection)),
        )
        return _of(stored, present)

    def verify(self, index: MilvusIndex, source: VectorSource) -> str | None:
        """See `VectorBackend`. The server counts the vectors, and gives back the first and the last ones.

        Raises:
            VectorsAwayError: the server does not answer in time.
        """
        collection = index.base
        if index.num_rows == source.num_rows and index.num_rows:
            found = collection.count(stop=collection.num_rows)
            if not index.num_rows <= found <= collection.num_rows:
                return f"the index holds {found} vectors, {source.where} {source.num_rows}"
        return difference(_of(replace(collection, seconds=_VERIFY_SECONDS), index.present), source)

    def drop(self, folder: Path) -> None:
        """Remove the files, and the collections of the library that no other snapshot names.

        What the server does not remove now, since it is away, is removed the next time.
        """
        for name in (PLACE_FILE, GONE_FILE):
            with storage_errors(folder / name):
                storage_of(folder).remove(folder / name)
        self._remove_unnamed(folder)

    def _remove_unnamed(self, folder: Path) -> None:
        shared = shared_folder(folder)
        storage = storage_of(shared)
        with storage_errors(shared):
            notes = [shared / name for name in storage.names(shared) if _NOTE.fullmatch(name)]
        if not notes:
            return
        try:
            folders = place_files.places_of_all(folder.parent, PLACE_FILE)
            named = {_read_place(each, in_store=in_store).collection for each, in_store in folders}
        except LibraryError:
            # A damaged file may name any collection: remove none until its snapshot is removed.
            return
        for note in notes:
            if note.stem in named:
                continue
            if _is_own(note):
                try:
                    checkpoint("vectors.remove")
                    drop_collection(self._server(), note.stem)
                except (InputError, VectorsAwayError):
                    return
            with storage_errors(note):
                storage.remove(note)


def _of(collection: Collection, present: NDArray[np.bool_]) -> MilvusIndex:
    """The index of a collection's vectors that are present. No vectors lie beside it."""
    return GrownIndex(collection, replace(collection, num_rows=0), present)


def _lists_of(spec: str) -> int:
    """The number of lists that a spec asks for; 0: none."""
    match = _SPEC.fullmatch(spec)
    return int(match[1]) if match else 0


def _note_of(folder: Path, name: str) -> Path:
    return shared_folder(folder) / f"{name}{_OWNED}"


def _note_owned(folder: Path, name: str) -> None:
    """Note, before the collection is made, that it is the library's: a killed run leaves none unknown.

    The note holds what the note of a copied library does not have: a copy neither adds to the collection of
    the original nor removes it.
    """
    path = _note_of(folder, name)
    storage = storage_of(path)
    with storage_errors(path):
        if storage.is_local:
            path.parent.mkdir(exist_ok=True)
            path.touch()
            path.write_bytes(_identity(path))
            storage.flush([path], path.parent)
        else:
            storage.write(path, _identity(path))


def _identity(note: Path) -> bytes:
    """What a copy of a file has not: the number of its inode, or its address in an object store."""
    storage = storage_of(note)
    return str(note.stat().st_ino if storage.is_local else storage.table(note).uri).encode()


def _is_own(note: Path) -> bool:
    """Whether the library of a note made the collection that it names."""
    try:
        return storage_of(note).read(note) == _identity(note)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise LibraryError(f"{note} cannot be read: {error.strerror}") from error


def _check_all_there(collection: Collection, first: int) -> None:
    """Raise a LibraryError unless the server finds all vectors from `first` on, new ones included."""
    expected, found = collection.num_rows - first, collection.count(first, collection.num_rows)
    if found != expected:
        raise LibraryError(
            f"{collection.server.address.shown} keeps {found} of {expected} vectors: {REBUILD_REMEDY}"
        )


def _read_place(folder: Path, *, in_store: bool = False) -> _Place:
    """Read `milvus.json` of a snapshot; see `place_files.read_place`."""
    return place_files.read_place(folder / PLACE_FILE, _Place, _can_be, "collection", in_store=in_store)


def _can_be(place: _Place) -> bool:
    is_named = isinstance(place.collection, str) and _NAME.fullmatch(place.collection) is not None
    return is_named and place_files.are_counts(place.num_ids, place.dim, place.lists) and place.dim > 0
