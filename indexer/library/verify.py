"""Checking a library against its manifests, and going back to an earlier snapshot."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import lance
import numpy as np

from indexer.library.errors import LibraryError, storage_errors
from indexer.library.files import replace_text
from indexer.library.folder import Library, lock_library
from indexer.library.manifest import (
    CURRENT,
    SnapshotManifest,
    current_number,
    published_number,
    read_snapshot_manifest,
    snapshot_numbers,
)
from indexer.library.records import SEARCHABLE
from indexer.library.schema import TABLES, fixed_to_numpy
from indexer.library.snapshot import Snapshot
from indexer.library.tables import SegmentVectors, open_table, table_path
from indexer.library.vectors.registry import vector_backend
from indexer.library.writer import alignment
from model.runtime.faults import checkpoint
from model.runtime.files import sha256_of

_CHECKED_FRAMES = 2048


@dataclass
class SnapshotReport:
    """What is wrong with one snapshot: nothing, if `problems` is empty."""

    number: int
    current: bool
    problems: list[str] = field(default_factory=list)
    manifest: SnapshotManifest | None = None


@dataclass
class VerifyReport:
    """What is wrong with a library."""

    library: Path
    snapshots: list[SnapshotReport]
    files: int
    bytes: int
    remedy: str | None

    @property
    def ok(self) -> bool:
        """Whether everything is as it was written."""
        return not any(snapshot.problems for snapshot in self.snapshots)


def verify_library(path: Path | str) -> VerifyReport:
    """Read every file of every snapshot and check its SHA-256, then the counts, rows and ids of each.

    Raises:
        LibraryError: there is no library or no snapshot to check, or CURRENT is damaged.
    """
    library = Path(path)
    current = published_number(library)
    numbers = snapshot_numbers(library)
    if current not in numbers:
        numbers.append(current)
    hashes = _Hashes(library)
    reports = [_verify_snapshot(library, number, number == current, hashes) for number in numbers]
    # An indexer at work may have removed an old snapshot meanwhile: that is no damage.
    there = {current, *snapshot_numbers(library)}
    reports = [report for report in reports if report.number in there]
    return VerifyReport(library, reports, len(hashes.known), hashes.bytes, _remedy(reports))


def rollback(path: Path | str, to: int | None = None) -> int:
    """Serve an earlier snapshot, and let the next run go on from its state.

    The tables get a new version equal to the snapshot's. The later snapshots stay, so that one can go
    forward again.

    Args:
        path: the library.
        to: the snapshot's number; by default the newest whole one before that which is served.

    Returns:
        The number that is served now.

    Raises:
        LibraryError: there is no such snapshot, or it is damaged.
        BusyError: another process is writing.
    """
    library = Path(path)
    numbers = snapshot_numbers(library)
    if not numbers:
        Library.open(library)
        raise LibraryError(f"{library} has no snapshot: publish one with `reelfind index`")
    with lock_library(library):
        target = _choose(library, numbers, to)
        manifest = read_snapshot_manifest(library, target)
        # The commit marker first: the next run repairs whatever a kill between the tables leaves.
        for name in TABLES:
            checkpoint(f"rollback.{name}")
            dataset = open_table(library, name, manifest.tables[name])
            with storage_errors(table_path(library, name)):
                dataset.restore()  # type: ignore[no-untyped-call]
        replace_text(library / CURRENT, f"{target}\n", "rollback.current")
    return target


def _choose(library: Path, numbers: list[int], to: int | None) -> int:
    listed = ", ".join(map(str, numbers))
    hashes = _Hashes(library)
    if to is not None:
        if to not in numbers:
            raise LibraryError(f"{library} has no snapshot {to}: choose one of {listed}")
        problems = _verify_snapshot(library, to, False, hashes).problems
        if problems:
            raise LibraryError(f"snapshot {to} is damaged ({problems[0]}): choose another of {listed}")
        return to
    try:
        current = current_number(library)
    except LibraryError:
        current = None
    before = [n for n in numbers if current is None or n < current]
    for number in reversed(before):
        if not _verify_snapshot(library, number, False, hashes).problems:
            return number
    served = "the one that is served" if current is None else f"snapshot {current}"
    raise LibraryError(f"{library} has no whole snapshot before {served} (there are {listed})")


class _Hashes:
    """Hashes files once, however many snapshots share them."""

    def __init__(self, library: Path) -> None:
        self._library = library
        self.known: dict[str, tuple[str, int] | str] = {}
        self.bytes = 0

    def problem(self, name: str, sha256: str, size: int) -> str | None:
        """What is wrong with a file; None when it is whole."""
        path = self._library / name
        if name not in self.known:
            try:
                self.known[name] = (sha256_of(path), path.stat().st_size)
                self.bytes += path.stat().st_size
            except OSError as error:
                self.known[name] = error.strerror or str(error)
        found = self.known[name]
        if isinstance(found, str):
            return f"{path}: {found}"
        if found[1] != size:
            return f"{path}: {found[1]} bytes, expected {size}"
        return None if found[0] == sha256 else f"{path}: its SHA-256 differs"


def _verify_snapshot(library: Path, number: int, current: bool, hashes: _Hashes) -> SnapshotReport:
    report = SnapshotReport(number, current)
    try:
        report.manifest = manifest = read_snapshot_manifest(library, number)
        for name, stamp in manifest.files.items():
            problem = hashes.problem(name, stamp.sha256, stamp.bytes)
            if problem:
                report.problems.append(problem)
        # Damaged files are not handed to Lance and to the backend of the vectors.
        if not report.problems:
            report.problems += _disagreements(library, manifest)
    except LibraryError as error:
        report.problems.append(str(error))
    return report


def _disagreements(library: Path, manifest: SnapshotManifest) -> Iterable[str]:
    """Check that tables, manifest and index say the same. Opening checks the counts already."""
    snapshot = Snapshot.open(library, manifest.number)
    tables = {name: open_table(library, name, version) for name, version in manifest.tables.items()}
    where = f"snapshot {manifest.number}"
    fault = alignment(tables["segments"], tables["frames"])
    if fault:
        yield f"{where}: {fault}"
    with storage_errors(table_path(library, "videos")):
        videos = tables["videos"].to_table(columns=["video_id", "ingest_id", "verdict", "num_segments"])
    with storage_errors(table_path(library, "segments")):
        segments = tables["segments"].to_table(columns=["video_id", "ingest_id", "segment_index"])
    counted: dict[tuple[str, str], list[int]] = {}
    for row in segments.to_pylist():
        counted.setdefault((row["video_id"], row["ingest_id"]), []).append(row["segment_index"])
    searchable = 0
    for row in videos.to_pylist():
        found = counted.pop((row["video_id"], row["ingest_id"]), [])
        searchable += row["verdict"] in SEARCHABLE
        if sorted(found) != list(range(row["num_segments"])):
            yield f"{where}: video {row['video_id']} has segments {found[:5]}, not {row['num_segments']}"
    for video_id, _ in counted:
        yield f"{where}: segments of video {video_id}, which is not in the table of videos"
    if len(set(videos["video_id"].to_pylist())) != videos.num_rows:
        yield f"{where}: a video id stands twice in the table of videos"
    if searchable != manifest.num_videos:
        yield f"{where}: {searchable} videos, the manifest says {manifest.num_videos}"
    if snapshot.tokens_per_frame:
        yield from _wrong_tokens(tables["frames"], library, where)
    vectors = SegmentVectors(library, tables["segments"])
    fault = vector_backend(manifest.index_backend).verify(snapshot.index, vectors)
    if fault:
        yield f"{where}: {fault}"


def _wrong_tokens(frames: lance.LanceDataset, library: Path, where: str) -> Iterable[str]:
    """Check that the stored tokens are numbers."""
    floats = [field.name for field in frames.schema if field.name in ("tokens", "token_scale")][-1:]
    path = table_path(library, "frames")
    with storage_errors(path):
        for batch in frames.to_batches(columns=floats, batch_size=_CHECKED_FRAMES):
            if not np.isfinite(fixed_to_numpy(batch[floats[0]])).all():
                yield f"{where}: {path} holds tokens that are no numbers"
                return


def _remedy(reports: list[SnapshotReport]) -> str | None:
    if not any(report.problems for report in reports):
        return None
    whole = [report.number for report in reports if not report.problems]
    served = next((report for report in reports if report.current), None)
    if served is not None and not served.problems:
        return (
            "the snapshot that is served is whole; the damaged ones go as new ones are published "
            "(`reelfind index`)"
        )
    rollback_remedy = (
        f"serve a whole snapshot with `reelfind library rollback --to {whole[-1]}`, then index again"
        if whole
        else None
    )
    if served is not None and served.manifest is not None:
        names = served.manifest.index_files
        damaged = [name for name in names if any(name in problem for problem in served.problems)]
        if all(any(name in problem for name in names) for problem in served.problems):
            anew = f"only {', '.join(damaged)} is damaged: `reelfind index` makes it anew from the tables"
            return f"{anew}; or {rollback_remedy}" if rollback_remedy else anew
    if rollback_remedy:
        return rollback_remedy
    return "no snapshot is whole: bring the library back from a copy, or index into a new folder"
