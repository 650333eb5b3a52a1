"""The matcher of a bundle: pairs of texts and frames, of either kind of graph."""

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from model.runtime.bundle import Bundle, TextEncoding
from model.runtime.errors import BundleError
from tests.model.runtime.bundle.test_damage import change_manifest, replace_file
from tests.support import toy_bundle as toy

TEXTS = ["red", "a green field", "the blue sky over a yellow house by the sea", "nothing known here", "cyan"]


@pytest.fixture(scope="module", params=[True, "ids", "ids alone"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its matcher reads text tokens, or ids; or ids where there are no text tokens."""
    place = tmp_path_factory.mktemp("bundles") / "toy"
    if request.param != "ids alone":
        return toy.make_toy_bundle(place, matcher=request.param)
    return without_text_tokens(toy.make_toy_bundle(place, matcher="ids"))


def without_text_tokens(folder: Path) -> Path:
    change_manifest(folder, lambda c: c.update(text_hidden_dim=None))
    replace_file(folder, "text_encoder.onnx", toy.toy_graphs(tokens=False)["text_encoder.onnx"])
    return folder


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return Bundle.open(folder, max_pairs=5)


@pytest.fixture(scope="module")
def text(bundle: Bundle) -> TextEncoding:
    return bundle.encode_text(TEXTS, tokens=True)


def pairs(bundle: Bundle, count: int = 23) -> tuple[np.ndarray, np.ndarray]:
    """Texts and frames in an order of no kind: whole colours and noise."""
    frames = toy.random_frames(count)
    for i, rgb in enumerate(toy.COLOURS.values()):
        frames[2 * i] = rgb
    tokens = bundle.encode_frames(frames, tokens=True).tokens
    assert tokens is not None
    return np.random.default_rng(1).integers(0, len(TEXTS), count), tokens


def test_logits_as_predicted(bundle: Bundle, text: TextEncoding) -> None:
    rows, tokens = pairs(bundle)
    logits = bundle.match(text, rows, tokens)
    assert logits.dtype == np.float32
    expected = [toy.match_logit(TEXTS[row], frame) for row, frame in zip(rows, tokens, strict=True)]
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_colours_match_their_names(bundle: Bundle) -> None:
    frames = np.stack([np.full((32, 32, 3), rgb, np.uint8) for rgb in toy.COLOURS.values()])
    tokens = bundle.encode_frames(frames, tokens=True).tokens
    assert tokens is not None
    text = bundle.encode_text([f"a {name} thing" for name in toy.COLOURS], tokens=True)
    every = np.repeat(np.arange(8), 8), np.tile(tokens, (8, 1, 1))
    logits = bundle.match(text, *every).reshape(8, 8)
    np.testing.assert_allclose(np.diag(logits), 4, atol=1e-3)
    assert (logits - np.eye(8) * 99).max() < -1


@pytest.mark.parametrize("max_pairs", [1, 2, 7, 23, 64])
def test_batch_equals_single(folder: Path, bundle: Bundle, text: TextEncoding, max_pairs: int) -> None:
    rows, tokens = pairs(bundle)
    whole = Bundle.open(folder, max_pairs=max_pairs).match(text, rows, tokens)
    for i, row in enumerate(rows):
        # A text encoded alone is not padded to the others.
        alone = bundle.encode_text([TEXTS[row]], tokens=True)
        np.testing.assert_allclose(
            whole[i], bundle.match(alone, np.zeros(1, np.int64), tokens[i : i + 1])[0], atol=1e-5
        )


def test_fewer_tokens_than_the_encoder_gives(bundle: Bundle, text: TextEncoding) -> None:
    rows, tokens = pairs(bundle)
    for count in (1, 2, 3):
        logits = bundle.match(text, rows, tokens[:, :count])
        expected = [
            toy.match_logit(TEXTS[row], frame[:count]) for row, frame in zip(rows, tokens, strict=True)
        ]
        np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_parts_are_no_longer_than_their_longest_text(folder: Path) -> None:
    """Padding is work: a graph that gives its text's length back sees what it is given."""
    node = helper.make_node
    ids = "input_ids" in Bundle.open(folder)._session("matcher.onnx").inputs
    name, shape = ("input_ids", ["B", "L"]) if ids else ("text_tokens", ["B", "L", 4])
    nodes = [
        node("Shape", ["attention_mask"], ["shape"]),
        node("Gather", ["shape", "one"], ["length"]),
        node("Cast", ["length"], ["number"], to=TensorProto.FLOAT),
        node("ReduceSum", ["frame_tokens", "axes"], ["sum"], keepdims=0),
        node("Mul", ["sum", "zero"], ["zeros"]),
        node("Add", ["zeros", "number"], ["match_logit"]),
    ]
    constants: dict[str, NDArray[Any]] = {
        "one": np.array(1, np.int64),
        "axes": np.array([1, 2], np.int64),
        "zero": np.array(0, np.float32),
    }
    inputs: list[toy.GraphValue] = [
        ("attention_mask", TensorProto.INT64, ["B", "L"]),
        ("frame_tokens", TensorProto.FLOAT, ["B", "P", 3]),
        (name, TensorProto.INT64 if ids else TensorProto.FLOAT, shape),
    ]
    graph = toy.build_graph(nodes, inputs, [("match_logit", TensorProto.FLOAT, ["B"])], constants)
    copy = Path(shutil.copytree(folder, folder.with_name("lengths")))
    replace_file(copy, "matcher.onnx", graph)
    opened = Bundle.open(copy, max_pairs=2)
    text = opened.encode_text(["red sky by night", "red", "a red", "red"], tokens=True)
    rows, tokens = np.array([0, 1, 2, 3]), np.zeros((4, 4, 3), np.float32)
    assert opened.match(text, rows, tokens).tolist() == [4, 1, 4, 1]


def test_many_threads_get_their_own_results(bundle: Bundle, text: TextEncoding) -> None:
    rows, tokens = pairs(bundle)
    expected = bundle.match(text, rows, tokens)
    with ThreadPoolExecutor(8) as pool:
        orders = [np.random.default_rng(i).permutation(len(rows)) for i in range(24)]
        for order, found in zip(
            orders,
            pool.map(lambda order: bundle.match(text, rows[order], tokens[order]), orders),
            strict=True,
        ):
            np.testing.assert_allclose(found, expected[order], atol=1e-5)


def test_wrong_pairs(bundle: Bundle, text: TextEncoding) -> None:
    rows, tokens = pairs(bundle)
    for wrong_rows, wrong_tokens, message in [
        (rows, tokens.astype(np.float64), "frame_tokens is float64"),
        (rows, tokens[:, :, :2], r"\[23, 4, 2\]: pass float32 \[B, P', 3\]"),
        (rows, np.zeros((23, 5, 3), np.float32), "P' ≤ 4"),
        (rows[:0], tokens[:0], r"\[0, 4, 3\]"),
        (rows[:3], tokens, r"text_rows is int64 \[3\]: pass int64 \[23\]"),
        (rows.astype(np.float32), tokens, "text_rows is float32"),
        (np.full(23, 5), tokens, "text_rows holds 5: there are 5 texts"),
        (np.full(23, -1), tokens, "text_rows holds -1"),
    ]:
        with pytest.raises(ValueError, match=message):
            bundle.match(text, wrong_rows, wrong_tokens)


def test_texts_without_tokens(folder: Path, bundle: Bundle) -> None:
    rows, tokens = pairs(bundle)
    text = bundle.encode_text(TEXTS)
    if "input_ids" in bundle._session("matcher.onnx").inputs:
        expected = bundle.match(bundle.encode_text(TEXTS, tokens=True), rows, tokens)
        np.testing.assert_array_equal(bundle.match(text, rows, tokens), expected)
    else:
        with pytest.raises(ValueError, match=r"encode_text\(texts, tokens=True\)"):
            bundle.match(text, rows, tokens)


def test_a_bundle_without_a_matcher(bundle: Bundle, text: TextEncoding, tmp_path: Path) -> None:
    bare = Bundle.open(toy.make_toy_bundle(tmp_path / "bare", matcher=False))
    assert bundle.capabilities == {"image_query", "salient_frames", "match"}
    assert bare.capabilities == {"image_query", "salient_frames"}
    bare.check()
    with pytest.raises(BundleError, match=r"bare has no matcher\.onnx: choose a bundle"):
        bare.match(text, *pairs(bundle))
    with pytest.raises(ValueError, match="max_pairs is 0"):
        Bundle.open(bundle.folder, max_pairs=0)


def test_a_bundle_with_tokens_needs_no_matcher(bundle: Bundle, tmp_path: Path) -> None:
    bare = Bundle.open(toy.make_toy_bundle(tmp_path / "bare", matcher=False))
    frames = toy.random_frames(3)
    tokens = bare.encode_frames(frames, tokens=True).tokens
    np.testing.assert_array_equal(tokens, bundle.encode_frames(frames, tokens=True).tokens)


def test_a_bundle_without_tokens(bundle: Bundle, text: TextEncoding, tmp_path: Path) -> None:
    bare = Bundle.open(toy.make_toy_bundle(tmp_path / "bare", tokens=False))
    assert bare.capabilities == {"image_query", "salient_frames"}
    assert bare.manifest.tokens is None
    bare.check()
    frames = toy.random_frames(3)
    encoding = bare.encode_frames(frames)
    np.testing.assert_array_equal(encoding.embedding, bundle.encode_frames(frames).embedding)
    assert encoding.tokens is None
    assert bare.encode_text(TEXTS).tokens is None
    remedy = r"bare has no tokens: choose a bundle with a matcher, or encode with tokens=False"
    with pytest.raises(BundleError, match=remedy):
        bare.encode_frames(frames, tokens=True)
    with pytest.raises(BundleError, match=remedy):
        bare.encode_text(TEXTS, tokens=True)
    with pytest.raises(BundleError, match=r"bare has no matcher\.onnx: choose a bundle"):
        bare.match(text, *pairs(bundle))


def fixed_matcher(
    inputs: Sequence[toy.GraphValue], factor: float = 1.0, output: Sequence[int | str] | None = None
) -> bytes:
    """A matcher that gives the sum of the frame's tokens, times `factor`."""
    nodes = [
        helper.make_node("ReduceSum", ["frame_tokens", "axes"], ["sum"], keepdims=0 if output is None else 1),
        helper.make_node("Mul", ["sum", "factor"], ["match_logit"]),
    ]
    constants: dict[str, NDArray[Any]] = {
        "axes": np.array([1, 2], np.int64),
        "factor": np.array(factor, np.float32),
    }
    return toy.build_graph(nodes, inputs, [("match_logit", TensorProto.FLOAT, output or ["B"])], constants)


IDS = ("input_ids", TensorProto.INT64, ["B", "L"])
TOKENS = ("text_tokens", TensorProto.FLOAT, ["B", "L", 4])
MASK = ("attention_mask", TensorProto.INT64, ["B", "L"])
FRAMES = ("frame_tokens", TensorProto.FLOAT, ["B", "P", 3])


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (fixed_matcher([MASK, FRAMES]), "exactly one must be of .*text_tokens.*input_ids"),
        (fixed_matcher([MASK, FRAMES, IDS, TOKENS]), "exactly one must be of"),
        (fixed_matcher([FRAMES, TOKENS]), r"inputs \['frame_tokens', 'text_tokens'\] instead of"),
        (fixed_matcher([MASK, TOKENS, ("frame_tokens", TensorProto.FLOAT, ["B", 4, 3])]), "'frame_tokens'"),
        (fixed_matcher([MASK, TOKENS, ("frame_tokens", TensorProto.FLOAT, ["B", "P", 5])]), "'frame_tokens'"),
        (
            fixed_matcher([MASK, FRAMES, ("text_tokens", TensorProto.FLOAT, ["B", "L", 3])]),
            r"'text_tokens' .* instead of .*4",
        ),
        (fixed_matcher([MASK, FRAMES, TOKENS], output=["B", 1, 1]), "'match_logit'"),
        (fixed_matcher([MASK, FRAMES, TOKENS], factor=float("nan")), "NaN"),
    ],
)
def test_a_matcher_that_breaks_the_format(tmp_path: Path, graph: bytes, message: str) -> None:
    folder = toy.make_toy_bundle(tmp_path / "toy")
    replace_file(folder, "matcher.onnx", graph)
    with pytest.raises(BundleError, match=rf"matcher\.onnx.*{message}"):
        Bundle.open(folder).check()


def test_a_matcher_cannot_read_text_tokens_that_are_not_there(tmp_path: Path) -> None:
    opened = Bundle.open(without_text_tokens(toy.make_toy_bundle(tmp_path / "toy")))
    assert opened.encode_text(["red"], tokens=True).tokens is None
    with pytest.raises(BundleError, match=r"matcher\.onnx has the inputs .* must be of \['input_ids'\]"):
        opened.check()


def test_widths_of_texts_and_frames_are_told_apart(tmp_path: Path) -> None:
    folder = toy.make_toy_bundle(tmp_path / "toy")
    change_manifest(folder, lambda c: c.update(text_hidden_dim=3))
    with pytest.raises(BundleError, match=r"text_encoder\.onnx: output 'text_tokens' .*4.* instead of .*3"):
        Bundle.open(folder).encode_text(["red"])
