"""`reelfind library verify` finds what cannot be true, also where every checksum is right."""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from indexer.library.schema import fixed_to_numpy
from indexer.library.verify import verify_library
from tests.support.crafted_library import change_table, set_column, stamp_again
from tests.support.toy_library import ToyLibrary, make_library
from tests.support.toy_videos import write_slides


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    films = {"red.mp4": [("red", 2.0)], "long.mp4": [("black", 24.0), ("cyan", 24.0), ("white", 24.0)]}
    return make_library(tmp_path_factory.mktemp("meaning"), films)


@pytest.fixture
def library(toy: ToyLibrary, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy.library, tmp_path / "library"))


def problems(library: Path) -> str:
    report = verify_library(library)
    return "\n".join(report.snapshots[0].problems)


def test_a_library_as_the_indexer_writes_it_is_true(library: Path) -> None:
    assert problems(library) == ""
    stamp_again(library)
    assert problems(library) == ""


def test_a_slide_that_was_shown_before_a_segment_starts_is_no_fault(tmp_path: Path) -> None:
    toy = make_library(tmp_path, {})
    write_slides(toy.media / "slides.mkv", {t: t for t in (0, 20, 45, 50, 95, 96, 140, 160)})
    toy.index()
    times = [
        row.as_py() for row in lance.dataset(str(toy.library / "segments.lance")).to_table()["start_seconds"]
    ]
    assert len(times) > 3
    assert problems(toy.library) == ""


def first(value: Any) -> Callable[[pa.ChunkedArray], list[Any]]:
    """The values of a column, with another one in its first row."""
    return lambda column: [value, *column.to_pylist()[1:]]


def in_lists(change: Callable[[np.ndarray[Any, Any]], None]) -> Callable[[pa.ChunkedArray], list[Any]]:
    """The values of a column of lists, whose array [rows, size] is changed."""

    def changed(column: pa.ChunkedArray) -> list[Any]:
        array = fixed_to_numpy(column).copy()
        change(array)
        return list(array)

    return changed


def set_first(place: int, value: float) -> Callable[[pa.ChunkedArray], list[Any]]:
    def change(array: np.ndarray[Any, Any]) -> None:
        array[0, place] = value

    return in_lists(change)


def scale(factor: float) -> Callable[[pa.ChunkedArray], list[Any]]:
    def change(array: np.ndarray[Any, Any]) -> None:
        array *= factor

    return in_lists(change)


@pytest.mark.parametrize(
    ("table", "column", "change", "said"),
    [
        ("files", "path", first(os.fsencode("/etc/passwd")), "outside of the manifest's media roots"),
        ("files", "path", first(b"relative.mp4"), "is not absolute"),
        ("files", "path", lambda paths: paths.to_pylist()[:1] * len(paths), "a path occurs twice"),
        ("videos", "sha256", first("0" * 64), "its id is not that of its content"),
        ("videos", "sha256", first(""), "its SHA-256 is missing"),
        ("videos", "verdict", first("fine"), "its verdict is 'fine'"),
        ("videos", "verdict", first("corrupt"), "its number of segments is .*, and its verdict corrupt"),
        ("videos", "duration_seconds", first(float("nan")), "its duration_seconds is nan"),
        ("videos", "duration_seconds", first(float("inf")), "its duration_seconds is inf"),
        ("videos", "width", first(-5), "its width is -5"),
        ("videos", "bytes", first(-1), "its bytes is -1"),
        ("videos", "sha256", first("../secret"), "its SHA-256 is none"),
        ("videos", "container_start_seconds", first(float("inf")), "container_start_seconds is inf"),
        ("segments", "start_seconds", first(float("nan")), r"\(row 0\): its times are not finite"),
        ("segments", "start_seconds", first(-3.0), "it starts before 0"),
        ("segments", "end_seconds", first(-1.0), "it starts before 0, or ends before it starts"),
        ("segments", "frame_pts_seconds", set_first(0, 1e6), "a frame comes after its end"),
        ("segments", "frame_pts_seconds", set_first(0, float("nan")), "times of its frames are not finite"),
        ("segments", "frame_pts_seconds", set_first(0, 20.0), "not in the order of their times"),
        ("segments", "embedding", set_first(0, float("nan")), "its embedding is not finite"),
        ("segments", "embedding", scale(2.0), "its embedding is not of unit length"),
        ("segments", "frame_salience", set_first(0, float("inf")), "frames' salience is not finite"),
        ("frames", "thumbnail", first(b"<svg onload=alert(1)>"), "thumbnail that is no JPEG"),
        ("frames", "thumbnail", first(b""), "thumbnail that is no JPEG"),
        ("frames", "frame_index", first(7), "does not follow the one before"),
    ],
)
def test_values_that_cannot_be_true(
    library: Path, table: str, column: str, change: Callable[[pa.ChunkedArray], list[Any]], said: str
) -> None:
    change_table(library, table, lambda rows: set_column(rows, column, change(rows[column])))
    assert _matches(said, problems(library))


def test_segments_that_run_backwards(library: Path) -> None:
    def swap(column: pa.ChunkedArray) -> list[int]:
        values: list[int] = column.to_pylist()
        one, two = values.index(1), values.index(2)
        values[one], values[two] = 2, 1
        return values

    change_table(
        library, "segments", lambda rows: set_column(rows, "segment_index", swap(rows["segment_index"]))
    )
    assert "its number and its start are not in one order" in problems(library)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"media_roots": ["relative"]}, "media root 'relative' is not the path of a folder"),
        ({"media_roots": ["/a/../etc"]}, "media root '/a/../etc' is not the path of a folder"),
        ({"verdicts": {"ok": 500}}, "the manifest counts the verdicts"),
        ({"salience_dim": 5}, "the manifest's salience_dim is 5"),
        ({"num_videos": 9}, "the manifest says 9"),
        ({"num_frames": 9}, "expected 9"),
    ],
)
def test_a_manifest_that_cannot_be_true(library: Path, changes: dict[str, Any], said: str) -> None:
    stamp_again(library, **changes)
    assert _matches(said, problems(library))


def test_a_thumbnail_of_another_size(library: Path) -> None:
    buffer = io.BytesIO()
    Image.new("L", (20_000, 10)).save(buffer, "JPEG")
    change_table(
        library,
        "frames",
        lambda rows: set_column(rows, "thumbnail", first(buffer.getvalue())(rows["thumbnail"])),
    )
    assert "thumbnail of 20000 × 10 pixels" in problems(library)


def _matches(said: str, text: str) -> bool:
    return re.search(said, text) is not None or pytest.fail(f"{said!r} is not in:\n{text}")
