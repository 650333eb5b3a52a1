"""What the processes of the local engine send to each other, as bytes.

    kind (1 byte), 3 zero bytes, length of the body (4 bytes), body

Bodies are records (see `records`), but for a segment's:

    index, start, end, n    then n times, n lengths of thumbnails, n frames, n thumbnails

Nothing received is run, and nothing is believed: the file that a decoder reads may have taken it over.
`DecoderMessages` checks all of it, and any breach ends in `MessageError`.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from indexer.decode import (
    THUMBNAIL_SIDE,
    Alive,
    Cut,
    DecodedSegment,
    DecodeJob,
    DecodeMessage,
    FileUnreached,
    FileVerdict,
    Hashed,
    Opened,
    SpanRead,
)
from indexer.engines.jpeg import jpeg_size
from indexer.engines.records import MessageError, pack, unpack
from indexer.texts import MAX_LINES, MAX_TEXT_SECONDS, SourceLines, SourceMessage, SourceRead
from model.runtime.captured import TAG_SOURCES
from model.runtime.timed_text import language_code, plain_text
from model.runtime.video import VideoInfo
from model.runtime.video.facts import MOST_CAMERA_CHARACTERS, MOST_CODEC_CHARACTERS, VideoFacts

#: No time is greater, unless `max_hours` is.
MAX_SECONDS = 1e6
#: A thumbnail is not larger than its pixels.
MAX_THUMBNAIL_BYTES = THUMBNAIL_SIDE * THUMBNAIL_SIDE * 3
#: A record holds a few texts.
MAX_RECORD_BYTES = 1 << 17
_SIDES = (1 << 31) - 1

HEAD = struct.Struct("<BxxxI")
_SEGMENT_HEAD = struct.Struct("<QddI")
_SEGMENT = 2
_RECORDS: dict[int, type[DecodeMessage]] = {
    1: Alive,
    3: Opened,
    4: FileVerdict,
    6: FileUnreached,
    9: Hashed,
    10: Cut,
    11: SpanRead,
}
_TEXT_RECORDS: dict[int, type[SourceMessage]] = {1: Alive, 6: FileUnreached, 7: SourceLines, 8: SourceRead}
_KINDS: dict[type, int] = {kind: number for number, kind in (_RECORDS | _TEXT_RECORDS).items()}

R = TypeVar("R")
Buffer = bytes | memoryview
Receive = Callable[[memoryview], None]
"""Fills a buffer with the next bytes of the sender."""


def frame_message(number: int, body: bytes) -> bytes:
    """A message of any kind from its number and its body."""
    return HEAD.pack(number, len(body)) + body


def read_framed(receive: Receive) -> tuple[int, bytearray]:
    """The next message of any kind: its number and its body.

    Raises:
        MessageError: the body is too long.
    """
    number, length = read_head(receive)
    if length > MAX_RECORD_BYTES:
        raise MessageError(f"{length} bytes at once")
    return number, read_exactly(receive, length)


def message_parts(message: DecodeMessage | SourceMessage) -> list[Buffer]:
    """A message of a decoder as buffers to be sent one after the other, without copying frames.

    Raises:
        MessageError: a number in it is not finite or too large.
    """
    if isinstance(message, DecodedSegment):
        return _segment_parts(message)
    return [frame_message(_KINDS[type(message)], pack(message))]


def _segment_parts(segment: DecodedSegment) -> list[Buffer]:
    sizes = np.array([len(image) for image in segment.thumbnails], "<u4")
    frames = np.ascontiguousarray(segment.frames)
    head = _SEGMENT_HEAD.pack(
        segment.index, segment.start_seconds, segment.end_seconds, len(segment.pts_seconds)
    )
    times = segment.pts_seconds.astype("<f8").tobytes() + sizes.tobytes()
    length = len(head) + len(times) + frames.nbytes + int(sizes.sum())
    return [
        HEAD.pack(_SEGMENT, length) + head + times,
        frames.reshape(-1).data,
        *segment.thumbnails,
    ]


class DecoderMessages:
    """Receives and checks what a decoder sends for one job.

    Args:
        job: the job.
        receive: fills a buffer with the decoder's next bytes; its errors pass through.

    Attributes:
        hashed: what is known of the file since its checksum is.
        opened: what is known of it since it was opened as a video.
        cut: that it is cut, if it is; then only a span of it is decoded.
        num_segments: segments received.
    """

    def __init__(self, job: DecodeJob, receive: Receive) -> None:
        self._job = job
        self._receive = receive
        self._index = -1
        self._start_seconds = 0.0
        self.hashed: Hashed | None = None
        self.opened: Opened | None = None
        self.cut: Cut | None = None
        self._has_read_span = False
        self.num_segments = 0
        spec = job.spec
        frame_bytes = spec.resizing.size * spec.resizing.size * 3
        self._max_seconds = max(MAX_SECONDS, 2 * 3600 * spec.reading.max_hours)
        self._max_index = ceil(self._max_seconds / spec.segment_seconds)
        self._max_segment = _SEGMENT_HEAD.size + spec.frames_per_segment * (
            12 + frame_bytes + MAX_THUMBNAIL_BYTES
        )

    def next(self) -> DecodeMessage:
        """The next message.

        Raises:
            MessageError: it breaks the format, or what it says cannot be.
        """
        number, length = read_head(self._receive)
        if number == _SEGMENT:
            if length > self._max_segment:
                raise MessageError(f"a segment of {length} bytes")
            return self._segment(length)
        message = read_record(self._receive, number, length, _RECORDS)
        self._check(message)
        return message

    def _check(self, message: DecodeMessage) -> None:
        match message:
            case Hashed():
                if self.hashed is not None:
                    raise MessageError("the file's checksum, a second time")
                _check_content(message.sha256, message.bytes)
                self.hashed = message
            case Opened():
                if self.hashed is None and not self._job.is_later_span:
                    raise MessageError("that it opened a file whose checksum it has not sent")
                if self.opened is not None or self.num_segments:
                    raise MessageError("that it opened the file, a second time")
                _check_info(message.info)
                self.opened = message
            case Cut():
                self._check_cut(message)
                self.cut = message
            case SpanRead():
                if self._has_read_span or (self.cut is None and not self._job.is_later_span):
                    raise MessageError("the end of a span that it does not decode")
                if message.stored_bytes < 0 or message.bytes < 0:
                    raise MessageError(f"a span of {message.stored_bytes} bytes")
                self._has_read_span = True
            case FileVerdict():
                _check_content(message.sha256, message.bytes)
                if self.hashed is None or message.sha256 != self.hashed.sha256:
                    raise MessageError("a verdict on a file whose checksum it has not sent")
                if message.info is not None:
                    _check_info(message.info)
                if (message.verdict == "ok") != (message.reason is None):
                    raise MessageError(f"the verdict {message.verdict} and the reason {message.reason!r}")
                if message.verdict == "ok" and message.info is None:
                    raise MessageError("the verdict ok without the file's properties")
            case _:
                pass

    def _check_cut(self, message: Cut) -> None:
        order = self._job.span
        if order is None or self.opened is None or self.cut is not None or self.num_segments:
            raise MessageError("that it cuts a file that it is to decode whole, or has begun to")
        if not max(1, order.number) < message.count <= self._max_index + 1:
            raise MessageError(f"{message.count} spans of a file")

    def _segment(self, length: int) -> DecodedSegment:
        spec = self._job.spec
        if self._job.is_later_span and self.cut is None:
            raise MessageError("a segment of a span that there is not")
        if self._has_read_span:
            raise MessageError("a segment after the end of the span")
        if self.opened is None:
            raise MessageError("a segment of a file that it has not opened")
        if length < _SEGMENT_HEAD.size:
            raise MessageError("a segment without its head")
        index, start, end, count = _SEGMENT_HEAD.unpack(read_exactly(self._receive, _SEGMENT_HEAD.size))
        if not self._index < index <= self._max_index:
            raise MessageError(f"segment {index} after segment {self._index}")
        # Written so that NaN fails.
        if not self._start_seconds <= start <= end <= self._max_seconds:
            raise MessageError(f"a segment from {start} to {end} s, after {self._start_seconds} s")
        if not 1 <= count <= spec.frames_per_segment:
            raise MessageError(f"a segment of {count} frames instead of 1 to {spec.frames_per_segment}")
        shape = (count, spec.resizing.size, spec.resizing.size, 3)
        fixed = _SEGMENT_HEAD.size + 12 * count + count * spec.resizing.size * spec.resizing.size * 3
        if length < fixed:
            raise MessageError("a segment without its frames")
        times = np.frombuffer(read_exactly(self._receive, 8 * count), "<f8").astype(np.float64)
        sizes = np.frombuffer(read_exactly(self._receive, 4 * count), "<u4").astype(np.int64)
        if not (np.isfinite(times).all() and (np.abs(times) <= self._max_seconds).all()):
            raise MessageError("times of frames that cannot be")
        if (np.diff(times) < 0).any():
            raise MessageError("frames out of order")
        if int(sizes.max()) > MAX_THUMBNAIL_BYTES or fixed + int(sizes.sum()) != length:
            raise MessageError(f"a segment of {length} bytes that does not hold its thumbnails")
        frames: NDArray[np.uint8] = np.empty(shape, np.uint8)
        self._receive(frames.reshape(-1).data)
        thumbnails = self._thumbnails(sizes.tolist())
        self._index, self._start_seconds = index, start
        self.num_segments += 1
        return DecodedSegment(index, start, end, frames, times, thumbnails)

    def _thumbnails(self, sizes: Sequence[int]) -> tuple[bytes, ...]:
        images = []
        for size in sizes:
            image = bytes(read_exactly(self._receive, size))
            shape = jpeg_size(image)
            if shape is None or not all(1 <= side <= THUMBNAIL_SIDE for side in shape):
                raise MessageError("a thumbnail that is no JPEG image of the right size")
            images.append(image)
        return tuple(images)


class TextMessages:
    """Receives and checks what comes from reading one source of text.

    Args:
        receive: fills a buffer with the next bytes; its errors pass through.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._num_lines = 0

    def next(self) -> SourceMessage:
        """The next message.

        Raises:
            MessageError: it breaks the format, or what it says cannot be.
        """
        message = read_record(self._receive, *read_head(self._receive), _TEXT_RECORDS)
        if isinstance(message, SourceLines):
            self._check_lines(message)
        elif isinstance(message, SourceRead):
            check_read(message)
        return message

    def _check_lines(self, message: SourceLines) -> None:
        self._num_lines += len(message.lines)
        if self._num_lines > MAX_LINES:
            raise MessageError(f"more than {MAX_LINES} lines")
        if message.language != language_code(message.language):
            raise MessageError("a language that is none")
        for line in message.lines:
            if not 0 <= line.start_seconds <= line.end_seconds <= MAX_TEXT_SECONDS:
                raise MessageError(f"a line from {line.start_seconds} to {line.end_seconds} s")
            if not line.text or line.text != plain_text(line.text, resolve=False):
                raise MessageError("a line that is empty or cannot be shown")


