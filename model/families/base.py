"""`ModelFamily`: the interface through which models are trained, saved, measured and exported.

Each kind of model implements it once, as one of two: a `PictureFamily` learns from pictures with captions or
questions, a `FeatureFamily` from features of videos with timed text. Training, checkpoints, evaluation and
export use nothing else of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from model.data.examples import Examples, FeatureExamples
from model.data.feature_sets import FeatureSource
from model.data.loaders import Loader
from model.data.sources import Source
from model.data.view_cache import FrozenStages
from model.families.encoder import Encoder, FeatureEncoder
from model.progress import Report
from model.runtime.preprocessing import TextTokenizer
from model.settings import DataConfig, Material, NetworkConfig, TrainConfig

Model = TypeVar("Model", bound=nn.Module)
Network = TypeVar("Network", bound=NetworkConfig)
Losses = TypeVar("Losses")


class Batch(Protocol):
    """One batch, as a family's objective reads it."""

    def to(self, device: torch.device | str) -> Self:
        """The same batch on another device."""


@dataclass(frozen=True)
class Graph:
    """A module to be traced to an ONNX graph, and the inputs to trace and check it with.

    Attributes:
        module: gives one tensor or a tuple of tensors.
        inputs: the names of its inputs.
        outputs: the names of its outputs.
        example: inputs for tracing.
        dynamic: for each input the names of its axes whose size may change, by number.
        others: inputs of other sizes, on which ONNX is compared with PyTorch too.
    """

    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    example: tuple[Tensor, ...]
    dynamic: tuple[dict[int, str], ...]
    others: tuple[tuple[Tensor, ...], ...] = ()


@dataclass(frozen=True)
class InferenceOptions:
    """Which part of a trained model is measured, exported and served; None: the family's default.

    A family refuses an option that it does not have with an InputError.

    Attributes:
        weights: one of several sets of weights, such as `momentum` or `online`.
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
    T `text_hidden_dim`, N `frames_per_segment`. P, H and T are None for a model without token outputs.
    `answers` are those of a model that answers questions.
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
    answers: tuple[str, ...] = ()


class ModelFamily(ABC, Generic[Model, Network, Losses]):
    """One kind of model, from its settings to its graphs. An instance holds no state.

    The classes of settings are frozen dataclasses that check their own rules; see `model.settings`. This is
    what families share; implement `PictureFamily` or `FeatureFamily`.
    """

    #: its name in recipes and checkpoints
    name: ClassVar[str]
    #: class of the settings `model.*`
    network_config: type[Network]
    #: class of the settings `loss.*`
    loss_config: type[Losses]
    #: settings of the network that hold paths, and so do not decide a result
    places: ClassVar[frozenset[str]] = frozenset()
    #: settings of the network that only training reads: checkpoints that differ in them may be averaged
    training_settings: ClassVar[frozenset[str]] = frozenset()
    #: how the names of weights begin that only training uses: the first of averaged checkpoints gives them
    training_parts: ClassVar[tuple[str, ...]] = ()
    #: the families whose checkpoints `train.start_from` may name, besides its own
    starts_from: ClassVar[frozenset[str]] = frozenset()
    #: what it learns from, which `data.kind` must offer
    learns_from: ClassVar[Material]

    def check(self, config: Network, losses: Losses, data: DataConfig, train: TrainConfig) -> None:
        """Check that the family's settings fit the shared ones.

        Raises:
            InputError: two settings do not fit together; the message names them.
        """

    def complete_recipe(
        self,
        model: Mapping[str, Any],
        chosen: Collection[str],  # noqa: ARG002
    ) -> Mapping[str, Any]:
        """Fill in settings of the network that a published model decides, before they are checked.

        Args:
            model: a recipe's settings of the network, by name.
            chosen: names of those that were chosen together with that model; it replaces the others.

        Raises:
            InputError: the model cannot be found or read, or a chosen setting contradicts it.
        """
        return model

    @abstractmethod
    def build(self, config: Network) -> Model:
        """The network with random weights.

        Raises:
            InputError: sizes that do not fit together.
        """

    def load_published(self, model: Model, losses: Losses) -> FrozenStages | None:  # noqa: ARG002
        """Load published weights, and choose a memory layout that trains fast.

        Returns:
            the stages that never train, whose outputs may be cached; None: nothing can be cached.

        Raises:
            InputError: the weights cannot be found, or do not fit the model.
        """
        return None

    def load_start(self, model: Model, weights: Mapping[str, Tensor]) -> None:
        """Load the weights of a checkpoint to start from, as fine-tuning does.

        Raises:
            InputError: the weights belong to another model.
            RuntimeError: a tensor has another shape.
        """
        model.load_state_dict(weights)

    def prepare_start(
        self, model: Model, loader: Loader[Any], tokenizer: TextTokenizer, train: TrainConfig, report: Report
    ) -> None:
        """Prepare a new run before its first step, for example by a closed-form start.

        Called once, in the first process only, with the model on the CPU.
        """

    @abstractmethod
    def tokenizer_path(self, config: Network) -> Path:
        """The published `tokenizer.json`; an empty path if a run must bring its own.

        Raises:
            InputError: it cannot be found.
        """

    @abstractmethod
    def objective(self, model: Model, losses: Losses, seed: int) -> nn.Module:
        """The losses, as a module that DistributedDataParallel can wrap.

        Its `forward(batch, step, epoch)` gives named scalars; `total` among them is minimised. `step` counts
        batches over the whole run and is the same on every process, so that it can seed random draws.
        """

    @abstractmethod
    def learning_rate(self, parameter: str, config: Network, train: TrainConfig) -> float:
        """The peak learning rate of the parameter with this name, before `layer_decay`; 0 freezes it."""

    def layers_above(self, parameter: str, model: Model) -> int:  # noqa: ARG002
        """Layers above the one that holds the parameter, in an encoder that starts from published weights.

        For each of them the parameter learns more slowly by `train.layer_decay`.
        """
        return 0

    def after_step(self, model: Model) -> None:
        """Called after every optimiser step, for example to update momentum weights."""

    @abstractmethod
    def graphs(
        self, model: Model, options: InferenceOptions | None = None, *, matcher: bool = True
    ) -> dict[str, Graph]:
        """The graphs of a bundle by file name; `matcher` includes the matching head, if there is one.

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
        """The published weights that the model started from: {"name", "licence", "source"} of each."""
        return []


