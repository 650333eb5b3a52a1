"""Publishes the latest versions of the tables as a new snapshot, which `CURRENT` then names."""

import os
from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import lance
import numpy as np
from numpy.typing import NDArray

from indexer.library.alignment import misalignment
from indexer.library.errors import LibraryError, NotFiniteError, storage_errors
from indexer.library.generations import base_manifest, remove_snapshot, snapshots_of, stage_new, staged
from indexer.library.lance_tables import steadily
from indexer.library.leases import retired_seconds
from indexer.library.manifest import (
    CURRENT,
    SNAPSHOTS,
    FileStamp,
    SnapshotManifest,
    bring_index,
    current_number,
    index_is_whole,
    read_snapshot_manifest,
    readable_manifests,
    snapshot_folder,
    snapshot_numbers,
    text_index_is_whole,
    to_json,
)
from indexer.library.records import SEARCHABLE
from indexer.library.row_changes import kept_rows
from indexer.library.schema import TABLES
from indexer.library.storage.base import MANIFEST_FILE
from indexer.library.storage.registry import storage_of
from indexer.library.tables import SegmentVectors, open_table, table_path, version_files
from indexer.library.vectors.base import AUTOMATIC, DEFAULT_BACKEND, AnyBackend, VectorIndex
from indexer.library.vectors.registry import BACKENDS, automatic_backend, vector_backend
from indexer.library.writer import LibraryWriter
from model.runtime.errors import InputError
from model.runtime.faults import checkpoint
from model.runtime.files import flush, sha256_once
from model.runtime.messages import for_shell


@dataclass(frozen=True)
class PublishOptions:
    """How to publish.

    Attributes:
        index_backend: one of `BACKENDS`, or `auto`; None: what was requested for the last snapshot.
        index_factory: the kind of index in the backend's notation, or `auto`; None: what was requested for
            the last snapshot.
        gpu: build the index on the GPUs if there are any and the backend can.
        keep_snapshots: how many of the newest snapshots are kept, for `rollback`.
        keep_seconds: how long other snapshots are kept after they were served, for readers elsewhere. Those
            that a reader on this machine holds are kept as long as it does.
        media_roots: folders to add to those of the last snapshot.
        damaged_snapshots: numbers of snapshots to remove because a file that they need is damaged.
        serve: let `CURRENT` name the new snapshot; else it is staged, see `indexer.library.generations`.
        rebuild: make the index from the tables alone, even if there is a whole one.
    """

    index_backend: str | None = None
    index_factory: str | None = None
    gpu: bool = False
    keep_snapshots: int = 5
    keep_seconds: float = 600.0
    media_roots: tuple[Path, ...] = ()
    damaged_snapshots: frozenset[int] = frozenset()
    serve: bool = True
    rebuild: bool = False


def needs_publishing(writer: LibraryWriter, base: SnapshotManifest, options: PublishOptions) -> bool:
    """Whether tables or options differ from the snapshot before, or its index is damaged."""
    backend = _backend(options, base, writer.datasets["segments"].count_rows()).name
    requested = _requested_index(options, backend, base)
    roots = {str(root) for root in options.media_roots}
    versions = {name: dataset.version for name, dataset in writer.datasets.items()}
    return (
        versions != base.tables
        or (backend, requested) != (base.index_backend, base.index_requested)
        or _requested_backend(options, base) != base.backend_requested
        or not roots <= set(base.media_roots)
        or base.number in options.damaged_snapshots
        or not index_is_whole(writer.library.path, base)
        or not text_index_is_whole(writer.library.path, base)
    )


def chosen_backend(name: str | None, base: SnapshotManifest | None) -> AnyBackend:
    """The backend for the vectors of the next snapshot, as far as their number does not choose it.

    Args:
        name: one of `BACKENDS`, or `AUTOMATIC`; None: what was requested for `base`.
        base: the snapshot before, see `base_manifest`.

    Raises:
        InputError: there is no backend of this name.
        LibraryError: this program lacks the backend of `base`.
    """
    if name is not None and name not in (AUTOMATIC, *BACKENDS):
        raise InputError(
            f"index_backend is {name!r}: it must be one of {', '.join(sorted(BACKENDS))}, or {AUTOMATIC}",
            field="index_backend",
        )
    if name not in (None, AUTOMATIC):
        return vector_backend(name)
    return vector_backend(base.index_backend if base and name is None else DEFAULT_BACKEND)


