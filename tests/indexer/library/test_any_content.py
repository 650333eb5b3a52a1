"""Whatever stands in the small files of a library: its value, or a LibraryError that names the file."""

import hashlib
import json
import typing
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer.library.errors import LibraryError
from indexer.library.manifest import (
    FileStamp,
    SnapshotManifest,
    current_number,
    read_snapshot_manifest,
    snapshot_numbers,
    to_json,
)
from indexer.library.mounts import MOUNTS_FILE, known_mounts, remember_mounts
from indexer.library.records import frame_id_of, parse_frame_id, video_id_of
from tests.support.any_json import almost, anything, deep
from tests.support.documented import result_or

GOOD = SnapshotManifest(
    number=7,
    created="2026-01-01T00:00:00+00:00",
    bundle_name="toy",
    bundle_checksum="0" * 64,
    embedding_dim=8,
    salience_dim=16,
    num_videos=1,
    num_segments=1,
    num_frames=2,
    verdicts={"ok": 1},
    index_factory="Flat",
    index_requested="auto",
    tables={"videos": 1, "segments": 2, "frames": 3},
    media_roots=["/media"],
    files={"snapshots/7/index.faiss": FileStamp("1" * 64, 100)},
)
BODY = {key: value for key, value in json.loads(to_json(GOOD)).items() if key != "checksum"}
# One folder serves all examples of a test: each writes the file anew.
each_example = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read(library: Path, data: bytes) -> SnapshotManifest | None:
    """The manifest of snapshot 7 with this content; None after a LibraryError, which must name it."""
    path = library / "snapshots" / "7" / "manifest.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    read = result_or(LibraryError, read_snapshot_manifest, library, 7)
    if isinstance(read, SnapshotManifest):
        return read
    assert str(path) in str(read)
    return None


def signed(body: Any) -> bytes:
    """A body with the right checksum, as a stranger would write it."""
    checksum = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return json.dumps({"checksum": checksum, **body}).encode()


def test_the_good_one_is_read(tmp_path: Path) -> None:
    assert read(tmp_path, to_json(GOOD).encode()) == GOOD == read(tmp_path, signed(BODY))


def test_a_manifest_of_a_further_generation_has_another_version(tmp_path: Path) -> None:
    further = replace(GOOD, generation="0" * 12)
    assert read(tmp_path, to_json(further).encode()) == further
    assert "generation" not in json.loads(to_json(GOOD)), "as in libraries made before"
    versions = [json.loads(to_json(manifest))["format_version"] for manifest in (GOOD, further)]
    assert versions == [2, 3], "earlier programs must refuse what they would read wrongly"
    body = {key: value for key, value in json.loads(to_json(further)).items() if key != "checksum"}
    names = ("", "..", "../../etc", "0" * 11, "0" * 13, "A" * 12, "/" * 12, 3)
    changed: list[dict[str, object]] = [{"generation": name} for name in names]
    changed += [{"format_version": 2}, {"format_version": 4}]
    for changes in changed:
        assert read(tmp_path, signed({**body, **changes})) is None, changes
    cut = replace(GOOD, full_embedding_dim=16)
    assert read(tmp_path, to_json(cut).encode()) == cut
    assert json.loads(to_json(cut))["format_version"] == 3
    assert read(tmp_path, signed({**BODY, "format_version": 3})) is None


@each_example
@given(data=st.binary(max_size=200))
def test_any_bytes_as_a_manifest(tmp_path: Path, data: bytes) -> None:
    assert read(tmp_path, data) is None


@each_example
@given(document=anything)
def test_any_json_as_a_manifest(tmp_path: Path, document: Any) -> None:
    assert read(tmp_path, json.dumps(document).encode()) is None


@pytest.mark.parametrize("bracket", ["[", '{"a":'])
def test_deep_json_as_a_manifest(tmp_path: Path, bracket: str) -> None:
    assert read(tmp_path, deep(bracket)) is None


@settings(each_example, max_examples=300)
@given(body=almost(BODY))
def test_a_manifest_with_changed_values_and_the_right_checksum(tmp_path: Path, body: dict[str, Any]) -> None:
    manifest = read(tmp_path, signed(body))
    if manifest is None:
        return
    types = typing.get_type_hints(SnapshotManifest)
    for field in fields(manifest):
        expected = typing.get_origin(types[field.name]) or types[field.name]
        assert type(getattr(manifest, field.name)) is expected, field.name
    assert manifest.created_at.tzinfo is not None
    assert all(type(version) is int and version > 0 for version in manifest.tables.values())
    assert all(not Path(name).is_absolute() and ".." not in Path(name).parts for name in manifest.files)


@each_example
@given(data=st.binary(max_size=40) | st.integers().map(lambda n: str(n).encode()) | st.just(b"9" * 5000))
def test_any_content_of_current(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "CURRENT").write_bytes(data)
    number = result_or(LibraryError, current_number, tmp_path)
    if isinstance(number, LibraryError):
        assert "CURRENT" in str(number)
        return
    assert number == int(data.decode().strip())
    with pytest.raises(LibraryError):
        read_snapshot_manifest(tmp_path, number)


@each_example
@given(names=st.lists(st.text(min_size=1, max_size=12) | st.integers().map(str), max_size=4))
def test_any_names_of_snapshots(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        if "/" not in name and "\x00" not in name and name not in (".", ".."):
            try:
                (tmp_path / "snapshots" / name).mkdir(parents=True, exist_ok=True)
            except UnicodeEncodeError:
                continue
    numbers = snapshot_numbers(tmp_path)
    assert all((tmp_path / "snapshots" / str(number)).is_dir() for number in numbers)


@each_example
@given(
    data=st.binary(max_size=60)
    | anything.map(lambda value: json.dumps(value).encode())
    | anything.map(lambda value: json.dumps({"mounts_hex": value}).encode())
    | st.lists(st.binary(max_size=6).map(bytes.hex)).map(
        lambda names: json.dumps({"mounts_hex": names}).encode()
    )
    | st.just(deep("["))
)
def test_any_content_of_the_mounts(tmp_path: Path, data: bytes) -> None:
    (tmp_path / MOUNTS_FILE).write_bytes(data)
    known = known_mounts(tmp_path)
    remember_mounts(tmp_path, set(), forget=known)
    assert known_mounts(tmp_path) == set()


def test_deep_json_as_the_mounts(tmp_path: Path) -> None:
    (tmp_path / MOUNTS_FILE).write_bytes(deep("["))
    assert known_mounts(tmp_path) == set()


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_frame_id(text: str) -> None:
    parts = parse_frame_id(text)
    assert parts is None or frame_id_of(*parts) == text


@settings(deadline=None)
@given(
    st.binary(min_size=1, max_size=100),
    st.integers(0, 99_999),
    st.integers(0, 99),
    st.sampled_from(["", "0123456789ab"]),
)
def test_the_id_of_a_frame_of_any_file(name: bytes, segment: int, frame: int, generation: str) -> None:
    video_id = video_id_of("", b"/" + name, len(name))
    parts = (video_id, segment, frame, generation)
    assert parse_frame_id(frame_id_of(*parts)) == parts
