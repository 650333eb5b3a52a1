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

from model.export.storage import Storage, store
from model.export.tracing import check_graph, to_onnx
from model.families.lgdn.graphs import FRAME, MATCHER, TEXT, graphs_of, tokens_per_frame
from model.families.lgdn.inference import Chosen
from model.families.lgdn.network import LGDN
from model.families.lgdn.salience import salience_dim
from model.runtime.bundle import BundleManifest, write_bundle
from model.runtime.tokens import check_count

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
        weights: `momentum` or `online`.
        salience: the strategy that is baked into the salience vectors.
        matcher: with the matching head.
        num_salient_frames: frames re-ranked by.
        num_candidates: segments re-ranked.
        ensemble_lambda: λ.
        tokens_per_frame: tokens of a frame that an index keeps, merged; None: all.
        storage: how weights are stored.
    """

    weights: str = "momentum"
    salience: str | None = None
    matcher: bool = True
    num_salient_frames: int | None = None
    num_candidates: int = 100
    ensemble_lambda: float = 1.0
    tokens_per_frame: int | None = None
    storage: StorageChoice = field(default_factory=StorageChoice)


def export_bundle(
    folder: Path,
    model: LGDN,
    tokenizer: Path,
    provenance: Mapping[str, Any],
    options: ExportOptions | None = None,
    *,
    name: str = "mini",
    licence: str = "Apache-2.0",
    description: str = "",
    report: Callable[[str], None] = lambda _: None,
) -> BundleManifest:
    """Write the bundle, or fail and write nothing when a graph differs from PyTorch.

    Raises:
        ValueError: an option cannot be, or from `check_graph`.
        BundleError: the bundle cannot be written.
    """
    options = options or ExportOptions()
    config = model.config
    strategy = options.salience or config.salience_strategy
    chosen = Chosen(model.eval(), options.weights, strategy)
    salient = options.num_salient_frames or config.num_salient_frames
    if not salient <= config.frames:
        raise ValueError(f"{salient} salient frames of {config.frames} a segment: lower num_salient_frames")
    tokens = tokens_per_frame(chosen)
    if options.tokens_per_frame is not None:
        check_count(options.tokens_per_frame, tokens)
    for towers in (model.online, model.momentum):
        towers.text.trim(config.context_length)
    contents: dict[str, bytes] = {}
    for file, graph in graphs_of(chosen, matcher=options.matcher).items():
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
        embedding_dim=config.dim,
        salience_dim=salience_dim(strategy, config.dim),
        tokens_per_frame=tokens,
        stored_tokens_per_frame=options.tokens_per_frame,
        hidden_dim=chosen.towers.token_width,
        text_hidden_dim=chosen.towers.text_token_width,
        image_size=config.image_size,
        context_length=config.context_length,
        frames_per_segment=config.frames,
        num_salient_frames=salient,
        num_candidates=options.num_candidates,
        salience_strategy=strategy,  # type: ignore[arg-type]
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
