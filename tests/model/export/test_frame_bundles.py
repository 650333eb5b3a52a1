"""The bundle whose frame encoder a model of features is joined with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import onnx
from onnx import TensorProto, helper, numpy_helper

from model.export.bundle import ExportOptions, export_bundle
from model.export.codes import nearest
from model.export.frame_bundles import FrameBundle, check_features, join
from model.export.storage import store
from model.runtime.bundle import Bundle
from model.runtime.bundle.integer_products import replace_products
from model.runtime.bundle.manifest import Moments
from tests.support import toy_bundle as toy
from tests.support.exported_lgdn import PROVENANCE, exportable_model, run_onnx
from tests.support.tiny_feel import tiny_feel


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(toy.make_toy_bundle(tmp_path_factory.mktemp("frames") / "toy"), threads=1)


def doubled(opset: int) -> bytes:
    """A graph that doubles an embedding; its names are also those of the toy frame encoder."""
    node = helper.make_node("Add", ["features", "features"], ["frame_embedding"])
    tensors = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", 8])
        for name in ("features", "frame_embedding")
    ]
    graph = helper.make_graph([node], "double", tensors[:1], tensors[1:])
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", opset)])
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("opset", [18, 20])
def test_joined_graphs_compute_one_after_the_other(bundle: Bundle, opset: int) -> None:
    first = FrameBundle(bundle, 1.0).frame_encoder
    joined = join(first, doubled(opset), "frame_embedding", "features")
    model = onnx.load_from_string(joined)
    assert [value.name for value in model.graph.input] == ["frames"]
    assert [value.name for value in model.graph.output] == ["frame_embedding"]
    frames = toy.random_frames(3)
    (found,) = run_onnx(joined, {"frames": frames})
    np.testing.assert_allclose(found, 2 * toy.frame_embedding(frames), rtol=1e-5)


def test_coarse_codes_are_multiplied_as_such() -> None:
    weight = np.random.default_rng(0).normal(size=(256, 128)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["frame_embedding"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 256])],
        [helper.make_tensor_value_info("frame_embedding", TensorProto.FLOAT, ["B", 128])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    store(model, "int8", "int8", {"weight": nearest(weight, np.full((1, 1), 0.3, np.float32))})
    first = model.SerializeToString()
    joined = onnx.load_from_string(join(first, doubled(20), "frame_embedding", "features"))
    assert replace_products(joined, many_rows=True) == 1
    assert "MatMulInteger" in {node.op_type for node in joined.graph.node}
    rows = np.random.default_rng(1).normal(size=(5, 256)).astype(np.float32)
    (found,) = run_onnx(joined.SerializeToString(), {"x": rows})
    assert np.abs(found - 2 * rows @ weight).max() < 0.2 * np.abs(2 * rows @ weight).max()


@pytest.mark.parametrize(("every", "frames"), [(0.5, 16), (1.5, 16), (2.0, 16), (5.0, 6), (32.0, 1)])
def test_segments_have_frames_as_far_apart_as_features(bundle: Bundle, every: float, frames: int) -> None:
    described = replace(toy.describe(), frames_per_segment=100, num_salient_frames=1)
    found = FrameBundle(bundle, every).describe(described, ["moment_head.onnx"])
    assert (found.frames_per_segment, found.segment_seconds) == (frames, frames * every)
    assert found.segment_seconds <= 32
    assert found.moments == Moments(every_seconds=every)
    assert FrameBundle(bundle, every).describe(described, []).moments is None


def test_what_does_not_fit_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data.every_seconds=40 is longer than a segment of a library, 32"):
        FrameBundle(bundle, 40.0)
    with pytest.raises(ValueError, match="makes embeddings of 8 numbers, and the model reads features of 6"):
        export(tmp_path, ExportOptions(frames=FrameBundle(bundle, 1.5)))
    with pytest.raises(ValueError, match="family=feel reads features, and a bundle needs a frame encoder"):
        export(tmp_path, ExportOptions())
    options = ExportOptions(frames=FrameBundle(bundle, 1.5))
    with pytest.raises(ValueError, match="family=lgdn has a frame encoder of its own: leave it out"):
        export_bundle(tmp_path / "b", "lgdn", exportable_model(), tmp_path / "t", PROVENANCE, options)
    assert not any(tmp_path.iterdir())


def export(folder: Path, options: ExportOptions) -> None:
    export_bundle(folder / "b", "feel", tiny_feel(), folder / "tokenizer.json", PROVENANCE, options)


def test_the_features_tell_which_bundle_made_them(bundle: Bundle, tmp_path: Path) -> None:
    said: list[str] = []
    check_features([str(tmp_path)], bundle, said.append)
    assert said == [
        f"{tmp_path}/features.json cannot be read: whether {bundle.folder} made the features is not checked"
    ]
    with pytest.raises(ValueError, match="reads 2 joined sets of features, and a bundle has one frame encod"):
        check_features(["a", "b"], bundle, said.append)
    record = tmp_path / "features.json"
    record.write_text(f'{{"bundle": "toy", "bundle_sha256": "{bundle.checksum}"}}')
    check_features([str(tmp_path)], bundle, said.append)
    assert len(said) == 1
    record.write_text('{"bundle": "mini", "bundle_sha256": "0f"}')
    with pytest.raises(ValueError, match="the bundle 'mini' with the SHA-256 0f made the features of"):
        check_features([str(tmp_path)], bundle, said.append)
