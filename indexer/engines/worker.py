"""The decoding worker: reads videos on request and sends back segments ready to encode.

Runs in a process of its own (`main` with a socket and the parent's id as arguments), so that a decoder that
crashes or hangs takes nothing with it. It imports neither Lance, FAISS nor ONNX Runtime.
"""

import ctypes
import io
import os
import signal
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexer.library.files import sha256_steps
from indexer.library.records import Verdict
from model.runtime.errors import VideoError
from model.runtime.faults import checkpoint
from model.runtime.preprocessing import ResizeRule, resize_frames
from model.runtime.video import DecoderName, FrameBatch, VideoInfo, VideoReader

THUMBNAIL_SIDE = 320
_THUMBNAIL_QUALITY = 80
#: `mtime_ns` of a file that could not be opened: no file has it, so the next run tries again.
NEVER_READ = -1


@dataclass(frozen=True)
class Job:
    """One file to read, and how.

    Attributes:
        path: the file's name in bytes.
        same_sha256: when the file has this checksum, it need not be decoded.
    """

    path: bytes
    decoder: DecoderName
    image_size: int
    resize: ResizeRule
    segment_seconds: float
    frames_per_segment: int
    same_sha256: str | None = None


@dataclass(frozen=True)
class Ready:
    """The worker has started, and can read."""


@dataclass(frozen=True)
class Alive:
    """Work goes on, though there is nothing to hand over yet."""


@dataclass(frozen=True)
class DecodedSegment:
    """A segment ready to encode."""

    index: int
    start_seconds: float
    end_seconds: float
    frames: NDArray[np.uint8]
    """Shape [n, size, size, 3]."""
    pts_seconds: NDArray[np.float64]
    """Shape [n]."""
    thumbnails: tuple[bytes, ...]


@dataclass(frozen=True)
class Unchanged:
    """The file has the content it had, and a new modification time."""

    mtime_ns: int


@dataclass(frozen=True)
class Decoded:
    """The end of a file: what became of it. `bytes` and `mtime_ns` are from before it was read."""

    verdict: Verdict
    reason: str | None
    info: VideoInfo | None
    sha256: str
    bytes: int
    mtime_ns: int


Message = Ready | Alive | DecodedSegment | Unchanged | Decoded


def decode(job: Job) -> Iterator[Message]:
    """Read one file: its segments, then one `Decoded`, or only `Unchanged`.

    Raises nothing that a file can cause.
    """
    path = Path(os.fsdecode(job.path))
    checkpoint(f"decode.{path.name}")
    try:
        # Should the file change while it is read, its time will differ from this, and the next run sees it.
        stat = path.stat()
        digest = yield from _digest(path)
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}"
        yield Decoded("corrupt", reason, None, "", 0, NEVER_READ)
        return
    if digest == job.same_sha256:
        yield Unchanged(stat.st_mtime_ns)
        return
    verdict, damage, info = yield from _read(path, job)
    yield Decoded(verdict, damage, info, digest, stat.st_size, stat.st_mtime_ns)


def _digest(path: Path) -> Generator[Message, None, str]:
    steps = sha256_steps(path)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return str(done.value)
        yield Alive()


def _read(path: Path, job: Job) -> Generator[Message, None, tuple[Verdict, str | None, VideoInfo | None]]:
    info = None
    try:
        with VideoReader(path, decoder=job.decoder) as reader:
            info = reader.info
            yield Alive()
            for segment in reader.segments(job.segment_seconds, job.frames_per_segment):
                frames = segment.frames
                yield DecodedSegment(
                    index=segment.index,
                    start_seconds=segment.span.start_seconds,
                    end_seconds=segment.span.end_seconds,
                    frames=resize_frames(frames.data, job.image_size, job.resize),
                    pts_seconds=frames.pts_seconds,
                    thumbnails=_thumbnails(frames),
                )
                checkpoint(f"decoded.{path.name}")
            if reader.damage:
                return "partial", reader.damage, info
    except VideoError as error:
        return error.verdict, str(error).removeprefix(f"{path}: "), info
    except MemoryError:
        return "corrupt", "decoding it takes more memory than there is", info
    except Exception as error:
        # A decoder's own failures on odd input; the file is named with them and the run goes on.
        return "corrupt", f"the decoder failed: {type(error).__name__}: {error}", info
    return "ok", None, info


def _thumbnails(frames: FrameBatch) -> tuple[bytes, ...]:
    """Each frame as JPEG, at most `THUMBNAIL_SIDE` pixels on its longer side."""
    images = []
    for frame in frames.data:
        image = Image.fromarray(frame)
        image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
        out = io.BytesIO()
        image.save(out, "JPEG", quality=_THUMBNAIL_QUALITY)
        images.append(out.getvalue())
    return tuple(images)


def _die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent is gone, even while a decoder hangs."""
    if sys.platform == "linux":
        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit(1)


def main() -> None:
    """Answer jobs from the socket until it closes."""
    handle, parent = int(sys.argv[1]), int(sys.argv[2])
    # Ctrl-C is for the parent, which decides what is still worth finishing.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with_parent(parent)
    with Connection(handle) as connection:
        try:
            connection.send(Ready())
            while True:
                for message in decode(connection.recv()):
                    connection.send(message)
        except (EOFError, ConnectionError):
            return
