"""What every Lance table here has in common: how it is opened, its files, and a bound on reads."""

import os
import threading
from pathlib import Path
from typing import Any

import lance
from lance.fragment import LanceFragment

from indexer.library.errors import LibraryError, storage_errors

#: Held while rows are read: bounds how many reads are under way at once. Each keeps several of Lance's
#: threads busy, and Lance starts more while all are busy: their number would follow the machine's load.
READS = threading.BoundedSemaphore(max(2, os.cpu_count() or 2))

_INDICES = "_indices"


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
        dataset = lance.dataset(str(path), version=version, **options)
        elsewhere = dataset.base_paths()
    if elsewhere:
        # Lance would read them, over the network too.
        raise LibraryError(f"{path} names files outside of the library: do not use it")
    return dataset


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
            files += sorted(
                file for file in (path / _INDICES / str(segment.uuid)).rglob("*") if file.is_file()
            )
    return files


def fragment_files(path: Path, fragment: LanceFragment) -> list[Path]:
    """The files with the rows of a fragment, and with the numbers of its deleted rows."""
    files = [path / "data" / data.path for data in fragment.data_files()]
    deletion = fragment.deletion_file()
    return [*files, path / deletion] if deletion else files
