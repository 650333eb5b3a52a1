"""The inputs of a plan, where each of them comes from, and the plan that follows."""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from model.runtime.errors import InputError
from service.bench.plan import (
    PUBLISH_SECONDS,
    Demand,
    Fleet,
    GpuRates,
    Prediction,
    evenly,
    machines_for,
    measure_demand,
    predict,
)
from service.bench.stage_rates import StageRates

#: Where nothing is said: a length of videos between clips and films.
_MINUTES_EACH = 10.0
_BITS = 8


class Source(StrEnum):
    """Where an input comes from."""

    MEASURED = "measured"
    GIVEN = "given"
    ASSUMED = "assumed"


@dataclass(frozen=True)
class Input:
    """One number that a plan follows from."""

    name: str
    value: float | str
    unit: str
    source: Source
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """The input as a JSON object."""
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "source": str(self.source),
            "note": self.note,
        }


@dataclass(frozen=True)
class PlanRequest:
    """What to plan; None where the user says nothing.

    Attributes:
        hours: of video.
        kind: a kind of videos that was measured; None: the only one, or the one that costs most to decode.
        minutes_each: length of a video.
        media_mbit: bit rate of the files, in Mbit/s.
        machines: how many.
        within_hours: instead of `machines`: use as few as are done by then.
        cores: of each machine.
        gpus: of each machine.
        workers: decoding processes of each machine.
        link_gbit: how many Gbit/s each machine reads of the media.
        efficiency: see `StageRates`.
        gpu: what a GPU does that was not measured.
        machine_price: of a machine for an hour, its GPUs included.
        storage_price: of a gigabyte for a month.
    """

    hours: float
    kind: str | None = None
    minutes_each: float | None = None
    media_mbit: float | None = None
    machines: int | None = None
    within_hours: float | None = None
    cores: int | None = None
    gpus: int = 0
    workers: int | None = None
    link_gbit: float | None = None
    efficiency: float | None = None
    gpu: GpuRates = field(default_factory=GpuRates)
    machine_price: float | None = None
    storage_price: float | None = None


@dataclass(frozen=True)
class Plan:
    """A prediction with its inputs and its cost.

    Attributes:
        inputs: all numbers that it follows from.
        prediction: time and bytes.
        cost: of the machines and GPUs; None: no price was given.
        monthly_cost: of storing the library; None: no price was given.
    """

    inputs: tuple[Input, ...]
    prediction: Prediction
    cost: float | None
    monthly_cost: float | None

    def to_json(self) -> dict[str, Any]:
        """The plan as a JSON object."""
        prediction, demand = self.prediction, self.prediction.demand
        return {
            "inputs": [each.to_json() for each in self.inputs],
            "machines": prediction.fleet.machines,
            "hours": prediction.seconds / 3600,
            "machine_hours": prediction.machine_seconds / 3600,
            "bottleneck": prediction.bottleneck,
            "busy_hours": {name: seconds / 3600 for name, seconds in prediction.busy_seconds.items()},
            "publish_hours": prediction.publish_seconds / 3600,
            "videos": demand.files,
            "segments": demand.segments,
            "media_bytes": demand.media_bytes,
            "library_bytes": demand.library_bytes,
            "index_bytes": demand.index_bytes,
            "cost": self.cost,
            "monthly_cost": self.monthly_cost,
        }


def make_plan(rates: StageRates, request: PlanRequest) -> Plan:
    """Plan an indexing run.

    Raises:
        InputError: a kind was not measured, `machines` and `within_hours` are both given, rates of a GPU
            lack, or no number of machines is enough.
    """
    if request.efficiency is not None:
        rates = rates.model_copy(update={"efficiency": request.efficiency})
    kind = request.kind or max(rates.decoding, key=lambda name: rates.decoding[name].core_seconds_per_second)
    inputs = [Input("video to index", request.hours, "hours", Source.GIVEN)]
    inputs.append(
        Input("kind of the videos", kind, "", Source.ASSUMED if request.kind is None else Source.GIVEN)
    )
    minutes = _said(inputs, "length of a video", request.minutes_each, _MINUTES_EACH, "min")
    _check_gpu_rates(rates, request)
    demand = measure_demand(rates, [evenly(kind, request.hours, minutes)], request.gpu)
    if request.media_mbit is not None:
        demand = replace(demand, media_bytes=demand.video_seconds * request.media_mbit * 1e6 / _BITS)
    fleet = _fleet(inputs, rates, request)
    if request.within_hours is None:
        prediction = predict(rates, demand, fleet)
    else:
        prediction = machines_for(rates, demand, fleet, request.within_hours * 3600)
    inputs += _rates(rates, kind, demand, request)
    inputs += _assumptions(rates, prediction, request)
    cost = _price(inputs, "a machine for an hour", request.machine_price, prediction.machine_seconds / 3600)
    gigabytes = (demand.library_bytes + demand.index_bytes) / 1e9
    monthly = _price(inputs, "a gigabyte for a month", request.storage_price, gigabytes)
    return Plan(tuple(inputs), prediction, cost, monthly)


def _check_gpu_rates(rates: StageRates, request: PlanRequest) -> None:
    """Raise InputError where GPUs are planned with of which nobody knows what they do."""
    gpu = request.gpu
    if request.gpus and gpu.frames_per_second is None and rates.encoding.provider == "cpu":
        raise InputError(
            f"gpus is {request.gpus}, but these rates were measured without a GPU: say how many frames a "
            "second one encodes with --gpu-frames-per-second, or measure it where there is one with "
            "`reelfind bench plan --hours 1 --provider cuda`",
            field="gpus",
        )


