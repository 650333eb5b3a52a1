"""The Lance tables: the only module that knows their columns.

`videos` holds a row a file that was tried, failures included; it is the commit marker: segments and frames
count only when a row of `videos` has their `ingest_id`. `segments` holds a row a segment, `frames` a row a
stored frame; the frames of all segments stand in the order of the segments, so that a frame's row follows
from the numbers of frames before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

SCHEMA_VERSION = 1
TABLES = ("videos", "segments", "frames")

_META_SCHEMA = b"reelfind.schema_version"
_META_BUNDLE = b"reelfind.bundle_checksum"
_META_NAME = b"reelfind.bundle_name"


@dataclass(frozen=True)
class Layout:
    """What the columns' sizes depend on: taken from a bundle, kept in every table's metadata."""

    bundle_checksum: str
    bundle_name: str
    embedding_dim: int
    salience_dim: int
    frames_per_segment: int

    def schema(self, table: str) -> pa.Schema:
        """The Arrow schema of one of `TABLES`."""
        metadata = {
            _META_SCHEMA: str(SCHEMA_VERSION),
            _META_BUNDLE: self.bundle_checksum,
            _META_NAME: self.bundle_name,
        }
        return pa.schema(_FIELDS[table](self), metadata=metadata)

    @classmethod
    def of_schema(cls, segments: pa.Schema) -> "Layout":
        """Read the layout back from the segments table. ValueError when it is not one of this version."""
        metadata = segments.metadata or {}
        version = metadata.get(_META_SCHEMA, b"none").decode()
        if version != str(SCHEMA_VERSION):
            raise ValueError(f"schema version {version}, this program reads {SCHEMA_VERSION}")
        try:
            frames = int(segments.field("frame_salience").metadata[b"frames"])
            return cls(
                bundle_checksum=metadata[_META_BUNDLE].decode(),
                bundle_name=metadata[_META_NAME].decode(),
                embedding_dim=segments.field("embedding").type.list_size,
                salience_dim=segments.field("frame_salience").type.list_size // frames,
                frames_per_segment=frames,
            )
        except (KeyError, AttributeError, TypeError) as error:
            raise ValueError(f"unexpected columns ({error})") from error


def _videos(_layout: Layout) -> list[pa.Field]:
    return [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("ingest_id", pa.string(), nullable=False),
        # Names need not be UTF-8, so a path is its bytes.
        pa.field("path", pa.binary(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("mtime_ns", pa.int64(), nullable=False),
        pa.field("duration_seconds", pa.float64(), nullable=False),
        pa.field("fps", pa.float64(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("codec", pa.string(), nullable=False),
        pa.field("container", pa.string(), nullable=False),
        pa.field("title", pa.string()),
        pa.field("verdict", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("num_segments", pa.int32(), nullable=False),
        pa.field("num_frames", pa.int32(), nullable=False),
        pa.field("indexed_at", pa.timestamp("us", "UTC"), nullable=False),
    ]


def _segments(layout: Layout) -> list[pa.Field]:
    salience = pa.list_(pa.float16(), layout.frames_per_segment * layout.salience_dim)
    return [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("ingest_id", pa.string(), nullable=False),
        pa.field("segment_index", pa.int32(), nullable=False),
        pa.field("start_seconds", pa.float64(), nullable=False),
        pa.field("end_seconds", pa.float64(), nullable=False),
        pa.field("num_frames", pa.int32(), nullable=False),
        pa.field("frame_pts_seconds", pa.list_(pa.float64(), layout.frames_per_segment), nullable=False),
        # Rows of the frames that a short segment lacks are zero, here and in the times.
        pa.field(
            "frame_salience", salience, nullable=False, metadata={"frames": str(layout.frames_per_segment)}
        ),
        pa.field("embedding", pa.list_(pa.float32(), layout.embedding_dim), nullable=False),
    ]


def _frames(_layout: Layout) -> list[pa.Field]:
    return [
        pa.field("ingest_id", pa.string(), nullable=False),
        pa.field("segment_index", pa.int32(), nullable=False),
        pa.field("frame_index", pa.int32(), nullable=False),
        pa.field("thumbnail", pa.binary(), nullable=False),
    ]


_FIELDS = {"videos": _videos, "segments": _segments, "frames": _frames}


@dataclass(frozen=True)
class VideoRow:
    """A row of `videos` as it is written."""

    video_id: str
    ingest_id: str
    path: bytes
    sha256: str
    bytes: int
    mtime_ns: int
    duration_seconds: float
    fps: float
    width: int
    height: int
    codec: str
    container: str
    title: str | None
    verdict: str
    reason: str | None
    num_segments: int
    num_frames: int
    indexed_at: datetime


@dataclass(frozen=True)
class SegmentRow:
    """A segment with its n frames as it is written."""

    video_id: str
    ingest_id: str
    segment_index: int
    start_seconds: float
    end_seconds: float
    frame_pts_seconds: NDArray[np.float64]
    """Shape [n], seconds."""
    frame_salience: NDArray[np.float32]
    """Shape [n, S]."""
    embedding: NDArray[np.float32]
    """Shape [D]."""
    thumbnails: tuple[bytes, ...]
    """n JPEG images."""


def videos_table(layout: Layout, rows: Sequence[VideoRow]) -> pa.Table:
    """Rows for `videos`."""
    schema = layout.schema("videos")
    columns = [pa.array([getattr(row, field.name) for row in rows], field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def segments_table(layout: Layout, rows: Sequence[SegmentRow]) -> pa.Table:
    """Rows for `segments`."""
    schema = layout.schema("segments")
    n, s = layout.frames_per_segment, layout.salience_dim
    pts = np.zeros((len(rows), n), np.float64)
    salience = np.zeros((len(rows), n, s), np.float16)
    for i, row in enumerate(rows):
        count = len(row.frame_pts_seconds)
        pts[i, :count] = row.frame_pts_seconds
        salience[i, :count] = row.frame_salience
    vectors: dict[str, NDArray[Any]] = {
        "frame_pts_seconds": pts.reshape(-1),
        "frame_salience": salience.reshape(-1),
        "embedding": np.asarray([r.embedding for r in rows], np.float32).reshape(-1),
    }
    columns = []
    for field in schema:
        if field.name in vectors:
            columns.append(_fixed(vectors[field.name], field.type))
        elif field.name == "num_frames":
            columns.append(pa.array([len(r.frame_pts_seconds) for r in rows], field.type))
        else:
            columns.append(pa.array([getattr(r, field.name) for r in rows], field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def frames_table(layout: Layout, rows: Sequence[SegmentRow]) -> pa.Table:
    """Rows for `frames`: those of each segment after those of the one before."""
    schema = layout.schema("frames")
    flat = [(r.ingest_id, r.segment_index, i, jpeg) for r in rows for i, jpeg in enumerate(r.thumbnails)]
    columns = [pa.array([row[i] for row in flat], field.type) for i, field in enumerate(schema)]
    return pa.Table.from_arrays(columns, schema=schema)


def _fixed(values: NDArray[Any], kind: pa.FixedSizeListType) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(values, kind.value_type), type=kind)


def fixed_to_numpy(column: pa.ChunkedArray | pa.FixedSizeListArray) -> NDArray[Any]:
    """A fixed-size list column as an array [rows, size], without copying where Arrow allows it."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    values: NDArray[Any] = array.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(array), array.type.list_size)
