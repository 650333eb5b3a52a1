"""Filters against a naive twin: every condition for every video, one after the other."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.library.annotations import Annotation
from indexer.library.curation import CurationState
from service.cli.filters import parse_filter
from service.search.fields import FIELDS, OPERATORS_OF, Facts
from service.search.filters import And, In, joined, videos_where
from tests.support.catalogs import catalog_of

PATHS = [
    "/a/b/one.mp4",
    "/a/bc/Zwei.MP4",
    "/a/b/c/drei.mkv",
    "/a/b",
    "/x/Café/1.mp4",
    "/x/Cafe\u0301/2.mp4",
    "/é",
]
PATHS += [f"/a/b/c/d{i}/{name}.mp4" for i in range(3) for name in ("one", "two", "a\udcffb")]
TITLES = [None, "", "A day at the Sea", "SEA", "Straße", "Mee\u0308r", "Meër"]
DAYS = [datetime(2024, 4, 30, 23, 59, 59, 999_999, UTC), datetime(2024, 5, 1, tzinfo=UTC)]
TIMES = [*DAYS, datetime(2024, 5, 1, 12, tzinfo=UTC), datetime(2024, 5, 2, tzinfo=UTC)]
CUTS = [None, [], [1.5], [1.0, 2.0]]


def videos() -> list[dict[str, Any]]:
    rng = np.random.default_rng(5)

    def pick(values: list[Any]) -> Any:
        return values[rng.integers(len(values))]

    return [
        {
            "path": path,
            "paths": sorted({path, *([f"/else{path}"] if pick([0, 0, 1]) else [])}),
            "missing": [path, f"/else{path}"] if pick([0, 1]) else [],
            "title": pick(TITLES),
            "given": pick([None, None, "The Lake", "SEA"]),
            "tags": pick([[], [], ["Dog"], ["sea", "Straße"]]),
            "note": pick([None, "by night"]),
            "captured_at": pick([None, *TIMES]),
            "latitude": pick([None, -33.5, 48.25]),
            "has_sound": pick([None, True, False]),
            "duration_seconds": pick([0.0, 1.5, 60.0, 3600.25]),
            "width": pick([64, 1920]),
            "bytes": pick([0, 7, 2**40]),
            "codec": pick(["h264", "hevc"]),
            "verdict": pick(["ok", "partial", "corrupt"]),
            "indexed_at": pick(TIMES),
            "cut_seconds": pick(CUTS),
        }
        for path in PATHS
    ]


VIDEOS = videos()
ANNOTATIONS = {
    f"{i:016x}": Annotation(video.get("given"), tuple(video["tags"]), video["note"])
    for i, video in enumerate(VIDEOS)
}
FACTS = Facts(catalog_of(VIDEOS), CurationState(ANNOTATIONS))
#: The videos as they are shown, in the order of the catalog.
SHOWN = sorted(VIDEOS, key=lambda video: video["paths"][0].encode("utf-8", "surrogateescape"))
VALUES: Mapping[str, list[Any]] = {
    "path": [*PATHS[:7], "/a/b/c/d0/a\ufffdb.mp4", "/a", ""],
    "folder": ["/a", "/a/b", "/a/b/c", "/x/Café", "/"],
    "title": ["sea", "SEA", "straße", "Meër", "mee\u0308r", "", "lake"],
    "tags": ["dog", "DOG", "STRASSE", "sea", "cat"],
    "note": ["by night", "night", ""],
    "captured_at": ["2024-05-01", "2024-04-30", "2024-05-01T14:00+02:00"],
    "latitude": [-33.5, 0, 48.25],
    "has_sound": [True, False],
    "duration_seconds": [0, 0.0, 1.5, 60, 3600.25, -1, 1e300],
    "width": [64, 64.5, 1920],
    "bytes": [0, 7, 2**40],
    "codec": ["h264", "hevc", "H264"],
    "verdict": ["ok", "partial", "corrupt", "timed_out"],
    "indexed_at": [
        "2024-05-01",
        "2024-04-30",
        "2024-05-01T12:00:00Z",
        "2024-05-01T14:00+02:00",
        "2024-05-01T00:00",
    ],
    "has_cuts": [True, False],
    "missing": [True, False],
}
FOLDERS = ["/", "/a", "/a/", "/a/b", "//a//b/", "/a/b/c", "/a/bc", "/x/Café", "a/b", "/é"]


def conditions() -> st.SearchStrategy[dict[str, Any]]:
    """Every operator of every field."""
    each = []
    for name, values in VALUES.items():
        value = st.sampled_from(values)
        texts = st.text("aeäßÉm/ .", max_size=3) | value
        bounds = st.dictionaries(st.sampled_from(["gte", "gt", "lte", "lt"]), value, min_size=1, max_size=4)
        made: dict[str, st.SearchStrategy[dict[str, Any]]] = {
            "equals": st.fixed_dictionaries({"value": value}),
            "in": st.fixed_dictionaries({"values": st.lists(value, min_size=1, max_size=4)}),
            "range": bounds,
            "under": st.fixed_dictionaries({"folder": st.sampled_from(FOLDERS)}),
            "contains": st.fixed_dictionaries({"value": texts}),
            "is_null": st.just({}),
        }
        each += [
            st.tuples(st.just({"op": op, "field": name}), made[op]).map(lambda pair: {**pair[0], **pair[1]})
            for op in FIELDS[name].operators
        ]
    return st.one_of(each)


FILTERS = st.recursive(
    conditions(),
    lambda inner: st.one_of(
        st.builds(lambda op, filters: {"op": op, "filters": filters},
                  st.sampled_from(["and", "or"]), st.lists(inner, min_size=1, max_size=3)),
        inner.map(lambda each: {"op": "not", "filter": each}),
    ),
    max_leaves=8,
)  # fmt: skip


def fits(where: Mapping[str, Any], video: Mapping[str, Any]) -> bool:
    """The naive twin: whether a filter as it is sent holds for one video."""
    op = where["op"]
    if op == "and":
        return all(fits(each, video) for each in where["filters"])
    if op == "or":
        return any(fits(each, video) for each in where["filters"])
    if op == "not":
        return not fits(where["filter"], video)
    if where["field"] == "tags":
        where = {
            key: list(map(str.casefold, value)) if key == "values" else value.casefold()
            for key, value in where.items()
        }
    return any(holds(where, value) for value in values_of(where["field"], video))


def holds(where: Mapping[str, Any], value: Any) -> bool:
    """Whether a condition holds for one value."""
    op = where["op"]
    if op == "is_null" or value is None:
        return op == "is_null" and value is None
    if op == "equals":
        return is_on(value, where["value"])
    if op == "in":
        return any(is_on(value, each) for each in where["values"])
    if op == "under":
        return PurePosixPath(value).is_relative_to(PurePosixPath(where["folder"].replace("//", "/")))
    if op == "contains":
        return folded(where["value"]) in folded(value)
    return all(is_within(value, side, bound) for side, bound in where.items() if side not in ("op", "field"))


def values_of(name: str, video: Mapping[str, Any]) -> list[Any]:
    paths = [path.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for path in video["paths"]]
    if name == "path":
        return paths
    if name == "folder":
        return [str(PurePosixPath(path).parent) for path in paths]
    if name == "has_cuts":
        return [None if video["cut_seconds"] is None else len(video["cut_seconds"]) > 0]
    if name == "tags":
        return [tag.casefold() for tag in video["tags"]] or [None]
    if name == "title":
        return [video["title"] if video["given"] is None else video["given"]]
    return [bool(video["missing"]) if name == "missing" else video.get(name)]


def span_of(value: Any) -> tuple[Any, Any]:
    """The first instant of a time or a day, and the first one after a day."""
    if len(value) == len("2024-05-01"):
        day = datetime.combine(date.fromisoformat(value), datetime.min.time(), UTC)
        return day, day + timedelta(days=1)
    time = datetime.fromisoformat(value)
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    return time, time + timedelta(microseconds=1)


def is_on(value: Any, wanted: Any) -> bool:
    if isinstance(value, datetime):
        start, stop = span_of(wanted)
        return bool(start <= value < stop)
    return bool(value == wanted)


def is_within(value: Any, side: str, bound: Any) -> bool:
    start, stop = span_of(bound) if isinstance(value, datetime) else (bound, None)
    if side == "gte":
        return bool(value >= start)
    if side == "lt":
        return bool(value < start)
    if stop is None:
        return bool(value > bound if side == "gt" else value <= bound)
    return bool(value >= stop if side == "gt" else value < stop)


def folded(text: str) -> str:
    return unicodedata.normalize("NFC", text).lower()


def shown(mask: np.ndarray[Any, Any]) -> list[str]:
    return [video["path"] for video, chosen in zip(SHOWN, mask.tolist(), strict=True) if chosen]


@settings(deadline=None, max_examples=400)
@given(where=FILTERS)
def test_a_filter_leaves_what_the_naive_twin_leaves(where: dict[str, Any]) -> None:
    mask = videos_where(parse_filter(json.dumps(where)), FACTS)
    assert (mask.dtype, mask.shape) == (np.dtype(np.bool_), (len(VIDEOS),))
    assert shown(mask) == [video["path"] for video in SHOWN if fits(where, video)]


@pytest.mark.parametrize(
    ("folder", "paths"),
    [
        ("/a/b", ["/a/b", "/a/b/one.mp4", "/a/b/c/drei.mkv", *PATHS[7:]]),
        ("/a/b/c/", ["/a/b/c/drei.mkv", *PATHS[7:]]),
        ("/", PATHS),
        ("/a/B", []),
        ("/a/b/../b", []),
    ],
)
def test_a_folder_is_a_whole_component_of_a_path(folder: str, paths: list[str]) -> None:
    where = parse_filter(json.dumps({"op": "under", "field": "path", "folder": folder}))
    assert sorted(shown(videos_where(where, FACTS))) == sorted(paths)


def test_a_library_without_the_column_has_no_values() -> None:
    table = catalog_of(VIDEOS)
    table._table = table._table.drop_columns(["cut_seconds"])
    facts = Facts(table)
    for value in (True, False):
        assert not videos_where(In("has_cuts", (value,)), facts).any()
    assert videos_where(parse_filter('{"op": "is_null", "field": "has_cuts"}'), facts).all()


def test_every_field_has_values_and_operators() -> None:
    """No field of the table is left out of the twin's, but those that are like one there."""
    alike = {"video_id": "codec", "container": "codec", "height": "width", "fps": "duration_seconds"}
    alike |= {
        "longitude": "latitude",
        "camera": "codec",
        "audio_codec": "codec",
        "captured_source": "verdict",
    }
    assert set(FIELDS) == set(VALUES) | set(alike)
    for name, like in alike.items():
        assert FIELDS[name].kind == FIELDS[like].kind
    for name, field in FIELDS.items():
        assert field.operators == OPERATORS_OF[field.kind]
        read = field.read(FACTS)
        assert len(read.values) == len(VIDEOS) or read.owners is not None, name


def test_filters_are_joined() -> None:
    red, blue = In("codec", ("red",)), In("codec", ("blue",))
    assert joined(None, None) is None
    assert joined(None, red) == red
    assert joined(red, None, blue) == And((red, blue))
