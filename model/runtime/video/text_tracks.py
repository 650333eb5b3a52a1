"""Reads the text tracks of a video file: subtitles in MP4 (mov_text) and in Matroska and WebM."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Discard
from av.subtitles.stream import SubtitleStream

from model.runtime.timed_text import language_code
from model.runtime.video.demux import read_packets
from model.runtime.video.limits import CpuBudget, ReadingLimits
from model.runtime.video.probe import open_container
from model.runtime.video.timeline import StreamPacket

#: Codecs of text; others hold pictures of it.
_TEXT_CODECS = frozenset({"mov_text", "subrip", "srt", "ass", "ssa", "webvtt", "text"})
#: A line that does not say when it ends does so after this long, or when the next one comes.
_SHOWN_SECONDS = 5.0
# FFmpeg gives every text as an event of SubStation Alpha, which has eight fields before it.
_FIELDS_BEFORE_TEXT = 8
_DRAWING = re.compile(r"\{[^}]*\\p[1-9][^}]*\}")
_OVERRIDE = re.compile(r"\{[^}]*\}")
_BREAK = re.compile(r"\\[Nnh]")
_TAG = re.compile(r"</?(?:[A-Za-z][^<>]*|[\d:.]+)>")
#: After so many packets, there is a sign of progress.
_PACKETS_A_SIGN = 256


@dataclass(frozen=True)
class TrackLine:
    """A text of a track. Seconds are from the container's start, as a player shows them."""

    start_seconds: float
    end_seconds: float
    text: str
    language: str | None


def text_tracks(container: InputContainer) -> list[SubtitleStream]:
    """The streams of text."""
    return [
        s for s in container.streams.subtitles if s.codec_context and s.codec_context.name in _TEXT_CODECS
    ]


def read_text_tracks(path: Path, limits: ReadingLimits) -> Iterator[TrackLine | None]:
    """Read all text tracks of a video file, in the order of the file.

    Yields:
        The lines, and None wherever reading makes progress.

    Raises:
        VideoError: the file cannot be opened.
        LimitReachedError: reading takes more CPU time than it may.
    """
    budget = CpuBudget(limits, path)
    container = open_container(path, limits)
    try:
        streams = text_tracks(container)
        if not streams:
            return
        for stream in container.streams:
            # FFmpeg then need not read it, where the container has an index.
            stream.discard = Discard.none if stream in streams else Discard.all
        start = Fraction(container.start_time or 0, av.time_base)
        #: Of each stream, the line that does not say when it ends.
        open_lines: dict[int, TrackLine] = {}
        failures: list[str] = []
        with budget.counting():
            for count, packet in enumerate(read_packets(container, tuple(streams), failures.append)):
                budget.check()
                if count % _PACKETS_A_SIGN == 0:
                    yield None
                if packet.pts is None or packet.time_base is None:
                    continue
                begin = float(packet.pts * packet.time_base - start)
                lasts = float((packet.duration or 0) * packet.time_base)
                index = packet.stream.index
                if index in open_lines:
                    yield _ended(open_lines.pop(index), begin)
                text = _text_of(packet)
                if not text:
                    continue
                language = language_code(packet.stream.metadata.get("language"))
                line = TrackLine(begin, begin + lasts, text, language)
                if lasts > 0:
                    yield line
                else:
                    open_lines[index] = line
        for line in open_lines.values():
            yield _ended(line, line.start_seconds + _SHOWN_SECONDS)
    finally:
        container.close()


def _ended(line: TrackLine, next_seconds: float) -> TrackLine:
    end = min(max(next_seconds, line.start_seconds), line.start_seconds + _SHOWN_SECONDS)
    return TrackLine(line.start_seconds, end, line.text, line.language)


def _text_of(packet: StreamPacket) -> str:
    """The text of a packet without styling; empty where it has none, or cannot be decoded."""
    try:
        decoded = packet.decode()
    except Exception as error:
        del error
        return ""
    texts = []
    for subtitle in decoded:
        events = getattr(subtitle, "rects", None) or [subtitle]
        for event in events:
            raw = getattr(event, "ass", None)
            if isinstance(raw, bytes):
                texts.append(_plain(raw.decode("utf-8", "replace")))
    return "\n".join(filter(None, texts))


def _plain(event: str) -> str:
    text = event.split(",", _FIELDS_BEFORE_TEXT)[-1]
    if _DRAWING.search(text):
        return ""
    return _TAG.sub("", _BREAK.sub(" ", _OVERRIDE.sub("", text))).strip()
