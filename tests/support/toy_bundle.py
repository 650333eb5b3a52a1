"""A bundle without weights whose vectors can be predicted.

The toy model sees colours and nothing else. With `rgb` a frame's mean colour in 0–1:

    frame_embedding  e_k ∝ exp(−4 · |rgb − colour_k|²) for the eight COLOURS, then unit length      [8]
    frame_salience   (e, e) / √2, so that text_salience · frame_salience = the cosine               [16]
    frame_tokens     2 · rgb − 1 of the four quarters                                               [4, 3]
    segment          the mean of the frames' embeddings, then unit length
    text_embedding   the sum over words of one_hot(colour), or 0.05 · (1, …, 1)/√8 for others; unit length
    text_tokens      (2 · rgb − 1, 1) of the word's colour, 0 for other words                       [L, 4]
    match_logit      8 · (the largest cosine of a frame's token and the mean colour of the text) − 4
    answer_logit     −|mean token of the real frames − (2 · colour_k − 1)|² for the eight COLOURS       [8]
                     with `words`, plus the mean of text_tokens · (2 · colour_k − 1, 0) over the text
    video encoder    the segment of a bundle without frame and segment encoder: as the segment of the
                     embeddings of its frames; with salience, that of each frame                  [N, 16]
    start_logit      8 · cosine of text and frame; end_logit is half of it, rejection_logit −start_logit [F]

The functions of these names below are the same in NumPy. A red frame's logit is 4 for "red", −6.7 for
"green", −4 for a text without a colour.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from model.runtime.bundle import BundleDescription, write_bundle
from model.runtime.bundle.manifest import ImageSpec, Moments, Provenance, TokenSizes
from model.runtime.preprocessing import normalise_text

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "cyan": (0, 255, 255),
    "magenta": (255, 0, 255),
    "white": (255, 255, 255),
    "black": (0, 0, 0),
}
IMAGE_SIZE = 32
#: Words that the tokenizer knows and the model makes nothing of: with one of them, a text is understood.
ARTICLES = ("a", "an", "the")
CONTEXT_LENGTH = 16
SHARPNESS = 4.0
OTHER_WORD = 0.05
DIM = len(COLOURS)
_PROTOTYPES = np.array(list(COLOURS.values()), np.float32) / 255


def unit(x: NDArray[np.floating]) -> NDArray[np.float32]:
    """Scale vectors to length 1 along the last axis."""
    return np.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True), np.float32)


def frame_embedding(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """NumPy twin of the frame encoder. [B, h, w, 3] → [B, 8]."""
    rgb = frames.astype(np.float64).mean(axis=(1, 2)) / 255
    distance = ((rgb[:, None] - _PROTOTYPES) ** 2).sum(axis=2)
    return unit(np.exp(-SHARPNESS * distance))


def colour_embedding(colour: str) -> NDArray[np.float32]:
    """The embedding of a frame of one colour, [8]."""
    embedding: NDArray[np.float32] = frame_embedding(np.full((1, 1, 1, 3), COLOURS[colour], np.uint8))[0]
    return embedding


def segment_embedding(embedding: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """NumPy twin of the segment encoder. [B, N, 8], [B, N] → [B, 8]."""
    return unit((embedding * mask[..., None]).sum(axis=1))


def text_embedding(text: str) -> NDArray[np.float32]:
    """NumPy twin of the text encoder (words are separated by white space). → [8]."""
    words = normalise_text(text).lower().split()[:CONTEXT_LENGTH]
    rows = [list(COLOURS).index(word) + 2 if word in COLOURS else 1 for word in words]
    return unit(_word_rows()[rows].sum(axis=0))


def salience(embedding: NDArray[np.float32]) -> NDArray[np.float32]:
    """[…, 8] → […, 16]."""
    return (np.concatenate([embedding, embedding], axis=-1) / np.float32(np.sqrt(2))).astype(np.float32)


def frame_tokens(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """NumPy twin of the frame encoder's tokens. [B, 32, 32, 3] → [B, 4, 3]."""
    half = IMAGE_SIZE // 2
    quarters = [frames[:, y : y + half, x : x + half] for y in (0, half) for x in (0, half)]
    rgb = np.stack([part.astype(np.float64).mean(axis=(1, 2)) / 255 for part in quarters], axis=1)
    return (2 * rgb - 1).astype(np.float32)


