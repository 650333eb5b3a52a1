"""`reelfind eval`: how well a library's videos are found."""

import json
import warnings
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from service.cli.exits import note
from service.cli.options import (
    BundleOption,
    CandidatesOption,
    JsonOption,
    LibraryOption,
    ProviderOption,
    RerankOption,
    SalientOption,
    ThreadsOption,
)
from service.cli.searcher import note_skipped, open_checked_searcher
from service.search.evaluation import EvaluationResult, evaluate_library, read_clean_queries
from service.search.searcher import SearchOptions
from service.settings import load_settings


def eval_command(
    queries: Annotated[Path, typer.Option(help='A file with a row {"query": …, "video": …} a line.')],
    library: LibraryOption = None,
    only_set: Annotated[
        str | None, typer.Option("--set", help="Only rows whose field `set` is this.")
    ] = None,
    rerank: RerankOption = True,
    num_candidates: CandidatesOption = None,
    num_salient_frames: SalientOption = None,
    bundle: BundleOption = None,
    provider: ProviderOption = None,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure how well a library's videos are found: R@K in percent, median and mean rank."""
    settings = load_settings({"library": library, "bundle": bundle, "provider": provider, "threads": threads})
    rows = read_clean_queries(queries, only_set, settings.max_query_characters)
    searcher = open_checked_searcher(settings)
    options = searcher.check(SearchOptions(rerank, num_candidates, num_salient_frames))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        console = Console(stderr=True)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("searching", total=len(rows))
            figures = evaluate_library(searcher, rows, options, lambda: progress.advance(task))
    for message in dict.fromkeys(str(warning.message) for warning in caught):
        note(f"note: {message}")
    if as_json:
        typer.echo(json.dumps(figures.to_json()))
        return
    note_skipped(figures.rerank_skipped)
    _show_figures(figures)


def _show_figures(figures: EvaluationResult) -> None:
    """A line a figure; a column a stage where there are two."""
    columns = {"global": figures.similarity}
    if figures.ensemble is not None:
        columns["ensemble"] = figures.ensemble
        typer.echo(f"{'':<5} " + " ".join(f"{name:>8}" for name in columns))
    for name in figures.similarity:
        values = [dict(column)[name] for column in columns.values()]
        shown = [str(value) if name == "n" else f"{value:.1f}" for value in values]
        typer.echo(
            f"{name:<5} " + (shown[0] if len(shown) == 1 else " ".join(f"{each:>8}" for each in shown))
        )
