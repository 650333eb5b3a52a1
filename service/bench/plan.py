"""Predicts time, cost and bytes of an indexing run from what its stages take. See `deploy/scale.md`.

All stages of a run work at the same time. So the run takes as long as its busiest resource, and longer by
what the stages cost each other (`efficiency`). Before that comes its start, and after it the publishing at
its end, which nothing else overlaps.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from model.runtime.errors import InputError
from model.runtime.video import plan_segments
from service.bench.stage_rates import StageRates

#: About how often a long run publishes (`reelfind index --publish-minutes`).
PUBLISH_SECONDS = 300.0
#: More machines than this are not looked for.
_MOST_MACHINES = 1 << 20
_BITS = 8


@dataclass(frozen=True)
class Workload:
    """Files of one kind and one length.

    Attributes:
        kind: a kind in `StageRates.decoding`.
        files: how many; a mean, so it need not be whole.
        seconds_each: the length of each.
    """

    kind: str
    files: float
    seconds_each: float

    @property
    def seconds(self) -> float:
        """The length of all files."""
        return self.files * self.seconds_each


@dataclass(frozen=True)
class GpuRates:
    """What one GPU does, where it was not measured with the other rates.

    Attributes:
        frames_per_second: sampled frames that it encodes in a second; None: it does not encode, or it does
            as it was measured.
        decoded_seconds_per_second: seconds of video that it decodes in a second; None: it does not decode.
    """

    frames_per_second: float | None = None
    decoded_seconds_per_second: float | None = None


@dataclass(frozen=True)
class Fleet:
    """The machines, all alike.

    Attributes:
        machines: how many.
        cores: of each.
        gpus: of each.
        workers: decoding processes of each.
        link_gbit: how many Gbit/s each reads of the media; None: this is no limit.
    """

    machines: int
    cores: int
    gpus: int
    workers: int
    link_gbit: float | None = None


@dataclass(frozen=True)
class Demand:
    """What a run takes in all, on whatever machines.

    Attributes:
        video_seconds: length of all videos.
        files: how many files.
        segments: how many segments.
        frames: how many sampled frames.
        media_bytes: what is read.
        library_bytes: what the tables take.
        index_bytes: what the vector index takes.
        decode_core_seconds: CPU time of decoding.
        decode_process_seconds: time of decoding processes, each alone on a machine.
        decode_gpu_seconds: time of the decoders of GPUs.
        encode_core_seconds: CPU time of encoding.
        encode_gpu_seconds: time of GPUs for encoding.
        write_core_seconds: CPU time of writing.
        write_seconds: time of one writer.
        checksum_seconds: time of the one process that publishes, for checksums of all files.
        index_seconds: time of publishing without them.
    """

    video_seconds: float
    files: float
    segments: float
    frames: float
    media_bytes: float
    library_bytes: float
    index_bytes: float
    decode_core_seconds: float
    decode_process_seconds: float
    decode_gpu_seconds: float
    encode_core_seconds: float
    encode_gpu_seconds: float
    write_core_seconds: float
    write_seconds: float
    checksum_seconds: float
    index_seconds: float


@dataclass(frozen=True)
class Prediction:
    """How long a run takes.

    Attributes:
        demand: what it takes in all.
        fleet: the machines.
        busy_seconds: for each resource, how long it is busy at least, the longest first.
        start_seconds: before anything is read.
        working_seconds: while all stages work.
        publish_seconds: of publishing at the end.
    """

    demand: Demand
    fleet: Fleet
    busy_seconds: dict[str, float]
    start_seconds: float
    working_seconds: float
    publish_seconds: float

    @property
    def seconds(self) -> float:
        """The whole run, on the clock."""
        return self.start_seconds + self.working_seconds + self.publish_seconds

    @property
    def core_seconds(self) -> float:
        """CPU time of all stages, without the start and the publishing."""
        demand = self.demand
        return demand.decode_core_seconds + demand.encode_core_seconds + demand.write_core_seconds

    @property
    def machine_seconds(self) -> float:
        """The whole run, of all machines together."""
        return self.seconds * self.fleet.machines

    @property
    def bottleneck(self) -> str:
        """What to have more of for a shorter run."""
        if self.publish_seconds > self.working_seconds:
            return PUBLISHING
        return next(iter(self.busy_seconds))


CORES, PROCESSES, WRITER = "cores", "decoding processes", "writer"
GPU_ENCODING, GPU_DECODING, LINK = "GPUs, encoding", "GPUs, decoding", "reading media"
PUBLISHING = "publishing at the end"


def measure_demand(rates: StageRates, workloads: Sequence[Workload], gpu: GpuRates | None = None) -> Demand:
    """What indexing takes in all.

    Args:
        rates: what the stages take.
        workloads: the files.
        gpu: what a GPU does; None: what was measured, on a CPU or on a GPU.

    Raises:
        InputError: a kind was not measured.
    """
    gpu = gpu or GpuRates()
    segments = frames = files = seconds = media = decode = processes = decode_gpu = 0.0
    for workload in workloads:
        kind = rates.decoding.get(workload.kind)
        if kind is None:
            known = ", ".join(map(repr, rates.decoding))
            raise InputError(f"videos of the kind {workload.kind!r} were not measured: choose one of {known}")
        its_segments = workload.files * len(plan_segments(workload.seconds_each, rates.segment_seconds))
        its_frames = its_segments * rates.frames_per_segment
        segments, frames = segments + its_segments, frames + its_frames
        files, seconds = files + workload.files, seconds + workload.seconds
        media += workload.seconds * kind.media_bytes_per_second
        its_decoding = workload.files * rates.core_seconds_per_file
        its_decoding += its_frames * kind.picture_core_seconds_per_frame
        if gpu.decoded_seconds_per_second is None:
            its_codec = workload.seconds * kind.core_seconds_per_second
            processes += its_decoding + its_codec / kind.cores_used
            its_decoding += its_codec
        else:
            processes += its_decoding
            decode_gpu += workload.seconds / gpu.decoded_seconds_per_second
        decode += its_decoding
    encode_core, encode_gpu = frames * rates.encoding.core_seconds_per_frame, 0.0
    if gpu.frames_per_second is not None:
        encode_core, encode_gpu = 0.0, frames / gpu.frames_per_second
    elif rates.encoding.provider != "cpu":
        encode_gpu = frames * rates.encoding.elapsed_seconds_per_frame
    library_bytes = segments * rates.writing.library_bytes_per_segment
    publishing = rates.publishing
    return Demand(
        video_seconds=seconds,
        files=files,
        segments=segments,
        frames=frames,
        media_bytes=media,
        library_bytes=library_bytes,
        index_bytes=segments * publishing.index_bytes_per_segment,
        decode_core_seconds=decode,
        decode_process_seconds=processes,
        decode_gpu_seconds=decode_gpu,
        encode_core_seconds=encode_core,
        encode_gpu_seconds=encode_gpu,
        write_core_seconds=segments * rates.writing.core_seconds_per_segment,
        write_seconds=segments * rates.writing.elapsed_seconds_per_segment,
        checksum_seconds=library_bytes * publishing.elapsed_seconds_per_byte,
        index_seconds=publishing.elapsed_seconds + segments * publishing.elapsed_seconds_per_segment,
    )


def predict(rates: StageRates, demand: Demand, fleet: Fleet) -> Prediction:
    """How long a run takes on these machines.

    Each machine has a writer of its own; one process publishes.

    Raises:
        InputError: the run needs GPUs, and the machines have none.
    """
    if not fleet.gpus and (demand.encode_gpu_seconds or demand.decode_gpu_seconds):
        raise InputError("gpus is 0, but the rates are those of a GPU: it must be at least 1", field="gpus")
    machines = fleet.machines
    core_seconds = demand.decode_core_seconds + demand.encode_core_seconds + demand.write_core_seconds
    busy = {
        CORES: core_seconds / (machines * fleet.cores),
        PROCESSES: demand.decode_process_seconds / (machines * fleet.workers),
        WRITER: demand.write_seconds / machines,
    }
    if fleet.gpus:
        busy[GPU_ENCODING] = demand.encode_gpu_seconds / (machines * fleet.gpus)
        busy[GPU_DECODING] = demand.decode_gpu_seconds / (machines * fleet.gpus)
    if fleet.link_gbit is not None:
        busy[LINK] = demand.media_bytes * _BITS / (machines * fleet.link_gbit * 1e9)
    # A long run publishes while it works: at its end, the files of the last minutes are left to read.
    left = min(1.0, PUBLISH_SECONDS / max(busy.values())) if max(busy.values()) else 1.0
    busy[WRITER] += demand.checksum_seconds * (1 - left)
    busy = dict(sorted(busy.items(), key=lambda item: -item[1]))
    return Prediction(
        demand=demand,
        fleet=fleet,
        busy_seconds=busy,
        start_seconds=rates.start_seconds,
        working_seconds=max(busy.values()) / rates.efficiency,
        publish_seconds=demand.index_seconds + left * demand.checksum_seconds,
    )


def machines_for(rates: StageRates, demand: Demand, fleet: Fleet, seconds: float) -> Prediction:
    """The prediction with the fewest machines such as those of `fleet` that are done within `seconds`.

    Raises:
        InputError: no number of machines is.
    """
    most = predict(rates, demand, replace(fleet, machines=_MOST_MACHINES))
    if most.seconds > seconds:
        raise InputError(
            f"no number of machines is done within {seconds / 3600:g} hours: what is not shared among them "
            f"({PUBLISHING}, checksums) takes {most.seconds / 3600:.1f}"
        )
    few, enough = 0, 1
    while predict(rates, demand, replace(fleet, machines=enough)).seconds > seconds:
        few, enough = enough, enough * 2
    while enough - few > 1:
        middle = (few + enough) // 2
        if predict(rates, demand, replace(fleet, machines=middle)).seconds > seconds:
            few = middle
        else:
            enough = middle
    return predict(rates, demand, replace(fleet, machines=enough))


def evenly(kind: str, hours: float, minutes_each: float) -> Workload:
    """Files of one length that are `hours` long together."""
    seconds = minutes_each * 60
    return Workload(kind, hours * 3600 / seconds, seconds)
