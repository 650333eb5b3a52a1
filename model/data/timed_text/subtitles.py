"""Subtitle files: SubRip (.srt), WebVTT (.vtt), SubStation Alpha (.ass, .ssa)."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

import pysubs2

from model.data.timed_text.lines import Lines, TimedText
from model.runtime.errors import InputError

SUBTITLE_EXTENSIONS = (".srt", ".vtt", ".ass", ".ssa")
_FORMATS = ("srt", "vtt", "ass", "ssa")
_ARROW = "-->"
# What pysubs2 leaves in a text: voices, classes and times of WebVTT, such as <v Ann>, <c.red>, <00:01.000>.
_TAG = re.compile(r"</?(?:[A-Za-z][^<>]*|[\d:.]+)>")
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
# Longest first: the mark of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
#: Captions that roll show a line again in the next cue, which begins this soon, in milliseconds.
_ROLLING_GAP = 50


def read_subtitles(path: Path) -> TimedText:
    """The lines of a subtitle file, without styling.

    The content says what format it has, whatever the name says. The encoding is the one of a byte order
    mark, UTF-8, UTF-16, or else Windows-1252. A cue ends at a blank line. Comments and drawings are left out,
    and so are, in WebVTT, the lines that a cue of rolling captions repeats from the cue before.

    Raises:
        InputError: the file cannot be read, or is not a subtitle file.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    text = _decode(path, data)
    lines = Lines()
    if not text.strip():
        return lines.done()
    subs = _parse(path, text)
    if not subs.events and _ARROW in text:
        raise _fail(path, "no time in it can be read")
    # A line with times that pysubs2 cannot read is taken for text.
    if subs.format in ("srt", "vtt"):
        lines.leave_out("unreadable", text.count(_ARROW) - len(subs.events))
    shown: list[str] = []
    shown_until = 0
    for event in subs.events:
        if event.is_comment or event.is_drawing:
            lines.leave_out("comment" if event.is_comment else "drawing")
            continue
        cue = _BLANK_LINE.split(event.plaintext, maxsplit=1)[0]
        parts = [part for line in cue.split("\n") if (part := _TAG.sub("", line).strip())]
        kept = parts
        if subs.format == "vtt" and event.start - shown_until <= _ROLLING_GAP:
            kept = _without_repeats(shown, parts)
        if parts:
            shown, shown_until = parts, event.end
        if parts and not kept:
            lines.leave_out("repeated")
        else:
            lines.add(event.start / 1000, event.end / 1000, " ".join(kept))
    return lines.done()


def _without_repeats(before: list[str], now: list[str]) -> list[str]:
    """The lines of a cue without those at its start that end the cue before."""
    for count in range(min(len(before), len(now)), 0, -1):
        if before[-count:] == now[:count]:
            return now[count:]
    return now


def _parse(path: Path, text: str) -> pysubs2.SSAFile:
    try:
        subs = pysubs2.SSAFile.from_string(text)
    # Damaged files raise almost anything.
    except Exception as error:
        raise _fail(path, "it has no cues") from error
    if subs.format not in _FORMATS:
        raise _fail(path, f"it is of the format {subs.format}")
    return subs


def _fail(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path} is not a subtitle file, {reason}: replace it by one in SubRip, WebVTT or SubStation Alpha, "
        "or remove it"
    )


def _decode(path: Path, data: bytes) -> str:
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    if encoding is None and b"\0" in data[:4096]:
        # Latin letters in UTF-16 have a zero in every second byte.
        encoding = "utf-16-le" if data[1:4096:2].count(0) >= data[:4096:2].count(0) else "utf-16-be"
    try:
        text = data.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        if encoding is not None:
            raise _fail(path, f"it cannot be read as {encoding}") from error
        # Its few undefined bytes become marks.
        text = data.decode("cp1252", errors="replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")
