"""Compares indexing on a Ray cluster of this machine alone with the local engine; they take turns."""

import struct
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from indexer.encode import open_indexing_bundle
from indexer.engines.base import Engine
from indexer.events import Event, FileStarted
from indexer.options import CPU_BATCH_FRAMES, IndexOptions, default_workers
from indexer.run import decoder_bounds, index_paths
from model.runtime.bundle import Bundle
from model.runtime.cores import available_cores
from model.runtime.errors import ReelfindError
from service.bench.figures import Bar, Figure, Section, ratios
from service.bench.indexing import VideoSet, large_clips, small_clips

_BAR = Bar(">=", 0.85)
#: Times as many clips as for the other parts: both engines must come to their pace.
_TIMES_AS_MANY = 4


@dataclass(frozen=True)
class EngineTiming:
    """How long a run took, in seconds: until the first file was begun, and from then on."""

    starting: float
    working: float


def measure_engines(cache: Path, bundle: Path, *, repeats: int, clips: int) -> list[Figure]:
    """Index many small clips, and 1080p, with both engines.

    Raises:
        InputError: Ray is not installed.
        ReelfindError: no cluster can be started here.
    """
    # Late: `reelfind bench` must start without Ray.
    from indexer.engines.ray import RayEngine
    from indexer.engines.ray_cluster import RayOptions, check_reachable, connected

    check_reachable(None)
    opened, encoders = open_indexing_bundle(bundle, "cpu", None, CPU_BATCH_FRAMES)
    options = IndexOptions(workers=default_workers(), encoders=encoders)
    clips *= _TIMES_AS_MANY
    figures = []
    with connected(None), tempfile.TemporaryDirectory() as folder:
        for copies in (small_clips(cache, clips), large_clips(cache, max(2, clips // 8))):
            figures += compare_engines(
                distinct(copies, Path(folder) / copies.folder.name),
                opened,
                options,
                repeats,
                lambda: RayEngine(RayOptions(), decoder_bounds(options)),
            )
    return figures


def distinct(copies: VideoSet, folder: Path) -> VideoSet:
    """MP4 files with the same pictures, each with a content of its own: copies are not decoded twice."""
    folder.mkdir()
    files = []
    for number, copy in enumerate(copies.files):
        # A box that players pass over.
        box = struct.pack(">I4sI", 12, b"free", number)
        files.append(folder / copy.name)
        files[-1].write_bytes(copy.read_bytes() + box)
    return VideoSet(copies.label, folder, tuple(files), copies.seconds)


def compare_engines(
    videos: VideoSet, bundle: Bundle, options: IndexOptions, repeats: int, new_engine: Callable[[], Engine]
) -> list[Figure]:
    """Index `videos` with the local engine and with another one in turn; each time the other one begins."""
    index_with(None, videos, bundle, options)  # the warm-up: files and code are in memory now
    local: list[EngineTiming] = []
    ray: list[EngineTiming] = []
    for number in range(repeats):
        turns = [(local, None), (ray, new_engine())]
        for timings, engine in turns if number % 2 else reversed(turns):
            timings.append(index_with(engine, videos, bundle, options))
    note = f"{available_cores()} cores; from the first file on, without the start of actors"
    working = [[timing.working for timing in side] for side in (local, ray)]
    # A shorter time is a higher throughput.
    label = videos.label
    return [
        Figure(Section.ENGINES, f"{label}: throughput, Ray ÷ local", ratios(*working), bar=_BAR, note=note),
        *(
            Figure(Section.ENGINES, f"{label}: indexing, {name}", tuple(seconds), "s")
            for name, seconds in zip(("local", "Ray"), working, strict=True)
        ),
        *(
            Figure(Section.ENGINES, f"{label}: until the first file, {name}", _starting(side), "s")
            for name, side in (("local", local), ("Ray", ray))
        ),
    ]


def index_with(
    engine: Engine | None, videos: VideoSet, bundle: Bundle, options: IndexOptions
) -> EngineTiming:
    """Index videos into a new library, which is removed again; None: with the local engine.

    Raises:
        ReelfindError: not every video was indexed.
    """
    first: list[float] = []

    def note_first(event: Event) -> None:
        if isinstance(event, FileStarted) and not first:
            first.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        library = Path(folder) / "library"
        summary = index_paths([videos.folder], library, bundle, options, note_first, engine=engine)
        ended = time.perf_counter()
    if summary.verdicts["ok"] != len(videos.files):
        raise ReelfindError(f"not every video could be indexed: {summary.failures[:1]}")
    return EngineTiming(first[0] - begun, ended - first[0])


def _starting(timings: Sequence[EngineTiming]) -> tuple[float, ...]:
    return tuple(timing.starting for timing in timings)
