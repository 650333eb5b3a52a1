"""`reelfind bench plan`: predicts time, cost and bytes of an indexing run from measured rates."""

from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from model.runtime.bundle import Provider, default_bundle_path
from model.runtime.errors import InputError
from service.bench.inputs import Input, Plan, PlanRequest, Source, make_plan
from service.bench.parts import QUICK, default_cache
from service.bench.plan import (
    CORES,
    GPU_DECODING,
    GPU_ENCODING,
    LINK,
    PROCESSES,
    WRITER,
    GpuRates,
    Prediction,
)
from service.bench.stage_rates import StageRates, read_rates
from service.cli.options import JsonOption
from service.cli.printing import plain, print_json

_ABOVE_0 = 1e-9


def plan_command(
    hours: Annotated[float, typer.Option(min=_ABOVE_0, help="Hours of video to index.")],
    gpus: Annotated[int, typer.Option(min=0, help="GPUs of each machine.")] = 0,
    machines: Annotated[int | None, typer.Option(min=1, help="Machines, all alike. Default: 1.")] = None,
    within: Annotated[
        float | None,
        typer.Option(
            metavar="DAYS",
            min=_ABOVE_0,
            help="In place of --machines: as few machines as are done within DAYS.",
            show_default=False,
        ),
    ] = None,
    cores: Annotated[
        int | None, typer.Option(min=1, help="Cores of each machine. Default: as measured.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Decoding processes of each machine. Default: one less than its cores."),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            help="Kind of the videos, of those that were measured. Default: the one that takes longest to "
            "decode.",
            show_default=False,
        ),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=_ABOVE_0, help="Mean length of a video. Default: 10 minutes.")
    ] = None,
    media_mbit: Annotated[
        float | None, typer.Option(min=_ABOVE_0, help="Bit rate of the files, Mbit/s. Default: as measured.")
    ] = None,
    link_gbit: Annotated[
        float | None,
        typer.Option(
            min=_ABOVE_0, help="Gbit/s at which each machine reads the files. Default: this is no limit."
        ),
    ] = None,
    gpu_frames_per_second: Annotated[
        float | None,
        typer.Option(
            min=_ABOVE_0,
            help="Sampled frames that a GPU encodes a second. Default: as measured with a GPU.",
        ),
    ] = None,
    gpu_decoding: Annotated[
        float | None,
        typer.Option(
            min=_ABOVE_0,
            help="Seconds of video that a GPU decodes a second. Default: the cores decode.",
        ),
    ] = None,
    efficiency: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=1,
            help="What the busiest resource alone takes ÷ what the run takes. Default: as measured, which is "
            "too low where other programs were running.",
            show_default=False,
        ),
    ] = None,
    machine_price: Annotated[
        float | None, typer.Option(min=0, help="Price of a machine for an hour, its GPUs included.")
    ] = None,
    storage_price: Annotated[
        float | None, typer.Option(min=0, help="Price of a gigabyte of the library for a month.")
    ] = None,
    rates: Annotated[
        Path | None,
        typer.Option(
            help="File of measured rates, as `reelfind bench --only stages --json` or this command with "
            "--json prints it. Default: they are measured on this machine, which takes some minutes.",
            show_default=False,
        ),
    ] = None,
    clips: Annotated[
        list[Path] | None,
        typer.Option(
            help="Without --rates: folder of your own videos to measure, a kind of the folder's name. May "
            "be given several times. Default: generated videos of 240p and 1080p.",
            show_default=False,
        ),
    ] = None,
    provider: Annotated[
        Provider, typer.Option(help="Without --rates: where the model runs while it is measured.")
    ] = "cpu",
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="Without --rates: folder of the model bundle. Default: the one that ships with Reelfind."
        ),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for the videos that the benchmark makes and reuses.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Predict hours, machine hours, cost and bytes of indexing, and name the bottleneck.

    It says of each of its inputs whether it was measured, given, or assumed.
    """
    if rates is None:
        measured = _measure(bundle, provider, clips or [], cache)
    elif clips or bundle or provider != "cpu":
        raise InputError("--clips, --bundle and --provider are for measuring: leave them out, or --rates")
    else:
        measured = read_rates(rates)
    request = PlanRequest(
        hours=hours,
        kind=kind,
        minutes_each=minutes,
        media_mbit=media_mbit,
        machines=machines,
        within_hours=None if within is None else within * 24,
        cores=cores,
        gpus=gpus,
        workers=workers,
        link_gbit=link_gbit,
        efficiency=efficiency,
        gpu=GpuRates(gpu_frames_per_second, gpu_decoding),
        machine_price=machine_price,
        storage_price=storage_price,
    )
    plan = make_plan(measured, request)
    if as_json:
        print_json({"plan": plan.to_json(), "rates": measured.to_json()})
    else:
        _print_plan(Console(), plan)


def _measure(bundle: Path | None, provider: Provider, clips: list[Path], cache: Path | None) -> StageRates:
    # Import late: a plan from a file needs neither the indexer nor the model.
    from service.bench.stages import StageScale, measure_rates

    Console(stderr=True).print("[dim]measuring the stages of indexing …[/dim]")
    cache = cache or default_cache()
    cache.mkdir(parents=True, exist_ok=True)
    scale = StageScale(QUICK.clips, QUICK.indexed, QUICK.written, QUICK.repeats)
    return measure_rates(cache, bundle or default_bundle_path(), clips, scale, provider)


def _print_plan(console: Console, plan: Plan) -> None:
    prediction = plan.prediction
    console.print(_inputs_table(plan.inputs))
    console.print(_resources_table(prediction))
    for line in _result_lines(plan):
        console.print(plain(line), soft_wrap=True, highlight=False)


def _inputs_table(inputs: tuple[Input, ...]) -> Table:
    table = Table(title="Inputs", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("input", "value", "source", "of"):
        table.add_column(heading, justify="right" if heading == "value" else "left")
    for source in Source:
        for each in inputs:
            if each.source == source:
                table.add_row(plain(each.name), plain(_value(each)), str(source), plain(each.note))
    return table


def _value(each: Input) -> str:
    text = each.value if isinstance(each.value, str) else _number(each.value)
    return f"{text} {each.unit}".strip()


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _resources_table(prediction: Prediction) -> Table:
    table = Table(
        title="How long each is busy at least", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("resource")
    table.add_column("hours", justify="right")
    table.add_column("which is")
    for name, seconds in prediction.busy_seconds.items():
        table.add_row(name, _number(seconds / 3600), _how(name, prediction))
    return table


def _how(name: str, prediction: Prediction) -> str:
    """The division that a resource's time comes from."""
    demand, fleet = prediction.demand, prediction.fleet
    machines = f"{fleet.machines:,} machine{'s' if fleet.machines > 1 else ''}"

    def hours(seconds: float) -> str:
        return _number(seconds / 3600)

    if name == CORES:
        parts = (
            f"decoding {hours(demand.decode_core_seconds)} + encoding {hours(demand.encode_core_seconds)} + "
            f"writing {hours(demand.write_core_seconds)} core-hours"
        )
        return f"({parts}) ÷ ({machines} × {fleet.cores} cores)"
    if name == PROCESSES:
        return f"{hours(demand.decode_process_seconds)} hours ÷ ({machines} × {fleet.workers} processes)"
    if name == WRITER:
        checksums = prediction.busy_seconds[WRITER] - demand.write_seconds / fleet.machines
        return f"{hours(demand.write_seconds)} hours ÷ {machines} + checksums {hours(checksums)} hours"
    if name == LINK:
        return f"{_size(demand.media_bytes)} ÷ ({machines} × {fleet.link_gbit:g} Gbit/s)"
    seconds = {GPU_ENCODING: demand.encode_gpu_seconds, GPU_DECODING: demand.decode_gpu_seconds}[name]
    return f"{hours(seconds)} GPU-hours ÷ ({machines} × {fleet.gpus} GPUs)"


