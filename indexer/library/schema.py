"""The Lance tables: the only module that knows their columns.

`videos` has a row for each content that was read, failures included. It is the commit marker: segments and
frames count only when a row of `videos` has their `ingest_id`. `files` has a row for each place where a
content is, or was; a row counts only when its video has one. `segments` has a row for each segment,
`frames` a row for each stored frame. Frames are in the order of their segments, so a frame's row follows from
the numbers of frames of the segments before it. `texts` has a row for each spoken or written line. A line
counts only when the row of its video names its `ingest_id`, which changes whenever the texts are read again.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from indexer.library.checksums import (
    CHECKSUMS,
    checksums_column,
    checksums_field,
    frame_seed,
    part_checksum,
    row_checksum,
    row_seed,
    stored_checksums,
)
from model.runtime.tokens import QuantisedTokens

SCHEMA_VERSION = 2
TABLES = ("videos", "files", "segments", "frames", "texts")
#: Tables that libraries made before lack, and their snapshots; the next indexing run adds them.
ADDED_TABLES = frozenset({"texts", "files"})
#: Where there is no frame, segment or video without.
FIRST_TABLES = tuple(name for name in TABLES if name not in ADDED_TABLES)

#: In libraries made before, a video was a path: `videos` had these columns, and `segments` and `texts` the id
#: of the video. See `indexer.library.migration`.
PATH_COLUMNS = ("path", "mtime_ns")
FORMER_ID = "video_id"
#: Columns of `videos` that libraries made before lack; the next indexing run adds them.
CONTAINER_START = "container_start_seconds"
#: Names the rows of `texts` of a video.
TEXTS_INGEST = "texts_ingest_id"
TEXT_COLUMNS = (TEXTS_INGEST, "num_lines", "text_sources")
STAGE_COLUMNS = ("speech_source", "screen_source", "shots_source")
#: Before the key of a stage that failed on a video: it is tried again only if that is asked for.
STAGE_FAILED = "failed: "
CUTS = "cut_seconds"
#: How a video was recorded, see `Recording`; libraries made before lack them too. With null as their version,
#: nothing has looked.
FACT_FIELDS = (
    pa.field("captured_at", pa.timestamp("us", "UTC")),
    pa.field("captured_offset_minutes", pa.int16()),
    pa.field("captured_source", pa.string()),
    pa.field("latitude", pa.float64()),
    pa.field("longitude", pa.float64()),
    pa.field("altitude_metres", pa.float64()),
    pa.field("camera", pa.string()),
    pa.field("has_sound", pa.bool_()),
    pa.field("audio_codec", pa.string()),
    pa.field("facts_version", pa.int32()),
)
FACT_COLUMNS = tuple(field.name for field in FACT_FIELDS)
_META_SCHEMA = b"reelfind.schema_version"
_META_BUNDLE = b"reelfind.bundle_checksum"
_META_NAME = b"reelfind.bundle_name"
_META_TOKENS = b"reelfind.tokens"
_META_TOKEN_COUNT = b"reelfind.tokens_per_frame"
_META_TOKEN_DIM = b"reelfind.token_dim"
_META_HUBNESS_WEIGHT = b"reelfind.hubness_weight"
_META_FULL_DIM = b"reelfind.full_embedding_dim"

#: The columns of `segments` that are held in memory, in the order of their checksum. The first one stands
#: only in libraries that were migrated, and is not read; the last one only in those whose bundle corrects
#: hubness.
SHORT_COLUMNS = (
    *(FORMER_ID, "ingest_id", "segment_index", "num_frames", "start_seconds", "end_seconds"),
    *("hubness",),
)

#: What a line of `texts` is: said or shown as a subtitle; a name of the video; heard in it; or read in its
#: pictures. Stages give the last two.
LineKind = Literal["speech", "name", "transcript", "screen"]
LINE_KINDS: tuple[LineKind, ...] = get_args(LineKind)
STAGE_KINDS: frozenset[LineKind] = frozenset({"transcript", "screen"})
_LINE_COLUMNS = ("kind", "start_seconds", "end_seconds", "language", "text")

#: How frame tokens are stored: rounded to 8 bits with a scale for each token, unchanged, or not at all.
TokenKind = Literal["int8", "float32", "none"]
TOKEN_KINDS: tuple[TokenKind, ...] = get_args(TokenKind)

#: About the size of a thumbnail.
_THUMBNAIL_BYTES = 16 << 10


@dataclass(frozen=True)
class Layout:
    """What the columns depend on: the bundle and the options. Stored in the metadata of every table.

    `salience_dim` is 0 where the bundle says nothing of single frames, and there is no column
    `frame_salience`. `tokens_per_frame` and `token_dim` are P' and H of the stored tokens, 0 where there are
    none.
    `hubness_weight` is the weight of the column `hubness`; None: the bundle corrects no hubness, and there is
    no such column. `full_embedding_dim` is D of the bundle where the embeddings of segments are cut to their
    first `embedding_dim` dimensions; None: they are not.
    `has_former_ids` is set in libraries that were migrated: `segments` and `texts` have the column
    `FORMER_ID`, which is empty in new rows.
    """

    bundle_checksum: str
    bundle_name: str
    embedding_dim: int
    salience_dim: int
    frames_per_segment: int
    tokens: TokenKind = "none"
    tokens_per_frame: int = 0
    token_dim: int = 0
    hubness_weight: float | None = None
    full_embedding_dim: int | None = None
    has_former_ids: bool = False

    @property
    def vector_dim(self) -> int:
        """The size of a vector in the index: D, and one more for the hubness correction."""
        return self.embedding_dim + (self.hubness_weight is not None)

    @property
    def token_bytes(self) -> int:
        """The size of a frame's tokens, in bytes."""
        width = {"int8": self.token_dim + 2, "float32": 4 * self.token_dim, "none": 0}[self.tokens]
        return self.tokens_per_frame * width

    @property
    def frame_bytes(self) -> int:
        """About the size of a stored frame in memory and on disk, in bytes."""
        return self.token_bytes + _THUMBNAIL_BYTES

    @property
    def segment_bytes(self) -> int:
        """About the size of a segment with all its frames, in bytes."""
        return self.frames_per_segment * (self.frame_bytes + 2 * self.salience_dim)

    def schema(self, table: str) -> pa.Schema:
        """The Arrow schema of one of `TABLES`."""
        metadata = {
            _META_SCHEMA: str(SCHEMA_VERSION),
            _META_BUNDLE: self.bundle_checksum,
            _META_NAME: self.bundle_name,
            _META_TOKENS: self.tokens,
            _META_TOKEN_COUNT: str(self.tokens_per_frame),
            _META_TOKEN_DIM: str(self.token_dim),
        }
        if self.hubness_weight is not None:
            metadata[_META_HUBNESS_WEIGHT] = repr(self.hubness_weight)
        if self.full_embedding_dim is not None:
            metadata[_META_FULL_DIM] = str(self.full_embedding_dim)
        return pa.schema([*_FIELDS[table](self), checksums_field(table)], metadata=metadata)

    @classmethod
    def of_schema(cls, segments: pa.Schema) -> "Layout":
        """Read the layout from the schema of `segments`.

        Raises:
            ValueError: the schema is not one of this version.
        """
        metadata = segments.metadata or {}
        version = metadata.get(_META_SCHEMA, b"none").decode()
        if version != str(SCHEMA_VERSION):
            raise ValueError(f"schema version {version}, this program reads {SCHEMA_VERSION}")
        try:
            frames = segments.field("frame_pts_seconds").type.list_size
            tokens = next(kind for kind in TOKEN_KINDS if kind.encode() == metadata[_META_TOKENS])
            return cls(
                bundle_checksum=metadata[_META_BUNDLE].decode(),
                bundle_name=metadata[_META_NAME].decode(),
                embedding_dim=segments.field("embedding").type.list_size,
                salience_dim=_salience_dim(segments, frames),
                frames_per_segment=frames,
                tokens=tokens,
                tokens_per_frame=int(metadata[_META_TOKEN_COUNT]),
                token_dim=int(metadata[_META_TOKEN_DIM]),
                hubness_weight=_hubness_weight(segments),
                full_embedding_dim=_full_embedding_dim(segments),
                has_former_ids=FORMER_ID in segments.names,
            )
        except (KeyError, AttributeError, TypeError, ValueError, StopIteration) as error:
            raise ValueError(f"unexpected columns ({error})") from error


