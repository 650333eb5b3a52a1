"""FEEL as a `ModelFamily`.

It reads features and timed text, which `Examples` cannot hold: `collate` and `encoder` refuse, and
`collate_features` and `FeelEncoder` stand in for them.
"""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from torch import nn

from model.backbones import with_text_shape
from model.backbones.published import text_sources, text_tokenizer
from model.data.examples import Examples
from model.data.sources import Source
from model.families.base import Graph, InferenceOptions, ModelDescription, ModelFamily
from model.families.feel import weights as published_weights
from model.families.feel.batch import FeelBatch
from model.families.feel.config import FeelLossConfig, FeelModelConfig
from model.families.feel.graphs import graphs_of
from model.families.feel.network import Feel
from model.families.feel.objective import Finetuning, Pretraining
from model.runtime.errors import InputError
from model.runtime.preprocessing import TextTokenizer
from model.settings import TrainConfig


class FeelFamily(ModelFamily[Feel, FeelModelConfig, FeelLossConfig]):
    """FEEL: video-language pre-training for learning semantic alignments (AAAI 2023)."""

    name = "feel"
    network_config = FeelModelConfig
    loss_config = FeelLossConfig
    places = frozenset({"text_weights"})

    def complete(self, config: FeelModelConfig, training: Source) -> FeelModelConfig:  # noqa: ARG002
        """Fill in the sizes of the language encoder."""
        return with_text_shape(config)

    def build(self, config: FeelModelConfig) -> Feel:
        """All modules of pre-training and of fine-tuning, with random weights."""
        return Feel(config)

    def load_published(self, model: Feel, losses: FeelLossConfig) -> None:  # noqa: ARG002
        """Load the language encoder, and start the cross-modal Transformer from its layers."""
        published_weights.load_published(model)

    def tokenizer_path(self, config: FeelModelConfig) -> Path:
        """The language encoder's published `tokenizer.json`."""
        return text_tokenizer(config)

    def collate(self, examples: Examples, tokenizer: TextTokenizer) -> FeelBatch:  # noqa: ARG002
        """FEEL reads no pixels; see `collate_features`."""
        _refuse_pixels()

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

    def encoder(
        self,
        model: Feel,  # noqa: ARG002
        tokenizer: TextTokenizer,  # noqa: ARG002
        options: InferenceOptions | None = None,  # noqa: ARG002
        *,
        bfloat16: bool = False,  # noqa: ARG002
    ) -> NoReturn:
        """FEEL reads no pixels; see `FeelEncoder`."""
        _refuse_pixels()

    def graphs(
        self,
        model: Feel,
        options: InferenceOptions | None = None,
        *,
        matcher: bool = True,  # noqa: ARG002
    ) -> dict[str, Graph]:
        """Features to frames, the query encoder, and the moment head."""
        _check_options(options)
        return graphs_of(model)

    def describe(self, model: Feel, options: InferenceOptions | None = None) -> ModelDescription:
        """A video is as similar as its best frame: one salient frame, by the cosine alone."""
        _check_options(options)
        config = model.config
        return ModelDescription(
            embedding_dim=config.hidden,
            salience_dim=config.hidden,
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


def _refuse_pixels() -> NoReturn:
    raise InputError("family=feel reads feature files and timed text, not pixels: choose data that has both")
