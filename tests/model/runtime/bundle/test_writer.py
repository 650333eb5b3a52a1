"""The bundle's writer: whole or not at all, whenever it is killed; and `reelfind bundle`."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from model.runtime.bundle import Bundle, write_bundle
from model.runtime.errors import BundleError
from service.cli.bundle import bundle_app
from tests.support import toy
from tests.support.paths import ROOT


@pytest.fixture
def fields(tmp_path: Path) -> dict:
    tokenizer = tmp_path / "words.json"
    toy.toy_tokenizer().save(str(tokenizer))
    return {"name": "toy", **toy.bundle_fields(tmp_path / "place" / "bundle", tokenizer)}


@pytest.fixture
def place(fields: dict) -> Path:
    fields["folder"].parent.mkdir()
    return fields["folder"]


def test_what_is_written_is_what_is_read(fields: dict, place: Path) -> None:
    fields["provenance"] = {
        "recipe": "mini",
        "data": [{"name": "photos", "licence": "CC0-1.0", "source": "a camera"}],
        "weights": [],
        "commit": "abc",
        "metrics": {"photos": {"R@1": 20.5}},
    }
    fields["calibration"] = {"kind": "logistic", "scale": 10, "bias": -3.5}
    written = write_bundle(**fields)
    opened = Bundle.open(place)
    assert opened.manifest == written
    assert opened.manifest.calibration is not None
    assert opened.manifest.calibration.scale == 10.0
    assert opened.manifest.provenance.metrics == {"photos": {"R@1": 20.5}}
    names = {"frame_encoder.onnx", "segment_encoder.onnx", "text_encoder.onnx", "tokenizer.json"}
    assert set(written.files) == names
    assert sorted(path.name for path in place.iterdir()) == sorted({*names, "bundle.json"})
    # Every field of the format stands in the file, in its order.
    content = json.loads((place / "bundle.json").read_text())
    assert list(content) == [
        *("format_version", "name", "description", "licence", "provenance", "embedding_dim", "salience_dim"),
        *("tokens_per_frame", "stored_tokens_per_frame", "hidden_dim", "text_hidden_dim"),
        *("frames_per_segment", "segment_seconds", "num_salient_frames", "num_candidates"),
        *("salience_strategy", "image", "text", "ensemble_lambda", "calibration", "files"),
    ]
    assert [path.name for path in place.parent.iterdir()] == ["bundle"]


def test_graphs_may_be_files_and_more_files_come_along(fields: dict, place: Path, tmp_path: Path) -> None:
    graph = tmp_path / "some name.onnx"
    graph.write_bytes(fields["graphs"]["text_encoder.onnx"])
    licence = tmp_path / "LICENCE.txt"
    licence.write_text("Do as you like.")
    graphs = {**fields["graphs"], "text_encoder.onnx": graph, "matcher.onnx": toy.toy_matcher()}
    manifest = write_bundle(**{**fields, "graphs": graphs, "extra_files": [licence]})
    assert {"LICENCE.txt", "matcher.onnx"} <= set(manifest.files)
    assert Bundle.open(place).encode_text(["red"]).embedding.shape == (1, 8)
    (place / "LICENCE.txt").write_text("Or not at all")
    with pytest.raises(BundleError, match=r"LICENCE\.txt"):
        Bundle.open(place)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"licence": ""}, "licence"),
        ({"embedding_dim": 9}, r"segment_encoder\.onnx: input 'frame_embedding' .* instead of .*9"),
        ({"image_size": 64}, "'frames'"),
        ({"calibration": {"kind": "logistic"}}, "calibration"),
        ({"provenance": {"recipe": "x"}}, "provenance.data"),
        ({"provenance": {"recipe": {1, 2}}}, "no JSON form"),
        ({"ensemble_lambda": float("nan")}, "no JSON form"),
        ({"tokenizer": Path("nowhere.json")}, r"nowhere\.json cannot be copied"),
        ({"graphs": {}}, "'frame_encoder.onnx' is missing"),
        ({"graphs": {**toy.toy_graphs(), "../outside.onnx": b""}}, "not a plain file name"),
        ({"graphs": {**toy.toy_graphs(), "other.onnx": b""}}, "not a graph of format version 2"),
        (
            {"graphs": {**toy.toy_graphs(), "text_encoder.onnx": b"?"}},
            "not a graph that ONNX Runtime can open",
        ),
        ({"extra_files": [Path("a/notes.txt"), Path("b/notes.txt")]}, "name of another file"),
    ],
)
def test_what_is_wrong_is_not_written(fields: dict, place: Path, change: dict, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        write_bundle(**{**fields, **change})
    assert list(place.parent.iterdir()) == []


def test_needs_a_parent(fields: dict) -> None:
    with pytest.raises(BundleError, match="is no folder: make it first"):
        write_bundle(**fields)


def test_replaces_only_when_asked(fields: dict, place: Path) -> None:
    write_bundle(**fields)
    before = Bundle.open(place).checksum
    with pytest.raises(BundleError, match="exists: choose another folder, or ask to overwrite"):
        write_bundle(**{**fields, "name": "second"})
    assert Bundle.open(place).checksum == before
    write_bundle(**{**fields, "name": "second"}, overwrite=True)
    assert Bundle.open(place).manifest.name == "second"
    assert [path.name for path in place.parent.iterdir()] == ["bundle"]


def test_a_failed_replacement_leaves_the_old_one(fields: dict, place: Path) -> None:
    write_bundle(**fields)
    with pytest.raises(BundleError):
        write_bundle(**{**fields, "image_size": 64}, overwrite=True)
    assert Bundle.open(place).manifest.name == "toy"
    assert [path.name for path in place.parent.iterdir()] == ["bundle"]


def test_never_deletes_what_is_no_bundle(fields: dict, place: Path) -> None:
    place.mkdir()
    (place / "holiday.mp4").write_bytes(b"precious")
    with pytest.raises(BundleError, match="is not a bundle and is left alone"):
        write_bundle(**fields, overwrite=True)
    assert (place / "holiday.mp4").read_bytes() == b"precious"
    (place / "holiday.mp4").unlink()
    write_bundle(**fields, overwrite=True)  # an empty folder may go
    assert Bundle.open(place).manifest.name == "toy"


def test_a_place_that_cannot_be_written(fields: dict, place: Path) -> None:
    place.parent.rmdir()
    place.parent.write_text("a file where the folder should be")
    with pytest.raises(BundleError, match="is no folder"):
        write_bundle(**fields)


# In a process of its own: it forks once per kill point, before ONNX Runtime has any thread.
KILL_EVERYWHERE = """
import json, os, shutil, sys
from pathlib import Path
from model.runtime.bundle import write_bundle
from model.runtime.bundle.files import aside_path, verify_file
from model.runtime.bundle.manifest import parse_manifest
from tests.support import toy

