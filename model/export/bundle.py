"""From a model to a bundle: ONNX graphs, checked against PyTorch before they are written.

Shapes: B batch, N frames, P tokens a frame, L text tokens, H and T widths of frame and text tokens, D joint
space, S salience.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from model.config import DEFAULT_FAMILY
from model.export.storage import Storage, store
from model.export.tracing import check_graph, to_onnx
from model.families import get_family
from model.families.base import InferenceOptions
from model.runtime.bundle import BundleManifest, write_bundle
from model.runtime.tokens import check_count

FRAME, TEXT, MATCHER = "frame_encoder.onnx", "text_encoder.onnx", "matcher.onnx"
#: largest difference of any output from PyTorch's: float32 graphs, and graphs with weights stored smaller
TOLERANCE: Mapping[Storage, float] = {"float32": 1e-4, "float16": 5e-3, "int8": 8e-2}


@dataclass(frozen=True)
class StorageChoice:
    """How each part's weights are stored."""

    image: Storage = "float16"
    text: Storage = "int8"
    words: Storage = "int8"
    matcher: Storage = "float16"

    def of(self, graph: str) -> tuple[Storage, Storage]:
        """How a graph's weights and its tables are stored."""
        parts = {FRAME: (self.image, self.image), TEXT: (self.text, self.words)}
        return parts.get(graph, (self.matcher, self.matcher) if graph == MATCHER else ("float32", "float32"))


@dataclass(frozen=True)
class ExportOptions:
    """What of a model goes into its bundle; None is what the model's settings say.

    Attributes:
        weights: as `InferenceOptions`; so are the next two.
        salience: the strategy that is baked into the salience vectors.
        match_similarity: weight of the similarity in the match.
        matcher: with the matching head.
        num_salient_frames: frames re-ranked by.
        num_candidates: segments re-ranked.
        ensemble_lambda: λ.
        tokens_per_frame: tokens of a frame that an index keeps, merged; None: all.
        storage: how weights are stored.
    """

    weights: str | None = None
    salience: str | None = None
    match_similarity: float | None = None
    matcher: bool = True
    num_salient_frames: int | None = None
    num_candidates: int = 100
    ensemble_lambda: float = 1.0
    tokens_per_frame: int | None = None
    storage: StorageChoice = field(default_factory=StorageChoice)


def export_bundle(
    folder: Path,
    model: nn.Module,
    tokenizer: Path,
    provenance: Mapping[str, Any],
    options: ExportOptions | None = None,
    *,
    name: str = "mini",
    licence: str = "Apache-2.0",
    description: str = "",
    family: str = DEFAULT_FAMILY,
    report: Callable[[str], None] = lambda _: None,
) -> BundleManifest:
    """Write the bundle, or fail and write nothing when a graph differs from PyTorch.

    Raises:
        ValueError: an option cannot be, or from `check_graph`.
        BundleError: the bundle cannot be written.
    """
    options = options or ExportOptions()
    inference = InferenceOptions(options.weights, options.salience, options.match_similarity)
    described = get_family(family).describe(model, inference)
    salient = options.num_salient_frames or described.num_salient_frames
    if not salient <= described.frames_per_segment:
        raise ValueError(
            f"{salient} salient frames of {described.frames_per_segment} a segment: lower num_salient_frames"
        )
    if described.tokens_per_frame is None or None in (described.hidden_dim, described.text_hidden_dim):
        raise ValueError(f"family {family} has no token outputs, which a bundle needs")
    if options.tokens_per_frame is not None:
        check_count(options.tokens_per_frame, described.tokens_per_frame)
    graphs = get_family(family).graphs(model, inference, matcher=options.matcher)
    contents: dict[str, bytes] = {}
    for file, graph in graphs.items():
        traced = to_onnx(graph)
        worst = check_graph(file, graph, traced.SerializeToString(), TOLERANCE["float32"])
        kind, words = options.storage.of(file)
        content = store(traced, kind, words).SerializeToString()
        stored = check_graph(file, graph, content, max(TOLERANCE[kind], TOLERANCE[words]))
        report(
            f"{file}: {len(content) / 1e6:.1f} MB, from PyTorch {worst:.1g} exact and {stored:.1g} as stored"
        )
        contents[file] = content
    return write_bundle(
        folder,
        name=name,
        licence=licence,
        description=description,
        provenance=provenance,
        embedding_dim=described.embedding_dim,
        salience_dim=described.salience_dim,
        tokens_per_frame=described.tokens_per_frame,
        stored_tokens_per_frame=options.tokens_per_frame,
        hidden_dim=described.hidden_dim,  # type: ignore[arg-type]
        text_hidden_dim=described.text_hidden_dim,  # type: ignore[arg-type]
        image_size=described.image_size,
        context_length=described.context_length,
        frames_per_segment=described.frames_per_segment,
        num_salient_frames=salient,
        num_candidates=options.num_candidates,
        salience_strategy=described.salience_strategy,  # type: ignore[arg-type]
        ensemble_lambda=options.ensemble_lambda,
        graphs=contents,
        tokenizer=tokenizer,
        overwrite=True,
    )


def current_commit() -> str:
    """The commit of the code that runs; `unknown` outside of a repository."""
    try:
        out = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return out.stdout.strip()
