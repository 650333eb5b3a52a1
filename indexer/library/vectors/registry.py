"""The available backends, by their name in a library's manifest."""

from pathlib import Path

from indexer.library.errors import LibraryError
from indexer.library.vectors.base import AnyBackend
from indexer.library.vectors.faiss import FaissBackend

#: A backend listed here can be named in `PublishOptions`, and its libraries can be served.
BACKENDS: dict[str, AnyBackend] = {backend.name: backend for backend in (FaissBackend(),)}


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
