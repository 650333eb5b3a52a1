"""Reads the committed rows of `videos` and `texts` as they were written, for whoever writes a library."""

import os
from collections.abc import Collection
from dataclasses import fields
from pathlib import Path

import lance

from indexer.library.checksums import CHECKSUMS, stored_checksums
from indexer.library.errors import REPAIR_REMEDY, LibraryError, storage_errors
from indexer.library.records import displayable
from indexer.library.schema import LineKind, LineRow, VideoRow, has_wrong_line, line_rows, video_checksum
from indexer.library.tables import table_path


def stored_videos(folder: Path, videos: lance.LanceDataset) -> dict[str, VideoRow]:
    """All rows of `videos`, by the ids of the videos.

    Args:
        folder: holds the tables.
        videos: the table. It may lack columns, because it was made before there were any.

    Raises:
        LibraryError: the table cannot be read, or a row is damaged: a wrong path or time would be acted on.
    """
    where = table_path(folder, "videos")
    with storage_errors(where):
        table = videos.to_table()
    rows = table.select([f.name for f in fields(VideoRow) if f.name in table.column_names]).to_pylist()
    if CHECKSUMS in table.column_names:
        for row, checksum in zip(rows, stored_checksums("videos", table[CHECKSUMS], "row"), strict=True):
            if checksum is not None and checksum != video_checksum(row):
                path = displayable(Path(os.fsdecode(row["path"])))
                raise LibraryError(f"{where} is damaged: the row of {path}; {REPAIR_REMEDY}")
    return {row["video_id"]: VideoRow(**row) for row in rows}


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
    if video.texts_ingest_id is None or not kinds:
        return []
    where = table_path(folder, "texts")
    with storage_errors(where):
        # The id is hexadecimal, so it needs no quoting.
        table = texts.to_table(filter=f"ingest_id = '{video.texts_ingest_id}'")
    if has_wrong_line(table):
        path = displayable(Path(os.fsdecode(video.path)))
        raise LibraryError(f"{where} is damaged: the lines of {path}; {REPAIR_REMEDY}")
    return [line for line in line_rows(table) if line.kind in kinds]
