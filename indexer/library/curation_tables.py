"""The tables of the file that `curation.py` opens: the only module that knows their columns.

`counters` has one row: how often annotations and exclusions were changed. Each row of `annotations` has the
count of its last change, so that a reader need not read all of them again.
"""

import json
import sqlite3
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from indexer.library.annotations import NO_ANNOTATION, Annotation
from indexer.library.exclusions import Content, Exclusion, Exclusions, NewExclusion, Place

VERSION = 1
APPLICATION = int.from_bytes(b"Reel", "big")
_SCHEMA = (
    "CREATE TABLE counters (annotations INTEGER NOT NULL, exclusions INTEGER NOT NULL) STRICT",
    """CREATE TABLE annotations (
        video_id TEXT PRIMARY KEY NOT NULL, title TEXT, tags TEXT NOT NULL, note TEXT,
        updated_us INTEGER NOT NULL, change INTEGER NOT NULL
    ) STRICT""",
    "CREATE INDEX annotations_by_change ON annotations (change)",
    """CREATE TABLE exclusions (
        number INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, created_us INTEGER NOT NULL,
        reason TEXT, path BLOB UNIQUE, key TEXT UNIQUE, video_id TEXT, sha256 TEXT, bytes INTEGER
    ) STRICT""",
    """CREATE TABLE places (
        number INTEGER NOT NULL REFERENCES exclusions ON DELETE CASCADE,
        path BLOB NOT NULL, bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, PRIMARY KEY (number, path)
    ) STRICT""",
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class WrongTablesError(Exception):
    """The file has other tables than this version makes, or a row that it does not write."""


def has_tables(connection: sqlite3.Connection) -> bool:
    """Whether the tables are there; False: the file is empty.

    Raises:
        WrongTablesError: there is something else. A file may come from a stranger, and a view in place of a
            table could read for ever.
    """
    ((version,),) = connection.execute("PRAGMA user_version")
    ((application,),) = connection.execute("PRAGMA application_id")
    stored = [sql for (sql,) in connection.execute("SELECT sql FROM sqlite_schema ORDER BY rowid")]
    if not stored and not version:
        return False
    # SQLite makes indices for `UNIQUE`, which have no text, and the table for `AUTOINCREMENT`.
    own = [sql for sql in stored if sql is not None and "sqlite_sequence" not in sql]
    if (application, version) != (APPLICATION, VERSION) or own != list(_SCHEMA):
        raise WrongTablesError("it has other tables")
    return True


def create_tables(connection: sqlite3.Connection) -> None:
    """Make the tables in a file that is empty."""
    for statement in _SCHEMA:
        connection.execute(statement)
    connection.execute("INSERT INTO counters VALUES (0, 0)")
    connection.execute(f"PRAGMA application_id = {APPLICATION}")
    connection.execute(f"PRAGMA user_version = {VERSION}")


def read_counters(connection: sqlite3.Connection) -> tuple[int, int]:
    """How often annotations and exclusions were changed."""
    rows = connection.execute("SELECT annotations, exclusions FROM counters").fetchall()
    if len(rows) != 1:
        raise WrongTablesError("its counters cannot be read")
    return rows[0][0], rows[0][1]


def read_annotations(connection: sqlite3.Connection, since: int) -> dict[str, Annotation]:
    """The annotations that were changed after a count of changes, by the ids of the videos."""
    rows = connection.execute(
        "SELECT video_id, title, tags, note, updated_us FROM annotations WHERE change > ?", (since,)
    )
    return dict(map(_annotation, rows))


def read_annotation(connection: sqlite3.Connection, video_id: str) -> Annotation:
    """What is said of one video."""
    rows = connection.execute(
        "SELECT video_id, title, tags, note, updated_us FROM annotations WHERE video_id = ?", (video_id,)
    )
    return dict(map(_annotation, rows)).get(video_id, NO_ANNOTATION)


def write_annotation(connection: sqlite3.Connection, video_id: str, annotation: Annotation) -> None:
    """Say something else of a video. `updated_at` is set."""
    tags, updated = json.dumps(annotation.tags, ensure_ascii=False), annotation.updated_at or _EPOCH
    connection.execute("UPDATE counters SET annotations = annotations + 1")
    connection.execute(
        "INSERT OR REPLACE INTO annotations (video_id, title, tags, note, updated_us, change) "
        "VALUES (?, ?, ?, ?, ?, (SELECT annotations FROM counters))",
        (video_id, annotation.title, tags, annotation.note, _microseconds(updated)),
    )


def read_exclusions(connection: sqlite3.Connection) -> Exclusions:
    """All exclusions."""
    places: dict[int, list[Place]] = {}
    for number, *place in connection.execute(
        "SELECT number, path, bytes, mtime_ns FROM places ORDER BY path"
    ):
        places.setdefault(number, []).append(Place(*place))
    rows = connection.execute(
        "SELECT number, kind, created_us, reason, path, video_id, sha256, bytes FROM exclusions "
        "ORDER BY number"
    )
    items = []
    for number, kind, created, reason, path, video_id, sha256, size in rows:
        if kind not in ("excluded", "removed") or (path is None) == (video_id is None):
            raise WrongTablesError(f"exclusion {number} cannot be read")
        content = None if video_id is None else Content(video_id, sha256 or "", size or 0)
        found = tuple(places.get(number, ()))
        items.append(Exclusion(number, kind, _time(created), reason, path, content, found))
    return Exclusions(items)


def write_exclusion(connection: sqlite3.Connection, new: NewExclusion) -> None:
    """Add an exclusion, or give the one of the same path or content the new kind, reason and places."""
    content = new.content
    same, key = ("path", new.path) if content is None else ("key", content.key)
    described = (None, None, None) if content is None else (content.video_id, content.sha256, content.bytes)
    ((number,),) = connection.execute(
        f"INSERT INTO exclusions (kind, created_us, reason, {same}, video_id, sha256, bytes) "  # noqa: S608
        f"VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT ({same}) "
        "DO UPDATE SET kind = excluded.kind, reason = excluded.reason RETURNING number",
        (new.kind, _microseconds(datetime.now(UTC)), new.reason, key, *described),
    ).fetchall()
    write_places(connection, ((number, place) for place in new.places))


def write_places(connection: sqlite3.Connection, places: Iterable[tuple[int, Place]]) -> None:
    """Add places of excluded contents, by the numbers of their exclusions; where there is none, nothing."""
    connection.executemany(
        "INSERT OR REPLACE INTO places (number, path, bytes, mtime_ns) "
        "SELECT number, ?, ?, ? FROM exclusions WHERE number = ?",
        [(place.path, place.bytes, place.mtime_ns, number) for number, place in places],
    )
    _count_exclusions(connection)


def delete_exclusions(connection: sqlite3.Connection, numbers: Iterable[int]) -> None:
    """Forget exclusions with their places."""
    connection.executemany("DELETE FROM exclusions WHERE number = ?", [(number,) for number in numbers])
    _count_exclusions(connection)


def _count_exclusions(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE counters SET exclusions = exclusions + 1")


def _annotation(row: tuple[str, str | None, str, str | None, int]) -> tuple[str, Annotation]:
    """A row of `annotations`: the video's id, and what is said of it."""
    video_id, title, tags, note, updated = row
    try:
        listed = json.loads(tags)
    except (ValueError, RecursionError):
        listed = None
    if not isinstance(listed, list) or not all(isinstance(tag, str) for tag in listed):
        raise WrongTablesError(f"the annotation of video {video_id} cannot be read")
    return video_id, Annotation(title, tuple(listed), note, _time(updated))


def _microseconds(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(microseconds=1)


def _time(microseconds: int) -> datetime:
    try:
        return _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        raise WrongTablesError(f"the time {microseconds} cannot be read") from None
