"""The seam between what trains, measures and exports models, and the models: one `ModelFamily` for each kind.

Training, checkpoints, evaluation and export know this protocol; what is special to a family is behind it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from model.data.examples import Examples
from model.data.loaders import Loader
from model.data.view_cache import FrozenStages
from model.families.encoder import Encoder
from model.progress import Report
from model.runtime.preprocessing import TextTokenizer
from model.settings import DataConfig, NetworkConfig, TrainConfig

Model = TypeVar("Model", bound=nn.Module)
Network = TypeVar("Network", bound=NetworkConfig)
Losses = TypeVar("Losses")


class Batch(Protocol):
    """What a family's objective reads."""

    def to(self, device: torch.device | str) -> Self:
        """The same batch on another device."""


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

    A family refuses an option that it does not have with a InputError.

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


class ModelFamily(ABC, Generic[Model, Network, Losses]):
    """One kind of model, from its settings to its graphs. An instance holds no state.

    The classes of settings are frozen dataclasses that check their own rules; see `model.settings`.
    """

    #: what recipes and checkpoints call it
    name: ClassVar[str]
    #: class of the settings `model.*`
    network_config: type[Network]
    #: class of the settings `loss.*`
    loss_config: type[Losses]
    #: settings of the network that name places, and decide no result
    places: ClassVar[frozenset[str]] = frozenset()

    def check(self, config: Network, losses: Losses, data: DataConfig, train: TrainConfig) -> None:
        """Check the rules between the family's settings and the shared ones.

        Raises:
            InputError: settings that do not fit together; names them.
        """

    def complete(self, config: Network) -> Network:
        """Write into the settings what only published weights tell, such as sizes.

        Done once before training: a checkpoint then rebuilds its model without the files of those weights.

        Raises:
            InputError: the weights cannot be found or read.
        """
        return config

    @abstractmethod
    def build(self, config: Network) -> Model:
        """The network with random weights.

        Raises:
            InputError: sizes that do not fit together.
        """

    def load_published(self, model: Model, losses: Losses) -> FrozenStages | None:  # noqa: ARG002
        """Load published weights, and lay the model out for training.

        Returns:
            what of the model never trains, whose outputs may be cached; None: every frame is encoded anew.

        Raises:
            InputError: the weights cannot be found, or do not fit the model.
        """
        return None

    def load_start(self, model: Model, weights: Mapping[str, Tensor]) -> None:
        """Load the weights of a checkpoint to start from, as fine-tuning does.

        Raises:
            InputError: the weights are those of another model.
            RuntimeError: a tensor has another shape.
        """
        model.load_state_dict(weights)

    def prepare_start(
        self, model: Model, loader: Loader[Any], tokenizer: TextTokenizer, train: TrainConfig, report: Report
    ) -> None:
        """Whatever must happen before the first step of a new run, such as a closed-form start.

        Called once, in the first process alone, with the model on the CPU.
        """

    @abstractmethod
    def tokenizer_path(self, config: Network) -> Path:
        """The published `tokenizer.json`; an empty path where a run must bring its own.

        Raises:
            InputError: it cannot be found.
        """

    @abstractmethod
    def collate(self, examples: Examples, tokenizer: TextTokenizer) -> Batch:
        """The batch that `objective` reads; called in threads that work ahead of training."""

    @abstractmethod
    def objective(self, model: Model, losses: Losses, seed: int) -> nn.Module:
        """The losses, as a module that DistributedDataParallel can wrap.

        Its `forward(batch, step, epoch)` gives named scalars, one of them `total`, which is minimised. `step`
        counts batches over the whole run and is the same on every process; what is drawn may follow from it.
        """

    @abstractmethod
    def learning_rate(self, parameter: str, config: Network, train: TrainConfig) -> float:
        """The peak learning rate of a parameter by its name, which groups the parameters; 0 freezes it."""

    def after_step(self, model: Model) -> None:
        """Whatever follows an optimiser step, such as the update of momentum weights."""

    def trains_matcher(self, losses: Losses) -> bool:  # noqa: ARG002
        """Whether the best epoch is chosen by re-ranking; else by the similarity of embeddings."""
        return False

    @abstractmethod
    def encoder(
        self,
        model: Model,
        tokenizer: TextTokenizer,
        options: InferenceOptions | None = None,
        *,
        bfloat16: bool = False,
    ) -> Encoder:
        """The model in evaluation mode, as evaluation reads it; `bfloat16` computes in half precision.

        Raises:
            InputError: an option that the family does not have.
        """

    @abstractmethod
    def graphs(
        self, model: Model, options: InferenceOptions | None = None, *, matcher: bool = True
    ) -> dict[str, Graph]:
        """The graphs of a bundle by file name; `matcher` adds the matching head where there is one.

        Raises:
            InputError: an option that the family does not have.
        """

    @abstractmethod
    def describe(self, model: Model, options: InferenceOptions | None = None) -> ModelDescription:
        """The model's part of a bundle's description.

        Raises:
            InputError: an option that the family does not have.
        """

    def sources(self, config: Network) -> list[dict[str, str]]:  # noqa: ARG002
        """Provenance of the published weights: {"name", "licence", "source"} of each."""
        return []
