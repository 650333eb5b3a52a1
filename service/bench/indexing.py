"""Compares the speed of indexing with the slower of its two halves, each alone with the same settings.

The halves are the indexer's own code: its decoding processes without encoding, and its encoding of segments
that are already decoded.
"""

import queue
import resource
import struct
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from indexer.decode import DecodedSegment
from indexer.encode import EncodeSpec, TaskSegment, encode_batch, open_indexing_bundle
from indexer.engines.local_decoders import Bounds, ProcessDecoder
from indexer.library.folder import make_layout
from indexer.options import CPU_BATCH_FRAMES, IndexOptions, default_workers
from indexer.plan import IndexTask
from indexer.run import decode_spec, index_paths
from model.runtime.bundle import Bundle
from model.runtime.cores import available_cores
from model.runtime.errors import ReelfindError
from service.bench.figures import Bar, Figure, Section, ratios
from service.bench.media import cached, repeat_video, write_video

_BAR = Bar(">=", 0.85)
# Different films of a set; the others show the same, but are no copies: those would not be decoded.
_DISTINCT = 2


@dataclass(frozen=True)
class VideoSet:
    """Videos of one kind."""

    label: str
    folder: Path
    files: tuple[Path, ...]
    seconds: float
    """Total length of the videos."""


def measure_indexing(cache: Path, bundle: Path, *, repeats: int, clips: int) -> list[Figure]:
    """Measure on many small clips, where encoding takes longer, and on 1080p, where decoding does."""
    opened, encoders = open_indexing_bundle(bundle, "cpu", None, CPU_BATCH_FRAMES)
    options = IndexOptions(workers=default_workers(), encoders=encoders)
    figures = []
    for videos in (small_clips(cache, clips), large_clips(cache, max(2, clips // 8))):
        figures += measure_videos(videos, opened, options, repeats)
    return figures


def small_clips(cache: Path, count: int) -> VideoSet:
    """`count` files of 320 x 240, 6 s each: one segment each."""
    return video_set(cache, f"{count} clips of 240p, 6 s", count, width=320, height=240, seconds=6, times=1)


def large_clips(cache: Path, count: int) -> VideoSet:
    """`count` files of 1920 x 1080, 20 s each: one segment each."""
    return video_set(
        cache, f"{count} videos of 1080p, 20 s", count, width=1920, height=1080, seconds=5, times=4
    )


def index_clips(cache: Path, bundle: Path, folder: Path, count: int) -> Path:
    """Index the small clips into a new library in `folder` and return it."""
    library = folder / "library"
    options = IndexOptions(workers=default_workers())
    index_paths(
        [small_clips(cache, count).folder], library, Bundle.open(bundle), options, lambda _event: None
    )
    return library


def video_set(
    cache: Path, label: str, count: int, *, width: int, height: int, seconds: int, times: int
) -> VideoSet:
    """`count` files of `times` times `seconds` each, kept in `cache`."""
    folder = cache / f"{count}-different-{height}p-{seconds * times}s"
    sources = []
    for seed in range(_DISTINCT):
        make = partial(write_video, width=width, height=height, seconds=seconds, seed=seed)
        block = cached(cache / f"block-{height}p-{seconds}s-{seed}.mp4", make)
        repeat = partial(repeat_video, block, times=times)
        sources.append(cached(cache / f"source-{height}p-{seconds * times}s-{seed}.mp4", repeat))
    files = []
    for number in range(count):
        write = partial(_write_different, sources[number % _DISTINCT], number)
        files.append(cached(folder / f"video-{number:03d}.mp4", write))
    return VideoSet(label, folder, tuple(files), float(count * seconds * times))


def _write_different(source: Path, number: int, path: Path) -> None:
    """Copy an MP4 file, with a box behind it that players pass over and that holds a number."""
    box = struct.pack(">I4sQ", 16, b"free", number)
    path.write_bytes(source.read_bytes() + box)


def measure_videos(videos: VideoSet, bundle: Bundle, options: IndexOptions, repeats: int) -> list[Figure]:
    """Decode, encode and index `videos`, taking turns, `repeats` times."""
    segments = decode_alone(
        videos.files, bundle, options
    )  # also the warm-up: files and code are in memory now
    encode_alone(bundle, segments[:8], options)
    decoding: list[Timing] = []
    encoding: list[Timing] = []
    indexing: list[Timing] = []
    for _ in range(repeats):
        decoding.append(timed(lambda: decode_alone(videos.files, bundle, options, keep=False)))
        encoding.append(timed(lambda: encode_alone(bundle, segments, options)))
        indexing.append(index_videos(videos, bundle, options))
    both = list(zip(decoding, encoding, strict=True))
    slower = [max(a.seconds, b.seconds) for a, b in both]
    cores = available_cores()
    # Both halves may share the cores of the CPU: then the time is at least the sum of their CPU time over the
    # cores.
    floor = [
        max(least, (a.cpu_seconds + b.cpu_seconds) / cores)
        for least, (a, b) in zip(slower, both, strict=True)
    ]
    total = [timing.seconds for timing in indexing]
    frames = sum(len(segment.frames) for _, segment in segments)
    note = (
        f"{frames} frames in {len(segments)} segments; {options.workers} decoding "
        f"process{'es' if options.workers != 1 else ''}, batches of {options.batch_frames}, {cores} cores"
    )
    label = videos.label
    return [
        Figure(
            Section.INDEXING,
            f"{label}: over the slower half alone",
            ratios(slower, total),
            bar=_BAR,
            note=note,
        ),
        Figure(Section.INDEXING, f"{label}: over what {cores} cores allow for both", ratios(floor, total)),
        Figure(
            Section.INDEXING, f"{label}: decoding alone", tuple(timing.seconds for timing in decoding), "s"
        ),
        Figure(
            Section.INDEXING, f"{label}: encoding alone", tuple(timing.seconds for timing in encoding), "s"
        ),
        Figure(Section.INDEXING, f"{label}: indexing", tuple(total), "s"),
        Figure(
            Section.INDEXING,
            f"{label}: length ÷ time to index",
            tuple(videos.seconds / value for value in total),
        ),
    ]


@dataclass(frozen=True)
class Timing:
    """Wall time, and the CPU time of this process and of its children."""

    seconds: float
    cpu_seconds: float


def timed(work: Callable[[], object]) -> Timing:
    """Time a piece of work."""
    cpu, started = _cpu_seconds(), time.perf_counter()
    work()
    return Timing(time.perf_counter() - started, _cpu_seconds() - cpu)


def _cpu_seconds() -> float:
    """CPU seconds of this process and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def decode_alone(
    files: Sequence[Path], bundle: Bundle, options: IndexOptions, *, keep: bool = True
) -> list[TaskSegment]:
    """Decode all files in the indexer's worker processes. → Their segments; none without `keep`."""
    pending: queue.SimpleQueue[Path] = queue.SimpleQueue()
    for path in files:
        pending.put(path)
    segments: list[TaskSegment] = []
    sink: Callable[[Iterable[TaskSegment]], object]
    sink = segments.extend if keep else partial(deque, maxlen=0)
    failures: list[BaseException] = []
    spec = decode_spec(bundle.manifest, options.decoder)

    def work() -> None:
        try:
            decoder = ProcessDecoder(Bounds(), threading.Event())
            try:
                while (path := _next(pending)) is not None:
                    task = IndexTask(path, "bench")
                    parts = decoder.read(spec.job(path))
                    sink((task, part) for part in parts if isinstance(part, DecodedSegment))
            finally:
                decoder.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(options.workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return segments


def _next(pending: "queue.SimpleQueue[Path]") -> Path | None:
    try:
        return pending.get_nowait()
    except queue.Empty:
        return None


def encode_alone(bundle: Bundle, segments: Sequence[TaskSegment], options: IndexOptions) -> None:
    """Encode segments as the indexer does, and discard the rows."""
    batches: list[list[TaskSegment]] = [[]]
    for item in segments:
        if sum(len(segment.frames) for _, segment in batches[-1]) >= options.batch_frames:
            batches.append([])
        batches[-1].append(item)
    layout = make_layout(bundle, options.tokens, options.tokens_per_frame)
    spec = EncodeSpec.of(bundle, layout, options.batch_frames)
    with ThreadPoolExecutor(options.encoders) as pool:
        for _ in pool.map(partial(encode_batch, bundle, spec), batches):
            pass


def index_videos(videos: VideoSet, bundle: Bundle, options: IndexOptions) -> Timing:
    """Index videos into a new library, which is removed again.

    Raises:
        ReelfindError: their folder holds other videos too.
    """
    return index_files([videos.folder], len(videos.files), bundle, options)


def index_files(paths: Sequence[Path], count: int, bundle: Bundle, options: IndexOptions) -> Timing:
    """Index files and folders that hold `count` videos into a new library, which is removed again.

    Raises:
        ReelfindError: they hold another number of videos.
    """
    with tempfile.TemporaryDirectory() as folder:
        return timed(lambda: index_into(Path(folder) / "library", paths, count, bundle, options))


def index_into(
    library: Path, paths: Sequence[Path], count: int, bundle: Bundle, options: IndexOptions
) -> None:
    """Index files and folders that hold `count` videos.

    Raises:
        ReelfindError: they hold another number of videos.
    """
    summary = index_paths(paths, library, bundle, options, lambda _event: None)
    if summary.files != count or summary.unchanged:
        names = ", ".join(map(str, paths))
        raise ReelfindError(
            f"{names} hold {summary.files} videos, {summary.unchanged} of them copies, in place of {count} "
            "different ones: delete the rest"
        )
