"""Publishing: from the tables' latest versions to a new snapshot that `CURRENT` names."""

import os
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import faiss

from indexer.library.errors import LibraryError
from indexer.library.files import replace_text
from indexer.library.manifest import (
    CURRENT,
    INDEX_FILE,
    MANIFEST_FILE,
    SNAPSHOTS,
    FileStamp,
    SnapshotManifest,
    current_number,
    read_manifest,
    snapshot_folder,
    snapshot_numbers,
    to_json,
)
from indexer.library.records import SEARCHABLE
from indexer.library.schema import TABLES
from indexer.library.tables import lance_errors, open_table, table_path, version_files
from indexer.library.vectors.faiss import AUTOMATIC, automatic_factory, build_index, extend_index
from indexer.library.writer import LibraryWriter, alignment
from model.runtime.faults import checkpoint
from model.runtime.files import flush, sha256_of


@dataclass(frozen=True)
class PublishOptions:
    """How to publish.

    Attributes:
        index_factory: a FAISS factory string, `auto`, or None for what the last snapshot was asked for.
        gpu: build the index on the GPUs, when FAISS has any.
        keep_snapshots: how many of the newest snapshots stay, for `rollback`.
        media_roots: folders to add to those of the last snapshot.
    """

    index_factory: str | None = None
    gpu: bool = False
    keep_snapshots: int = 5
    media_roots: tuple[Path, ...] = ()


def needs_publishing(writer: LibraryWriter, base: SnapshotManifest, options: PublishOptions) -> bool:
    """Whether tables or options differ from the snapshot that is served, or its index is damaged."""
    asked = options.index_factory or base.index_requested
    roots = {str(root) for root in options.media_roots}
    versions = {name: dataset.version for name, dataset in writer.datasets.items()}
    return (
        versions != base.tables
        or asked != base.index_requested
        or not roots <= set(base.media_roots)
        or not index_is_whole(writer.library.path, base)
    )


def index_is_whole(library: Path, manifest: SnapshotManifest) -> bool:
    """Whether a snapshot's FAISS file is as it was written. All else that it holds is in the tables."""
    path = library / manifest.index_name
    stamp = manifest.files.get(manifest.index_name)
    try:
        return stamp is not None and path.stat().st_size == stamp.bytes and sha256_of(path) == stamp.sha256
    except OSError:
        return False


def publish(writer: LibraryWriter, options: PublishOptions, *, last: bool) -> SnapshotManifest:
    """Publish the committed state of the tables as a new snapshot.

    A crash at any moment leaves `CURRENT` naming a whole snapshot: this one or the one before.

    Args:
        writer: with nothing uncommitted that should be in the snapshot.
        options: how to publish.
        last: nothing is being read, so small files may be joined and unfinished ones removed.

    Raises:
        LibraryError: the disk is full, or the tables cannot be read.
    """
    library = writer.library.path
    if last:
        writer.compact()
    base = served(library)
    whole = base is not None and index_is_whole(library, base)
    # A number is never used twice: readers tell snapshots apart by it.
    number = max([0, *snapshot_numbers(library), *([base.number] if base else [])]) + 1
    root = library / SNAPSHOTS
    folder = root / f".{number}.new"
    with lance_errors(root):
        folder.mkdir()
        manifest = _write_index(writer, options, number, base, folder / INDEX_FILE, extend=whole)
        checkpoint("publish.manifest")
        (folder / MANIFEST_FILE).write_text(to_json(manifest), encoding="utf-8")
        checkpoint("publish.fsync")
        flush(folder / MANIFEST_FILE)
        flush(folder)
        checkpoint("publish.rename")
        folder.rename(snapshot_folder(library, number))
        checkpoint("publish.renamed")
        flush(root)
        flush(library)
        replace_text(library / CURRENT, f"{number}\n", "current")
    checkpoint("publish.done")
    prune_snapshots(
        writer,
        options.keep_snapshots,
        last=last,
        damaged=None if base is None or whole else base.number,
    )
    return manifest


def served(library: Path) -> SnapshotManifest | None:
    """The manifest of the snapshot that is served; None when there is none to build on."""
    try:
        number = current_number(library)
        return None if number is None else read_manifest(library, number)
    except LibraryError:
        # What is served is broken: the new snapshot is made from the tables alone.
        return None


