"""`reelfind eval`: measures how well a library's videos are found."""

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
from service.search.moment_evaluation import MomentRecalls
from service.search.searcher import SearchOptions
from service.settings import load_settings


def eval_command(
    queries: Annotated[Path, typer.Option(help='File with one {"query": …, "video": …} per line.')],
    library: LibraryOption = None,
    only_set: Annotated[
        str | None, typer.Option("--set", help="Use only the lines whose field `set` has this value.")
    ] = None,
    given_video: Annotated[
        bool,
        typer.Option("--given-video", help="Look for the moments of queries in the right video alone, too."),
    ] = False,
    rerank: RerankOption = True,
    num_candidates: CandidatesOption = None,
    num_salient_frames: SalientOption = None,
    bundle: BundleOption = None,
    provider: ProviderOption = None,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure how well a library's videos are found: R@K in percent, median and mean rank.

    `global` ranks by similarity alone, `ensemble` with re-ranking. Rows with start_seconds and end_seconds
    also measure moments: R@K at an intersection over union of 0.5 and 0.7.
    """
    settings = load_settings({"library": library, "bundle": bundle, "provider": provider, "threads": threads})
    labelled_queries = read_clean_queries(queries, only_set, settings.max_query_characters)
    searcher = open_checked_searcher(settings)
    options = searcher.check(
        SearchOptions(rerank=rerank, num_candidates=num_candidates, num_salient_frames=num_salient_frames)
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        console = Console(stderr=True)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("searching", total=len(labelled_queries))
            result = evaluate_library(
                searcher, labelled_queries, options, lambda: progress.advance(task), given_video
            )
    for message in dict.fromkeys(str(warning.message) for warning in caught):
        note(f"note: {message}")
    if result.not_understood:
        note(f"note: the model knows no word of {result.not_understood} queries: their ranks are by chance")
    if result.truncated:
        note(f"note: {result.truncated} queries are too long: their ends were not read")
    if as_json:
        typer.echo(json.dumps(result.to_json()))
        return
    note_skipped(result.rerank_skipped)
    _show_metrics(result)


def _show_metrics(result: EvaluationResult) -> None:
    """Print one line per metric, with one column per stage and how they differ if there are two."""
    columns = {"global": result.similarity}
    if result.ensemble is not None:
        columns["ensemble"] = result.ensemble
        typer.echo(f"{'':<5} " + " ".join(f"{name:>8}" for name in columns))
    for name in result.similarity:
        values = [dict(column)[name] for column in columns.values()]
        shown = [str(value) if name == "n" else f"{value:.1f}" for value in values]
        typer.echo(
            f"{name:<5} " + (shown[0] if len(shown) == 1 else " ".join(f"{each:>8}" for each in shown))
        )
    if result.moments is not None:
        _show_moments(result.moments)
    if result.first_places is not None:
        places = result.first_places
        typer.echo(
            f"Re-ranking finds {places['gained']} more videos first and {places['lost']} fewer "
            f"(p = {places['p']:.2g}, McNemar's exact test)."
        )


def _show_moments(moments: MomentRecalls) -> None:
    """Print one line per metric, with a column for all videos, and one for the right video if measured."""
    columns = {"corpus": moments.corpus}
    if moments.given_video is not None:
        columns["given video"] = moments.given_video
    typer.echo(f"{f'moments, n = {moments.n}':<16} " + " ".join(f"{name:>11}" for name in columns))
    for name in moments.corpus:
        typer.echo(f"{name:<16} " + " ".join(f"{column[name]:>11.1f}" for column in columns.values()))
