"""Export: ONNX equals PyTorch, weights stored smaller, bundles that open, and refusals."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from model.data.photos import read_photos  # noqa: E402
from model.evaluation.corpus import TokenOptions  # noqa: E402
from model.evaluation.encoders import BundleEncoder  # noqa: E402
from model.evaluation.evaluate import evaluate_source  # noqa: E402
from model.evaluation.measure import Options  # noqa: E402
from model.export.bundle import TOLERANCE, ExportOptions, StorageChoice, export_bundle  # noqa: E402
from model.export.storage import quantise_weight, share, store  # noqa: E402
from model.export.tracing import ExportError, check_graph, to_onnx  # noqa: E402
from model.families.base import Graph, InferenceOptions  # noqa: E402
from model.families.lgdn.config import STRATEGIES  # noqa: E402
from model.families.lgdn.encoder import TowersEncoder  # noqa: E402
from model.families.lgdn.graphs import graphs_of  # noqa: E402
from model.families.lgdn.inference import InferenceModel  # noqa: E402
from model.families.lgdn.network import LGDN  # noqa: E402
from model.runtime.bundle import Bundle  # noqa: E402
from model.runtime.bundle.graphs import FRAME_ENCODER, MATCHER, SEGMENT_ENCODER, TEXT_ENCODER  # noqa: E402
from model.runtime.bundle.manifest import Provenance, SourceRecord  # noqa: E402
from model.runtime.errors import InputError  # noqa: E402
from model.runtime.preprocessing import TextTokenizer  # noqa: E402
from model.settings import to_mapping  # noqa: E402
from model.training.checkpoints import load_checkpoint, load_checkpoints  # noqa: E402
from tests.support.paths import ROOT  # noqa: E402
from tests.support.tiny_training import make_photos, make_tokenizer, tiny_config  # noqa: E402

PROVENANCE = Provenance(
    recipe="tiny",
    data=(SourceRecord(name="generated", licence="CC0-1.0", source="tests"),),
    weights=(),
    commit="none",
    metrics={},
)


def tiny_model(fusion: str = "joint") -> LGDN:
    """A model whose online and momentum towers differ, and whose fusion and temporal layer do something."""
    torch.manual_seed(0)
    config = dataclasses.replace(tiny_config(Path(), Path()).model, fusion=fusion, fusion_dim=32)
    model = LGDN(config)
    with torch.no_grad():
        for parameter in (*model.online.temporal.parameters(), *model.online.class_projection.parameters()):
            torch.nn.init.normal_(parameter, std=0.3)
        torch.nn.init.normal_(model.fusion.head.weight, std=1.0)
        model.reset_momentum()
        for parameter in (p for p in model.online.parameters() if p.requires_grad):
            parameter.add_(torch.randn_like(parameter) * 0.1)
        model.fusion.head.bias.add_(torch.tensor([0.0, 3.0]))
    return model.eval()


def run_onnx(content: bytes, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    outputs: list[NDArray[np.float32]] = session.run(None, dict(inputs))
    return outputs


@pytest.fixture(scope="module")
def model() -> LGDN:
    return tiny_model()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json")


@pytest.fixture(scope="module")
def graphs(model: LGDN) -> dict[str, Graph]:
    return graphs_of(InferenceModel(model, "momentum", "collaborative"))


@pytest.fixture(scope="module")
def exported(graphs: dict[str, Graph]) -> dict[str, onnx.ModelProto]:
    return {name: to_onnx(graph) for name, graph in graphs.items()}


def test_graphs_equal_pytorch_at_other_sizes_than_traced(
    graphs: dict[str, Graph], exported: dict[str, onnx.ModelProto]
) -> None:
    generator = torch.Generator().manual_seed(3)
    for batch in (1, 5):
        frames = torch.randint(0, 256, (batch, 48, 48, 3), generator=generator, dtype=torch.uint8)
        ids = torch.randint(1, 100, (batch, 3 + batch), generator=generator)
        embeddings = torch.randn(batch, 3, 16, generator=generator)
        words = torch.randn(batch, 2 * batch, 16, generator=generator)
        cells = torch.randn(batch, 1 + batch, 16, generator=generator)
        lengths = torch.randint(1, 2 * batch + 1, (batch, 1), generator=generator)
        mask = (torch.arange(2 * batch)[None, :] < lengths).long()
        cases = {
            FRAME_ENCODER: (frames,),
            SEGMENT_ENCODER: (embeddings, torch.tensor([[1.0, 1.0, 0.0]] * batch)),
            TEXT_ENCODER: (ids, torch.ones_like(ids)),
            MATCHER: (words, mask, cells),
        }
        assert cases.keys() == graphs.keys()
        for name, inputs in cases.items():
            graph = dataclasses.replace(graphs[name], example=inputs, others=())
            assert check_graph(name, graph, exported[name].SerializeToString(), 1e-4) < 1e-4


def test_graphs_are_checked_at_several_sizes_before_they_are_written(graphs: dict[str, Graph]) -> None:
    shapes = {
        name: {tuple(tensor.shape[:2] for tensor in inputs) for inputs in (graph.example, *graph.others)}
        for name, graph in graphs.items()
    }
    assert {len(frames) for frames in shapes[FRAME_ENCODER]} == {1}
    for name in (SEGMENT_ENCODER, TEXT_ENCODER, MATCHER):
        assert len({inputs[0][1] for inputs in shapes[name]}) > 1, name
    assert len({inputs[2][1] for inputs in shapes[MATCHER]}) > 1


@pytest.mark.parametrize("weights", ["momentum", "online"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_salience_vectors_hold_the_strategy(model: LGDN, strategy: str, weights: str) -> None:
    """Their dot product is the relevance of Table 1, by the embeddings of online and momentum towers."""
    made = graphs_of(InferenceModel(model, weights, strategy), matcher=False)
    frames, ids, mask = *made[FRAME_ENCODER].example, *made[TEXT_ENCODER].example
    with torch.no_grad():
        embedding, frame_salience, _ = made[FRAME_ENCODER].module(frames)
        text_embedding, text_salience, _ = made[TEXT_ENCODER].module(ids, mask)
        f, f_hat = (t.encode_frames(frames).embedding for t in (model.online, model.momentum))
        l, l_hat = (t.encode_text(ids, mask).embedding for t in (model.online, model.momentum))  # noqa: E741
    served = (f, l) if weights == "online" else (f_hat, l_hat)
    torch.testing.assert_close(embedding, served[0])
    torch.testing.assert_close(text_embedding, served[1])
    # SimDot reads the towers that are served only.
    embeddings = (*served, *served) if strategy == "simdot" else (f, l, f_hat, l_hat)
    for i in range(2):
        for j in range(2):
            a, b, a_hat, b_hat = embeddings[0][i], embeddings[1][j], embeddings[2][i], embeddings[3][j]
            by_table = {
                "simdot": a @ b,
                "momentum": a @ b + a_hat @ b_hat,
                "crossmom": a_hat @ b + a @ b_hat,
                "collaborative": (a + a_hat) @ (b + b_hat),
            }[strategy]
            assert float(frame_salience[i] @ text_salience[j]) == pytest.approx(float(by_table), abs=1e-5)


def test_the_frame_graph_normalises_pixels_itself(
    model: LGDN, exported: dict[str, onnx.ModelProto], tokenizer: Path
) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 3), dtype=np.uint8)
    found = run_onnx(exported[FRAME_ENCODER].SerializeToString(), {"frames": frames})
    encoder = TowersEncoder(model, TextTokenizer.from_file(tokenizer, 16), strategy="collaborative")
    expected = encoder.frames(frames, tokens=True)
    for have, want in zip(found, (expected.embedding, expected.salience, expected.tokens), strict=True):
        np.testing.assert_allclose(have, want, atol=1e-5)


def test_what_both_towers_share_is_stored_and_computed_once(model: LGDN) -> None:
    both = graphs_of(InferenceModel(model, "momentum", "collaborative"))
    alone = graphs_of(InferenceModel(model, "momentum", "simdot"))
    sizes, convolutions = {}, {}
    for name, graphs in (("both", both), ("alone", alone)):
        made = to_onnx(graphs[FRAME_ENCODER])
        sizes[name] = sum(numpy_helper.to_array(t).size for t in made.graph.initializer)
        convolutions[name] = sum(node.op_type == "Conv" for node in made.graph.node)
    frozen = {id(p) for p in model.online.image.parameters() if not p.requires_grad}
    assert frozen
    assert sizes["both"] < 2 * sizes["alone"]
    stem = convolutions["alone"] * 2 - convolutions["both"]
    prepared = [m for m in model.online.image.modules() if isinstance(m, torch.nn.Conv2d)]
    # All convolutions of the first two stages, which `prepare` runs.
    assert 0 < stem < len(prepared)


def test_sharing_keeps_what_a_graph_computes() -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(size=(3, 3)).astype(np.float32)
    other = one + 1
    node = helper.make_node
    graph = helper.make_graph(
        [
            node("MatMul", ["x", "a"], ["p"]),
            node("MatMul", ["x", "b"], ["q"]),  # the same as p, by an equal weight
            node("MatMul", ["x", "c"], ["r"]),
            node("Relu", ["p"], ["rp"]),
            node("Relu", ["q"], ["rq"]),  # the same, once q is p
            node("Softmax", ["p"], ["s0"], axis=0),
            node("Softmax", ["q"], ["s1"], axis=1),  # another attribute
            node("Sum", ["rp", "rq", "r", "s0", "s1"], ["y"]),
            node("Identity", ["rp"], ["z"]),
            node("Identity", ["rq"], ["w"]),  # an output keeps its name
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", 3]) for name in ("y", "z", "w")],
        [numpy_helper.from_array(value, name) for name, value in (("a", one), ("b", one), ("c", other))],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    x = rng.normal(size=(4, 3)).astype(np.float32)
    before = run_onnx(made.SerializeToString(), {"x": x})
    shared = share(copy.deepcopy(made))
    for have, want in zip(run_onnx(shared.SerializeToString(), {"x": x}), before, strict=True):
        np.testing.assert_array_equal(have, want)
    assert [t.name for t in shared.graph.initializer] == ["a", "c"]
    kinds = [n.op_type for n in shared.graph.node]
    assert kinds == ["MatMul", "MatMul", "Relu", "Softmax", "Softmax", "Sum", "Identity", "Identity"]


def test_graphs_do_not_tell_where_they_were_made(exported: dict[str, onnx.ModelProto]) -> None:
    for model in exported.values():
        assert str(ROOT).encode() not in model.SerializeToString()
        assert b"graphs.py" not in model.SerializeToString()


def test_a_graph_of_other_weights_is_refused(
    graphs: dict[str, Graph], exported: dict[str, onnx.ModelProto]
) -> None:
    other = copy.deepcopy(exported[TEXT_ENCODER])
    weights = next(t for t in other.graph.initializer if len(t.dims) == 2 and t.dims[0] == t.dims[1])
    flipped = np.ascontiguousarray(numpy_helper.to_array(weights)[::-1])
    weights.CopyFrom(numpy_helper.from_array(flipped, weights.name))
    with pytest.raises(ExportError, match=r"text_encoder\.onnx: text_\w+ differs from PyTorch by"):
        check_graph(TEXT_ENCODER, graphs[TEXT_ENCODER], other.SerializeToString(), 1e-4)


def test_a_graph_that_mixes_rows_is_refused(graphs: dict[str, Graph]) -> None:
    class Mixing(torch.nn.Module):
        def forward(self, frame_embedding: torch.Tensor, frame_mask: torch.Tensor) -> torch.Tensor:
            return frame_embedding.mean(1) + frame_embedding.mean((0, 1)) + 0 * frame_mask[:, :1]

    graph = dataclasses.replace(graphs[SEGMENT_ENCODER], module=Mixing())
    with pytest.raises(ExportError, match="of a batch and of a single row differ by"):
        check_graph(SEGMENT_ENCODER, graph, to_onnx(graph).SerializeToString(), 1e-4)


def test_a_graph_that_is_right_only_at_the_traced_size_is_refused(graphs: dict[str, Graph]) -> None:
    class Counting(torch.nn.Module):
        def forward(self, frame_embedding: torch.Tensor, frame_mask: torch.Tensor) -> torch.Tensor:
            # Traced, a Python number is a constant.
            return frame_embedding.mean(1) * int(frame_mask.shape[0]) + 0 * frame_mask[:, :1]

    graph = dataclasses.replace(graphs[SEGMENT_ENCODER], module=Counting(), dynamic=({1: "N"}, {1: "N"}))
    fixed = to_onnx(graph)
    for value in (*fixed.graph.input, *fixed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "B"
    with pytest.raises(ExportError, match=r"segment_embedding (differs|is|of a batch)"):
        check_graph(SEGMENT_ENCODER, graph, fixed.SerializeToString(), 1e-4)


def test_nothing_is_written_when_a_graph_differs(
    model: LGDN, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.export.bundle.TOLERANCE", {"float32": 1e-4, "float16": 1e-9, "int8": 1e-9})
    with pytest.raises(ExportError, match="not exported: store its weights in a larger type"):
        export_bundle(tmp_path / "bundle", "lgdn", copy.deepcopy(model), tokenizer, PROVENANCE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 2, 2)])
@pytest.mark.parametrize("axis", [0, 1])
def test_int8_is_within_half_a_step_of_each_channel(shape: tuple[int, ...], axis: int) -> None:
    weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    weight[0] = 0
    values, scale = quantise_weight(weight, axis)
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


def test_a_bundle_measures_like_the_model_it_came_from(model: LGDN, tokenizer: Path, tmp_path: Path) -> None:
    """Exactly stored, every output is within 1e-4 (beside its size), and the ranks are the same."""
    exact = StorageChoice("float32", "float32", "float32", "float32")
    manifest = export_bundle(
        tmp_path / "bundle",
        "lgdn",
        copy.deepcopy(model),
        tokenizer,
        PROVENANCE,
        ExportOptions(ensemble_lambda=3.0, num_salient_frames=3, num_candidates=7, storage=exact),
        name="tiny",
    )
    assert (manifest.embedding_dim, manifest.salience_dim, manifest.text_hidden_dim) == (16, 16, 16)
    assert (manifest.salience_strategy, manifest.image.size) == ("collaborative", 48)
    assert (manifest.tokens_per_frame, manifest.stored_tokens_per_frame) == (5, 5)
    assert (manifest.ensemble_lambda, manifest.num_salient_frames, manifest.num_candidates) == (3.0, 3, 7)
    of_bundle = BundleEncoder(Bundle.open(tmp_path / "bundle", threads=1))
    in_memory = TowersEncoder(model, TextTokenizer.from_file(tokenizer, 16), ensemble_lambda=3.0)
    for have, want in zip(outputs(of_bundle), outputs(in_memory), strict=True):
        assert np.abs(have - want).max() <= 1e-4 * max(1.0, np.abs(want).max())
    photos = read_photos(make_photos(tmp_path / "data"), "val")
    options = Options(
        num_candidates=7, num_salient_frames=3, salient_frames=(1,), tokens=TokenOptions("float32")
    )
    found, expected = (evaluate_source(encoder, photos, options) for encoder in (of_bundle, in_memory))
    assert found["local"] != found["global"]
    for name in ("global", "local", "ensemble"):
        for way in ("text_to_video", "video_to_text"):
            assert found[name][way]["MnR"] == pytest.approx(expected[name][way]["MnR"], abs=0.2)


def outputs(encoder: BundleEncoder | TowersEncoder) -> list[np.ndarray]:
    """All that an encoder gives for some frames, texts and pairs."""
    frames = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 3), dtype=np.uint8)
    image = encoder.frames(frames, tokens=True)
    text = encoder.texts(["a red block left", "blue"], tokens=True)
    logits = encoder.match(text, np.array([0, 1, 1]), image.tokens)
    return [image.embedding, image.salience, image.tokens, text.embedding, text.salience, logits]


def test_smaller_weights_and_the_other_fusion_stay_close(tokenizer: Path, tmp_path: Path) -> None:
    model = tiny_model("cross_attention")
    stored = StorageChoice("float16", "int8", "int8", "float16")
    options = ExportOptions(storage=stored)
    manifest = export_bundle(
        tmp_path / "bundle", "lgdn", copy.deepcopy(model), tokenizer, PROVENANCE, options
    )
    assert (manifest.hidden_dim, manifest.text_hidden_dim) == (64, 32)
    in_memory = TowersEncoder(model, TextTokenizer.from_file(tokenizer, 16))
    pairs = zip(
        outputs(BundleEncoder(Bundle.open(tmp_path / "bundle", threads=1))), outputs(in_memory), strict=True
    )
    for have, want in pairs:
        assert np.abs(have - want).max() <= TOLERANCE["int8"] * max(1.0, np.abs(want).max())


def test_a_bundle_may_have_no_matcher_and_another_strategy(
    model: LGDN, tokenizer: Path, tmp_path: Path
) -> None:
    inference = InferenceOptions(weights="online", salience="momentum")
    options = ExportOptions(inference, matcher=False, tokens_per_frame=3)
    manifest = export_bundle(
        tmp_path / "bundle", "lgdn", copy.deepcopy(model), tokenizer, PROVENANCE, options
    )
    assert (manifest.salience_strategy, manifest.salience_dim) == ("momentum", 32)
    assert (manifest.stored_tokens_per_frame, manifest.num_salient_frames) == (3, 2)
    bundle = Bundle.open(tmp_path / "bundle", threads=1)
    assert bundle.capabilities == frozenset()
    frames = np.zeros((1, 48, 48, 3), np.uint8)
    with torch.no_grad():
        expected = model.online.encode_frames(torch.from_numpy(frames)).embedding.numpy()
    np.testing.assert_allclose(bundle.encode_frames(frames).embedding, expected, atol=0.02)


def test_options_that_cannot_be_are_refused(model: LGDN, tokenizer: Path, tmp_path: Path) -> None:
    for options, error, message in (
        (ExportOptions(InferenceOptions(salience="best")), ValueError, "unknown salience strategy 'best'"),
        (ExportOptions(InferenceOptions(weights="both")), ValueError, "choose momentum or online"),
        (ExportOptions(tokens_per_frame=9), InputError, "5 tokens a frame cannot be merged to 9"),
        (ExportOptions(num_salient_frames=5), InputError, "5 salient frames of 4 a segment"),
    ):
        with pytest.raises(error, match=message):
            export_bundle(tmp_path / "bundle", "lgdn", copy.deepcopy(model), tokenizer, PROVENANCE, options)
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_are_read_averaged_and_refused(tmp_path: Path) -> None:
    config = tiny_config(Path(), Path())
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        models.append(LGDN(config.model))
        torch.save({"config": to_mapping(config), "model": models[-1].state_dict()}, tmp_path / f"{seed}.pt")
    _, mean = load_checkpoints([tmp_path / "0.pt", tmp_path / "1.pt"])
    for of in ("online", "momentum"):
        a, b = (getattr(m, of).text_projection.weight for m in models)
        torch.testing.assert_close(getattr(mean, of).text_projection.weight, (a + b) / 2)
    a, b = (m.fusion_average.state_dict() for m in models)
    for name, value in mean.fusion_average.state_dict().items():
        torch.testing.assert_close(value, (a[name] + b[name]) / 2)
    assert mean.bank.owners.dtype == torch.int64
    other = dataclasses.replace(config, model=dataclasses.replace(config.model, dim=8))
    torch.save({"config": to_mapping(other), "model": LGDN(other.model).state_dict()}, tmp_path / "2.pt")
    with pytest.raises(ValueError, match="they cannot be averaged"):
        load_checkpoints([tmp_path / "0.pt", tmp_path / "2.pt"])
    with pytest.raises(ValueError, match=r"no checkpoint .*none\.pt: train first"):
        load_checkpoint(tmp_path / "none.pt")
    torch.save({"config": to_mapping(config), "model": {}}, tmp_path / "3.pt")
    with pytest.raises(ValueError, match=r"3\.pt holds another model than this version builds"):
        load_checkpoint(tmp_path / "3.pt")
    (tmp_path / "4.pt").write_text("This is no checkpoint.", encoding="utf-8")
    with pytest.raises(ValueError, match=r"4\.pt is not a checkpoint"):
        load_checkpoint(tmp_path / "4.pt")