def _write_index(
    writer: LibraryWriter,
    options: PublishOptions,
    number: int,
    base: SnapshotManifest | None,
    path: Path,
    *,
    extend: bool,
) -> SnapshotManifest:
    library, layout = writer.library.path, writer.layout
    segments, frames = writer.datasets["segments"], writer.datasets["frames"]
    where = table_path(library, "segments")
    fault = alignment(segments, frames)
    if fault is not None:
        raise LibraryError(f"tables of {library} disagree: {fault}; `reelfind library rollback` goes back")
    count = segments.count_rows()
    asked = options.index_factory or (base.index_requested if base else AUTOMATIC)
    factory = automatic_factory(count) if asked == AUTOMATIC else asked
    index = _extended(writer, base, factory) if base is not None and extend else None
    if index is None:
        index, factory = build_index(segments, where, layout.embedding_dim, factory, gpu=options.gpu)
    checkpoint("publish.index")
    faiss.write_index(index, str(path))
    checkpoint("publish.index_written")
    flush(path)
    known = base.files if base else {}
    index_stamp = FileStamp(sha256_of(path), path.stat().st_size)
    files = {f"{SNAPSHOTS}/{number}/{INDEX_FILE}": index_stamp}
    for name in TABLES:
        files |= _stamps(library, version_files(library, name, writer.datasets[name]), known)
    verdicts = Counter(video.verdict for video in writer.known.values())
    roots = set(base.media_roots if base else []) | {str(root) for root in options.media_roots}
    return SnapshotManifest(
        number=number,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        bundle_name=layout.bundle_name,
        bundle_checksum=layout.bundle_checksum,
        embedding_dim=layout.embedding_dim,
        salience_dim=layout.salience_dim,
        num_videos=sum(verdicts[verdict] for verdict in SEARCHABLE),
        num_segments=count,
        num_frames=frames.count_rows(),
        verdicts=dict(sorted(verdicts.items())),
        index_factory=factory,
        index_requested=asked,
        tables={name: writer.datasets[name].version for name in TABLES},
        media_roots=sorted(roots),
        files=files,
    )


def _extended(writer: LibraryWriter, base: SnapshotManifest, factory: str) -> faiss.Index | None:
    """A snapshot's whole index with the new rows added; None when that is not the same as a new one."""
    library = writer.library.path
    if base.index_factory != factory or base.num_segments == 0:
        return None
    path = library / base.index_name
    columns = ["ingest_id", "segment_index"]
    try:
        old = open_table(library, "segments", base.tables["segments"]).to_table(columns=columns)
        new = writer.datasets["segments"].to_table(columns=columns, limit=old.num_rows)
        if not old.combine_chunks().equals(new.combine_chunks()):
            return None
        index = faiss.read_index(str(path))
        if index.ntotal != old.num_rows:
            return None
    except (OSError, ValueError, KeyError, RuntimeError, LibraryError):
        return None
    extend_index(index, writer.datasets["segments"], table_path(library, "segments"))
    return index


def _stamps(library: Path, paths: Iterable[Path], known: dict[str, FileStamp]) -> dict[str, FileStamp]:
    """Hash files; those that the last snapshot has are immutable, so their hashes are taken over."""
    stamps = {}
    for path in paths:
        name = os.fspath(path.relative_to(library))
        stamps[name] = known.get(name) or FileStamp(sha256_of(path), path.stat().st_size)
    return stamps


def prune_snapshots(writer: LibraryWriter, keep: int, *, last: bool, damaged: int | None = None) -> None:
    """Remove old snapshots, one known to be damaged, and the versions of tables that none needs any more."""
    library = writer.library.path
    current = current_number(library)
    numbers = snapshot_numbers(library)
    kept = (set(numbers[-max(keep, 1) :]) - {damaged}) | {current}
    with lance_errors(library / SNAPSHOTS):
        for number in numbers:
            if number not in kept:
                aside = library / SNAPSHOTS / f".{number}.removed"
                checkpoint("prune.rename")
                snapshot_folder(library, number).rename(aside)
                checkpoint("prune.remove")
                shutil.rmtree(aside)
    try:
        pinned = [read_manifest(library, number).tables for number in snapshot_numbers(library)]
    except LibraryError:
        # What a damaged manifest pins is unknown: remove no version until it has been pruned itself.
        return
    for name in TABLES:
        dataset = writer.datasets[name]
        needed = {tables[name] for tables in pinned} | {dataset.version}
        with lance_errors(table_path(library, name)):
            old = [v["version"] for v in dataset.versions() if v["version"] not in needed]
            checkpoint(f"prune.{name}")
            # Data files that no version names are a long video's that is still being read, unless `last`.
            if old:
                dataset.cleanup_old_versions(versions=old, delete_unverified=last)
            elif last:
                dataset.cleanup_old_versions(older_than=timedelta(days=36500), delete_unverified=True)
            checkpoint(f"pruned.{name}")
