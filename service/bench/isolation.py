"""Compares indexing with confined decoders and without (`reelfind index --sandbox off`), which take turns."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from indexer.encode import open_indexing_bundle
from indexer.options import CPU_BATCH_FRAMES, IndexOptions, default_workers
from model.runtime.bundle import Bundle
from model.runtime.sandbox.confinement import SandboxMode
from service.bench.figures import Bar, Figure, Section, ratios
from service.bench.indexing import Timing, VideoSet, index_videos, large_clips, small_clips

_BAR = Bar("<=", 1.03)
#: Pairs of runs for each repetition: the difference is smaller than the noise of one pair.
_PAIRS = 3


def measure_isolation(cache: Path, bundle: Path, *, repeats: int, clips: int) -> list[Figure]:
    """Index many small clips, each in a process of its own, and 1080p."""
    opened, encoders = open_indexing_bundle(bundle, "cpu", None, CPU_BATCH_FRAMES)
    options = IndexOptions(workers=default_workers(), encoders=encoders)
    figures = []
    for videos in (small_clips(cache, clips), large_clips(cache, max(2, clips // 8))):
        figures += compare_modes(videos, opened, options, repeats * _PAIRS)
    return figures


def compare_modes(videos: VideoSet, bundle: Bundle, options: IndexOptions, pairs: int) -> list[Figure]:
    """Index `videos` with each mode in turn, `pairs` times; each time the other one begins."""
    index_videos(videos, bundle, options)  # the warm-up: files and code are in memory now
    modes: tuple[SandboxMode, SandboxMode] = ("off", "auto")
    timings: dict[str, list[Timing]] = {mode: [] for mode in modes}
    for number in range(pairs):
        for mode in modes if number % 2 else modes[::-1]:
            timings[mode].append(index_videos(videos, bundle, replace(options, sandbox=mode)))
    off, confined = timings["off"], timings["auto"]

    def ratio(name: str, kind: str, bar: Bar | None = None) -> Figure:
        values = ratios(*([getattr(timing, kind) for timing in side] for side in (confined, off)))
        return Figure(Section.ISOLATION, f"{videos.label}: {name}, confined ÷ not", values, bar=bar)

    return [
        ratio("time to index", "seconds", _BAR),
        ratio("CPU time", "cpu_seconds"),
        _seconds(videos, "confined", confined),
        _seconds(videos, "not confined", off),
    ]


def _seconds(videos: VideoSet, name: str, timings: Sequence[Timing]) -> Figure:
    values = tuple(timing.seconds for timing in timings)
    return Figure(Section.ISOLATION, f"{videos.label}: indexing, {name}", values, "s")
