"""Bundles that answer questions: what they answer, and which are refused."""

from __future__ import annotations

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

from model.runtime.bundle import Bundle, TextEncoding, write_bundle
from model.runtime.errors import BundleError, OutputError
from tests.model.runtime.bundle.test_damage import NO_TOKENS, change_manifest, replace_file
from tests.model.runtime.bundle.test_strangers import endless_loop, trial
from tests.support import toy_bundle as toy

QUESTIONS = ["what colour is it", "the red one", "where is a blue sky over the sea"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.make_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy", answers=True)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return Bundle.open(folder, max_pairs=5)


@pytest.fixture(scope="module")
def text(bundle: Bundle) -> TextEncoding:
    return bundle.encode_text(QUESTIONS, tokens=True)


def frames_of(bundle: Bundle, colours: list[list[str]]) -> NDArray[np.float32]:
    """Frames of one colour each. → [B, n, 4, 3]"""
    flat = np.array([toy.COLOURS[name] for row in colours for name in row], np.uint8)
    frames = np.broadcast_to(flat[:, None, None, :], (len(flat), 32, 32, 3)).copy()
    tokens = bundle.encode_frames(frames, tokens=True).tokens
    assert tokens is not None
    return tokens.reshape(len(colours), -1, *tokens.shape[1:])


def test_a_bundle_says_what_it_knows(bundle: Bundle, folder: Path) -> None:
    assert bundle.capabilities == {"image_query", "salient_frames", "match", "answers"}
    assert bundle.vocabulary == tuple(toy.COLOURS)
    assert json.loads((folder / "answers.json").read_text()) == list(toy.COLOURS)
    assert {"answers.json", "answer_head.onnx"} <= bundle.manifest.files.keys()


def test_answers_are_the_predicted_ones(bundle: Bundle, text: TextEncoding) -> None:
    shown = [["red", "red"], ["blue", "cyan"], ["white", "black"], ["green", "green"]]
    mask = np.array([[True, True], [True, False], [False, True], [True, True]])
    tokens = frames_of(bundle, shown)
    answers = bundle.answer(text, np.array([0, 1, 2, 0]), tokens, mask)
    expected = [toy.answer_logit(row[real]) for row, real in zip(tokens, mask, strict=True)]
    np.testing.assert_allclose(answers.logits, expected, atol=1e-5)
    assert answers.logits.dtype == np.float32
    best = answers.best()
    assert [row[0][0] for row in best] == ["red", "blue", "black", "green"]
    shares = np.exp(answers.logits) / np.exp(answers.logits).sum(1, keepdims=True)
    np.testing.assert_allclose(answers.probabilities, shares, rtol=1e-5)
    np.testing.assert_allclose([row[0][1] for row in best], shares.max(1), rtol=1e-5)
    two = answers.best(2)
    assert all(row[0][1] >= row[1][1] for row in two)
    assert len(answers.best(99)[0]) == len(toy.COLOURS)
    with pytest.raises(ValueError, match="count is 0: ask for at least 1 answer"):
        answers.best(0)


@pytest.mark.parametrize("max_pairs", [1, 3, 7, 64])
def test_batch_equals_single(folder: Path, bundle: Bundle, text: TextEncoding, max_pairs: int) -> None:
    random = np.random.default_rng(0)
    tokens = random.normal(size=(7, 3, 4, 3)).astype(np.float32)
    mask = random.random((7, 3)) < 0.6
    mask[:, 1] = True
    rows = np.array([0, 1, 2, 2, 1, 0, 0])
    whole = Bundle.open(folder, max_pairs=max_pairs).answer(text, rows, tokens, mask).logits
    for i, row in enumerate(rows):
        alone = bundle.encode_text([QUESTIONS[row]], tokens=True)
        single = bundle.answer(alone, np.zeros(1, np.int64), tokens[i : i + 1], mask[i : i + 1])
        np.testing.assert_allclose(whole[i], single.logits[0], atol=1e-5)


def test_fewer_tokens_and_no_mask(bundle: Bundle, text: TextEncoding) -> None:
    tokens = np.random.default_rng(0).normal(size=(2, 2, 4, 3)).astype(np.float32)
    for count in (1, 3):
        logits = bundle.answer(text, np.array([0, 2]), tokens[:, :, :count]).logits
        np.testing.assert_allclose(logits, [toy.answer_logit(row[:, :count]) for row in tokens], atol=1e-5)


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": np.zeros((2, 1, 4, 3))}, r"frame_tokens is float64: pass float32 \[B, n, P', 3\]"),
        ({"tokens": np.zeros((2, 4, 3), np.float32)}, r"frame_tokens has shape \[2, 4, 3\]"),
        ({"tokens": np.zeros((2, 0, 4, 3), np.float32)}, r"frame_tokens has shape \[2, 0, 4, 3\]"),
        ({"tokens": np.zeros((2, 1, 5, 3), np.float32)}, r"1 ≤ P' ≤ 4"),
        ({"tokens": np.zeros((0, 1, 4, 3), np.float32)}, "with B ≥ 1"),
        ({"mask": np.zeros((2, 1), np.bool_)}, r"frame_mask\[0\] has no frame"),
        (
            {"mask": np.ones((2, 2), np.bool_)},
            r"frame_mask has shape \[2, 2\]: pass booleans of shape \[2, 1\]",
        ),
        ({"mask": np.full((2, 1), 0.5)}, "pass booleans"),
        ({"rows": np.array([0])}, r"text_rows is int64 \[1\]: pass int64 \[2\]"),
        ({"rows": np.array([0, 3])}, "text_rows holds 3: there are 3 texts, 0 to 2"),
    ],
)
def test_wrong_inputs_are_named(
    bundle: Bundle, text: TextEncoding, changes: dict[str, Any], message: str
) -> None:
    values = {"rows": np.array([0, 1]), "tokens": np.zeros((2, 1, 4, 3), np.float32), "mask": None} | changes
    with pytest.raises(ValueError, match=message):
        bundle.answer(text, values["rows"], values["tokens"], values["mask"])


