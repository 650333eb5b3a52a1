"""One indexing run: scans, plans, opens the library, and lets an engine decode and encode into a sink."""

import importlib.util
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from indexer.decode import DecodeSpec
from indexer.earlier import EarlierGeneration, without_texts
from indexer.encode import EncodeSpec
from indexer.engines.base import Engine
from indexer.engines.local import LocalEngine
from indexer.engines.local_decoders import Bounds, FileDecoder, InlineDecoder, ProcessDecoder
from indexer.engines.worker_process import StartingProcess
from indexer.events import Event, FileStillWritten, IndexSummary, Note, Scanned
from indexer.excluded import FoundExclusions, forget_excluded, forget_gone, leave_out_excluded
from indexer.file_facts import lacking_facts, read_lacking_facts
from indexer.library.curation import Curation
from indexer.library.errors import LibraryError
from indexer.library.folder import Library, generation_of
from indexer.library.generations import base_manifest, is_served
from indexer.library.migration import migrate
from indexer.library.mounts import known_mounts, mounted, remember_mounts
from indexer.library.overview import list_generations
from indexer.library.publish import PublishOptions, chosen_backend
from indexer.library.records import SEARCHABLE
from indexer.library.repair import repair
from indexer.library.storage.registry import storage_of
from indexer.library.trust import remember_media_roots
from indexer.library.vectors.base import AUTOMATIC
from indexer.library.writer import LibraryWriter
from indexer.options import IndexOptions
from indexer.plan import IndexPlan, IndexTask, check_not_emptied, make_plan
from indexer.scan import Scan, scan
from indexer.settling import SettledTasks
from indexer.sink import CommitOptions, LibrarySink
from indexer.stages.base import AnyStage
from indexer.stages.registry import open_stages
from indexer.stages.run import StageRun, StageVideo
from model.runtime.bundle import Bundle, BundleManifest
from model.runtime.errors import InputError
from model.runtime.installing import install_command
from model.runtime.tracing import span
from model.runtime.video import DecoderName

_NOT_REMEMBERED = (
    "this user has no folder to remember what was indexed in ($XDG_STATE_HOME, or ~/.local/state): "
    "`reelfind serve` plays the videos with `--media FOLDER`"
)
_UNMOUNTED = "is not mounted, but was when its videos were indexed: they stay in the library"


