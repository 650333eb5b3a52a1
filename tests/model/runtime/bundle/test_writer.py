"""The bundle's writer: whole or not at all, whenever it is killed; and `reelfind bundle`."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from model.runtime.bundle import Bundle, write_bundle
from model.runtime.bundle.manifest import Calibration, ImageSpec, Provenance, SourceRecord
from model.runtime.errors import BundleError
from service.cli.app import app
from service.cli.bundle import bundle_app
from tests.support import toy_bundle as toy
from tests.support.paths import ROOT
from tests.support.toy_calibration import toy_calibration

BARE: dict[str, Any] = {"recipe": "x", "data": (), "weights": (), "commit": "none", "metrics": {}}


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    path = tmp_path / "words.json"
    toy.toy_tokenizer().save(str(path))
    return path


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "place").mkdir()
    return tmp_path / "place" / "bundle"


def test_what_is_written_is_what_is_read(place: Path, tokenizer: Path) -> None:
    provenance = Provenance(
        recipe="mini",
        data=(SourceRecord(name="photos", licence="CC0-1.0", source="a camera"),),
        weights=(),
        commit="abc",
        metrics={"photos": {"R@1": 20.5}},
    )
    description = toy.describe(provenance=provenance, calibration=toy_calibration())
    written = write_bundle(place, toy.toy_graphs(), description, tokenizer)
    opened = Bundle.open(place)
    assert opened.manifest == written
    assert opened.manifest.calibration == toy_calibration()
    assert opened.manifest.provenance == provenance
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


def test_graphs_may_be_files(place: Path, tokenizer: Path, tmp_path: Path) -> None:
    graph = tmp_path / "some name.onnx"
    graph.write_bytes(toy.toy_graphs()["text_encoder.onnx"])
    graphs: dict[str, bytes | Path] = {
        **toy.toy_graphs(),
        "text_encoder.onnx": graph,
        "matcher.onnx": toy.toy_matcher(),
    }
    manifest = write_bundle(place, graphs, toy.describe(), tokenizer)
    assert "matcher.onnx" in manifest.files
    assert Bundle.open(place).encode_text(["red"]).embedding.shape == (1, 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"licence": ""}, "licence"),
        ({"embedding_dim": 9}, r"segment_encoder\.onnx: input 'frame_embedding' .* instead of .*9"),
        ({"image": ImageSpec(size=64, resize="squash")}, "'frames'"),
        ({"calibration": Calibration.model_construct(final=None)}, "calibration"),
        ({"provenance": Provenance.model_construct(recipe="x")}, r"provenance\.data"),
        ({"provenance": Provenance(**{**BARE, "metrics": {"R@1": float("nan")}})}, "no JSON form"),
        ({"ensemble_lambda": float("nan")}, "no JSON form"),
        ({"tokens": None}, r"frame_encoder\.onnx has the outputs .*frame_tokens.* instead of"),
    ],
)
def test_a_wrong_description_is_not_written(
    place: Path, tokenizer: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        write_bundle(place, toy.toy_graphs(), toy.describe(**change), tokenizer)
    assert list(place.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("graphs", "message"),
    [
        ({}, "'frame_encoder.onnx' is missing"),
        ({**toy.toy_graphs(), "../outside.onnx": b""}, "not a plain file name"),
        ({**toy.toy_graphs(), "other.onnx": b""}, "not a graph of format version 3"),
        ({**toy.toy_graphs(), "text_encoder.onnx": b"?"}, "not a graph that ONNX Runtime can open"),
        (toy.toy_graphs(tokens=False), r"_encoder\.onnx has the outputs .* instead of .*_tokens"),
    ],
)
def test_wrong_graphs_are_not_written(
    place: Path, tokenizer: Path, graphs: dict[str, bytes], message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        write_bundle(place, graphs, toy.describe(), tokenizer)
    assert list(place.parent.iterdir()) == []


def test_a_tokenizer_that_is_missing(place: Path) -> None:
    with pytest.raises(BundleError, match=r"nowhere\.json cannot be copied"):
        write_bundle(place, toy.toy_graphs(), toy.describe(), Path("nowhere.json"))
    assert list(place.parent.iterdir()) == []


def test_a_matcher_needs_tokens(place: Path, tokenizer: Path) -> None:
    graphs = {**toy.toy_graphs(tokens=False), "matcher.onnx": toy.toy_matcher()}
    message = r"matcher\.onnx reads frame_tokens, but .* no tokens .*: leave it out, or add"
    with pytest.raises(BundleError, match=message):
        write_bundle(place, graphs, toy.describe(tokens=False), tokenizer)
    assert list(place.parent.iterdir()) == []


def test_needs_a_parent(tokenizer: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a folder: create it first"):
        write_bundle(tmp_path / "place" / "bundle", toy.toy_graphs(), toy.describe(), tokenizer)


def test_replaces_only_when_asked(place: Path, tokenizer: Path) -> None:
    write_bundle(place, toy.toy_graphs(), toy.describe(), tokenizer)
    before = Bundle.open(place).checksum
    with pytest.raises(BundleError, match="exists: choose another folder, or ask to overwrite"):
        write_bundle(place, toy.toy_graphs(), toy.describe(name="second"), tokenizer)
    assert Bundle.open(place).checksum == before
    write_bundle(place, toy.toy_graphs(), toy.describe(name="second"), tokenizer, overwrite=True)
    assert Bundle.open(place).manifest.name == "second"
    assert [path.name for path in place.parent.iterdir()] == ["bundle"]


def test_a_failed_replacement_leaves_the_old_one(place: Path, tokenizer: Path) -> None:
    write_bundle(place, toy.toy_graphs(), toy.describe(), tokenizer)
    wrong = toy.describe(image=ImageSpec(size=64, resize="squash"))
    with pytest.raises(BundleError):
        write_bundle(place, toy.toy_graphs(), wrong, tokenizer, overwrite=True)
    assert Bundle.open(place).manifest.name == "toy"
    assert [path.name for path in place.parent.iterdir()] == ["bundle"]


def test_never_deletes_what_is_no_bundle(place: Path, tokenizer: Path) -> None:
    place.mkdir()
    (place / "holiday.mp4").write_bytes(b"precious")
    with pytest.raises(BundleError, match="is not a bundle and is left alone"):
        write_bundle(place, toy.toy_graphs(), toy.describe(), tokenizer, overwrite=True)
    assert (place / "holiday.mp4").read_bytes() == b"precious"
    (place / "holiday.mp4").unlink()
    # An empty folder may go.
    write_bundle(place, toy.toy_graphs(), toy.describe(), tokenizer, overwrite=True)
    assert Bundle.open(place).manifest.name == "toy"


def test_a_place_that_cannot_be_written(place: Path, tokenizer: Path) -> None:
    place.parent.rmdir()
    place.parent.write_text("a file where the folder should be")
    with pytest.raises(BundleError, match="is not a folder"):
        write_bundle(place, toy.toy_graphs(), toy.describe(), tokenizer)


# In a process of its own: it forks once per kill point, before ONNX Runtime has any thread.
KILL_EVERYWHERE = """
import json, os, shutil, sys
from pathlib import Path
from model.runtime.bundle import write_bundle
from model.runtime.bundle.files import aside_path, verify_file
from model.runtime.bundle.manifest import parse_manifest
from tests.support import toy_bundle as toy

