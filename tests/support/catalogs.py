"""Catalogs of videos without a library: what filters and lists read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from indexer.library.catalog import VideoCatalog
from indexer.library.schema import Layout

_USUAL: Mapping[str, Any] = {
    "ingest_id": "0",
    "sha256": "",
    "bytes": 1,
    "mtime_ns": 0,
    "duration_seconds": 1.0,
    "fps": 25.0,
    "width": 64,
    "height": 48,
    "codec": "h264",
    "container": "mp4",
    "verdict": "ok",
    "num_segments": 1,
    "num_frames": 1,
    "indexed_at": datetime(2024, 5, 1, tzinfo=UTC),
}


def catalog_of(videos: Sequence[Mapping[str, Any]]) -> VideoCatalog:
    """The catalog of some videos: `path` and the values that are not the usual ones of each."""
    schema = Layout("", "", 1, 1, 1).schema("videos")
    rows = [{**_USUAL, "video_id": f"{i:016x}", **video} for i, video in enumerate(videos)]
    for row in rows:
        row["path"] = row["path"].encode("utf-8", "surrogateescape")
    return VideoCatalog(pa.Table.from_pylist(rows, schema))
