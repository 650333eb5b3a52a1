"""Removes what users keep out of a library, without an indexing run."""

from contextlib import closing

from indexer.events import IndexSummary
from indexer.excluded import forget_excluded
from indexer.library.curation import Curation
from indexer.library.folder import Library
from indexer.library.generations import is_served
from indexer.library.manifest import snapshot_numbers
from indexer.library.publish import PublishOptions
from indexer.library.writer import LibraryWriter
from indexer.sink import CommitOptions, LibrarySink


def remove_excluded(library: Library) -> int:
    """Remove what a generation stores of what is excluded, and publish it. → How many videos there were.

    Earlier snapshots keep it until they are removed themselves; it is not shown there either.

    Raises:
        BusyError: an indexing run holds the library's lock: the next one removes it.
        LibraryError: the library is damaged, or cannot be written.
    """
    with library.writing():
        with closing(Curation(library.path)) as curation:
            exclusions = curation.read().exclusions
        writer = LibraryWriter(library)
        serve = is_served(library.path, library.generation)
        # How many snapshots are kept is up to `reelfind index`.
        kept = len(snapshot_numbers(library.path)) + 1
        options = CommitOptions(PublishOptions(keep_snapshots=kept, serve=serve), 0.0, 0.0)
        summary = IndexSummary()
        sink = LibrarySink(writer, options, lambda _event: None, summary)
        sink.lost_places(forget_excluded(writer, exclusions))
        sink.close(interrupted=True)
    return summary.removed
