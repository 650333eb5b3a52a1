"""What comes from reading sound and pictures: valid messages come back as they were, others are an error."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.decode import Alive, FileUnreached
from indexer.engines.local_decoders import Bounds, FileDecoder, InlineDecoder, ProcessDecoder
from indexer.engines.media_messages import MediaMessages, media_message_parts
from indexer.engines.records import MessageError, pack, unpack
from indexer.engines.worker import FileJob
from indexer.media import MAX_SAMPLES, MediaJob, MediaMessage, PictureChunk, SoundChunk
from indexer.texts import SourceRead
from model.runtime.video import ReadingLimits, VideoReader
from tests.support.speech import make_spoken_video
from tests.support.toy_videos import make_video, write_slides

SOUND = MediaJob(b"/media/bad\xff.mp4", "audio", device=3, size=5, duration_seconds=1.5)
PICTURES = replace(SOUND, kind="pictures", max_side=64)
SMALL = replace(SOUND, kind="small_pictures")
HEARD = SoundChunk(1.5, np.arange(-500, 500, dtype=np.int16))
SEEN = PictureChunk(
    np.array([1.0, 2.0]),
    np.arange(2 * 24 * 32 * 3, dtype=np.uint32).astype(np.uint8).reshape(2, 24, 32, 3),
    3.0,
)
LITTLE = PictureChunk(np.array([0.5]), np.full((1, 27, 48, 3), 7, np.uint8), 0.5)
ENDS: list[MediaMessage] = [SourceRead("ok", None), SourceRead("partial", "damaged"), FileUnreached("gone")]


def reader(data: bytes, job: MediaJob) -> MediaMessages:
    """Messages from bytes; past their end, EOFError."""
    stream = io.BytesIO(data)

    def receive(view: memoryview) -> None:
        if stream.readinto(view) < len(view):
            raise EOFError

    return MediaMessages(job, receive)


def wire(*messages: MediaMessage) -> bytes:
    return b"".join(bytes(part) for message in messages for part in media_message_parts(message))


def test_jobs_come_back_as_they_were() -> None:
    for job in (SOUND, PICTURES, replace(SMALL, reading=ReadingLimits(max_hours=2.0), decoder="decord")):
        assert unpack(FileJob, pack(FileJob(None, None, job, 60))).media == job


@pytest.mark.parametrize(("job", "chunk"), [(SOUND, HEARD), (PICTURES, SEEN), (SMALL, LITTLE)])
def test_messages_come_back_as_they_were(job: MediaJob, chunk: SoundChunk | PictureChunk) -> None:
    messages = reader(wire(Alive(), chunk, *ENDS), job)
    assert messages.next() == Alive()
    received = messages.next()
    if isinstance(chunk, SoundChunk):
        assert isinstance(received, SoundChunk)
        assert received.start_seconds == 1.5
        assert received.samples.dtype == np.int16
        np.testing.assert_array_equal(received.samples, chunk.samples)
    else:
        assert isinstance(received, PictureChunk)
        assert received.end_seconds == chunk.end_seconds
        np.testing.assert_array_equal(received.pts_seconds, chunk.pts_seconds)
        np.testing.assert_array_equal(received.data, chunk.data)
    assert [messages.next() for _ in ENDS] == ENDS


def pictures(count: int, height: int, width: int, times: list[float], end: float = 9.0) -> bytes:
    body = struct.pack("<dIII", end, count, height, width) + struct.pack(f"<{len(times)}d", *times)
    body += bytes(count * height * width * 3)
    return struct.pack("<BxxxI", 10, len(body)) + body


def sound(start: float, samples: bytes, length: int | None = None) -> bytes:
    body = struct.pack("<d", start) + samples
    return struct.pack("<BxxxI", 9, len(body) if length is None else length) + body


BAD: dict[str, tuple[MediaJob, bytes]] = {
    "sound where pictures are asked for": (PICTURES, wire(HEARD)),
    "pictures where sound is asked for": (SOUND, wire(SEEN)),
    "an unknown kind": (SOUND, struct.pack("<BxxxI", 99, 0)),
    "a segment for the index": (SOUND, struct.pack("<BxxxI", 2, 0)),
    "sound without end": (SOUND, sound(0.0, b"", 0xFFFFFFFF)),
    "too much sound": (SOUND, sound(0.0, bytes(2 * MAX_SAMPLES + 2))),
    "no sound": (SOUND, sound(0.0, b"")),
    "half a sample": (SOUND, sound(0.0, b"abc")),
    "sound before the start": (SOUND, sound(-1.0, b"ab")),
    "sound at no time": (SOUND, sound(float("nan"), b"ab")),
    "sound beyond all times": (SOUND, sound(1e12, b"ab")),
    "sound that goes back": (SOUND, wire(HEARD, HEARD)),
    "pictures that are too large": (PICTURES, pictures(1, 65, 64, [1.0])),
    "small pictures of another size": (SMALL, pictures(1, 48, 27, [1.0])),
    "no pictures": (PICTURES, pictures(0, 24, 32, [])),
    "pictures without end": (PICTURES, struct.pack("<BxxxIdIII", 10, 20, 1.0, 0xFFFFFFFF, 64, 64)),
    "too many pictures at once": (SMALL, pictures(1100, 27, 48, [1.0] * 1100)),
    "pictures that do not fit their length": (PICTURES, pictures(1, 24, 32, [])),
    "pictures whose size changes": (PICTURES, wire(SEEN) + pictures(1, 32, 24, [2.0])),
    "pictures that go back": (PICTURES, pictures(2, 24, 32, [2.0, 1.0])),
    "pictures before those that came": (PICTURES, wire(SEEN, SEEN)),
    "a picture at no time": (PICTURES, pictures(1, 24, 32, [float("nan")])),
    "a picture after the end": (PICTURES, pictures(1, 24, 32, [3.0], end=2.0)),
    "an end that never comes": (PICTURES, pictures(1, 24, 32, [3.0], end=float("inf"))),
    "a verdict that does not fit": (SOUND, wire(SourceRead("ok", "but"))),
}


@pytest.mark.parametrize("what", BAD)
def test_messages_that_cannot_be_are_refused(what: str) -> None:
    job, data = BAD[what]
    messages = reader(data, job)
    with pytest.raises(MessageError):
        list(iter(messages.next, None))


@given(st.binary(max_size=300), st.sampled_from([SOUND, PICTURES, SMALL]))
@settings(max_examples=200)
def test_any_bytes_are_messages_or_an_error(data: bytes, job: MediaJob) -> None:
    with contextlib.suppress(EOFError, MessageError):
        reader(data, job).next()


@pytest.fixture(params=["here", "confined"])
def decoder(request: pytest.FixtureRequest) -> Iterator[FileDecoder]:
    stop = threading.Event()
    made: FileDecoder = InlineDecoder(stop) if request.param == "here" else ProcessDecoder(Bounds(), stop)
    yield made
    made.close()


def test_all_media_of_a_file_are_read(decoder: FileDecoder, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(-9000, 9000, 70 * 16000).astype(np.int16)
    path = make_spoken_video(tmp_path / "a.mkv", noise, codec="pcm_s16le")
    messages = list(decoder.read_media(MediaJob(os.fsencode(path), "audio")))
    heard = [message for message in messages if isinstance(message, SoundChunk)]
    np.testing.assert_array_equal(np.concatenate([chunk.samples for chunk in heard]), noise)
    assert messages[-1] == SourceRead("ok", None)
    path = make_video(tmp_path / "b.mp4", parts=[("red", 3.0), ("blue", 40.0)], fps=5, size=(320, 240))
    messages = list(decoder.read_media(MediaJob(os.fsencode(path), "pictures", max_side=160)))
    seen = [message for message in messages if isinstance(message, PictureChunk)]
    with VideoReader(path, max_side=160) as video:
        frames = [segment.frames for segment in video.segments(32.0, 16)]
    np.testing.assert_array_equal(
        np.concatenate([chunk.pts_seconds for chunk in seen]),
        np.concatenate([batch.pts_seconds for batch in frames]),
        "the pictures are those that the index samples",
    )
    np.testing.assert_array_equal(
        np.concatenate([chunk.data for chunk in seen]), np.concatenate([batch.data for batch in frames])
    )
    assert seen[-1].end_seconds == pytest.approx(43.0, abs=0.3)
    messages = list(decoder.read_media(MediaJob(os.fsencode(path), "small_pictures")))
    assert sum(len(m.pts_seconds) for m in messages if isinstance(m, PictureChunk)) == 215


def test_a_picture_that_stands_still_comes_once(decoder: FileDecoder, tmp_path: Path) -> None:
    path = write_slides(tmp_path / "slides.mkv", {0: 30, 400: 200, 420: 200})
    job = MediaJob(os.fsencode(path), "pictures")
    seen = [message for message in decoder.read_media(job) if isinstance(message, PictureChunk)]
    assert (len(seen[0].pts_seconds), seen[0].end_seconds > 350) == (1, True)


def test_files_that_cannot_be_read(decoder: FileDecoder, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(os.urandom(5000))
    for kind in ("audio", "pictures", "small_pictures"):
        *_, end = decoder.read_media(replace(SOUND, path=os.fsencode(broken), kind=kind, device=None))
        assert isinstance(end, SourceRead)
        assert end.verdict in ("corrupt", "unsupported")
        *_, end = decoder.read_media(replace(SOUND, path=os.fsencode(tmp_path / "no.mp4"), kind=kind))
        assert isinstance(end, FileUnreached)
