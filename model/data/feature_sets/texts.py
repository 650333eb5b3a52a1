"""The timed text of a set of videos, and the account of what was wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from model.data.timed_text import TimedTexts, open_timed_texts
from model.progress import Report
from model.runtime.errors import InputError
from model.runtime.timed_text import TimedText
from model.settings import DataConfig

_NAMED = 5


class SetTexts:
    """The timed text of the videos of a set.

    Args:
        data: `subtitles` and `allow_missing` of the settings.
        wanted: whether a video is needed, by its name.

    Raises:
        InputError: the subtitles are missing or malformed.
    """

    def __init__(self, data: DataConfig, wanted: Callable[[str], bool]) -> None:
        self._allow_missing = data.allow_missing
        self._texts: TimedTexts | None = None
        if data.subtitles:
            self._texts = open_timed_texts(Path(data.subtitles), wanted)
        self._seen: set[str] = set()
        self._left_out: Counter[str] = Counter()
        self._broken: list[str] = []
        self._without = 0
        # The clips of one video follow each other.
        self._last: tuple[str, TimedText | None] = ("", None)

    def of(self, *names: str) -> tuple[str, TimedText]:
        """The first of some names for which there is text, and that text; or the first name, without lines.

        Raises:
            InputError: a file cannot be read, and `data.allow_missing` is false.
        """
        for name in names:
            text = self._get(name)
            if text is not None:
                return name, text
        if self._texts is not None:
            self._without += 1
        return names[0], TimedText()

    def _get(self, name: str) -> TimedText | None:
        if self._texts is None:
            return None
        if name == self._last[0]:
            return self._last[1]
        try:
            text = self._texts.get(name)
        except InputError as error:
            if not self._allow_missing:
                raise InputError(f"{error}, or set data.allow_missing=true") from error
            text = None
            if name not in self._seen:
                self._broken.append(str(error))
        if text is not None and name not in self._seen:
            self._left_out.update(text.left_out)
        self._seen.add(name)
        self._last = (name, text)
        return text

    def report(self, name: str, report: Report) -> None:
        """Report what was left out, with the name of the split."""
        if self._left_out:
            what = ", ".join(f"{count} {reason}" for reason, count in sorted(self._left_out.items()))
            report(f"{name}: lines of timed text that are left out: {what}")
        if self._without:
            report(f"{name}: {self._without} without timed text")
        for message in self._broken[:_NAMED]:
            report(f"{name}: {message}")
        if len(self._broken) > _NAMED:
            report(f"{name}: {len(self._broken)} files of timed text in all cannot be read")
