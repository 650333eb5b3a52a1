"""Checks the snapshots of a library, of all generations, against their manifests."""

import hashlib
import os
import shlex
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import lance
import numpy as np

from indexer.library.alignment import misalignment
from indexer.library.curation import Curation
from indexer.library.errors import LibraryError, opening_errors, storage_errors
from indexer.library.generations import Staged, staged
from indexer.library.leases import hold
from indexer.library.manifest import (
    SnapshotManifest,
    bring_index,
    check_not_former,
    generation_name,
    published_number,
    read_snapshot_manifest,
    snapshot_folder,
    snapshot_numbers,
    tables_folder,
)
from indexer.library.meaning import wrong_meaning
from indexer.library.records import SEARCHABLE
from indexer.library.row_scan import scan_rows
from indexer.library.schema import TEXT_COLUMNS, TEXTS_INGEST, fixed_to_numpy
from indexer.library.snapshot import Snapshot
from indexer.library.storage.registry import storage_of
from indexer.library.stored import shown_places
from indexer.library.tables import SegmentVectors, open_table, table_path
from indexer.library.vectors.registry import vector_backend
from indexer.library.words import has_words
from model.runtime.messages import for_shell

_CHECKED_FRAMES = 2048


@dataclass
class SnapshotReport:
    """The problems of one snapshot; it is whole if there are none.

    Attributes:
        number: the snapshot's.
        current: whether it is served.
        staged: see `staged`.
        problems: what is wrong, in words.
        manifest: None where it cannot be read.
        damaged_files: names of the files that differ from the manifest, relative to the library.
        damaged_videos: paths of the videos with damaged rows, as far as rows were read.
        rows_are_read: whether all rows were compared with their checksums.
        rows_without_checksums: how many have none, because an earlier version wrote them.
    """

    number: int
    current: bool
    staged: Staged | None = None
    problems: list[str] = field(default_factory=list)
    manifest: SnapshotManifest | None = None
    damaged_files: set[str] = field(default_factory=set)
    damaged_videos: list[str] = field(default_factory=list)
    rows_are_read: bool = False
    rows_without_checksums: int = 0


@dataclass
class VerifyReport:
    """The problems of a library's snapshots, and what to do about them."""

    library: Path
    snapshots: list[SnapshotReport]
    files: int
    bytes: int
    remedy: str | None
    rows_without_checksums: int = 0
    curation: str | None = None
    """What is wrong with what users say and keep out; None: nothing."""

    @property
    def ok(self) -> bool:
        """Whether every snapshot is whole, and what users say."""
        return self.curation is None and not any(snapshot.problems for snapshot in self.snapshots)


def verify_library(path: Path | str) -> VerifyReport:
    """Check the SHA-256 of every file of every snapshot, then the counts, rows and ids of each snapshot.

    Of the snapshot that is served, every row is also compared with its checksums, in damaged files too, so
    that the damaged videos are named.

    Raises:
        LibraryError: there is no library or no snapshot to check, or CURRENT is damaged.
    """
    library = Path(path)
    current = published_number(library)
    numbers = snapshot_numbers(library)
    if current not in numbers:
        numbers.append(current)
    hashes = FileHashes(library)
    reports = [verify_snapshot(library, number, number == current, hashes) for number in numbers]
    # An indexer may have removed an old snapshot meanwhile: that is no damage.
    existing = {current, *snapshot_numbers(library)}
    reports = [report for report in reports if report.number in existing]
    rows_without = sum(report.rows_without_checksums for report in reports)
    with closing(Curation(library)) as opened:
        curation = opened.check()
    remedy = _remedy(library, reports)
    return VerifyReport(library, reports, len(hashes.results), hashes.bytes, remedy, rows_without, curation)


class FileHashes:
    """Hashes each file once, however many snapshots share it."""

    def __init__(self, library: Path) -> None:
        self._library = library
        self._storage = storage_of(library)
        #: Checksum and size of each file, or why it cannot be read.
        self.results: dict[str, tuple[str, int] | str] = {}
        self.bytes = 0

    def problem(self, name: str, sha256: str, size: int) -> str | None:
        """The problem of a file; None when it is whole."""
        path = self._library / name
        if name not in self.results:
            try:
                digest, size_read = hashlib.sha256(), 0
                for block in self._storage.blocks(path):
                    digest.update(block)
                    size_read += len(block)
                self.results[name] = (digest.hexdigest(), size_read)
                self.bytes += size_read
            except OSError as error:
                self.results[name] = error.strerror or str(error)
        result = self.results[name]
        if isinstance(result, str):
            return f"{path}: {result}"
        actual_sha256, actual_size = result
        if actual_size != size:
            return f"{path}: {actual_size} bytes, expected {size}"
        return None if actual_sha256 == sha256 else f"{path}: its SHA-256 differs"