work = Path(sys.argv[1])
tokenizer = work / "words.json"
toy.toy_tokenizer().save(str(tokenizer))
place = work / "place" / "bundle"
fields = toy.bundle_fields(place, tokenizer)
EVENTS = {"open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "shutil.rmtree"}

def write(name, kill_at=None):
    def child():
        count = 0
        def hook(event, args):
            nonlocal count
            if event in EVENTS and str(place.parent) in str(args[0]):
                count += 1
                if count == kill_at:
                    os._exit(9)
        sys.addaudithook(hook)
        write_bundle(name=name, overwrite=True, **fields)
        os._exit(0)
    pid = os.fork()
    if pid == 0:
        try:
            child()
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def name_at(folder):
    manifest = parse_manifest((folder / "bundle.json").read_bytes(), folder)
    for name, record in manifest.files.items():
        verify_file(folder / name, record)
    return manifest.name

states = []
for kill_at in range(1, 200):
    shutil.rmtree(place.parent, ignore_errors=True)
    place.parent.mkdir()
    assert write("old") == 0
    code = write("new", kill_at)
    if code == 0:
        break
    assert code == 9, code
    if place.exists():
        state = name_at(place)
    else:
        assert name_at(aside_path(place)) == "old"
        state = "aside"
    states.append(state)
    assert write("next") == 0
    assert name_at(place) == "next"
    assert [path.name for path in place.parent.iterdir()] == ["bundle"]
print(json.dumps(states))
"""


def test_killed_at_any_point_there_is_a_whole_bundle(tmp_path: Path) -> None:
    """Before each change to the disk: the old or the new bundle is whole, and the next write succeeds."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", KILL_EVERYWHERE, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    states = json.loads(run.stdout)
    assert len(states) > 20
    # First the old one, between the two renames none in place, then the new one.
    assert states == ["old"] * states.count("old") + ["aside"] * states.count("aside") + [
        "new"
    ] * states.count("new")
    assert states.count("old") > 10
    assert states.count("aside") >= 1
    assert states.count("new") >= 1


def test_an_interrupted_replacement_says_where_the_old_one_is(fields: dict, place: Path) -> None:
    write_bundle(**fields)
    place.rename(place.with_name(".bundle.replaced"))
    with pytest.raises(BundleError, match=r"rename .*\.bundle\.replaced to bundle"):
        Bundle.open(place)


# `reelfind bundle`


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.make_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy")


def test_info(bundle: Path) -> None:
    run = CliRunner().invoke(bundle_app, ["info", str(bundle)])
    assert run.exit_code == 0
    assert "Knows eight colours." in run.stdout
    assert Bundle.open(bundle).checksum in run.stdout
    assert "text_encoder.onnx" in run.stdout
    assert "100 segments by 2 frames of 4 tokens; λ 1" in run.stdout


def test_info_json(bundle: Path) -> None:
    run = CliRunner().invoke(bundle_app, ["info", str(bundle), "--json"])
    assert run.exit_code == 0
    printed = json.loads(run.stdout)
    assert printed.pop("checksum") == Bundle.open(bundle).checksum
    assert printed.pop("folder") == str(bundle)
    assert printed == json.loads((bundle / "bundle.json").read_text())


def test_verify(bundle: Path) -> None:
    run = CliRunner().invoke(bundle_app, ["verify", str(bundle)])
    assert run.exit_code == 0
    assert "5 files are whole, and every graph runs on cpu" in run.stdout


def test_verify_json_names_what_is_not_listed(bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    (copy / "notes.txt").write_text("mine")
    run = CliRunner().invoke(bundle_app, ["verify", "--json"], env={"REELFIND_BUNDLE": str(copy)})
    assert run.exit_code == 0
    printed = json.loads(run.stdout)
    assert printed["ok"] is True
    assert printed["unlisted"] == ["notes.txt"]
    assert "frame_encoder.onnx" in printed["files"]


def test_verify_finds_a_changed_byte(bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    path = copy / "text_encoder.onnx"
    data = path.read_bytes()
    path.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    run = CliRunner().invoke(bundle_app, ["verify", str(copy), "--json"])
    assert isinstance(run.exception, BundleError)
    printed = json.loads(run.stdout)
    assert printed["ok"] is False
    assert "text_encoder.onnx" in printed["error"]


@pytest.mark.parametrize("command", ["info", "verify"])
def test_a_folder_that_does_not_exist(command: str, tmp_path: Path) -> None:
    run = CliRunner().invoke(bundle_app, [command, str(tmp_path / "nowhere")])
    assert run.exit_code == 2
    assert "nowhere" in run.output
