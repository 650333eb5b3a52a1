"""Measures what renamed files cost: each is read to recognise its content, and none is decoded."""

import hashlib
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from indexer.events import IndexSummary
from indexer.library.folder import Library
from indexer.library.publish import PublishOptions, publish
from indexer.library.schema import FileRow
from indexer.library.writer import LibraryWriter
from indexer.options import IndexOptions
from indexer.run import index_paths
from model.runtime.bundle import Bundle
from model.runtime.errors import ReelfindError
from service.bench.figures import Figure, Section, ratios
from service.bench.synthetic import segment_rows, video_row

_FILES_PER_FOLDER = 200
_FILE_BYTES = 20_000


def measure_renames(bundle_folder: Path, *, files: int, repeats: int) -> list[Figure]:
    """Rename all files of a library, and index them again; and again without a change.

    Raises:
        ReelfindError: a file was not recognised.
    """
    bundle = Bundle.open(bundle_folder)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve()
        media, library = root / "media", root / "library"
        _make_library(library, media, bundle, files)
        # The first run adds the lines of text of the files' names, which the tables above lack.
        _index(media, library, bundle)
        renamed, unchanged = [], []
        for turn in range(repeats):
            for path in sorted(media.rglob("*.mp4")):
                path.rename(path.with_name(f"{path.stem.split('-')[0]}-{turn}.mp4"))
            seconds, summary = _index(media, library, bundle)
            renamed.append(seconds)
            if summary.recognised != files or summary.moved != files:
                raise ReelfindError(f"{summary.recognised} of {files} files were recognised")
            unchanged.append(_index(media, library, bundle)[0])
    of = f"{files:,} files of {_FILE_BYTES // 1000} kB"
    return [
        Figure(Section.RENAMES, f"{of}, renamed", tuple(renamed), "s"),
        Figure(Section.RENAMES, f"{of}, renamed ÷ without a change", ratios(renamed, unchanged)),
    ]


def _index(media: Path, library: Path, bundle: Bundle) -> tuple[float, IndexSummary]:
    """How many seconds a run took, and what it did."""
    started = time.perf_counter()
    summary = index_paths([media], library, bundle, IndexOptions(settle_seconds=0.0), lambda _event: None)
    return time.perf_counter() - started, summary


def _make_library(folder: Path, media: Path, bundle: Bundle, files: int) -> None:
    """A library of files of random bytes, as if each had been decoded into one segment."""
    chance = np.random.default_rng(3)
    library = Library.open_or_create(folder, bundle, tokens="none")
    embedding = np.zeros(library.layout.embedding_dim, np.float32)
    embedding[0] = 1.0
    now = datetime.now(UTC)
    with library.writing():
        writer = LibraryWriter(library)
        for number in range(files):
            path = media / f"{number // _FILES_PER_FOLDER:05d}" / f"VID_{number:06d}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            content = chance.bytes(_FILE_BYTES)
            path.write_bytes(content)
            sha256 = hashlib.sha256(content).hexdigest()
            video = video_row(number, now, sha256=sha256, size=len(content))
            writer.add_segments(segment_rows(library, video, [embedding]))
            writer.finish(video)
            writer.put_file(FileRow(bytes(path), video.video_id, path.stat().st_mtime_ns, now))
            if number % 2000 == 1999:
                writer.flush()
        writer.flush()
        publish(writer, PublishOptions(), last=True)
