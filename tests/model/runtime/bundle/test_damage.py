"""Bundles that are damaged, or that hold something else than they say: each refused, naming the file."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from model.runtime.bundle import Bundle
from model.runtime.errors import BundleError
from tests.support import toy_bundle as toy

#: what `bundle.json` says of a bundle whose encoders give no tokens
NO_TOKENS = dict.fromkeys(("tokens_per_frame", "stored_tokens_per_frame", "hidden_dim", "text_hidden_dim"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.make_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy")


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A bundle to damage."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "bundle.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def replace_file(folder: Path, name: str, data: bytes) -> None:
    """Put other content in a file, with the checksum to match."""
    (folder / name).write_bytes(data)
    record = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    change_manifest(folder, lambda content: content["files"].update({name: record}))


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"bundle\.json does not exist: name the folder"):
        Bundle.open(tmp_path / "nowhere")


def test_folder_is_a_file(copy: Path) -> None:
    with pytest.raises(BundleError, match="cannot be read"):
        Bundle.open(copy / "bundle.json")


@pytest.mark.parametrize(
    "name",
    ["frame_encoder.onnx", "matcher.onnx", "segment_encoder.onnx", "text_encoder.onnx", "tokenizer.json"],
)
@pytest.mark.parametrize("damage", ["changed", "cut", "gone", "folder"])
def test_damaged_file_is_named(copy: Path, name: str, damage: str) -> None:
    path = copy / name
    data = path.read_bytes()
    if damage == "changed":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif damage == "cut":
        path.write_bytes(data[:-1])
    else:
        path.unlink()
        if damage == "folder":
            path.mkdir()
    with pytest.raises(BundleError, match=rf"{name}.*(again|permissions)"):
        Bundle.open(copy)


def test_files_of_other_kinds_are_checked_too(copy: Path) -> None:
    replace_file(copy, "LICENCE.txt", b"Do as you like.")
    assert Bundle.open(copy).encode_text(["red"]).embedding.shape == (1, 8)
    (copy / "LICENCE.txt").write_text("Or not at all.")
    with pytest.raises(BundleError, match=r"LICENCE\.txt"):
        Bundle.open(copy)


@pytest.mark.parametrize("graph", ["frame_encoder", "text_encoder"])
def test_outputs_and_sizes_of_tokens_go_together(copy: Path, graph: str) -> None:
    """Both encoders give tokens, or neither does, and `bundle.json` says which."""
    change_manifest(copy, lambda c: (c.update(NO_TOKENS), c["files"].pop("matcher.onnx")))
    opened = Bundle.open(copy)
    with pytest.raises(BundleError, match=r"_encoder\.onnx has the outputs .*_tokens.* instead of"):
        opened.check()
    other = toy.toy_graphs(tokens=False)[f"{graph}.onnx"]
    change_manifest(copy, lambda c: c.update(tokens_per_frame=4, stored_tokens_per_frame=4))
    change_manifest(copy, lambda c: c.update(hidden_dim=3, text_hidden_dim=4))
    replace_file(copy, f"{graph}.onnx", other)
    with pytest.raises(BundleError, match=rf"{graph}\.onnx has the outputs .* instead of .*_tokens"):
        Bundle.open(copy).check()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not JSON"),
        (b"not json", "is not JSON"),
        (b'{"format_version": 1', "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b'{"format_version": NaN}', "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[1]", "no JSON object"),
        (b"{}", "format version None"),
        (
            b'{"format_version": 1}',
            "format version 1, this reelfind reads the versions 2 and 3: export the bundle again",
        ),
        (b'{"format_version": 4}', "format version 4.*upgrade reelfind"),
        (b'{"format_version": 2.0}', "format version 2.0.*export"),
        (b'{"format_version": "1"}', "format version '1'.*export"),
        (b'{"format_version": true}', "format version True"),
    ],
)
def test_unreadable_manifest(copy: Path, content: bytes, message: str) -> None:
    (copy / "bundle.json").write_bytes(content)
    with pytest.raises(BundleError, match=rf"bundle\.json.*{message}"):
        Bundle.open(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("licence"), "licence: Field required"),
        (lambda c: c.update(licence=" "), "licence"),
        (lambda c: c.update(colour="red"), "colour: Extra inputs"),
        (lambda c: c["image"].update(crop=1), "image.crop"),
        (lambda c: c["image"].update(resize="stretch"), "image.resize"),
        (lambda c: c.update(embedding_dim="8"), "embedding_dim"),
        (lambda c: c.update(embedding_dim=0), "embedding_dim"),
        (lambda c: c.update(segment_seconds=-1), "segment_seconds"),
        (lambda c: c.update(salience_strategy="guess"), "salience_strategy"),
        (lambda c: c.update(num_salient_frames=17), "num_salient_frames 17"),
        (lambda c: c.update(num_candidates=0), "num_candidates"),
        (lambda c: c.pop("text_hidden_dim"), "text_hidden_dim: Field required"),
        (
            lambda c: c.update(hidden_dim=None),
            "hidden_dim must not be null, or all of tokens_per_frame, .* must",
        ),
        (
            lambda c: c.update(NO_TOKENS),
            r"matcher\.onnx reads frame_tokens, but the encoders return no tokens",
        ),
        (lambda c: c.update(stored_tokens_per_frame=5), "stored_tokens_per_frame: 4 tokens .* merged to 5"),
        (lambda c: c.update(stored_tokens_per_frame=1), "choose 2 to 4"),
        (lambda c: c.update(calibration={"kind": "linear"}), "calibration"),
        (lambda c: c["provenance"].pop("commit"), "provenance.commit"),
        (lambda c: c["provenance"]["data"].append({"name": "x"}), "provenance.data.0.licence"),
        (lambda c: c["files"].pop("text_encoder.onnx"), "'text_encoder.onnx' is missing"),
        (lambda c: c["files"].pop("tokenizer.json"), "lists no 'tokenizer.json'"),
        (lambda c: c["text"].update(tokenizer="../tokenizer.json"), r"lists no '\.\./tokenizer.json'"),
        (lambda c: c["files"]["tokenizer.json"].update(sha256="abc"), "files.tokenizer.json.sha256"),
        (lambda c: c["files"]["tokenizer.json"].update(bytes=-1), "files.tokenizer.json.bytes"),
    ],
)
def test_wrong_manifest(copy: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    change_manifest(copy, change)
    with pytest.raises(BundleError, match=rf"bundle\.json is not valid: .*{message}"):
        Bundle.open(copy)


@pytest.mark.parametrize(
    "name",
    [
        "../outside",
        "/etc/hostname",
        "a/b",
        "a\\b",
        "..",
        ".hidden",
        "",
        "bundle.json",
        "c:x",
        "new.onnx",
        "line\n",
    ],
)
def test_file_names_that_lead_elsewhere(copy: Path, name: str) -> None:
    change_manifest(copy, lambda c: c["files"].update({name: {"sha256": "0" * 64, "bytes": 0}}))
    with pytest.raises(BundleError, match=r"bundle\.json is not valid: files: .* is not a (plain|graph)"):
        Bundle.open(copy)


# Graphs that differ from the manifest: right checksums, wrong content


def test_not_a_graph(copy: Path) -> None:
    replace_file(copy, "segment_encoder.onnx", b"no graph")
    with pytest.raises(BundleError, match=r"segment_encoder\.onnx is not a graph"):
        Bundle.open(copy).check()


def test_not_a_tokenizer(copy: Path) -> None:
    replace_file(copy, "tokenizer.json", b"{}")
    with pytest.raises(BundleError, match=r"tokenizer\.json is not a readable tokenizer"):
        Bundle.open(copy)


def test_context_shorter_than_the_special_tokens_is_found(copy: Path) -> None:
    special = {"id": "[CLS]", "ids": [1], "tokens": ["[CLS]"]}
    template = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"[CLS]": special},
    }
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    tokenizer["post_processor"] = template
    replace_file(copy, "tokenizer.json", json.dumps(tokenizer).encode())
    change_manifest(copy, lambda c: c["text"].update(context_length=1))
    with pytest.raises(BundleError, match="context_length"):
        Bundle.open(copy)


@pytest.mark.parametrize(
    ("field", "graph"),
    [
        ("embedding_dim", "segment_encoder"),
        ("salience_dim", "frame_encoder"),
        ("tokens_per_frame", "frame_encoder"),
        ("hidden_dim", "frame_encoder"),
    ],
)
def test_dimensions_differ(copy: Path, field: str, graph: str) -> None:
    change_manifest(copy, lambda c: c.update({field: c[field] + 1}))
    with pytest.raises(BundleError, match=rf"{graph}\.onnx: .* instead of .*export"):
        Bundle.open(copy).check()


def test_image_size_differs(copy: Path) -> None:
    change_manifest(copy, lambda c: c["image"].update(size=48))
    with pytest.raises(BundleError, match=r"frame_encoder\.onnx: input 'frames' .*32.* instead of .*48"):
        Bundle.open(copy).check()


def segment_graph(
    *,
    output: str = "segment_embedding",
    batch: str | int = "B",
    mask_type: int = TensorProto.FLOAT,
    open_dim: bool = False,
    factor: float = 1.0,
) -> bytes:
    """A segment encoder that takes the first frame, times `factor`."""
    nodes = [
        helper.make_node("Gather", ["frame_embedding", "first"], ["row"], axis=1),
        helper.make_node("Mul", ["row", "factor"], [output]),
    ]
    inputs = [
        ("frame_embedding", TensorProto.FLOAT, [batch, "N", "D" if open_dim else 8]),
        ("frame_mask", mask_type, [batch, "N"]),
    ]
    constants: dict[str, NDArray[Any]] = {
        "first": np.array(0, np.int64),
        "factor": np.array(factor, np.float32),
    }
    return toy.build_graph(
        nodes, inputs, [(output, TensorProto.FLOAT, [batch, "D" if open_dim else 8])], constants
    )


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (segment_graph(output="embedding"), r"outputs \['embedding'\] instead of \['segment_embedding'\]"),
        (segment_graph(batch=2), r"'frame_embedding' is tensor\(float\) \[2, 'N', 8\] instead of"),
        (segment_graph(mask_type=TensorProto.INT64), r"'frame_mask' is tensor\(int64\)"),
        (segment_graph(factor=2.0), "not of unit length"),
        (segment_graph(factor=float("nan")), "not of unit length"),
    ],
)
def test_graph_breaks_the_format(copy: Path, graph: bytes, message: str) -> None:
    replace_file(copy, "segment_encoder.onnx", graph)
    with pytest.raises(BundleError, match=rf"segment_encoder\.onnx.*{message}"):
        Bundle.open(copy).check()


def test_frames_may_be_joined_as_they_are_projected(copy: Path) -> None:
    """Then their embeddings have any length, and segments unit length nevertheless."""
    frames = toy.random_frames(3)
    before = Bundle.open(copy).encode_frames(frames)
    graph = onnx.load_from_string(toy.toy_graphs()["frame_encoder.onnx"])
    for node in graph.graph.node:
        for names in (node.input, node.output):
            names[:] = ["unit_embedding" if name == "frame_embedding" else name for name in names]
    graph.graph.node.append(helper.make_node("Mul", ["unit_embedding", "white"], ["frame_embedding"]))
    replace_file(copy, "frame_encoder.onnx", graph.SerializeToString())
    bundle = Bundle.open(copy)
    bundle.check()
    after = bundle.encode_frames(frames)
    np.testing.assert_allclose(after.embedding, 255 * before.embedding, rtol=1e-5)
    np.testing.assert_allclose(after.salience, before.salience, rtol=1e-5)
    segment = bundle.encode_segments(after.embedding[None], np.ones((1, 3), np.bool_))
    np.testing.assert_allclose(np.linalg.norm(segment, axis=1), 1, rtol=1e-5)


def test_open_dimension_is_checked_when_it_runs(copy: Path) -> None:
    replace_file(copy, "segment_encoder.onnx", segment_graph(open_dim=True))
    Bundle.open(copy).check()
    change_manifest(copy, lambda c: c.update(embedding_dim=9))
    embedding = np.eye(9, dtype=np.float32)[None, :1]
    assert Bundle.open(copy).encode_segments(embedding, np.ones((1, 1), np.float32)).shape == (1, 9)
    with pytest.raises(BundleError, match=r"frame_encoder\.onnx: output 'frame_embedding'"):
        Bundle.open(copy).check()


def test_a_graph_that_fails_says_on_what(copy: Path) -> None:
    tokenizer = toy.toy_tokenizer()
    tokenizer.add_tokens(["zebra"])  # an id beyond the graph's rows
    replace_file(copy, "tokenizer.json", tokenizer.to_str().encode())
    with pytest.raises(BundleError, match=r"text_encoder\.onnx failed on input_ids \[1, 1\]"):
        Bundle.open(copy).encode_text(["zebra"])


def test_graph_changed_after_opening(copy: Path) -> None:
    opened = Bundle.open(copy)
    graph = copy / "frame_encoder.onnx"
    graph.write_bytes(graph.read_bytes())
    with pytest.raises(BundleError, match=r"frame_encoder\.onnx changed while the bundle was open"):
        opened.encode_frames(toy.random_frames(1))
    graph.unlink()
    with pytest.raises(BundleError, match=r"frame_encoder\.onnx changed while the bundle was open"):
        opened.encode_frames(toy.random_frames(1))


def test_graphs_open_on_first_use(copy: Path) -> None:
    opened = Bundle.open(copy)
    (copy / "frame_encoder.onnx").unlink()
    np.testing.assert_allclose(opened.encode_text(["red"]).embedding[0], toy.text_embedding("red"), atol=1e-5)
