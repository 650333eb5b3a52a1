"""What users say of a library's videos, and what they keep out of it: one SQLite file beside the tables.

Several processes write it at once, also while an indexing run holds the library's lock. What they write
counts at once, without a new snapshot. A library without the file has nothing of it; a write makes it.

The journal is SQLite's rollback journal, not its write-ahead log: with a log, a reader that may not write to
the folder (a service whose library is mounted read-only) cannot open the file. Writes are small and rare.
"""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from indexer.library.annotations import NO_ANNOTATION, Annotation
from indexer.library.curated_names import CuratedNames
from indexer.library.curation_tables import (
    WrongTablesError,
    create_tables,
    delete_exclusions,
    has_tables,
    read_annotation,
    read_annotations,
    read_counters,
    read_exclusions,
    write_annotation,
    write_exclusion,
    write_places,
)
from indexer.library.errors import AwayError, BusyError, LibraryError
from indexer.library.exclusions import NO_EXCLUSIONS, Exclusions, NewExclusion, Place
from indexer.library.storage.registry import storage_of
from indexer.library.storage.shared_file import SharedFile
from model.runtime.errors import InputError
from model.runtime.faults import checkpoint
from model.runtime.messages import for_shell

CURATION_FILE = "curation.sqlite"
#: All files of it that may lie in a library.
CURATION_FILES = frozenset({CURATION_FILE, f"{CURATION_FILE}-journal"})

MOST_REASON_CHARACTERS = 500
#: The largest size of the file, whose content is held in memory.
_MOST_BYTES = 256 << 20
_PAGE_BYTES = 4096
#: How long a write waits for other ones, and a read, for which requests wait.
_WRITE_SECONDS, _READ_SECONDS = 10.0, 0.25
#: After a read that failed, `state` does not try again for so long: every request asks it.
_PAUSE_SECONDS = 1.0
# SQLite's primary result codes.
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_PERMISSION = {sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_AUTH}

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class CurationState:
    """All that the file said when it was read. It never changes.

    Attributes:
        annotations: what is said of videos, by their ids; videos of which nothing is said are left out.
        exclusions: what is kept out.
        names: finds videos by titles and tags.
        problem: why the file cannot be read now: the rest is as it was read last. None: it can.
        changes: how often annotations and exclusions were changed; only whether it is the same counts.
    """

    annotations: Mapping[str, Annotation] = field(default_factory=dict)
    exclusions: Exclusions = NO_EXCLUSIONS
    names: CuratedNames = field(default_factory=CuratedNames)
    problem: str | None = None
    changes: tuple[int, int] = (0, 0)

    def annotation(self, video_id: str) -> Annotation:
        """What is said of a video."""
        return self.annotations.get(video_id, NO_ANNOTATION)


NOTHING = CurationState()