def _said(inputs: list[Input], name: str, given: float | None, default: float, unit: str) -> float:
    value = default if given is None else given
    inputs.append(Input(name, value, unit, Source.ASSUMED if given is None else Source.GIVEN))
    return value


def _fleet(inputs: list[Input], rates: StageRates, request: PlanRequest) -> Fleet:
    if request.machines is not None and request.within_hours is not None:
        raise InputError("machines are both given and asked for: leave out --machines or --within")
    how_many = "1" if request.machines is None else str(request.machines)
    if request.within_hours is not None:
        how_many = f"as few as are done within {request.within_hours:g} hours"
    nothing_said = request.machines is None and request.within_hours is None
    inputs.append(Input("machines", how_many, "", Source.ASSUMED if nothing_said else Source.GIVEN))
    source = Source.MEASURED if request.cores is None else Source.GIVEN
    cores = rates.cores if request.cores is None else request.cores
    inputs.append(Input("cores of a machine", cores, "", source))
    inputs.append(Input("GPUs of a machine", request.gpus, "", Source.GIVEN))
    workers = int(_said(inputs, "decoding processes of a machine", request.workers, max(1, cores - 1), ""))
    if request.link_gbit is not None:
        inputs.append(Input("link of a machine to the media", request.link_gbit, "Gbit/s", Source.GIVEN))
    return Fleet(request.machines or 1, cores, request.gpus, workers, request.link_gbit)


def _rates(rates: StageRates, kind: str, demand: Demand, request: PlanRequest) -> list[Input]:
    """The rates that this plan uses."""
    decoding, encoding, writing = rates.decoding[kind], rates.encoding, rates.writing
    publishing = rates.publishing
    of = f"{decoding.files} files of {kind}, {decoding.seconds / 60:.1f} min"

    def measured(name: str, value: float, unit: str, note: str = "") -> Input:
        return Input(name, value, unit, Source.MEASURED, note)

    picture = decoding.picture_core_seconds_per_frame
    inputs = [
        measured("a file, however short", rates.core_seconds_per_file, "core-seconds"),
        measured("scaling a frame, and its thumbnail", picture, "core-seconds", of),
    ]
    decoded = request.gpu.decoded_seconds_per_second
    if decoded is None:
        inputs.append(
            measured("decoding a second of video", decoding.core_seconds_per_second, "core-seconds", of)
        )
        inputs.append(measured("cores that a decoding process keeps busy", decoding.cores_used, "", of))
    else:
        inputs.append(Input("decoding by a GPU", decoded, "s of video a second", Source.GIVEN))
    if request.gpu.frames_per_second is not None:
        given = request.gpu.frames_per_second
        inputs.append(Input("encoding by a GPU", given, "frames a second", Source.GIVEN))
    else:
        inputs.append(measured("encoding a frame", encoding.core_seconds_per_frame, "core-seconds"))
    if demand.encode_gpu_seconds and request.gpu.frames_per_second is None:
        note = f"{encoding.provider}, batches of {encoding.batch_frames}"
        rate = 1 / encoding.elapsed_seconds_per_frame
        inputs.append(measured("encoding by a GPU", rate, "frames a second", note))
    inputs += [
        measured("writing a segment", writing.core_seconds_per_segment, "core-seconds"),
        measured("the same, of one writer", writing.elapsed_seconds_per_segment, "s"),
        measured("a segment in the library", writing.library_bytes_per_segment, "bytes"),
        measured("a segment in the vector index", publishing.index_bytes_per_segment, "bytes"),
        measured("publishing, whatever is published", publishing.elapsed_seconds, "s"),
        measured(
            "publishing a segment",
            publishing.elapsed_seconds_per_segment,
            "s",
            f"of up to {publishing.segments:,} segments",
        ),
        measured("checksum of a gigabyte", publishing.elapsed_seconds_per_byte * 1e9, "s"),
        measured("start of a run", rates.start_seconds, "s"),
        Input(
            "efficiency of all stages together",
            rates.efficiency,
            "",
            Source.MEASURED if request.efficiency is None else Source.GIVEN,
        ),
    ]
    if request.media_mbit is None:
        rate = decoding.media_bytes_per_second * 8 / 1e6
        inputs.append(measured("bit rate of the files", rate, "Mbit/s", of))
    else:
        inputs.append(Input("bit rate of the files", request.media_mbit, "Mbit/s", Source.GIVEN))
    return inputs


def _assumptions(rates: StageRates, prediction: Prediction, request: PlanRequest) -> list[Input]:
    """What is taken for true without a measurement."""

    def assumed(name: str, value: str) -> Input:
        return Input(name, value, "", Source.ASSUMED)

    found = [assumed("cores", "as fast as those of the machine that was measured")]
    if prediction.fleet.machines > 1:
        found.append(assumed("several machines", "share the work evenly, each with a writer; one publishes"))
    if prediction.demand.segments > rates.publishing.segments:
        found.append(
            assumed("publishing", f"costs grow in proportion beyond {rates.publishing.segments:,} segments")
        )
    if prediction.working_seconds > PUBLISH_SECONDS:
        found.append(assumed("publishing in between", "costs nothing but checksums (it is 5 % at most)"))
    if request.gpu.frames_per_second is not None:
        found.append(assumed("encoding by a GPU", "takes no time of cores, and full batches"))
    if request.gpu.decoded_seconds_per_second is not None:
        found.append(assumed("decoding by a GPU", "hands its frames over at no cost"))
    if request.link_gbit is None:
        found.append(assumed("reading the media", "is never the bottleneck (--link-gbit says otherwise)"))
    return found


def _price(inputs: list[Input], name: str, price: float | None, count: float) -> float | None:
    """What `count` of something costs; None without a price."""
    if price is None:
        return None
    inputs.append(Input(f"price of {name}", price, "", Source.GIVEN))
    return price * count
