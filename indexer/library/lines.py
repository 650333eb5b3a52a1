"""Finds lines of text in a snapshot: by their words, and by their times."""

import re
import threading
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
from lance.query import MatchQuery
from numpy.typing import NDArray

from indexer.library.catalog import VideoCatalog
from indexer.library.checksums import CHECKSUMS, stored_checksums
from indexer.library.errors import (
    REPAIR_REMEDY,
    VERIFY_REMEDY,
    DamagedRowsError,
    LibraryError,
    storage_errors,
)
from indexer.library.lance_tables import reading
from indexer.library.records import TextLine
from indexer.library.schema import FORMER_ID, LINE_KINDS, TEXTS_INGEST, LineKind, line_checksums
from indexer.library.tables import table_path
from indexer.library.words import has_words

#: Words of a query that are searched for, and characters of scripts without spaces. A word that comes again
#: and again would take seconds.
_MOST_WORDS = 64
#: Letters and digits with the marks that belong to them: in Python, vowel signs are no letters.
_WORD = re.compile(
    r"(?:[^\W_]|[\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u05bf\u05c1-\u05c7\u0610-\u061a\u064b-\u065f\u0670"
    r"\u06d6-\u06ed\u0900-\u0963\u0966-\u0df3\u0e31-\u0e4e\u0eb1-\u0ece\u0f35-\u0fbc\u102b-\u103e\u17b4-\u17d3"
    r"\u200c\u200d])+"
)
#: Scripts that put no spaces between words: what is found of them is marked by pairs of characters.
_UNSPACED = re.compile(r"[぀-ヿ㐀-䶿一-鿿豈-﫿฀-๿຀-໿ក-៿က-႟\U00020000-\U0003ffff]+")
#: With more lines than this, their words are not listed: reading them would take a second and more.
_MOST_LISTED = 20_000
_VALUES = ("kind", "start_seconds", "end_seconds", "language", "text")
#: Where only lines of some videos count, this many times as many are read.
_OVER_FETCH = 8