class PictureFamily(ModelFamily[Model, Network, Losses]):
    """A family that learns from pictures with captions, or with questions and answers."""

    learns_from: ClassVar[Material] = "captions"

    def complete(self, config: Network, training: Source) -> Network:  # noqa: ARG002
        """Fill in settings that only the published weights or the training data tell.

        Such as the sizes of layers, or the answers to learn. Done once before training: a checkpoint then
        rebuilds its model without the files of either.

        Raises:
            InputError: the weights cannot be found or read.
        """
        return config

    @abstractmethod
    def collate(self, examples: Examples, tokenizer: TextTokenizer) -> Batch:
        """Make the batch that `objective` reads. Called in threads that work ahead of training."""

    def trains_matcher(self, losses: Losses) -> bool:  # noqa: ARG002
        """Whether the best epoch is chosen by re-ranking; otherwise the similarity of embeddings decides."""
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
        """The model in evaluation mode, as an `Encoder`; `bfloat16` computes in half precision.

        Raises:
            InputError: an option that the family does not have.
        """


class FeatureFamily(ModelFamily[Model, Network, Losses]):
    """A family that learns from features of videos with timed text, and finds videos and moments.

    Its `graphs` read the frame embeddings of another bundle, which is joined with them: that of the frame
    encoder's name is what follows that bundle's frame encoder, and reads `features` [B, F].
    """

    learns_from: ClassVar[Material] = "features"

    def complete(self, config: Network, training: FeatureSource) -> Network:  # noqa: ARG002
        """Fill in settings that only the published weights or the training data tell.

        Such as the sizes of layers, or the width of a feature. Done once before training: a checkpoint then
        rebuilds its model without the files of either.

        Raises:
            InputError: the weights or the features cannot be found or read, or do not fit the settings.
        """
        return config

    @abstractmethod
    def asks(self, losses: Losses) -> bool:
        """Whether the losses read queries; otherwise they read videos with their text alone."""

    @abstractmethod
    def finds_moments(self, losses: Losses) -> bool:
        """Whether the losses teach where in a video the moment of a query is."""

    @abstractmethod
    def collate(self, examples: FeatureExamples, tokenizer: TextTokenizer) -> Batch:
        """Make the batch that `objective` reads. Called in threads that work ahead of training."""

    @abstractmethod
    def encoder(self, model: Model, tokenizer: TextTokenizer, *, bfloat16: bool = False) -> FeatureEncoder:
        """The model in evaluation mode; `bfloat16` computes in half precision."""


#: any family; which of the two kinds it is tells what it learns from
Family = PictureFamily[Any, Any, Any] | FeatureFamily[Any, Any, Any]
