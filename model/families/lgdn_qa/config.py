"""Settings of LGDN with an answer head: the network's and the loss's, with their rules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from model.families.encoder import FRAME_CHOICES
from model.families.lgdn.config import ModelConfig
from model.settings import check_choices, check_rules


@dataclass(frozen=True)
class AnswerModelConfig(ModelConfig):
    """The network: that of LGDN, and the answer head."""

    #: the answers that are learned, in the order of the head's outputs; filled in from the training data
    answers: tuple[str, ...] = ()
    #: frames that the head reads, see `FrameChoice`
    frames_read: str = "salient"
    #: train the towers too; false: they stay as in `train.start_from`, and search as they did
    tune_towers: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices("model", self, {"frames_read": FRAME_CHOICES})

    def _rules(self) -> Iterator[tuple[bool, str]]:
        yield from super()._rules()
        yield (
            not (self.tune_towers and self.inference_weights != "online"),
            "model.tune_towers=true trains the online weights: set model.inference_weights=online",
        )
        yield (
            not self.converter_layers,
            f"model.converter_layers={self.converter_layers}: an answer head has no converter; set it to 0",
        )


@dataclass(frozen=True)
class AnswerLossConfig:
    """The loss: the cross-entropy of the right answer."""

    #: first epochs, in which the head reads all frames, as LGDN does before SFP can be trusted
    warmup_epochs: int = 0

    def __post_init__(self) -> None:
        rule = f"loss.warmup_epochs={self.warmup_epochs} must be 0 or more"
        check_rules([(self.warmup_epochs >= 0, rule)])
