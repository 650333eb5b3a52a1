"""Joins what is read in the pictures of a video into lines of text with times.

A text is followed from picture to picture, wherever it moves. Two readings are the same text when their
letters and digits are: one of six letters may be misread, digits may not, except in clocks. A text that grows
in its place is one text. What is read most often is taken as the text. Rows that stand together and come and
go together are one line, as the rows of a subtitle are.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from heapq import nsmallest

from indexer.library.schema import LineRow
from indexer.stages.screen_reading import Reading, in_reading_order
from model.runtime.timed_text import plain_text

#: A line lasts half the way to the pictures before and after it, and no further than this.
_STRETCH_SECONDS = 1.0
#: A text that is missing in one picture, no longer than this after it was read, has only been missed.
_MISSED_SECONDS = 5.0
#: One of so many letters may differ.
_LETTERS_PER_ERROR = 6
#: Of clocks and counters, which are mostly digits: a running clock is one text.
_LETTERS_PER_CLOCK_ERROR = 3
#: Texts with fewer letters grow into no other: they are in too many words.
_LEAST_GROWING = 4
#: A text that was read in one picture alone needs this confidence.
_LEAST_SINGLE_SCORE = 0.8
#: Of texts with other letters, only so many of the nearest are compared: all take too long on full pages.
_NEAREST = 10
#: Ways to read a text that are remembered; those with the fewest votes are forgotten.
_MOST_WAYS = 16
#: Rows of text of one video, at most: an hour of credits has a twentieth of it.
MAX_ROWS = 100_000
#: Rows are joined until a line is so long: longer than any subtitle, and a paragraph.
_JOINED_CHARACTERS = 500


@dataclass
class _Followed:
    """A text that is followed from picture to picture.

    Attributes:
        first_picture: the number of the first picture that shows it.
        last_picture: of the last one.
        start_seconds: when it begins.
        last_seconds: the time of the last picture that shows it.
        next_seconds: the time of the picture after that; None: there is none yet.
        first: its first reading.
        last: its last reading.
        key: its letters, as they were read last.
        voted: its letters, as they were read most often.
        votes: how much speaks for each way to read it.
    """

    first_picture: int
    last_picture: int
    start_seconds: float
    last_seconds: float
    next_seconds: float | None
    first: Reading
    last: Reading
    key: str
    voted: str
    votes: dict[str, float] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """How it was read most often. Of equally frequent ways, the one with the most words."""
        return max(
            (text for text in self.votes if letters_of(text) == self.voted),
            key=lambda text: (round(self.votes[text], 3), len(text.split()), text),
        )

    def vote(self, reading: Reading) -> None:
        """Let a reading count, by its confidence."""
        self.votes[reading.text] = self.votes.get(reading.text, 0.0) + reading.score
        if len(self.votes) > _MOST_WAYS:
            del self.votes[min(self.votes, key=lambda text: (self.votes[text], text == reading.text))]
        by_letters: dict[str, float] = {}
        for text, weight in self.votes.items():
            by_letters[letters_of(text)] = by_letters.get(letters_of(text), 0.0) + weight
        self.voted = max(by_letters, key=lambda letters: by_letters[letters])


class ScreenLines:
    """Collects the readings of one video's pictures. What it keeps grows with the lines, not the pictures.

    Attributes:
        left_out: how many rows of text came after the first `MAX_ROWS`, and are not kept.
    """

    def __init__(self) -> None:
        self.left_out = 0
        self._shown: list[_Followed] = []
        self._ended: list[_Followed] = []
        self._pictures = 0
        self._last_seconds = 0.0

    def add(self, pts_seconds: float, readings: Sequence[Reading]) -> None:
        """Add what is written in the next picture.

        Args:
            pts_seconds: its time, after that of the picture before.
            readings: its rows of text, in reading order.
        """
        before = self._last_seconds if self._pictures else 0.0
        # The first picture is about a step after the beginning, and stands for all before it.
        gap = pts_seconds - before if not self._pictures else (pts_seconds - before) / 2
        start = max(0.0, pts_seconds - min(gap, _STRETCH_SECONDS))
        for followed in self._shown:
            if followed.next_seconds is None:
                followed.next_seconds = pts_seconds
        self._end_missed(pts_seconds)
        for known, reading in self._assigned(once_each(readings)):
            if known is None:
                self._shown.append(self._following(start, pts_seconds, reading))
            else:
                _see(known, self._pictures, pts_seconds, reading)
        self._pictures += 1
        self._last_seconds = pts_seconds

    def done(self, end_seconds: float) -> list[LineRow]:
        """All lines in the order of their times; those that begin together are in reading order.

        Args:
            end_seconds: when the video ends: as far as the last picture counts.
        """
        for each in self._shown:
            self._end(each)
        ended = {id(each.first): each for each in self._ended}
        self._shown, self._ended = [], []
        together: dict[tuple[int, int], list[Reading]] = {}
        for each in ended.values():
            together.setdefault((each.first_picture, each.last_picture), []).append(each.first)
        lines = []
        for (picture, _), firsts in together.items():
            for rows in joined_rows(firsts):
                block = [ended[id(row)] for row in rows]
                text = plain_text(" ".join(each.text for each in block), resolve=False)
                start = block[0].start_seconds
                end = max(start, _end_of(block[0], end_seconds))
                lines.append(((start, picture, rows[0].top, rows[0].left), text, end))
        return [LineRow("screen", key[0], end, None, text) for key, text, end in sorted(lines)]

    def _following(self, start_seconds: float, pts_seconds: float, reading: Reading) -> _Followed:
        followed = _Followed(
            first_picture=self._pictures,
            last_picture=self._pictures,
            start_seconds=start_seconds,
            last_seconds=pts_seconds,
            next_seconds=None,
            first=reading,
            last=reading,
            key=letters_of(reading.text),
            voted=letters_of(reading.text),
        )
        followed.vote(reading)
        return followed

    def _end_missed(self, pts_seconds: float) -> None:
        """End the texts that the picture before did not show either, or that were read too long ago."""
        shown: list[_Followed] = []
        for each in self._shown:
            missed = self._pictures - 1 - each.last_picture
            # What the picture before showed may be in this one, however far it is.
            is_over = missed > 1 or (missed == 1 and pts_seconds - each.last_seconds > _MISSED_SECONDS)
            if is_over:
                self._end(each)
            else:
                shown.append(each)
        self._shown = shown

    def _end(self, followed: _Followed) -> None:
        """Keep a text that will not be seen again, if it is sure enough."""
        if _is_sure(followed):
            if len(self._ended) < MAX_ROWS:
                self._ended.append(followed)
            else:
                self.left_out += 1

    def _assigned(self, readings: Sequence[Reading]) -> list[tuple[_Followed | None, Reading]]:
        """For each reading, the text of the pictures before that it is; None: a new one.

        Texts that are read alike come first, wherever they are; then, of the nearest ones, those that differ
        least.
        """
        found: dict[int, int] = {}
        taken: set[int] = set()
        places: dict[str, list[int]] = {}
        for place, followed in enumerate(self._shown):
            places.setdefault(followed.key, []).append(place)
        keys = [letters_of(reading.text) for reading in readings]
        for number, key in enumerate(keys):
            alike = places.get(key)
            if alike:
                found[number] = alike.pop(0)
                taken.add(found[number])
        candidates = []
        left = [place for place in range(len(self._shown)) if place not in taken]
        for number, reading in enumerate(readings):
            if number not in found:
                nearest = nsmallest(
                    _NEAREST, ((_distance(self._shown[place], reading), place) for place in left)
                )
                for distance, place in nearest:
                    difference = _difference(self._shown[place], keys[number], reading)
                    if difference is not None:
                        candidates.append((difference, distance, place, number))
        for _, _, place, number in sorted(candidates):
            if number not in found and place not in taken:
                found[number] = place
                taken.add(place)
        return [
            (self._shown[found[number]] if number in found else None, reading)
            for number, reading in enumerate(readings)
        ]


def letters_of(text: str) -> str:
    """The letters and digits of a text without case: what is compared."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c for c in folded if unicodedata.category(c)[0] in "LN")