work = Path(sys.argv[1])
tokenizer = work / "words.json"
toy.toy_tokenizer().save(str(tokenizer))
place = work / "place" / "bundle"
graphs = toy.toy_graphs()
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
        write_bundle(place, graphs, toy.describe(name=name), tokenizer, overwrite=True)
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


@pytest.mark.slow
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


def test_an_interrupted_replacement_says_where_the_old_one_is(place: Path, tokenizer: Path) -> None:
    write_bundle(place, toy.toy_graphs(), toy.describe(), tokenizer)
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
    assert "\ncapabilities image_query, match, salient_frames\n" in run.stdout


def test_info_json(bundle: Path) -> None:
    run = CliRunner().invoke(bundle_app, ["info", str(bundle), "--json"])
    assert run.exit_code == 0
    printed = json.loads(run.stdout)
    assert printed.pop("checksum") == Bundle.open(bundle).checksum
    assert printed.pop("folder") == str(bundle)
    assert printed.pop("capabilities") == ["image_query", "match", "salient_frames"]
    assert printed == json.loads((bundle / "bundle.json").read_text())


def test_info_of_a_bundle_without_tokens(tmp_path: Path) -> None:
    bare = toy.make_toy_bundle(tmp_path / "bare", tokens=False)
    run = CliRunner().invoke(bundle_app, ["info", str(bare)])
    assert run.exit_code == 0
    assert "\ncapabilities image_query, salient_frames\n" in run.stdout
    assert "tokens" not in run.stdout.replace("at most 16 tokens", "")
    run = CliRunner().invoke(bundle_app, ["info", str(bare), "--json"])
    printed = json.loads(run.stdout)
    assert (printed["capabilities"], printed["tokens_per_frame"]) == (["image_query", "salient_frames"], None)
    run = CliRunner().invoke(bundle_app, ["verify", str(bare)])
    assert run.exit_code == 0
    assert "all 4 files are intact, and every graph runs on cpu" in run.stdout


def test_verify(bundle: Path) -> None:
    run = CliRunner().invoke(bundle_app, ["verify", str(bundle)])
    assert run.exit_code == 0
    assert "all 5 files are intact, and every graph runs on cpu" in run.stdout


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
    run = CliRunner().invoke(app, ["bundle", command, str(tmp_path / "nowhere")])
    assert run.exit_code == 2
    assert "nowhere is not a folder" in run.stderr