def test_texts_without_tokens_are_refused(bundle: Bundle) -> None:
    bare = bundle.encode_text(["red"])
    with pytest.raises(ValueError, match=r"text has no tokens, .* pass encode_text\(texts, tokens=True\)"):
        bundle.answer(bare, np.zeros(1, np.int64), np.zeros((1, 1, 4, 3), np.float32))


def test_bundles_without_a_head_stay_as_they_are(tmp_path: Path) -> None:
    bundle = Bundle.open(toy.make_toy_bundle(tmp_path / "plain"))
    assert bundle.capabilities == {"image_query", "salient_frames", "match"}
    assert bundle.vocabulary == ()
    assert "answers" not in (tmp_path / "plain" / "bundle.json").read_text()
    text = bundle.encode_text(["red"], tokens=True)
    with pytest.raises(
        BundleError, match=r"has no answer_head\.onnx: choose a bundle that was exported from"
    ):
        bundle.answer(text, np.zeros(1, np.int64), np.zeros((1, 1, 4, 3), np.float32))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[", r"answers\.json cannot be read as JSON"),
        (b"{}", "must be a list of answers that is not empty"),
        (b"[]", "must be a list of answers that is not empty"),
        (b'["red", 3]', "entry 1 is 3, not a text"),
        (b'["red", " "]', "entry 1 is ' ', not a text"),
        (b'["red", "blue", "red"]', "holds 'red' twice"),
    ],
)
def test_a_damaged_vocabulary_is_refused(copy: Path, content: bytes, message: str) -> None:
    replace_file(copy, "answers.json", content)
    with pytest.raises(BundleError, match=message + ".*: export or download the bundle again"):
        Bundle.open(copy)


def test_as_many_answers_as_logits(copy: Path) -> None:
    replace_file(copy, "answers.json", json.dumps(list(toy.COLOURS)[:7]).encode())
    with pytest.raises(BundleError, match=r"output 'answer_logit' is .*'B', 8\] instead of .*'B', 7\]"):
        Bundle.open(copy).check()
    # A size that the graph leaves open is checked when it runs.
    nodes = [helper.make_node("Cast", ["attention_mask"], ["answer_logit"], to=TensorProto.FLOAT)]
    inputs: list[toy.GraphValue] = [
        ("text_tokens", TensorProto.FLOAT, ["B", "L", 4]),
        ("attention_mask", TensorProto.INT64, ["B", "L"]),
        ("frame_tokens", TensorProto.FLOAT, ["B", "n", "P", 3]),
        ("frame_mask", TensorProto.FLOAT, ["B", "n"]),
    ]
    output: toy.GraphValue = ("answer_logit", TensorProto.FLOAT, ["B", "answers"])
    replace_file(copy, "answer_head.onnx", toy.build_graph(nodes, inputs, [output], {}))
    with pytest.raises(BundleError, match=r"answer_logit has shape \[2, 6\] instead of \[2, 7\]: export"):
        Bundle.open(copy).check()


def test_logits_that_are_not_finite_are_refused(bundle: Bundle, text: TextEncoding) -> None:
    tokens = np.full((1, 1, 4, 3), np.nan, np.float32)
    with pytest.raises(OutputError, match=r"answer_head\.onnx: answer_logit holds NaN or infinity"):
        bundle.answer(text, np.zeros(1, np.int64), tokens)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda content: content["files"].pop("answers.json"),
            r"lists 'answer_head\.onnx' without 'answers\.json', which holds its answers; export the bundle",
        ),
        (
            lambda content: [content.update(NO_TOKENS), content["files"].pop("matcher.onnx")],
            r"answer_head\.onnx reads frame_tokens, but the encoders return no tokens .*: leave it out",
        ),
    ],
)
def test_manifests_that_do_not_fit_are_refused(copy: Path, change: Change, message: str) -> None:
    change_manifest(copy, change)
    with pytest.raises(BundleError, match=message):
        Bundle.open(copy)


@pytest.mark.slow
def test_a_head_that_never_ends_is_refused(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    graph = onnx.load_from_string(toy.toy_answer_head())
    graph.graph.node[-1].output[0] = "calm"
    graph.graph.node.extend(
        [
            helper.make_node("ReduceSum", ["frame_mask"], ["unused"], keepdims=0),
            *endless_loop(),
            helper.make_node("Add", ["calm", "bomb"], ["answer_logit"]),
        ]
    )
    replace_file(copy, "answer_head.onnx", graph.SerializeToString())
    with pytest.raises(BundleError, match=r"ended the process that tried it .*do not use it"):
        trial(copy)


def test_a_changed_vocabulary_is_noticed(copy: Path) -> None:
    (copy / "answers.json").write_text(json.dumps(list(toy.COLOURS)[::-1]))
    with pytest.raises(BundleError, match=r"answers\.json has"):
        Bundle.open(copy)


def test_a_head_without_answers_is_not_written(tmp_path: Path) -> None:
    tokenizer = tmp_path / "words.json"
    toy.toy_tokenizer().save(str(tokenizer))
    graphs = {**toy.toy_graphs(), "answer_head.onnx": toy.toy_answer_head()}
    with pytest.raises(BundleError, match=r"without 'answers\.json'"):
        write_bundle(tmp_path / "bundle", graphs, toy.describe(), tokenizer)
    assert not (tmp_path / "bundle").exists()
