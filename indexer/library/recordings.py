"""Reads how videos were recorded from the columns of their table."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from indexer.library.records import NO_RECORDING, Recording
from indexer.library.schema import FACT_FIELDS
from model.runtime.captured import CAPTURED_SOURCES, MOST_OFFSET_MINUTES
from model.runtime.places import Place

_FIRST, _LAST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)


class Recordings:
    """The recordings of the videos of a table, in its order.

    A library may come from a stranger: values that cannot be count as unknown.

    Raises:
        ValueError: a column has another type.
    """

    def __init__(self, videos: pa.Table) -> None:
        self._columns: dict[str, pa.Array] = {}
        for field in FACT_FIELDS:
            if field.name not in videos.column_names:
                return
            column = videos[field.name].combine_chunks()
            if column.type != field.type:
                raise ValueError(f"{field.name} is {column.type}")
            self._columns[field.name] = column
        times = self._columns["captured_at"]
        is_time = pc.and_(pc.greater(times, pa.scalar(_FIRST)), pc.less(times, pa.scalar(_LAST)))
        self._columns["captured_at"] = pc.if_else(is_time, times, pa.scalar(None, times.type))

    def at(self, row: int) -> Recording:
        """The recording of a video."""
        if "has_sound" not in self._columns:
            return NO_RECORDING
        return _recording({name: column[row].as_py() for name, column in self._columns.items()})


def _recording(values: Mapping[str, Any]) -> Recording:
    captured_at, offset = values["captured_at"], values["captured_offset_minutes"] or 0
    source = values["captured_source"]
    if captured_at is None or source not in CAPTURED_SOURCES:
        captured_at = source = None
    elif abs(offset) <= MOST_OFFSET_MINUTES:
        captured_at = captured_at.astimezone(timezone(timedelta(minutes=offset)) if offset else UTC)
    return Recording(
        captured_at, source, _place(values), values["camera"], values["has_sound"], values["audio_codec"]
    )


def _place(values: Mapping[str, Any]) -> Place | None:
    if values["latitude"] is None or values["longitude"] is None:
        return None
    try:
        return Place(values["latitude"], values["longitude"], values["altitude_metres"])
    except ValueError:
        return None
