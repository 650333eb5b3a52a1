"""`reelfind bench`: measures parts of Reelfind on this machine and prints their figures."""

import importlib.util
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from model.runtime.bundle import default_bundle_path
from model.runtime.bundle.files import read_bundle_manifest
from model.runtime.bundle.manifest import MANIFEST_NAME, parse_manifest
from model.runtime.cores import available_cores
from model.runtime.errors import InputError, ReelfindError
from model.runtime.exits import FAILED
from service.bench.figures import BenchReport, print_figures, print_grids
from service.bench.parts import FULL, QUICK, BenchPart, LabelledClips, default_cache, measurements
from service.cli.exits import CheckedCommand
from service.cli.options import JsonOption
from service.cli.plan import plan_command
from service.cli.printing import plain
from service.settings import check_environment

bench_app = typer.Typer(name="bench")


@bench_app.callback(invoke_without_command=True)
def bench_command(
    context: typer.Context,
    quick: Annotated[
        bool, typer.Option("--quick", help="Measure less of everything; takes a few minutes.")
    ] = False,
    only: Annotated[
        list[BenchPart] | None, typer.Option(help="Measure only this part. May be given several times.")
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(help="Folder of the model bundle. Default: the one that ships with Reelfind."),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for the videos that the benchmark makes and reuses.")
    ] = None,
    clips: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of your own videos to measure quality with. May be given several times."),
    ] = None,
    queries: Annotated[
        list[Path] | None,
        typer.Option(help="File of labelled queries, as for `reelfind eval`; one for each --clips."),
    ] = None,
    splice: Annotated[
        int,
        typer.Option(
            min=0,
            help="Also measure `rerank` on videos spliced from three clips each, with this many seeds.",
        ),
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Measure how fast Reelfind is on this machine and, with --clips, how well it finds your videos.

    Most figures are ratios of two measurements from one run, given as a median with its range and n.
    The exit code is 3 if a part could not be measured. Otherwise it is 0, even if figures miss their targets.
    """
    if context.invoked_subcommand is not None:
        _check_nothing_is_measured(context)
        return
    check_environment()
    labelled = _labelled(clips or [], queries or [], splice)
    scale = QUICK if quick else FULL
    bundle = bundle or default_bundle_path()
    cache = cache or default_cache()
    cache.mkdir(parents=True, exist_ok=True)
    notes = Console(stderr=True)
    reports: list[BenchReport] = []
    failed: dict[str, str] = {}
    for part, measure in measurements(scale, bundle, cache, labelled, splice).items():
        if only and part not in only:
            continue
        notes.print(f"[dim]measuring {part} …[/dim]")
        started = time.monotonic()
        try:
            if part == BenchPart.TOKENS and not only and not _reads_tokens(bundle):
                notes.print("[dim]nothing to measure: libraries of this bundle store no tokens[/dim]")
                continue
            if part == BenchPart.ENGINES and not only and importlib.util.find_spec("ray") is None:
                notes.print("[dim]nothing to measure: Ray is not installed[/dim]")
                continue
            report = measure()
        except ReelfindError as error:
            failed[part] = str(error)
            notes.print(f"[red]{part} could not be measured:[/red]", plain(str(error)), highlight=False)
            continue
        notes.print(f"[dim]{part} took {time.monotonic() - started:.0f} s[/dim]")
        reports.append(report)
        if not as_json:
            print_figures(Console(), report.figures)
            print_grids(Console(), report.grids)
    if as_json:
        about = {
            "bundle": str(bundle),
            "quick": quick,
            "cores": available_cores(),
            "python": sys.version.split()[0],
        }
        body: dict[str, Any] = {
            "about": about,
            "figures": [figure.to_json() for report in reports for figure in report.figures],
            "tables": [grid.to_json() for report in reports for grid in report.grids],
            "failed": failed,
        }
        rates = next((report.rates for report in reports if report.rates is not None), None)
        if rates is not None:
            body["rates"] = rates.to_json()
        typer.echo(json.dumps(body, indent=1))
    if failed:
        raise typer.Exit(FAILED)


def _check_nothing_is_measured(context: typer.Context) -> None:
    """Raise InputError where an option of `reelfind bench` stands before the name of another command."""
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = max(parameter.opts, key=len)
            command = context.invoked_subcommand
            raise InputError(f"{option} stands before {command!r}, which does not know it: leave it out")


bench_app.command("plan", cls=CheckedCommand)(plan_command)


def _reads_tokens(bundle: Path) -> bool:
    return parse_manifest(read_bundle_manifest(bundle), bundle / MANIFEST_NAME).reads_tokens


def _labelled(clips: Sequence[Path], queries: Sequence[Path], splice: int) -> list[LabelledClips]:
    if len(clips) != len(queries):
        raise InputError(
            f"{len(clips)} --clips but {len(queries)} --queries: give one file of queries for each folder"
        )
    if splice and not clips:
        raise InputError("--splice needs videos with queries: name them with --clips and --queries")
    return [LabelledClips(*pair) for pair in zip(clips, queries, strict=True)]
