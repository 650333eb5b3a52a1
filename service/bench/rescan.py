"""Measures how fast a run finds that nothing has changed: the scan, and the plan that it comes to."""

import os
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from indexer.library.schema import FileRow, VideoRow
from indexer.plan import make_plan
from indexer.scan import Scan, scan
from model.runtime.errors import ReelfindError
from service.bench.figures import Figure, Section
from service.bench.synthetic import video_row

_FILES_PER_FOLDER = 200


@dataclass(frozen=True)
class _Known:
    """A library that knows all files: each is a video of its own. See `indexer.plan.KnownVideos`."""

    videos: dict[str, VideoRow]
    files: dict[bytes, FileRow]

    def places(self, video_id: str) -> list[FileRow]:
        """The only place of a video."""
        return [file for file in self.files.values() if file.video_id == video_id]


def measure_rescan(*, files: int, repeats: int) -> list[Figure]:
    """Make empty files, and look `repeats` times whether one of them has changed.

    Raises:
        ReelfindError: not all files were found again.
    """
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve()
        _make_files(root, files)
        known = _known(scan([root]))
        rates = []
        for _ in range(repeats):
            started = time.perf_counter()
            plan = make_plan(scan([root]), known, retry_failed=False)
            rates.append(files / (time.perf_counter() - started))
            if plan.unchanged != files:
                raise ReelfindError(f"{plan.unchanged} of {files} files were found again")
    return [Figure(Section.RESCAN, f"{files:,} files without a change", tuple(rates), "files/s")]


def _make_files(root: Path, files: int) -> None:
    for number in range(files):
        folder = root / f"{number // _FILES_PER_FOLDER:05d}"
        if number % _FILES_PER_FOLDER == 0:
            folder.mkdir()
        (folder / f"VID_{number:06d}.mp4").touch()


def _known(scanned: Scan) -> _Known:
    now = datetime.now(UTC)
    videos: dict[str, VideoRow] = {}
    files: dict[bytes, FileRow] = {}
    for number, (path, facts) in enumerate(scanned.facts.items()):
        video = video_row(number, now, size=facts.bytes)
        place = os.fsencode(path)
        files[place] = FileRow(place, video.video_id, facts.mtime_ns, now)
        videos[video.video_id] = video
    return _Known(videos, files)
