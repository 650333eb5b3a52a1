"""Which of a model's twins is used, and how frames are scored: the same choice in evaluation and export."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from model.families.lgdn.fusion import Fusion
from model.families.lgdn.network import LGDN, Towers
from model.families.lgdn.salience import salience_dim


@dataclass(frozen=True)
class Chosen:
    """What of a model is measured, exported and served.

    `weights` names the twin whose embeddings and tokens are used: `momentum`, with the fusion's moving
    average, or `online`, with the fusion itself; `strategy` makes the salience vectors.
    """

    model: LGDN
    weights: str = "momentum"
    strategy: str = "simdot"

    def __post_init__(self) -> None:
        if self.weights not in ("momentum", "online"):
            raise ValueError(f"weights={self.weights!r}: choose momentum or online")
        salience_dim(self.strategy, self.model.config.dim)

    @property
    def towers(self) -> Towers:
        """The twin whose embeddings are used."""
        return self.model.momentum if self.weights == "momentum" else self.model.online

    @property
    def other(self) -> Towers | None:
        """The other twin, where the strategy reads it too."""
        if self.strategy == "simdot":
            return None
        return self.model.online if self.weights == "momentum" else self.model.momentum

    @property
    def fusion(self) -> Fusion:
        """The fusion that goes with the towers."""
        return self.model.fusion_average if self.weights == "momentum" else self.model.fusion

    def twins(self, mine: Tensor, others: Tensor | None) -> tuple[Tensor, Tensor]:
        """(online, momentum) of what the used and the other twin give."""
        # A second tensor: one value may not serve as two outputs.
        both = (mine * 1.0, mine if others is None else others)
        return both if self.weights == "online" else both[::-1]
