"""`bundle.json`: what a bundle says of itself, and the names and shapes of its graphs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import from_json

from model.runtime.errors import BundleError
from model.runtime.preprocessing import ResizeRule
from model.runtime.tokens import check_count

MANIFEST_NAME = "bundle.json"
FORMAT_VERSION = 2

Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Count = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Number = Annotated[float, Field(allow_inf_nan=False)]
SalienceStrategy = Literal["simdot", "momentum", "crossmom", "collaborative"]

# A plain name: no folder, no drive, not hidden, so that no entry can point out of the bundle.
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph: `shape` holds a dimension's letter or its fixed size."""

    name: str
    dtype: str
    shape: tuple[str | int, ...]


@dataclass(frozen=True)
class GraphSpec:
    """A graph of the format, taking `inputs` and exactly one of `either`; `optional` ones may be absent."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    either: tuple[TensorSpec, ...] = ()
    optional: bool = False


FRAME_ENCODER = "frame_encoder.onnx"
SEGMENT_ENCODER = "segment_encoder.onnx"
TEXT_ENCODER = "text_encoder.onnx"
MATCHER = "matcher.onnx"
MOMENT_HEAD = "moment_head.onnx"

_FLOAT, _INT, _BYTE = "tensor(float)", "tensor(int64)", "tensor(uint8)"

#: Every graph of format version 2. B batch, N frames, P tokens a frame, P' as many or fewer, L text tokens,
#: H width of frame tokens, T of text tokens, D joint space, S salience. `size` is the image's side.
GRAPHS: dict[str, GraphSpec] = {
    FRAME_ENCODER: GraphSpec(
        (TensorSpec("frames", _BYTE, ("B", "size", "size", 3)),),
        (
            TensorSpec("frame_embedding", _FLOAT, ("B", "D")),
            TensorSpec("frame_salience", _FLOAT, ("B", "S")),
            TensorSpec("frame_tokens", _FLOAT, ("B", "P", "H")),
        ),
    ),
    SEGMENT_ENCODER: GraphSpec(
        (
            TensorSpec("frame_embedding", _FLOAT, ("B", "N", "D")),
            TensorSpec("frame_mask", _FLOAT, ("B", "N")),
        ),
        (TensorSpec("segment_embedding", _FLOAT, ("B", "D")),),
    ),
    TEXT_ENCODER: GraphSpec(
        (TensorSpec("input_ids", _INT, ("B", "L")), TensorSpec("attention_mask", _INT, ("B", "L"))),
        (
            TensorSpec("text_embedding", _FLOAT, ("B", "D")),
            TensorSpec("text_salience", _FLOAT, ("B", "S")),
            TensorSpec("text_tokens", _FLOAT, ("B", "L", "T")),
        ),
    ),
    # A pair is a text and a frame; the text comes as the text encoder's tokens, or as ids to be read anew.
    MATCHER: GraphSpec(
        (
            TensorSpec("attention_mask", _INT, ("B", "L")),
            TensorSpec("frame_tokens", _FLOAT, ("B", "P'", "H")),
        ),
        (TensorSpec("match_logit", _FLOAT, ("B",)),),
        either=(
            TensorSpec("text_tokens", _FLOAT, ("B", "L", "T")),
            TensorSpec("input_ids", _INT, ("B", "L")),
        ),
        optional=True,
    ),
    # Named by the format, not used by this version: its inputs are settled when it is.
    MOMENT_HEAD: GraphSpec((), (), optional=True),
}


def check_file_name(name: str) -> None:
    """Check a name that `files` lists.

    Raises:
        ValueError: it is not a plain name, is `bundle.json` itself, or a graph that the format does not know.
    """
    if not _FILE_NAME.fullmatch(name) or name == MANIFEST_NAME:
        raise ValueError(f"{name!r} is not a plain file name")
    if name.endswith(".onnx") and name not in GRAPHS:
        raise ValueError(f"{name!r} is not a graph of format version {FORMAT_VERSION}: {sorted(GRAPHS)}")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class SourceRecord(_Frozen):
    """Data or weights that went into a bundle."""

    name: Text
    licence: Text
    source: Text


class Provenance(_Frozen):
    """Where a bundle comes from: enough to train it again."""

    recipe: Text
    data: tuple[SourceRecord, ...]
    weights: tuple[SourceRecord, ...]
    commit: Text
    metrics: dict[str, JsonValue]


class ImageSpec(_Frozen):
    """How a frame becomes the frame encoder's input: a square of `size` pixels."""

    size: Count
    resize: ResizeRule


