"""What videos can be filtered by: the table of fields, and the values that each takes.

A new fact about videos is one line of `FIELDS`.
"""

import posixpath
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from indexer.library.annotations import Annotation, folded_tag
from indexer.library.catalog import VideoCatalog
from indexer.library.curation import NOTHING, CurationState
from indexer.library.records import VERDICTS
from indexer.library.schema import CUTS
from model.runtime.captured import CAPTURED_SOURCES
from service.search.views import ALL_PATHS, PathNames

#: What a condition asks of a field.
Operator = Literal["equals", "in", "range", "under", "contains", "is_null"]
#: What the values of a field are.
Kind = Literal["text", "path", "number", "time", "boolean"]

OPERATORS_OF: Mapping[Kind, tuple[Operator, ...]] = {
    "text": ("equals", "in", "contains", "is_null"),
    "path": ("equals", "in", "contains", "under"),
    "number": ("equals", "in", "range", "is_null"),
    "time": ("equals", "range", "is_null"),
    "boolean": ("equals", "is_null"),
}


@dataclass(frozen=True)
class FieldValues:
    """The values of a field for all videos of a catalog.

    Attributes:
        values: the values, [n]; null where a video has none.
        owners: the row of each value's video, int64 [n]; None: each video has one value, in the order of the
            rows.
    """

    values: pa.Array
    owners: NDArray[np.int64] | None = None

    def videos_where(self, matches: pa.Array, num_videos: int) -> NDArray[np.bool_]:
        """Which videos have a value that matches, bool [`num_videos`]. `matches` is bool [n], or null: no."""
        found: NDArray[np.bool_] = pc.is_in(matches, pa.array([True])).to_numpy(zero_copy_only=False)
        if self.owners is None:
            return found
        mask = np.zeros(num_videos, np.bool_)
        mask[self.owners[found]] = True
        return mask


@dataclass(frozen=True)
class Facts:
    """Where the values of fields come from: what files say of videos, and what users do.

    Hidden videos have values too.

    Attributes:
        catalog: the videos.
        curation: what users say.
        names: how paths look.
    """

    catalog: VideoCatalog
    curation: CurationState = NOTHING
    names: PathNames = ALL_PATHS

    def column(self, name: str) -> FieldValues:
        """A column of the table of videos; all null where the library has no such column."""
        values = self.catalog.column(name)
        return FieldValues(pa.nulls(self.catalog.num_rows) if values is None else values)

    @cached_property
    def paths(self) -> FieldValues:
        """Every place of every video."""
        owners, paths = self.catalog.shown_paths
        shown = [self.names.shown(path) for path in paths.to_pylist()]
        return FieldValues(pa.array(shown, pa.string()), owners)

    @cached_property
    def folders(self) -> FieldValues:
        """The folders that these places are in."""
        folders = [posixpath.dirname(path) for path in self.paths.values.to_pylist()]
        return FieldValues(pa.array(folders, pa.string()), self.paths.owners)

    @cached_property
    def titles(self) -> FieldValues:
        """The titles that users gave, or else those stored in the files."""
        stored = self.column("title").values.cast(pa.string())
        given = {row: each.title for row, each in self._annotated() if each.title is not None}
        if not given:
            return FieldValues(stored)
        mask = np.zeros(self.catalog.num_rows, np.bool_)
        mask[list(given)] = True
        titles = pa.array([given[row] for row in sorted(given)], pa.string())
        return FieldValues(pc.replace_with_mask(stored, pa.array(mask), titles))

    @cached_property
    def tags(self) -> FieldValues:
        """The tags that users gave, as they are compared: without case."""
        pairs = [(row, folded_tag(tag)) for row, each in self._annotated() for tag in each.tags]
        return FieldValues(
            pa.array([tag for _, tag in pairs], pa.string()), np.array([row for row, _ in pairs], np.int64)
        )

    @cached_property
    def notes(self) -> FieldValues:
        """What users noted."""
        pairs = [(row, each.note) for row, each in self._annotated() if each.note is not None]
        return FieldValues(
            pa.array([note for _, note in pairs], pa.string()), np.array([row for row, _ in pairs], np.int64)
        )

    def _annotated(self) -> Iterator[tuple[int, Annotation]]:
        """What users say of videos, by their rows."""
        for video_id, annotation in self.curation.annotations.items():
            row = self.catalog.row_of(video_id)
            if row is not None:
                yield row, annotation

    @property
    def missing(self) -> FieldValues:
        """Whether each video is missing in all its places."""
        return FieldValues(pa.array(self.catalog.missing))

    @property
    def has_cuts(self) -> FieldValues:
        """Whether cuts were found in each video; null where nothing has looked for them."""
        cuts = self.column(CUTS).values
        return FieldValues(cuts if pa.types.is_null(cuts.type) else pc.greater(pc.list_value_length(cuts), 0))


