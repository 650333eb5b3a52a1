"""Timed text of videos: what is said and written in them, as lines with times.

Training and indexing read the same subtitle files with `model.runtime.timed_text.subtitles`. It is imported
where files are read: it loads a parser and a detector of encodings.
"""

from model.runtime.timed_text.lines import MAX_LINE_CHARACTERS, Lines, TimedLine, TimedText, plain_text
from model.runtime.timed_text.names import name_lines
from model.runtime.timed_text.sidecars import SUBTITLE_EXTENSIONS, language_code, subtitle_language

__all__ = [
    "MAX_LINE_CHARACTERS",
    "SUBTITLE_EXTENSIONS",
    "Lines",
    "TimedLine",
    "TimedText",
    "language_code",
    "name_lines",
    "plain_text",
    "subtitle_language",
]