class TextSpec(_Frozen):
    """The tokenizer's file and the longest text in tokens."""

    tokenizer: Text
    context_length: Count


class Calibration(_Frozen):
    """score = 1 / (1 + exp(−(scale · similarity + bias)))."""

    kind: Literal["logistic"]
    scale: Number
    bias: Number


class FileRecord(_Frozen):
    """What a file of the bundle must be, to the byte."""

    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0)]


class BundleManifest(_Frozen):
    """The content of `bundle.json`, format version 2. Unknown and missing fields are refused."""

    format_version: Literal[2]
    name: Text
    description: str
    licence: Text
    provenance: Provenance
    embedding_dim: Count
    salience_dim: Count
    tokens_per_frame: Count
    stored_tokens_per_frame: Count
    hidden_dim: Count
    text_hidden_dim: Count
    frames_per_segment: Count
    segment_seconds: Seconds
    num_salient_frames: Count
    num_candidates: Count
    salience_strategy: SalienceStrategy
    image: ImageSpec
    text: TextSpec
    ensemble_lambda: Number
    calibration: Calibration | None
    files: dict[str, FileRecord]

    @field_validator("files")
    @classmethod
    def _check_files(cls, files: dict[str, FileRecord]) -> dict[str, FileRecord]:
        for name in files:
            check_file_name(name)
        for name, graph in GRAPHS.items():
            if name not in files and not graph.optional:
                raise ValueError(f"the graph {name!r} is missing")
        return files

    @model_validator(mode="after")
    def _check_together(self) -> BundleManifest:
        if self.text.tokenizer not in self.files:
            raise ValueError(f"files lists no {self.text.tokenizer!r}, which text.tokenizer names")
        try:
            check_count(self.stored_tokens_per_frame, self.tokens_per_frame)
        except ValueError as error:
            raise ValueError(f"stored_tokens_per_frame: {error}") from error
        if self.num_salient_frames > self.frames_per_segment:
            raise ValueError(
                f"num_salient_frames {self.num_salient_frames} is more than "
                f"frames_per_segment {self.frames_per_segment}"
            )
        return self

    def dims(self) -> dict[str, int]:
        """The letters of `GRAPHS` whose sizes this bundle fixes."""
        return {
            "D": self.embedding_dim,
            "S": self.salience_dim,
            "P": self.tokens_per_frame,
            "H": self.hidden_dim,
            "T": self.text_hidden_dim,
            "size": self.image.size,
        }

    def to_json(self) -> bytes:
        """The bytes of `bundle.json`, ending with a line break."""
        return self.model_dump_json(indent=2).encode() + b"\n"


def parse_manifest(data: bytes, path: Path) -> BundleManifest:
    """Read `bundle.json` from its bytes; `path` is what messages name.

    Raises:
        BundleError: not JSON, an unknown format version, or a field that is missing, unknown or wrong.
    """
    try:
        raw = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise BundleError(f"{path} is not JSON ({error}): export or download the bundle again") from error
    if not isinstance(raw, dict):
        raise BundleError(f"{path} holds no JSON object: export or download the bundle again")
    version = raw.get("format_version")
    if version != FORMAT_VERSION or isinstance(version, bool):
        newer = isinstance(version, int) and version > FORMAT_VERSION
        remedy = "upgrade reelfind" if newer else "export the bundle again with this version's reelfind-model"
        raise BundleError(
            f"{path} has format version {version!r}, this reelfind reads version {FORMAT_VERSION}: {remedy}"
        )
    try:
        return BundleManifest.model_validate_json(data)
    except ValidationError as error:
        raise BundleError(f"{path} is not valid: {_describe(error)}; export the bundle again") from error


def _describe(error: ValidationError) -> str:
    """The first problems of a validation error, on one line."""
    problems = []
    for item in error.errors(include_url=False, include_context=False, include_input=False)[:3]:
        where = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        problems.append(f"{where}: {message}" if where else message)
    more = error.error_count() - len(problems)
    return "; ".join(problems) + (f"; and {more} more" if more > 0 else "")
