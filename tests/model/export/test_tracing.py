"""Traced graphs equal PyTorch at every size, and those that do not are refused."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

import onnx
import torch
from onnx import numpy_helper

from model.export.tracing import ExportError, check_graph, to_onnx
from model.families.base import Graph
from model.families.lgdn.config import STRATEGIES
from model.families.lgdn.encoder import TowersEncoder
from model.families.lgdn.graphs import graphs_of
from model.families.lgdn.inference import InferenceModel
from model.families.lgdn.network import LGDN
from model.runtime.bundle.graphs import FRAME_ENCODER, MATCHER, SEGMENT_ENCODER, TEXT_ENCODER
from model.runtime.preprocessing import TextTokenizer
from tests.support.exported_lgdn import exportable_model, run_onnx
from tests.support.paths import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model() -> LGDN:
    return exportable_model()


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
    """Their dot product is the relevance of Table 1, by both twins' embeddings."""
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
    # SimDot reads one twin: the one that is served.
    twins = (*served, *served) if strategy == "simdot" else (f, l, f_hat, l_hat)
    for i in range(2):
        for j in range(2):
            a, b, a_hat, b_hat = twins[0][i], twins[1][j], twins[2][i], twins[3][j]
            by_table = {
                "simdot": a @ b,
                "momentum": a @ b + a_hat @ b_hat,
                "crossmom": a_hat @ b + a @ b_hat,
                "collaborative": (a + a_hat) @ (b + b_hat),
            }[strategy]
            assert float(frame_salience[i] @ text_salience[j]) == pytest.approx(float(by_table), abs=1e-5)


def test_graphs_join_frames_and_match_as_the_settings_say() -> None:
    """Frames joined as they are projected, and a match that is the logit of a match alone."""
    plain, other = exportable_model(), exportable_model()
    other.config = dataclasses.replace(plain.config, normalise_frames=False, match_score="matched")
    for towers in (other.online, other.momentum):
        towers.config = other.config
    before, after = (graphs_of(InferenceModel(m, "online", "simdot")) for m in (plain, other))
    frames, pair = *before[FRAME_ENCODER].example, before[MATCHER].example
    with torch.no_grad():
        embedding, salience, _ = before[FRAME_ENCODER].module(frames)
        projection, same_salience, _ = after[FRAME_ENCODER].module(frames)
        logits = plain.fusion(*pair)
        match, difference = (graphs[MATCHER].module(*pair) for graphs in (after, before))
    assert (projection.norm(dim=-1) - 1).abs().min() > 0.01
    torch.testing.assert_close(projection / projection.norm(dim=-1, keepdim=True), embedding)
    torch.testing.assert_close(same_salience, salience)
    torch.testing.assert_close(match, logits[:, 1])
    torch.testing.assert_close(difference, logits[:, 1] - logits[:, 0])
    for name, graph in after.items():
        assert check_graph(name, graph, to_onnx(graph).SerializeToString(), 1e-4) < 1e-4


def test_the_frame_graph_normalises_pixels_itself(
    model: LGDN, exported: dict[str, onnx.ModelProto], tokenizer: Path
) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 3), dtype=np.uint8)
    found = run_onnx(exported[FRAME_ENCODER].SerializeToString(), {"frames": frames})
    encoder = TowersEncoder(
        model, TextTokenizer.from_file(tokenizer, 16), weights="momentum", strategy="collaborative"
    )
    expected = encoder.frames(frames, tokens=True)
    assert expected.tokens is not None
    for have, want in zip(found, (expected.embedding, expected.salience, expected.tokens), strict=True):
        np.testing.assert_allclose(have, want, atol=1e-5)


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
