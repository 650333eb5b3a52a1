"""FEEL as a `FeatureFamily`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from torch import nn

from model.backbones import with_text_shape
from model.backbones.published import text_sources, text_tokenizer
from model.data.examples import FeatureExamples
from model.data.feature_sets import FeatureSource
from model.families.base import FeatureFamily, Graph, InferenceOptions, ModelDescription
from model.families.feel import weights as published_weights
from model.families.feel.batch import FeelBatch, Queries, collate_features
from model.families.feel.config import FeelLossConfig, FeelModelConfig
from model.families.feel.encoder import FeelEncoder
from model.families.feel.graphs import embedding_dim, graphs_of
from model.families.feel.network import Feel
from model.families.feel.objective import Finetuning, Pretraining
from model.runtime.errors import InputError
from model.runtime.preprocessing import TextTokenizer
from model.settings import DataConfig, TrainConfig, check_rules


class FeelFamily(FeatureFamily[Feel, FeelModelConfig, FeelLossConfig]):
    """FEEL: video-language pre-training for learning semantic alignments (AAAI 2023)."""

    name = "feel"
    network_config = FeelModelConfig
    loss_config = FeelLossConfig
    places = frozenset({"text_weights"})

    def check(
        self, config: FeelModelConfig, losses: FeelLossConfig, data: DataConfig, train: TrainConfig
    ) -> None:
        """Check that the data has what the task learns from, and fits the network."""
        del train
        check_rules(self._rules(config, losses, data))

    def _rules(
        self, config: FeelModelConfig, losses: FeelLossConfig, data: DataConfig
    ) -> Iterator[tuple[bool, str]]:
        yield (
            data.max_vectors <= config.frames,
            f"data.max_vectors={data.max_vectors} must be at most model.frames={config.frames}",
        )
        yield (
            not losses.contrast or config.target_masked or self.asks(losses),
            f"loss.contrast={losses.contrast} would tell copies: set model.target_masked=true",
        )
        yield (
            not self.asks(losses) or data.kind != "clips",
            "data.kind=clips has no queries: set loss.task=pretraining, or name a set with queries",
        )
        yield (
            not self.finds_moments(losses) or data.kind != "msrvtt_asr",
            "data.kind=msrvtt_asr describes whole videos: set loss.span=0",
        )

    def complete(self, config: FeelModelConfig, training: FeatureSource) -> FeelModelConfig:
        """Fill in the sizes of the language encoder, and the width of a feature vector."""
        config, width = with_text_shape(config), training.width
        if config.feature_dim not in (0, width):
            raise InputError(
                f"model.feature_dim={config.feature_dim}, but the vectors of {training.name} have {width} "
                f"numbers: set model.feature_dim={width}, or choose other data.features"
            )
        return replace(config, feature_dim=width)

    def build(self, config: FeelModelConfig) -> Feel:
        """All modules of pre-training and of fine-tuning, with random weights."""
        return Feel(config)

    def load_published(self, model: Feel, losses: FeelLossConfig) -> None:  # noqa: ARG002
        """Load the language encoder, and start the cross-modal Transformer from its layers."""
        published_weights.load_published(model)

    def tokenizer_path(self, config: FeelModelConfig) -> Path:
        """The language encoder's published `tokenizer.json`."""
        return text_tokenizer(config)

    def asks(self, losses: FeelLossConfig) -> bool:
        """Fine-tuning reads queries."""
        return losses.task == "finetuning"

    def finds_moments(self, losses: FeelLossConfig) -> bool:
        """Fine-tuning with the span loss."""
        return self.asks(losses) and losses.span > 0

    def collate(self, examples: FeatureExamples, tokenizer: TextTokenizer) -> FeelBatch:
        """Vectors, the text of all lines, and the queries with the labels of their spans."""
        items, queries = examples.items, None
        if examples.queries is not None:
            asked = list(zip(items, examples.queries.tolist(), strict=True))
            queries = Queries(
                [item.queries[number].text for item, number in asked],
                range(len(items)),
                [item.label(number) or (-1, -1) for item, number in asked],
            )
        return collate_features(
            [item.features for item in items],
            [item.text for item in items],
            tokenizer,
            longest=max(len(item.features) for item in items),
            queries=queries,
            video_ids=examples.video_ids.tolist(),
        )

    def objective(self, model: Feel, losses: FeelLossConfig, seed: int) -> nn.Module:
        """The losses of the task that the settings name."""
        task = {"pretraining": Pretraining, "finetuning": Finetuning}[losses.task]
        return task(model, losses, seed)

    def learning_rate(self, parameter: str, config: FeelModelConfig, train: TrainConfig) -> float:
        """`lr_text` for what starts from published weights, `lr_head` for the rest; HERO has one for both."""
        published = ["text."]
        if config.cross_from_text and (config.text_weights or config.text == "minilm"):
            published.append("converter.cross.stack.")
        return train.lr_text if parameter.startswith(tuple(published)) else train.lr_head

    def encoder(self, model: Feel, tokenizer: TextTokenizer, *, bfloat16: bool = False) -> FeelEncoder:
        """The model in evaluation mode."""
        return FeelEncoder(model, tokenizer, bfloat16=bfloat16)

    def graphs(
        self,
        model: Feel,
        options: InferenceOptions | None = None,
        *,
        matcher: bool = True,  # noqa: ARG002
    ) -> dict[str, Graph]:
        """What follows a frame encoder, segments, queries, and the moment head."""
        _check_options(options)
        return graphs_of(model)

    def describe(self, model: Feel, options: InferenceOptions | None = None) -> ModelDescription:
        """A video is as similar as its best frame: one salient frame, by the cosine alone."""
        _check_options(options)
        config = model.config
        dim = embedding_dim(model)
        return ModelDescription(
            embedding_dim=dim,
            salience_dim=dim + config.hidden,
            image_size=config.image_size,
            context_length=config.context_length,
            frames_per_segment=config.frames,
            num_salient_frames=1,
            salience_strategy="simdot",
        )

    def sources(self, config: FeelModelConfig) -> list[dict[str, str]]:
        """The weights of the language encoder."""
        return text_sources(config)


def _check_options(options: InferenceOptions | None) -> None:
    if options is not None and options != InferenceOptions():
        raise InputError(f"the feel family has no options, but there are {options}: leave them out")
