"""LGDN with an answer head as a `PictureFamily`: that of LGDN, but for what concerns questions."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from model.data.datasets.questions import common_answers
from model.data.examples import Examples
from model.data.loaders import Loader
from model.data.sources import Source
from model.data.view_cache import FrozenStages
from model.families.base import Graph, InferenceOptions, ModelDescription, PictureFamily
from model.families.lgdn.config import LossConfig
from model.families.lgdn.family import LGDNFamily
from model.families.lgdn.inference import inference_model
from model.families.lgdn.weights import load_start_weights
from model.families.lgdn_qa.config import AnswerLossConfig, AnswerModelConfig
from model.families.lgdn_qa.encoder import AnsweringTowers
from model.families.lgdn_qa.graphs import answer_graph
from model.families.lgdn_qa.network import AnsweringLGDN
from model.families.lgdn_qa.objective import AnswerBatch, AnswerObjective
from model.progress import Report
from model.runtime.bundle.graphs import ANSWER_HEAD
from model.runtime.errors import InputError
from model.runtime.preprocessing import TextTokenizer
from model.settings import DataConfig, TrainConfig, check_rules


class LGDNAnswersFamily(PictureFamily[AnsweringLGDN, AnswerModelConfig, AnswerLossConfig]):
    """LGDN with an answer head; it starts from a checkpoint of LGDN, or of its own."""

    name = "lgdn_qa"
    network_config = AnswerModelConfig
    loss_config = AnswerLossConfig
    places = LGDNFamily.places
    training_settings = LGDNFamily.training_settings
    training_parts = LGDNFamily.training_parts
    starts_from = frozenset({LGDNFamily.name})
    learns_from = "questions"
    _lgdn = LGDNFamily()

    def check(
        self,
        config: AnswerModelConfig,
        losses: AnswerLossConfig,  # noqa: ARG002
        data: DataConfig,  # noqa: ARG002
        train: TrainConfig,
    ) -> None:
        """Check that towers which do not train come from a checkpoint."""
        rule = "model.tune_towers=false keeps the towers of a checkpoint: name it as train.start_from"
        check_rules([(config.tune_towers or bool(train.start_from) or not config.answers, rule)])

    def complete_recipe(self, model: Mapping[str, Any], chosen: Collection[str]) -> Mapping[str, Any]:
        """As LGDN's."""
        return self._lgdn.complete_recipe(model, chosen)

    def complete(self, config: AnswerModelConfig, training: Source) -> AnswerModelConfig:
        """Fill in the sizes of both encoders, and the answers of the training data."""
        sized = self._lgdn.complete(config, training)
        return dataclasses.replace(cast(AnswerModelConfig, sized), answers=common_answers(training.answers))

    def build(self, config: AnswerModelConfig) -> AnsweringLGDN:
        """LGDN and the answer head, with random weights."""
        return AnsweringLGDN(config)

    def load_published(self, model: AnsweringLGDN, losses: AnswerLossConfig) -> FrozenStages:  # noqa: ARG002
        """Load both encoders' published weights, and start the head's fusion as the matching head."""
        stages = self._lgdn.load_published(model, LossConfig(retention_weight=0.0))
        model.start_head()
        return stages

    def load_start(self, model: AnsweringLGDN, weights: Mapping[str, Tensor]) -> None:
        """Load a checkpoint of LGDN, or of this family. The classifier is new: its answers may be others."""
        asked = any(name.startswith("answer_head.") for name in weights)
        new = "answer_head.classifier." if asked else "answer_head."
        load_start_weights(model, weights, ("bank.", new))
        if not asked:
            model.start_head()

    def prepare_start(
        self,
        model: AnsweringLGDN,
        loader: Loader[Any],
        tokenizer: TextTokenizer,
        train: TrainConfig,
        report: Report,
    ) -> None:
        """Tell how many answers are learned; questions start no projection in closed form."""
        del loader, tokenizer, train
        report(f"{len(model.config.answers):,} answers to learn")

    def tokenizer_path(self, config: AnswerModelConfig) -> Path:
        """The text encoder's published `tokenizer.json`."""
        return self._lgdn.tokenizer_path(config)

    def collate(self, examples: Examples, tokenizer: TextTokenizer) -> AnswerBatch:
        """Tokenise the questions."""
        return AnswerBatch(self._lgdn.collate(examples, tokenizer), examples.answers)

    def objective(self, model: AnsweringLGDN, losses: AnswerLossConfig, seed: int) -> nn.Module:
        """The cross-entropy of the right answers."""
        return AnswerObjective(model, losses, seed)

    def learning_rate(self, parameter: str, config: AnswerModelConfig, train: TrainConfig) -> float:
        """As LGDN's; the head's fusion learns as the matching head does, its classifier as new weights do."""
        return self._lgdn.learning_rate(parameter.removeprefix("answer_head."), config, train)

    def layers_above(self, parameter: str, model: AnsweringLGDN) -> int:
        """As LGDN's; the head's fusion counts as the matching head's."""
        return self._lgdn.layers_above(parameter.removeprefix("answer_head."), model)

    def after_step(self, model: AnsweringLGDN) -> None:
        """Update the momentum weights, equation 2, if the towers train."""
        if model.config.tune_towers:
            model.update_momentum()

    def encoder(
        self,
        model: AnsweringLGDN,
        tokenizer: TextTokenizer,
        options: InferenceOptions | None = None,
        *,
        bfloat16: bool = False,
    ) -> AnsweringTowers:
        """The weights that the answer head was trained with."""
        _check_weights(model, options)
        inference = inference_model(model, options)
        return AnsweringTowers(
            model, tokenizer, weights=inference.weights, strategy=inference.strategy, bfloat16=bfloat16
        )

    def graphs(
        self, model: AnsweringLGDN, options: InferenceOptions | None = None, *, matcher: bool = True
    ) -> dict[str, Graph]:
        """The graphs of LGDN, and the answer head. There is no matcher if the towers have left it behind.

        Raises:
            InputError: an option that the model does not have, or a head that reads no salient frames.
        """
        _check_weights(model, options)
        kind = model.config.frames_read
        if kind != "salient":
            raise InputError(
                f"this answer head was trained with model.frames_read={kind}, a baseline to measure: export "
                "one that was trained with model.frames_read=salient"
            )
        graphs = self._lgdn.graphs(model, options, matcher=matcher and not model.config.tune_towers)
        return {**graphs, ANSWER_HEAD: answer_graph(model)}

    def describe(self, model: AnsweringLGDN, options: InferenceOptions | None = None) -> ModelDescription:
        """As LGDN's, with the answers."""
        described = self._lgdn.describe(model, options)
        return dataclasses.replace(described, answers=model.config.answers)

    def sources(self, config: AnswerModelConfig) -> list[dict[str, str]]:
        """The weights of both encoders, and the names of the classes."""
        return self._lgdn.sources(config)


def _check_weights(model: AnsweringLGDN, options: InferenceOptions | None) -> None:
    trained = model.config.inference_weights
    if options is not None and options.weights not in (None, trained):
        raise InputError(
            f"weights={options.weights!r}: the answer head was trained with the {trained} ones; leave it out"
        )
