"""Plans a run: which files are new, changed, unchanged, missing or gone."""

import hashlib
import os
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from indexer.library.records import SEARCHABLE, displayable
from indexer.library.schema import FileRow, VideoRow
from indexer.place import no_longer_exists
from indexer.scan import Scan, SubtitleFile
from model.runtime.errors import InputError
from model.runtime.remote.path import media_path

#: Part of `text_sources`: another number lets the next run read all texts again.
_READER = 1


@dataclass(frozen=True)
class IndexTask:
    """One file to index.

    Attributes:
        path: the file's absolute path.
        ingest_id: marks all rows that this task writes; every task has a new one.
        video_id: the video that was at this path before; None: the path is new.
        known_sha256: checksums of the contents of this size that the library has, or that are excluded: a
            file with one of them is not decoded. Empty: there is none, or the file must be read again.
        device: the device (`st_dev`) that the file was on when it was found; None: unknown.
        size: the file's size in bytes when it was found; 0: unknown.
        subtitles: the subtitle files beside it.
        text_sources: names the state of these files, see `text_sources`; None: read no texts.
        kept_text_sources: as `text_sources`, of the texts that the library has of `video_id`.
        kept_mtime_ns: the library has its pictures, of this time of modification: only its texts are read.
            None: decode it.
        fps: frames a second, where the library knows them; 0: unknown.
    """

    path: Path
    ingest_id: str
    video_id: str | None = None
    known_sha256: tuple[str, ...] = ()
    device: int | None = None
    size: int = 0
    subtitles: tuple[SubtitleFile, ...] = ()
    text_sources: str | None = None
    kept_text_sources: str | None = None
    kept_mtime_ns: int | None = None
    fps: float = 0.0


@dataclass
class IndexPlan:
    """What a run has to do.

    Attributes:
        tasks: the files to index.
        unchanged: how many files have the same size and modification time as before, and the same texts.
        failed_before: how many of these could not be read when they were tried.
        found_again: paths of unchanged files that were missing before.
        gone: paths of files below the scanned paths that do not exist any more.
        missing: paths of files that cannot be found now, those that are gone among them; others are on a disk
            that is not mounted, or in a folder that cannot be read.
        left_out: paths of files below the scanned paths that a rule leaves out now; they are not missing.
        known_sha256: checksums of contents that need not be decoded again, by their sizes in bytes.
    """

    tasks: list[IndexTask] = field(default_factory=list)
    unchanged: int = 0
    failed_before: int = 0
    found_again: list[bytes] = field(default_factory=list)
    gone: list[bytes] = field(default_factory=list)
    missing: list[bytes] = field(default_factory=list)
    left_out: list[bytes] = field(default_factory=list)
    known_sha256: Mapping[int, tuple[str, ...]] = field(default_factory=dict)


class KnownVideos(Protocol):
    """What a library has: its videos by id, its places by path, and the places of a video."""

    @property
    def videos(self) -> Mapping[str, VideoRow]:
        """The videos, by their ids."""

    @property
    def files(self) -> Mapping[bytes, FileRow]:
        """The places, by their paths."""

    def places(self, video_id: str) -> Sequence[FileRow]:
        """The places of a video, the first one first."""


