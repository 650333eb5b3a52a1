"""Libraries as a stranger would make them: whole by their checksums, and saying what the stranger likes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa

from indexer.library.checksums import CHECKSUMS
from indexer.library.folder import Library
from indexer.library.manifest import (
    FileStamp,
    SnapshotManifest,
    current_number,
    read_snapshot_manifest,
    snapshot_folder,
    to_json,
)
from indexer.library.schema import STAGE_COLUMNS, TABLES, TEXT_COLUMNS, VideoRow, videos_table
from indexer.library.storage.base import MANIFEST_FILE
from indexer.library.tables import table_exists, table_path, version_files
from model.runtime.files import sha256_of


def change_table(library: Path, name: str, change: Callable[[pa.Table], pa.Table]) -> None:
    """Write another content into a table, without checksums of rows, and let the served snapshot name it."""
    path = table_path(library, name)
    table = lance.dataset(str(path)).to_table()
    changed = change(table)
    if CHECKSUMS in changed.column_names:
        kind = changed.schema.field(CHECKSUMS).type
        changed = set_column(changed, CHECKSUMS, pa.nulls(changed.num_rows, kind))
    lance.write_dataset(changed.cast(table.schema), str(path), mode="overwrite")
    stamp_again(library)


def set_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    """The table with other values in a column."""
    place = table.column_names.index(name)
    field = table.schema.field(name)
    column = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, field.type)
    return table.set_column(place, field, column)


def as_made_without_texts(library: Path) -> None:
    """Make of a library one that was made before there were texts and stages: no table, and no columns."""
    shutil.rmtree(table_path(library, "texts"))
    path = str(table_path(library, "videos"))
    names = [field.name for field in fields(VideoRow) if field.name not in (*TEXT_COLUMNS, *STAGE_COLUMNS)]
    rows = [VideoRow(**row) for row in lance.dataset(path).to_table(columns=names).to_pylist()]
    lance.write_dataset(videos_table(Library.open(library).layout, rows), path, mode="overwrite")
    lance.dataset(path).drop_columns([*TEXT_COLUMNS, *STAGE_COLUMNS])
    stamp_again(library)


def stamp_again(library: Path, **changes: Any) -> SnapshotManifest:
    """Write the served snapshot's manifest anew: newest tables, right checksums, and `changes`."""
    number = current_number(library)
    assert number is not None
    manifest = read_snapshot_manifest(library, number)
    files = [library / name for name in manifest.index_files]
    tables = {}
    for name in (name for name in TABLES if table_exists(library, name)):
        dataset = lance.dataset(str(table_path(library, name)))
        tables[name] = dataset.version
        files += version_files(library, name, dataset)
    stamps = {
        str(path.relative_to(library)): FileStamp(sha256_of(path), path.stat().st_size)
        for path in files
        if path.exists()
    }
    manifest = replace(manifest, **{"tables": tables, "files": stamps, **changes})
    (snapshot_folder(library, number) / MANIFEST_FILE).write_text(to_json(manifest))
    return manifest
