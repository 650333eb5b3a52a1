"""`reelfind index`: brings a library up to date with folders of videos."""

import os
import signal
import threading
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from indexer.decode import StorageLimits
from indexer.encode import open_indexing_bundle
from indexer.events import Event
from indexer.library.schema import TokenKind
from indexer.options import LEAST_WORKER_MEMORY, IndexOptions, default_batch_frames, default_workers
from indexer.run import index_paths, starting_decoder
from model.runtime.exits import NOTHING_FOUND
from model.runtime.sandbox.confinement import SandboxMode
from model.runtime.tracing import parent_in, span, tracing
from model.runtime.video import DecoderName, ReadingLimits
from service.cli.generation import (
    finish_generation,
    generation_object,
    own_bundle,
    print_generation,
    read_clean_texts,
)
from service.cli.index_arguments import (
    HwaccelOption,
    KeepSnapshotsOption,
    ModelProviderOption,
    ModelThreadsOption,
    PathsArgument,
    PinnedOption,
)
from service.cli.index_engine import (
    EngineName,
    EngineOption,
    RayAddressOption,
    RayEncodersOption,
    RayGpusOption,
    RayRequest,
    chosen_engine,
)
from service.cli.index_events import EventWriter
from service.cli.index_progress import ProgressView
from service.cli.index_report import print_summary, summary_object
from service.cli.options import IndexBackendOption, JsonOption, RequiredLibraryOption
from service.cli.printing import print_json
from service.cli.stopping import stopping
from service.settings import load_settings, variable_of


