"""What decoding processes send: valid messages come back as they were, all others give one error."""

from __future__ import annotations

import contextlib
import io
import pickle
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from indexer.decode import (
    Alive,
    Cut,
    DecodedSegment,
    DecodeJob,
    DecodeMessage,
    DecodeSpec,
    FileKnown,
    FileUnreached,
    FileVerdict,
    Hashed,
    Opened,
    SpanOrder,
    SpanRead,
    until_known,
)
from indexer.engines.jpeg import jpeg_size
from indexer.engines.messages import DecoderMessages, TextMessages, message_parts
from indexer.engines.records import MAX_CHARACTERS, MessageError, pack, unpack
from indexer.engines.worker import FileJob
from indexer.texts import SourceLine, SourceLines, SourceMessage, SourceRead, TextJob
from model.runtime.captured import Captured
from model.runtime.places import Place
from model.runtime.preprocessing import Resizing
from model.runtime.video import VideoInfo
from model.runtime.video.facts import VideoFacts

SPEC = DecodeSpec("pyav", Resizing(8), 32.0, 4)
JOB = DecodeJob(b"/media/bad\xff.mp4", SPEC, 7, 123)
INFO = VideoInfo(64.0, 25.0, 640, 480, 90, "h264", "yuv420p", "mov,mp4", 0.5, "A film", -3.0)
FACTS = VideoFacts(
    Captured(1_700_000_000, -210, "tag_with_zone"), Place(48.125, -2.25, 35.5), "Apple iPhone 12", "aac"
)
SHA = "0123456789abcdef" * 4
HASHED = Hashed(SHA, 1000, -5)
OPENED = Opened(INFO)


def jpeg(width: int = 32, height: int = 24) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(out, "JPEG")
    return out.getvalue()


def segment(index: int = 0, count: int = 2, **changes: Any) -> DecodedSegment:
    frames = np.arange(count * 8 * 8 * 3, dtype=np.uint32).astype(np.uint8).reshape(count, 8, 8, 3)
    times = index * 32.0 + np.arange(count, dtype=np.float64)
    made = DecodedSegment(index, index * 32.0, index * 32.0 + 32, frames, times, (jpeg(),) * count)
    return replace(made, **changes)


def wire(*messages: DecodeMessage) -> bytes:
    return b"".join(bytes(part) for message in messages for part in message_parts(message))


def reader(data: bytes, job: DecodeJob = JOB) -> DecoderMessages:
    """Messages from bytes; past their end, EOFError."""
    stream = io.BytesIO(data)

    def receive(view: memoryview) -> None:
        if stream.readinto(view) < len(view):
            raise EOFError

    return DecoderMessages(job, receive)


def read_all(data: bytes, job: DecodeJob = JOB) -> list[DecodeMessage]:
    messages, received = reader(data, job), []
    while True:
        try:
            received.append(messages.next())
        except EOFError:
            return received


VALID: list[DecodeMessage] = [
    Alive(),
    HASHED,
    OPENED,
    segment(),
    segment(2, count=4),
    FileVerdict("ok", None, INFO, SHA, 1000, -5),
]


def test_messages_come_back_as_they_were() -> None:
    received = read_all(wire(*VALID))
    for message, expected in zip(received, VALID, strict=True):
        if isinstance(message, DecodedSegment) and isinstance(expected, DecodedSegment):
            assert np.array_equal(message.frames, expected.frames)
            assert message.frames.dtype == np.uint8
            assert np.array_equal(message.pts_seconds, expected.pts_seconds)
            assert message.thumbnails == expected.thumbnails
            assert (message.index, message.start_seconds, message.end_seconds) == (
                expected.index,
                expected.start_seconds,
                expected.end_seconds,
            )
        else:
            assert message == expected
    for outcome in (
        FileUnreached("cannot be reached: Stale file handle"),
        FileVerdict("corrupt", "is damaged", None, SHA, 0, 0),
        FileVerdict("partial", "ends at 1 s", replace(INFO, title=None, facts=FACTS), SHA, 1 << 60, 1 << 62),
    ):
        assert read_all(wire(HASHED, outcome)) == [HASHED, outcome]


