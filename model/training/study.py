"""What a run learns from, and how it is validated: pictures or features, by the kind of its family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from model.config import Config
from model.data.feature_loader import make_feature_loader
from model.data.feature_sets import FeatureSource, open_feature_source
from model.data.loaders import Loader, make_loader
from model.data.record import describe_data
from model.data.sources import Source, open_source
from model.data.stills import CaptionedStills
from model.data.view_cache import FrozenStages
from model.evaluation.corpus import TokenOptions, encode_source
from model.families import get_family
from model.families.base import Batch, FeatureFamily, PictureFamily
from model.progress import Report
from model.runtime.preprocessing import TextTokenizer
from model.training.run import Run, Study, Texts, Validation
from model.training.validate import recall_sum, validate, validate_answers, validate_losses, validate_moments


def open_study(config: Config, report: Report) -> Study:
    """Open the data that the settings name, for the kind of family that they name.

    Raises:
        InputError: the data is missing or malformed.
    """
    family = get_family(config.family)
    if isinstance(family, FeatureFamily):
        features = open_feature_source(config.data, "train", report)
        held_out = open_feature_source(config.data, "val", report) if config.validates else None
        return FeatureStudy(family, features, held_out)
    pictures = open_source(config, "train", report)
    return PictureStudy(family, pictures, open_source(config, "val", report) if config.validates else None)


@dataclass(frozen=True)
class PictureStudy:
    """Pictures with captions, or with questions and answers."""

    family: PictureFamily[Any, Any, Any]
    training: Source
    validation: Source | None

    @property
    def texts(self) -> Texts:
        """See `Study`."""
        return [self.training.captions, self.training.answers]

    def network(self, config: Config) -> Any:
        """See `Study`."""
        return self.family.complete(config.model, self.training)

    def loader(
        self,
        config: Config,
        tokenizer: TextTokenizer,
        stages: FrozenStages | None,
        cache: Path,
        report: Report,
    ) -> Loader[Batch]:
        """See `Study`."""
        collate = partial(self.family.collate, tokenizer=tokenizer)
        return make_loader(self.training, config, collate, stages, cache, report)

    def record(self, config: Config, start: Mapping[str, Any] | None) -> dict[str, Any]:
        """See `Study`."""
        training = self.training
        if not isinstance(training, CaptionedStills):
            return describe_data(config, training.captions, start)
        names = [training.images[place].name for place in training.uncaptioned]
        return describe_data(config, training.captions, start, training.sets, uncaptioned=names)

    def validate(self, run: Run) -> Validation | None:
        """Retrieval, or answers to questions; the first process measures."""
        if run.rank or self.validation is None:
            return None
        bfloat16 = run.config.train.precision == "bfloat16"
        encoder = self.family.encoder(run.model, run.tokenizer, bfloat16=bfloat16)
        if self.family.learns_from == "questions":
            metrics = validate_answers(encoder, self.validation)
            return Validation(metrics, metrics["answers"]["all"])
        corpus = encode_source(encoder, self.validation, TokenOptions() if encoder.has_matcher else None)
        metrics = validate(encoder, self.validation.captions, corpus)
        ranked = "ensemble" if self.family.trains_matcher(run.config.loss) else "global"
        return Validation(metrics, recall_sum(metrics[ranked]))


@dataclass(frozen=True)
class FeatureStudy:
    """Features of videos with timed text, and perhaps queries."""

    family: FeatureFamily[Any, Any, Any]
    training: FeatureSource
    validation: FeatureSource | None

    @property
    def texts(self) -> Texts:
        """See `Study`."""
        return [self.training.captions, _lines(self.training), [self.training.item_ids]]

    def network(self, config: Config) -> Any:
        """See `Study`."""
        return self.family.complete(config.model, self.training)

    def loader(
        self,
        config: Config,
        tokenizer: TextTokenizer,
        stages: FrozenStages | None,  # noqa: ARG002  features are the outputs of stages already
        cache: Path,  # noqa: ARG002
        report: Report,  # noqa: ARG002
    ) -> Loader[Batch]:
        """See `Study`."""
        return self._loader(self.training, config, tokenizer)

    def _loader(self, source: FeatureSource, config: Config, tokenizer: TextTokenizer) -> Loader[Batch]:
        collate = partial(self.family.collate, tokenizer=tokenizer)
        return make_feature_loader(source, config, collate, asks=self.family.asks(config.loss))

    def record(self, config: Config, start: Mapping[str, Any] | None) -> dict[str, Any]:
        """See `Study`."""
        if self.family.asks(config.loss):
            return describe_data(config, self.training.captions, start, texts="description")
        return describe_data(config, _lines(self.training), start, texts="line")

    def validate(self, run: Run) -> Validation | None:
        """Retrieval and moments, in the first process; or the losses, where no query is learned.

        The objective exchanges tensors between the processes, so that all of them take part.
        """
        if self.validation is None:
            return None
        losses = run.config.loss
        if not self.family.asks(losses):
            loader = self._loader(self.validation, run.config, run.tokenizer)
            metrics = {"losses": validate_losses(run, loader)}
            # The best losses are the smallest; a score is the better the larger it is.
            return None if run.rank else Validation(metrics, 1 / (1 + metrics["losses"]["total"]))
        if run.rank:
            return None
        bfloat16 = run.config.train.precision == "bfloat16"
        encoder = self.family.encoder(run.model, run.tokenizer, bfloat16=bfloat16)
        metrics = validate_moments(encoder, self.validation, moments=self.family.finds_moments(losses))
        score = recall_sum(metrics["videos"])
        if "VCMR" in metrics:
            score += sum(metrics["VCMR"].values())
        return Validation(metrics, score)


def _lines(source: FeatureSource) -> list[list[str]]:
    return [[line.text for line in lines] for lines in source.lines]
