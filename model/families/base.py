"""What every family of models gives: so far the ONNX graphs that a bundle is made of."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Graph:
    """One graph: its module, names, example inputs, dynamic axes, and inputs of other sizes for the check."""

    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    example: tuple[Tensor, ...]
    dynamic: tuple[dict[int, str], ...]
    others: tuple[tuple[Tensor, ...], ...] = ()


@dataclass(frozen=True)
class InferenceOptions:
    """Which part of a trained model is measured, exported and served; None: as the family does by default.

    A family refuses an option that it does not have with a ValueError.

    Attributes:
        weights: which of several sets of weights, such as `momentum` or `online`.
        salience: how salient frames are estimated.
        match_similarity: weight of the similarity of whole text and whole frame in the match.
    """

    weights: str | None = None
    salience: str | None = None
    match_similarity: float | None = None


@dataclass(frozen=True)
class ModelDescription:
    """The model's own part of a bundle's description.

    Shapes in the graphs: D `embedding_dim`, S `salience_dim`, P `tokens_per_frame`, H `hidden_dim`,
    T `text_hidden_dim`, N `frames_per_segment`. The last two widths and P are None without token outputs.
    """

    embedding_dim: int
    salience_dim: int
    image_size: int
    context_length: int
    frames_per_segment: int
    num_salient_frames: int
    salience_strategy: str
    tokens_per_frame: int | None = None
    hidden_dim: int | None = None
    text_hidden_dim: int | None = None
