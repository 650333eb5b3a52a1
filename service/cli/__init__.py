"""The `reelfind` command: its own commands, those of the other packages, and one way to report errors.

Exit codes: 0 done, 1 nothing found, 2 bad input, 3 failed.
"""

import json
import os
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import Progress
from typer.core import TyperGroup

from model.runtime.errors import InputError, ReelfindError
from service.api.server import address_of, bind, run_server
from service.bench.command import bench_command
from service.cli.bundle import bundle_app
from service.cli.index import index_command, library_app
from service.cli.show import result_json, show_figures, show_hits
from service.demo.command import demo_command
from service.live import open_bundle, open_searcher
from service.search.evaluation import evaluate, read_clean_queries
from service.search.query import check_top_k, clean_text
from service.search.results import RerankSkipped
from service.search.searcher import Searcher, SearchOptions
from service.settings import Settings, load_settings

NOTHING_FOUND, BAD_INPUT, FAILED = 1, 2, 3

LibraryOption = Annotated[Path | None, typer.Option("--library", help="The library's folder.")]
BundleOption = Annotated[Path | None, typer.Option("--bundle", help="The model bundle's folder.")]
ProviderOption = Annotated[
    Literal["cpu", "cuda", "tensorrt"] | None, typer.Option("--provider", help="Where the model runs.")
]
ThreadsOption = Annotated[int | None, typer.Option("--threads", help="Threads of one model call.")]
RerankOption = Annotated[
    bool, typer.Option("--rerank/--no-rerank", help="Judge the best segments anew on their salient frames.")
]
CandidatesOption = Annotated[
    int | None, typer.Option("--num-candidates", help="The most segments to re-rank.", show_default="model's")
]
SalientOption = Annotated[
    int | None,
    typer.Option("--num-salient-frames", help="Frames of a segment to match.", show_default="model's"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def exit_code_of(error: Exception) -> int:
    """The exit code for an error: the one place that says which are the caller's."""
    return BAD_INPUT if isinstance(error, InputError) else FAILED


class ReportingGroup(TyperGroup):
    """Turns errors of any command into one line on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except ReelfindError as error:
            _report(str(error))
            raise typer.Exit(exit_code_of(error)) from None
        except BrokenPipeError:
            # The reader, `head` for instance, has seen enough; the interpreter's last flush must not fail.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(FAILED) from None
        except OSError as error:
            _report(str(error))
            raise typer.Exit(FAILED) from None
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            # Only what typer raises for a wrong option has an exit code of its own.
            if hasattr(error, "exit_code") or os.environ.get("REELFIND_TRACEBACK"):
                raise
            _report(
                f"internal error, {type(error).__name__}: {error}. Please report it with what "
                "REELFIND_TRACEBACK=1 prints in addition."
            )
            raise typer.Exit(FAILED) from None


def _report(message: str) -> None:
    typer.echo(f"reelfind: {' '.join(message.split())}", err=True)


app = typer.Typer(
    cls=ReportingGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Find videos, and moments in videos, by describing them.",
    epilog="Every option of serve, search and eval has an environment variable, REELFIND_ and its name: "
    "REELFIND_LIBRARY. Exit codes: 0 done, 1 nothing found, 2 bad input, 3 failed.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"reelfind {version('reelfind')}")
        raise typer.Exit


@app.callback()
def root(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Find videos, and moments in videos, by describing them."""


@app.command()
def serve(
    library: LibraryOption = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    bundle: BundleOption = None,
    provider: ProviderOption = None,
    threads: ThreadsOption = None,
    search_threads: Annotated[int | None, typer.Option(help="Searches at the same time.")] = None,
    deadline_ms: Annotated[
        int | None, typer.Option(help="Milliseconds after which a search gives re-ranking up.")
    ] = None,
    reload_seconds: Annotated[
        float | None, typer.Option(help="How often to look for a new snapshot; 0 never does.")
    ] = None,
    access_log: Annotated[bool | None, typer.Option(help="Log a line a request.")] = None,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None, typer.Option(help="The least to log.")
    ] = None,
) -> None:
    """Serve a library over HTTP, with the page at /."""
    settings = load_settings(
        {
            "library": library,
            "host": host,
            "port": port,
            "bundle": bundle,
            "provider": provider,
            "threads": threads,
            "search_threads": search_threads,
            "deadline_ms": deadline_ms,
            "reload_seconds": reload_seconds,
            "access_log": access_log,
            "log_level": log_level,
        }
    )
    _check_bundle_path(settings)
    with bind(settings.host, settings.port) as listener:
        address = address_of(listener)
        run_server(
            settings,
            open_bundle(settings),
            listener,
            on_started=lambda: typer.echo(f"Reelfind is at {address} (Ctrl-C stops it)"),
        )


@app.command()
def search(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to find, in plain words.")],
    library: LibraryOption = None,
    top_k: Annotated[int | None, typer.Option("--top-k", help="The most videos to list.")] = None,
    rerank: RerankOption = True,
    num_candidates: CandidatesOption = None,
    num_salient_frames: SalientOption = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say how each score came about.")] = False,
    bundle: BundleOption = None,
    provider: ProviderOption = None,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find videos from the command line. Exit code 1: nothing found."""
    settings = load_settings({"library": library, "bundle": bundle, "provider": provider, "threads": threads})
    cleaned = clean_text(text, settings.max_query_characters)
    count = check_top_k(settings.default_top_k if top_k is None else top_k, settings.max_top_k)
    searcher = _open(settings)
    options = searcher.check(SearchOptions(rerank, num_candidates, num_salient_frames, explain=explain))
    result = searcher.search(cleaned, count, options)
    if as_json:
        typer.echo(result_json(result))
    elif result.hits:
        show_hits(result, Console())
        _note_skipped(result.rerank_skipped)
    if not result.hits:
        _report("nothing found: the library holds no video that can be searched")
        raise typer.Exit(NOTHING_FOUND)


@app.command("eval")
def evaluate_command(
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
    searcher = _open(settings)
    options = searcher.check(SearchOptions(rerank, num_candidates, num_salient_frames))
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        console = Console(stderr=True)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("searching", total=len(rows))
            figures = evaluate(searcher, rows, options, lambda: progress.advance(task))
    for note in dict.fromkeys(str(note.message) for note in notes):
        _report(f"note: {note}")
    if as_json:
        typer.echo(json.dumps(figures.to_json()))
        return
    _note_skipped(figures.rerank_skipped)
    show_figures(figures)


app.command("index")(index_command)
app.add_typer(library_app, name="library")
app.add_typer(bundle_app, name="bundle")
app.command("demo")(demo_command)
app.command("bench")(bench_command)


def _open(settings: Settings) -> Searcher:
    _check_bundle_path(settings)
    if not settings.library.exists():
        raise InputError(
            f"no library at {settings.library}: create one with "
            f"`reelfind index PATH --library {settings.library}`"
        )
    return open_searcher(settings)


def _note_skipped(skipped: RerankSkipped | None) -> None:
    reasons = {
        "no_matcher": "the bundle has no matching head",
        "no_tokens": "the library holds no tokens of its frames; index into a new library to have them",
    }
    if skipped in reasons:
        _report(f"note: not re-ranked: {reasons[skipped]}")


def _check_bundle_path(settings: Settings) -> None:
    if settings.bundle is not None and not settings.bundle.exists():
        raise InputError(f"no bundle at {settings.bundle}: name the folder that holds bundle.json")


def main() -> None:
    """The `reelfind` command."""
    app()


if __name__ == "__main__":
    main()
