"""Subtitle files: SubRip, WebVTT, SubStation Alpha, MicroDVD, MPL2, TMPlayer and TTML."""

import re
import warnings
from pathlib import Path
from typing import Literal

import pysubs2
from pysubs2.exceptions import UnknownFPSError
from pysubs2.formats import get_format_class

from model.runtime.errors import InputError
from model.runtime.timed_text.encodings import decode_text, load_encodings
from model.runtime.timed_text.lines import Lines, TimedText

#: Larger files are no subtitles: those of a long film have a hundredth of it.
MAX_SUBTITLE_BYTES = 64 << 20
_FORMATS = ("srt", "vtt", "ass", "ssa", "microdvd", "mpl2", "tmp", "ttml")
_ARROW = "-->"
# What pysubs2 leaves in a text: voices, classes and times of WebVTT, such as <v Ann>, <c.red>, <00:01.000>.
_TAG = re.compile(r"</?(?:[A-Za-z][^<>]*|[\d:.]+)>")
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
#: A cue with a time before 0, whose sign pysubs2 does not see.
_NEGATIVE = re.compile(r"^[ \t]*(-?)([\d:.,]+)([ \t]*-->[ \t]*)(-?)([\d:.,]+)", re.MULTILINE)
#: MicroDVD's first line may state the frames a second.
_RATE = re.compile(r"\s*\{[01]\}\{[01]\}\s*(\d+(?:[.,]\d+)?)\s*\n")
#: How the pictures of VobSub begin, whose files are called `.sub` too.
_VOBSUB = b"\x00\x00\x01\xba"
#: Captions that roll show a line again in the next cue, which begins this soon, in milliseconds.
_ROLLING_GAP = 50


def load_all() -> None:
    """Load what is loaded when it is needed: a process that is confined to one file cannot."""
    load_encodings()
    for format_ in _FORMATS:
        get_format_class(format_)


class SubtitleError(ValueError):
    """A file holds no subtitles that can be read: it is damaged, or of another kind."""

    def __init__(self, reason: str, verdict: Literal["corrupt", "unsupported"]) -> None:
        super().__init__(reason)
        self.verdict: Literal["corrupt", "unsupported"] = verdict


def read_subtitles(path: Path) -> TimedText:
    """The lines of a subtitle file; see `parse_subtitles`.

    Raises:
        InputError: the file cannot be read, or is not a subtitle file.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        return parse_subtitles(data)
    except SubtitleError as error:
        raise InputError(
            f"{path} is not a subtitle file, {error}: replace it by one in SubRip, WebVTT or SubStation "
            "Alpha, or remove it"
        ) from error


def parse_subtitles(data: bytes, fps: float | None = None) -> TimedText:
    """The lines of a subtitle file, without styling.

    The content says what format it has, whatever the name says; for its encoding, see `decode_text`. A cue
    ends at a blank line. Comments and drawings are left out, and so are, in WebVTT, the lines that a cue of
    rolling captions repeats from the cue before.

    Args:
        data: the file's content.
        fps: frames a second of the video, for formats that count frames and do not state the rate.

    Raises:
        SubtitleError: it is not a subtitle file, or one with pictures.
    """
    if data.startswith(_VOBSUB):
        raise SubtitleError("it holds pictures of text (VobSub)", "unsupported")
    try:
        text = decode_text(data)
    except UnicodeDecodeError as error:
        raise SubtitleError(f"it cannot be read as {error.encoding}", "corrupt") from error
    lines = Lines()
    if not text.strip():
        return lines.done()
    subs = _parse(_NEGATIVE.sub(_without_signs, text), fps)
    if not subs.events and _ARROW in text:
        raise SubtitleError("no time in it can be read", "corrupt")
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


def _without_signs(times: re.Match[str]) -> str:
    """A cue that begins before 0 begins at 0; one that also ends there ends before it begins."""
    first_sign, first, arrow, second_sign, second = times.groups()
    if second_sign:
        first, second = "00:00:01.000", "00:00:00.000"
    elif first_sign:
        first = "00:00:00.000"
    return f"{first}{arrow}{second}"


def _without_repeats(before: list[str], now: list[str]) -> list[str]:
    """The lines of a cue without those at its start that end the cue before."""
    for count in range(min(len(before), len(now)), 0, -1):
        if before[-count:] == now[:count]:
            return now[count:]
    return now


def _parse(text: str, fps: float | None) -> pysubs2.SSAFile:
    rate = _RATE.match(text)
    if rate is not None:
        fps, text = float(rate[1].replace(",", ".")), text[rate.end() :]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            subs = pysubs2.SSAFile.from_string(text, fps=fps or None)
    except UnknownFPSError as error:
        raise SubtitleError(
            "it counts frames, and neither it nor the video says how many there are a second", "unsupported"
        ) from error
    # Damaged files raise almost anything.
    except Exception as error:
        raise SubtitleError("it has no cues", "corrupt") from error
    if subs.format not in _FORMATS:
        raise SubtitleError(f"it is of the format {subs.format}", "unsupported")
    return subs
