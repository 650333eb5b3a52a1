"""`reelfind index` and `reelfind library info|verify|rollback`, as the `reelfind` command includes them."""

import json
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from indexer.encode import open_encoder
from indexer.library.errors import LibraryError
from indexer.library.folder import Library
from indexer.library.manifest import current_number, read_manifest, snapshot_numbers
from indexer.library.schema import TokenKind
from indexer.library.verify import rollback, verify_library
from indexer.options import CPU_BATCH_FRAMES, GPU_BATCH_FRAMES, IndexOptions, default_workers
from indexer.run import index_paths
from model.runtime.bundle import default_bundle_path
from model.runtime.errors import InputError
from model.runtime.video import DecoderName
from service.cli.progress import ProgressView
from service.cli.report import (
    info_object,
    print_info,
    print_summary,
    print_verify,
    summary_object,
    verify_object,
)

NOTHING_FOUND, FAILED = 1, 3

#: The option that sets a field of `IndexOptions`, as errors name it.
_OPTION_OF_FIELD = {
    "batch_frames": "--batch-size",
    "encoders": "--threads",
    "keep_snapshots": "--keep-snapshots",
    "prune": "--prune",
    "prune_empty": "--prune-empty",
    "timeout_seconds": "--timeout",
    "tokens": "--tokens",
    "tokens_per_frame": "--tokens-per-frame",
    "workers": "--workers",
}