def _salience_dim(segments: pa.Schema, frames: int) -> int:
    """S; 0 where there is no column. ValueError where the column is of another number of frames."""
    if "frame_salience" not in segments.names:
        return 0
    field = segments.field("frame_salience")
    if int(field.metadata[b"frames"]) != frames or field.type.list_size % frames:
        raise ValueError(f"frame_salience is {field.type} for {frames} frames")
    return int(field.type.list_size) // frames


def _hubness_weight(segments: pa.Schema) -> float | None:
    """The weight in the metadata. ValueError where it and the column do not go together."""
    value = segments.metadata.get(_META_HUBNESS_WEIGHT)
    weight = None if value is None else float(value)
    kind = segments.field("hubness").type if "hubness" in segments.names else None
    if kind != (None if weight is None else pa.float32()) or not 0 <= (weight or 0.0) < float("inf"):
        raise ValueError(f"hubness is {kind} with the weight {weight}")
    return weight


def _full_embedding_dim(segments: pa.Schema) -> int | None:
    """D of the bundle in the metadata, if embeddings are cut. ValueError where that cannot be."""
    value = segments.metadata.get(_META_FULL_DIM)
    full, dim = None if value is None else int(value), segments.field("embedding").type.list_size
    if full is not None and full <= dim:
        raise ValueError(f"embeddings of {full} dimensions are cut to {dim}")
    return full