def index_command(
    paths: PathsArgument,
    library: RequiredLibraryOption,
    bundle: Annotated[
        Path | None,
        typer.Option(
            envvar=variable_of("bundle"),
            help="Folder of the model bundle. Default: the one that the library was made with; for a new "
            "library the one that ships with Reelfind. With another one, the library's next generation is "
            "built beside the one that is served.",
        ),
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(
            help='With another bundle: a file with one {"query": …} per line, with "video" where the answer '
            "is known. Measures how the generations agree.",
        ),
    ] = None,
    publish: Annotated[
        bool,
        typer.Option(
            "--publish",
            help="With another bundle: serve its generation when the run has come to its end. "
            "`reelfind library publish` does so later.",
        ),
    ] = False,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune",
            help="Forget files under PATH that no longer exist, or that a rule leaves out now. Videos "
            "without any file are removed.",
        ),
    ] = False,
    forget_missing: Annotated[
        float | None,
        typer.Option(
            "--forget-missing",
            metavar="DAYS",
            min=0,
            help="Forget files that have been missing for DAYS, also those whose disk is not mounted.",
            show_default=False,
        ),
    ] = None,
    prune_empty: Annotated[
        bool,
        typer.Option(
            "--prune-empty",
            help="With --prune: prune a PATH even if it holds no video any more. Without this option that is "
            "an error, because its disk may not be mounted.",
        ),
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Read files again that failed in an earlier run.")
    ] = False,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="First compare the library with its checksums, take damaged files out of it, and read the "
            "videos again that have damaged rows. All others are kept.",
        ),
    ] = False,
    list_passed_over: Annotated[
        bool,
        typer.Option("--list-passed-over", help="List the files under PATH that are not taken for videos."),
    ] = False,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Leave out files and folders, in gitignore's syntax: '*.LRV', 'drafts/'; may be repeated. A "
            "file `.reelfindignore` in a folder holds such patterns too.",
        ),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Take files and folders that another rule leaves out; may be repeated. Where both speak of "
            "one, --include wins.",
        ),
    ] = None,
    settle: Annotated[
        float,
        typer.Option(
            min=0,
            max=3600,
            envvar="REELFIND_SETTLE_SECONDS",
            help="Seconds that a new or changed file must be at rest before it is read: until then it may "
            "still be written. 0 reads all at once.",
        ),
    ] = 2.0,
    decoder: Annotated[DecoderName, typer.Option(help="Library that decodes the videos.")] = "pyav",
    hwaccel: HwaccelOption = None,
    pinned_memory: PinnedOption = False,
    provider: ModelProviderOption = "cpu",
    engine_cache: Annotated[
        Path | None,
        typer.Option(
            envvar=variable_of("engine_cache"),
            help="Folder where TensorRT stores its engines, which take minutes to build. Default: nowhere.",
            show_default=False,
        ),
    ] = None,
    threads: ModelThreadsOption = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Decoding processes; 0 decodes in the main process. Default: one less than the cores, those "
            "of the cluster on Ray.",
        ),
    ] = None,
    engine: EngineOption = EngineName.LOCAL,
    ray_address: RayAddressOption = None,
    ray_encoders: RayEncodersOption = None,
    ray_gpus: RayGpusOption = 1.0,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, max=4096, help="Frames encoded together. Default: 16 on a CPU, 128 on a GPU."),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Skip a file after this many seconds without progress.")
    ] = 300.0,
    file_timeout: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            help="End a file after this many seconds in all; what was read of it is kept. Default: an hour, "
            "a second for each MB, and 10 times its length.",
            show_default=False,
        ),
    ] = None,
    sandbox: Annotated[
        SandboxMode,
        typer.Option(
            help="Confine the processes that read videos: with what the system has (auto), or not at all "
            "(off); 'required' refuses to run without Landlock and seccomp. `reelfind doctor` shows what "
            "there is."
        ),
    ] = "auto",
    worker_memory: Annotated[
        int | None,
        typer.Option(
            min=LEAST_WORKER_MEMORY,
            help="MiB of address space for the process that reads a file. Default: 8192, and 128 for each "
            "core.",
            show_default=False,
        ),
    ] = None,
    max_pixels: Annotated[
        int,
        typer.Option(min=1, help="Leave out pictures with more pixels, which take gigabytes of memory."),
    ] = ReadingLimits.max_pixels,
    max_hours: Annotated[
        float, typer.Option(min=0.001, help="Read no more of a video; damaged times may say years.")
    ] = ReadingLimits.max_hours,
    cpu_seconds: Annotated[
        float,
        typer.Option(min=0.001, help="End a file that takes more CPU time to read, besides the next option."),
    ] = ReadingLimits.cpu_seconds,
    cpu_seconds_per_megabyte: Annotated[
        float, typer.Option(min=0, help="CPU time for each million bytes of a file.")
    ] = ReadingLimits.cpu_seconds_per_megabyte,
    stored_megabytes: Annotated[
        float,
        typer.Option(
            min=0.001, help="End a file that takes more megabytes in the library, besides the next option."
        ),
    ] = StorageLimits.megabytes,
    stored_bytes_per_byte: Annotated[
        float, typer.Option(min=0, help="Bytes in the library for each byte of a file.")
    ] = StorageLimits.bytes_per_byte,
    index_backend: IndexBackendOption = None,
    index_factory: Annotated[
        str | None,
        typer.Option(
            help="Kind of index in the backend's notation, such as a FAISS factory string; remembered for "
            "later runs. 'auto' chooses by size."
        ),
    ] = None,
    tokens: Annotated[
        TokenKind | None,
        typer.Option(
            help="How to store frame tokens, which re-ranking and answers to questions need. Default: as the "
            "library does; for a new library int8, or none if the bundle has neither a matching head nor an "
            "answer head.",
            show_default=False,
        ),
    ] = None,
    tokens_per_frame: Annotated[
        int | None,
        typer.Option(
            min=1, help="Merge the tokens of each frame until this many are left. Default: set by the bundle."
        ),
    ] = None,
    embedding_dim: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Cut the embeddings of segments to their first dimensions, where the bundle allows it "
            "(`reelfind bundle info`): smaller and faster, and measured by `reelfind eval`. Default: as the "
            "library does; for a new library not at all.",
            show_default=False,
        ),
    ] = None,
    keep_snapshots: KeepSnapshotsOption = 5,
    keep_minutes: Annotated[
        float,
        typer.Option(
            min=0,
            help="Minutes to keep any other snapshot after it was served, for services on other computers "
            "that still read it.",
        ),
    ] = 10.0,
    publish_minutes: Annotated[
        float, typer.Option(min=0.01, help="Publish a snapshot about this often during a long run.")
    ] = 5.0,
    speech: Annotated[
        str | None,
        typer.Option(
            metavar="[MODEL]",
            help="Hear what is said, with Whisper: a folder or an installed package that holds a model for "
            "faster-whisper; or tiny, base (without MODEL; 145 MB), small, large-v3 and so on, which are "
            "fetched once if HF_HUB_OFFLINE=0. Needs the extra 'speech'. Indexed videos are heard too.",
            show_default=False,
        ),
    ] = None,
    screen: Annotated[
        bool,
        typer.Option(
            "--screen",
            help="Read what is written in the pictures, with RapidOCR: Chinese, Japanese and Latin scripts. "
            "Needs the extra 'screen'. Videos that are in the library are read too, once.",
        ),
    ] = False,
    shots: Annotated[
        bool,
        typer.Option(
            "--shots",
            help="Look for cuts in all frames, so that moments start and end with shots. Takes a sixth of a "
            "video's length on one core, besides decoding, and 300 MB. Videos that are in the library are "
            "looked at too, once.",
        ),
    ] = False,
    events: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Append the steps of the run to FILE, a line of JSON each, for programs that show progress.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Index videos: encode and store new and changed ones, then publish a snapshot.

    After Ctrl-C it publishes what is done. Run the same command again to continue.
    """
    settings = load_settings({"library": library, "bundle": bundle, "provider": provider, "threads": threads})
    texts = None if queries is None else read_clean_texts(queries, settings)
    if batch_size is None:
        batch_size = default_batch_frames(provider)
    console = Console(stderr=True)
    stop = threading.Event()
    with (
        tracing(),
        stopping(stop) as received,
        nullcontext() if events is None else EventWriter(events) as writer,
        ProgressView(console) as view,
    ):

        def tell(event: Event) -> None:
            view(event)
            if writer is not None:
                writer(event)

        options = IndexOptions(
            decoder=decoder,
            hwaccel=hwaccel,
            workers=default_workers() if workers is None else workers,
            batch_frames=batch_size,
            timeout_seconds=timeout,
            file_timeout_seconds=file_timeout,
            sandbox=sandbox,
            worker_memory=worker_memory,
            max_pixels=max_pixels,
            max_hours=max_hours,
            cpu_seconds=cpu_seconds,
            cpu_seconds_per_megabyte=cpu_seconds_per_megabyte,
            stored_megabytes=stored_megabytes,
            stored_bytes_per_byte=stored_bytes_per_byte,
            prune=prune,
            prune_empty=prune_empty,
            forget_missing_days=forget_missing,
            retry_failed=retry_failed,
            repair=repair,
            list_passed_over=list_passed_over,
            exclude=tuple(exclude or ()),
            include=tuple(include or ()),
            settle_seconds=settle,
            index_backend=index_backend,
            index_factory=index_factory,
            tokens=tokens,
            tokens_per_frame=tokens_per_frame,
            embedding_dim=embedding_dim,
            keep_snapshots=keep_snapshots,
            keep_seconds=keep_minutes * 60,
            publish_seconds=publish_minutes * 60,
            threads=threads,
            speech=speech,
            screen=screen,
            shots=shots,
        )
        chosen = chosen_engine(
            engine, options, RayRequest(ray_address, workers, ray_encoders, ray_gpus, provider)
        )
        with nullcontext() if chosen else starting_decoder(options) as starting:
            opened, encoders = open_indexing_bundle(
                bundle or own_bundle(settings),
                # The nodes of a cluster may have the GPU that this machine lacks.
                "cpu" if chosen else provider,
                threads,
                batch_size,
                engine_cache,
                pinned=pinned_memory,
            )
            options = replace(options, encoders=encoders)
            with span("index", parent=parent_in(os.environ)) as run:
                summary = index_paths(
                    paths, library, opened, options, tell, stop, engine=chosen, starting=starting
                )
                run.set("reelfind.files", summary.files)
                run.set("reelfind.snapshot", summary.snapshot)
    if not as_json:
        print_summary(summary, library, Console())
    staged = None
    if not summary.interrupted:
        staged = finish_generation(settings, summary, texts, publish=publish)
    if as_json:
        print_json(
            {
                **summary_object(summary, library),
                "staged": None if staged is None else generation_object(staged),
            }
        )
    elif staged is not None:
        print_generation(staged, library, Console())
    if summary.interrupted:
        done = "published" if summary.served else "kept, and nothing else is served"
        console.print(
            f"stopped: what was done is {done}; run the same command again to continue", highlight=False
        )
        raise typer.Exit(128 + (received[0] if received else signal.SIGINT))
    if not summary.searchable:
        raise typer.Exit(NOTHING_FOUND)
