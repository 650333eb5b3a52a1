"""Timed text of a data set's videos: subtitles and speech transcripts, by one interface.

`open_timed_texts` opens a folder of subtitle files, TVR's subtitles or HowTo100M's transcripts. What is read
are the lines of `model.runtime.timed_text`, which reads subtitle files.
"""

from model.data.timed_text.opening import TimedTexts, open_timed_texts
from model.data.timed_text.transcripts import read_transcripts, read_tvr_subtitles

__all__ = [
    "TimedTexts",
    "open_timed_texts",
    "read_transcripts",
    "read_tvr_subtitles",
]
