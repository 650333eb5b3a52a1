"""Writes a model's graphs as a bundle, after checking each against PyTorch.

Shapes: P tokens a frame, H and T widths of frame and text tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from torch import nn

from model.export.frame_bundles import FrameBundle, join
from model.export.frame_hubness import with_frame_hubness
from model.export.references import ReferenceTexts
from model.export.storage import STORAGES, Storage, store
from model.export.tracing import check_graph, to_onnx
from model.families import get_family
from model.families.base import FeatureFamily, Graph, InferenceOptions, ModelDescription, PictureFamily
from model.progress import Report, silent
from model.runtime.bundle import BundleDescription, BundleManifest, HubnessCorrection, write_bundle
from model.runtime.bundle.graphs import ANSWER_HEAD, FRAME_ENCODER, MATCHER, MOMENT_HEAD, TEXT_ENCODER
from model.runtime.bundle.manifest import (
    ImageSpec,
    Provenance,
    SalienceMatch,
    SalienceStrategy,
    TokenSizes,
)
from model.runtime.bundle.references import NEIGHBOURS
from model.runtime.errors import InputError
from model.runtime.preprocessing import TextTokenizer
from model.runtime.tokens import check_count

#: largest difference of any output from PyTorch's, by how weights are stored
TOLERANCE: Mapping[Storage, float] = {"float32": 1e-4, "float16": 5e-3, "int8": 8e-2}


@dataclass(frozen=True)
class StorageChoice:
    """How the weights of each part are stored; `words` are the word embeddings, `matcher` is any head.

    Raises:
        InputError: a storage is unknown.
    """

    image: Storage = "float16"
    text: Storage = "int8"
    words: Storage = "int8"
    matcher: Storage = "float16"

    def __post_init__(self) -> None:
        for choice in vars(self).values():
            if choice not in STORAGES:
                raise InputError(f"unknown storage {choice!r}: use one of {', '.join(STORAGES)}")

    def of(self, graph: str) -> tuple[Storage, Storage]:
        """How a graph's weights and its embedding tables are stored."""
        parts = {
            FRAME_ENCODER: (self.image, self.image),
            TEXT_ENCODER: (self.text, self.words),
            MATCHER: (self.matcher, self.matcher),
            ANSWER_HEAD: (self.matcher, self.matcher),
            MOMENT_HEAD: (self.matcher, self.matcher),
        }
        return parts.get(graph, ("float32", "float32"))


@dataclass(frozen=True)
class ExportOptions:
    """What goes into a bundle; None: as the model's settings say.

    Attributes:
        inference: which weights, and how frames are scored.
        matcher: include the matching head.
        salience_match: re-ranks by the relevance of the salient frames in place of the matching head.
        num_salient_frames: frames of a segment that are matched.
        num_candidates: segments that are re-ranked for a query.
        ensemble_lambda: λ.
        tokens_per_frame: tokens of a frame that an index keeps, merged; None: all.
        storage: how weights are stored.
        hubness: what a search subtracts from similarities; None: nothing.
        frame_hubness: with `hubness`, the weight of its correction of frames' relevance; 0: none.
        frames: for families that read features, the bundle whose frame encoder made them.
    """

    inference: InferenceOptions = field(default_factory=InferenceOptions)
    matcher: bool = True
    salience_match: SalienceMatch | None = None
    num_salient_frames: int | None = None
    num_candidates: int = 100
    ensemble_lambda: float = 1.0
    tokens_per_frame: int | None = None
    storage: StorageChoice = field(default_factory=StorageChoice)
    hubness: ReferenceTexts | None = None
    frame_hubness: float = 0.0
    frames: FrameBundle | None = None

    def __post_init__(self) -> None:
        if self.frame_hubness and self.hubness is None:
            raise InputError(
                f"frame_hubness_weight is {self.frame_hubness:g}, but there are no reference texts: set "
                "hubness_weight too",
                "frame_hubness_weight",
            )


