"""Reads committed rows of tables as they were written, for whoever writes a library."""

from collections.abc import Collection, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import lance

from indexer.library.checksums import CHECKSUMS, stored_checksums
from indexer.library.errors import REPAIR_REMEDY, LibraryError, storage_errors
from indexer.library.records import displayable
from indexer.library.schema import (
    FileRow,
    LineKind,
    LineRow,
    VideoRow,
    has_wrong_line,
    line_rows,
    named_checksum,
)
from indexer.library.tables import table_path


def stored_videos(folder: Path, videos: lance.LanceDataset) -> dict[str, VideoRow]:
    """All rows of `videos`, by the ids of the videos.

    Args:
        folder: holds the tables.
        videos: the table. It may lack columns, because it was made before there were any.

    Raises:
        LibraryError: the table cannot be read, or a row is damaged: a wrong value would be acted on.
    """
    names = [f.name for f in fields(VideoRow)]
    rows = checked_rows(folder, "videos", videos, names)
    return {row["video_id"]: VideoRow(**row) for row in rows}


def stored_files(folder: Path, files: lance.LanceDataset) -> dict[bytes, FileRow]:
    """All rows of `files`, by their paths. For arguments and errors, see `stored_videos`."""
    rows = checked_rows(folder, "files", files, [f.name for f in fields(FileRow)])
    return {row["path"]: FileRow(**row) for row in rows}


def shown_places(files: lance.LanceDataset) -> dict[str, str]:
    """A path of each video, as it is shown, by the ids of the videos: the first in the order of paths."""
    rows = files.to_table(columns=["path", "video_id"]).sort_by([("path", "descending")]).to_pylist()
    return {row["video_id"]: displayable(row["path"]) for row in rows}


def checked_rows(
    folder: Path, name: str, dataset: lance.LanceDataset, columns: Collection[str]
) -> Iterator[dict[str, Any]]:
    """The rows of `videos` or `files`, with those of some columns that the table has.

    Raises:
        LibraryError: the table cannot be read, or a row is damaged.
    """
    where = table_path(folder, name)
    with storage_errors(where):
        table = dataset.to_table()
    rows = table.to_pylist()
    stored: list[int | None] = [None] * len(rows)
    if CHECKSUMS in table.column_names:
        stored = stored_checksums(name, table[CHECKSUMS], "row")
    for row, checksum in zip(rows, stored, strict=True):
        if checksum is not None and checksum != named_checksum(row):
            which = displayable(row["path"]) if "path" in row else f"video {row['video_id']}"
            raise LibraryError(f"{where} is damaged: the row of {which}; {REPAIR_REMEDY}")
        yield {column: row[column] for column in columns if column in row}


def stored_lines(
    folder: Path, texts: lance.LanceDataset, video: VideoRow, kinds: Collection[LineKind]
) -> list[LineRow]:
    """The committed lines of a video that are of some kinds.

    Args:
        folder: holds the tables.
        texts: the table.
        video: the video's row, which names the lines.
        kinds: the kinds.

    Raises:
        LibraryError: the table cannot be read, or one of the lines is damaged.
    """
    if not kinds:
        return []
    lines = stored_lines_of_all(folder, texts, [video])[video.video_id]
    return [line for line in lines if line.kind in kinds]


def stored_lines_of_all(
    folder: Path, texts: lance.LanceDataset, videos: Collection[VideoRow]
) -> dict[str, list[LineRow]]:
    """All committed lines of some videos, by the ids of the videos. For arguments, see `stored_lines`.

    Raises:
        LibraryError: the table cannot be read, or one of the lines is damaged.
    """
    owners = {row.texts_ingest_id: row.video_id for row in videos if row.texts_ingest_id is not None}
    found: dict[str, list[LineRow]] = {row.video_id: [] for row in videos}
    if not owners:
        return found
    where = table_path(folder, "texts")
    # The ids are hexadecimal, so they need no escaping.
    listed = ", ".join(f"'{ingest}'" for ingest in owners)
    with storage_errors(where):
        table = texts.to_table(filter=f"ingest_id IN ({listed})")
    ingests = table["ingest_id"].to_pylist()
    if has_wrong_line(table):
        some = f"video {owners[ingests[0]]}" if len(owners) == 1 else f"one of {len(owners)} videos"
        raise LibraryError(f"{where} is damaged: the lines of {some}; {REPAIR_REMEDY}")
    for ingest, line in zip(ingests, line_rows(table), strict=True):
        found[owners[ingest]].append(line)
    return found
