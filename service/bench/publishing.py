"""Measures what it costs to publish one video more, another one, or one less in a large library."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.library.folder import Library
from indexer.library.publish import PublishOptions, publish
from indexer.library.schema import VideoRow
from indexer.library.writer import LibraryWriter
from model.runtime.bundle import Bundle
from service.bench.ann import clustered_vectors
from service.bench.figures import Bar, Figure, Section, ratios
from service.bench.synthetic import make_library, now, path_of, put_video, video_row

_SEGMENTS_A_VIDEO = 50
_FRAMES_A_SEGMENT = 4
_VIDEOS_A_BLOCK = 400
_MIB = 1 << 20
_BAR, _BARRED_SEGMENTS = Bar("<=", 5.0), 1_000_000

Video = tuple[VideoRow, Sequence[NDArray[np.float32]]]


def measure_publishing(bundle_folder: Path, *, segments: int, repeats: int) -> list[Figure]:
    """Add, replace and remove one video, and publish each change.

    The time is that of opening the library for writing, of the change, and of publishing it. The bytes are
    those of files that were not there before.
    """
    bundle = Bundle.open(bundle_folder)
    videos = segments // _SEGMENTS_A_VIDEO
    seconds: dict[str, list[float]] = {}
    written: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "library"
        library = make_library(folder, bundle, make_videos(bundle.manifest.embedding_dim, range(videos)))
        _publish(library, "SQ8")
        anew = _timed(partial(_publish, library, "auto"))
        for turn in range(repeats):
            start = videos + 2 * turn
            first, second = make_videos(bundle.manifest.embedding_dim, range(start, start + 2))
            changes: dict[str, Callable[[LibraryWriter], None]] = {
                "added": partial(_put, first),
                "replaced": partial(_put, second, replaced=first),
                "removed": partial(_remove, second),
            }
            for change, make in changes.items():
                before = _files(folder)
                seconds.setdefault(change, []).append(_timed(partial(_change, library, make)))
                new = _files(folder).items() - before.items()
                written.setdefault(change, []).append(sum(size for _, size in new) / _MIB)
    of = f"{segments:,} segments"
    bar = _BAR if segments >= _BARRED_SEGMENTS else None
    return [
        Figure(Section.PUBLISHING, f"{of}: index built anew and published", (anew,), "s"),
        *(
            figure
            for change in seconds
            for figure in (
                Figure(Section.PUBLISHING, f"one video {change}", tuple(seconds[change]), "s", bar=bar),
                Figure(
                    Section.PUBLISHING,
                    f"one video {change} ÷ index built anew",
                    ratios(seconds[change], [anew] * repeats),
                ),
                Figure(Section.PUBLISHING, f"one video {change}: written", tuple(written[change]), "MiB"),
            )
        ),
    ]


def _put(video: Video, writer: LibraryWriter, replaced: Video | None = None) -> None:
    if replaced is not None:
        _remove(replaced, writer)
    put_video(writer, *video)


def _remove(video: Video, writer: LibraryWriter) -> None:
    writer.forget_file(path_of(video[0]))


def _change(library: Library, make: Callable[[LibraryWriter], None]) -> None:
    with library.writing():
        writer = LibraryWriter(library)
        make(writer)
        writer.flush()
        publish(writer, PublishOptions(), last=True)


def _publish(library: Library, index_factory: str) -> None:
    """Publish with another kind of index than before: it is built anew."""
    with library.writing():
        publish(LibraryWriter(library), PublishOptions(index_factory=index_factory), last=True)


def make_videos(dim: int, numbers: range) -> Iterator[Video]:
    """Videos with these numbers, each of 50 segments: those of a block have vectors around common centres."""
    made = now()
    for first in range(numbers.start, numbers.stop, _VIDEOS_A_BLOCK):
        block = range(first, min(first + _VIDEOS_A_BLOCK, numbers.stop))
        count = len(block) * _SEGMENTS_A_VIDEO
        vectors, _ = clustered_vectors(count, 0, dim, clusters=max(1, count // 500), seed=first)
        for number, own in zip(block, vectors.reshape(len(block), _SEGMENTS_A_VIDEO, dim), strict=True):
            video = video_row(
                number, made, num_segments=_SEGMENTS_A_VIDEO, frames_a_segment=_FRAMES_A_SEGMENT
            )
            yield video, list(own)


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _files(folder: Path) -> dict[int, int]:
    """The size in bytes of each file of a library, by its inode."""
    found = (path.stat() for path in folder.rglob("*") if path.is_file())
    return {each.st_ino: each.st_size for each in found}