SPAN_READ = SpanRead(is_exact=True, stored_bytes=99, bytes=1000, mtime_ns=-5)
FIRST_SPAN, LATER_SPAN = (replace(JOB, span=SpanOrder(number, 1800.0)) for number in (0, 2))
CUT = Cut(3)


@pytest.mark.parametrize(
    ("job", "messages"),
    [
        (FIRST_SPAN, [HASHED, OPENED, CUT, SPAN_READ, FileVerdict("ok", None, INFO, SHA, 1000, -5)]),
        # It was not long enough.
        (FIRST_SPAN, [HASHED, OPENED, FileVerdict("ok", None, INFO, SHA, 1000, -5)]),
        (LATER_SPAN, [OPENED, CUT, SPAN_READ]),
        (LATER_SPAN, [SPAN_READ]),
    ],
)
def test_messages_of_spans_come_back_as_they_were(job: DecodeJob, messages: list[DecodeMessage]) -> None:
    assert read_all(wire(*messages), job) == messages


@pytest.mark.parametrize(
    ("job", "messages", "said"),
    [
        (JOB, [HASHED, OPENED, CUT], "that it cuts a file that it is to decode whole"),
        (FIRST_SPAN, [HASHED, CUT], "that it cuts a file"),
        (FIRST_SPAN, [HASHED, OPENED, CUT, CUT], "that it cuts a file"),
        (FIRST_SPAN, [HASHED, OPENED, segment(), CUT], "has begun to"),
        (FIRST_SPAN, [HASHED, OPENED, Cut(1)], "1 spans of a file"),
        (FIRST_SPAN, [HASHED, OPENED, Cut(1 << 40)], "spans of a file"),
        (LATER_SPAN, [OPENED, Cut(2)], "2 spans of a file"),
        (LATER_SPAN, [OPENED, segment()], "a segment of a span that there is not"),
        (LATER_SPAN, [FileVerdict("ok", None, INFO, SHA, 1000, -5)], "a verdict on a file"),
        (FIRST_SPAN, [HASHED, OPENED, SPAN_READ], "the end of a span that it does not decode"),
        (FIRST_SPAN, [HASHED, OPENED, CUT, SPAN_READ, SPAN_READ], "the end of a span"),
        (FIRST_SPAN, [HASHED, OPENED, CUT, SPAN_READ, segment()], "a segment after the end of the span"),
        (LATER_SPAN, [OPENED, CUT, replace(SPAN_READ, stored_bytes=-1)], "a span of -1 bytes"),
    ],
)
def test_what_cannot_be_of_a_span_is_refused(
    job: DecodeJob, messages: list[DecodeMessage], said: str
) -> None:
    with pytest.raises(MessageError, match=said):
        read_all(wire(*messages), job)


def test_jobs_come_back_as_they_were() -> None:
    for job in (
        JOB,
        LATER_SPAN,
        DecodeJob(b"/a", replace(SPEC, decoder="decord", resizing=Resizing(8, "scale_crop", "bilinear", 9))),
    ):
        assert unpack(FileJob, pack(FileJob(job, None, None, 60))) == FileJob(job, None, None, 60)
    text = TextJob(b"/media/bad\xff.srt", "subtitles", "pt-BR", 23.976, 99)
    assert unpack(FileJob, pack(FileJob(None, text, None, 9))) == FileJob(None, text, None, 9)


LINES = SourceLines("en", (SourceLine(0.0, 1.5, "Hello — «мир» 你好"), SourceLine(1.0, 1.0, "x" * 2000)))


def text_reader(data: bytes) -> TextMessages:
    stream = io.BytesIO(data)

    def receive(view: memoryview) -> None:
        if stream.readinto(view) < len(view):
            raise EOFError

    return TextMessages(receive)


def test_texts_come_back_as_they_were() -> None:
    sent: list[SourceMessage] = [
        *(
            Alive(),
            LINES,
            replace(LINES, language=None),
            SourceRead("partial", "some"),
            SourceRead("ok", None),
        ),
        FileUnreached("gone"),
    ]
    data = b"".join(bytes(part) for message in sent for part in message_parts(message))
    messages = text_reader(data)
    assert [messages.next() for _ in sent] == sent