def _requested_backend(options: PublishOptions, base: SnapshotManifest | None) -> str:
    """The backend requested now or the last time: one of `BACKENDS`, or `AUTOMATIC`."""
    return options.index_backend or (base.backend_requested if base else AUTOMATIC)


def _backend(options: PublishOptions, base: SnapshotManifest | None, num_rows: int) -> AnyBackend:
    """The backend of the next snapshot: chosen by size where neither it nor a kind of index was requested."""
    backend = chosen_backend(options.index_backend, base)
    if _requested_backend(options, base) != AUTOMATIC:
        return backend
    if _requested_index(options, backend.name, base) != AUTOMATIC:
        return backend
    return vector_backend(automatic_backend(num_rows, backend.name))


def _requested_index(options: PublishOptions, backend: str, base: SnapshotManifest | None) -> str:
    """The kind of index requested now or, for the same backend, the last time."""
    if options.index_factory is not None:
        return options.index_factory
    return base.index_requested if base and base.index_backend == backend else AUTOMATIC


def publish(writer: LibraryWriter, options: PublishOptions, *, last: bool) -> SnapshotManifest:
    """Publish the committed state of the tables as a new snapshot, or stage it.

    Videos with embeddings that are not finite are set aside first, see `LibraryWriter.set_aside`.
    After a crash at any moment, `CURRENT` names a whole snapshot: this one or the one before; if this one is
    only staged, always the one before.

    Args:
        writer: has committed everything that the snapshot should hold.
        options: how to publish.
        last: no video is being read, so small files may be joined and unfinished files removed.

    Raises:
        LibraryError: the disk is full, or the tables cannot be read.
    """
    library = writer.library.path
    base = base_manifest(library, writer.library.generation)
    is_whole = base is not None and index_is_whole(library, base)
    is_damaged = base is None or not is_whole or base.number in options.damaged_snapshots
    words_are_whole = base is None or text_index_is_whole(library, base)
    # Before files are joined: those whose rows are not in the index are joined with no others.
    writer.index_words(anew=not words_are_whole)
    if last:
        writer.compact()
    # Never use a number twice: readers tell snapshots apart by it.
    storage = storage_of(library)
    number = max([0, *snapshot_numbers(library), *([base.number] if base else [])]) + 1
    root = library / SNAPSHOTS
    with storage_errors(root):
        while not storage.reserve(snapshot_folder(library, number)):
            number += 1
        folder = root / f".{number}.new"
        folder.mkdir(parents=True)
        try:
            manifest = _write_index(
                writer, options, number, base, folder, extend=not is_damaged and not options.rebuild
            )
        except NotFiniteError:
            writer.set_aside_not_finite()
            manifest = _write_index(writer, options, number, base, folder, extend=False)
        checkpoint("publish.manifest")
        (folder / MANIFEST_FILE).write_text(to_json(manifest), encoding="utf-8")
        if not options.serve:
            stage_new(folder)
        storage.place_folder(folder, snapshot_folder(library, number), _same_files(library, base, manifest))
        if options.serve:
            storage.serve(library / CURRENT, f"{number}\n", step="current")
    checkpoint("publish.done")
    damaged = set(options.damaged_snapshots)
    if base is not None and not is_whole:
        damaged |= _with_damaged_index(library, writer.library.generation)
    elif base is not None and not words_are_whole:
        damaged.add(base.number)
    prune_snapshots(writer, options, last=last, damaged=damaged)
    return manifest


def _same_files(library: Path, base: SnapshotManifest | None, manifest: SnapshotManifest) -> dict[str, Path]:
    """Files of the snapshot before that are equal to some of a new one's, by the names of these."""
    own = f"{SNAPSHOTS}/{manifest.number}/"
    before = {} if base is None else {base.files[name]: library / name for name in base.index_files}
    new = {name.removeprefix(own): stamp for name, stamp in manifest.files.items() if name.startswith(own)}
    return {name: before[stamp] for name, stamp in new.items() if stamp in before}


