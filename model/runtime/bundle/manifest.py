"""Reads and checks `bundle.json`, the description of a bundle."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    JsonValue,
    PositiveInt,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import from_json

from model.runtime.bundle.graphs import (
    ANSWER_HEAD,
    ANSWERS,
    BY_FRAMES,
    CAPABILITIES,
    FORMAT_VERSION,
    GRAPHS,
    MATCHER,
    MOMENT_HEAD,
    PACKED_FORMAT_VERSION,
    READ_TOKENS,
    REFERENCE_AXES,
    REFERENCE_IMAGES,
    REFERENCE_TEXTS,
    SALIENCE_MATCH,
    SALIENT_FRAMES,
    TEXT_ENCODER,
    TEXT_TOKENS,
    VIDEO_ENCODER,
    GraphSpec,
)
from model.runtime.bundle.packing import MOST_UNPACKED, packed_name
from model.runtime.errors import BundleError
from model.runtime.messages import printable
from model.runtime.preprocessing import Interpolation, ResizeRule, Resizing, UnicodeForm
from model.runtime.tokens import check_count

MANIFEST_NAME = "bundle.json"
#: The largest `reference_texts.npy`: it is read whole, and compared with every segment.
_MOST_REFERENCE_BYTES = 64 << 20
#: The largest graph that a packed file may hold: ONNX reads no larger ones from one file.
_MOST_UNPACKED_BYTES = (2 << 30) - 1

NonEmptyText = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
LanguageCode = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}$")]
PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
SalienceStrategy = Literal["simdot", "momentum", "crossmom", "collaborative"]
#: What re-ranks: the graph `matcher.onnx`, or the relevance of the salient frames, which needs no graph.
MatchKind = Literal["matcher", "salience"]

# A plain name without folder or drive, not hidden: no entry can point outside the bundle.
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class TokenSizes:
    """Sizes of the tokens that a bundle's encoders return and its matcher reads.

    Attributes:
        tokens_per_frame: P.
        stored_tokens_per_frame: tokens of a frame that a library stores by default, merged from P.
        hidden_dim: H, the width of a frame token.
        text_hidden_dim: T, the width of a text token; None: there are none, and matchers read ids.
    """

    tokens_per_frame: int
    stored_tokens_per_frame: int
    hidden_dim: int
    text_hidden_dim: int | None


#: Fields that the first bundles of format version 2 do not have.
_LATER = ("hubness", "salience_match", "moments", "embedding_dims")


def check_file_name(name: str) -> None:
    """Check a name that `files` lists.

    Raises:
        ValueError: it is not a plain name, is `bundle.json` itself, or names an unknown graph.
    """
    if not _FILE_NAME.fullmatch(name) or name == MANIFEST_NAME:
        raise ValueError(f"{name!r} is not a plain file name")
    if name.endswith(".onnx") and name not in GRAPHS:
        raise ValueError(
            f"{name!r} is not a graph of format version {PACKED_FORMAT_VERSION}: {sorted(GRAPHS)}"
        )


def _without(content: dict[str, Any], later: tuple[str, ...]) -> dict[str, Any]:
    """A model's fields without those of later versions that are not set: earlier versions read it then."""
    return {key: value for key, value in content.items() if key not in later or value is not None}


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class SourceRecord(_Frozen):
    """Data or weights that went into a bundle; `revision` is left out where they have none."""

    name: NonEmptyText
    licence: NonEmptyText
    source: NonEmptyText
    revision: NonEmptyText | None = None

    @model_serializer(mode="wrap")
    def _serialize(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without(serialize(self), ("revision",))


class Provenance(_Frozen):
    """Where a bundle comes from, in enough detail to train it again."""

    recipe: NonEmptyText
    data: tuple[SourceRecord, ...]
    weights: tuple[SourceRecord, ...]
    commit: NonEmptyText
    metrics: dict[str, JsonValue]


class ImageSpec(_Frozen):
    """How a frame becomes the input of the frame or video encoder: a square of `size` pixels, see `Resizing`.

    `interpolation` is left out where it is bicubic, and `shorter_side` where the rule does not read it.
    """

    size: PositiveInt
    resize: ResizeRule
    interpolation: Interpolation | None = None
    shorter_side: PositiveInt | None = None

    @model_validator(mode="after")
    def _check_resizing(self) -> ImageSpec:
        _ = self.resizing
        return self

    @property
    def resizing(self) -> Resizing:
        """The rule, as the code that resizes reads it."""
        return Resizing(self.size, self.resize, self.interpolation or "bicubic", self.shorter_side or 0)

    @model_serializer(mode="wrap")
    def _serialize(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without(serialize(self), ("interpolation", "shorter_side"))


class TextSpec(_Frozen):
    """The tokenizer's file and the longest text in tokens.

    `unicode_form` is left out where it is NFKC, and `languages` where they are not known: codes of ISO 639
    such as "en", or "mul" for many.
    """

    tokenizer: NonEmptyText
    context_length: PositiveInt
    unicode_form: UnicodeForm | None = None
    languages: tuple[LanguageCode, ...] | None = None

    @model_serializer(mode="wrap")
    def _serialize(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without(serialize(self), ("unicode_form", "languages"))


class FeatureWeight(_Frozen):
    """What a feature adds to the log-odds: weight · (feature − offset) / scale."""

    weight: Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
    offset: Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
    scale: Annotated[float, Field(ge=1e-9, le=1e6, allow_inf_nan=False)]


class ScoreCalibration(_Frozen):
    """From one kind of score to the probability that a hit shows the query.

    The log-odds are `bias` and what the features add; `model.runtime.calibration` says what these are. A hit
    is of the level "medium" from the probability `medium` on, and "high" from `high` on. `usual` is left out
    where the bundle has no reference images.
    """

    bias: Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
    score: FeatureWeight
    best: FeatureWeight
    background: FeatureWeight
    familiarity: FeatureWeight
    strangeness: FeatureWeight
    usual: FeatureWeight | None = None
    strange_below: FiniteFloat
    medium: Annotated[float, Field(ge=0, le=1)]
    high: Annotated[float, Field(ge=0, le=1)]

    @model_validator(mode="after")
    def _check_order(self) -> ScoreCalibration:
        if self.score.weight <= 0:
            raise ValueError(
                f"score.weight is {self.score.weight:g}: it must be positive, or better scores would have "
                "lower probabilities"
            )
        if self.high < self.medium:
            raise ValueError(f"high {self.high:g} is below medium {self.medium:g}")
        return self

    @model_serializer(mode="wrap")
    def _serialize(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without(serialize(self), ("usual",))


class Calibration(_Frozen):
    """Probabilities for the first stage's scores, and for the final ones; null where nothing re-ranks."""

    first_stage: ScoreCalibration
    final: ScoreCalibration | None

    @property
    def reads_images(self) -> bool:
        """Whether a feature compares queries with the bundle's reference images."""
        return any(part is not None and part.usual is not None for part in (self.first_stage, self.final))


class SalienceMatch(_Frozen):
    """A match without a graph: scale · relevance + bias, the log-odds that a frame shows what a text says.

    With `coherence`, two limits, the similarity takes the place of the relevance in segments whose frames are
    alike: see `ranking.blended_match`.
    """

    scale: Annotated[float, Field(gt=0, le=1e4, allow_inf_nan=False)]
    bias: Annotated[float, Field(ge=-1e4, le=1e4, allow_inf_nan=False)]
    coherence: tuple[FiniteFloat, FiniteFloat] | None = None

    @model_validator(mode="after")
    def _check_limits(self) -> SalienceMatch:
        if self.coherence is not None and not 0 <= self.coherence[0] < self.coherence[1]:
            raise ValueError(f"coherence {list(self.coherence)}: the lower limit must come first, from 0 on")
        return self


class Hubness(_Frozen):
    """What a search subtracts from a segment's similarity: `weight` times the mean cosine of the segment with
    the `neighbours` nearest texts of `reference_texts.npy`.
    """

    weight: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]
    neighbours: PositiveInt


class Moments(_Frozen):
    """What the moment head was trained for: frames that are `every_seconds` apart."""

    every_seconds: PositiveSeconds


class FileRecord(_Frozen):
    """The checksum and size that a file of the bundle must have.

    `unpacked_bytes` is the size of a graph whose file is packed, and named by `packed_name`; it is left out
    where the file is the graph.
    """

    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0)]
    unpacked_bytes: Annotated[int, Field(ge=0, le=_MOST_UNPACKED_BYTES)] | None = None

    @model_validator(mode="after")
    def _check_ratio(self) -> FileRecord:
        most = MOST_UNPACKED * self.bytes
        if self.unpacked_bytes is not None and self.unpacked_bytes > most:
            raise ValueError(
                f"unpacked_bytes is {self.unpacked_bytes}: a packed graph of {self.bytes} bytes holds at "
                f"most {most}"
            )
        return self

    @property
    def is_packed(self) -> bool:
        """Whether the file is a packed graph."""
        return self.unpacked_bytes is not None

    @property
    def memory_bytes(self) -> int:
        """The size of the content in memory."""
        return self.bytes if self.unpacked_bytes is None else self.unpacked_bytes

    @model_serializer(mode="wrap")
    def _serialize(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without(serialize(self), ("unpacked_bytes",))


class BundleManifest(_Frozen):
    """The content of `bundle.json`, format version 2, or 3 with packed graphs. Unknown and missing fields are
    refused.

    In a bundle whose encoders return no tokens, all four sizes of tokens (`tokens_per_frame`,
    `stored_tokens_per_frame`, `hidden_dim`, `text_hidden_dim`) are null, and no graph reads them. With
    `text_hidden_dim` alone null, the text encoder returns none, and what reads texts reads their ids.
    In one whose video encoder says nothing of single frames, `salience_dim` and `salience_strategy` are null,
    and `num_salient_frames` does not count. Without a correction, `hubness` is left out, and `salience_match`
    and `moments` likewise. `embedding_dims` are the smaller sizes, rising, to which a library may cut
    embeddings: their first dimensions alone, scaled to unit length, rank nearly as well (Matryoshka
    representation learning, Kusupati et al., 2022). Left out: none.
    """

    format_version: Literal[2, 3]
    name: NonEmptyText
    description: str
    licence: NonEmptyText
    provenance: Provenance
    embedding_dim: PositiveInt
    salience_dim: PositiveInt | None
    tokens_per_frame: PositiveInt | None
    stored_tokens_per_frame: PositiveInt | None
    hidden_dim: PositiveInt | None
    text_hidden_dim: PositiveInt | None
    frames_per_segment: PositiveInt
    segment_seconds: PositiveSeconds
    num_salient_frames: PositiveInt
    num_candidates: PositiveInt
    salience_strategy: SalienceStrategy | None
    image: ImageSpec
    text: TextSpec
    ensemble_lambda: FiniteFloat
    calibration: Calibration | None
    hubness: Hubness | None = None
    salience_match: SalienceMatch | None = None
    moments: Moments | None = None
    embedding_dims: tuple[PositiveInt, ...] | None = None
    files: dict[str, FileRecord]

    @field_validator("files")
    @classmethod
    def _check_files(cls, files: dict[str, FileRecord]) -> dict[str, FileRecord]:
        for name, record in files.items():
            check_file_name(name)
            if record.is_packed and name not in GRAPHS:
                raise ValueError(f"{name!r} is packed, which graphs alone may be")
            if record.is_packed and packed_name(name) in files:
                raise ValueError(f"{packed_name(name)!r} is listed, but it is the packed {name!r}")
        beside = [name for name in BY_FRAMES if name in files]
        if VIDEO_ENCODER in files and beside:
            raise ValueError(
                f"{VIDEO_ENCODER!r} takes the place of {' and '.join(map(repr, BY_FRAMES))}, but files lists "
                f"{' and '.join(map(repr, beside))} too: leave out the one or the others"
            )
        for name in _encoders(files):
            if name not in files:
                raise ValueError(f"the graph {name!r} is missing")
        return files

    @model_validator(mode="after")
    def _check_together(self) -> BundleManifest:
        if (self.format_version == PACKED_FORMAT_VERSION) != bool(self.packed_graphs):
            raise ValueError(
                f"format version {self.format_version} with the packed graphs {sorted(self.packed_graphs)}: "
                f"a bundle with such graphs has version {PACKED_FORMAT_VERSION}, others have {FORMAT_VERSION}"
            )
        if self.text.tokenizer not in self.files:
            raise ValueError(f"files lists no {self.text.tokenizer!r}, which text.tokenizer names")
        if ANSWER_HEAD in self.files and ANSWERS not in self.files:
            raise ValueError(f"files lists {ANSWER_HEAD!r} without {ANSWERS!r}, which holds its answers")
        if self.salience_match is not None and MATCHER in self.files:
            raise ValueError(f"there is salience_match, but files lists {MATCHER!r}: give one of them")
        if (self.moments is None) != (MOMENT_HEAD not in self.files):
            raise ValueError(f"moments and the graph {MOMENT_HEAD!r} need each other: give both or neither")
        self._check_salience()
        dims = self.embedding_dims
        if dims is not None and (not dims or list(dims) != sorted({*dims}) or dims[-1] >= self.embedding_dim):
            raise ValueError(
                f"embedding_dims {list(dims)}: give rising sizes below embedding_dim {self.embedding_dim}, "
                "or leave it out"
            )
        self._check_tokens()
        self._check_references()
        if self.num_salient_frames > self.frames_per_segment:
            raise ValueError(
                f"num_salient_frames {self.num_salient_frames} is more than "
                f"frames_per_segment {self.frames_per_segment}"
            )
        return self

    def _check_salience(self) -> None:
        if (self.salience_dim is None) != (self.salience_strategy is None):
            raise ValueError("salience_dim and salience_strategy must both be null, or neither")
        if self.has_salience:
            return
        if not self.has_video_encoder:
            raise ValueError(
                "salience_dim is null, but the frame encoder returns frame_salience: say its size"
            )
        for name, value in (("salience_match", self.salience_match), ("moments", self.moments)):
            if value is not None:
                raise ValueError(
                    f"{name} reads the salience of frames, of which {VIDEO_ENCODER!r} returns none "
                    "(salience_dim is null): leave it out"
                )

    def _check_tokens(self) -> None:
        sizes = {field.name: getattr(self, field.name) for field in fields(TokenSizes)}
        missing = [name for name, size in sizes.items() if size is None]
        if missing not in ([], ["text_hidden_dim"], list(sizes)):
            raise ValueError(f"{', '.join(missing)} must not be null, or all of {', '.join(sizes)} must be")
        tokens = self.tokens
        if tokens is not None and self.has_video_encoder:
            raise ValueError(f"{VIDEO_ENCODER!r} returns no tokens: {', '.join(sizes)} must be null")
        if tokens is None:
            for graph in READ_TOKENS:
                if graph in self.files:
                    raise ValueError(
                        f"{graph} reads frame_tokens, but the encoders return no tokens ({', '.join(sizes)} "
                        "are null): leave it out, or add the token outputs"
                    )
            return
        try:
            check_count(tokens.stored_tokens_per_frame, tokens.tokens_per_frame)
        except ValueError as error:
            raise ValueError(f"stored_tokens_per_frame: {error}") from error

    def _check_references(self) -> None:
        reads_images = self.calibration is not None and self.calibration.reads_images
        for name, field, is_read in (
            (REFERENCE_TEXTS, "hubness", self.hubness is not None),
            (REFERENCE_IMAGES, "calibration.usual", reads_images),
            (REFERENCE_AXES, "calibration.usual", reads_images),
        ):
            record = self.files.get(name)
            if (record is not None) != is_read:
                raise ValueError(f"{field} and the file {name!r} need each other: give both or neither")
            if record is not None and record.bytes > _MOST_REFERENCE_BYTES:
                raise ValueError(
                    f"{name} has {record.bytes} bytes, more than {_MOST_REFERENCE_BYTES}: "
                    "choose fewer references"
                )

    @property
    def packed_graphs(self) -> frozenset[str]:
        """The graphs whose files are packed."""
        return frozenset(name for name, record in self.files.items() if record.is_packed)

    def file_name(self, name: str) -> str:
        """The name of the file that holds what `files` lists as `name`."""
        return packed_name(name) if self.files[name].is_packed else name

    @property
    def files_on_disk(self) -> dict[str, FileRecord]:
        """The records of all files, by the names that these have in the bundle's folder."""
        return {self.file_name(name): record for name, record in self.files.items()}

    @property
    def tokens(self) -> TokenSizes | None:
        """Sizes of the encoders' tokens; None where the encoders return no tokens."""
        count, stored, width = self.tokens_per_frame, self.stored_tokens_per_frame, self.hidden_dim
        if count is None or stored is None or width is None:
            return None
        return TokenSizes(count, stored, width, self.text_hidden_dim)

    @property
    def match_kind(self) -> MatchKind | None:
        """What re-ranks; None: nothing does."""
        if MATCHER in self.files:
            return "matcher"
        return None if self.salience_match is None else "salience"

    @property
    def capabilities(self) -> frozenset[str]:
        """What the bundle can do beyond retrieval, see `CAPABILITIES`."""
        found = {name for graph, name in CAPABILITIES.items() if graph in self.files}
        if self.has_salience:
            found.add(SALIENT_FRAMES)
        if self.salience_match is not None:
            found.add(SALIENCE_MATCH)
        return frozenset(found)

    @property
    def has_salience(self) -> bool:
        """Whether the bundle says how well each frame fits a text, so that salient frames can be chosen."""
        return self.salience_dim is not None

    @property
    def encoders(self) -> tuple[str, ...]:
        """The graphs that the bundle must have: those that embed segments and texts."""
        return _encoders(self.files)

    @property
    def has_video_encoder(self) -> bool:
        """Whether one graph reads all frames of a segment; else one encodes frames and another joins them."""
        return VIDEO_ENCODER in self.files

    @property
    def reads_tokens(self) -> bool:
        """Whether a graph of the bundle reads the tokens of frames, so that a library must store them."""
        return any(graph in self.files for graph in READ_TOKENS)

    @property
    def embedding_in_salience(self) -> bool:
        """Whether the first D values of a frame's salience are its embedding, so that a library has both.

        They are where saliences are the plain embeddings, alone or with numbers after them.
        """
        return self.salience_strategy == "simdot" and (self.salience_dim or 0) >= self.embedding_dim

    def graph_spec(self, graph: str) -> GraphSpec:
        """Inputs and outputs of a graph of this bundle; salience and tokens only where it has them."""
        spec = GRAPHS[graph]
        salience = spec.salience if self.has_salience else ()
        tokens, either = (spec.tokens if self.tokens is not None else ()), spec.either
        if self.tokens is not None and self.tokens.text_hidden_dim is None:
            tokens, either = (
                tuple(item for item in items if item.name != TEXT_TOKENS) for items in (tokens, either)
            )
        return replace(spec, outputs=spec.outputs + salience + tokens, either=either)

    def dims(self) -> dict[str, int]:
        """The sizes that this bundle fixes, by their letters in `GRAPHS`."""
        dims = {"D": self.embedding_dim, "N": self.frames_per_segment, "size": self.image.size}
        if self.salience_dim is not None:
            dims["S"] = self.salience_dim
        if self.tokens is not None:
            dims |= {"P": self.tokens.tokens_per_frame, "H": self.tokens.hidden_dim}
            if self.tokens.text_hidden_dim is not None:
                dims["T"] = self.tokens.text_hidden_dim
        return dims

    @model_serializer(mode="wrap")
    def _serialize(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what later versions added and this bundle does not use: earlier versions read it then."""
        return _without(serialize(self), _LATER)

    def to_json(self) -> bytes:
        """The content of `bundle.json`, ending with a line break."""
        return self.model_dump_json(indent=2).encode() + b"\n"


def _encoders(files: Collection[str]) -> tuple[str, ...]:
    return (*((VIDEO_ENCODER,) if VIDEO_ENCODER in files else BY_FRAMES), TEXT_ENCODER)


def parse_manifest(data: bytes, path: Path) -> BundleManifest:
    """Read `bundle.json` from its bytes; error messages name `path`.

    Raises:
        BundleError: the data is not JSON, its format version is unknown, or a field is missing, unknown or
            invalid.
    """
    try:
        raw = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise BundleError(f"{path} is not JSON ({error}): export or download the bundle again") from error
    if not isinstance(raw, dict):
        raise BundleError(f"{path} holds no JSON object: export or download the bundle again")
    version = raw.get("format_version")
    if version not in (FORMAT_VERSION, PACKED_FORMAT_VERSION) or not isinstance(version, int):
        newer = isinstance(version, int) and version > PACKED_FORMAT_VERSION
        remedy = "upgrade reelfind" if newer else "export the bundle again with this version's reelfind-model"
        raise BundleError(
            f"{path} has format version {version!r}, this reelfind reads the versions {FORMAT_VERSION} "
            f"and {PACKED_FORMAT_VERSION}: {remedy}"
        )
    try:
        return BundleManifest.model_validate_json(data)
    except ValidationError as error:
        raise BundleError(f"{path} is not valid: {_describe(error)}; export the bundle again") from error


def _describe(error: ValidationError) -> str:
    """The first problems of a validation error, on one line."""
    problems = []
    for item in error.errors(include_url=False, include_context=False, include_input=False)[:3]:
        where = printable(".".join(str(part) for part in item["loc"]))
        message = item["msg"].removeprefix("Value error, ")
        problems.append(f"{where}: {message}" if where else message)
    more = error.error_count() - len(problems)
    return "; ".join(problems) + (f"; and {more} more" if more > 0 else "")