@pytest.mark.parametrize(
    "message",
    [
        replace(LINES, lines=(SourceLine(2.0, 1.0, "a"),)),
        replace(LINES, lines=(SourceLine(-1.0, 1.0, "a"),)),
        replace(LINES, lines=(SourceLine(0.0, 1e9, "a"),)),
        replace(LINES, lines=(SourceLine(0.0, 1.0, ""),)),
        replace(LINES, lines=(SourceLine(0.0, 1.0, "two  spaces"),)),
        replace(LINES, language="<script>"),
        replace(LINES, language="eng"),
        SourceRead("ok", "why"),
        SourceRead("corrupt", None),
        OPENED,
    ],
)
def test_texts_that_cannot_be_are_refused(message: Any) -> None:
    with pytest.raises(MessageError):
        text_reader(b"".join(bytes(part) for part in message_parts(message))).next()


def test_no_file_has_lines_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexer.engines.messages.MAX_LINES", 5)
    messages = text_reader(b"".join(bytes(part) for part in message_parts(LINES)) * 3)
    assert messages.next() == messages.next() == LINES
    with pytest.raises(MessageError, match="more than 5 lines"):
        messages.next()


@given(st.binary(max_size=300))
@settings(max_examples=200)
def test_any_bytes_are_text_messages_or_an_error(data: bytes) -> None:
    with contextlib.suppress(EOFError, MessageError):
        text_reader(data).next()


def test_texts_are_made_displayable_before_they_are_sent() -> None:
    info = replace(INFO, title="a\x1b[31m\nb\u2028c\ud800" + "x" * 9999)
    _, opened = read_all(wire(HASHED, replace(OPENED, info=info)))
    assert isinstance(opened, Opened)
    title = opened.info.title or ""
    assert title.startswith("a [31m b c x")
    assert len(title) == MAX_CHARACTERS
    # Spaces and joiners of other scripts are no control characters.
    for kept in ("日本\u3000語", "a\u00a0b", "👩\u200d🚀"):
        _, same = read_all(wire(HASHED, replace(OPENED, info=replace(INFO, title=kept))))
        assert isinstance(same, Opened)
        assert same.info.title == kept


