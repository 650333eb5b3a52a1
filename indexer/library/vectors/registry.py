"""The backends that this program has, by the name that a library's manifest calls them."""

from pathlib import Path

from indexer.library.errors import LibraryError
from indexer.library.vectors.base import AnyBackend
from indexer.library.vectors.faiss import FaissBackend

#: A backend that is added here can be named in `PublishOptions`, and its libraries are served.
BACKENDS: dict[str, AnyBackend] = {backend.name: backend for backend in (FaissBackend(),)}


def vector_backend(name: str) -> AnyBackend:
    """The backend of a name. LibraryError when this program has none."""
    backend = BACKENDS.get(name)
    if backend is None:
        raise LibraryError(
            f"the library's vectors are stored by {name!r}, "
            f"this program knows {', '.join(sorted(BACKENDS))}: "
            "use the version of Reelfind that wrote it, or index into a new folder"
        )
    return backend


def drop_vectors(folder: Path) -> None:
    """Remove what any backend stored for a snapshot's folder. LibraryError when it cannot be removed."""
    for backend in BACKENDS.values():
        backend.drop(folder)
