"""What users say of a video: a title, tags and a note, cleaned and within bounds."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from model.runtime.errors import InputError
from model.runtime.messages import shorten

MOST_TITLE_CHARACTERS = 500
MOST_NOTE_CHARACTERS = 10_000
MOST_TAGS = 100
MOST_TAG_CHARACTERS = 100

_SPACES = re.compile(r"\s+")
#: What no text has: control characters, but for tabs and line breaks, and halves of surrogate pairs.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class Annotation:
    """What users say of one video.

    Attributes:
        title: shown in place of the title stored in the file; None: there is none.
        tags: in the order in which they were given. No two differ in case alone.
        note: None: there is none.
        updated_at: when it was last changed, in UTC; None: it never was.
    """

    title: str | None = None
    tags: tuple[str, ...] = ()
    note: str | None = None
    updated_at: datetime | None = None

    @property
    def line(self) -> str:
        """Title and tags as one line, by whose words the video is found; empty where there are none."""
        return " · ".join(filter(None, (self.title, *self.tags)))


NO_ANNOTATION = Annotation()


class TagCount(NamedTuple):
    """A tag as it is written most often, and how many videos have it."""

    tag: str
    num_videos: int


def clean_title(title: str | None) -> str | None:
    """A title in one line (NFC, without spaces around it); None where nothing is left.

    Raises:
        InputError: it is too long, or has a control character.
    """
    return _line(title or "", "title", MOST_TITLE_CHARACTERS) or None


def clean_note(note: str | None) -> str | None:
    """A note (NFC, without spaces around it, lines ended by a line feed); None where nothing is left.

    Raises:
        InputError: it is too long, or has a control character.
    """
    text = (note or "").replace("\r\n", "\n").replace("\r", "\n")
    return _within(unicodedata.normalize("NFC", text).strip(), "note", MOST_NOTE_CHARACTERS) or None


def clean_tags(tags: Sequence[str] | None) -> tuple[str, ...]:
    """Tags as `clean_title` cleans a title; of those that differ in case alone, the first.

    Raises:
        InputError: there are too many, or one is empty, too long, or has a control character.
    """
    kept: dict[str, str] = {}
    for tag in tags or ():
        text = _line(tag, "tags", MOST_TAG_CHARACTERS)
        if not text:
            raise InputError("tags has an empty tag: leave it out", field="tags")
        kept.setdefault(folded_tag(text), text)
    if len(kept) > MOST_TAGS:
        raise InputError(f"tags has {len(kept)} tags: at most {MOST_TAGS} are allowed", field="tags")
    return tuple(kept.values())


def folded_tag(tag: str) -> str:
    """A tag as it is compared with others: without case."""
    return unicodedata.normalize("NFC", tag.casefold())


def count_tags(annotations: Iterable[Annotation]) -> list[TagCount]:
    """The tags of some videos, the most frequent first, then by name."""
    spellings: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for annotation in annotations:
        for tag in annotation.tags:
            spellings[folded_tag(tag)][tag] += 1
    counts = [
        (key, min(found, key=lambda tag: (-found[tag], tag)), found.total())
        for key, found in spellings.items()
    ]
    return [TagCount(tag, count) for _, tag, count in sorted(counts, key=lambda each: (-each[2], each[0]))]


def _line(text: str, field: str, most: int) -> str:
    return _within(_SPACES.sub(" ", unicodedata.normalize("NFC", text)).strip(), field, most)


def _within(text: str, field: str, most: int) -> str:
    bad = _CONTROL.search(text)
    if bad:
        raise InputError(
            f"{field} has the control character U+{ord(bad[0]):04X} in {shorten(text)}: remove it",
            field=field,
        )
    if len(text) > most:
        raise InputError(
            f"{field} has {len(text):,} characters ({shorten(text)}): at most {most:,} are allowed",
            field=field,
        )
    return text
