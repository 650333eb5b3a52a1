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
from model.runtime.remote.path import media_path
from model.runtime.video import (
    DecoderName,
    FrameBatch,
    HwaccelName,
    ReadingLimits,
    VideoInfo,
    VideoReader,
)
from model.runtime.video.splitting import WHOLE, VideoSpan

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

    def job(
        self, path: Path, device: int | None = None, size: int = 0, span: "SpanOrder | None" = None
    ) -> "DecodeJob":
        """The job that decodes one file; for the arguments, see `DecodeJob`."""
        return DecodeJob(os.fsencode(path), self, device, size, span)


@dataclass(frozen=True)
class SpanOrder:
    """To decode one span of a file only, if the file is so long that it is cut.

    Attributes:
        number: which one. That of the first one, 0, is also the job that takes the file's checksum, and that
            decodes all of a file that is not cut.
        seconds: the longest span.
    """

    number: int
    seconds: float


@dataclass(frozen=True)
class DecodeJob:
    """One file to decode.

    Attributes:
        path: the file's path in bytes, which need not be UTF-8.
        spec: how to decode it.
        device: the device (`st_dev`) that it was on when it was found; on another one it is another file, and
            is not decoded. None: any.
        size: its size in bytes when it was found; 0: unknown.
        span: which span of it to decode; None: all of it.
    """

    path: bytes
    spec: DecodeSpec
    device: int | None = None
    size: int = 0
    span: SpanOrder | None = None

    @property
    def file(self) -> Path:
        """The file's path."""
        return media_path(self.path)

    @property
    def is_later_span(self) -> bool:
        """Whether another job takes the file's checksum, and finds out that the file is cut."""
        return self.span is not None and self.span.number > 0


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
class Cut(Alive):
    """The file is cut into so many spans: the segments that follow are those of one of them."""

    count: int


@dataclass(frozen=True)
class SpanRead(Alive):
    """A span is decoded; that of the first one is followed by the outcome.

    Attributes:
        is_exact: its segments are those that decoding the whole file gives there: nothing is damaged, no
            limit was reached, and no picture depends on where reading began.
        stored_bytes: about how much of the library its segments take.
        bytes: the file's size before it was read.
        mtime_ns: its modification time before it was read, see `stored_ns`.
    """

    is_exact: bool
    stored_bytes: int
    bytes: int
    mtime_ns: int


#: Of a span that counts for nothing.
SPAN_NOT_READ = SpanRead(is_exact=False, stored_bytes=0, bytes=0, mtime_ns=0)


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
        The file's segments, then one `FileVerdict` or `FileUnreached`; where the job is a later span, those
        of the span, then `SpanRead`. `Alive` may come at any time before the end.
    """
    path = job.file
    checkpoint(f"decode.{path.name}")
    if job.is_later_span:
        yield from _decode_later_span(job)
        return
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
    read = yield from _segments(path, job)
    if read.is_cut:
        yield SpanRead(read.is_exact, read.stored_bytes, *content[1:])
    lost = yield from _lost_while_read(job, stat, digest, decoded=read.verdict == "ok")
    if lost:
        yield FileUnreached(lost)
    else:
        yield FileVerdict(read.verdict, read.reason, read.info, *content)


def _decode_later_span(job: DecodeJob) -> Iterator[DecodeMessage]:
    """Decode a span. What is wrong with the file is found out where all of it is read."""
    try:
        stat = job.file.stat()
    except OSError:
        yield SPAN_NOT_READ
        return
    read = yield from _segments(job.file, job)
    is_exact = read.is_exact and read.is_cut and not unreached(job.file, job.device or stat.st_dev)
    yield SpanRead(is_exact, read.stored_bytes, stat.st_size, stored_ns(stat.st_mtime_ns))


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


@dataclass
class _Read:
    """How far a file is decoded, and how that ended.

    Attributes:
        verdict: as in `FileVerdict`.
        reason: as in `FileVerdict`.
        info: as in `FileVerdict`.
        is_cut: only a span of it is decoded.
        is_exact: see `VideoReader.is_exact`.
        stored_bytes: about how much of the library the segments take.
    """

    verdict: Verdict = "ok"
    reason: str | None = None
    info: VideoInfo | None = None
    is_cut: bool = False
    is_exact: bool = False
    stored_bytes: int = 0

    def end(self, verdict: Verdict, reason: str) -> None:
        self.verdict, self.reason, self.is_exact = verdict, reason, False


def _segments(path: Path, job: DecodeJob) -> Generator[DecodeMessage, None, _Read]:
    read = _Read()
    try:
        yield from _read_segments(path, job, read)
    except VideoError as error:
        read.end(error.verdict, str(error).removeprefix(f"{path}: "))
    except MemoryError:
        read.end("corrupt", OUT_OF_MEMORY)
    except Exception as error:
        # Decoders may raise any error on unusual input: it becomes the file's verdict, and the run continues.
        read.end("corrupt", f"the decoder failed: {type(error).__name__}: {error}")
    return read


def _read_segments(path: Path, job: DecodeJob, read: _Read) -> Iterator[DecodeMessage]:
    spec = job.spec
    file_bytes = path.stat().st_size
    with VideoReader(path, spec.decoder, limits=spec.reading, hwaccel=spec.hwaccel) as reader:
        read.info = reader.info
        yield Opened(reader.info)
        span = WHOLE
        if job.span is not None:
            count = reader.num_spans(spec.segment_seconds, job.span.seconds)
            if count > job.span.number and count > 1:
                span = VideoSpan(job.span.number, count)
                read.is_cut = True
                yield Cut(count)
            elif job.is_later_span:
                return
        for segment in reader.steps(spec.segment_seconds, spec.frames_per_segment, span):
            if segment is None:
                yield Alive()
                continue
            frames = segment.frames
            squares, thumbnails = prepare_pictures(frames, spec)
            read.stored_bytes += sum(map(len, thumbnails)) + len(frames) * spec.storage.frame_bytes
            if read.stored_bytes > spec.storage.most_bytes(file_bytes):
                reason = spec.storage.reason(file_bytes)
                read.end("partial", ", ".join(filter(None, [reader.damage, reason])))
                return
            yield DecodedSegment(
                index=segment.index,
                start_seconds=segment.span.start_seconds,
                end_seconds=segment.span.end_seconds,
                frames=squares,
                pts_seconds=frames.pts_seconds,
                thumbnails=thumbnails,
            )
            checkpoint(f"decoded.{path.name}")
        read.is_exact = reader.is_exact
        if reader.damage:
            read.end("partial", reader.damage)


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