def same_text(one: str, other: str) -> int | None:
    """How many letters two texts differ by, if so few that they are the same text; else None.

    Args:
        one: the letters of a text, see `letters_of`.
        other: those of the other.
    """
    if one == other:
        return 0
    longer = max(len(one), len(other))
    digits = [c for c in one if c.isdigit()]
    if len(digits) > len(one) / 2:
        most = longer // _LETTERS_PER_CLOCK_ERROR
    else:
        most = longer // _LETTERS_PER_ERROR
        if not most or abs(len(one) - len(other)) > most or digits != [c for c in other if c.isdigit()]:
            return None
    return edit_distance(one, other, most)


def edit_distance(one: str, other: str, most: int) -> int | None:
    """How many letters to replace, add or leave out to make one text of the other; None: more than `most`."""
    if abs(len(one) - len(other)) > most:
        return None
    # Each edit changes at most three of a text's trigrams. Most texts that differ are told apart by that.
    ours, theirs = _trigrams(one), _trigrams(other)
    if len(ours & theirs) < max(len(ours), len(theirs)) - 3 * most:
        return None
    above = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        row = [i]
        for j, opposite in enumerate(other, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (letter != opposite)))
        if min(row) > most:
            return None
        above = row
    return above[-1] if above[-1] <= most else None