def index_paths(
    paths: Sequence[Path | str],
    library: Path | str,
    bundle: Bundle,
    options: IndexOptions,
    on_event: Callable[[Event], None],
    stop: threading.Event | None = None,
    engine: Engine | None = None,
    starting: StartingProcess | None = None,
    stages: Sequence[AnyStage] | None = None,
    scanned: Scan | None = None,
) -> IndexSummary:
    """Update a library with the videos in files and folders, publish it, and let stages read on in them.

    With another bundle than that of the generation that is served, the generation of that bundle is built or
    updated beside it, and staged: `publish_generation` serves it.

    Args:
        paths: existing files and folders, and addresses of both.
        library: the library's folder; created if it does not exist.
        bundle: the bundle; that of a new library, of the generation that is served, or of another one.
        options: how to index.
        on_event: receives events, from one thread at a time.
        stop: set it to end early: what is encoded by then is kept and published.
        engine: where to decode and encode; None: on this machine, as in `options`.
        starting: what `starting_decoder` gave for these options, for the engine of this machine.
        stages: what runs after the pictures; None: as in `options`.
        scanned: what is found in these paths, or only of what has changed there; None: they are scanned.

    Raises:
        InputError: a path does not exist, an option is invalid, or pruning would empty a whole folder.
        LibraryError: the library is damaged, or cannot be written.
        BusyError: another process is writing the library.
        BundleError: the bundle fails.
    """
    started = time.monotonic()
    stop = stop or threading.Event()
    emit = _one_at_a_time(on_event)
    if scanned is None:
        with span("scan"):
            scanned = scan(
                paths,
                exclude=options.exclude,
                include=options.include,
                list_passed_over=options.list_passed_over,
            )
    curation = Curation(Path(library))
    exclusions = curation.read().exclusions
    leave_out_excluded(scanned, exclusions)
    _check_options(options, bundle, Path(library))
    if stages is None:
        # Before anything else: a model that is missing must not be told after hours.
        stages = open_stages(options, bundle.provider)
    if not scanned.files and not Library.exists(library):
        # There is nothing to index: create no library.
        emit(_scanned_event(scanned, IndexPlan()))
        return replace(_summary_of(scanned, IndexPlan()), elapsed_seconds=time.monotonic() - started)
    is_new = not Library.exists(library)
    if not is_new:
        migrate(library)
    opened = Library.open_or_create(
        library, bundle, options.tokens, options.tokens_per_frame, options.embedding_dim
    )
    with opened.writing():
        repaired = None
        if options.repair:
            repaired = repair(opened, {os.fsencode(path) for path in scanned.files})
        writer = LibraryWriter(opened)
        found_excluded = FoundExclusions(exclusions, scanned.facts)
        excluded = forget_excluded(writer, exclusions)
        serve = is_served(opened.path, opened.generation)
        earlier = None if serve else _earlier(opened, emit)
        if not serve and not writer.videos:
            _note_space(opened, emit)
        pruning_all = options.prune and options.prune_empty
        unmounted = known_mounts(opened.path) - mounted()
        if not pruning_all:
            scanned.problems += [
                (folder, _UNMOUNTED) for folder in sorted(unmounted) if scanned.concerns(folder)
            ]
        with span("plan"):
            plan = make_plan(
                scanned, writer, retry_failed=options.retry_failed, excluded=exclusions.checksums_by_size
            )
        folders = scanned.parents()
        remember_mounts(opened.path, folders, forget=unmounted if pruning_all else ())
        if options.prune and not options.prune_empty and not scanned.is_partial:
            check_not_emptied(scanned, plan)
        emit(_scanned_event(scanned, plan))
        media_roots = _media_roots(scanned, folders)
        if not remember_media_roots(opened.path, media_roots, is_new=is_new):
            emit(Note(_NOT_REMEMBERED))
        summary = _summary_of(scanned, plan)
        summary.repaired = repaired
        summary.generation, summary.served = opened.generation_name, serve
        commit_options = CommitOptions(
            publish=PublishOptions(
                index_backend=options.index_backend,
                index_factory=options.index_factory,
                gpu=bundle.provider != "cpu",
                keep_snapshots=options.keep_snapshots,
                keep_seconds=options.keep_seconds,
                media_roots=media_roots,
                damaged_snapshots=repaired.snapshots if repaired else frozenset(),
                serve=serve,
            ),
            publish_seconds=options.publish_seconds,
            flush_seconds=options.flush_seconds,
            gone=plan.gone,
            missing=plan.missing,
            found_again=plan.found_again,
            left_out=plan.left_out,
            prune=options.prune,
            forget_seconds=None
            if options.forget_missing_days is None
            else options.forget_missing_days * 86400,
        )
        spec = replace(
            decode_spec(bundle.manifest, options.decoder),
            hwaccel=options.hwaccel,
            reading=options.reading,
            storage=options.storage(writer.layout.token_bytes),
        )
        sink = LibrarySink(writer, commit_options, emit, summary, earlier=earlier, excluded=found_excluded)
        sink.lost_places(excluded)
        sink.mark_missing()
        sink.carry_over()

        def leave(task: IndexTask) -> None:
            row = None if task.video_id is None else writer.videos.get(task.video_id)
            summary.still_written.append(task.path)
            summary.not_reached_searchable += row is not None and row.verdict in SEARCHABLE
            emit(FileStillWritten(task.path))

        (engine or _local_engine(bundle, options, starting)).run(
            SettledTasks(
                _tasks(plan, scanned, earlier),
                options.settle_seconds,
                stop,
                leave,
                lambda size: plan.known_sha256.get(size, ()),
            ),
            spec,
            EncodeSpec.of(bundle, writer.layout, options.batch_frames),
            sink,
            emit,
            stop,
        )
        found = _found(scanned, writer, summary.still_written)
        if not stop.is_set() and (due := lacking_facts(writer.videos, found)):
            emit(Note(f"reading when and where videos were taken that were indexed before: {len(due)}"))
            summary.facts_read = read_lacking_facts(
                due, spec, lambda: closing(_media_reader(options, stop)), sink, stop
            )
        if stages and not stop.is_set():
            stage_run = StageRun(
                writer.videos,
                spec,
                retry_failed=options.retry_failed,
                open_reader=lambda: closing(_media_reader(options, stop)),
                sink=sink,
                emit=emit,
                stop=stop,
            )
            summary.stages = stage_run.run(stages, found)
        found_excluded.remember(curation)
        if not stop.is_set():
            forget_gone(curation, scanned)
            sink.complete()
    curation.close()
    summary.interrupted = stop.is_set()
    summary.elapsed_seconds = time.monotonic() - started
    return summary


def decode_spec(manifest: BundleManifest, decoder: DecoderName) -> DecodeSpec:
    """How to decode videos for a bundle with this manifest."""
    return DecodeSpec(
        decoder=decoder,
        resizing=manifest.image.resizing,
        segment_seconds=manifest.segment_seconds,
        frames_per_segment=manifest.frames_per_segment,
    )


@contextmanager
def starting_decoder(options: IndexOptions) -> Iterator[StartingProcess | None]:
    """A decoding process that starts while a bundle is opened; None where there is none in this run.

    At the end it is ended.
    """
    starting = StartingProcess(decoder_bounds(options).worker_options) if options.workers else None
    try:
        yield starting
    finally:
        if starting is not None:
            starting.close()