def text_tokens(text: str) -> NDArray[np.float32]:
    """NumPy twin of the text encoder's tokens. → [L, 4]."""
    words = normalise_text(text).lower().split()[:CONTEXT_LENGTH]
    return np.stack([_word_tokens()[list(COLOURS).index(w) + 2 if w in COLOURS else 1] for w in words])


def match_logit(text: str, tokens: NDArray[np.float32]) -> float:
    """NumPy twin of the matcher for one text and one frame's tokens, [P', 3]."""
    mean = text_tokens(text)[:, :3].mean(axis=0)
    lengths = np.linalg.norm(tokens, axis=1) * np.linalg.norm(mean)
    return float(8 * (tokens @ mean / (lengths + 1e-6)).max() - 4)


def answer_logit(tokens: NDArray[np.float32], text: str | None = None) -> NDArray[np.float32]:
    """NumPy twin of the answer head for the tokens of one question's real frames, [n, P', 3]. → [8]

    With a text, that of the head that reads the words.
    """
    mean, signed = tokens.reshape(-1, 3).mean(axis=0), 2 * _PROTOTYPES - 1
    logit = -(((mean - signed) ** 2).sum(axis=1))
    if text is not None:
        logit = logit + signed @ text_tokens(text)[:, :3].mean(axis=0)
    return np.asarray(logit, np.float32)


def _word_tokens() -> NDArray[np.float32]:
    """Token rows: 0 padding, 1 any other word, 2… the colours, then the articles. [13, 4]."""
    colours = np.concatenate([2 * _PROTOTYPES - 1, np.ones((DIM, 1), np.float32)], axis=1)
    return np.concatenate([np.zeros((2, 4)), colours, np.zeros((len(ARTICLES), 4))]).astype(np.float32)


def _word_rows() -> NDArray[np.float32]:
    """Embedding rows: 0 padding, 1 any other word, 2… the colours, then the articles. [13, 8]."""
    other = np.full((1, DIM), OTHER_WORD / np.sqrt(DIM))
    articles = other.repeat(len(ARTICLES), axis=0)
    return np.concatenate([np.zeros((1, DIM)), other, np.eye(DIM), articles]).astype(np.float32)