@lru_cache(2000)
def _trigrams(text: str) -> frozenset[str]:
    return frozenset(text[i : i + 3] for i in range(len(text) - 2))


def once_each(readings: Iterable[Reading]) -> list[Reading]:
    """The readings without those whose text is in the picture before them, as on a wall of logos."""
    first: dict[str, Reading] = {}
    for reading in readings:
        first.setdefault(letters_of(reading.text), reading)
    return list(first.values())


def joined_rows(rows: Sequence[Reading]) -> list[list[Reading]]:
    """Rows of one picture in reading order, those of one block of text together."""
    blocks: list[list[Reading]] = []
    for row in in_reading_order(list(rows)):
        block = next((each for each in reversed(blocks) if _is_below(row, each[-1])), None)
        if block is None or sum(len(each.text) + 1 for each in block) + len(row.text) > _JOINED_CHARACTERS:
            blocks.append([row])
        else:
            block.append(row)
    return blocks


def _is_below(row: Reading, above: Reading) -> bool:
    """Whether a row of text continues the one above it: as high, near, and aligned with it."""
    height = min(row.height, above.height)
    aligned = min(abs(row.left - above.left), abs(row.left + row.right - above.left - above.right) / 2)
    return (
        max(row.height, above.height) <= 1.6 * height
        and -height / 2 <= row.top - above.bottom <= 0.7 * height
        and row.top > above.top
        and aligned <= height
    )


def _difference(followed: _Followed, key: str, reading: Reading) -> int | None:
    """How much a reading differs from a text that was shown before; None: it is another text."""
    difference = same_text(followed.voted, key)
    if difference is None:
        difference = same_text(followed.key, key)
    if difference is None and _grows(followed, key, reading):
        # After all that are merely misread.
        return max(len(followed.key), len(key))
    return difference


def _distance(followed: _Followed, reading: Reading) -> float:
    """How far a text would have moved, in pixels down and across."""
    return abs(followed.last.top - reading.top) + abs(followed.last.left - reading.left)


def _grows(followed: _Followed, key: str, reading: Reading) -> bool:
    """Whether a text has grown or shrunk in its place, as titles do that are typed, or slide in."""
    short, long = sorted((followed.key, key), key=len)
    middle, last = (reading.top + reading.bottom) / 2, followed.last
    in_row = last.top < middle < last.bottom and reading.left < last.right and last.left < reading.right
    return len(short) >= _LEAST_GROWING and short in long and in_row


def _see(followed: _Followed, picture: int, pts_seconds: float, reading: Reading) -> None:
    """Note that a picture shows a text."""
    key = letters_of(reading.text)
    followed.last_picture, followed.last_seconds, followed.next_seconds = picture, pts_seconds, None
    followed.last = reading
    if same_text(followed.voted, key) is None and same_text(followed.key, key) is None:
        if len(key) < len(followed.key):
            # A part of it: what was read of the whole counts.
            return
        followed.votes.clear()
    followed.key = key
    followed.vote(reading)


def _end_of(followed: _Followed, end_seconds: float) -> float:
    """When a text ends: half the way to the next picture, or at the video's end."""
    if followed.next_seconds is None:
        return max(followed.last_seconds, end_seconds)
    gap = followed.next_seconds - followed.last_seconds
    return followed.next_seconds - min(gap / 2, _STRETCH_SECONDS)


def _is_sure(followed: _Followed) -> bool:
    """Whether a text was read in several pictures, or with much confidence."""
    return followed.first_picture != followed.last_picture or followed.first.score >= _LEAST_SINGLE_SCORE
