"""Packed graphs: gzip files, which give what was packed, or are refused."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from model.runtime.bundle import Bundle, write_bundle
from model.runtime.bundle.packing import MOST_UNPACKED, packed, packed_name, unpack
from model.runtime.errors import BundleError
from service.cli.bundle import bundle_app
from tests.support import toy_bundle as toy

GRAPH, PACKED = "frame_encoder.onnx", "frame_encoder.onnx.gz"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of which two graphs are packed."""
    place = tmp_path_factory.mktemp("packed")
    toy.toy_tokenizer().save(str(place / "tokenizer.json"))
    graphs = toy.toy_graphs()
    write_bundle(
        place / "bundle",
        graphs,
        toy.describe(),
        place / "tokenizer.json",
        packed_graphs=[GRAPH, "text_encoder.onnx"],
    )
    write_bundle(place / "plain", graphs, toy.describe(), place / "tokenizer.json")
    return place


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A bundle to damage."""
    return Path(shutil.copytree(folder / "bundle", tmp_path / "copy"))


def put(folder: Path, data: bytes, **record: Any) -> None:
    """Put another packed file in a bundle, with its checksum, and change its record."""
    (folder / PACKED).write_bytes(data)
    own = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    change(folder, lambda content: content["files"][GRAPH].update(own | record))


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / "bundle.json").read_text())
    edit(content)
    (folder / "bundle.json").write_text(json.dumps(content))


def test_not_even_zeros_are_packed_smaller_than_records_may_say() -> None:
    assert len(packed(bytes(10_000_000))) * MOST_UNPACKED > 10_000_000


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
def test_any_program_unpacks_what_was_packed(size: int, tmp_path: Path) -> None:
    content = np.rint(np.random.default_rng(0).normal(size=size) * 2).astype(np.int8).tobytes()
    file = packed(content)
    assert gzip.decompress(file) == content
    assert packed(content) == file
    (tmp_path / "file.gz").write_bytes(file)
    assert unpack(tmp_path / "file.gz", size) == content


def test_a_packed_bundle_gives_what_the_plain_one_does(folder: Path) -> None:
    bundle, plain = Bundle.open(folder / "bundle"), Bundle.open(folder / "plain")
    frames = toy.random_frames(5)
    np.testing.assert_array_equal(
        bundle.encode_frames(frames).embedding, plain.encode_frames(frames).embedding
    )
    texts = ["red", "a green dog"]
    np.testing.assert_array_equal(bundle.encode_text(texts).embedding, plain.encode_text(texts).embedding)
    for graph, content in toy.toy_graphs().items():
        assert bundle.read_graph(graph) == plain.read_graph(graph) == content
    assert bundle.manifest.capabilities == plain.manifest.capabilities


def test_what_is_packed_has_another_name_and_version(folder: Path) -> None:
    names = {path.name for path in (folder / "bundle").iterdir()}
    assert {PACKED, packed_name("text_encoder.onnx"), "segment_encoder.onnx"} <= names
    assert not names & {GRAPH, "text_encoder.onnx"}
    versions = [json.loads((folder / name / "bundle.json").read_text()) for name in ("bundle", "plain")]
    assert [content["format_version"] for content in versions] == [3, 2]
    assert all("unpacked_bytes" not in record for record in versions[1]["files"].values())


def test_commands_name_the_files_that_are_there(folder: Path) -> None:
    place = folder / "bundle"
    verified = CliRunner().invoke(bundle_app, ["verify", str(place), "--json"])
    assert verified.exit_code == 0, verified.output
    result = json.loads(verified.stdout)
    assert result["unlisted"] == []
    assert {*result["files"], "bundle.json"} == {path.name for path in place.iterdir()}
    shown = CliRunner().invoke(bundle_app, ["info", str(place)])
    assert PACKED in shown.stdout


@pytest.mark.parametrize("damage", ["changed", "cut", "gone"])
def test_a_damaged_file_is_named(copy: Path, damage: str) -> None:
    data = (copy / PACKED).read_bytes()
    if damage == "gone":
        (copy / PACKED).unlink()
    else:
        (copy / PACKED).write_bytes(data[:-1] + (b"" if damage == "cut" else b"?"))
    with pytest.raises(BundleError, match=r"frame_encoder\.onnx\.gz.*again"):
        Bundle.open(copy)


def test_no_more_is_unpacked_than_the_record_says(copy: Path) -> None:
    """A small file may hold gigabytes."""
    size = json.loads((copy / "bundle.json").read_text())["files"][GRAPH]["unpacked_bytes"]
    put(copy, gzip.compress(bytes(100_000_000)))
    bundle = Bundle.open(copy, trial=False)
    with pytest.raises(BundleError, match=rf"{PACKED} does not hold the {size} bytes .* again"):
        bundle.read_graph(GRAPH)
    with pytest.raises(BundleError, match="does not hold"):
        bundle.encode_frames(toy.random_frames(1))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"not packed at all" * 100,
        lambda data: data[:-8] + bytes(8),
    ],
)
def test_what_is_no_gzip_file_is_refused(copy: Path, spoil: Callable[[bytes], bytes]) -> None:
    put(copy, spoil((copy / PACKED).read_bytes()))
    bundle = Bundle.open(copy, trial=False)
    with pytest.raises(BundleError, match=rf"{PACKED}.*export or download the bundle again"):
        bundle.encode_frames(toy.random_frames(1))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.update(format_version=2), "format version 2 with the packed graphs .*has version 3"),
        (lambda c: c["files"]["tokenizer.json"].update(unpacked_bytes=5), "is packed, which graphs alone"),
        (lambda c: c["files"].update({PACKED: c["files"]["tokenizer.json"]}), "but it is the packed"),
        (lambda c: c["files"][GRAPH].update(unpacked_bytes=-1), "unpacked_bytes"),
        (lambda c: c["files"][GRAPH].update(unpacked_bytes=1 << 40), "unpacked_bytes"),
        (
            lambda c: c["files"][GRAPH].update(unpacked_bytes=8 * c["files"][GRAPH]["bytes"] + 1),
            "a packed graph of .* bytes holds at most",
        ),
    ],
)
def test_records_that_cannot_be_are_refused(
    copy: Path, edit: Callable[[dict[str, Any]], object], message: str
) -> None:
    change(copy, edit)
    with pytest.raises(BundleError, match=message):
        Bundle.open(copy)


def test_a_version_for_packed_graphs_needs_some(folder: Path, tmp_path: Path) -> None:
    plain = Path(shutil.copytree(folder / "plain", tmp_path / "plain"))
    change(plain, lambda content: content.update(format_version=3))
    with pytest.raises(BundleError, match="others have 2"):
        Bundle.open(plain)


def test_a_file_that_changes_while_the_bundle_is_open_is_not_read(copy: Path) -> None:
    bundle = Bundle.open(copy, trial=False)
    (copy / PACKED).write_bytes(packed(b"another graph"))
    with pytest.raises(BundleError, match="changed while the bundle was open"):
        bundle.read_graph(GRAPH)