def _result_lines(plan: Plan) -> list[str]:
    prediction, demand = plan.prediction, plan.prediction.demand
    busiest = next(iter(prediction.busy_seconds.values()))
    start, publishing = prediction.start_seconds / 3600, prediction.publish_seconds / 3600
    efficiency = busiest / prediction.working_seconds
    hours, machines = prediction.seconds / 3600, prediction.fleet.machines
    terms = f"{_number(start)} + {_number(busiest / 3600)} ÷ {efficiency:.2f} + {_number(publishing)}"
    tables, index = _size(demand.library_bytes), _size(demand.index_bytes)
    lines = [
        f"hours = start + busiest ÷ efficiency + publishing at the end = {terms}",
        f"on the clock: {_number(hours)} hours ({_number(hours / 24)} days)",
        f"machine hours: {_number(prediction.machine_seconds / 3600)} ({machines:,} × {_number(hours)})",
        f"bottleneck: {prediction.bottleneck}",
        f"videos: {demand.files:,.0f}; segments: {demand.segments:,.0f}; frames: {demand.frames:,.0f}",
        f"media read: {_size(demand.media_bytes)}; library written: {tables}; vector index: {index}",
    ]
    if plan.cost is not None:
        lines.append(f"cost: {plan.cost:,.2f}")
    if plan.monthly_cost is not None:
        lines.append(f"cost of storing the library for a month: {plan.monthly_cost:,.2f}")
    return lines


def _size(count: float) -> str:
    for unit, factor in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9)):
        if count >= factor:
            return f"{count / factor:,.3g} {unit}"
    return f"{count / 1e6:,.3g} MB"
