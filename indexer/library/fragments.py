"""Writes segments to data files of a library, in any process that sees its folder.

No version of a table names these files until the library's writer commits them (`LibraryWriter.add_written`);
so another process than the writer's may make them, on another computer too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from lance.fragment import FragmentMetadata

from indexer.library.lance_tables import write_loose
from indexer.library.schema import Layout, SegmentRow, frames_table, segments_table
from indexer.library.tables import table_path


@dataclass(frozen=True)
class WrittenSegments:
    """Segments in data files that no version of a table names yet.

    Attributes:
        segments: the fragments of the table of segments.
        frames: those of the table of frames, in the order of the segments.
    """

    segments: tuple[FragmentMetadata, ...]
    frames: tuple[FragmentMetadata, ...]


def write_segments(tables: Path, layout: Layout, rows: Sequence[SegmentRow]) -> WrittenSegments:
    """Write segments and their frames; the files are on disk when this returns.

    Args:
        tables: the folder of the generation's tables.
        layout: its layout.
        rows: the segments.

    Raises:
        LibraryError: the disk is full, or the folder cannot be written.
    """
    return WrittenSegments(
        segments=_write(tables, layout, "segments", segments_table(layout, rows)),
        frames=_write(tables, layout, "frames", frames_table(layout, rows)),
    )


def _write(tables: Path, layout: Layout, name: str, rows: pa.Table) -> tuple[FragmentMetadata, ...]:
    return write_loose(table_path(tables, name), rows, layout.schema(name))
