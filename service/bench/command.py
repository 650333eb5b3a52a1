"""`reelfind bench`: runs the parts and prints their figures."""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from indexer.options import available_cores
from model.runtime.bundle import default_bundle_path
from model.runtime.errors import InputError, ReelfindError
from service.bench.figures import Report, print_figures, print_grids

_FAILED = 3


class Part(StrEnum):
    """What can be measured alone."""

    INDEXING = "indexing"
    MEMORY = "memory"
    SEARCH = "search"
    FAISS = "faiss"
    RERANK = "rerank"
    TOKENS = "tokens"


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
    reranked: int
    """Searches with re-ranking for each of its figures in a repetition."""


FULL = Plan(repeats=3, minutes=60, clips=64, searches=128, vectors=50_000, reranked=64)
QUICK = Plan(repeats=2, minutes=3, clips=16, searches=48, vectors=10_000, reranked=16)
# Small clips to re-rank among: more than are re-ranked.
_CANDIDATE_CLIPS = 112


@dataclass(frozen=True)
class LabelledClips:
    """A folder of videos and the file with the queries about them."""

    clips: Path
    queries: Path


def bench_command(
    quick: Annotated[bool, typer.Option("--quick", help="Less of everything: a few minutes.")] = False,
    only: Annotated[list[Part] | None, typer.Option(help="Only this part; may be given again.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="The model bundle's folder.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Where the videos to measure with are kept.")] = None,
    clips: Annotated[
        list[Path] | None,
        typer.Option(help="A folder of videos of yours to measure quality with; may be given again."),
    ] = None,
    queries: Annotated[
        list[Path] | None,
        typer.Option(help="What is in them, a file for each --clips, as `reelfind eval` reads it."),
    ] = None,
    splice: Annotated[
        int,
        typer.Option(
            min=0, help="Also splice every three clips into a longer film, by so many seeds: for `rerank`."
        ),
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Measure this machine: ratios of two things taken in one run, each with n, median and range.

    The exit code is 0 whether or not the figures hold their bars, 3 when a part could not be measured.
    """
    labelled = _labelled(clips or [], queries or [], splice)
    plan = QUICK if quick else FULL
    bundle = bundle or default_bundle_path()
    cache = cache or default_cache()
    cache.mkdir(parents=True, exist_ok=True)
    notes = Console(stderr=True)
    reports: list[Report] = []
    failed: dict[str, str] = {}
    for part, measure in _parts(plan, bundle, cache, labelled, splice).items():
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
        reports.append(found)
        if not as_json:
            print_figures(Console(), found.figures)
            print_grids(Console(), found.grids)
    if as_json:
        about = {
            "bundle": str(bundle),
            "quick": quick,
            "cores": available_cores(),
            "python": sys.version.split()[0],
        }
        body = {
            "about": about,
            "figures": [figure.to_json() for report in reports for figure in report.figures],
            "tables": [grid.to_json() for report in reports for grid in report.grids],
            "failed": failed,
        }
        typer.echo(json.dumps(body, indent=1))
    if failed:
        raise typer.Exit(_FAILED)


def default_cache() -> Path:
    """The folder that outlasts a run: videos are made once."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reelfind" / "bench"


def _labelled(clips: Sequence[Path], queries: Sequence[Path], splice: int) -> list[LabelledClips]:
    if len(clips) != len(queries):
        raise InputError(
            f"{len(clips)} --clips and {len(queries)} --queries: give a file of queries for each folder"
        )
    if splice and not clips:
        raise InputError("--splice needs videos with queries: name them with --clips and --queries")
    return [LabelledClips(*pair) for pair in zip(clips, queries, strict=True)]


def _parts(
    plan: Plan, bundle: Path, cache: Path, labelled: Sequence[LabelledClips], splice: int
) -> dict[Part, Callable[[], Report]]:
    # Each part loads what it needs: the command must start, and show its help, without any of it.
    from service.bench import ann, indexing, memory, rerank, serving, spliced, tokens
    from service.bench.galleries import demo_gallery, read_galleries

    def search() -> Report:
        with tempfile.TemporaryDirectory() as folder:
            library = indexing.index_clips(cache, bundle, Path(folder), plan.clips)
            return Report(serving.measure(library, bundle, repeats=plan.repeats, queries=plan.searches))

    def reranking() -> Report:
        with tempfile.TemporaryDirectory() as folder:
            library = indexing.index_clips(cache, bundle, Path(folder), _CANDIDATE_CLIPS)
            figures = rerank.measure(library, bundle, repeats=plan.repeats, queries=plan.reranked)
        galleries = [g for pair in labelled for g in read_galleries(pair.clips, pair.queries, whole=True)]
        quality = spliced.measure(galleries, cache, bundle, seeds=splice) if splice else Report()
        return Report([*figures, *quality.figures], quality.grids)

    def storing() -> Report:
        galleries = [g for pair in labelled for g in read_galleries(pair.clips, pair.queries)]
        return tokens.measure(galleries or [demo_gallery(cache)], bundle, repeats=plan.repeats)

    return {
        Part.INDEXING: lambda: Report(
            indexing.measure(cache, bundle, repeats=plan.repeats, clips=plan.clips)
        ),
        Part.MEMORY: lambda: Report(
            memory.measure(cache, bundle, minutes=plan.minutes, repeats=plan.repeats)
        ),
        Part.SEARCH: search,
        Part.FAISS: lambda: Report(ann.measure(plan.vectors, queries=100, dim=256, repeats=plan.repeats)),
        Part.RERANK: reranking,
        Part.TOKENS: storing,
    }
