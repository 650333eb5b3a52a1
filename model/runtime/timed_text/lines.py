"""Lines of text with times, and the rules by which lines of files become such lines."""

import html
import math
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: Longer lines are cut: they are no lines that anybody reads on a picture.
MAX_LINE_CHARACTERS = 2000
_NOT_SHOWN = frozenset({"Cc", "Cs", "Zl", "Zp"})


@dataclass(frozen=True, order=True)
class TimedLine:
    """A spoken or written line. Times are seconds from the start of the video, or of the clip.

    Raises:
        ValueError: the times are not 0 ≤ start ≤ end < infinity, or the text is blank.
    """

    start_seconds: float
    end_seconds: float
    text: str

    def __post_init__(self) -> None:
        if not 0 <= self.start_seconds <= self.end_seconds < math.inf:
            raise ValueError(
                f"a line from {self.start_seconds} to {self.end_seconds} s: must be 0 <= start <= end"
            )
        if not self.text.strip():
            raise ValueError("a line has no text")


@dataclass(frozen=True)
class TimedText:
    """The lines of one video, sorted by their times; lines may overlap.

    `left_out` counts what a file held that became no line, by reason: "empty" (no text), "backwards" (the end
    is before the start), "unreadable" (no valid times), "repeated" (rolling captions), "comment", "drawing".
    """

    lines: tuple[TimedLine, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)


class Lines:
    """Collects the lines of one video."""

    def __init__(self) -> None:
        self._lines: list[TimedLine] = []
        self._left_out: Counter[str] = Counter()

    def add(self, start: Any, end: Any, text: Any) -> None:
        """Add a line, or count why it is left out. A line that begins before 0 begins at 0."""
        if not (_is_number(start) and _is_number(end)):
            self.leave_out("unreadable")
        elif end < start or end < 0:
            self.leave_out("backwards")
        elif not isinstance(text, str) or not (plain := plain_text(text)):
            self.leave_out("empty")
        else:
            self._lines.append(TimedLine(max(0.0, float(start)), float(end), plain))

    def leave_out(self, reason: str, count: int = 1) -> None:
        """Count lines that are left out."""
        if count > 0:
            self._left_out[reason] += count

    def done(self) -> TimedText:
        """All lines, sorted by start, then by end; equal times stay in the order of the file."""
        ordered = sorted(self._lines, key=lambda line: (line.start_seconds, line.end_seconds))
        return TimedText(tuple(ordered), dict(self._left_out))


def plain_text(text: str, *, resolve: bool = True) -> str:
    """A text in one line, at most `MAX_LINE_CHARACTERS` long and in Unicode's form NFC.

    White space is joined, and what cannot be shown (control characters, halves of surrogate pairs) is left
    out. With `resolve`, entities such as &amp; are resolved.
    """
    plain = html.unescape(text) if resolve else text
    if not plain.isprintable():
        plain = "".join(c if unicodedata.category(c) not in _NOT_SHOWN else " " for c in plain)
    plain = unicodedata.normalize("NFC", " ".join(plain.split()))
    return plain if len(plain) <= MAX_LINE_CHARACTERS else plain[: MAX_LINE_CHARACTERS - 1] + "…"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
