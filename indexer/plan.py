"""Plans a run: which files are new, changed, unchanged or gone."""

import hashlib
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from indexer.library.records import SEARCHABLE, displayable, video_id_of
from indexer.library.schema import VideoRow
from indexer.place import no_longer_exists
from indexer.scan import Scan, SubtitleFile
from model.runtime.errors import InputError

#: Part of `text_sources`: another number lets the next run read all texts again.
_READER = 1


@dataclass(frozen=True)
class IndexTask:
    """One file to index.

    Attributes:
        path: the file's absolute path.
        video_id: the id of the video at this path.
        ingest_id: marks all rows that this task writes; every task has a new one.
        same_sha256: a file with this checksum is unchanged, although its modification time is new. None: the
            file is new, has another size, or must be read again.
        device: the device (`st_dev`) that the file was on when it was found; None: unknown.
        size: the file's size in bytes when it was found; 0: unknown.
        subtitles: the subtitle files beside it.
        text_sources: names the state of these files, see `text_sources`; None: read no texts.
        kept_mtime_ns: the library has its pictures, of this time of modification: only its texts are read.
            None: decode it.
        fps: frames a second, where the library knows them; 0: unknown.
    """

    path: Path
    video_id: str
    ingest_id: str
    same_sha256: str | None
    device: int | None = None
    size: int = 0
    subtitles: tuple[SubtitleFile, ...] = ()
    text_sources: str | None = None
    kept_mtime_ns: int | None = None
    fps: float = 0.0


@dataclass
class IndexPlan:
    """What a run has to do.

    Attributes:
        tasks: the files to index.
        unchanged: how many files have the same size and modification time as before, and the same texts.
        failed_before: how many of these could not be read when they were tried.
        vanished: ids of the videos below the scanned paths whose files are gone.
    """

    tasks: list[IndexTask] = field(default_factory=list)
    unchanged: int = 0
    failed_before: int = 0
    vanished: list[str] = field(default_factory=list)


def make_plan(scanned: Scan, videos: Mapping[str, VideoRow], *, retry_failed: bool) -> IndexPlan:
    """Decide for every file whether to index it, to compare its checksum first, or to skip it.

    A file with the same size and modification time as before is unchanged. A file with the same size and
    another time is decoded only if its SHA-256 differs. Where only the subtitle files beside it have changed,
    or its texts have not been read, these are read and the pictures stay. Files that failed before count as
    unchanged too, unless `retry_failed` is set. No file is looked at again: what the scan found decides.

    Args:
        scanned: the files found.
        videos: the library's videos, by id.
        retry_failed: index files again that failed before.
    """
    plan = IndexPlan()
    present = set()
    for path in scanned.files:
        video_id = video_id_of(path)
        present.add(video_id)
        row = videos.get(video_id)
        found = scanned.facts[path]
        subtitles = scanned.subtitles.get(path, ())
        sources = None if path in scanned.subtitles_unknown else text_sources(subtitles)
        same_sha256 = kept_mtime_ns = None
        if row is not None:
            failed = row.verdict not in SEARCHABLE
            if found.bytes == row.bytes and not (failed and retry_failed):
                same_texts = failed or sources in (None, row.text_sources)
                if found.mtime_ns == row.mtime_ns and same_texts:
                    plan.unchanged += 1
                    plan.failed_before += failed
                    continue
                same_sha256 = row.sha256 or None
                kept_mtime_ns = row.mtime_ns if found.mtime_ns == row.mtime_ns else None
        plan.tasks.append(
            IndexTask(
                path=path,
                video_id=video_id,
                ingest_id=secrets.token_hex(8),
                same_sha256=same_sha256,
                device=found.device,
                size=found.bytes,
                subtitles=subtitles,
                text_sources=sources,
                kept_mtime_ns=kept_mtime_ns,
                fps=0.0 if row is None else row.fps,
            )
        )
    plan.vanished = [
        video_id
        for video_id, row in videos.items()
        if video_id not in present and _is_gone(Path(os.fsdecode(row.path)), scanned)
    ]
    return plan


def text_sources(subtitles: Sequence[SubtitleFile]) -> str:
    """A short text that tells whether the subtitle files of a video are the same as before."""
    if not subtitles:
        return str(_READER)
    files = sorted((os.fsencode(s.path.name).hex(), s.bytes, s.mtime_ns, s.language) for s in subtitles)
    return f"{_READER}:{hashlib.sha256(repr(files).encode()).hexdigest()[:16]}"


def check_not_emptied(scanned: Scan, plan: IndexPlan, videos: Mapping[str, VideoRow]) -> None:
    """Refuse to prune a folder with no video left: its disk may not be mounted.

    Raises:
        InputError: the library has videos below a folder in which no video is left.
    """
    gone = [Path(os.fsdecode(videos[video_id].path)) for video_id in plan.vanished]
    for root in scanned.covered:
        lost = sum(_below(path, [root]) for path in gone)
        if lost and not any(_below(path, [root]) for path in scanned.files):
            raise InputError(
                f"no video is left in {displayable(root)}, and `prune` would remove the {lost} that the "
                "library has from there: is its disk mounted? Give `prune_empty` if they are really gone"
            )


def _is_gone(path: Path, scanned: Scan) -> bool:
    if not _below(path, scanned.covered) or _below(path, [folder for folder, _ in scanned.problems]):
        return False
    return no_longer_exists(path)


def _below(path: Path, folders: Sequence[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)