LibraryOption = Annotated[
    Path,
    typer.Option("--library", envvar="REELFIND_LIBRARY", help="The library's folder.", show_default=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object for programs.")]


def index_command(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Video files and folders of them.")],
    library: LibraryOption,
    bundle: Annotated[
        Path | None,
        typer.Option(envvar="REELFIND_BUNDLE", help="The model bundle; without it, the one installed."),
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove videos below PATH whose files are gone.")
    ] = False,
    prune_empty: Annotated[
        bool,
        typer.Option(
            "--prune-empty",
            help="With --prune: also where no video is left below PATH, as when its disk is not mounted.",
        ),
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again what could not be read before.")
    ] = False,
    decoder: Annotated[DecoderName, typer.Option(help="What reads videos.")] = "pyav",
    provider: Annotated[
        Literal["cpu", "cuda", "tensorrt"],
        typer.Option(envvar="REELFIND_PROVIDER", help="Where the model runs."),
    ] = "cpu",
    engine_cache: Annotated[
        Path | None,
        typer.Option(
            envvar="REELFIND_ENGINE_CACHE",
            help="Where TensorRT keeps the engines it builds, which takes minutes; not given: nowhere.",
            show_default=False,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, envvar="REELFIND_THREADS", help="CPU threads for the model; one a core if not given."
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Decoding processes; one less than there are cores if not given; 0: none."),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1, max=4096, help="Frames encoded together; 16 on a CPU, 128 on a GPU if not given."
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Give a file up after so many seconds without progress.")
    ] = 300.0,
    index_factory: Annotated[
        str | None,
        typer.Option(help="FAISS factory string, kept for later runs; 'auto' chooses by size."),
    ] = None,
    tokens: Annotated[
        TokenKind | None,
        typer.Option(
            help="How frame tokens are stored, for re-ranking. Not given: as the library has them; "
            "in a new one int8, or none if the bundle has no matcher.",
            show_default=False,
        ),
    ] = None,
    tokens_per_frame: Annotated[
        int | None,
        typer.Option(min=1, help="Merge a frame's tokens to so many; what the bundle advises if not given."),
    ] = None,
    keep_snapshots: Annotated[int, typer.Option(min=1, help="Snapshots to keep for rollback.")] = 5,
    publish_minutes: Annotated[
        float, typer.Option(min=0.01, help="A long run makes its work searchable about so often.")
    ] = 5.0,
    as_json: JsonOption = False,
) -> None:
    """Index videos: read, encode and store what is new or changed, then publish a snapshot.

    Stopped with Ctrl-C, it publishes what is done; run again, it continues.
    """
    if batch_size is None:
        batch_size = CPU_BATCH_FRAMES if provider == "cpu" else GPU_BATCH_FRAMES
    console = Console(stderr=True)
    stop = threading.Event()
    with _naming_options(), _stopping(stop) as received, ProgressView(console) as view:
        options = IndexOptions(
            decoder=decoder,
            workers=default_workers() if workers is None else workers,
            batch_frames=batch_size,
            timeout_seconds=timeout,
            prune=prune,
            prune_empty=prune_empty,
            retry_failed=retry_failed,
            index_factory=index_factory,
            tokens=tokens,
            tokens_per_frame=tokens_per_frame,
            keep_snapshots=keep_snapshots,
            publish_seconds=publish_minutes * 60,
        )
        opened, encoders = open_encoder(
            bundle or default_bundle_path(), provider, threads, batch_size, engine_cache
        )
        summary = index_paths(paths, library, opened, replace(options, encoders=encoders), view, stop)
    if as_json:
        _print_json(summary_object(summary, library))
    else:
        print_summary(summary, library, Console())
    if summary.interrupted:
        console.print("stopped: what was done is published, `reelfind index` continues", highlight=False)
        raise typer.Exit(128 + (received[0] if received else signal.SIGINT))
    if not summary.searchable:
        raise typer.Exit(NOTHING_FOUND)


library_app = typer.Typer(
    name="library",
    help="Look into a library, check it, go back to an earlier snapshot.",
    no_args_is_help=True,
)


@library_app.command("info")
def info_command(library: LibraryOption, as_json: JsonOption = False) -> None:
    """Show what a library holds, and its snapshots."""
    home = Library.open(library)
    current = current_number(home.path)
    if current is None:
        home.current()
    manifests = []
    for number in snapshot_numbers(home.path):
        try:
            manifests.append(read_manifest(home.path, number))
        except LibraryError as error:
            if number == current:
                raise
            typer.echo(f"reelfind: {error}", err=True)
    if current not in {manifest.number for manifest in manifests}:
        home.current()
    info = info_object(home, current, manifests)
    if as_json:
        _print_json(info)
    else:
        print_info(info, Console())


@library_app.command("verify")
def verify_command(library: LibraryOption, as_json: JsonOption = False) -> None:
    """Read every file of every snapshot and compare it with what was written. Ends with 3 on damage."""
    report = verify_library(library)
    if as_json:
        _print_json(verify_object(report))
    else:
        print_verify(report, Console())
    if not report.ok:
        raise typer.Exit(FAILED)


@library_app.command("rollback")
def rollback_command(
    library: LibraryOption,
    to: Annotated[
        int | None, typer.Option(help="The snapshot to serve; without it, the whole one before the present.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Serve an earlier snapshot; the next `reelfind index` goes on from it."""
    number = rollback(library, to)
    if as_json:
        _print_json({"library": str(library), "snapshot": number})
    else:
        typer.echo(f"snapshot {number} is served now; `reelfind index` goes on from it")


def _print_json(value: dict[str, Any]) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


@contextmanager
def _naming_options() -> Iterator[None]:
    """Put the command's options in the place of the fields that an error names."""
    try:
        yield
    except InputError as error:
        message, field = str(error), error.field
        if field in _OPTION_OF_FIELD:
            message = _OPTION_OF_FIELD[field] + message.removeprefix(field)
        message = re.sub(r"`(\w+)`", lambda name: _OPTION_OF_FIELD.get(name[1], name[0]), message)
        raise InputError(message) from error


@contextmanager
def _stopping(stop: threading.Event) -> Iterator[list[int]]:
    """Turn the first Ctrl-C or SIGTERM into a request to stop; the second one ends the process."""
    received: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        if len(received) == 1:
            stop.set()
            # Not the console, whose lock the interrupted code may hold.
            sys.stderr.write("\nstopping: finishing the batch in flight; once more to stop at once\n")
        else:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, old in before.items():
            signal.signal(number, old)