@dataclass(frozen=True)
class Field:
    """One thing that is known of videos.

    Attributes:
        kind: what its values are, which says how they can be compared.
        about: what it is, for people.
        read: gives its values.
        choices: the only values that it has; empty: any.
        folds: whether its values are compared without case.
    """

    kind: Kind
    about: str
    read: Callable[[Facts], FieldValues]
    choices: tuple[str, ...] = ()
    folds: bool = False

    @property
    def operators(self) -> tuple[Operator, ...]:
        """What can be asked of it."""
        return OPERATORS_OF[self.kind]


def _column(name: str) -> Callable[[Facts], FieldValues]:
    return lambda facts: facts.column(name)


FIELDS: Mapping[str, Field] = {
    "video_id": Field("text", "the video's id", _column("video_id")),
    "path": Field("path", "where it is; any of its files counts", lambda facts: facts.paths),
    "folder": Field("path", "the folder that one of its files is in", lambda facts: facts.folders),
    "missing": Field("boolean", "whether none of its files was there lately", lambda facts: facts.missing),
    "title": Field("text", "the title that users gave, or else the file's", lambda facts: facts.titles),
    "tags": Field(
        "text", "what users tagged it with; case does not count", lambda facts: facts.tags, folds=True
    ),
    "note": Field("text", "what users noted", lambda facts: facts.notes),
    "captured_at": Field("time", "when it was taken, as far as that is known", _column("captured_at")),
    "captured_source": Field("text", "what says when", _column("captured_source"), CAPTURED_SOURCES),
    "latitude": Field("number", "of where it was taken, in degrees north", _column("latitude")),
    "longitude": Field("number", "the same in degrees east", _column("longitude")),
    "camera": Field("text", "make and model", _column("camera")),
    "has_sound": Field("boolean", "whether it has sound; null: nothing has looked", _column("has_sound")),
    "audio_codec": Field("text", "of the sound; null without sound", _column("audio_codec")),
    "duration_seconds": Field("number", "how long it is", _column("duration_seconds")),
    "width": Field("number", "in pixels, as shown", _column("width")),
    "height": Field("number", "in pixels, as shown", _column("height")),
    "fps": Field("number", "frames a second", _column("fps")),
    "bytes": Field("number", "the size of its file", _column("bytes")),
    "codec": Field("text", "of the pictures", _column("codec")),
    "container": Field("text", "the kind of its file", _column("container")),
    "verdict": Field("text", "the outcome of indexing it", _column("verdict"), VERDICTS),
    "indexed_at": Field("time", "when it was indexed", _column("indexed_at")),
    "has_cuts": Field(
        "boolean", "whether cuts were found in it; null: nothing has looked", lambda facts: facts.has_cuts
    ),
}


def describe_fields() -> str:
    """The fields with their kinds and operators, as a list in Markdown."""
    return "\n".join(
        f"- `{name}` ({field.kind}: {', '.join(field.operators)}): {field.about}"
        + (f", one of {', '.join(field.choices)}" if field.choices else "")
        for name, field in FIELDS.items()
    )
