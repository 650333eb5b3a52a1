"""Bundles made to do harm: each ends in a BundleError, and the process that asked goes on."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from model.runtime.bundle import Bundle, default_bundle_path
from model.runtime.bundle.manifest import parse_manifest
from model.runtime.bundle.trial import try_bundle
from model.runtime.errors import BundleError
from model.runtime.limited import Limits, ask_child
from tests.support import toy_bundle as toy
from tests.support.command_line import check_error, invoke
from tests.support.mutations import mutated

SMALL = Limits(memory_bytes=1 << 30, cpu_seconds=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.make_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy")


@pytest.fixture
def bundle(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def replace_file(bundle: Path, name: str, data: bytes) -> None:
    """Put other content in a file, with the checksum to match."""
    (bundle / name).write_bytes(data)
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (bundle / "bundle.json").write_text(json.dumps(manifest))


def change_tokenizer(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((bundle / "tokenizer.json").read_text())
    change(content)
    replace_file(bundle, "tokenizer.json", json.dumps(content).encode())


def trial(bundle: Path, limits: Limits = SMALL) -> None:
    data = (bundle / "bundle.json").read_bytes()
    try_bundle(bundle, parse_manifest(data, bundle), hashlib.sha256(data).hexdigest(), limits)


def normalizers(*parts: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.update(normalizer={"type": "Sequence", "normalizers": list(parts)})


DOUBLING = {"type": "Replace", "pattern": {"String": "x"}, "content": "xx"}
STUFFING = {"type": "Replace", "pattern": {"Regex": ""}, "content": "x" * 1000}
BOMBS = {
    "a character map that makes Rust abort": normalizers(
        {"type": "Precompiled", "precompiled_charsmap": "/////w=="}
    ),
    "text that doubles forty times": normalizers({"type": "Prepend", "prepend": "x"}, *[DOUBLING] * 40),
    "text that grows a thousandfold": normalizers(*[STUFFING] * 8),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_tokenizers_that_end_or_fill_a_process(bundle: Path, name: str) -> None:
    change_tokenizer(bundle, BOMBS[name])
    with pytest.raises(BundleError, match=r"ended the process that tried it \(.*do not use it"):
        trial(bundle)


@pytest.mark.parametrize("command", [["bundle", "info"], ["bundle", "verify"]])
def test_the_command_that_opens_one_goes_on_to_say_so(bundle: Path, command: list[str]) -> None:
    change_tokenizer(bundle, BOMBS["a character map that makes Rust abort"])
    check_error(invoke(*command, bundle), 3, r"ended the process that tried it \(SIGABRT\): do not use it")


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(model={"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": ["a b"]}),
        normalizers({"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
    ],
)
def test_a_panic_is_an_error(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    change_tokenizer(bundle, change)
    with pytest.raises(
        BundleError, match=r"is not a readable tokenizer file: panic: .*export the bundle again"
    ):
        Bundle.open(bundle)


def test_a_text_on_which_the_tokenizer_panics(bundle: Path) -> None:
    pattern = {"Regex": "(x+x+)+y"}
    split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
    change_tokenizer(bundle, lambda content: content.update(pre_tokenizer=split))
    opened = Bundle.open(bundle)
    for call in (lambda: opened.encode_text(["x" * 64]), lambda: opened.text_reader.read("x" * 64, 8)):
        with pytest.raises(BundleError, match="tokenizer fails on this text: panic"):
            call()
    assert opened.encode_text(["red"]).embedding.shape == (1, 8)


def segment_encoder(bomb: list[Any]) -> bytes:
    """A graph of the format whose output also depends on the scalar `bomb`, which these nodes compute."""
    nodes = [
        helper.make_node("ReduceMean", ["frame_embedding"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("ReduceSum", ["frame_mask"], ["unused"], keepdims=0),
        *bomb,
        helper.make_node("Mul", ["bomb", "unused"], ["both"]),
        helper.make_node("Add", ["mean", "both"], ["segment_embedding"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "segment_encoder",
        [
            value("frame_embedding", TensorProto.FLOAT, ["B", "N", toy.DIM]),
            value("frame_mask", TensorProto.FLOAT, ["B", "N"]),
        ],
        [value("segment_embedding", TensorProto.FLOAT, ["B", toy.DIM])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data


def constant(name: str, kind: int, values: list[Any], shape: list[int] | None = None) -> Any:
    tensor = helper.make_tensor(name, kind, [len(values)] if shape is None else shape, values)
    return helper.make_node("Constant", [], [name], value=tensor)


def huge_constant() -> list[Any]:
    shape = constant("shape", TensorProto.INT64, [1 << 19, 1 << 20])
    fill = helper.make_node("ConstantOfShape", ["shape"], ["fill"])
    return [shape, fill, helper.make_node("ReduceSum", ["fill"], ["bomb"], keepdims=0)]


def endless_loop() -> list[Any]:
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_in"], ["go_out"]),
            helper.make_node("Cos", ["state_in"], ["state_out"]),
        ],
        "body",
        [
            value("turn", TensorProto.INT64, []),
            value("go_in", TensorProto.BOOL, []),
            value("state_in", TensorProto.FLOAT, []),
        ],
        [value("go_out", TensorProto.BOOL, []), value("state_out", TensorProto.FLOAT, [])],
    )
    return [
        constant("turns", TensorProto.INT64, [1 << 60], []),
        constant("go", TensorProto.BOOL, [True], []),
        helper.make_node("Loop", ["turns", "go", "unused"], ["bomb"], body=body),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bomb", "said"),
    [
        (huge_constant, "takes more memory than a bundle may"),
        (endless_loop, "ended the process that tried it"),
    ],
)
def test_graphs_that_take_all_memory_or_time(bundle: Path, bomb: Callable[[], list[Any]], said: str) -> None:
    replace_file(bundle, "segment_encoder.onnx", segment_encoder(bomb()))
    with pytest.raises(BundleError, match=rf"{said}.*do not use it"):
        trial(bundle)


def test_graphs_that_read_elsewhere_or_need_code(bundle: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(4))
    for location in (str(secret), "../secret"):
        tensor = TensorProto(name="bomb", data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value=location)
        graph = helper.make_node("Constant", [], ["bomb"], value=tensor)
        replace_file(bundle, "segment_encoder.onnx", segment_encoder([graph]))
        with pytest.raises(BundleError, match=r"segment_encoder\.onnx"):
            Bundle.open(bundle).check()
    own = helper.make_node("Own", ["unused"], ["bomb"], domain="evil.example")
    replace_file(bundle, "segment_encoder.onnx", segment_encoder([own]))
    with pytest.raises(BundleError, match=r"segment_encoder\.onnx is not a graph"):
        Bundle.open(bundle).check()


def test_a_bundle_is_tried_once(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def counted(module: str, arguments: list[str], limits: Limits) -> list[str]:
        tried.append(arguments[0])
        return ask_child(module, arguments, limits)

    monkeypatch.setattr("model.runtime.bundle.trial.ask_child", counted)
    Bundle.open(default_bundle_path())
    assert tried == []
    Bundle.open(bundle)
    Bundle.open(bundle)
    assert tried == [str(bundle)]
    toy.make_toy_bundle(bundle.parent / "written here", name="another")
    Bundle.open(bundle.parent / "written here")
    assert tried == [str(bundle)]


def test_one_that_cannot_be_remembered_is_opened_all_the_same(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert Bundle.open(bundle).encode_text(["red"]).embedding.shape == (1, 8)


@pytest.mark.slow
def test_changed_bytes_in_any_file_end_in_an_error_or_in_nothing(folder: Path, tmp_path: Path) -> None:
    """Some hundred mutations, each with the checksum to match, opened in one process that must survive."""
    rng = np.random.default_rng(9)
    bundles = []
    names = sorted(path.name for path in folder.iterdir() if path.name != "bundle.json")
    for number in range(100):
        target = Path(shutil.copytree(folder, tmp_path / "many" / str(number)))
        name = names[number % len(names)]
        replace_file(target, name, mutated((target / name).read_bytes(), rng))
        bundles.append(target)
    for number in range(100):
        target = Path(shutil.copytree(folder, tmp_path / "many" / f"manifest {number}"))
        path = target / "bundle.json"
        path.write_bytes(mutated(path.read_bytes(), rng))
        bundles.append(target)
    run = subprocess.run(
        [sys.executable, "-c", _OPEN_ALL, *map(str, bundles)],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    outcomes = run.stdout.split()
    assert len(outcomes) == len(bundles)
    assert set(outcomes) == {"BundleError", "opened"}


_OPEN_ALL = """
import sys
from model.runtime.bundle import Bundle
from model.runtime.bundle import trial
from model.runtime.errors import BundleError, InputError
from model.runtime.limited import ChildEndedError

def in_a_fork(module, arguments, limits):
    # As `ask_child`, without importing all libraries again for each bundle.
    import os, signal
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(write, 1)
        sys.stderr.close()
        rest = trial.limit_this_process([str(limits.memory_bytes), "20", *arguments])
        trial.answer(trial._problems(trial.Path(rest[0])))
        os._exit(0)
    os.close(write)
    with open(read) as pipe:
        text = pipe.read()
    status = os.waitpid(child, 0)[1]
    if status or not text:
        raise ChildEndedError(str(status))
    import json
    return json.loads(text)

trial.ask_child = in_a_fork
for folder in sys.argv[1:]:
    try:
        Bundle.open(folder).check()
        print("opened", flush=True)
    except BundleError:
        print("BundleError", flush=True)
"""


def test_a_pipe_in_place_of_a_file(bundle: Path) -> None:
    replace_file(bundle, "LICENCE.txt", b"")
    (bundle / "LICENCE.txt").unlink()
    os.mkfifo(bundle / "LICENCE.txt")
    with pytest.raises(BundleError, match=r"LICENCE\.txt cannot be read \(it is no regular file\)"):
        Bundle.open(bundle)
