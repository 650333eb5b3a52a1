"""`reelfind bench`: runs the parts and prints their figures."""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from indexer.encode import available_cores
from model.runtime.bundle import default_bundle_path
from model.runtime.errors import ReelfindError
from service.bench.figures import Figure, print_figures

_FAILED = 3


class Part(StrEnum):
    """What can be measured alone."""

    INDEXING = "indexing"
    MEMORY = "memory"
    SEARCH = "search"
    FAISS = "faiss"


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    repeats: int
    minutes: int
    """Length of the long file in the memory test."""
    clips: int
    """Small clips in the corpus; the large corpus has an eighth of them."""
    searches: int
    vectors: int


FULL = Plan(repeats=3, minutes=60, clips=64, searches=128, vectors=50_000)
QUICK = Plan(repeats=2, minutes=3, clips=16, searches=48, vectors=10_000)


def bench_command(
    quick: Annotated[bool, typer.Option("--quick", help="Less of everything: about a minute.")] = False,
    only: Annotated[list[Part] | None, typer.Option(help="Only this part; may be given again.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="The model bundle's folder.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Where the videos to measure with are kept.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Measure this machine: ratios of two things taken in one run, each with n, median and range.

    The exit code is 0 whether or not the figures hold their bars, 3 when a part could not be measured.
    """
    plan = QUICK if quick else FULL
    bundle = bundle or default_bundle_path()
    cache = cache or default_cache()
    cache.mkdir(parents=True, exist_ok=True)
    notes = Console(stderr=True)
    figures: list[Figure] = []
    failed: dict[str, str] = {}
    for part, measure in _parts(plan, bundle, cache).items():
        if only and part not in only:
            continue
        notes.print(f"[dim]measuring {part} …[/dim]")
        started = time.monotonic()
        try:
            found = measure()
        except ReelfindError as error:
            failed[part] = str(error)
            notes.print(f"[red]{part} could not be measured:[/red] {error}", highlight=False)
            continue
        notes.print(f"[dim]{part} took {time.monotonic() - started:.0f} s[/dim]")
        figures += found
        if not as_json:
            print_figures(Console(), found)
    if as_json:
        about = {
            "bundle": str(bundle),
            "quick": quick,
            "cores": available_cores(),
            "python": sys.version.split()[0],
        }
        body = {"about": about, "figures": [figure.to_json() for figure in figures], "failed": failed}
        typer.echo(json.dumps(body, indent=1))
    if failed:
        raise typer.Exit(_FAILED)


def default_cache() -> Path:
    """The folder that outlasts a run: videos are made once."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reelfind" / "bench"


def _parts(plan: Plan, bundle: Path, cache: Path) -> dict[Part, Callable[[], list[Figure]]]:
    # Each part loads what it needs: the command must start, and show its help, without any of it.
    from service.bench import ann, indexing, memory, serving

    def search() -> list[Figure]:
        with tempfile.TemporaryDirectory() as folder:
            library = indexing.index_clips(cache, bundle, Path(folder), plan.clips)
            return serving.measure(library, bundle, repeats=plan.repeats, queries=plan.searches)

    return {
        Part.INDEXING: lambda: indexing.measure(cache, bundle, repeats=plan.repeats, clips=plan.clips),
        Part.MEMORY: lambda: memory.measure(cache, bundle, minutes=plan.minutes, repeats=plan.repeats),
        Part.SEARCH: search,
        Part.FAISS: lambda: ann.measure(plan.vectors, queries=100, dim=256, repeats=plan.repeats),
    }
