"""What `reelfind index` does about generations: it finds a library's own bundle, compares, and publishes."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from indexer.events import IndexSummary
from indexer.library.errors import LibraryError
from indexer.library.folder import Library
from indexer.library.manifest import is_published, published_number
from indexer.library.overview import videos_lacking
from indexer.library.snapshot import Snapshot
from indexer.library.switching import publish_generation
from model.runtime.bundle import default_bundle_path
from model.runtime.messages import for_shell
from model.runtime.queries import AnyQuery, read_any_queries
from model.runtime.retrieval_metrics import RetrievalMetrics
from service.bundles import bundle_folder
from service.cli.exits import note
from service.cli.printing import print_line
from service.errors import QueryError
from service.live import searcher_of
from service.search.agreement import Agreement, measure_agreement
from service.search.query import clean_text
from service.settings import Settings

_SHOWN_VIDEOS = 5


@dataclass(frozen=True)
class StagedGeneration:
    """A generation that a run has written beside the one that is served.

    Attributes:
        name: its name.
        served: the number of the snapshot that was served when the run ended.
        lacking: paths of the videos that the served snapshot has and this generation has not.
        agreement: how it agrees with the generation that is served; None: there was no query file.
        published: whether it is served now.
    """

    name: str
    served: int
    lacking: tuple[str, ...]
    agreement: Agreement | None
    published: bool


def own_bundle(settings: Settings) -> Path:
    """The bundle for a run that names none: the library's own; for a new library the shipped one.

    Raises:
        LibraryError: the library cannot be opened.
        BundleError: the library's bundle is in no known folder.
    """
    try:
        layout = Library.open(settings.library).layout
    except LibraryError:
        if is_published(settings.library):
            raise
        # There is none yet, or not all of one: the run makes it.
        return default_bundle_path()
    return bundle_folder(settings, layout.bundle_checksum, layout.bundle_name)


def read_clean_texts(file: Path, settings: Settings) -> list[AnyQuery]:
    """Read a query file (`read_any_queries`), and clean each text as a search does.

    Raises:
        InputError: the file or a line is invalid.
        QueryError: a text is not a valid query; names the line.
    """
    queries = []
    for query in read_any_queries(file):
        try:
            queries.append(replace(query, text=clean_text(query.text, settings.max_query_characters)))
        except QueryError as error:
            raise QueryError(f"{file}, line {query.line}: {error}") from None
    return queries


def finish_generation(
    settings: Settings, summary: IndexSummary, queries: Sequence[AnyQuery] | None, *, publish: bool
) -> StagedGeneration | None:
    """Compare what a run has staged with what is served, and publish it if asked to.

    Args:
        settings: name the library and the folders of bundles.
        summary: of the run, which has come to its end.
        queries: what to search for in both; None: nothing.
        publish: whether to serve it.

    Returns:
        None where the run has staged nothing.

    Raises:
        LibraryError: a snapshot cannot be opened, or the generation cannot be published.
        BundleError: a bundle cannot be found or opened.
        QueryError: a text has no token.
    """
    if summary.served or summary.generation is None or summary.snapshot is None:
        if queries is not None:
            note("note: the generation of this bundle is the one that is served: there is nothing to compare")
        return None
    served = published_number(settings.library)
    lacking = videos_lacking(settings.library, served, summary.snapshot)
    agreement = None
    if queries is not None and summary.num_segments:
        agreement = _compare(settings, served, summary.snapshot, queries)
    if publish and summary.num_segments:
        publish_generation(settings.library, summary.generation)
    elif publish:
        note("not published: no video of the new generation can be searched")
    return StagedGeneration(
        summary.generation, served, tuple(lacking), agreement, publish and summary.num_segments > 0
    )


def _compare(settings: Settings, served: int, staged: int, queries: Sequence[AnyQuery]) -> Agreement:
    before, after = (
        searcher_of(settings, Snapshot.open(settings.library, number)) for number in (served, staged)
    )
    console = Console(stderr=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("comparing", total=2 * len(queries))
            agreement = measure_agreement(before, after, queries, lambda: progress.advance(task))
    for message in dict.fromkeys(str(warning.message) for warning in caught):
        note(f"note: {message}")
    for searcher in (before, after):
        searcher.queues.close()
    return agreement


def generation_object(staged: StagedGeneration) -> dict[str, Any]:
    """The generation, for `--json`."""
    return {
        "name": staged.name,
        "published": staged.published,
        "lacking": list(staged.lacking),
        "agreement": None if staged.agreement is None else staged.agreement.to_json(),
    }


def print_generation(staged: StagedGeneration, library: Path, console: Console) -> None:
    """Print how the generation compares, and whether it is served or how to serve it."""
    print_lacking(staged.lacking, console)
    if staged.agreement is None:
        print_line(
            console, "how it agrees with the served one is not measured: `--queries FILE` names a query file"
        )
    else:
        _print_agreement(staged.agreement, console)
    if staged.published:
        print_line(
            console,
            f"generation {staged.name} is served now; "
            f"`reelfind library rollback --library {for_shell(library)}` returns to snapshot {staged.served}",
        )
    else:
        print_line(
            console,
            f"generation {staged.name} is ready, and not served: "
            f"`reelfind library publish --library {for_shell(library)}` serves it",
        )


def print_lacking(paths: Sequence[str], console: Console) -> None:
    """Print which videos would not be found any more."""
    for path in paths[:_SHOWN_VIDEOS]:
        print_line(console, f"  missing: {path}")
    if paths:
        print_line(
            console,
            f"{len(paths)} videos of the other generation are missing in this one: index their folders too",
        )


def _print_agreement(agreement: Agreement, console: Console) -> None:
    print_line(
        console,
        f"agreement on {agreement.queries} queries: of the {agreement.top} best videos both have "
        f"{agreement.overlap:.0%}, and the same video comes first for {agreement.same_first:.0%}",
    )
    for name, metrics in (("served", agreement.before), ("new", agreement.after)):
        if metrics is not None:
            print_line(console, f"  {name:<7} {_metrics_line(metrics)}")
    if agreement.unknown:
        print_line(console, f"  {agreement.unknown} queries name a video that one of them cannot find")


def _metrics_line(metrics: RetrievalMetrics) -> str:
    recalls = ", ".join(f"R@{k} {metrics[f'R@{k}']:.1f}" for k in (1, 5, 10))  # type: ignore[literal-required]
    return f"{recalls} (n = {metrics['n']})"
