"""One indexing run: threads that feed decoders, the encoder, the writer, and queues between them.

    files ─▶ decoder threads (a worker process each) ─▶ encoding threads ─▶ writer thread
                      segments, bounded                     rows, bounded

Every file's messages keep their order all the way, so that the writer sees a file's end after its segments.
"""

import importlib.util
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from indexer.encode import Encoded, EncodingStage, Item, ReaderEnded, available_cores
from indexer.engines.channel import Abort, AbortedError, Channel
from indexer.engines.decoders import Decoder, InlineDecoder, ProcessDecoder
from indexer.engines.worker import Job
from indexer.events import Event, FileStarted, IndexSummary, Scanned
from indexer.library.folder import Library
from indexer.library.publish import PublishOptions, chosen_backend, served
from indexer.library.schema import TOKEN_KINDS, TokenKind
from indexer.library.vectors.base import AUTOMATIC
from indexer.library.writer import LibraryWriter
from indexer.plan import Plan, Task, check_not_emptied, make_plan
from indexer.scan import Scan, scan
from indexer.sink import Ending, WriterThread
from model.runtime.bundle import Bundle
from model.runtime.errors import InputError
from model.runtime.video import DecoderName

#: One segment: more makes a CPU no faster.
CPU_BATCH_FRAMES = 16
GPU_BATCH_FRAMES = 128
#: Encoded rows that wait for the writer take about so much at most.
_WAITING_BYTES = 32 << 20


@dataclass(frozen=True)
class IndexOptions:
    """How to index.

    Attributes:
        workers: decoding processes; 0 decodes in this process, without isolation or timeout.
        batch_frames: frames encoded together, at least.
        encoders: batches encoded at the same time. On a CPU one a core, each with one thread, loses less to
            the decoders than one batch with a thread a core, whose threads wait for each other.
        timeout_seconds: a file from which nothing comes for so long is given up.
        publish_seconds: a long run publishes about so often.
        flush_seconds: finished videos are committed about so often.
        prune_empty: prune also a folder in which there is no video any more, as when its disk is not mounted.
        index_backend: see `PublishOptions`, also for `index_factory`.
        tokens: how frame tokens are stored, and `tokens_per_frame` how many; None: see
            `Library.open_or_create`.
    """

    decoder: DecoderName = "pyav"
    workers: int = 1
    batch_frames: int = CPU_BATCH_FRAMES
    encoders: int = 1
    timeout_seconds: float = 300.0
    prune: bool = False
    prune_empty: bool = False
    retry_failed: bool = False
    index_backend: str | None = None
    index_factory: str | None = None
    tokens: TokenKind | None = None
    tokens_per_frame: int | None = None
    keep_snapshots: int = 5
    publish_seconds: float = 300.0
    flush_seconds: float = 10.0

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise InputError(f"--workers is {self.workers}: it must be 0 or more")
        if self.batch_frames < 1:
            raise InputError(f"--batch-size is {self.batch_frames}: it must be at least 1")
        if self.encoders < 1:
            raise InputError(f"--threads is {self.encoders}: it must be at least 1")
        if self.tokens not in (None, *TOKEN_KINDS):
            raise InputError(f"--tokens is {self.tokens!r}: it must be one of {', '.join(TOKEN_KINDS)}")
        if not self.timeout_seconds > 0:
            raise InputError(f"--timeout is {self.timeout_seconds}: it must be more than 0 seconds")
        if self.keep_snapshots < 1:
            raise InputError(f"--keep-snapshots is {self.keep_snapshots}: it must be at least 1")


def default_workers() -> int:
    """One process less than there are cores, at least one; the encoder has the other."""
    return max(1, available_cores() - 1)


def index_paths(
    paths: Sequence[Path | str],
    library: Path | str,
    bundle: Bundle,
    options: IndexOptions,
    on_event: Callable[[Event], None],
    stop: threading.Event | None = None,
) -> IndexSummary:
    """Bring a library up to date with files and folders, and publish it.

    Args:
        paths: files and folders that exist.
        library: its folder; created when there is none.
        bundle: what the library was made with, or a new one's.
        options: how to index.
        on_event: told what happens, by one thread at a time.
        stop: set it to end early: what is encoded by then is kept and published.

    Raises:
        InputError: a path does not exist, an option cannot be, or pruning would empty a whole folder.
        LibraryError: the library is damaged, from another bundle, or cannot be written.
        BusyError: another process writes it.
        BundleError: the bundle fails.
    """
    started = time.monotonic()
    stop = stop or threading.Event()
    emit = _serialised(on_event)
    found = scan(paths)
    if options.decoder == "decord" and importlib.util.find_spec("decord") is None:
        raise InputError("the decoder 'decord' is not installed: `pip install reelfind[decord]`, or use pyav")
    backend = chosen_backend(options.index_backend, served(Path(library)))
    if options.index_factory not in (None, AUTOMATIC):
        backend.check_spec(options.index_factory, bundle.manifest.embedding_dim)
    if not found.files and not Library.exists(library):
        # Nothing to put into a library: make none.
        emit(_scanned(found, Plan()))
        return IndexSummary(problems=found.problems, elapsed_seconds=time.monotonic() - started)
    home = Library.open_or_create(library, bundle, options.tokens, options.tokens_per_frame)
    with home.writing():
        writer = LibraryWriter(home)
        plan = make_plan(found, writer.known, retry_failed=options.retry_failed)
        if options.prune and not options.prune_empty:
            check_not_emptied(found, plan, writer.known)
        emit(_scanned(found, plan))
        summary = IndexSummary(files=len(found.files), problems=found.problems)
        summary.unchanged, summary.failed_before = plan.unchanged, plan.failed_before
        ending = Ending(
            publish=PublishOptions(
                index_backend=options.index_backend,
                index_factory=options.index_factory,
                gpu=bundle.provider != "cpu",
                keep_snapshots=options.keep_snapshots,
                media_roots=_media_roots(found),
            ),
            publish_seconds=options.publish_seconds,
            flush_seconds=options.flush_seconds,
            vanished=plan.vanished,
            prune=options.prune,
        )
        _Run(bundle, writer, options, ending, emit, stop, summary).run(plan.tasks)
    summary.elapsed_seconds = time.monotonic() - started
    return summary