def verify_snapshot(library: Path, number: int, current: bool, hashes: FileHashes) -> SnapshotReport:
    """Check one snapshot; if it is `current`, the one that is served, also every row of its tables."""
    report = SnapshotReport(number, current, staged(library, number))
    lease = None
    try:
        lease = hold(snapshot_folder(library, number))
        report.manifest = manifest = read_snapshot_manifest(library, number)
        if current:
            check_not_former(library, manifest)
        for name, stamp in manifest.files.items():
            problem = hashes.problem(name, stamp.sha256, stamp.bytes)
            if problem:
                report.problems.append(problem)
                report.damaged_files.add(name)
        if current:
            _check_rows(library, manifest, report)
        # Do not open damaged files with the backend of the vectors.
        if not report.problems and not manifest.is_former:
            with opening_errors(snapshot_folder(library, number)):
                bring_index(library, manifest)
                report.problems += _disagreements(library, manifest)
    except LibraryError as error:
        report.problems.append(str(error))
    finally:
        if lease is not None:
            lease.close()
    return report


def _check_rows(library: Path, manifest: SnapshotManifest, report: SnapshotReport) -> None:
    """Compare all rows with their checksums, and name the videos of those that are damaged."""
    damaged = {library / name for name in report.damaged_files}
    folder = tables_folder(library, manifest.generation)
    scanned = {
        name: list(scan_rows(folder, name, version, damaged)) for name, version in manifest.tables.items()
    }
    report.rows_are_read = True
    report.rows_without_checksums = sum(f.unchecked for each in scanned.values() for f in each)
    paths: dict[str, str] = {}
    if not any(f.wrong.any() for name in ("videos", "files") for f in scanned[name]):
        with storage_errors(folder):
            place = shown_places(open_table(folder, "files", manifest.tables["files"]))
            dataset = open_table(folder, "videos", manifest.tables["videos"])
            keys = sorted({"ingest_id", TEXTS_INGEST} & set(dataset.schema.names))
            for row in dataset.to_table(columns=["video_id", *keys]).to_pylist():
                path = place.get(row["video_id"], f"video {row['video_id']}")
                paths |= dict.fromkeys((row[key] for key in keys), path)
    names = set()
    for name, fragments in scanned.items():
        rows = sum(int(f.wrong.sum()) for f in fragments)
        ingests = {f.ingests[i] for f in fragments for i in np.flatnonzero(f.wrong).tolist()}
        if rows:
            report.problems.append(
                f"{table_path(folder, name)}: {rows} rows of {len(ingests)} videos are damaged"
            )
        names |= {paths[ingest] for ingest in ingests if ingest in paths}
    report.damaged_videos = sorted(names)


def _disagreements(library: Path, manifest: SnapshotManifest) -> Iterable[str]:
    """How tables, manifest and index of whole files disagree. Opening the snapshot checks the counts."""
    snapshot = Snapshot.of_checked(library, manifest)
    folder = tables_folder(library, manifest.generation)
    tables = {name: open_table(folder, name, version) for name, version in manifest.tables.items()}
    where = f"snapshot {manifest.number}"
    problem = misalignment(tables["segments"], tables["frames"])
    if problem:
        yield f"{where}: {problem}"
    with storage_errors(table_path(folder, "videos")):
        videos = tables["videos"].to_table(columns=["video_id", "ingest_id", "verdict", "num_segments"])
    with storage_errors(table_path(folder, "segments")):
        segments = tables["segments"].to_table(columns=["ingest_id", "segment_index"])
    segments_of: dict[str, list[int]] = {}
    for row in segments.to_pylist():
        segments_of.setdefault(row["ingest_id"], []).append(row["segment_index"])
    searchable = 0
    for row in videos.to_pylist():
        indices = segments_of.pop(row["ingest_id"], [])
        searchable += row["verdict"] in SEARCHABLE
        if sorted(indices) != list(range(row["num_segments"])):
            yield f"{where}: video {row['video_id']} has segments {indices[:5]}, not {row['num_segments']}"
    for ingest in segments_of:
        yield f"{where}: segments of ingest {ingest}, which is not in the table of videos"
    if len(set(videos["video_id"].to_pylist())) != videos.num_rows:
        yield f"{where}: a video id occurs twice in the table of videos"
    if searchable != manifest.num_videos:
        yield f"{where}: {searchable} videos, the manifest says {manifest.num_videos}"
    if "texts" in tables:
        yield from (f"{where}: {fault}" for fault in _wrong_lines(folder, tables))
    for fault in wrong_meaning(folder, manifest, tables):
        yield f"{where}: {fault}"
    if snapshot.tokens_per_frame:
        yield from _wrong_tokens(tables["frames"], folder, where)
    vectors = SegmentVectors(folder, tables["segments"])
    problem = vector_backend(manifest.index_backend).verify(snapshot.index, vectors)
    if problem:
        yield f"{where}: {problem}"


