"""From a checkpoint to a bundle: three ONNX graphs, checked against PyTorch before they are written.

Shapes: B batch, N frames, P tokens a frame, L text tokens, H hidden, D joint space, S salience.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from model.config import Config, ModelConfig, from_mapping
from model.graphs import FRAME, TEXT, check_graph, graphs_of, to_onnx
from model.lgdn import LGDN, Towers
from model.runtime.bundle import BundleManifest, write_bundle
from model.storage import Storage, store

#: largest difference of any output from PyTorch's: float32 graphs, and graphs with weights stored smaller
TOLERANCE: Mapping[Storage, float] = {"float32": 1e-4, "float16": 5e-3, "int8": 8e-2}


@dataclass(frozen=True)
class StorageChoice:
    """How each part's weights are stored."""

    image: Storage = "float16"
    text: Storage = "int8"
    words: Storage = "int8"


def load_checkpoint(path: Path, weights: str = "momentum") -> tuple[Config, Towers]:
    """The configuration and one of the twins of a checkpoint.

    Raises:
        ValueError: when the file is missing or `weights` is neither `momentum` nor `online`.
    """
    if weights not in ("momentum", "online"):
        raise ValueError(f"weights={weights!r}: choose momentum or online")
    if not path.is_file():
        raise ValueError(
            f"no checkpoint {path}: train first, then pass best.pt or last.pt of the run's folder"
        )
    state = torch.load(path, weights_only=True)
    config: Config = from_mapping(Config, state["config"])
    model = LGDN(config.model)
    model.load_state_dict(state["model"])
    return config, (model.momentum if weights == "momentum" else model.online).eval()


def load_checkpoints(paths: Sequence[Path], weights: str = "momentum") -> tuple[Config, Towers]:
    """One checkpoint, or the mean of the weights of several that started from the same ones.

    Raises:
        ValueError: no checkpoint, or checkpoints of different models.
    """
    if not paths:
        raise ValueError("no checkpoint: pass best.pt or last.pt of a run's folder")
    loaded = [load_checkpoint(path, weights) for path in paths]
    config, towers = loaded[0]
    for path, (other, _) in zip(paths, loaded, strict=True):
        if other.model != config.model:
            raise ValueError(f"{path} holds another model than {paths[0]}: they cannot be averaged")
    states = [t.state_dict() for _, t in loaded]
    towers.load_state_dict({key: torch.stack([s[key] for s in states]).mean(0) for key in states[0]})
    return config, towers


def export_bundle(
    folder: Path,
    towers: Towers,
    tokenizer: Path,
    provenance: Mapping[str, Any],
    storage: StorageChoice | None = None,
    *,
    name: str = "mini",
    licence: str = "Apache-2.0",
    description: str = "",
    report: Callable[[str], None] = lambda _: None,
) -> BundleManifest:
    """Write the bundle, or fail and write nothing when a graph differs from PyTorch.

    Raises:
        ValueError: from `check_graph`.
    """
    storage = storage or StorageChoice()
    config: ModelConfig = towers.config
    towers.text.trim(config.context_length)
    contents: dict[str, bytes] = {}
    tokens = 0
    for file, graph in graphs_of(towers).items():
        model = to_onnx(graph)
        worst = check_graph(file, graph, model.SerializeToString(), TOLERANCE["float32"])
        kind: Storage = storage.image if file == FRAME else storage.text if file == TEXT else "float32"
        words = storage.words if file == TEXT else kind
        content = store(model, kind, words).SerializeToString()
        stored = check_graph(file, graph, content, max(TOLERANCE[kind], TOLERANCE[words]))
        report(
            f"{file}: {len(content) / 1e6:.1f} MB, from PyTorch {worst:.1g} exact and {stored:.1g} as stored"
        )
        contents[file] = content
        if file == FRAME:
            with torch.no_grad():
                tokens = graph.module(*graph.example)[2].shape[1]
    return write_bundle(
        folder,
        name=name,
        licence=licence,
        description=description,
        provenance=provenance,
        embedding_dim=config.dim,
        salience_dim=config.dim,
        tokens_per_frame=tokens,
        hidden_dim=config.dim,
        text_hidden_dim=config.dim,
        image_size=config.image_size,
        context_length=config.context_length,
        frames_per_segment=config.frames,
        salience_strategy="simdot",
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
