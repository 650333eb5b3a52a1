"""The available backends, by their name in a library's manifest."""

import os
from pathlib import Path

from indexer.library.errors import LibraryError
from indexer.library.vectors.base import DEFAULT_BACKEND, AnyBackend
from indexer.library.vectors.faiss import FaissBackend
from indexer.library.vectors.lance import LanceBackend
from indexer.library.vectors.milvus import MilvusBackend
from indexer.library.vectors.milvus_server import ADDRESS_VARIABLE

#: A backend listed here can be named in `PublishOptions`, and its libraries can be served.
BACKENDS: dict[str, AnyBackend] = {
    backend.name: backend for backend in (FaissBackend(), LanceBackend(), MilvusBackend())
}

#: With more vectors than this, Lance is the automatic choice; deploy/operations.md has the measurements.
LANCE_FROM = 2_000_000


def available_backends() -> tuple[str, ...]:
    """The names of the backends that can be used here: Milvus only where the environment names a server."""
    has_server = bool(os.environ.get(ADDRESS_VARIABLE))
    return tuple(name for name in BACKENDS if name != MilvusBackend.name or has_server)


def automatic_backend(num_rows: int, before: str = DEFAULT_BACKEND) -> str:
    """The name of the backend that suits a number of vectors: Milvus where the environment names a server.

    Args:
        num_rows: how many vectors there are.
        before: the backend of the snapshot before. Lance stays with about `LANCE_FROM` vectors; Milvus stays
            where the environment has lost its server, which is an error that whoever publishes is told.
    """
    if MilvusBackend.name in available_backends() or before == MilvusBackend.name:
        return MilvusBackend.name
    if num_rows > LANCE_FROM:
        return LanceBackend.name
    return before if before == LanceBackend.name and num_rows * 2 > LANCE_FROM else DEFAULT_BACKEND


def vector_backend(name: str) -> AnyBackend:
    """The backend with this name.

    Raises:
        LibraryError: there is none.
    """
    backend = BACKENDS.get(name)
    if backend is None:
        raise LibraryError(
            f"the library's vectors are stored by {name!r}, "
            f"this program knows {', '.join(sorted(BACKENDS))}: "
            "use the version of Reelfind that wrote it, or index into a new folder"
        )
    return backend


def drop_vectors(folder: Path) -> None:
    """Remove what any backend stored for a snapshot's folder.

    Raises:
        LibraryError: it cannot be removed.
    """
    for backend in BACKENDS.values():
        backend.drop(folder)