class SnapshotLines:
    """The lines of one version of `texts`. Many threads may use it at once.

    Args:
        folder: holds the tables.
        texts: the table; None: the library has none, and no line is found.
        videos: the snapshot's videos.
    """

    def __init__(self, folder: Path, texts: lance.LanceDataset | None, videos: VideoCatalog) -> None:
        self._where = table_path(folder, "texts")
        self._texts = texts
        former = [] if texts is None or FORMER_ID not in texts.schema.names else [FORMER_ID]
        self._columns = [*former, "ingest_id", *_VALUES, CHECKSUMS]
        self._videos = videos
        self._lock = threading.Lock()
        self._runs: _Runs | None = None
        self._is_indexed: bool | None = None
        # All words of the lines; empty where there are too many lines, None before they are needed.
        self._words: frozenset[str] | None = None
        #: Why words cannot be searched; None: they can.
        self.damage: str | None = None

    def find(
        self,
        text: str,
        limit: int,
        kinds: Collection[LineKind] | None,
        least_coverage: float,
        videos: NDArray[np.bool_] | None,
    ) -> list[TextLine]:
        """See `Snapshot.find_lines`."""
        for kind in kinds or ():
            if kind not in LINE_KINDS:
                raise ValueError(f"kind {kind!r} of a line: it must be one of {', '.join(LINE_KINDS)}")
        query = QueryWords(text)
        if self._texts is None or limit < 1 or not query.text or (kinds is not None and not kinds):
            return []
        if self.damage is not None:
            raise LibraryError(f"{self.damage}; `reelfind index` makes the index of words again")
        if not self._may_cover(query, least_coverage):
            return []
        only = None if kinds is None else f"kind IN ({', '.join(repr(kind) for kind in kinds)})"
        with reading(), storage_errors(self._where):
            if self._is_indexed is None:
                self._is_indexed = has_words(self._texts)
            if not self._is_indexed:
                return []
            if videos is None:
                table = self._best_lines(self._texts, query, limit, only)
            else:
                table = self._best_lines_of(self._texts, query, limit, only, videos)
        scores = table["_score"].to_pylist()
        order = sorted(range(len(scores)), key=lambda i: (-scores[i], table["_rowid"][i].as_py()))
        lines = self._lines(table, [score or 0.0 for score in scores], query)
        return [lines[i] for i in order if lines[i].coverage >= least_coverage]

    def _best_lines(
        self, texts: lance.LanceDataset, query: "QueryWords", limit: int, only: str | None
    ) -> pa.Table:
        """The rows with the highest scores, in any order."""
        return texts.scanner(
            columns=[*self._columns, "_score", "_rowid"],
            full_text_query=MatchQuery(query.text, "text"),
            filter=only,
            prefilter=only is not None,
            limit=limit,
            disable_scoring_autoprojection=True,
        ).to_table()

    def _best_lines_of(
        self,
        texts: lance.LanceDataset,
        query: "QueryWords",
        limit: int,
        only: str | None,
        videos: NDArray[np.bool_],
    ) -> pa.Table:
        """The same of some videos.

        Lance would look up each of a long list of videos for each line, which takes longer than to read more
        lines than are needed.
        """
        fetched = limit * _OVER_FETCH
        while True:
            table = self._best_lines(texts, query, fetched, only)
            owners = self._videos.rows_of_ingests(table["ingest_id"].combine_chunks(), TEXTS_INGEST)
            wanted = np.flatnonzero((owners >= 0) & videos[owners])
            if len(wanted) >= limit or table.num_rows < fetched:
                found = table.take(wanted)
                return found.sort_by([("_score", "descending"), ("_rowid", "ascending")]).slice(0, limit)
            fetched *= _OVER_FETCH

    def counts(self) -> dict[LineKind, int]:
        """See `Snapshot.line_counts`."""
        found: dict[str, int] = {}
        if self._texts is not None:
            with reading(), storage_errors(self._where):
                for batch in self._texts.to_batches(columns=["kind"]):
                    for each in batch["kind"].value_counts().to_pylist():
                        found[each["values"]] = found.get(each["values"], 0) + each["counts"]
        return {kind: found.get(kind, 0) for kind in LINE_KINDS}

    def _may_cover(self, query: "QueryWords", least_coverage: float) -> bool:
        """Whether the words of all lines together have so much of the query; True where that is not known.

        Most queries have no word of a library's names: then the index need not be asked, which takes longer.
        """
        if not least_coverage or query.is_unspaced or self._texts is None:
            return True
        with self._lock:
            if self._words is None:
                with reading(), storage_errors(self._where):
                    few = self._texts.count_rows() <= _MOST_LISTED
                    self._words = _words_of(self._texts) if few else frozenset()
        return not self._words or query.share_of(self._words) >= least_coverage

    def between(self, video_id: str, start_seconds: float, end_seconds: float, text: str) -> list[TextLine]:
        """See `Snapshot.lines_between`."""
        video_row = self._videos.row_of(video_id)
        if self._texts is None or video_row is None:
            return []
        with self._lock:
            if self._runs is None:
                with reading(), storage_errors(self._where):
                    self._runs = _Runs(self._texts, self._videos)
        rows = self._runs.rows_of(video_row)
        with reading(), storage_errors(self._where):
            times = self._texts.take(rows, columns=["start_seconds", "end_seconds"])
            starts, ends = (column.to_numpy() for column in times.columns)
            places = np.flatnonzero((ends >= start_seconds) & (starts <= end_seconds))
            if not len(places):
                return []
            table = self._texts.take([rows[place] for place in places.tolist()], columns=self._columns)
        lines = self._lines(table, [0.0] * table.num_rows, QueryWords(text))
        return sorted(lines, key=lambda line: (line.start_seconds, line.end_seconds))

    def _lines(self, table: pa.Table, scores: Sequence[float], query: "QueryWords") -> list[TextLine]:
        """Rows as lines, compared with their checksums, with what they have of a query."""
        with storage_errors(self._where):
            stored = stored_checksums("texts", table[CHECKSUMS], "row")
            wrong = [
                i
                for i, (expected, actual) in enumerate(zip(stored, line_checksums(table), strict=True))
                if expected is not None and expected != actual
            ]
            owners = self._videos.rows_of_ingests(table["ingest_id"].combine_chunks(), TEXTS_INGEST)
            video_ids = [None if row < 0 else self._videos.id_at(row) for row in owners.tolist()]
            if wrong:
                video = video_ids[wrong[0]] or "that is not in the table of videos"
                raise DamagedRowsError(
                    f"{self._where} is damaged: a line of video {video} differs from its checksum; "
                    f"{REPAIR_REMEDY}",
                    np.array(wrong, np.int64),
                )
            columns = (table[name].to_pylist() for name in _VALUES)
            lines = []
            for video_id, row, score in zip(video_ids, zip(*columns, strict=True), scores, strict=True):
                if video_id is None:
                    raise LibraryError(f"{self._where} holds lines without a video; {VERIFY_REMEDY}")
                kind, start, end, language, text = row
                matches = query.matches(text)
                coverage = query.coverage(text, matches)
                lines.append(TextLine(video_id, kind, start, end, language, text, score, matches, coverage))
            return lines


def _words_of(texts: lance.LanceDataset) -> frozenset[str]:
    """All words of a table's lines, as they are compared."""
    return frozenset(
        _folded(match[0])
        for batch in texts.to_batches(columns=["text"])
        for text in batch["text"].to_pylist()
        for match in _WORD.finditer(unicodedata.normalize("NFC", text))
    )


