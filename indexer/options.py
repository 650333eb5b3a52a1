"""The options of an indexing run, and their defaults for this machine."""

from dataclasses import dataclass

from indexer.decode import StorageLimits
from indexer.ignore import check_patterns
from indexer.library.schema import TOKEN_KINDS, TokenKind
from model.runtime.bundle import Provider
from model.runtime.cores import available_cores
from model.runtime.errors import InputError
from model.runtime.sandbox.confinement import SANDBOX_MODES, SandboxMode
from model.runtime.video import DecoderName, HwaccelName, ReadingLimits

#: The frames of one segment; more are not faster on a CPU.
CPU_BATCH_FRAMES = 16
GPU_BATCH_FRAMES = 128
#: MiB of address space below which a decoding process cannot work: its libraries alone take 300.
LEAST_WORKER_MEMORY = 512


@dataclass(frozen=True)
class IndexOptions:
    """How to index.

    Attributes:
        decoder: the library that reads videos.
        hwaccel: the GPU's decoder that decodes what it can, to the same frames; its driver cannot be confined
            as software is. None: software decodes.
        workers: decoding processes of the local engine; 0 decodes in this process, without isolation or
            time limits.
        batch_frames: minimum number of frames encoded together.
        encoders: batches that the local engine encodes at the same time. On a CPU, one single-threaded batch
            per core leaves more time to the decoders than one batch with a thread per core, since those
            threads wait for each other.
        timeout_seconds: give up a file that makes no progress for this long.
        file_timeout_seconds: give up a file that takes this long in all; None: the larger and the longer it
            is, the longer it may take, see `most_seconds`.
        sandbox: whether the processes that read files are confined: "auto", with what the system has;
            "required", or refuse to run; "off".
        worker_memory: address space of the process that reads a file, in MiB; None: `default_memory_bytes`.
        max_pixels: leave out larger pictures; for this one and the next three, see `ReadingLimits`.
        max_hours: the longest video that is read to its end.
        cpu_seconds: CPU time that reading any file may take.
        cpu_seconds_per_megabyte: CPU time for each million bytes of a file.
        stored_megabytes: what any file may take in the library, in million bytes.
        stored_bytes_per_byte: what a file may take in the library for each of its bytes.
        prune: forget files below the given paths that are gone; a video without any file is removed.
        prune_empty: prune even a folder with no video left, which may mean that its disk is not mounted.
        forget_missing_days: forget files that have been missing for so many days, wherever they were; None:
            none.
        retry_failed: read files again that failed before.
        repair: take damaged files out of the library first, and read the videos again that had damaged rows
            in them.
        list_passed_over: name in the summary all files that are not taken for videos; else they are counted.
        exclude: patterns of files and folders to leave out, see `indexer.ignore.rules_at`.
        include: patterns of those to take although another rule leaves them out.
        settle_seconds: how long a file must not have changed before it is read, see `SettledTasks`; 0: all
            are read at once.
        index_backend: name of the vector index's backend; None: the backend of the last snapshot.
        index_factory: a FAISS factory string, or `auto`; None: what was requested for the last snapshot.
        tokens: how frame tokens are stored; None: see `Library.open_or_create`.
        tokens_per_frame: how many tokens of a frame are stored; None: see `Library.open_or_create`.
        keep_snapshots: how many of the newest snapshots are kept.
        keep_seconds: how long others are kept after they were served; see `PublishOptions`.
        embedding_dim: to how many dimensions embeddings of segments are cut; None: see
            `Library.open_or_create`.
        publish_seconds: about how often a long run publishes.
        flush_seconds: about how often finished videos are committed.
        threads: CPU threads of a stage's model; None: one for each core.
        speech: the model that hears what is said, as `SpeechStage` takes it; None: nothing is heard.
        screen: read the text in the pictures.
        shots: look for cuts in all frames.

    Raises:
        InputError: a value is invalid; `field` names it.
    """

    decoder: DecoderName = "pyav"
    hwaccel: HwaccelName | None = None
    workers: int = 1
    batch_frames: int = CPU_BATCH_FRAMES
    encoders: int = 1
    timeout_seconds: float = 300.0
    file_timeout_seconds: float | None = None
    sandbox: SandboxMode = "auto"
    worker_memory: int | None = None
    max_pixels: int = ReadingLimits.max_pixels
    max_hours: float = ReadingLimits.max_hours
    cpu_seconds: float = ReadingLimits.cpu_seconds
    cpu_seconds_per_megabyte: float = ReadingLimits.cpu_seconds_per_megabyte
    stored_megabytes: float = StorageLimits.megabytes
    stored_bytes_per_byte: float = StorageLimits.bytes_per_byte
    prune: bool = False
    prune_empty: bool = False
    forget_missing_days: float | None = None
    retry_failed: bool = False
    repair: bool = False
    list_passed_over: bool = False
    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    settle_seconds: float = 0.0
    index_backend: str | None = None
    index_factory: str | None = None
    tokens: TokenKind | None = None
    tokens_per_frame: int | None = None
    embedding_dim: int | None = None
    keep_snapshots: int = 5
    keep_seconds: float = 600.0
    publish_seconds: float = 300.0
    flush_seconds: float = 10.0
    threads: int | None = None
    speech: str | None = None
    screen: bool = False
    shots: bool = False

    def __post_init__(self) -> None:
        check_patterns(self.exclude, "exclude")
        check_patterns(self.include, "include")
        for field in ("max_hours", "cpu_seconds", "stored_megabytes"):
            if not getattr(self, field) > 0:
                raise InputError(f"{field} is {getattr(self, field)}: it must be more than 0", field=field)
        for field, least in (
            *(("workers", 0), ("batch_frames", 1), ("encoders", 1), ("keep_snapshots", 1), ("max_pixels", 1)),
            *(("cpu_seconds_per_megabyte", 0), ("stored_bytes_per_byte", 0)),
        ):
            value = getattr(self, field)
            if not value >= least:
                bound = "0 or more" if least == 0 else f"at least {least}"
                raise InputError(f"{field} is {value}: it must be {bound}", field=field)
        if self.tokens not in (None, *TOKEN_KINDS):
            raise InputError(
                f"tokens is {self.tokens!r}: it must be one of {', '.join(TOKEN_KINDS)}", field="tokens"
            )
        if not 0 <= self.settle_seconds <= 3600:
            raise InputError(
                f"settle_seconds is {self.settle_seconds}: it must be from 0 to 3600 seconds",
                field="settle_seconds",
            )
        if not self.keep_seconds >= 0:
            raise InputError(
                f"keep_seconds is {self.keep_seconds}: it must be 0 seconds or more", field="keep_seconds"
            )
        days = self.forget_missing_days
        if days is not None and not 0 <= days < float("inf"):
            raise InputError(
                f"forget_missing_days is {days}: it must be 0 days or more", field="forget_missing_days"
            )
        for field in ("timeout_seconds", "file_timeout_seconds"):
            seconds = getattr(self, field)
            if seconds is not None and not seconds > 0:
                raise InputError(f"{field} is {seconds}: it must be more than 0 seconds", field=field)
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads is {self.threads}: it must be at least 1", field="threads")
        if self.sandbox not in SANDBOX_MODES:
            raise InputError(
                f"sandbox is {self.sandbox!r}: it must be one of {', '.join(SANDBOX_MODES)}", field="sandbox"
            )
        if self.sandbox == "required" and self.workers == 0:
            raise InputError(
                "sandbox is 'required', but with 0 `workers` videos are read in the indexer's own process: "
                "set `workers` to 1 or more",
                field="sandbox",
            )
        if self.hwaccel is not None and self.decoder != "pyav":
            raise InputError(f"hwaccel is {self.hwaccel!r}: it needs the decoder pyav", field="hwaccel")
        if self.hwaccel is not None and self.sandbox == "required":
            raise InputError(
                f"hwaccel is {self.hwaccel!r}, but the driver of a GPU cannot be confined as `sandbox` "
                "'required' wants: use 'auto', or leave out `hwaccel`",
                field="hwaccel",
            )
        if self.worker_memory is not None and self.worker_memory < LEAST_WORKER_MEMORY:
            raise InputError(
                f"worker_memory is {self.worker_memory}: it must be at least {LEAST_WORKER_MEMORY} MiB",
                field="worker_memory",
            )

    @property
    def reading(self) -> ReadingLimits:
        """What reading a file may take."""
        return ReadingLimits(self.max_pixels, self.max_hours, self.cpu_seconds, self.cpu_seconds_per_megabyte)

    def storage(self, frame_bytes: int) -> StorageLimits:
        """What a file may take in a library whose frames are about so large."""
        return StorageLimits(frame_bytes, self.stored_megabytes, self.stored_bytes_per_byte)


def default_batch_frames(provider: Provider) -> int:
    """How many frames are encoded together where nobody says so."""
    return CPU_BATCH_FRAMES if provider == "cpu" else GPU_BATCH_FRAMES


def default_workers() -> int:
    """One decoding process fewer than cores, but at least one: the encoder uses the other core."""
    return max(1, available_cores() - 1)