def _check_content(sha256: str, size: int) -> None:
    if not (len(sha256) == 64 and set(sha256) <= set("0123456789abcdef")):
        raise MessageError("a checksum that is none")
    if size < 0:
        raise MessageError(f"a file of {size} bytes")


def _check_info(info: VideoInfo) -> None:
    # All numbers are finite already.
    if info.duration_seconds < 0 or info.fps < 0:
        raise MessageError(f"a video of {info.duration_seconds} s with {info.fps} frames per second")
    if info.text_tracks < 0:
        raise MessageError(f"{info.text_tracks} tracks of text")
    if not (0 <= info.width <= _SIDES and 0 <= info.height <= _SIDES):
        raise MessageError(f"a picture of {info.width} x {info.height}")
    check_facts(info.facts)


def check_facts(facts: VideoFacts) -> None:
    """Raise MessageError unless facts can be those of a container. Times and places check themselves."""
    captured = facts.captured
    if captured is not None and captured.source not in TAG_SOURCES:
        raise MessageError(f"a time from the {captured.source}, which it does not know")
    for name, text, most in (
        ("camera", facts.camera, MOST_CAMERA_CHARACTERS),
        ("codec of sound", facts.audio_codec, MOST_CODEC_CHARACTERS),
    ):
        if text is not None and not 1 <= len(text) <= most:
            raise MessageError(f"a {name} of {len(text)} characters")


def read_head(receive: Receive) -> tuple[int, int]:
    """Number and length of the next message."""
    number, length = HEAD.unpack(read_exactly(receive, HEAD.size))
    return number, length


def read_record(receive: Receive, number: int, length: int, kinds: Mapping[int, type[R]]) -> R:
    """The record after a head, of one of the kinds that may come, by their numbers.

    Raises:
        MessageError: it is of another kind, too long, or no such record.
    """
    kind = kinds.get(number)
    if kind is None:
        raise MessageError(f"a message of kind {number}")
    if length > MAX_RECORD_BYTES:
        raise MessageError(f"a message of {length} bytes")
    return unpack(kind, read_exactly(receive, length))


def check_read(message: SourceRead) -> None:
    """Raise MessageError unless there is a reason for a verdict that is not "ok", and for no other."""
    if (message.verdict == "ok") != (message.reason is None):
        raise MessageError(f"the verdict {message.verdict} and the reason {message.reason!r}")


def read_exactly(receive: Receive, length: int) -> bytearray:
    """The next bytes."""
    data = bytearray(length)
    if length:
        receive(memoryview(data))
    return data