def export_bundle(
    folder: Path,
    family: str,
    model: nn.Module,
    tokenizer: Path,
    provenance: Provenance,
    options: ExportOptions | None = None,
    *,
    name: str = "mini",
    licence: str = "not stated",
    description: str = "",
    report: Report = silent,
) -> BundleManifest:
    """Describe a model and write its bundle, or fail and write nothing.

    Args:
        folder: becomes the bundle; a bundle that is there is replaced.
        family: the name of the model's family.
        model: the trained model.
        tokenizer: its `tokenizer.json`.
        provenance: where the bundle comes from.
        options: what goes into the bundle; None: the defaults.
        name: the name of the bundle.
        licence: an SPDX expression, or "not stated".
        description: what the bundle is good for.
        report: told each graph's size, and its difference from PyTorch.

    Returns:
        the manifest as written.

    Raises:
        InputError: an option does not fit the model.
        ExportError: a graph differs from PyTorch.
        BundleError: the bundle cannot be written.
    """
    options = options or ExportOptions()
    model_family = get_family(family)
    frames = _frames_of(family, options) if isinstance(model_family, FeatureFamily) else None
    if frames is None and options.frames is not None:
        raise InputError(f"family={family} has a frame encoder of its own: leave it out", "frame_bundle")
    described = describe_bundle(
        model_family.describe(model, options.inference),
        options,
        name=name,
        licence=licence,
        description=description,
        provenance=provenance,
    )
    matcher = options.matcher and options.salience_match is None
    graphs = model_family.graphs(model, options.inference, matcher=matcher)
    if frames is not None:
        frames.check_width(graphs[FRAME_ENCODER].example[0].shape[1])
        if not frames.moments:
            report(f"no {MOMENT_HEAD}: the model has not learned where in a video moments are (loss.span)")
            del graphs[MOMENT_HEAD]
        described = frames.describe(described, tuple(graphs))
    elif isinstance(model_family, PictureFamily) and options.hubness is not None and options.frame_hubness:
        tokenize = TextTokenizer.from_file(tokenizer, described.context_length)
        encoder = model_family.encoder(model, tokenize, options.inference)
        references = options.hubness.saliences(encoder)
        correction = HubnessCorrection(options.frame_hubness, NEIGHBOURS, references)
        graphs = with_frame_hubness(graphs, correction)
        described = replace(described, salience_dim=(described.salience_dim or 0) + 1)
    return write_graphs(
        folder,
        graphs,
        described,
        tokenizer,
        storage=options.storage,
        hubness=options.hubness,
        frames=frames,
        report=report,
        overwrite=True,
    )


def _frames_of(family: str, options: ExportOptions) -> FrameBundle:
    """The bundle that a family which reads features is joined with.

    Raises:
        InputError: none is named, or frames cannot be corrected.
    """
    if options.frames is None:
        raise InputError(
            f"family={family} reads features, and a bundle needs a frame encoder: name the bundle that made "
            "them (`--bundle` of `reelfind-model features`)",
            "frame_bundle",
        )
    if options.frame_hubness:
        raise InputError(f"family={family} has no correction of frames: leave it out", "frame_hubness_weight")
    return options.frames


def describe_bundle(
    model: ModelDescription,
    options: ExportOptions,
    *,
    name: str,
    licence: str,
    description: str,
    provenance: Provenance,
) -> BundleDescription:
    """The description of a bundle: the model's part, the ranking options, and what its author says.

    Raises:
        InputError: an option does not fit the model.
    """
    salient = options.num_salient_frames or model.num_salient_frames
    if salient > model.frames_per_segment:
        raise InputError(
            f"{salient} salient frames of {model.frames_per_segment} a segment: lower `num_salient_frames`"
        )
    return BundleDescription(
        name=name,
        licence=licence,
        provenance=provenance,
        embedding_dim=model.embedding_dim,
        salience_dim=model.salience_dim,
        image=ImageSpec(size=model.image_size, resize="squash")
        if options.frames is None
        else options.frames.bundle.manifest.image,
        context_length=model.context_length,
        description=description,
        tokens=_token_sizes(model, options.tokens_per_frame),
        salience_match=options.salience_match,
        frames_per_segment=model.frames_per_segment,
        num_salient_frames=salient,
        num_candidates=options.num_candidates,
        # The manifest checks the name.
        salience_strategy=cast(SalienceStrategy, model.salience_strategy),
        ensemble_lambda=options.ensemble_lambda,
        answers=model.answers,
    )