def random_frames(count: int) -> NDArray[np.uint8]:
    """Frames of noise that fit the toy bundle, [count, 32, 32, 3]; the same ones each time."""
    shape = (count, IMAGE_SIZE, IMAGE_SIZE, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def make_toy_bundle(
    folder: str | Path,
    *,
    overwrite: bool = False,
    matcher: bool | Literal["ids"] = True,
    tokens: bool = True,
    video: bool | Literal["salience"] = False,
    answers: bool | Literal["words"] = False,
    moments: bool | Literal["edges"] = False,
    graphs: Mapping[str, bytes] | None = None,
    **changes: Any,
) -> Path:
    """Write the toy bundle to `folder`, which this makes, and return it. Another `name`, another checksum.

    `matcher` may be False, or "ids" for one that reads the texts' ids instead of their tokens; without
    `tokens` there is none. With `video`, a video encoder takes the place of frame and segment encoder, and
    there are neither tokens nor, unless it is "salience", anything of single frames. With `answers` there is
    an answer head, with "words" one that reads the question's words too; with `moments` there is a moment
    head, with "edges" one that finds where the cosine rises and falls, and saliences are the embeddings, so
    that a search has what it reads. `graphs` takes the place of `toy_graphs()`; `changes` are as in
    `describe`.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if video:
        tokens = False
        files = toy_video_graphs(salience=video == "salience", plain=moments == "edges")
        if video != "salience":
            changes = {"salience_dim": None, "salience_strategy": None, **changes}
    else:
        files = toy_graphs(tokens=tokens, plain=moments == "edges")
    files = files if graphs is None else dict(graphs)
    if matcher and tokens:
        files["matcher.onnx"] = toy_matcher(ids=matcher == "ids")
    if answers:
        files["answer_head.onnx"] = toy_answer_head(words=answers == "words")
        changes = {"answers": tuple(COLOURS), **changes}
    if moments:
        files["moment_head.onnx"] = toy_moment_head(edges=moments == "edges")
        changes = {"moments": Moments(every_seconds=1.0), **changes}
    if moments == "edges":
        changes = {"salience_strategy": "simdot", "salience_dim": DIM, **changes}
    tokenizer = folder.with_name(f"{folder.name}.tokenizer.json")
    toy_tokenizer().save(str(tokenizer))
    try:
        write_bundle(folder, files, describe(tokens=tokens, **changes), tokenizer, overwrite=overwrite)
    finally:
        tokenizer.unlink()
    return folder


def describe(*, tokens: bool = True, stored_tokens_per_frame: int = 4, **changes: Any) -> BundleDescription:
    """The description of the toy bundle; `changes` are other values of its fields."""
    sizes = TokenSizes(
        tokens_per_frame=4, stored_tokens_per_frame=stored_tokens_per_frame, hidden_dim=3, text_hidden_dim=4
    )
    description = BundleDescription(
        name="toy",
        licence="Apache-2.0",
        provenance=Provenance(
            recipe="tests/support/toy_bundle.py", data=(), weights=(), commit="none", metrics={}
        ),
        embedding_dim=DIM,
        salience_dim=2 * DIM,
        image=ImageSpec(size=IMAGE_SIZE, resize="squash"),
        context_length=CONTEXT_LENGTH,
        description="Knows eight colours.",
        tokens=sizes if tokens else None,
    )
    return dataclasses.replace(description, **changes)


def toy_tokenizer() -> Tokenizer:
    """One id a word: 0 padding, 1 any other word, 2… the colours, then the articles."""
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *COLOURS, *ARTICLES])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def toy_graphs(*, tokens: bool = True, plain: bool = False) -> dict[str, bytes]:
    """The three graphs that every bundle has, serialised; their encoders with or without token outputs.

    With `plain`, saliences are the embeddings.
    """
    return {
        "frame_encoder.onnx": _frame_encoder(tokens, plain),
        "segment_encoder.onnx": _segment_encoder(),
        "text_encoder.onnx": _text_encoder(tokens, plain),
    }


def toy_video_graphs(*, salience: bool, plain: bool = False) -> dict[str, bytes]:
    """The two graphs of a bundle with a video encoder, serialised; with or without salience of frames."""
    return {
        "video_encoder.onnx": toy_video_encoder(salience=salience, plain=plain),
        "text_encoder.onnx": _text_encoder(False, plain, salience=salience),
    }


#: A graph's input or output: name, element type (of `TensorProto`), shape in numbers and names.
GraphValue = tuple[str, int, Sequence[Any]]


def build_graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[GraphValue],
    outputs: Sequence[GraphValue],
    constants: Mapping[str, NDArray[Any]],
) -> bytes:
    """Serialise an ONNX graph; inputs and outputs are (name, type, shape)."""
    graph = helper.make_graph(
        list(nodes),
        "toy",
        [helper.make_tensor_value_info(*item) for item in inputs],
        [helper.make_tensor_value_info(*item) for item in outputs],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    proto = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 18)])
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString())


def _unit_nodes(source: str, target: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("ReduceL2", [source, "last"], [f"{target}_length"]),
        helper.make_node("Div", [source, f"{target}_length"], [target]),
    ]


def _salience_nodes(source: str, target: str, plain: bool) -> list[onnx.NodeProto]:
    if plain:
        return [helper.make_node("Identity", [source], [target])]
    return [
        helper.make_node("Concat", [source, source], [f"{target}_twice"], axis=-1),
        helper.make_node("Div", [f"{target}_twice", "root"], [target]),
    ]


_COMMON: dict[str, NDArray[Any]] = {
    "last": np.array([-1], np.int64),
    "root": np.array(np.sqrt(2), np.float32),
}


def _frame_encoder(tokens: bool, plain: bool) -> bytes:
    node = helper.make_node
    half = IMAGE_SIZE // 2
    nodes = [
        node("Cast", ["frames"], ["float"], to=TensorProto.FLOAT),
        node("Div", ["float", "white"], ["pixels"]),
        node("ReduceMean", ["pixels", "plane"], ["rgb"], keepdims=0),
        node("Unsqueeze", ["rgb", "one"], ["rgb_row"]),
        node("Sub", ["rgb_row", "prototypes"], ["difference"]),
        node("Mul", ["difference", "difference"], ["square"]),
        node("ReduceSum", ["square", "two"], ["distance"], keepdims=0),
        node("Mul", ["distance", "sharpness"], ["logit"]),
        node("Exp", ["logit"], ["weight"]),
        *_unit_nodes("weight", "frame_embedding"),
        *_salience_nodes("frame_embedding", "frame_salience", plain),
        node("Add", ["pixels", "pixels"], ["twice"]),
        node("Sub", ["twice", "unit"], ["signed"]),
        node("Transpose", ["signed"], ["planes"], perm=[0, 3, 1, 2]),
        node("AveragePool", ["planes"], ["quarters"], kernel_shape=[half, half], strides=[half, half]),
        node("Reshape", ["quarters", "flat"], ["columns"]),
        node("Transpose", ["columns"], ["frame_tokens"], perm=[0, 2, 1]),
    ]
    constants: dict[str, NDArray[Any]] = {
        **_COMMON,
        "white": np.array(255, np.float32),
        "unit": np.array(1, np.float32),
        "plane": np.array([1, 2], np.int64),
        "one": np.array([1], np.int64),
        "two": np.array([2], np.int64),
        "prototypes": _PROTOTYPES[None],
        "sharpness": np.array(-SHARPNESS, np.float32),
        "flat": np.array([0, 3, 4], np.int64),
    }
    outputs: list[GraphValue] = [
        ("frame_embedding", TensorProto.FLOAT, ["B", DIM]),
        ("frame_salience", TensorProto.FLOAT, ["B", DIM if plain else 2 * DIM]),
    ]
    if tokens:
        outputs.append(("frame_tokens", TensorProto.FLOAT, ["B", 4, 3]))
    frames: GraphValue = ("frames", TensorProto.UINT8, ["B", IMAGE_SIZE, IMAGE_SIZE, 3])
    return build_graph(nodes, [frames], outputs, constants)


def _segment_encoder() -> bytes:
    node = helper.make_node
    nodes = [
        node("Unsqueeze", ["frame_mask", "two"], ["weight"]),
        node("Mul", ["frame_embedding", "weight"], ["real"]),
        node("ReduceSum", ["real", "one"], ["sum"], keepdims=0),
        *_unit_nodes("sum", "segment_embedding"),
    ]
    constants: dict[str, NDArray[Any]] = {
        "last": _COMMON["last"],
        "one": np.array([1], np.int64),
        "two": np.array([2], np.int64),
    }
    inputs: list[GraphValue] = [
        ("frame_embedding", TensorProto.FLOAT, ["B", "N", DIM]),
        ("frame_mask", TensorProto.FLOAT, ["B", "N"]),
    ]
    return build_graph(nodes, inputs, [("segment_embedding", TensorProto.FLOAT, ["B", DIM])], constants)


def toy_video_encoder(*, salience: bool, plain: bool = False, masked: bool = True, frames: int = 16) -> bytes:
    """The video encoder, serialised; without `masked` it lets padding count."""
    node = helper.make_node
    nodes = [
        node("Cast", ["frames"], ["float"], to=TensorProto.FLOAT),
        node("Div", ["float", "white"], ["pixels"]),
        node("ReduceMean", ["pixels", "plane"], ["rgb"], keepdims=0),
        node("Unsqueeze", ["rgb", "two"], ["rgb_row"]),
        node("Sub", ["rgb_row", "prototypes"], ["difference"]),
        node("Mul", ["difference", "difference"], ["square"]),
        node("ReduceSum", ["square", "last"], ["distance"], keepdims=0),
        node("Mul", ["distance", "sharpness"], ["logit"]),
        node("Exp", ["logit"], ["weight"]),
        *_unit_nodes("weight", "embedding"),
        node("Unsqueeze", ["frame_mask", "two"], ["mask"]),
        node("Mul", ["embedding", "mask"], ["real"]),
        node("ReduceSum", ["real" if masked else "embedding", "one"], ["sum"], keepdims=0),
        *_unit_nodes("sum", "segment_embedding"),
    ]
    outputs: list[GraphValue] = [("segment_embedding", TensorProto.FLOAT, ["B", DIM])]
    if salience:
        nodes += _salience_nodes("embedding", "frame_salience", plain)
        outputs.append(("frame_salience", TensorProto.FLOAT, ["B", frames, DIM if plain else 2 * DIM]))
    constants: dict[str, NDArray[Any]] = {
        **_COMMON,
        "white": np.array(255, np.float32),
        "plane": np.array([2, 3], np.int64),
        "one": np.array([1], np.int64),
        "two": np.array([2], np.int64),
        "prototypes": _PROTOTYPES[None, None],
        "sharpness": np.array(-SHARPNESS, np.float32),
    }
    inputs: list[GraphValue] = [
        ("frames", TensorProto.UINT8, ["B", frames, IMAGE_SIZE, IMAGE_SIZE, 3]),
        ("frame_mask", TensorProto.FLOAT, ["B", frames]),
    ]
    return build_graph(nodes, inputs, outputs, constants)


def _text_encoder(tokens: bool, plain: bool, *, salience: bool = True) -> bytes:
    node = helper.make_node
    nodes = [
        node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["mask", "two"], ["weight"]),
        node("Gather", ["rows", "input_ids"], ["words"]),
        node("Mul", ["words", "weight"], ["real"]),
        node("ReduceSum", ["real", "one"], ["sum"], keepdims=0),
        *_unit_nodes("sum", "text_embedding"),
        *(_salience_nodes("text_embedding", "text_salience", plain) if salience else []),
        node("Gather", ["colours", "input_ids"], ["text_tokens"]),
    ]
    constants: dict[str, NDArray[Any]] = {
        **_COMMON,
        "rows": _word_rows(),
        "colours": _word_tokens(),
        "one": np.array([1], np.int64),
        "two": np.array([2], np.int64),
    }
    inputs = [("input_ids", TensorProto.INT64, ["B", "L"]), ("attention_mask", TensorProto.INT64, ["B", "L"])]
    outputs: list[GraphValue] = [("text_embedding", TensorProto.FLOAT, ["B", DIM])]
    if salience:
        outputs.append(("text_salience", TensorProto.FLOAT, ["B", DIM if plain else 2 * DIM]))
    if tokens:
        outputs.append(("text_tokens", TensorProto.FLOAT, ["B", "L", 4]))
    return build_graph(nodes, inputs, outputs, constants)


def toy_matcher(*, ids: bool = False) -> bytes:
    """The matcher, serialised: fed text tokens, or the texts' ids."""
    node = helper.make_node
    nodes = [
        *([node("Gather", ["colours", "input_ids"], ["text_tokens"])] if ids else []),
        node("Slice", ["text_tokens", "zero", "three", "two"], ["words"]),
        node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["mask", "two"], ["weight"]),
        node("Mul", ["words", "weight"], ["real"]),
        node("ReduceSum", ["real", "one"], ["sum"], keepdims=1),
        node("ReduceSum", ["weight", "one"], ["count"], keepdims=1),
        node("Div", ["sum", "count"], ["mean"]),
        node("Mul", ["frame_tokens", "mean"], ["products"]),
        node("ReduceSum", ["products", "two"], ["dot"], keepdims=0),
        node("ReduceL2", ["frame_tokens", "two"], ["frame_length"], keepdims=0),
        node("ReduceL2", ["mean", "two"], ["text_length"], keepdims=0),
        node("Mul", ["frame_length", "text_length"], ["length"]),
        node("Add", ["length", "tiny"], ["divisor"]),
        node("Div", ["dot", "divisor"], ["cosine"]),
        node("ReduceMax", ["cosine", "one"], ["largest"], keepdims=0),
        node("Mul", ["largest", "eight"], ["scaled"]),
        node("Sub", ["scaled", "four"], ["match_logit"]),
    ]
    constants: dict[str, NDArray[Any]] = {
        "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64),
        "two": np.array([2], np.int64),
        "three": np.array([3], np.int64),
        "tiny": np.array(1e-6, np.float32),
        "eight": np.array(8, np.float32),
        "four": np.array(4, np.float32),
        **({"colours": _word_tokens()} if ids else {}),
    }
    text = ("input_ids", TensorProto.INT64, ["B", "L"])
    inputs: list[GraphValue] = [
        text if ids else ("text_tokens", TensorProto.FLOAT, ["B", "L", 4]),
        ("attention_mask", TensorProto.INT64, ["B", "L"]),
        ("frame_tokens", TensorProto.FLOAT, ["B", "P", 3]),
    ]
    return build_graph(nodes, inputs, [("match_logit", TensorProto.FLOAT, ["B"])], constants)


