"""Adds a moment head to a bundle. Shapes: B pairs of a query and a film, T frames, D joint space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from model.export.copying import copy_bundle
from model.export.provenance import extended
from model.export.storage import store
from model.export.tracing import ExportError, check_graph, to_onnx
from model.families.base import Graph
from model.families.moment_head.network import FilmMomentHead
from model.progress import Report, silent
from model.runtime.bundle import Bundle, BundleManifest
from model.runtime.bundle.graphs import MOMENT_HEAD
from model.runtime.bundle.manifest import Moments

#: the largest `moment_head.onnx`
MAX_BYTES = 2_000_000
_EXACT, _STORED = 1e-4, 5e-3


def head_graph(model: FilmMomentHead) -> Graph:
    """The head as a graph of a bundle; the model is put in evaluation mode."""
    generator = torch.Generator().manual_seed(0)
    dim = model.eval().config.dim

    def example(count: int, frames: int) -> tuple[Tensor, Tensor, Tensor]:
        real = torch.ones(count, frames)
        real[-1, max(1, frames // 2) :] = 0
        vectors = torch.randn(count, frames, dim, generator=generator)
        query = torch.randn(count, dim, generator=generator)
        return F.normalize(query, dim=-1), F.normalize(vectors, dim=-1), real

    rows, frames = {0: "B"}, {0: "B", 1: "F"}
    return Graph(
        model,
        ("text_query", "frame_embedding", "frame_mask"),
        ("start_logit", "end_logit", "rejection_logit"),
        example(2, 12),
        (rows, frames, frames),
        (example(3, 150), example(1, 2), example(1, 1)),
    )


def add_moment_head(
    bundle: Bundle,
    model: FilmMomentHead,
    output: Path,
    every_seconds: float,
    recipe: Mapping[str, Any],
    data: Sequence[str] = (),
    report: Report = silent,
) -> BundleManifest:
    """Write a copy of a bundle with a moment head; a head that it has is replaced.

    Args:
        bundle: whose embeddings the head was trained on.
        model: the trained head.
        output: becomes the new bundle; a bundle that is there is replaced.
        every_seconds: seconds from one frame to the next, in training.
        recipe: the settings of the head, for the provenance.
        data: what the head was trained on, a line for each data set.
        report: told the graph's size, and its difference from PyTorch.

    Raises:
        ExportError: the graph differs from PyTorch, or is larger than 2 MB; nothing is written.
        BundleError: the bundle cannot be written.
    """
    content = head_content(model, report)
    return copy_bundle(
        bundle,
        output,
        {MOMENT_HEAD: content},
        provenance=extended(bundle.manifest.provenance, "moment_head", recipe, data),
        moments=Moments(every_seconds=every_seconds),
    )


def head_content(model: FilmMomentHead, report: Report = silent) -> bytes:
    """`moment_head.onnx`, compared with PyTorch, with weights in half precision.

    Raises:
        ExportError: it differs from PyTorch, or is larger than 2 MB.
    """
    graph = head_graph(model)
    traced = to_onnx(graph)
    exact = check_graph(MOMENT_HEAD, graph, traced.SerializeToString(), _EXACT)
    content: bytes = store(traced, "float16", "float16").SerializeToString()
    stored = check_graph(MOMENT_HEAD, graph, content, _STORED)
    size = len(content) / 1e6
    report(f"{MOMENT_HEAD}: {size:.2f} MB, from PyTorch {exact:.1g} exact and {stored:.1g} as stored")
    if len(content) > MAX_BYTES:
        raise ExportError(
            f"{MOMENT_HEAD} has {len(content):,} bytes, more than {MAX_BYTES:,}: lower `channels` or `layers`"
        )
    return content
