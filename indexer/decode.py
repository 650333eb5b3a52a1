"""Decodes a video file to segments that are ready to encode.

Jobs are picklable, and nothing here starts a thread or a process: an engine decides where they run. This
module imports neither Lance, FAISS nor ONNX Runtime, so that a decoding process starts fast.
"""

import io
import os
from collections.abc import Collection, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexer.library.records import Verdict, stored_ns
from indexer.place import displaced, place_error, unreached
from model.runtime.errors import VideoError
from model.runtime.faults import checkpoint
from model.runtime.files import sha256_steps
from model.runtime.preprocessing import Resizing
from model.runtime.video import (
    DecoderName,
    FrameBatch,
    HwaccelName,
    ReadingLimits,
    VideoInfo,
    VideoReader,
)

THUMBNAIL_SIDE = 320
_THUMBNAIL_QUALITY = 80
#: The reason of a verdict.
OUT_OF_MEMORY = "decoding it takes more memory than is available"


@dataclass(frozen=True)
class StorageLimits:
    """How much of the library one file may take, by its own size.

    Attributes:
        frame_bytes: about the size of a stored frame, without its thumbnail.
        megabytes: what any file may take, in million bytes.
        bytes_per_byte: what a file may take for each of its bytes.
    """

    frame_bytes: int = 0
    megabytes: float = 256.0
    bytes_per_byte: float = 256.0

    def most_bytes(self, file_bytes: int) -> float:
        """What a file of this size may take, in bytes."""
        return self.megabytes * 1e6 + self.bytes_per_byte * file_bytes

    def reason(self, file_bytes: int) -> str:
        """Why a file that would take more is not read on."""
        return (
            f"storing it takes more than {round(self.most_bytes(file_bytes) / 1e6, 1):g} MB "
            "(--stored-megabytes, --stored-bytes-per-byte)"
        )


@dataclass(frozen=True)
class DecodeSpec:
    """How to decode the files of a run.

    Attributes:
        decoder: the library that reads videos.
        resizing: how a frame becomes the model's square.
        segment_seconds: the longest segment.
        frames_per_segment: N, the frames sampled from a segment, at most.
        reading: what reading a file may take.
        storage: what a file may take in the library.
        hwaccel: the GPU's decoder that decodes what it can, to the same frames; None: software does.
    """

    decoder: DecoderName
    resizing: Resizing
    segment_seconds: float
    frames_per_segment: int
    reading: ReadingLimits = field(default_factory=ReadingLimits)
    storage: StorageLimits = field(default_factory=StorageLimits)
    hwaccel: HwaccelName | None = None

    def job(self, path: Path, device: int | None = None, size: int = 0) -> "DecodeJob":
        """The job that decodes one file; for the arguments, see `DecodeJob`."""
        return DecodeJob(os.fsencode(path), self, device, size)


@dataclass(frozen=True)
class DecodeJob:
    """One file to decode.

    Attributes:
        path: the file's path in bytes, which need not be UTF-8.
        spec: how to decode it.
        device: the device (`st_dev`) that it was on when it was found; on another one it is another file, and
            is not decoded. None: any.
        size: its size in bytes when it was found; 0: unknown.
    """

    path: bytes
    spec: DecodeSpec
    device: int | None = None
    size: int = 0

    @property
    def file(self) -> Path:
        """The file's path."""
        return Path(os.fsdecode(self.path))


@dataclass(frozen=True)
class Alive:
    """Decoding makes progress, but no segment is ready yet."""


@dataclass(frozen=True)
class Hashed(Alive):
    """The file's checksum, before anything in it is looked at; see `until_known`.

    If its decoder ends early, the verdict is on this content. For the fields, see `FileVerdict`.
    """

    sha256: str
    bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class Opened(Alive):
    """The file is open as a video. If its decoder ends early, what was read is kept with these properties."""

    info: VideoInfo


@dataclass(frozen=True)
class DecodedSegment:
    """A segment that is ready to encode."""

    index: int
    start_seconds: float
    end_seconds: float
    frames: NDArray[np.uint8]
    """Shape [n, size, size, 3]."""
    pts_seconds: NDArray[np.float64]
    """Shape [n]."""
    thumbnails: tuple[bytes, ...]
    """n JPEG images."""


@dataclass(frozen=True)
class FileVerdict:
    """The result of decoding a file.

    Attributes:
        reason: why the verdict is not "ok"; None when it is "ok".
        info: the file's properties; None when it cannot be opened as a video.
        sha256: checksum of the whole file; empty when the decoder did not get so far.
        bytes: the file's size before it was read.
        mtime_ns: its modification time before it was read, see `stored_ns`.
    """

    verdict: Verdict
    reason: str | None
    info: VideoInfo | None
    sha256: str
    bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class FileKnown:
    """The result for a file whose content the library has: its time is another one, or its place is.

    For the fields, see `FileVerdict`.
    """

    sha256: str
    mtime_ns: int


@dataclass(frozen=True)
class FileUnreached:
    """The result for a file whose place cannot be reached, or went away while it was read.

    Nothing is known of its content: what the library has of it stays, and the next run tries it again.
    """

    reason: str


