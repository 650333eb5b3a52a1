"""Timed text of videos: subtitles and speech transcripts, by one interface.

`open_timed_texts` opens a folder of subtitle files, TVR's subtitles or HowTo100M's transcripts.
"""

from model.data.timed_text.lines import TimedLine, TimedText
from model.data.timed_text.opening import TimedTexts, open_timed_texts
from model.data.timed_text.subtitles import SUBTITLE_EXTENSIONS, read_subtitles
from model.data.timed_text.transcripts import read_transcripts, read_tvr_subtitles

__all__ = [
    "SUBTITLE_EXTENSIONS",
    "TimedLine",
    "TimedText",
    "TimedTexts",
    "open_timed_texts",
    "read_subtitles",
    "read_transcripts",
    "read_tvr_subtitles",
]
