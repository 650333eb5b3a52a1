"""What a run has to do: which files are new, changed, unchanged or gone."""

import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from indexer.library.records import SEARCHABLE, displayable, video_id_of
from indexer.library.schema import VideoRow
from indexer.scan import Scan
from model.runtime.errors import InputError


@dataclass(frozen=True)
class Task:
    """One file to read.

    Attributes:
        ingest_id: marks all rows that this reading writes.
        same_sha256: with this content the file counts as unchanged, though its time has changed.
    """

    path: Path
    video_id: str
    ingest_id: str
    same_sha256: str | None


@dataclass
class Plan:
    """What a scan and a library's state amount to."""

    tasks: list[Task] = field(default_factory=list)
    unchanged: int = 0
    failed_before: int = 0
    vanished: list[str] = field(default_factory=list)
    """Ids of videos below the scanned paths whose files are gone."""


def make_plan(found: Scan, known: Mapping[str, VideoRow], *, retry_failed: bool) -> Plan:
    """Decide for every file: read it, look at its content, or pass it over.

    A file of the size and modification time it had is unchanged. One of the same size and another time is
    read only if its SHA-256 differs. A failure is remembered like a success, unless `retry_failed`.
    """
    plan = Plan()
    present = set()
    for path in found.files:
        video_id = video_id_of(path)
        present.add(video_id)
        row = known.get(video_id)
        same_sha256 = None
        if row is not None:
            failed = row.verdict not in SEARCHABLE
            try:
                stat = path.stat()
            except OSError:
                stat = None
            if stat is not None and stat.st_size == row.bytes and not (failed and retry_failed):
                if stat.st_mtime_ns == row.mtime_ns:
                    plan.unchanged += 1
                    plan.failed_before += failed
                    continue
                same_sha256 = row.sha256 or None
        plan.tasks.append(Task(path, video_id, secrets.token_hex(8), same_sha256))
    plan.vanished = [
        video_id
        for video_id, row in known.items()
        if video_id not in present and _is_gone(Path(os.fsdecode(row.path)), found)
    ]
    return plan


def check_not_emptied(found: Scan, plan: Plan, known: Mapping[str, VideoRow]) -> None:
    """Refuse to prune a folder in which there is no video any more: its disk may not be mounted.

    Raises:
        InputError: there is such a folder, and the library has videos below it.
    """
    gone = [Path(os.fsdecode(known[video_id].path)) for video_id in plan.vanished]
    for root in found.covered:
        lost = sum(_below(path, [root]) for path in gone)
        if lost and not any(_below(path, [root]) for path in found.files):
            raise InputError(
                f"no video is left in {displayable(root)}, and `prune` would remove the {lost} that the "
                "library has from there: is its disk mounted? Give `prune_empty` if they are really gone"
            )


def _is_gone(path: Path, found: Scan) -> bool:
    if not _below(path, found.covered) or _below(path, [folder for folder, _ in found.problems]):
        return False
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        # Not to be reached now is not gone.
        return False
    return False


def _below(path: Path, folders: Sequence[Path]) -> bool:
    return any(path == folder or folder in path.parents for folder in folders)
