"""What comes from reading a video's sound or pictures, as bytes: see `messages` for the frame around it.

    facts       a record, see `records`
    sound       start, then the samples
    pictures    end, n, h, w, then n times, and n × h × w × 3 bytes

Nothing received is believed, as with the messages of decoders: `MediaMessages` checks all of it.
"""

import struct

import numpy as np
from numpy.typing import NDArray

from indexer.decode import Alive, FileUnreached
from indexer.engines.messages import (
    HEAD,
    MAX_SECONDS,
    Buffer,
    Receive,
    check_facts,
    check_read,
    frame_message,
    read_exactly,
    read_head,
    read_record,
)
from indexer.engines.records import MessageError, pack
from indexer.media import (
    MAX_PICTURE_BYTES,
    MAX_SAMPLES,
    FactsRead,
    MediaJob,
    MediaMessage,
    PictureChunk,
    SoundChunk,
)
from indexer.texts import SourceRead
from model.runtime.video.small_frames import SMALL_SIZE

_SOUND, _PICTURES = 9, 10
_RECORDS: dict[int, type[MediaMessage]] = {1: Alive, 6: FileUnreached, 8: SourceRead, 11: FactsRead}
_KINDS: dict[type, int] = {kind: number for number, kind in _RECORDS.items()}
_SOUND_HEAD = struct.Struct("<d")
_PICTURES_HEAD = struct.Struct("<dIII")
#: Times are rounded.
_ROUNDING = 1e-6


def media_message_parts(message: MediaMessage) -> list[Buffer]:
    """A message as buffers to be sent one after the other, without copying samples and pictures.

    Raises:
        MessageError: a number in it is not finite or too large.
    """
    if isinstance(message, SoundChunk):
        head = _SOUND_HEAD.pack(message.start_seconds)
        samples = np.ascontiguousarray(message.samples, "<i2")
        return [HEAD.pack(_SOUND, len(head) + samples.nbytes) + head, samples.view(np.uint8).data]
    if isinstance(message, PictureChunk):
        head = _PICTURES_HEAD.pack(message.end_seconds, *message.data.shape[:3])
        head += message.pts_seconds.astype("<f8").tobytes()
        pixels = np.ascontiguousarray(message.data)
        return [HEAD.pack(_PICTURES, len(head) + pixels.nbytes) + head, pixels.reshape(-1).data]
    return [frame_message(_KINDS[type(message)], pack(message))]


class MediaMessages:
    """Receives and checks what comes from reading one video for a stage.

    Args:
        job: what is read.
        receive: fills a buffer with the next bytes; its errors pass through.
    """

    def __init__(self, job: MediaJob, receive: Receive) -> None:
        self._job = job
        self._receive = receive
        self._reached = 0.0
        self._shape: tuple[int, int] | None = None
        self._max_seconds = max(MAX_SECONDS, 2 * 3600 * job.reading.max_hours)

    def next(self) -> MediaMessage:
        """The next message.

        Raises:
            MessageError: it breaks the format, or what it says cannot be.
        """
        number, length = read_head(self._receive)
        kind = self._job.kind
        if number == _SOUND and kind == "audio":
            return self._sound(length)
        if number == _PICTURES and kind in ("pictures", "small_pictures"):
            return self._pictures(length)
        message = read_record(self._receive, number, length, _RECORDS)
        if isinstance(message, SourceRead):
            check_read(message)
        if isinstance(message, FactsRead):
            if kind != "facts":
                raise MessageError("what it was not asked for")
            check_facts(message.facts)
        return message

    def _sound(self, length: int) -> SoundChunk:
        num_bytes = length - _SOUND_HEAD.size
        if num_bytes % 2 or not 2 <= num_bytes <= 2 * MAX_SAMPLES:
            raise MessageError(f"{num_bytes} bytes of sound")
        (start,) = _SOUND_HEAD.unpack(read_exactly(self._receive, _SOUND_HEAD.size))
        # Written so that NaN fails.
        if not self._reached - _ROUNDING <= start <= self._max_seconds:
            raise MessageError(f"sound at {start} s, after {self._reached} s")
        samples = np.empty(num_bytes // 2, "<i2")
        self._receive(samples.view(np.uint8).data)
        chunk = SoundChunk(max(start, self._reached), samples.astype(np.int16, copy=False))
        self._reached = chunk.end_seconds
        return chunk

    def _pictures(self, length: int) -> PictureChunk:
        if length < _PICTURES_HEAD.size:
            raise MessageError("pictures without their head")
        end, *shape = _PICTURES_HEAD.unpack(read_exactly(self._receive, _PICTURES_HEAD.size))
        count, height, width = shape
        self._check_shape(count, height, width)
        if length != _PICTURES_HEAD.size + 8 * count + count * height * width * 3:
            raise MessageError(f"{length} bytes for {count} pictures of {width} x {height}")
        times = np.frombuffer(read_exactly(self._receive, 8 * count), "<f8").astype(np.float64)
        ordered = np.concatenate([[self._reached - _ROUNDING], times, [end + _ROUNDING]])
        # Written so that NaN fails.
        if not ((np.diff(ordered) >= 0).all() and end <= self._max_seconds):
            raise MessageError(f"pictures whose times cannot be, after {self._reached} s")
        data: NDArray[np.uint8] = np.empty((count, height, width, 3), np.uint8)
        self._receive(data.reshape(-1).data)
        self._reached = float(times[-1])
        return PictureChunk(times, data, end)

    def _check_shape(self, count: int, height: int, width: int) -> None:
        """Raise MessageError unless so many pictures of this size may come at once."""
        wrong = MessageError(f"{count} pictures of {width} x {height}")
        if not (count and height and width) or self._shape not in (None, (height, width)):
            raise wrong
        if self._job.kind == "small_pictures":
            if (width, height) != SMALL_SIZE:
                raise wrong
        elif max(height, width) > self._job.max_side:
            raise wrong
        if count > 1 and count * height * width * 3 > MAX_PICTURE_BYTES:
            raise wrong
        self._shape = height, width
