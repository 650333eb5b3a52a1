"""Makes the index of vectors of a library's served generation anew, from its tables."""

from pathlib import Path

from indexer.library.folder import Library
from indexer.library.generations import base_manifest
from indexer.library.manifest import SnapshotManifest, published_number
from indexer.library.publish import PublishOptions, chosen_backend, publish
from indexer.library.vectors.base import AUTOMATIC
from indexer.library.writer import LibraryWriter


def rebuild_vectors(
    path: Path | str, backend: str | None = None, factory: str | None = None
) -> SnapshotManifest:
    """Publish a snapshot whose index of vectors is made from the tables alone. No video is read.

    Args:
        path: the library's folder.
        backend: one of `BACKENDS`, or `AUTOMATIC`; None: what was requested the last time.
        factory: the kind of index; None: what was requested the last time of this backend.

    Returns:
        The manifest of the snapshot, which is served now.

    Raises:
        InputError: there is no such backend, or no such kind of index.
        LibraryError: the library has no snapshot, is damaged, or cannot be written.
        BusyError: another process is writing the library.
    """
    published_number(Path(path))
    library = Library.open(path)
    with library.writing():
        base = base_manifest(library.path, library.generation)
        chosen = chosen_backend(backend, base)
        if factory not in (None, AUTOMATIC):
            chosen.check_spec(factory, library.layout.vector_dim)
        writer = LibraryWriter(library)
        options = PublishOptions(index_backend=backend, index_factory=factory, rebuild=True)
        return publish(writer, options, last=True)
