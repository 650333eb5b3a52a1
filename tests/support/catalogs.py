"""Catalogs of videos without a library: what filters and lists read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from indexer.library.catalog import VideoCatalog
from indexer.library.schema import Layout

_DAY = datetime(2024, 5, 1, tzinfo=UTC)
_USUAL: Mapping[str, Any] = {
    "sha256": "",
    "bytes": 1,
    "duration_seconds": 1.0,
    "fps": 25.0,
    "width": 64,
    "height": 48,
    "codec": "h264",
    "container": "mp4",
    "verdict": "ok",
    "num_segments": 1,
    "num_frames": 1,
    "indexed_at": _DAY,
}


def catalog_of(videos: Sequence[Mapping[str, Any]]) -> VideoCatalog:
    """The catalog of some videos: the values that are not the usual ones of each.

    `paths`, or `path`, are where it is, and `missing` are those of them where it is not any more.
    """
    layout = Layout("", "", 1, 1, 1)
    schemas = {name: layout.schema(name) for name in ("videos", "files")}
    rows: list[dict[str, Any]] = []
    files: list[dict[str, Any]] = []
    for i, video in enumerate(videos):
        given = {**_USUAL, "video_id": f"{i:016x}", "ingest_id": str(i), **video}
        rows.append({name: given.get(name) for name in schemas["videos"].names})
        files += [
            {
                "path": path.encode("utf-8", "surrogateescape"),
                "video_id": given["video_id"],
                "mtime_ns": 0,
                "found_at": _DAY,
                "missing_since": _DAY if path in given.get("missing", ()) else None,
            }
            for path in given.get("paths", [given.get("path")])
        ]
    tables = (pa.Table.from_pylist(x, schemas[name]) for name, x in (("videos", rows), ("files", files)))
    return VideoCatalog(*tables)