def _token_sizes(model: ModelDescription, stored: int | None) -> TokenSizes | None:
    count, width, text_width = model.tokens_per_frame, model.hidden_dim, model.text_hidden_dim
    if count is None or width is None or text_width is None:
        if stored is not None:
            raise InputError(
                f"tokens_per_frame is {stored}, but the model gives no tokens: leave it out",
                "tokens_per_frame",
            )
        return None
    if stored is not None:
        try:
            check_count(stored, count)
        except ValueError as error:
            raise InputError(f"tokens_per_frame: {error}", "tokens_per_frame") from error
    return TokenSizes(
        tokens_per_frame=count,
        stored_tokens_per_frame=count if stored is None else stored,
        hidden_dim=width,
        text_hidden_dim=text_width,
    )


def write_graphs(
    folder: Path,
    graphs: Mapping[str, Graph],
    description: BundleDescription,
    tokenizer: Path,
    *,
    storage: StorageChoice | None = None,
    hubness: ReferenceTexts | None = None,
    frames: FrameBundle | None = None,
    report: Report = silent,
    overwrite: bool = False,
) -> BundleManifest:
    """Trace graphs to ONNX, check them against PyTorch, store their weights smaller, and write the bundle.

    Args:
        folder: becomes the bundle; its parent must exist.
        graphs: by their file names in the bundle.
        description: everything else that `bundle.json` says.
        tokenizer: a `tokenizer.json`.
        storage: how weights are stored; None: the defaults.
        hubness: what a search subtracts from similarities; None: nothing.
        frames: the bundle whose frame encoder's embeddings the graph of that name reads as `features`: both
            become one; None: the graph reads frames.
        report: told each graph's size, and its difference from PyTorch.
        overwrite: replace a bundle that is there.

    Returns:
        the manifest as written.

    Raises:
        ExportError: a graph differs from PyTorch, or a batch from its rows; nothing is written.
        BundleError: the bundle cannot be written.
    """
    storage = storage or StorageChoice()
    contents: dict[str, bytes] = {}
    for name, graph in graphs.items():
        traced = to_onnx(graph)
        exact = check_graph(name, graph, traced.SerializeToString(), TOLERANCE["float32"])
        weights, tables = storage.of(name)
        content = store(traced, weights, tables).SerializeToString()
        stored = check_graph(name, graph, content, max(TOLERANCE[weights], TOLERANCE[tables]))
        size = len(content) / 1e6
        report(f"{name}: {size:.1f} MB, from PyTorch {exact:.1g} exact and {stored:.1g} as stored")
        contents[name] = content
    if frames is not None:
        joined = join(frames.frame_encoder, contents[FRAME_ENCODER], "frame_embedding", "features")
        contents[FRAME_ENCODER] = joined
        report(f"{FRAME_ENCODER}: {len(joined) / 1e6:.1f} MB with the frame encoder before it")
    if hubness is not None:
        correction = hubness.encoded(contents[TEXT_ENCODER], tokenizer, description.context_length)
        description = replace(description, hubness=correction)
        report(f"hubness: weight {correction.weight:g}, {len(correction.references)} reference texts")
    packed_graphs = () if frames is None else frames.packed_graphs
    return write_bundle(
        folder, contents, description, tokenizer, packed_graphs=packed_graphs, overwrite=overwrite
    )