def toy_answer_head(*, answers: int = DIM, words: bool = False) -> bytes:
    """The answer head, serialised; it knows the first colours, and looks at no word unless told to."""
    node = helper.make_node
    word_nodes = [
        node("Slice", ["text_tokens", "zero", "three", "two"], ["colours"]),
        node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["mask", "two"], ["word_weight"]),
        node("Mul", ["colours", "word_weight"], ["real_words"]),
        node("ReduceSum", ["real_words", "one"], ["word_sum"], keepdims=0),
        node("ReduceSum", ["word_weight", "one"], ["word_count"], keepdims=0),
        node("Div", ["word_sum", "word_count"], ["word_mean"]),
        node("MatMul", ["word_mean", "columns"], ["word_logit"]),
        node("Sub", ["word_logit", "distance"], ["answer_logit"]),
    ]
    nodes = [
        node("ReduceMean", ["frame_tokens", "two"], ["frame_mean"], keepdims=0),
        node("Unsqueeze", ["frame_mask", "two"], ["weight"]),
        node("Mul", ["frame_mean", "weight"], ["real"]),
        node("ReduceSum", ["real", "one"], ["sum"], keepdims=1),
        node("ReduceSum", ["weight", "one"], ["count"], keepdims=1),
        node("Div", ["sum", "count"], ["mean"]),
        node("Sub", ["mean", "prototypes"], ["difference"]),
        node("Mul", ["difference", "difference"], ["square"]),
        node("ReduceSum", ["square", "two"], ["distance"], keepdims=0),
        *(word_nodes if words else [node("Neg", ["distance"], ["answer_logit"])]),
    ]
    signed = (2 * _PROTOTYPES - 1)[:answers]
    constants: dict[str, NDArray[Any]] = {
        "one": np.array([1], np.int64),
        "two": np.array([2], np.int64),
        "prototypes": signed[None],
    }
    if words:
        constants |= {
            "zero": np.array([0], np.int64),
            "three": np.array([3], np.int64),
            "columns": np.ascontiguousarray(signed.T),
        }
    inputs: list[GraphValue] = [
        ("text_tokens", TensorProto.FLOAT, ["B", "L", 4]),
        ("attention_mask", TensorProto.INT64, ["B", "L"]),
        ("frame_tokens", TensorProto.FLOAT, ["B", "n", "P", 3]),
        ("frame_mask", TensorProto.FLOAT, ["B", "n"]),
    ]
    return build_graph(nodes, inputs, [("answer_logit", TensorProto.FLOAT, ["B", answers])], constants)