def _videos(_layout: Layout) -> list[pa.Field]:
    return [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("ingest_id", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
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
        pa.field(CONTAINER_START, pa.float64()),
        # The `ingest_id` of its rows of `texts`, their number, and what they were read from.
        pa.field(TEXTS_INGEST, pa.string()),
        pa.field("num_lines", pa.int32()),
        pa.field("text_sources", pa.string()),
        # The keys of the stages that have read it.
        *(pa.field(name, pa.string()) for name in STAGE_COLUMNS),
        # When the shots after the first begin, rising; null: nothing has looked for cuts.
        pa.field(CUTS, pa.list_(pa.field("item", pa.float64(), nullable=False))),
        *FACT_FIELDS,
    ]


def _files(_layout: Layout) -> list[pa.Field]:
    return [
        # File names need not be UTF-8, so a path is stored as bytes.
        pa.field("path", pa.binary(), nullable=False),
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("mtime_ns", pa.int64(), nullable=False),
        pa.field("found_at", pa.timestamp("us", "UTC"), nullable=False),
        # Null: it was there in the last run that looked.
        pa.field("missing_since", pa.timestamp("us", "UTC")),
    ]


def _former_id(layout: Layout) -> list[pa.Field]:
    return [pa.field(FORMER_ID, pa.string(), nullable=False)] if layout.has_former_ids else []


def _segments(layout: Layout) -> list[pa.Field]:
    count = layout.frames_per_segment
    salience = pa.field(
        "frame_salience",
        pa.list_(pa.float16(), count * layout.salience_dim),
        nullable=False,
        metadata={"frames": str(count)},
    )
    return [
        *_former_id(layout),
        pa.field("ingest_id", pa.string(), nullable=False),
        pa.field("segment_index", pa.int32(), nullable=False),
        pa.field("start_seconds", pa.float64(), nullable=False),
        pa.field("end_seconds", pa.float64(), nullable=False),
        pa.field("num_frames", pa.int32(), nullable=False),
        pa.field("frame_pts_seconds", pa.list_(pa.float64(), count), nullable=False),
        # Padded with zeros where a segment has fewer frames; so are the times.
        *([salience] if layout.salience_dim else []),
        pa.field("embedding", pa.list_(pa.float32(), layout.embedding_dim), nullable=False),
        *([] if layout.hubness_weight is None else [pa.field("hubness", pa.float32(), nullable=False)]),
    ]


def _frames(layout: Layout) -> list[pa.Field]:
    size = layout.tokens_per_frame * layout.token_dim
    tokens = {
        "int8": [
            pa.field("tokens", pa.list_(pa.int8(), size), nullable=False),
            pa.field("token_scale", pa.list_(pa.float16(), layout.tokens_per_frame), nullable=False),
        ],
        "float32": [pa.field("tokens", pa.list_(pa.float32(), size), nullable=False)],
        "none": [],
    }
    return [
        pa.field("ingest_id", pa.string(), nullable=False),
        pa.field("segment_index", pa.int32(), nullable=False),
        pa.field("frame_index", pa.int32(), nullable=False),
        pa.field("thumbnail", pa.binary(), nullable=False),
        *tokens[layout.tokens],
    ]


def _texts(layout: Layout) -> list[pa.Field]:
    return [
        *_former_id(layout),
        pa.field("ingest_id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("start_seconds", pa.float64(), nullable=False),
        pa.field("end_seconds", pa.float64(), nullable=False),
        pa.field("language", pa.string()),
        pa.field("text", pa.string(), nullable=False),
    ]


_FIELDS: dict[str, Callable[[Layout], list[pa.Field]]] = {
    "videos": _videos,
    "files": _files,
    "segments": _segments,
    "frames": _frames,
    "texts": _texts,
}
#: The columns of each part of a row that has a checksum of its own and is read by position.
PART_COLUMNS: dict[str, dict[str, tuple[str, ...]]] = {
    "segments": {
        "times": ("frame_pts_seconds",),
        "salience": ("frame_salience",),
        "embedding": ("embedding",),
    },
    "frames": {"tokens": ("tokens", "token_scale"), "thumbnail": ("thumbnail",)},
}


@dataclass(frozen=True)
class VideoRow:
    """A row of `videos` to write."""

    video_id: str
    ingest_id: str
    sha256: str
    bytes: int
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
    container_start_seconds: float | None = None
    """The file's own time at second 0; None where it is not known."""
    texts_ingest_id: str | None = None
    """The `ingest_id` of its rows of `texts`, which may be newer than its own; None: it has none yet."""
    num_lines: int | None = None
    """How many rows of `texts` it has."""
    text_sources: str | None = None
    """What they were read from, see `indexer.plan`; None: of its names alone, so they are to be read."""
    speech_source: str | None = None
    """What has heard it: the stage's key, see `indexer.stages`; None: nothing has yet."""
    screen_source: str | None = None
    """What has read its pictures; as `speech_source`."""
    shots_source: str | None = None
    """What has looked for cuts in it; as `speech_source`."""
    cut_seconds: Sequence[float] | None = None
    """When its shots begin, but for the first, rising; None: nothing has looked for cuts."""
    captured_at: datetime | None = None
    """When it was taken, in UTC; for this and what follows, see `Recording`."""
    captured_offset_minutes: int | None = None
    """How far the local time was ahead of UTC; None: that is not known."""
    captured_source: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    altitude_metres: float | None = None
    camera: str | None = None
    has_sound: bool | None = None
    audio_codec: str | None = None
    facts_version: int | None = None
    """What has read these facts, see `indexer.file_facts`; None: nothing has."""


@dataclass(frozen=True)
class FileRow:
    """A row of `files`: a place where a video is, or was."""

    path: bytes
    video_id: str
    mtime_ns: int
    """When the file was modified, as `stored_ns` gives it."""
    found_at: datetime
    """When it was first found there with this content."""
    missing_since: datetime | None = None
    """Since when it is not found there; None: it was there in the last run that looked."""

    @property
    def rank(self) -> tuple[bool, datetime, Any]:
        """The least one of a video's places is its first place."""
        return self.missing_since is not None, self.found_at, self.path


@dataclass(frozen=True)
class SegmentRow:
    """A segment with its n frames to write."""

    ingest_id: str
    segment_index: int
    start_seconds: float
    end_seconds: float
    frame_pts_seconds: NDArray[np.float64]
    """Shape [n], seconds."""
    frame_salience: NDArray[np.float32]
    """Shape [n, S]; S is 0 where the bundle says nothing of single frames."""
    embedding: NDArray[np.float32]
    """Shape [D]."""
    thumbnails: tuple[bytes, ...]
    """n JPEG images."""
    hubness: float | None = None
    """As `Bundle.hubness` gives it, where the layout has a weight for it."""
    tokens: QuantisedTokens | NDArray[np.float32] | None = None
    """Shape [n, P', H], as the layout stores them."""


def videos_table(layout: Layout, rows: Sequence[VideoRow]) -> pa.Table:
    """The rows as a table for `videos`."""
    return _named_table("videos", layout, rows)


def files_table(layout: Layout, rows: Sequence[FileRow]) -> pa.Table:
    """The rows as a table for `files`."""
    return _named_table("files", layout, rows)


def _named_table(table: str, layout: Layout, rows: Sequence[VideoRow] | Sequence[FileRow]) -> pa.Table:
    """Rows whose columns are attributes of the same names."""
    schema = layout.schema(table)
    names = [name for name in schema.names if name != CHECKSUMS]
    columns = [pa.array([getattr(row, name) for row in rows], schema.field(name).type) for name in names]
    # Of the values as they are read back.
    checksums = [named_checksum(row) for row in pa.Table.from_arrays(columns, names).to_pylist()]
    return pa.Table.from_arrays([*columns, checksums_column(table, [checksums])], schema=schema)


def named_checksum(row: Mapping[str, Any]) -> int:
    """The checksum of a row of `videos` or `files`. Empty columns do not count: they may be newer."""
    return row_checksum(
        value for name, value in sorted(row.items()) if name != CHECKSUMS and value is not None
    )


def segments_table(layout: Layout, rows: Sequence[SegmentRow]) -> pa.Table:
    """The rows as a table for `segments`.

    Raises:
        ValueError: a row has a hubness and the layout has none, or the other way round.
    """
    if any((row.hubness is None) != (layout.hubness_weight is None) for row in rows):
        raise ValueError(f"segments with and without hubness for the weight {layout.hubness_weight}")
    schema = layout.schema("segments")
    n, s = layout.frames_per_segment, layout.salience_dim
    pts = np.zeros((len(rows), n), np.float64)
    salience = np.zeros((len(rows), n, s), np.float16)
    for i, row in enumerate(rows):
        count = len(row.frame_pts_seconds)
        pts[i, :count] = row.frame_pts_seconds
        salience[i, :count] = row.frame_salience
    vectors: dict[str, NDArray[Any]] = {
        "frame_pts_seconds": pts,
        # Without values, its checksum is the row's key alone.
        "frame_salience": salience.reshape(len(rows), n * s),
        "embedding": np.asarray([r.embedding for r in rows], np.float32).reshape(len(rows), -1),
    }
    seeds = [row_seed(r.ingest_id, r.segment_index) for r in rows]
    checksums = [
        [
            segment_checksum(
                *([""] if layout.has_former_ids else []),
                *(r.ingest_id, int(r.segment_index), len(r.frame_pts_seconds)),
                *(float(r.start_seconds), float(r.end_seconds)),
                *([] if r.hubness is None else [float(np.float32(r.hubness))]),
            )
            for r in rows
        ],
        *([part_checksum(s, v) for s, v in zip(seeds, values, strict=True)] for values in vectors.values()),
    ]
    columns = []
    for field in schema:
        if field.name == CHECKSUMS:
            columns.append(checksums_column("segments", checksums))
        elif field.name in vectors:
            columns.append(_fixed(vectors[field.name], field.type))
        elif field.name == FORMER_ID:
            columns.append(pa.array([""] * len(rows), field.type))
        elif field.name == "num_frames":
            columns.append(pa.array([len(r.frame_pts_seconds) for r in rows], field.type))
        else:
            columns.append(pa.array([getattr(r, field.name) for r in rows], field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def segment_checksum(*values: str | float) -> int:
    """The checksum of the short columns of a row of `segments`, those of `SHORT_COLUMNS` that it has."""
    return row_checksum(values)


def short_rows(segments: pa.Table) -> Iterator[tuple[Any, ...]]:
    """The short columns of rows of `segments`, in the order of their checksum."""
    names = [name for name in SHORT_COLUMNS if name in segments.column_names]
    return zip(*(segments[name].to_pylist() for name in names), strict=True)


def frames_table(layout: Layout, rows: Sequence[SegmentRow]) -> pa.Table:
    """The frames of the rows as a table for `frames`, in the order of the segments.

    Raises:
        ValueError: a row has other tokens than the layout.
    """
    schema = layout.schema("frames")
    flat = [(r.ingest_id, r.segment_index, i, jpeg) for r in rows for i, jpeg in enumerate(r.thumbnails)]
    tokens = _token_columns(layout, rows)
    seeds = [frame_seed(row_seed(*row[:2]), row[2]) for row in flat]
    checksums = [
        [part_checksum(s, *(values[i] for values in tokens.values())) for i, s in enumerate(seeds)],
        [part_checksum(s, row[3]) for s, row in zip(seeds, flat, strict=True)],
    ]
    columns = []
    for i, field in enumerate(schema):
        if field.name == CHECKSUMS:
            columns.append(checksums_column("frames", checksums))
        elif field.name in tokens:
            columns.append(_fixed(tokens[field.name], field.type))
        else:
            columns.append(pa.array([row[i] for row in flat], field.type))
    return pa.Table.from_arrays(columns, schema=schema)


@dataclass(frozen=True)
class LineRow:
    """A line of text to write; its video and its `ingest_id` are those of the video's row."""

    kind: LineKind
    start_seconds: float
    end_seconds: float
    language: str | None
    text: str


def texts_table(layout: Layout, rows: Sequence[tuple[VideoRow, Sequence[LineRow]]]) -> pa.Table:
    """The lines of videos as a table for `texts`."""
    schema = layout.schema("texts")
    values: list[tuple[Any, ...]] = [
        (
            *([""] if layout.has_former_ids else []),
            video.texts_ingest_id,
            *(getattr(line, name) for name in _LINE_COLUMNS),
        )
        for video, lines in rows
        for line in lines
    ]
    names = [name for name in schema.names if name != CHECKSUMS]
    columns = [pa.array([row[i] for row in values], schema.field(name).type) for i, name in enumerate(names)]
    checksums = checksums_column("texts", [[row_checksum(row) for row in values]])
    return pa.Table.from_arrays([*columns, checksums], schema=schema)


def line_rows(texts: pa.Table) -> list[LineRow]:
    """Rows of `texts` as they were written."""
    columns = (texts[name].to_pylist() for name in _LINE_COLUMNS)
    return [LineRow(*row) for row in zip(*columns, strict=True)]


def has_wrong_line(texts: pa.Table) -> bool:
    """Whether one of some rows of `texts`, with all columns, differs from its checksum."""
    stored = stored_checksums("texts", texts[CHECKSUMS], "row")
    pairs = zip(stored, line_checksums(texts), strict=True)
    return any(expected is not None and expected != actual for expected, actual in pairs)


def line_checksums(texts: pa.Table) -> list[int]:
    """The checksums of rows of `texts`, of the columns that they should have as far as they do."""
    names = [name for name in (FORMER_ID, "ingest_id", *_LINE_COLUMNS) if name in texts.column_names]
    columns = (texts[name].to_pylist() for name in names)
    return [row_checksum(row) for row in zip(*columns, strict=True)]


def _token_columns(layout: Layout, rows: Sequence[SegmentRow]) -> dict[str, NDArray[Any]]:
    """The token columns, a row a frame. ValueError when a row has other tokens than the layout."""
    token_shape = (layout.tokens_per_frame, layout.token_dim)
    values: list[NDArray[Any]] = []
    scales: list[NDArray[np.float16]] = []
    for row in rows:
        tokens, expected = row.tokens, (len(row.thumbnails), *token_shape)
        if isinstance(tokens, QuantisedTokens):
            kind, shape = "int8", tokens.values.shape
            values.append(tokens.values.reshape(len(tokens), -1))
            scales.append(tokens.scale)
        elif tokens is not None:
            kind, shape = "float32", tokens.shape
            values.append(tokens.reshape(len(tokens), -1))
        else:
            kind, shape = "none", expected
        if (kind, shape) != (layout.tokens, expected):
            raise ValueError(
                f"a segment has {kind} tokens {shape}, the table stores {layout.tokens} {expected}"
            )
    columns: dict[str, NDArray[Any]] = {}
    if values:
        columns["tokens"] = np.concatenate(values)
    if scales:
        columns["token_scale"] = np.concatenate(scales)
    return columns


def _fixed(values: NDArray[Any], kind: pa.FixedSizeListType) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1), kind.value_type), type=kind)


def fixed_to_numpy(column: pa.ChunkedArray | pa.FixedSizeListArray) -> NDArray[Any]:
    """A column of fixed-size lists as an array [rows, size], without a copy where Arrow allows it."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    values: NDArray[Any] = array.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(array), array.type.list_size)


def floats_to_numpy(column: pa.ChunkedArray | pa.Array) -> NDArray[np.float32]:
    """A column of numbers as an array [rows], NaN where there is none."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.asarray(array.to_numpy(zero_copy_only=False), np.float32)
