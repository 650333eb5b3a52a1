"""LGDN as a `PictureFamily`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.backbones import with_shapes
from model.data.examples import Examples
from model.data.loaders import Loader, StillLoader
from model.data.sources import Source
from model.data.stills import CaptionedStills
from model.data.view_cache import FrozenStages
from model.families.base import Graph, InferenceOptions, ModelDescription, PictureFamily
from model.families.lgdn import export
from model.families.lgdn import weights as published_weights
from model.families.lgdn.closed_form import start_projections
from model.families.lgdn.config import LossConfig, ModelConfig
from model.families.lgdn.encoder import TowersEncoder
from model.families.lgdn.inference import inference_model
from model.families.lgdn.network import LGDN, LGDNBatch
from model.families.lgdn.objective import Objective
from model.families.lgdn.start import complete_settings
from model.progress import Report
from model.runtime.preprocessing import TextTokenizer
from model.settings import DataConfig, TrainConfig, check_rules


class LGDNFamily(PictureFamily[LGDN, ModelConfig, LossConfig]):
    """LGDN (Lu et al., NeurIPS 2022)."""

    name = "lgdn"
    network_config = ModelConfig
    loss_config = LossConfig
    places = frozenset({"start_from", "start_weights", "backbone_weights", "text_weights"})
    training_settings = frozenset(
        {
            "dropout",
            "projection_dropout",
            "temporal_drop",
            "gradient_checkpointing",
            "converter_layers",
            "converter_target_masked",
        }
    )
    training_parts = ("converter.",)

    def check(
        self,
        config: ModelConfig,
        losses: LossConfig,
        data: DataConfig,  # noqa: ARG002
        train: TrainConfig,
    ) -> None:
        """Check that the memory banks hold a batch, and that the converter and its losses go together."""
        bank = f"model.bank_size={config.bank_size} must hold train.batch_size={train.batch_size}"
        layers, converts = config.converter_layers, losses.gmr + losses.cs > 0
        missing = (
            f"loss.gmr={losses.gmr} and loss.cs={losses.cs} need a converter: set model.converter_layers=2, "
            "or both losses to 0"
        )
        idle = (
            f"model.converter_layers={layers}: the converter would not train; set loss.gmr=1, or "
            "model.converter_layers=0"
        )
        check_rules(
            [
                (config.bank_size >= train.batch_size, bank),
                (layers > 0 or not converts, missing),
                (converts or not layers, idle),
            ]
        )

    def complete_recipe(self, model: Mapping[str, Any], chosen: Collection[str]) -> Mapping[str, Any]:
        """Fill in what the model that `start_from` names decides."""
        return complete_settings(model, chosen)

    def complete(self, config: ModelConfig, training: Source) -> ModelConfig:
        """Fill in the sizes of both encoders, and of the embeddings of `data.teacher`."""
        if isinstance(training, CaptionedStills) and training.taught is not None:
            width = training.taught.shape[-1]
            config = replace(config, teacher=training.taught_by, teacher_dim=width)
        return with_shapes(config)

    def build(self, config: ModelConfig) -> LGDN:
        """Towers, memory banks and fusion, with random weights."""
        return LGDN(config)

    def load_published(self, model: LGDN, losses: LossConfig) -> FrozenStages:
        """Load both encoders' published weights; the backbone's first stages never train."""
        classifier = published_weights.load_published(model)
        _use_channels_last(model)
        config = model.config
        return FrozenStages(
            model.online.image,
            classifier,
            (config.backbone, config.frozen_stages),
            config.classes if losses.retention_weight > 0 else 0,
        )

    def load_start(self, model: LGDN, weights: Mapping[str, Tensor]) -> None:
        """Load all weights but the memory banks, which start empty."""
        published_weights.load_start_weights(model, weights)

    def prepare_start(
        self, model: LGDN, loader: Loader[Any], tokenizer: TextTokenizer, train: TrainConfig, report: Report
    ) -> None:
        """Start the projections in closed form on still images, unless there are published ones."""
        started = train.start_from or model.config.start_weights
        if isinstance(loader, StillLoader) and train.closed_form_start and not started:
            report("closed-form start of the projections")
            names = published_weights.class_names(model.config)
            start_projections(model, loader.views, loader.stills, tokenizer, names, train)

    def tokenizer_path(self, config: ModelConfig) -> Path:
        """The text encoder's published `tokenizer.json`."""
        return published_weights.published_tokenizer_path(config)

    def collate(self, examples: Examples, tokenizer: TextTokenizer) -> LGDNBatch:
        """Tokenise the texts, and make tensors of the arrays."""
        tokens = tokenizer(examples.texts)
        return LGDNBatch(
            frames=examples.frames,
            slots=torch.from_numpy(examples.slots),
            frame_mask=torch.from_numpy(examples.frame_mask),
            input_ids=torch.from_numpy(tokens.input_ids),
            attention_mask=torch.from_numpy(tokens.attention_mask),
            video_ids=torch.from_numpy(examples.video_ids),
            teacher=examples.teacher,
            taught=examples.taught,
            counted=examples.counted,
        )

    def objective(self, model: LGDN, losses: LossConfig, seed: int) -> nn.Module:
        """The total loss, equation 10."""
        return Objective(model, losses, seed)

    def learning_rate(self, parameter: str, config: ModelConfig, train: TrainConfig) -> float:
        """`lr_image` and `lr_text` for published weights, `lr_head` for new ones."""
        image, text = ["online.image.", "online.classifier."], ["online.text."]
        if config.start_weights:
            image.append("online.frame_projection.")
            text += ["online.text_projection.", "log_temperature"]
        if _has_published_fusion(config):
            text.append("fusion.")
        if parameter.startswith(tuple(image)):
            return train.lr_image
        return train.lr_text if parameter.startswith(tuple(text)) else train.lr_head

    def layers_above(self, parameter: str, model: LGDN) -> int:
        """Within each encoder and a published fusion; layers that the fusion took stand above the text's."""
        config, online = model.config, model.online
        name = parameter.removeprefix("online.image.")
        if name != parameter:
            return online.image.layers_above(name)
        name = parameter.removeprefix("online.text.")
        if name != parameter:
            return online.text.layers_above(name) + config.fusion_from_text
        name = parameter.removeprefix("fusion.")
        return model.fusion.layers_above(name) if name != parameter and _has_published_fusion(config) else 0

    def after_step(self, model: LGDN) -> None:
        """Update the momentum weights, equation 2."""
        model.update_momentum()

    def trains_matcher(self, losses: LossConfig) -> bool:
        """Whether LSFM is on."""
        return losses.lsfm > 0

    def encoder(
        self,
        model: LGDN,
        tokenizer: TextTokenizer,
        options: InferenceOptions | None = None,
        *,
        bfloat16: bool = False,
    ) -> TowersEncoder:
        """The weights and the strategy that the settings name, unless options say otherwise."""
        _use_channels_last(model)
        inference = inference_model(model, options)
        return TowersEncoder(
            model, tokenizer, weights=inference.weights, strategy=inference.strategy, bfloat16=bfloat16
        )

    def graphs(
        self, model: LGDN, options: InferenceOptions | None = None, *, matcher: bool = True
    ) -> dict[str, Graph]:
        """Frame, segment and text encoder, and the fusion as the matcher; the model is in evaluation mode."""
        return export.graphs(model, options, matcher=matcher)

    def describe(self, model: LGDN, options: InferenceOptions | None = None) -> ModelDescription:
        """Widths, sizes and the strategy of SFP."""
        return export.describe_model(model, options)

    def sources(self, config: ModelConfig) -> list[dict[str, str]]:
        """The weights of both encoders, and the names of the classes."""
        return published_weights.sources(config)


def _has_published_fusion(config: ModelConfig) -> bool:
    return bool(config.fusion_from_text or (config.start_weights and config.fusion == "blip"))


def _use_channels_last(model: LGDN) -> None:
    """Lay both backbones' weights out by channels; see `ImageBackbone.channels_last`."""
    for towers in (model.online, model.momentum):
        towers.image.channels_last()