def toy_moment_head(*, frames: str | int = "F", broken: bool = False, edges: bool = False) -> bytes:
    """The moment head, serialised; `frames` may fix their number, and with `broken` it gives infinity.

    With `edges`, the start's logits are what the cosine rises from the frame before, and the end's what it
    falls to the frame after; beyond the ends it is 0.
    """
    node = helper.make_node
    nodes = [
        node("Unsqueeze", ["text_query", "two"], ["column"]),
        node("MatMul", ["frame_embedding", "column"], ["product"]),
        node("Squeeze", ["product", "two"], ["cosine"]),
        node("Mul", ["cosine", "frame_mask"], ["real"]),
        node("Div" if broken else "Mul", ["real", "scale"], ["scaled"]),
        node("Neg", ["scaled"], ["rejection_logit"]),
    ]
    if edges:
        nodes += [
            node("Pad", ["scaled", "around"], ["padded"]),
            node("Slice", ["padded", "zero", "before_last", "one"], ["before"]),
            node("Slice", ["padded", "two", "far", "one"], ["after"]),
            node("Sub", ["scaled", "before"], ["start_logit"]),
            node("Sub", ["scaled", "after"], ["end_logit"]),
        ]
    else:
        nodes += [
            node("Identity", ["scaled"], ["start_logit"]),
            node("Mul", ["scaled", "half"], ["end_logit"]),
        ]
    inputs: list[GraphValue] = [
        ("text_query", TensorProto.FLOAT, ["B", DIM]),
        ("frame_embedding", TensorProto.FLOAT, ["B", frames, DIM]),
        ("frame_mask", TensorProto.FLOAT, ["B", frames]),
    ]
    outputs: list[GraphValue] = [
        (name, TensorProto.FLOAT, ["B", frames]) for name in ("start_logit", "end_logit", "rejection_logit")
    ]
    constants: dict[str, NDArray[Any]] = {
        "two": np.array([2], np.int64),
        "scale": np.array(0 if broken else 8, np.float32),
        "half": np.array(0.5, np.float32),
        "around": np.array([0, 1, 0, 1], np.int64),
        "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64),
        "before_last": np.array([-2], np.int64),
        "far": np.array([1 << 40], np.int64),
    }
    used = {name for each in nodes for name in each.input}
    return build_graph(nodes, inputs, outputs, {k: v for k, v in constants.items() if k in used})
