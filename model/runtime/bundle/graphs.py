"""The graphs of a bundle: their names, inputs and outputs, and what a bundle can do with them."""

from __future__ import annotations

from dataclasses import dataclass

#: the versions of the bundle format that are read; the second has packed graphs, and is written for these
FORMAT_VERSION, PACKED_FORMAT_VERSION = 2, 3


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph: `shape` holds a dimension's letter or its fixed size."""

    name: str
    dtype: str
    shape: tuple[str | int, ...]


@dataclass(frozen=True)
class GraphSpec:
    """A graph of the bundle format.

    Attributes:
        inputs: the graph's inputs, besides exactly one of `either`.
        outputs: its outputs in every bundle.
        tokens: its additional outputs in a bundle with tokens.
        salience: its additional outputs in a bundle with salience.
        either: inputs of which the graph has exactly one.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    tokens: tuple[TensorSpec, ...] = ()
    salience: tuple[TensorSpec, ...] = ()
    either: tuple[TensorSpec, ...] = ()


FRAME_ENCODER = "frame_encoder.onnx"
SEGMENT_ENCODER = "segment_encoder.onnx"
VIDEO_ENCODER = "video_encoder.onnx"
TEXT_ENCODER = "text_encoder.onnx"
MATCHER = "matcher.onnx"
ANSWER_HEAD = "answer_head.onnx"
MOMENT_HEAD = "moment_head.onnx"
#: the answers that `answer_head.onnx` knows: a JSON list of texts, in the order of its logits
ANSWERS = "answers.json"
#: what a text encoder returns for the graphs that do not read ids, in bundles that have such tokens
TEXT_TOKENS = "text_tokens"
#: embeddings of reference texts, by which `hubness` is measured, see `model.runtime.bundle.references`
REFERENCE_TEXTS = "reference_texts.npy"
#: embeddings of reference images, which a calibration compares queries with, and the axes that they are along
REFERENCE_IMAGES, REFERENCE_AXES = "reference_images.npy", "reference_axes.npy"

_FLOAT, _INT, _BYTE = "tensor(float)", "tensor(int64)", "tensor(uint8)"

#: Every graph of the format. B batch, N frames a segment, N' as many or fewer, P tokens a frame, P' as
#: many or fewer, L text tokens, H width of frame tokens, T of text tokens, D joint space, S salience,
#: n salient frames, A answers, F frames of any span of a video. The image's side is `size`.
GRAPHS: dict[str, GraphSpec] = {
    FRAME_ENCODER: GraphSpec(
        (TensorSpec("frames", _BYTE, ("B", "size", "size", 3)),),
        (TensorSpec("frame_embedding", _FLOAT, ("B", "D")),),
        tokens=(TensorSpec("frame_tokens", _FLOAT, ("B", "P", "H")),),
        salience=(TensorSpec("frame_salience", _FLOAT, ("B", "S")),),
    ),
    SEGMENT_ENCODER: GraphSpec(
        (
            TensorSpec("frame_embedding", _FLOAT, ("B", "N'", "D")),
            TensorSpec("frame_mask", _FLOAT, ("B", "N'")),
        ),
        (TensorSpec("segment_embedding", _FLOAT, ("B", "D")),),
    ),
    # All frames of a segment at once. The real ones (`frame_mask` 1) come first, at least one; what the
    # others hold must not count, and their salience is ignored.
    VIDEO_ENCODER: GraphSpec(
        (
            TensorSpec("frames", _BYTE, ("B", "N", "size", "size", 3)),
            TensorSpec("frame_mask", _FLOAT, ("B", "N")),
        ),
        (TensorSpec("segment_embedding", _FLOAT, ("B", "D")),),
        salience=(TensorSpec("frame_salience", _FLOAT, ("B", "N", "S")),),
    ),
    TEXT_ENCODER: GraphSpec(
        (TensorSpec("input_ids", _INT, ("B", "L")), TensorSpec("attention_mask", _INT, ("B", "L"))),
        (TensorSpec("text_embedding", _FLOAT, ("B", "D")),),
        tokens=(TensorSpec(TEXT_TOKENS, _FLOAT, ("B", "L", "T")),),
        salience=(TensorSpec("text_salience", _FLOAT, ("B", "S")),),
    ),
    # A pair is a text and a frame; the matcher reads the text encoder's tokens, or encodes the ids itself.
    # Where nothing reads them, the text encoder need not return any.
    MATCHER: GraphSpec(
        (
            TensorSpec("attention_mask", _INT, ("B", "L")),
            TensorSpec("frame_tokens", _FLOAT, ("B", "P'", "H")),
        ),
        (TensorSpec("match_logit", _FLOAT, ("B",)),),
        either=(
            TensorSpec(TEXT_TOKENS, _FLOAT, ("B", "L", "T")),
            TensorSpec("input_ids", _INT, ("B", "L")),
        ),
    ),
    # A question and the frames that are salient for it, of which at least one is real (`frame_mask` 1).
    ANSWER_HEAD: GraphSpec(
        (
            TensorSpec("attention_mask", _INT, ("B", "L")),
            TensorSpec("frame_tokens", _FLOAT, ("B", "n", "P'", "H")),
            TensorSpec("frame_mask", _FLOAT, ("B", "n")),
        ),
        (TensorSpec("answer_logit", _FLOAT, ("B", "A")),),
        either=(
            TensorSpec(TEXT_TOKENS, _FLOAT, ("B", "L", "T")),
            TensorSpec("input_ids", _INT, ("B", "L")),
        ),
    ),
    # A text and consecutive frames of a video, of which at least one is real (`frame_mask` 1).
    MOMENT_HEAD: GraphSpec(
        (
            TensorSpec("text_query", _FLOAT, ("B", "D")),
            TensorSpec("frame_embedding", _FLOAT, ("B", "F", "D")),
            TensorSpec("frame_mask", _FLOAT, ("B", "F")),
        ),
        (
            TensorSpec("start_logit", _FLOAT, ("B", "F")),
            TensorSpec("end_logit", _FLOAT, ("B", "F")),
            TensorSpec("rejection_logit", _FLOAT, ("B", "F")),
        ),
    ),
}

#: The graphs that embed segments frame by frame; a bundle without them has a video encoder in their place.
BY_FRAMES = (FRAME_ENCODER, SEGMENT_ENCODER)
#: What a bundle can do beyond retrieval, by the graph that this needs.
CAPABILITIES: dict[str, str] = {
    FRAME_ENCODER: "image_query",
    MATCHER: "match",
    ANSWER_HEAD: "answers",
    MOMENT_HEAD: "moments",
}
#: The capability of a bundle that says how well each frame fits a text, so that salient frames are chosen.
SALIENT_FRAMES = "salient_frames"
#: The capability of a bundle that re-ranks by the relevance of salient frames, without a graph.
SALIENCE_MATCH = "salience_match"
#: Graphs that read the encoders' tokens.
READ_TOKENS = (MATCHER, ANSWER_HEAD)
