"""`reelfind search`: runs one search and prints a table or JSON."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from model.runtime.errors import InputError
from model.runtime.exits import NOTHING_FOUND
from service.cli.exits import note
from service.cli.filters import filter_of_options, filter_request
from service.cli.hits_table import result_json, show_hits
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
from service.cli.printing import print_json_text
from service.cli.query_options import query_of
from service.cli.searcher import note_skipped, open_checked_searcher
from service.cli.server_search import search_on_server
from service.search.asking import ask
from service.search.queries import SequenceQuery
from service.search.query import check_top_k
from service.search.searcher import SearchOptions
from service.search.sorting import parse_sort
from service.settings import load_settings


def search_command(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TEXT]...",
            help="Description of what to find, in plain words; quoted or not. May be left out with --image "
            "or --like.",
            show_default=False,
        ),
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option(
            "--image", metavar="FILE", help="Picture of what to find, alone or together with the text."
        ),
    ] = None,
    like: Annotated[
        list[str] | None,
        typer.Option(
            "--like",
            metavar="FRAME_ID",
            help="Find what is like this stored frame (--json lists the ids); with a text or a picture, "
            "correct that by it. May be given several times.",
        ),
    ] = None,
    not_text: Annotated[
        str | None, typer.Option("--not", metavar="TEXT", help="What hits should not show.")
    ] = None,
    then: Annotated[
        list[str] | None,
        typer.Option(
            "--then",
            metavar="TEXT",
            help="What the same video shows after that, within a minute. May be given several times.",
        ),
    ] = None,
    library: LibraryOption = None,
    server: Annotated[
        str | None,
        typer.Option(
            "--server",
            metavar="URL",
            help="Ask the service at this address, such as http://127.0.0.1:8000, and no library here. "
            "REELFIND_KEY may have the key for it.",
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            "--top-k",
            help="Maximum number of moments or videos to list.",
            show_default="10, or REELFIND_DEFAULT_TOP_K",
        ),
    ] = None,
    group_by: Annotated[
        Literal["moment", "video"],
        typer.Option("--group-by", help="List moments, or each video once with its best one."),
    ] = "moment",
    min_probability: Annotated[
        float | None, typer.Option("--min-probability", help="Leave out less likely hits, from 0 to 1.")
    ] = None,
    filter_json: Annotated[
        str | None,
        typer.Option(
            "--filter",
            metavar="JSON",
            help="Search only videos for which this holds, as in the API: "
            """'{"op": "equals", "field": "codec", "value": "h264"}'.""",
        ),
    ] = None,
    folder: Annotated[
        list[Path] | None,
        typer.Option("--folder", help="Search only videos in this folder. May be given several times."),
    ] = None,
    min_duration: Annotated[
        float | None, typer.Option("--min-duration", help="Leave out videos that are shorter, in seconds.")
    ] = None,
    max_duration: Annotated[
        float | None, typer.Option("--max-duration", help="Leave out videos that are longer, in seconds.")
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            "--sort",
            metavar="FIELD",
            help="Order the hits around the best candidates by a field of their videos, such as "
            "duration_seconds or path; with - before it, such as -indexed_at, the other way round.",
        ),
    ] = None,
    min_similarity: Annotated[
        float | None,
        typer.Option(
            "--min-similarity",
            min=-1,
            max=1,
            help="Leave out hits with a lower similarity (a cosine, see --json).",
        ),
    ] = None,
    rerank: RerankOption = True,
    num_candidates: CandidatesOption = None,
    num_salient_frames: SalientOption = None,
    explain: Annotated[bool, typer.Option("--explain", help="Explain how each score was computed.")] = False,
    bundle: BundleOption = None,
    provider: ProviderOption = None,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search a library by a text or a picture, and list the best moments. Exit code 1: nothing found."""
    flags = {"library": library, "bundle": bundle, "provider": provider, "threads": threads}
    settings = load_settings(flags)
    text = " ".join(words) if words else None
    query = query_of(settings, text, image, like or (), not_text, then or ())
    choice = (filter_json, folder or [], min_duration, max_duration)
    if server is not None:
        _check_not_here(flags)
        where: object = filter_request(*choice)
        wanted: dict[str, Any] = {
            "group_by": group_by,
            "filter": where,
            "top_k": top_k,
            "min_probability": min_probability,
            "threshold": None if min_similarity is None else {"similarity": min_similarity},
            "sort": sort,
            "rerank": rerank,
            "num_candidates": num_candidates,
            "num_salient_frames": num_salient_frames,
            "explain": explain,
        }
        result, num_all = search_on_server(server, query, wanted, count_all=where is not None and not as_json)
    else:
        count = check_top_k(settings.default_top_k if top_k is None else top_k, settings.max_top_k)
        where = filter_of_options(*choice)
        searcher = open_checked_searcher(settings)
        options = searcher.check(
            SearchOptions(
                group_by=group_by,
                where=where,
                min_probability=min_probability,
                min_similarity=min_similarity,
                sort=None if sort is None else parse_sort(sort, "/--sort"),
                rerank=rerank,
                num_candidates=num_candidates,
                num_salient_frames=num_salient_frames,
                explain=explain,
            ),
            query,
        )
        result, num_all = ask(searcher, query, count, options), searcher.snapshot.num_videos
    if as_json:
        print_json_text(result_json(result))
    elif result.hits:
        show_hits(result, Console())
        if result.best_guess:
            note("note: nothing here shows that: these are the closest guesses")
        note_skipped(result.rerank_skipped)
        if where is not None:
            note(f"note: the filter left {result.num_videos:,} of {num_all:,} videos")
        messages = [warning.message for warning in result.query_warnings]
        for message in messages + [warning.message for warning in result.library_warnings]:
            note(f"note: {message}")
    if not result.hits:
        if not result.num_videos:
            found = "the library holds no video that can be searched"
            note(f"nothing found: {found if where is None else f'{found} and fits the filter'}")
        elif isinstance(query, SequenceQuery):
            note("nothing found: no video shows these one after the other")
        elif min_probability is not None or min_similarity is not None:
            note("nothing found: no moment reaches what --min-probability or --min-similarity asks for")
        else:
            note("nothing found: there is nothing beside the example")
        raise typer.Exit(NOTHING_FOUND)


def _check_not_here(flags: Mapping[str, object]) -> None:
    """Refuse options that say what to search with here.

    Raises:
        InputError: one of them is given.
    """
    if given := [f"--{name}" for name, value in flags.items() if value is not None]:
        raise InputError(f"--server goes without {', '.join(given)}: the service has its own. Leave one out.")
