"""Measures what each stage of indexing takes alone, and how well the plan that follows from it is kept."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from indexer.decode import prepare_pictures
from indexer.encode import TaskSegment, open_indexing_bundle
from indexer.library.manifest import SNAPSHOTS
from indexer.options import IndexOptions, default_batch_frames, default_workers
from indexer.run import decode_spec
from indexer.scan import scan
from model.runtime.bundle import Bundle, Provider
from model.runtime.cores import available_cores
from model.runtime.errors import InputError, VideoError
from model.runtime.video import VideoReader, probe
from service.bench.figures import Bar, Figure, Section
from service.bench.indexing import (
    Timing,
    decode_alone,
    encode_alone,
    index_into,
    large_clips,
    small_clips,
    timed,
    video_set,
)
from service.bench.plan import Fleet, Prediction, Workload, measure_demand, predict
from service.bench.stage_rates import DecodingRates, EncodingRates, StageRates, WritingRates
from service.bench.storing import measure_publishing_rates, measure_writing, size_of

#: How far predicted and measured time may be apart.
_BAR = Bar("<=", 1.25)
_TINY_FILES = 16
#: Of its whole time, at least this is a codec's: what is measured apart from it may be a little too much.
_LEAST_SHARE = 0.02
#: Segments that are encoded alone, at most; all are decoded.
_ENCODED_SEGMENTS = 64
#: Files of a folder that are measured, at most, and as many with which the prediction is compared.
_OWN_FILES = 32


@dataclass(frozen=True)
class StageScale:
    """How much is measured.

    Attributes:
        clips: number of small clips; there are an eighth as many large ones.
        segments: of the larger of the two libraries that are published without pictures.
        written: segments that are written with pictures.
        repeats: how often each figure is measured.
    """

    clips: int
    segments: int
    written: int
    repeats: int


@dataclass(frozen=True)
class _Kind:
    """Videos to measure, and others of the same kind with which the prediction is compared."""

    name: str
    measured: tuple[Path, ...]
    compared: tuple[Path, ...]


@dataclass(frozen=True)
class _Machine:
    """What all stages run with."""

    bundle: Bundle
    options: IndexOptions

    @property
    def fleet(self) -> Fleet:
        """This machine, for the plan."""
        gpus = 0 if self.bundle.provider == "cpu" else 1
        return Fleet(1, available_cores(), gpus, max(1, self.options.workers))


def measure_rates(
    cache: Path, bundle: Path, own: Sequence[Path], scale: StageScale, provider: Provider = "cpu"
) -> StageRates:
    """Measure all stages.

    Args:
        cache: where generated videos are kept.
        bundle: the model bundle's folder.
        own: folders of videos, of which every second file is measured; none: videos are generated.
        scale: how much is measured.
        provider: where the model runs.

    Raises:
        InputError: a folder holds fewer than two videos.
        BundleError: the bundle cannot be read, or the provider is not active.
    """
    kinds = _own_kinds(own) or _generated_kinds(cache, scale.clips)
    return _measure(_open(bundle, provider), kinds, cache, scale)


def measure_stages(
    cache: Path, bundle: Path, own: Sequence[Path], scale: StageScale
) -> tuple[StageRates, list[Figure]]:
    """Measure all stages on a CPU, index other videos, and compare the time with what the rates predict.

    Args:
        cache: where generated videos are kept.
        bundle: the model bundle's folder.
        own: folders of videos; every second file is measured, and the others are compared. None: videos
            are generated.
        scale: how much is measured.

    Raises:
        InputError: a folder holds fewer than two videos.
        BundleError: the bundle cannot be read.
    """
    machine = _open(bundle, "cpu")
    kinds = _own_kinds(own) or _generated_kinds(cache, scale.clips)
    rates = _measure(machine, kinds, cache, scale)
    return rates, [figure for kind in kinds for figure in _compare(machine, rates, kind, scale.repeats)]


def _open(bundle: Path, provider: Provider) -> _Machine:
    batch_frames = default_batch_frames(provider)
    opened, encoders = open_indexing_bundle(bundle, provider, None, batch_frames)
    options = IndexOptions(workers=default_workers(), encoders=encoders, batch_frames=batch_frames)
    return _Machine(opened, options)


def _generated_kinds(cache: Path, clips: int) -> list[_Kind]:
    """Short clips of 240p and longer ones of 1080p; those to compare with have other lengths."""
    large = max(2, clips // 8)
    small_longer = video_set(
        cache, f"{clips} clips of 240p, 12 s", clips, width=320, height=240, seconds=6, times=2
    )
    large_longer = video_set(
        cache, f"{large} videos of 1080p, 40 s", large, width=1920, height=1080, seconds=5, times=8
    )
    return [
        _Kind("240p", small_clips(cache, clips).files, small_longer.files),
        _Kind("1080p", large_clips(cache, large).files, large_longer.files),
    ]


def _own_kinds(folders: Sequence[Path]) -> list[_Kind]:
    return [_own_kind(folder) for folder in folders]


def _own_kind(folder: Path) -> _Kind:
    """The videos of a folder that can be read: every second one is measured."""
    found = []
    for path in sorted(scan([folder]).files):
        try:
            probe(path)
        except VideoError:
            continue
        found.append(path)
        if len(found) == 2 * _OWN_FILES:
            break
    if len(found) < 2:
        raise InputError(
            f"{folder} holds {len(found)} videos that can be read: name a folder with two or more"
        )
    return _Kind(folder.name or str(folder), tuple(found[::2]), tuple(found[1::2]))


def _workloads(kind: str, files: Sequence[Path]) -> list[Workload]:
    return [Workload(kind, 1, probe(path).duration_seconds) for path in files]


def _measure(machine: _Machine, kinds: Sequence[_Kind], cache: Path, scale: StageScale) -> StageRates:
    bundle, options, repeats = machine.bundle, machine.options, scale.repeats
    tiny = video_set(
        cache, f"{_TINY_FILES} tiny clips", _TINY_FILES, width=64, height=48, seconds=1, times=1
    ).files
    decode_alone(tiny[:1], bundle, options)  # the warm-up: code is in memory now
    empty = _decode_time((), bundle, repeats)
    per_file = max(0.0, _decode_time(tiny, bundle, repeats).cpu_seconds - empty.cpu_seconds) / len(tiny)
    decoding, segments = {}, []
    for kind in kinds:
        decoded = decode_alone(kind.measured, bundle, options)
        decoding[kind.name] = _decoding(kind, decoded, empty, per_file, machine, repeats)
        segments += decoded[:: max(1, len(decoded) // _ENCODED_SEGMENTS)]
    writing = measure_writing(
        bundle, segments, batch_frames=options.batch_frames, count=scale.written, repeats=repeats
    )
    manifest = bundle.manifest
    rates = StageRates(
        cores=available_cores(),
        bundle=manifest.name,
        segment_seconds=manifest.segment_seconds,
        frames_per_segment=manifest.frames_per_segment,
        core_seconds_per_file=per_file,
        start_seconds=0.0,
        start_core_seconds=0.0,
        efficiency=1.0,
        decoding=decoding,
        encoding=_encoding(machine, segments, repeats),
        writing=WritingRates(
            core_seconds_per_segment=writing.cpu_seconds / scale.written,
            elapsed_seconds_per_segment=writing.seconds / scale.written,
            library_bytes_per_segment=1.0,
        ),
        publishing=measure_publishing_rates(bundle, segments=scale.segments, repeats=repeats),
    )
    return _with_whole_runs(rates, machine, tiny[:1], kinds, repeats)


def _decode_time(files: Sequence[Path], bundle: Bundle, repeats: int) -> Timing:
    """Time of one process that decodes files."""
    one = IndexOptions(workers=1)
    return _typical([timed(lambda: decode_alone(files, bundle, one, keep=False)) for _ in range(repeats)])


def _decoding(
    kind: _Kind,
    decoded: Sequence[TaskSegment],
    empty: Timing,
    per_file: float,
    machine: _Machine,
    repeats: int,
) -> DecodingRates:
    seconds = sum(workload.seconds for workload in _workloads(kind.name, kind.measured))
    picture = _picture_seconds(kind.measured[: max(1, len(kind.measured) // 4)], machine)
    timing = _decode_time(kind.measured, machine.bundle, repeats)
    others = len(kind.measured) * per_file + sum(len(part.frames) for _, part in decoded) * picture
    core = max(timing.cpu_seconds - empty.cpu_seconds - others, _LEAST_SHARE * timing.cpu_seconds)
    # Alone on a machine, a process takes no longer than its CPU time: the rest is what others take from it.
    elapsed = max(timing.seconds - empty.seconds - others, _LEAST_SHARE * timing.seconds)
    return DecodingRates(
        core_seconds_per_second=core / seconds,
        picture_core_seconds_per_frame=picture,
        cores_used=max(1.0, core / elapsed),
        media_bytes_per_second=sum(path.stat().st_size for path in kind.measured) / seconds,
        files=len(kind.measured),
        seconds=seconds,
    )


def _picture_seconds(files: Sequence[Path], machine: _Machine) -> float:
    """CPU seconds of scaling a sampled frame and making its thumbnail."""
    manifest = machine.bundle.manifest
    spec = decode_spec(manifest, "pyav")
    spent, frames = 0.0, 0
    for path in files:
        with VideoReader(path) as reader:
            for segment in reader.segments(manifest.segment_seconds, manifest.frames_per_segment):
                spent += timed(partial(prepare_pictures, segment.frames, spec)).cpu_seconds
                frames += len(segment.frames)
    return spent / frames


def _encoding(machine: _Machine, segments: Sequence[TaskSegment], repeats: int) -> EncodingRates:
    encode_alone(machine.bundle, segments[:2], machine.options)
    frames = sum(len(segment.frames) for _, segment in segments)
    timings = [timed(lambda: encode_alone(machine.bundle, segments, machine.options)) for _ in range(repeats)]
    return EncodingRates(
        provider=machine.bundle.provider,
        batch_frames=machine.options.batch_frames,
        core_seconds_per_frame=_typical(timings).cpu_seconds / frames,
        elapsed_seconds_per_frame=min(timing.seconds for timing in timings) / frames,
    )


def _typical(timings: Sequence[Timing]) -> Timing:
    """The medians of both times."""
    return Timing(
        median(timing.seconds for timing in timings), median(timing.cpu_seconds for timing in timings)
    )


def _with_whole_runs(
    rates: StageRates, machine: _Machine, tiny: Sequence[Path], kinds: Sequence[_Kind], repeats: int
) -> StageRates:
    """The rates with what only whole runs show: their start, their efficiency, the size of the library."""
    # The length of a tiny file hardly counts.
    marginal = _predict(rates, machine, [Workload(next(iter(rates.decoding)), 1, 0.0)])
    run = _whole_run(machine, tiny, repeats)
    started = {
        "start_seconds": max(0.0, run.timing.seconds - marginal.seconds),
        "start_core_seconds": max(0.0, run.timing.cpu_seconds - marginal.core_seconds),
    }
    rates = rates.model_copy(update=started)
    busy = working = size = segments = 0.0
    for kind in kinds:
        prediction = _predict(rates, machine, _workloads(kind.name, kind.measured))
        run = _whole_run(machine, kind.measured, repeats)
        busy += prediction.working_seconds
        working += max(0.0, run.timing.seconds - prediction.start_seconds - prediction.publish_seconds)
        size, segments = size + run.table_bytes, segments + prediction.demand.segments
    writing = rates.writing.model_copy(update={"library_bytes_per_segment": size / segments})
    efficiency = 1.0 if working <= busy else busy / working
    return rates.model_copy(update={"efficiency": efficiency, "writing": writing})


def _predict(rates: StageRates, machine: _Machine, workloads: Sequence[Workload]) -> Prediction:
    return predict(rates, measure_demand(rates, workloads), machine.fleet)


@dataclass(frozen=True)
class _Run:
    """A whole indexing run.

    Attributes:
        timing: medians.
        seconds: of each repetition.
        cpu_seconds: of each repetition.
        table_bytes: size of the library's tables.
    """

    timing: Timing
    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]
    table_bytes: int


def _whole_run(machine: _Machine, files: Sequence[Path], repeats: int) -> _Run:
    """Index files into a new library, `repeats` times."""
    timings, size = [], 0
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as name:
            library = Path(name) / "library"
            work = partial(index_into, library, files, len(files), machine.bundle, machine.options)
            timings.append(timed(work))
            size = size_of(library) - size_of(library / SNAPSHOTS)
    seconds = tuple(timing.seconds for timing in timings)
    return _Run(_typical(timings), seconds, tuple(timing.cpu_seconds for timing in timings), size)


def _compare(machine: _Machine, rates: StageRates, kind: _Kind, repeats: int) -> list[Figure]:
    """Index videos that were not measured, and compare the time with what is predicted."""
    workloads = _workloads(kind.name, kind.compared)
    prediction = _predict(rates, machine, workloads)
    core_seconds = prediction.core_seconds + rates.start_core_seconds
    run = _whole_run(machine, kind.compared, repeats)
    minutes = sum(workload.seconds for workload in workloads) / 60
    of = f"{len(kind.compared)} other videos of {kind.name}"
    note = f"{minutes:.1f} minutes of video; busiest: {prediction.bottleneck}"
    figures = []
    for name, predicted, measured in (
        ("time to index", prediction.seconds, run.seconds),
        ("CPU time to index", core_seconds, run.cpu_seconds),
    ):
        apart = tuple(max(predicted / value, value / predicted) for value in measured)
        ratio = f"{name} {of}, predicted and measured: the larger ÷ the smaller"
        figures += [
            Figure(Section.STAGES, ratio, apart, bar=_BAR, note=note),
            Figure(Section.STAGES, f"{name} {of}: predicted", (predicted,), "s"),
            Figure(Section.STAGES, f"{name} {of}: measured", measured, "s"),
        ]
    return figures