class Curation:
    """The file of one library. Every method may be called from any thread.

    Args:
        library: the library's folder.
    """

    def __init__(self, library: Path) -> None:
        self.path = library / CURATION_FILE
        storage = storage_of(library)
        #: Where other computers change the file, too; None: it lies in the library's folder.
        self._shared = None if storage.is_local else SharedFile(storage, self.path)
        self._lock = threading.Lock()
        self._reader: sqlite3.Connection | None = None
        #: Device and inode of the file that `_reader` has open.
        self._opened: tuple[int, int] | None = None
        self._data_version = -1
        self._state = NOTHING
        self._retry_at = 0.0

    def state(self) -> CurationState:
        """What the file says now; the same object as long as it does not change.

        It does not raise. What was read last counts as long as a write holds the file for unusually long,
        and as long as the file cannot be read: see `CurationState.problem`.
        """
        with self._lock:
            if time.monotonic() >= self._retry_at:
                self._refresh_or_note()
            return self._state

    def read(self) -> CurationState:
        """As `state`, for those who must know what is kept out.

        Raises:
            BusyError: a write holds the file for unusually long.
            LibraryError: the file cannot be read.
        """
        with self._lock:
            try:
                self._pull(wait=True)
                self._refresh()
            except (LibraryError, AwayError):
                self._close()
                raise
            return self._state

    def annotate(self, video_id: str, edit: Callable[[Annotation], Annotation]) -> Annotation:
        """Change what is said of a video.

        Args:
            video_id: the video.
            edit: gives the new annotation for the one there is, and may raise; nobody else writes meanwhile.

        Returns:
            The new annotation.

        Raises:
            BusyError: others write for too long.
            LibraryError: the file cannot be written, or is damaged.
        """

        def write(connection: sqlite3.Connection) -> Annotation:
            before = read_annotation(connection, video_id)
            after = replace(edit(before), updated_at=datetime.now(UTC))
            write_annotation(connection, video_id, after)
            return after

        return self._write(write)

    def exclude(self, new: Iterable[NewExclusion]) -> None:
        """Keep something out. What is kept out already gets the new kind, reason and places.

        Raises:
            InputError: a reason is too long.
            BusyError: others write for too long.
            LibraryError: the file cannot be written, or is damaged.
        """
        items = list(new)
        for each in items:
            length = len(each.reason or "")
            if length > MOST_REASON_CHARACTERS:
                raise InputError(
                    f"reason has {length:,} characters: at most {MOST_REASON_CHARACTERS} are allowed",
                    field="reason",
                )

        def write(connection: sqlite3.Connection) -> None:
            for each in items:
                write_exclusion(connection, each)

        self._write(write)

    def include(self, numbers: Iterable[int]) -> None:
        """Forget exclusions, by their numbers. Raises as `exclude`."""
        gone = list(numbers)
        self._write(lambda connection: delete_exclusions(connection, gone))

    def add_places(self, places: Iterable[tuple[int, Place]]) -> None:
        """Remember where excluded contents were found, by the numbers of their exclusions.

        Those whose exclusion is gone are left out. Raises as `exclude`.
        """
        added = list(places)
        self._write(lambda connection: write_places(connection, added))

    def check(self) -> str | None:
        """What is wrong with the file, by SQLite's own check of all its pages; None: nothing, or no file."""
        with self._lock:
            try:
                self._pull(wait=True)
                self._refresh()
                if self._reader is None:
                    return None
                with self._errors():
                    ((answer,),) = self._reader.execute("PRAGMA quick_check(1)")
                return None if answer == "ok" else self._damaged(answer)
            except LibraryError as error:
                return str(error)

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader, self._opened, self._data_version = None, None, -1

    def _refresh_or_note(self) -> None:
        """Read what has changed; where that fails, what was read last stays, with the problem."""
        try:
            self._pull(wait=False)
            self._refresh()
            self._retry_at = 0.0
        except (LibraryError, AwayError) as error:
            is_busy = isinstance(error, BusyError) and self._data_version >= 0
            if not is_busy:
                self._close()
            self._retry_at = time.monotonic() + _PAUSE_SECONDS
            if not is_busy and self._state.problem != str(error):
                self._state = replace(self._state, problem=str(error))

    def _pull(self, *, wait: bool) -> None:
        """Fetch what other computers have written, if any can."""
        if self._shared is None:
            return
        try:
            if wait:
                self._shared.pull()
            else:
                self._shared.pull_soon()
        except OSError as error:
            raise LibraryError(f"{self.path} cannot be read: {error.strerror}") from error

    def _refresh(self) -> None:
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            self._close()
            self._state = NOTHING
            return
        except OSError as error:
            raise LibraryError(f"{self.path} cannot be read: {error.strerror}") from error
        if stat.st_size > _MOST_BYTES:
            raise LibraryError(self._damaged(f"it has {stat.st_size:,} bytes"))
        before, file = self._state, (stat.st_dev, stat.st_ino)
        if self._reader is None or file != self._opened:
            # It is new, or another one took its place, such as a backup.
            self._close()
            self._reader, self._opened, before = self._open(self.path, "rw", _READ_SECONDS), file, NOTHING
        with self._errors():
            ((version,),) = self._reader.execute("PRAGMA data_version").fetchall()
            if version != self._data_version:
                self._reader.execute("BEGIN")
                try:
                    self._state = _next_state(self._reader, before)
                finally:
                    self._reader.execute("ROLLBACK")
                self._data_version = version

    def _write(self, action: Callable[[sqlite3.Connection], T]) -> T:
        """Do something in a transaction that nobody else writes in; what it raises takes it back.

        Where other computers have written the file meanwhile, it is done once more on what they wrote.
        """
        if self._shared is None:
            return self._write_file(self.path, action)
        try:
            return self._shared.change(lambda draft: self._write_file(draft, action), _WRITE_SECONDS)
        except OSError as error:
            raise LibraryError(f"{self.path} cannot be written: {error.strerror}") from error

    def _write_file(self, path: Path, action: Callable[[sqlite3.Connection], T]) -> T:
        with self._transaction(path) as connection:
            return action(connection)

    @contextlib.contextmanager
    def _transaction(self, path: Path) -> Iterator[sqlite3.Connection]:
        if not path.parent.is_dir():
            where = for_shell(path.parent)
            raise LibraryError(f"no library at {where}: `reelfind index PATH --library {where}` makes one")
        connection = self._open(path, "rwc", _WRITE_SECONDS)
        try:
            with self._errors():
                # The first is the default, but a file that somebody else made may say otherwise.
                connection.execute("PRAGMA journal_mode = DELETE")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA foreign_keys = ON")
                connection.execute(f"PRAGMA max_page_count = {_MOST_BYTES // _PAGE_BYTES}")
                connection.execute("BEGIN IMMEDIATE")
                if not has_tables(connection):
                    create_tables(connection)
                yield connection
                checkpoint("curation.commit")
                connection.execute("COMMIT")
                checkpoint("curation.committed")
        finally:
            # Without a commit, this takes the transaction back.
            connection.close()

    def _open(self, path: Path, mode: str, busy_seconds: float) -> sqlite3.Connection:
        with self._errors():
            connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode={mode}",
                uri=True,
                timeout=busy_seconds,
                isolation_level=None,
                check_same_thread=False,
            )
            # A library may come from a stranger: nothing in the file is run.
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA cell_size_check = ON")
            return connection

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what SQLite raises into a LibraryError that names the file and the remedy."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._library_error(error) from error
        except WrongTablesError as error:
            raise LibraryError(
                f"{self._damaged(str(error))}. If a later version of Reelfind wrote it, use that one"
            ) from error

    def _library_error(self, error: sqlite3.Error) -> LibraryError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _BUSY:
            return BusyError(f"{self.path} is being written by others: try again")
        if code in _PERMISSION:
            return LibraryError(
                f"{self.path} cannot be opened or written ({error}): check the owner and the permissions of "
                "the library's folder, and whether it is mounted read-only"
            )
        if code == sqlite3.SQLITE_FULL:
            return LibraryError(
                f"{self.path} cannot grow: free some space on the disk; it may have {_MOST_BYTES >> 20} MiB"
            )
        return LibraryError(self._damaged(str(error)))

    def _damaged(self, reason: str) -> str:
        return (
            f"{self.path} is damaged ({reason}): restore it from a backup, or move it away and lose titles, "
            "tags, notes and exclusions"
        )


def _next_state(connection: sqlite3.Connection, before: CurationState) -> CurationState:
    """The state after the changes since the one before."""
    if not has_tables(connection):
        return NOTHING
    changes = read_counters(connection)
    if changes[0] < before.changes[0] or changes[1] < before.changes[1]:
        # An earlier state was restored.
        before = NOTHING
    annotations, names = before.annotations, before.names
    changed = read_annotations(connection, before.changes[0])
    if changed:
        together = {**annotations, **changed}
        for video_id, each in changed.items():
            if not (each.line or each.note):
                del together[video_id]
        annotations = together
        names = names.changed({video_id: each.line for video_id, each in changed.items()})
    exclusions = before.exclusions
    if changes[1] != before.changes[1]:
        exclusions = read_exclusions(connection)
    return CurationState(annotations, exclusions, names, None, changes)