def _wrong_lines(folder: Path, tables: dict[str, lance.LanceDataset]) -> Iterable[str]:
    """How the lines are not those that the videos name, and whether a search finds them all."""
    with storage_errors(table_path(folder, "texts")):
        if tables["texts"].count_rows() and not has_words(tables["texts"]):
            yield "the table of texts has no index of words"
        found = Counter(
            ingest
            for batch in tables["texts"].to_batches(columns=["ingest_id"])
            for ingest in batch["ingest_id"].to_pylist()
        )
    with storage_errors(table_path(folder, "videos")):
        if not set(TEXT_COLUMNS) <= set(tables["videos"].schema.names):
            yield "the table of videos names no lines"
            return
        videos = tables["videos"].to_table(columns=["video_id", "texts_ingest_id", "num_lines"])
    for row in videos.to_pylist():
        count = found.pop(row["texts_ingest_id"], 0)
        if count != (row["num_lines"] or 0):
            yield f"video {row['video_id']} has {count} lines of text, not {row['num_lines'] or 0}"
    for ingest in found:
        yield f"lines of ingest {ingest}, which no video names"


def _wrong_tokens(frames: lance.LanceDataset, folder: Path, where: str) -> Iterable[str]:
    """Check that the stored tokens are finite."""
    floats = [field.name for field in frames.schema if field.name in ("tokens", "token_scale")][-1:]
    path = table_path(folder, "frames")
    with storage_errors(path):
        for batch in frames.to_batches(columns=floats, batch_size=_CHECKED_FRAMES):
            if not np.isfinite(fixed_to_numpy(batch[floats[0]])).all():
                yield f"{where}: {path} holds tokens that are not finite"
                return


def _remedy_beside(library: Path, reports: list[SnapshotReport], served: SnapshotReport) -> str:
    """What to do about damaged snapshots while the one that is served is whole."""
    own = None if served.manifest is None else served.manifest.generation
    others = {
        generation_name(report.manifest.bundle_checksum)
        for report in reports
        if report.problems and report.manifest is not None and report.manifest.generation != own
    }
    if not others:
        return "damaged ones are removed as `reelfind index` publishes new ones"
    folder = for_shell(library)
    return (
        f"of generation {', '.join(sorted(others))}, `reelfind index PATH --library {folder} --bundle BUNDLE "
        "--repair` reads the damaged rows again, or "
        f"`reelfind library drop NAME --library {folder}` removes it"
    )


def _remedy(library: Path, reports: list[SnapshotReport]) -> str | None:
    if not any(report.problems for report in reports):
        return None
    whole = [report.number for report in reports if not report.problems and report.staged is None]
    served = next((report for report in reports if report.current), None)
    if served is not None and not served.problems:
        return f"the snapshot that is served is whole; {_remedy_beside(library, reports, served)}"
    rollback_remedy = (
        f"serve a whole snapshot with `reelfind library rollback --library {for_shell(library)} "
        f"--to {whole[-1]}`, then index again"
        if whole
        else None
    )
    manifest = None if served is None else served.manifest
    if served is None or manifest is None:
        remedies = []
    elif served.damaged_files and served.damaged_files <= {*manifest.index_files, *manifest.text_index_files}:
        names = ", ".join(sorted(served.damaged_files))
        if served.damaged_files.isdisjoint(manifest.shared_index_files):
            remedies = [f"only {names} is damaged: `reelfind index` rebuilds it from the tables"]
        else:
            command = f"reelfind library vectors rebuild --library {for_shell(library)}"
            remedies = [f"only {names} is damaged: `{command}` makes the index anew from the tables"]
    elif served.rows_are_read:
        folders = " ".join(shlex.quote(root) for root in manifest.media_roots)
        command = f"reelfind index {folders} --library {shlex.quote(os.fspath(library))} --repair"
        remedies = [f"`{command}` reads the videos with damaged rows again and keeps all others"]
    else:
        remedies = []
    remedies += [rollback_remedy] if rollback_remedy else []
    if remedies:
        return "; or ".join(remedies)
    return "no snapshot is whole: restore the library from a backup, or index into a new folder"
