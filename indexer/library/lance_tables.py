"""What every Lance table here has in common: how it is opened, its files, and a bound on reads."""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import lance
import pyarrow as pa
from lance.fragment import FragmentMetadata, LanceFragment, write_fragments

from indexer.library.errors import LibraryError, storage_errors
from indexer.library.storage.base import ChangedError
from indexer.library.storage.registry import storage_of
from model.runtime.cores import elsewhere

# Held while rows are read: bounds how many reads are under way at once. Each keeps several of Lance's
# threads busy, and Lance starts more while all are busy: their number would follow the machine's load.
_READS = threading.BoundedSemaphore(max(2, os.cpu_count() or 2))

_INDICES = "_indices"
#: After which pauses, in seconds, something is tried again with a table in an object store.
_PAUSES = (0.1, 0.5, 2.0)
#: What Lance says where a request has failed for a reason that may pass.
_PASSING = re.compile(r"response body error|IncompleteBody|connection closed")

T = TypeVar("T")


@contextmanager
def reading() -> Iterator[None]:
    """Held while rows are read. Another thread has the core of the one that reads meanwhile."""
    with elsewhere(), _READS:
        yield


def open_at(path: Path, version: int | None, **options: Any) -> lance.LanceDataset:
    """Open a table at a version, or at its latest.

    Args:
        path: the table's folder.
        version: None: the latest.
        options: further arguments of `lance.dataset`.

    Raises:
        LibraryError: it cannot be read, or names files outside of its folder.
    """
    with storage_errors(path):
        place = storage_of(path).table(path)
        dataset = steadily(
            path,
            lambda: lance.dataset(place.uri, version=version, storage_options=place.options, **options),
        )
        elsewhere = dataset.base_paths()
    if elsewhere:
        # Lance would read them, over the network too.
        raise LibraryError(f"{path} names files outside of the library: do not use it")
    return dataset


def steadily(path: Path, action: Callable[[], T]) -> T:
    """Do what may be done twice with a table: in an object store again, where an answer did not come whole.

    Lance asks again itself where a store refuses or does not answer, but not where an answer breaks off.

    Raises:
        Exception: whatever `action` raises.
    """
    if storage_of(path).is_local:
        return action()
    for pause in _PAUSES:
        try:
            return action()
        except Exception as error:
            if _PASSING.search(str(error)) is None:
                raise
        time.sleep(pause)
    return action()


def write_rows(
    path: Path,
    rows: pa.Table | pa.RecordBatchReader,
    mode: Literal["create", "append", "overwrite"],
    **options: Any,
) -> lance.LanceDataset:
    """Write rows as a new version of a table.

    Args:
        path: the table's folder.
        rows: the rows.
        mode: whether the table is new, gets the rows in addition, or has them alone from now on.
        options: further arguments of `lance.write_dataset`.

    Returns:
        The new version.

    Raises:
        LibraryError: they cannot be written.
    """
    with storage_errors(path):
        place = storage_of(path).table(path)
        return lance.write_dataset(rows, place.uri, mode=mode, storage_options=place.options, **options)


def append_once(
    path: Path, dataset: lance.LanceDataset, fragments: list[FragmentMetadata]
) -> lance.LanceDataset:
    """Make a new version of a table that has some more fragments, each of them once.

    A store's answer to a commit may get lost. Lance then commits once more, for it takes its own version for
    that of another writer; or it fails, though the version is there.

    Args:
        path: the table's folder.
        dataset: the latest version. Nobody else writes the table.
        fragments: the fragments, see `write_loose`.

    Raises:
        ChangedError: somebody else writes the table.
        Exception: whatever Lance raises.
    """
    expected = dataset.count_rows() + sum(fragment.num_rows for fragment in fragments)

    def append() -> lance.LanceDataset:
        latest = dataset if storage_of(path).is_local else open_at(path, None)
        if latest.version != dataset.version:
            return latest
        operation = lance.LanceOperation.Append(fragments)
        return lance.LanceDataset.commit(latest, operation, read_version=latest.version)

    appended = steadily(path, append)
    if appended.count_rows() != expected:
        # They are there twice: go on from the version that has them once.
        appended = open_at(path, dataset.version + 1)
        if appended.count_rows() != expected:
            raise ChangedError(f"{path} was written by another process meanwhile: run the command again")
        appended.restore()  # type: ignore[no-untyped-call]
    return appended


def write_loose(path: Path, rows: pa.Table, schema: pa.Schema) -> tuple[FragmentMetadata, ...]:
    """Write rows to files of a table that no version of it names yet; they survive a power cut.

    Raises:
        LibraryError: they cannot be written.
    """
    with storage_errors(path):
        storage = storage_of(path)
        place = storage.table(path)
        fragments = write_fragments(
            rows, place.uri, schema=schema, mode="append", storage_options=place.options
        )
        files = [path / "data" / file.path for fragment in fragments for file in fragment.files]
        storage.flush(files, path)
    return tuple(fragments)


def files_of(path: Path, dataset: lance.LanceDataset, *, indexed: bool) -> list[Path]:
    """Every file of a table's version, the manifest first; all of them are immutable.

    Args:
        path: the table's folder.
        dataset: the table at the version.
        indexed: whether the table may have indices.
    """
    # Lance counts down in the names of manifests, so that the newest sorts first.
    files = [path / "_versions" / f"{2**64 - 1 - dataset.version:020d}.manifest"]
    for fragment in dataset.get_fragments():
        files += fragment_files(path, fragment)
    for index in dataset.describe_indices() if indexed else ():
        for segment in index.segments:
            files += sorted(storage_of(path).files(path / _INDICES / str(segment.uuid)))
    return files


def fragment_files(path: Path, fragment: LanceFragment) -> list[Path]:
    """The files with the rows of a fragment, and with the numbers of its deleted rows."""
    files = [path / "data" / data.path for data in fragment.data_files()]
    deletion = fragment.deletion_file()
    return [*files, path / deletion] if deletion else files
