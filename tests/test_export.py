"""Export: ONNX equals PyTorch, weights stored smaller, bundles that open, and refusals."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from model.config import to_mapping  # noqa: E402
from model.data import read_captions  # noqa: E402
from model.evaluate import BundleEncoder, TowersEncoder, evaluate_photos  # noqa: E402
from model.export import (  # noqa: E402
    StorageChoice,
    export_bundle,
    load_checkpoint,
    load_checkpoints,
)
from model.graphs import (  # noqa: E402
    FRAME,
    SEGMENT,
    TEXT,
    check_graph,
    graphs_of,
    run_onnx,
    to_onnx,
)
from model.lgdn import LGDN, Towers  # noqa: E402
from model.runtime.bundle import Bundle  # noqa: E402
from model.runtime.preprocess import TextTokenizer  # noqa: E402
from model.storage import quantise, store  # noqa: E402
from tests.tiny_training import make_photos, make_tokenizer, tiny_config  # noqa: E402

PROVENANCE = {
    "recipe": "tiny",
    "data": [{"name": "generated", "licence": "CC0-1.0", "source": "tests"}],
    "weights": [],
    "commit": "none",
    "metrics": {},
}


@pytest.fixture(scope="module")
def towers() -> Towers:
    torch.manual_seed(0)
    made = Towers(tiny_config(Path(), Path()).model).eval()
    for parameter in (*made.temporal.parameters(), *made.class_projection.parameters()):
        torch.nn.init.normal_(parameter, std=0.3)
    return made


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json")


@pytest.fixture(scope="module")
def exported(towers: Towers) -> dict[str, onnx.ModelProto]:
    return {name: to_onnx(graph) for name, graph in graphs_of(towers).items()}


def test_graphs_equal_pytorch_at_other_sizes_than_traced(
    towers: Towers, exported: dict[str, onnx.ModelProto]
) -> None:
    generator = torch.Generator().manual_seed(3)
    graphs = graphs_of(towers)
    for batch in (1, 5):
        frames = torch.randint(0, 256, (batch, 48, 48, 3), generator=generator, dtype=torch.uint8)
        ids = torch.randint(1, 100, (batch, 3 + batch), generator=generator)
        embeddings = torch.randn(batch, 3, 16, generator=generator)
        cases = {
            FRAME: (frames,),
            SEGMENT: (embeddings, torch.tensor([[1.0, 1.0, 0.0]] * batch)),
            TEXT: (ids, torch.ones_like(ids)),
        }
        for name, inputs in cases.items():
            graph = dataclasses.replace(graphs[name], example=inputs)
            assert check_graph(name, graph, exported[name].SerializeToString(), 1e-4) < 1e-4


def test_the_frame_graph_normalises_pixels_itself(
    towers: Towers, exported: dict[str, onnx.ModelProto], tokenizer: Path
) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 3), dtype=np.uint8)
    embedding, salience, tokens = run_onnx(exported[FRAME].SerializeToString(), {"frames": frames})
    encoder = TowersEncoder(towers, TextTokenizer.from_file(tokenizer, 16))
    np.testing.assert_allclose(embedding, encoder.frames(frames), atol=1e-5)
    np.testing.assert_array_equal(salience, embedding)
    with torch.no_grad():
        pooled = towers.encode_maps(towers.frozen_maps(torch.from_numpy(frames)))[1]
        projected = towers.frame_projection(pooled).numpy()
        classes = towers.class_projection(torch.softmax(towers.classifier(pooled) / 2, -1)).numpy()
    np.testing.assert_allclose(tokens.mean(1), projected, atol=1e-4)
    whole = projected + classes
    np.testing.assert_allclose(embedding, whole / np.linalg.norm(whole, axis=1, keepdims=True), atol=1e-5)


def test_graphs_do_not_tell_where_they_were_made(exported: dict[str, onnx.ModelProto]) -> None:
    for model in exported.values():
        assert str(Path(__file__).parent.parent).encode() not in model.SerializeToString()
        assert b"graphs.py" not in model.SerializeToString()


def test_a_graph_of_other_weights_is_refused(towers: Towers, exported: dict[str, onnx.ModelProto]) -> None:
    other = copy.deepcopy(exported[TEXT])
    weights = next(t for t in other.graph.initializer if len(t.dims) == 2 and t.dims[0] == t.dims[1])
    flipped = np.ascontiguousarray(numpy_helper.to_array(weights)[::-1])
    weights.CopyFrom(numpy_helper.from_array(flipped, weights.name))
    with pytest.raises(ValueError, match=r"text_encoder\.onnx: text_embedding differs from PyTorch by"):
        check_graph(TEXT, graphs_of(towers)[TEXT], other.SerializeToString(), 1e-4)


def test_a_graph_that_mixes_rows_is_refused(towers: Towers) -> None:
    class Mixing(torch.nn.Module):
        def forward(self, frame_embedding: torch.Tensor, frame_mask: torch.Tensor) -> torch.Tensor:
            return frame_embedding.mean(1) + frame_embedding.mean((0, 1)) + 0 * frame_mask[:, :1]

    graph = dataclasses.replace(graphs_of(towers)[SEGMENT], module=Mixing())
    with pytest.raises(ValueError, match="of a batch and of a single row differ by"):
        check_graph(SEGMENT, graph, to_onnx(graph).SerializeToString(), 1e-4)


def test_nothing_is_written_when_a_graph_differs(
    towers: Towers, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.export.TOLERANCE", {"float32": 1e-4, "float16": 1e-9, "int8": 1e-9})
    with pytest.raises(ValueError, match="not exported: store its weights in a larger type"):
        export_bundle(tmp_path / "bundle", copy.deepcopy(towers), tokenizer, PROVENANCE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 2, 2)])
@pytest.mark.parametrize("axis", [0, 1])
def test_int8_is_within_half_a_step_of_each_channel(shape: tuple[int, ...], axis: int) -> None:
    weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    weight[0] = 0
    values, scale = quantise(weight, axis)
    assert values.dtype == np.int8
    assert scale.shape == tuple(n if i == axis else 1 for i, n in enumerate(shape))
    assert (np.abs(values * scale - weight) <= scale / 2 + 1e-7).all()


def test_stored_weights_are_small_and_read_back() -> None:
    rng = np.random.default_rng(0)
    table, matrix = rng.normal(size=(100, 64)), rng.normal(size=(64, 80))
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "ids"], ["rows"]),
            helper.make_node("MatMul", ["rows", "m"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["B"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", 80])],
        [
            numpy_helper.from_array(table.astype(np.float32), "table"),
            numpy_helper.from_array(matrix.astype(np.float32), "m"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    ids = np.array([3, 99, 0, 3])
    exact = table[ids] @ matrix
    sizes = {}
    for kind, tolerance in (("float32", 1e-5), ("float16", 2e-2), ("int8", 0.5)):
        content = store(copy.deepcopy(model), kind).SerializeToString()
        sizes[kind] = len(content)
        np.testing.assert_allclose(run_onnx(content, {"ids": ids})[0], exact, atol=tolerance)
    assert sizes["int8"] < 0.6 * sizes["float16"] < 0.36 * sizes["float32"]
    mixed = store(copy.deepcopy(model), "float32", "int8")
    kinds = {t.name: t.data_type for t in mixed.graph.initializer}
    assert kinds["m"] == TensorProto.FLOAT
    assert kinds["table_i8"] == TensorProto.INT8
    with pytest.raises(ValueError, match="unknown storage 'int4': use one of float32, float16, int8"):
        store(model, "int4")


def test_a_bundle_measures_like_the_model_it_came_from(
    towers: Towers, tokenizer: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    manifest = export_bundle(
        folder,
        copy.deepcopy(towers),
        tokenizer,
        PROVENANCE,
        StorageChoice("float16", "int8", "int8"),
        name="tiny",
    )
    assert (manifest.embedding_dim, manifest.salience_strategy, manifest.image.size) == (16, "simdot", 48)
    assert manifest.tokens_per_frame == 4
    bundle = Bundle.open(folder)
    photos = read_captions(make_photos(tmp_path / "data"), "val")
    theirs = BundleEncoder(bundle)
    ours = TowersEncoder(towers, TextTokenizer.from_file(tokenizer, 16))
    frames = np.stack([photos.load(i, 48) for i in range(4)])
    np.testing.assert_allclose(theirs.frames(frames), ours.frames(frames), atol=0.02)
    texts = ["a red block left", "blue"]
    np.testing.assert_allclose(theirs.texts(texts), ours.texts(texts), atol=0.05)
    a, b = evaluate_photos(theirs, photos), evaluate_photos(ours, photos)
    assert a["text_to_video"]["MnR"] == pytest.approx(b["text_to_video"]["MnR"], abs=2)


def test_checkpoints_are_read_averaged_and_refused(tmp_path: Path) -> None:
    config = tiny_config(Path(), Path())
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        models.append(LGDN(config.model))
        torch.save({"config": to_mapping(config), "model": models[-1].state_dict()}, tmp_path / f"{seed}.pt")
    _, mean = load_checkpoints([tmp_path / "0.pt", tmp_path / "1.pt"], "online")
    a, b = (m.online.text_projection.weight for m in models)
    torch.testing.assert_close(mean.text_projection.weight, (a + b) / 2)
    other = dataclasses.replace(config, model=dataclasses.replace(config.model, dim=8))
    torch.save({"config": to_mapping(other), "model": LGDN(other.model).state_dict()}, tmp_path / "2.pt")
    with pytest.raises(ValueError, match="they cannot be averaged"):
        load_checkpoints([tmp_path / "0.pt", tmp_path / "2.pt"])
    with pytest.raises(ValueError, match=r"no checkpoint .*none\.pt: train first"):
        load_checkpoint(tmp_path / "none.pt")
    with pytest.raises(ValueError, match="choose momentum or online"):
        load_checkpoint(tmp_path / "0.pt", "both")