def _with_damaged_index(library: Path, generation: str) -> set[int]:
    """The snapshots of a generation whose index is damaged: several may share its file."""
    # A manifest that cannot be read is another matter: see `repair`.
    return {
        manifest.number
        for manifest in readable_manifests(library)
        if manifest.generation == generation and not index_is_whole(library, manifest)
    }


def _write_index(
    writer: LibraryWriter,
    options: PublishOptions,
    number: int,
    base: SnapshotManifest | None,
    folder: Path,
    *,
    extend: bool,
) -> SnapshotManifest:
    """Write the vector index into the new snapshot's folder and return the snapshot's manifest."""
    library, layout, tables = writer.library.path, writer.layout, writer.library.tables
    segments, frames = writer.datasets["segments"], writer.datasets["frames"]
    since = None if base is None else _changes_since(base, writer)
    problem = misalignment(segments, frames, since.frames if since else None)
    if problem is not None:
        raise LibraryError(
            f"tables of {library} disagree: {problem}; "
            f"`reelfind library rollback --library {for_shell(library)}` serves an earlier snapshot"
        )
    vectors = SegmentVectors(tables, segments)
    backend = _backend(options, base, vectors.num_rows)
    requested = _requested_index(options, backend.name, base)
    spec = backend.automatic_spec(vectors.num_rows) if requested == AUTOMATIC else requested
    index = None
    if base is not None and since is not None and extend:
        index = _extended(library, base, backend, spec, vectors, since)
    if index is None:
        index, spec = backend.build(vectors, spec, folder, gpu=options.gpu)
    checkpoint("publish.index")
    written = backend.save(index, folder)
    checkpoint("publish.index_written")
    files = {}
    for path in written:
        if path.is_relative_to(folder):
            flush(path)
            name = os.fspath(snapshot_folder(Path(), number) / path.relative_to(folder))
            files[name] = FileStamp(sha256_once(path), path.stat().st_size)
    known_stamps = base.files if base else {}
    shared = [path for path in written if not path.is_relative_to(folder)]
    new = [path for path in shared if os.fspath(path.relative_to(library)) not in known_stamps]
    storage_of(library).flush(new, library)
    files |= _stamps(library, shared, known_stamps)
    for name in TABLES:
        files |= _stamps(library, version_files(tables, name, writer.datasets[name]), known_stamps)
    verdicts = Counter(video.verdict for video in writer.videos.values())
    roots = set(base.media_roots if base else []) | {str(root) for root in options.media_roots}
    return SnapshotManifest(
        number=number,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        bundle_name=layout.bundle_name,
        bundle_checksum=layout.bundle_checksum,
        embedding_dim=layout.embedding_dim,
        salience_dim=layout.salience_dim,
        num_videos=sum(verdicts[verdict] for verdict in SEARCHABLE),
        num_segments=vectors.num_rows,
        num_frames=frames.count_rows(),
        verdicts=dict(sorted(verdicts.items())),
        index_factory=spec,
        index_requested=requested,
        tables={name: writer.datasets[name].version for name in TABLES},
        media_roots=sorted(roots),
        files=files,
        index_backend=backend.name,
        backend_requested=_requested_backend(options, base),
        generation=writer.library.generation,
        full_embedding_dim=layout.full_embedding_dim or 0,
    )


@dataclass(frozen=True)
class _Changes:
    """What has become of the tables since a snapshot.

    Attributes:
        kept: the rows of `segments` that are the first ones now, int64 [R], ascending.
        num_segments: how many segments there were.
        frames: the table in the version of then.
    """

    kept: NDArray[np.int64]
    num_segments: int
    frames: lance.LanceDataset


def _changes_since(base: SnapshotManifest, writer: LibraryWriter) -> _Changes | None:
    """What a snapshot's tables have become; None where they are others now, or it cannot be read."""
    try:
        old, frames = (
            open_table(writer.library.tables, name, base.tables[name]) for name in ("segments", "frames")
        )
        kept = kept_rows(old, writer.datasets["segments"])
    except (OSError, ValueError, KeyError, RuntimeError, LibraryError):
        return None
    return None if kept is None else _Changes(kept, old.count_rows(), frames)