#: The result for a file.
FileOutcome = FileVerdict | FileKnown | FileUnreached
#: What comes from decoding a file: its segments in time order, then its outcome.
DecodedPart = DecodedSegment | FileOutcome
DecodeMessage = Alive | DecodedPart


def decode_file(job: DecodeJob) -> Iterator[DecodeMessage]:
    """Decode one file. No file makes it raise an error: a failure becomes the outcome.

    Yields:
        The file's segments, then one `FileVerdict` or `FileUnreached`. `Alive` may come at any time before
        the end.
    """
    path = job.file
    checkpoint(f"decode.{path.name}")
    try:
        # If the file changes while it is read, its time differs from this one, and the next run reads it
        # again.
        stat = path.stat()
        elsewhere = displaced(stat, job.device)
        digest = "" if elsewhere else (yield from _digest(path))
    except OSError as error:
        elsewhere = f"cannot be read: {place_error(error)}"
    if elsewhere:
        yield FileUnreached(elsewhere)
        return
    content = digest, stat.st_size, stored_ns(stat.st_mtime_ns)
    yield Hashed(*content)
    verdict, reason, info = yield from _segments(path, job.spec)
    lost = yield from _lost_while_read(job, stat, digest, decoded=verdict == "ok")
    if lost:
        yield FileUnreached(lost)
    else:
        yield FileVerdict(verdict, reason, info, *content)


def until_known(messages: Iterable[DecodeMessage], known_sha256: Collection[str]) -> Iterator[DecodeMessage]:
    """Pass on what comes from decoding a file, up to its checksum if that is known: then `FileKnown` follows.

    Args:
        messages: as from `decode_file`.
        known_sha256: checksums of contents that need not be decoded.
    """
    for message in messages:
        if isinstance(message, Hashed) and message.sha256 in known_sha256:
            yield FileKnown(message.sha256, message.mtime_ns)
            return
        yield message


def _lost_while_read(
    job: DecodeJob, before: os.stat_result, digest: str, *, decoded: bool
) -> Generator[DecodeMessage, None, str | None]:
    """Whether the place, and not the file, is why decoding ended as it did: the reason, or None.

    Libraries report a share that goes away as damage, or as the end of the file. So a failure is a verdict
    only if the same bytes can be read once more.
    """
    lost = unreached(job.file, job.device or before.st_dev)
    if lost or decoded:
        return lost
    try:
        again = yield from _digest(job.file)
        after = job.file.stat()
    except OSError as error:
        return f"cannot be read: {place_error(error)}"
    changed = (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns)
    # Another program may be writing the file: its verdict counts, and the next run reads it again.
    return None if again == digest or changed else "cannot be read: it gives other bytes each time"


def _digest(path: Path) -> Generator[DecodeMessage, None, str]:
    steps = sha256_steps(path)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return str(done.value)
        yield Alive()


def _segments(
    path: Path, spec: DecodeSpec
) -> Generator[DecodeMessage, None, tuple[Verdict, str | None, VideoInfo | None]]:
    info = None
    stored = 0
    try:
        file_bytes = path.stat().st_size
        with VideoReader(path, spec.decoder, limits=spec.reading, hwaccel=spec.hwaccel) as reader:
            info = reader.info
            yield Opened(info)
            for segment in reader.steps(spec.segment_seconds, spec.frames_per_segment):
                if segment is None:
                    yield Alive()
                    continue
                frames = segment.frames
                squares, thumbnails = prepare_pictures(frames, spec)
                stored += sum(map(len, thumbnails)) + len(frames) * spec.storage.frame_bytes
                if stored > spec.storage.most_bytes(file_bytes):
                    reason = spec.storage.reason(file_bytes)
                    return "partial", ", ".join(filter(None, [reader.damage, reason])), info
                yield DecodedSegment(
                    index=segment.index,
                    start_seconds=segment.span.start_seconds,
                    end_seconds=segment.span.end_seconds,
                    frames=squares,
                    pts_seconds=frames.pts_seconds,
                    thumbnails=thumbnails,
                )
                checkpoint(f"decoded.{path.name}")
            if reader.damage:
                return "partial", reader.damage, info
    except VideoError as error:
        return error.verdict, str(error).removeprefix(f"{path}: "), info
    except MemoryError:
        return "corrupt", OUT_OF_MEMORY, info
    except Exception as error:
        # Decoders may raise any error on unusual input: it becomes the file's verdict, and the run continues.
        return "corrupt", f"the decoder failed: {type(error).__name__}: {error}", info
    return "ok", None, info


def prepare_pictures(frames: FrameBatch, spec: DecodeSpec) -> tuple[NDArray[np.uint8], tuple[bytes, ...]]:
    """The frames as the model takes them, [N, size, size, 3], and each as a JPEG image."""
    size = spec.resizing.size
    squares = np.empty((len(frames), size, size, 3), np.uint8)
    thumbnails = []
    for i, frame in enumerate(frames.data):
        image = Image.fromarray(frame)
        squares[i] = np.asarray(spec.resizing.image(image))
        thumbnails.append(_thumbnail(image))
    return squares, tuple(thumbnails)


def _thumbnail(image: Image.Image) -> bytes:
    """An image as a JPEG, at most `THUMBNAIL_SIDE` pixels on its longer side. Changes the image."""
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=_THUMBNAIL_QUALITY)
    return out.getvalue()