def _local_engine(bundle: Bundle, options: IndexOptions, starting: StartingProcess | None) -> Engine:
    return LocalEngine(
        bundle,
        workers=options.workers,
        encoders=options.encoders,
        bounds=decoder_bounds(options),
        starting=starting,
    )


def _media_reader(options: IndexOptions, stop: threading.Event) -> FileDecoder:
    return ProcessDecoder(decoder_bounds(options), stop) if options.workers else InlineDecoder(stop)


def _found(scanned: Scan, writer: LibraryWriter, still_written: Sequence[Path]) -> list[StageVideo]:
    """The videos of the files found, each once, without those of files that are still being written."""
    found: dict[str, StageVideo] = {}
    for path in scanned.files:
        file = writer.files.get(os.fsencode(path))
        if file is not None and path not in still_written:
            video = StageVideo(file.video_id, path, scanned.facts[path].device, file.mtime_ns)
            found.setdefault(file.video_id, video)
    return list(found.values())


def decoder_bounds(options: IndexOptions) -> Bounds:
    """What a file may take, and how the process that reads it is confined."""
    return Bounds(
        timeout_seconds=options.timeout_seconds,
        file_seconds=options.file_timeout_seconds,
        sandbox=options.sandbox,
        memory_bytes=None if options.worker_memory is None else options.worker_memory << 20,
        hwaccel=options.hwaccel,
    )


def _earlier(library: Library, emit: Callable[[Event], None]) -> EarlierGeneration | None:
    """The generation that is served beside this one, which says so. None where it cannot be read."""
    try:
        served = Library.open(library.path)
        emit(
            Note(
                f"generation {served.generation_name} (bundle {served.layout.bundle_name!r}) is served; this "
                f"run writes generation {library.generation_name} (bundle {library.layout.bundle_name!r}) "
                "beside it"
            )
        )
        return EarlierGeneration(served)
    except LibraryError as error:
        emit(Note(f"texts are read again, for those of the generation that is served cannot be: {error}"))
        return None


def _note_space(library: Library, emit: Callable[[Event], None]) -> None:
    """Say if the disk may be too small for a generation that is about as large as the one that is served."""
    if not storage_of(library.path).is_local:
        return
    size = next((s.bytes for s in list_generations(library.path) if s.state == "served"), 0)
    free = shutil.disk_usage(library.path).free
    if free < size:
        emit(
            Note(
                f"the generation that is served takes {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB of the "
                "disk are free: the new one may not fit"
            )
        )


def _tasks(plan: IndexPlan, scanned: Scan, earlier: EarlierGeneration | None) -> list[IndexTask]:
    """The tasks of a plan, without reading the texts that another generation has read."""
    if earlier is None:
        return plan.tasks
    return [
        without_texts(task) if earlier.has_texts(task, scanned.facts[task.path]) else task
        for task in plan.tasks
    ]


def _check_options(options: IndexOptions, bundle: Bundle, library: Path) -> None:
    """Raise InputError when an option needs a package that is not installed, or does not fit the bundle."""
    if options.decoder == "decord" and importlib.util.find_spec("decord") is None:
        raise InputError(f"the decoder 'decord' is not installed: `{install_command('decord')}`, or use pyav")
    manifest = bundle.manifest
    base = base_manifest(library, generation_of(library, bundle.checksum))
    backend = chosen_backend(options.index_backend, base)
    if options.index_factory not in (None, AUTOMATIC):
        dim = options.embedding_dim or (manifest.embedding_dim if base is None else base.embedding_dim)
        try:
            backend.check_spec(options.index_factory, dim + (manifest.hubness is not None))
        except InputError as error:
            if manifest.hubness is None:
                raise
            added = f"the bundle's hubness correction adds one to its {dim}"
            raise InputError(f"{error}; {added}") from error


def _one_at_a_time(on_event: Callable[[Event], None]) -> Callable[[Event], None]:
    lock = threading.Lock()

    def emit(event: Event) -> None:
        with lock:
            on_event(event)

    return emit


def _media_roots(scanned: Scan, with_videos: Set[Path]) -> tuple[Path, ...]:
    """Folders that contain the videos' real paths: the service plays no file outside of them."""
    return (*(folder for folder in scanned.folders if folder in with_videos), *scanned.linked)


def _summary_of(scanned: Scan, plan: IndexPlan) -> IndexSummary:
    """The summary of a run that has read nothing yet."""
    return IndexSummary(
        files=len(scanned.files),
        problems=scanned.problems,
        passed_over=scanned.passed_over,
        passed_over_files=scanned.passed_over_files,
        unchanged=plan.unchanged,
        failed_before=plan.failed_before,
    )


def _scanned_event(scanned: Scan, plan: IndexPlan) -> Scanned:
    return Scanned(
        files=len(scanned.files),
        to_read=len(plan.tasks),
        unchanged=plan.unchanged,
        failed_before=plan.failed_before,
        problems=tuple(scanned.problems),
    )
