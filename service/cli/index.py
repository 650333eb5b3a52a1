"""`reelfind index`: bring a library up to date with folders of videos."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from indexer.encode import open_encoder
from indexer.library.schema import TokenKind
from indexer.options import CPU_BATCH_FRAMES, GPU_BATCH_FRAMES, IndexOptions, default_workers
from indexer.run import index_paths
from model.runtime.bundle import Provider, default_bundle_path
from model.runtime.exits import NOTHING_FOUND
from model.runtime.signals import handling_signals
from model.runtime.video import DecoderName
from service.cli.index_progress import ProgressView
from service.cli.index_report import print_summary, summary_object
from service.cli.options import JsonOption, RequiredLibraryOption
from service.cli.printing import print_json
from service.settings import variable_of


def index_command(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Video files and folders of them.")],
    library: RequiredLibraryOption,
    bundle: Annotated[
        Path | None,
        typer.Option(envvar=variable_of("bundle"), help="The model bundle; without it, the one installed."),
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
        Provider,
        typer.Option(envvar=variable_of("provider"), help="Where the model runs."),
    ] = "cpu",
    engine_cache: Annotated[
        Path | None,
        typer.Option(
            envvar=variable_of("engine_cache"),
            help="Where TensorRT keeps the engines it builds, which takes minutes; not given: nowhere.",
            show_default=False,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, envvar=variable_of("threads"), help="CPU threads for the model; one a core if not given."
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
    with _stopping(stop) as received, ProgressView(console) as view:
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
        print_json(summary_object(summary, library))
    else:
        print_summary(summary, library, Console())
    if summary.interrupted:
        console.print("stopped: what was done is published, `reelfind index` continues", highlight=False)
        raise typer.Exit(128 + (received[0] if received else signal.SIGINT))
    if not summary.searchable:
        raise typer.Exit(NOTHING_FOUND)


@contextmanager
def _stopping(stop: threading.Event) -> Iterator[list[int]]:
    """Set `stop` on the first Ctrl-C or SIGTERM; the second one ends the process.

    Gives the list of the signals received so far.
    """
    received: list[int] = []

    def handle(number: int) -> None:
        received.append(number)
        if len(received) == 1:
            stop.set()
            # Not through the console: the interrupted code may hold its lock.
            sys.stderr.write("\nstopping: finishing the batch in flight; once more to stop at once\n")
        else:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    with handling_signals(handle):
        yield received