class _Run:
    """The threads of one run."""

    def __init__(
        self,
        bundle: Bundle,
        writer: LibraryWriter,
        options: IndexOptions,
        ending: Ending,
        emit: Callable[[Event], None],
        stop: threading.Event,
        summary: IndexSummary,
    ) -> None:
        self.bundle = bundle
        layout = writer.layout
        self.options = options
        self.emit = emit
        self.stop = stop
        self.abort = Abort()
        # Each segment in a queue is a few MB at most: this bounds the memory, whatever the videos' length.
        ahead = options.encoders + 2 * max(1, options.batch_frames // 16) + 1
        self.decoded: Channel[Item] = Channel(ahead, self.abort)
        batch_bytes = layout.segment_bytes * max(1, options.batch_frames // layout.frames_per_segment)
        waiting = max(2, min(16, _WAITING_BYTES // batch_bytes))
        self.encoded: Channel[Encoded] = Channel(waiting, self.abort)
        self.summary = summary
        pad_to = None if bundle.provider == "cpu" else options.batch_frames
        self.encoding = EncodingStage(
            bundle, layout, options.batch_frames, options.encoders, pad_to, self.decoded, self.encoded, emit
        )
        self.writing = WriterThread(writer, self.encoded, ending, emit, stop, summary)

    def run(self, tasks: Sequence[Task]) -> None:
        """Read all tasks, then publish. Raises what the first failing thread raised."""
        queue = iter(tasks)
        lock = threading.Lock()

        def next_task() -> Task | None:
            with lock:
                return None if self.stop.is_set() or self.abort.failed else next(queue, None)

        readers = min(max(self.options.workers, 1), len(tasks))
        threads = [
            threading.Thread(target=self._guarded, args=(self._read, next_task), name=f"decoder-{i}")
            for i in range(readers)
        ]
        threads.append(threading.Thread(target=self._guarded, args=(self.writing.run,), name="writer"))
        for thread in threads:
            thread.start()
        try:
            self.encoding.run(readers)
            self.encoded.put(None)
        except AbortedError:
            pass
        except BaseException as error:
            self.abort.fail(error)
        finally:
            for thread in threads:
                _join(thread, self.abort)
        if self.abort.error is not None:
            raise self.abort.error
        self.summary.interrupted = self.stop.is_set()

    def _guarded(self, work: Callable[..., None], *args: object) -> None:
        try:
            work(*args)
        except AbortedError:
            pass
        except BaseException as error:
            self.abort.fail(error)

    def _read(self, next_task: Callable[[], Task | None]) -> None:
        """A decoder's thread: read files until there are none left, then say so."""
        halt = _Either(self.stop, self.abort)
        decoder: Decoder | None = None
        manifest = self.bundle.manifest
        try:
            while (task := next_task()) is not None:
                if decoder is None:
                    decoder = (
                        ProcessDecoder(self.options.timeout_seconds, halt)
                        if self.options.workers
                        else InlineDecoder(halt)
                    )
                self.emit(FileStarted(task.path))
                job = Job(
                    path=os.fsencode(task.path),
                    decoder=self.options.decoder,
                    image_size=manifest.image.size,
                    resize=manifest.image.resize,
                    segment_seconds=manifest.segment_seconds,
                    frames_per_segment=manifest.frames_per_segment,
                    same_sha256=task.same_sha256,
                )
                for outcome in decoder.read(job):
                    self.decoded.put((task, outcome))
        finally:
            if decoder is not None:
                decoder.close()
        self.decoded.put(ReaderEnded())


class _Either(threading.Event):
    """Set when the run was asked to stop, or has failed."""

    def __init__(self, stop: threading.Event, abort: Abort) -> None:
        super().__init__()
        self._stop = stop
        self._abort = abort

    def is_set(self) -> bool:
        """Whether work should end."""
        return self._stop.is_set() or self._abort.failed


def _join(thread: threading.Thread, abort: Abort) -> None:
    """Wait for a thread; Ctrl-C in a caller without a handler of its own ends all threads."""
    while thread.is_alive():
        try:
            thread.join()
        except KeyboardInterrupt as error:
            abort.fail(error)


def _serialised(on_event: Callable[[Event], None]) -> Callable[[Event], None]:
    lock = threading.Lock()

    def emit(event: Event) -> None:
        with lock:
            on_event(event)

    return emit


def _media_roots(found: Scan) -> tuple[Path, ...]:
    """Folders that the videos' real paths lie in: the service serves no file outside of them."""
    holding = {parent for path in found.files for parent in path.parents}
    return (*(folder for folder in found.folders if folder in holding), *found.linked)


def _scanned(found: Scan, plan: Plan) -> Scanned:
    return Scanned(
        files=len(found.files),
        to_read=len(plan.tasks),
        unchanged=plan.unchanged,
        failed_before=plan.failed_before,
        problems=tuple(found.problems),
    )