def _extended(
    library: Path,
    base: SnapshotManifest,
    backend: AnyBackend,
    spec: str,
    vectors: SegmentVectors,
    since: _Changes,
) -> VectorIndex | None:
    """The base's index as that of the rows now; None when it must be built anew."""
    if (base.index_backend, base.index_factory) != (backend.name, spec) or base.num_segments == 0:
        return None
    try:
        bring_index(library, base)
        index: VectorIndex = backend.open(snapshot_folder(library, base.number))
    except (OSError, ValueError, RuntimeError, LibraryError):
        return None
    if index.num_rows != since.num_segments:
        return None
    extended: VectorIndex | None = backend.extend(index, vectors, since.kept)
    return extended


def _stamps(library: Path, paths: Iterable[Path], known_stamps: dict[str, FileStamp]) -> dict[str, FileStamp]:
    """Hash files. Files of the last snapshot are immutable, so their hashes are reused."""
    storage = storage_of(library)
    stamps = {}
    for path in paths:
        name = os.fspath(path.relative_to(library))
        stamps[name] = known_stamps.get(name) or FileStamp(storage.sha256(path), storage.size(path))
    return stamps


def remove_due_snapshots(writer: LibraryWriter, options: PublishOptions) -> None:
    """Remove damaged snapshots, and those that were kept for readers when the last one was published."""
    library = writer.library
    numbers = snapshots_of(library.path, library.generation)
    if len(numbers) > options.keep_snapshots or not options.damaged_snapshots.isdisjoint(numbers):
        prune_snapshots(writer, options, last=True, damaged=options.damaged_snapshots)


def prune_snapshots(
    writer: LibraryWriter, options: PublishOptions, *, last: bool, damaged: Set[int] = frozenset()
) -> None:
    """Remove old and damaged snapshots, and the versions of tables that no snapshot needs any more.

    Those of other generations stay, so that they can be served again. What a reader on this machine holds
    stays too; so does, unless it is damaged, what was served until `keep_seconds` ago. Of staged snapshots
    only the newest and the newest complete one are kept.
    """
    library, generation = writer.library.path, writer.library.generation
    storage = storage_of(library)
    current = current_number(library)
    numbers = snapshots_of(library, generation)
    states = {number: staged(library, number) for number in numbers}
    kept = {number for number, state in states.items() if state is None}
    kept = set(sorted(kept)[-max(options.keep_snapshots, 1) :])
    if not options.serve:
        kept |= set(numbers[-1:]) | set([n for n in numbers if states[n] == "complete"][-1:])
    with storage_errors(library / SNAPSHOTS):
        for number in numbers:
            folder = snapshot_folder(library, number)
            if number == current:
                continue
            is_due = states[number] is not None or retired_seconds(folder) >= options.keep_seconds
            if number in damaged or (number not in kept and is_due):
                remove_snapshot(folder)
    try:
        manifests = [read_snapshot_manifest(library, number) for number in snapshot_numbers(library)]
    except LibraryError:
        # A damaged manifest may need any version: remove none until that snapshot is removed.
        return
    pinned = [manifest.tables for manifest in manifests if manifest.generation == generation]
    for name in TABLES:
        dataset = writer.datasets[name]
        needed = {tables[name] for tables in pinned if name in tables} | {dataset.version}
        with storage_errors(table_path(writer.library.tables, name)):
            # A later version is that of a process which has taken over, without this one's knowing it yet.
            path = table_path(writer.library.tables, name)
            present = (
                v["version"] for v in steadily(path, dataset.versions) if v["version"] <= dataset.version
            )
            old = [version for version in present if version not in needed]
            checkpoint(f"prune.{name}")
            # Unless `last`, data files that no version names belong to a long video that is still being read.
            storage.check_writing()
            if old:
                unverified = last and storage.is_local
                remove = partial(dataset.cleanup_old_versions, versions=old, delete_unverified=unverified)
                steadily(path, remove)
            elif last and storage.is_local:
                dataset.cleanup_old_versions(older_than=timedelta(days=36500), delete_unverified=True)
            checkpoint(f"pruned.{name}")