def make_plan(
    scanned: Scan,
    known: KnownVideos,
    *,
    retry_failed: bool,
    excluded: Mapping[int, Collection[str]] = MappingProxyType({}),
) -> IndexPlan:
    """Decide for every file whether to index it, to compare its checksum first, or to skip it.

    A file with the same path, size and modification time as before is unchanged. Any other file is decoded
    only if the library has no content with its size and its SHA-256. Where only the subtitle files beside a
    video's first place have changed, or its texts have not been read, these are read and the pictures stay.
    Contents that failed before count as known too, unless `retry_failed` is set. No file is looked at again:
    what the scan found decides.

    Args:
        scanned: the files found.
        known: the library's videos and places.
        retry_failed: index files again that failed before.
        excluded: checksums of contents that are not to be decoded either, by their sizes in bytes.
    """
    plan = IndexPlan()
    present = {os.fsencode(path) for path in scanned.files}
    plan.gone, plan.missing = _absent(scanned, known.files, present)
    plan.left_out = _left_out(scanned, known.files, present.union(plan.missing))
    missing = set(plan.missing)
    by_size = plan.known_sha256 = _checksums_by_size(known.videos.values(), excluded, retry_failed)
    sizes_to_decode: set[int] = set()
    later: list[IndexTask] = []
    for path in scanned.files:
        file = known.files.get(os.fsencode(path))
        row = None if file is None else known.videos.get(file.video_id)
        found = scanned.facts[path]
        subtitles = scanned.subtitles.get(path, ())
        sources = None if path in scanned.subtitles_unknown else text_sources(subtitles)
        kept_mtime_ns = None
        if file is not None and row is not None and found.bytes == row.bytes:
            failed = row.verdict not in SEARCHABLE
            if found.mtime_ns == file.mtime_ns and not (failed and retry_failed):
                same_texts = failed or sources in (None, row.text_sources)
                if same_texts or not _is_first(file, known, present, missing):
                    plan.unchanged += 1
                    plan.failed_before += failed
                    if file.missing_since is not None:
                        plan.found_again.append(file.path)
                    continue
                kept_mtime_ns = file.mtime_ns
        known_sha256 = by_size.get(found.bytes, ())
        if kept_mtime_ns is not None and row is not None:
            known_sha256 = (row.sha256,)
        task = IndexTask(
            path=path,
            ingest_id=secrets.token_hex(8),
            video_id=None if row is None else row.video_id,
            known_sha256=known_sha256,
            device=found.device,
            size=found.bytes,
            subtitles=subtitles,
            text_sources=sources,
            kept_text_sources=None if row is None else row.text_sources,
            kept_mtime_ns=kept_mtime_ns,
            fps=0.0 if row is None else row.fps,
        )
        # Of new files with the same size, one comes first: the others may be its copies.
        is_later = not known_sha256 and found.bytes in sizes_to_decode
        (later if is_later else plan.tasks).append(task)
        if not known_sha256:
            sizes_to_decode.add(found.bytes)
    plan.tasks += later
    return plan


def _absent(scanned: Scan, files: Iterable[bytes], present: Set[bytes]) -> tuple[list[bytes], list[bytes]]:
    """The paths that are gone, and those that are missing; see `IndexPlan`."""
    absent = [media_path(path) for path in files if path not in present]
    unreadable = [*(folder for folder, _ in scanned.problems), *scanned.away]
    away = {path for path in absent if _below(path, unreadable)}
    gone = [
        path
        for path in absent
        if path not in away and _below(path, scanned.covered) and no_longer_exists(path)
    ]
    return [os.fsencode(path) for path in gone], [os.fsencode(path) for path in sorted({*away, *gone})]


def _left_out(scanned: Scan, files: Iterable[bytes], others: Set[bytes]) -> list[bytes]:
    """The paths, without those of `others`, that a rule leaves out."""
    if not scanned.left_out:
        return []
    absent = [media_path(path) for path in files if path not in others]
    return [os.fsencode(p) for p in absent if _below(p, scanned.covered) and scanned.leaves_out(p)]


def _checksums_by_size(
    videos: Iterable[VideoRow], excluded: Mapping[int, Collection[str]], retry_failed: bool
) -> dict[int, tuple[str, ...]]:
    """The checksums of contents that need not be decoded again, by their sizes in bytes."""
    found: dict[int, list[str]] = {}
    for row in videos:
        if row.sha256 and (row.verdict in SEARCHABLE or not retry_failed):
            found.setdefault(row.bytes, []).append(row.sha256)
    for size, checksums in excluded.items():
        found.setdefault(size, []).extend(checksums)
    return {size: tuple(checksums) for size, checksums in found.items()}


def _is_first(file: FileRow, known: KnownVideos, present: Set[bytes], missing: Set[bytes]) -> bool:
    """Whether a file will be the first of its video's places."""
    there = (
        place
        for place in known.places(file.video_id)
        if place.path in present or (place.missing_since is None and place.path not in missing)
    )
    return min(there, key=lambda place: (place.found_at, place.path), default=file) == file


def text_sources(subtitles: Sequence[SubtitleFile]) -> str:
    """A short text that tells whether the subtitle files of a video are the same as before.

    Their names do not count: they are renamed with the video.
    """
    if not subtitles:
        return str(_READER)
    files = sorted((s.language or "", s.bytes, s.mtime_ns) for s in subtitles)
    return f"{_READER}:{hashlib.sha256(repr(files).encode()).hexdigest()[:16]}"


def check_not_emptied(scanned: Scan, plan: IndexPlan) -> None:
    """Refuse to prune a folder with no video left: its disk may not be mounted.

    Raises:
        InputError: the library has videos below a folder in which no video is left.
    """
    gone = [media_path(path) for path in plan.gone]
    for root in scanned.covered:
        lost = sum(_below(path, [root]) for path in gone)
        if lost and not any(_below(path, [root]) for path in scanned.files):
            raise InputError(
                f"no video is left in {displayable(root)}, and `prune` would remove the {lost} that the "
                "library has from there: is its disk mounted? Give `prune_empty` if they are really gone"
            )


def _below(path: Path, folders: Sequence[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)
