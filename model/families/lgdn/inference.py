"""Chooses the weights that are used and how frames are scored, for evaluation and export alike."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from model.families.base import InferenceOptions
from model.families.lgdn.config import INFERENCE_WEIGHTS
from model.families.lgdn.fusion import Fusion, JointFusion
from model.families.lgdn.network import LGDN, Towers
from model.families.lgdn.salience import salience_dim
from model.runtime.errors import InputError


@dataclass(frozen=True)
class InferenceModel:
    """The part of a model that is measured, exported and served.

    Attributes:
        model: the model.
        weights: the towers whose embeddings and tokens are used: `online`, with the fusion, or `momentum`,
            with the fusion's moving average.
        strategy: makes the salience vectors, Table 1.

    Raises:
        InputError: unknown weights or an unknown strategy.
    """

    model: LGDN
    weights: str
    strategy: str

    def __post_init__(self) -> None:
        if self.weights not in INFERENCE_WEIGHTS:
            raise InputError(f"weights={self.weights!r}: choose {' or '.join(INFERENCE_WEIGHTS)}")
        salience_dim(self.strategy, self.model.config.dim)

    @property
    def towers(self) -> Towers:
        """The towers whose embeddings are used."""
        return self.model.momentum if self.weights == "momentum" else self.model.online

    @property
    def other(self) -> Towers | None:
        """The other towers, if the strategy reads them too."""
        if self.strategy == "simdot":
            return None
        return self.model.online if self.weights == "momentum" else self.model.momentum

    @property
    def fusion(self) -> Fusion:
        """The fusion that goes with the towers."""
        return self.model.fusion_average if self.weights == "momentum" else self.model.fusion

    def online_and_momentum(self, used: Tensor, other: Tensor | None) -> tuple[Tensor, Tensor]:
        """(online, momentum) of the embeddings of the used and of the other towers."""
        # A graph must not give one tensor as two outputs, so this is a copy.
        both = (used * 1.0, used if other is None else other)
        return both if self.weights == "online" else both[::-1]


def inference_model(model: LGDN, options: InferenceOptions | None) -> InferenceModel:
    """Apply options to a model; the defaults are the weights and the strategy that its settings name.

    `match_similarity` changes the model's fusion.

    Raises:
        InputError: unknown weights or strategy, or the fusion has no weight for the similarity.
    """
    options = options or InferenceOptions()
    if options.match_similarity is not None:
        for fusion in (model.fusion, model.fusion_average):
            if not isinstance(fusion, JointFusion):
                raise InputError("match_similarity is for model.fusion=joint: leave it out")
            fusion.weigh_similarity(options.match_similarity)
    strategy = options.salience or model.config.salience_strategy
    return InferenceModel(model, options.weights or model.config.inference_weights, strategy)