class _Code:
    """What runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return eval, ("open('/tmp/reelfind-was-here', 'w')",)


def raw(kind: int, body: bytes, length: int | None = None) -> bytes:
    return struct.pack("<BxxxI", kind, len(body) if length is None else length) + body


def segment_bytes(index: int, start: float, end: float, count: int, tail: bytes) -> bytes:
    return raw(2, struct.pack("<QddI", index, start, end, count) + tail)


def tail(times: list[float], sizes: list[int], images: bytes = b"") -> bytes:
    count = len(times)
    return struct.pack(f"<{count}d{len(sizes)}I", *times, *sizes) + bytes(count * 192) + images


IMAGE = jpeg()
BAD: dict[str, bytes] = {
    "a pickle": pickle.dumps(_Code()),
    "a pickle with a length, as Connection sends it": struct.pack("!i", 80) + pickle.dumps(_Code()),
    "an unknown kind": raw(99, b""),
    "a message between the processes of the indexer": raw(64, b""),
    "a long message": raw(4, b"", 1 << 31),
    "an endless segment": raw(2, b"", 0xFFFFFFFF),
    "a body that is too long": raw(1, b"x"),
    "a body that is too short": raw(4, b"\0"),
    "a verdict that is none": raw(4, b"\x09" + bytes(60)),
    "ok with a reason": wire(HASHED, FileVerdict("ok", "but", INFO, SHA, 1, 1)),
    "ok without properties": wire(HASHED, FileVerdict("ok", None, None, SHA, 1, 1)),
    "damaged without a reason": wire(HASHED, FileVerdict("corrupt", None, INFO, SHA, 1, 1)),
    "a checksum that is none": wire(FileVerdict("ok", None, INFO, "../../etc", 1, 1)),
    "a negative size": wire(HASHED, FileVerdict("ok", None, INFO, SHA, -1, 1)),
    "a negative width": wire(replace(OPENED, info=replace(INFO, width=-1))),
    "a video of less than nothing": wire(replace(OPENED, info=replace(INFO, duration_seconds=-1.0))),
    "a place that is none": wire(HASHED, Opened(replace(INFO, facts=FACTS))).replace(
        struct.pack("<d", 48.125), struct.pack("<d", 90.5)
    ),
    "a zone that is none": wire(HASHED, Opened(replace(INFO, facts=FACTS))).replace(
        struct.pack("<q", -210), struct.pack("<q", -2100)
    ),
    "a time that a container does not know": wire(
        HASHED, Opened(replace(INFO, facts=VideoFacts(Captured(1_700_000_000, None, "file_name"))))
    ),
    "the name of a camera that is too long": wire(
        HASHED, Opened(replace(INFO, facts=replace(FACTS, camera="x" * 201)))
    ),
    "a number that is not finite": wire(HASHED, OPENED).replace(
        struct.pack("<d", 25.0), struct.pack("<d", float("nan"))
    ),
    "a text with control characters": wire(HASHED, OPENED).replace(b"A film", b"A\x1b[2J!"),
    "a text that is not UTF-8": wire(HASHED, OPENED).replace(b"A film", b"A\xff\xfe\xfd\xfc!"),
    "a text that is too long": raw(6, struct.pack("<I", 3000) + b"a" * 3000),
    "opened twice": wire(HASHED, OPENED, OPENED),
    "a segment before it opened the file": wire(segment()),
    "a segment twice": wire(HASHED, OPENED, segment(), segment()),
    "a segment before the last one": wire(HASHED, OPENED, segment(3), segment(1)),
    "a segment number beyond all times": wire(HASHED, OPENED)
    + segment_bytes(1 << 60, 0, 1, 1, tail([0.0], [1])),
    "a segment that ends before it starts": wire(HASHED, OPENED, segment(start_seconds=9.0, end_seconds=8.0)),
    "a segment that starts before 0": wire(HASHED, OPENED) + segment_bytes(0, -1, 1, 1, tail([0.0], [1])),
    "a segment that starts never": wire(HASHED, OPENED)
    + segment_bytes(0, float("nan"), 1, 1, tail([0.0], [1])),
    "a segment that ends never": wire(HASHED, OPENED)
    + segment_bytes(0, 0, float("inf"), 1, tail([0.0], [1])),
    "no frames": wire(HASHED, OPENED) + segment_bytes(0, 0, 1, 0, b""),
    "too many frames": wire(HASHED, OPENED, segment(count=5)),
    "frames without end": wire(HASHED, OPENED) + segment_bytes(0, 0, 1, 0xFFFFFFFF, b""),
    "frames of another size": wire(HASHED, OPENED, segment(frames=np.zeros((2, 9, 9, 3), np.uint8))),
    "frames without colour": wire(HASHED, OPENED, segment(frames=np.zeros((2, 8, 8), np.uint8))),
    "frames of wider numbers": wire(HASHED, OPENED, segment(frames=np.zeros((2, 8, 8, 3), np.uint16))),
    "frames out of order": wire(HASHED, OPENED, segment(pts_seconds=np.array([2.0, 1.0]))),
    "a time that is not finite": wire(HASHED, OPENED, segment(pts_seconds=np.array([0.0, np.inf]))),
    "a time that is no number": wire(HASHED, OPENED, segment(pts_seconds=np.array([np.nan, 1.0]))),
    "a time out of bounds": wire(HASHED, OPENED, segment(pts_seconds=np.array([0.0, 1e300]))),
    "a thumbnail too few": wire(HASHED, OPENED, segment(thumbnails=(IMAGE,))),
    "an empty thumbnail": wire(HASHED, OPENED, segment(thumbnails=(IMAGE, b""))),
    "a thumbnail that is no JPEG": wire(
        HASHED, OPENED, segment(thumbnails=(IMAGE, b"<svg onload='alert(1)'/>"))
    ),
    "a thumbnail that is too large": wire(HASHED, OPENED, segment(thumbnails=(IMAGE, jpeg(321, 10)))),
    "a thumbnail with too many bytes": wire(
        OPENED, segment(thumbnails=(IMAGE, IMAGE[:-2] + bytes(1 << 19) + b"\xff\xd9"))
    ),
    "lengths of thumbnails that do not fit": wire(HASHED, OPENED)
    + segment_bytes(0, 0, 1, 1, tail([0.0], [9], IMAGE)),
}


@pytest.mark.parametrize("name", BAD)
def test_what_breaks_the_format_is_one_error(name: str) -> None:
    with pytest.raises(MessageError) as error:
        read_all(BAD[name])
    assert "\x1b" not in str(error.value)
    assert len(str(error.value)) < 200


def test_a_decoder_cannot_say_that_a_file_is_known() -> None:
    known = pack(FileKnown("0" * 64, 1))
    for before in (b"", wire(HASHED), wire(HASHED, OPENED, segment())):
        with pytest.raises(MessageError, match="a message of kind 5"):
            read_all(before + raw(5, known))


def test_a_file_is_known_by_its_checksum_alone() -> None:
    rest: list[DecodeMessage] = [Alive(), OPENED, segment()]
    known = FileKnown(SHA, -5)
    assert list(until_known([Alive(), HASHED, *rest], ["0" * 64, SHA])) == [Alive(), known]
    passed_on = list(until_known([Alive(), HASHED, *rest], ["0" * 64]))
    assert passed_on[:3] == [Alive(), HASHED, Alive()]
    assert len(passed_on) == 5


def test_a_verdict_is_on_the_content_that_was_hashed() -> None:
    for data in (
        wire(FileVerdict("corrupt", "is damaged", None, SHA, 1000, -5)),
        wire(HASHED, FileVerdict("corrupt", "is damaged", None, "0" * 64, 1000, -5)),
        wire(HASHED, HASHED),
        wire(OPENED),
    ):
        with pytest.raises(MessageError, match="checksum"):
            read_all(data)


def test_no_more_memory_is_taken_than_a_segment_may_have() -> None:
    """A length is believed only as far as a valid message may be long, before any of it is read."""
    asked: list[int] = []
    data = io.BytesIO(raw(2, b"", 0xFFFFFFFF))

    def receive(view: memoryview) -> None:
        asked.append(len(view))
        data.readinto(view)

    with pytest.raises(MessageError, match="a segment of 4294967295 bytes"):
        DecoderMessages(JOB, receive).next()
    assert asked == [8]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_random_bytes_give_the_one_error_or_end(data: bytes) -> None:
    with contextlib.suppress(MessageError):
        read_all(data)


WHOLE = wire(*VALID)
_EDITS = st.lists(
    st.tuples(st.integers(0, len(WHOLE) - 1), st.binary(min_size=0, max_size=9), st.integers(0, 9)),
    min_size=1,
    max_size=6,
)


@settings(max_examples=1000, deadline=None)
@given(_EDITS)
def test_damaged_messages_give_the_one_error_or_valid_values(
    edits: list[tuple[int, bytes, int]],
) -> None:
    data = WHOLE
    for at, content, cut in edits:
        data = data[:at] + content + data[at + cut :]
    try:
        received = read_all(data)
    except MessageError:
        return
    last = -1
    for message in received:
        if isinstance(message, DecodedSegment):
            assert last < message.index
            last = message.index
            count = len(message.frames)
            assert 1 <= count <= SPEC.frames_per_segment
            assert message.frames.shape == (count, 8, 8, 3)
            assert len(message.thumbnails) == len(message.pts_seconds) == count
            assert np.isfinite(message.pts_seconds).all()
            assert (np.diff(message.pts_seconds) >= 0).all()
            assert 0 <= message.start_seconds <= message.end_seconds
            assert all(jpeg_size(image) is not None for image in message.thumbnails)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_jobs_of_random_bytes_give_the_one_error(data: bytes) -> None:
    with pytest.raises(MessageError):
        unpack(FileJob, data)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_the_size_of_a_jpeg_is_what_pillow_says(mode: str, progressive: bool) -> None:
    out = io.BytesIO()
    Image.new(mode, (200, 123)).save(out, "JPEG", progressive=progressive, comment=b"note")
    assert jpeg_size(out.getvalue()) == (200, 123)
    for broken in (out.getvalue()[:-1], out.getvalue()[1:], b"", b"\xff\xd8\xff\xd9", out.getvalue()[:30]):
        assert jpeg_size(broken) is None
