"""Opens the timed text of a data set, whatever its form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from model.data.datasets.files import MediaFolder, plain_names
from model.data.timed_text.transcripts import read_transcripts, read_tvr_subtitles
from model.runtime.errors import InputError
from model.runtime.timed_text import SUBTITLE_EXTENSIONS, TimedText
from model.runtime.timed_text.subtitles import read_subtitles

#: What stands between a video's name and the extension in the names of downloaded subtitles. FEEL leaves out
#: other languages.
_ENGLISH = ("", ".en", ".en-US", ".en-GB", ".en-orig")


class TimedTexts(Protocol):
    """The timed text of videos, by the videos' names. Safe to use from several threads."""

    def get(self, video_id: str) -> TimedText | None:
        """The lines of a video; None where there is no text for it.

        Raises:
            InputError: its file cannot be read.
        """


def open_timed_texts(path: Path, wanted: Callable[[str], bool] = lambda _: True) -> TimedTexts:
    """Open a folder of subtitle files, TVR's subtitles (.jsonl) or HowTo100M's transcripts (.json).

    Args:
        path: the folder or file.
        wanted: whether a video is needed, by its name; others may be left out.

    Raises:
        InputError: there is no such folder or file, or it is malformed.
    """
    if path.is_dir():
        return _SubtitleFolder(path)
    if not path.is_file():
        raise InputError(f"data.subtitles={path} does not exist: set it to a folder of subtitles, or a file")
    if path.suffix == ".jsonl":
        return _Read(read_tvr_subtitles(path))
    if path.suffix == ".json":
        return _Read(read_transcripts(path, wanted))
    raise InputError(
        f"data.subtitles={path} is of no known kind: set it to a folder of {', '.join(SUBTITLE_EXTENSIONS)} "
        "files, to TVR's subtitles (.jsonl) or to HowTo100M's transcripts (.json)"
    )


class _Read:
    """Timed text that is in memory."""

    def __init__(self, texts: Mapping[str, TimedText]) -> None:
        self._texts = texts

    def get(self, video_id: str) -> TimedText | None:
        found = (self._texts.get(name) for name in plain_names(video_id))
        return next((text for text in found if text is not None), None)


class _SubtitleFolder:
    """A subtitle file for each video, `NAME.srt` or `NAME.en.vtt`, in a folder or below."""

    def __init__(self, path: Path) -> None:
        self._folder = MediaFolder(path, SUBTITLE_EXTENSIONS, "data.subtitles")

    def get(self, video_id: str) -> TimedText | None:
        for name in plain_names(video_id):
            for language in _ENGLISH:
                path = self._folder.find(name + language)
                if path is not None:
                    return read_subtitles(path)
        return None