class _Runs:
    """Where the lines of each video are: they stand together, or in a few places."""

    def __init__(self, texts: lance.LanceDataset, videos: VideoCatalog) -> None:
        firsts, stops, owners = [], [], []
        row = 0
        for batch in texts.to_batches(columns=["ingest_id"]):
            owner = videos.rows_of_ingests(batch["ingest_id"], TEXTS_INGEST)
            starts = np.flatnonzero(np.diff(owner, prepend=-2))
            firsts.append(row + starts)
            stops.append(row + np.append(starts[1:], len(owner)))
            owners.append(owner[starts])
            row += batch.num_rows
        self._owners = np.concatenate([np.empty(0, np.int32), *owners])
        order = np.argsort(self._owners, kind="stable")
        self._owners = self._owners[order]
        self._firsts: NDArray[np.int64] = np.concatenate([np.empty(0, np.int64), *firsts])[order]
        self._stops: NDArray[np.int64] = np.concatenate([np.empty(0, np.int64), *stops])[order]

    def rows_of(self, video_row: int) -> list[int]:
        """The rows of a video's lines, ascending."""
        first, stop = np.searchsorted(self._owners, [video_row, video_row + 1])
        runs = zip(self._firsts[first:stop].tolist(), self._stops[first:stop].tolist(), strict=True)
        return [row for run in runs for row in range(*run)]


@dataclass(frozen=True)
class QueryWords:
    """A query as it is searched for: any string, of which the first `_MOST_WORDS` different words count."""

    given: str

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Its different words, as they were given."""
        kept: dict[str, str] = {}
        left = _MOST_WORDS
        normal = unicodedata.normalize("NFC", self.given[: _MOST_WORDS * 64])
        for match in _WORD.finditer(normal):
            key = _folded(match[0])
            cost = max(1, sum(len(run) for run in _UNSPACED.findall(match[0])))
            if key in kept or left <= 0:
                continue
            kept[key] = match[0][:left] if cost > 1 else match[0]
            left -= cost
        return tuple(kept.values())

    @property
    def text(self) -> str:
        """The text to search for; empty where no word is in it."""
        return " ".join(self.words)

    @cached_property
    def _keys(self) -> tuple[frozenset[str], frozenset[str]]:
        """Its words with spaces around them, and the pairs of characters of the others, or single ones."""
        words = frozenset(_folded(word) for word in self.words)
        runs = [run for word in self.words for run in _UNSPACED.findall(word)]
        pairs = {run[i : i + 2] for run in runs for i in range(max(1, len(run) - 1))}
        return words, frozenset(pairs)

    @property
    def is_unspaced(self) -> bool:
        """Whether a script is in it that puts no spaces between words."""
        return any(_UNSPACED.search(word) for word in self.words)

    @property
    def weights(self) -> dict[str, int]:
        """What of `match_keys` it has, and how many of its letters each counts for."""
        words, pairs = self._keys
        letters = dict.fromkeys(pairs - words, 1)
        return letters | {_folded(word): len(word) for word in self.words}

    def share_of(self, words: Collection[str]) -> float:
        """The share of the query's letters that are in words of a collection, from 0 to 1."""
        total = sum(len(word) for word in self.words)
        return sum(len(word) for word in self.words if _folded(word) in words) / total if total else 0.0

    def coverage(self, text: str, matches: Iterable[tuple[int, int]] | None = None) -> float:
        """The share of the query's letters that are in words of a text, each word once, from 0 to 1.

        `matches` are those of the text, where they are known.
        """
        total = sum(len(word) for word in self.words)
        if not total:
            return 0.0
        words = {_folded(word): len(word) for word in self.words}
        ranges = self.matches(text) if matches is None else matches
        matched = {_folded(text[start:stop]) for start, stop in ranges}
        whole = sum(words[each] for each in matched & words.keys())
        # Of scripts without spaces, parts of words match.
        parts = sum(len(each) for each in matched - words.keys())
        return min(1.0, (whole + parts) / total)

    def matches(self, text: str) -> tuple[tuple[int, int], ...]:
        """The ranges [start, end) of characters of a text that the query's words match, in order."""
        words, pairs = self._keys
        found = []
        for match in _WORD.finditer(text):
            if _folded(match[0]) in words:
                found.append(match.span())
            elif pairs:
                found += _pair_ranges(match[0], match.start(), pairs)
        return tuple(found)


def match_keys(text: str) -> frozenset[str]:
    """All that a query can match in a text: its words as they are compared, and of scripts without spaces
    single characters and pairs of them.
    """
    words = [match[0] for match in _WORD.finditer(text)]
    unspaced = [word for word in words if _UNSPACED.search(word)]
    parts = {word[i : i + size] for word in unspaced for size in (1, 2) for i in range(len(word))}
    return frozenset(_folded(word) for word in words) | parts


def _pair_ranges(word: str, start: int, pairs: frozenset[str]) -> Iterable[tuple[int, int]]:
    """The ranges of a word without spaces that are made of pairs, or single characters, of a query."""
    marked = [False] * len(word)
    for i, character in enumerate(word):
        if word[i : i + 2] in pairs:
            marked[i : i + 2] = [True] * len(word[i : i + 2])
        elif character in pairs:
            marked[i] = True
    edges = [i for i in range(len(word) + 1) if (i < len(word) and marked[i]) != (i > 0 and marked[i - 1])]
    return [(start + a, start + b) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _folded(word: str) -> str:
    """A word without case and accents, as the index compares it."""
    decomposed = unicodedata.normalize("NFKD", word.casefold())
    return "".join(c for c in decomposed if not unicodedata.combining(c) or not _is_latin_mark(c))


def _is_latin_mark(character: str) -> bool:
    return "̀" <= character <= "ͯ"
