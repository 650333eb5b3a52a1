"""A second, tiny family of models: frames are their mean colours, texts are bags of words.

It has no momentum weights, no frozen stages, no token outputs and no matcher.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from model.arrays import Array
from model.data.examples import Examples
from model.families.base import Graph, InferenceOptions, ModelDescription, PictureFamily
from model.families.encoder import Profile
from model.runtime.bundle import FrameEncoding, TextEncoding
from model.runtime.errors import InputError
from model.runtime.preprocessing import Resizing, TextTokenizer
from model.settings import TrainConfig, check_rules


@dataclass(frozen=True)
class ToyConfig:
    """The network's settings."""

    frames: int = 4
    image_size: int = 48
    context_length: int = 16
    dim: int = 8
    vocabulary: int = 32

    def __post_init__(self) -> None:
        check_rules(self._rules())

    def _rules(self) -> Iterator[tuple[bool, str]]:
        yield self.dim >= 1, f"model.dim={self.dim} must be positive"


@dataclass(frozen=True)
class ToyLosses:
    """The loss's settings."""

    temperature: float = 0.1


@dataclass(frozen=True)
class ToyBatch:
    """Shapes frames uint8 [F, h, w, 3], slots int64 [B, N], mask [B, N], ids and attention int64 [B, L]."""

    frames: Tensor
    slots: Tensor
    mask: Tensor
    ids: Tensor
    attention: Tensor

    def to(self, device: torch.device | str) -> ToyBatch:
        """The same batch on another device."""
        return ToyBatch(*(getattr(self, field.name).to(device) for field in fields(self)))


class ToyModel(nn.Module):
    """Mean colours and bags of words in one space."""

    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.config = config
        self.colour = nn.Linear(3, config.dim)
        self.words = nn.Embedding(config.vocabulary, config.dim)

    def encode_frames(self, frames: Tensor) -> Tensor:
        """uint8 [F, h, w, 3] → [F, D]."""
        return F.normalize(self.colour(frames.float().mean((1, 2)) / 127.5 - 1.0), dim=-1)

    def encode_segments(self, frames: Tensor, mask: Tensor) -> Tensor:
        """[B, N, D], [B, N] → [B, D]."""
        return F.normalize((frames * mask[:, :, None]).sum(1), dim=-1)

    def encode_texts(self, ids: Tensor, attention: Tensor) -> Tensor:
        """int64 [B, L] twice → [B, D]."""
        return F.normalize((self.words(ids) * attention[:, :, None].float()).sum(1), dim=-1)


class ToyObjective(nn.Module):
    """Each text against all videos of the batch."""

    def __init__(self, model: ToyModel, temperature: float) -> None:
        super().__init__()
        self.model, self.temperature = model, temperature

    def forward(self, batch: ToyBatch, _step: int, _epoch: int) -> dict[str, Tensor]:
        """`contrastive`, which is `total`."""
        frames = self.model.encode_frames(batch.frames)[batch.slots]
        videos = self.model.encode_segments(frames, batch.mask)
        similarity = self.model.encode_texts(batch.ids, batch.attention) @ videos.T
        loss = F.cross_entropy(similarity / self.temperature, torch.arange(len(videos)))
        return {"contrastive": loss, "total": loss}


class ToyEncoder:
    """The model as evaluation reads it."""

    has_matcher = False

    def __init__(self, model: ToyModel, tokenizer: TextTokenizer) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer

    @property
    def profile(self) -> Profile:
        """As the settings say."""
        config = self.model.config
        return Profile(Resizing(config.image_size), config.frames, 32.0, 1, 10, 1.0, None)

    @torch.no_grad()
    def frames(self, frames: NDArray[np.uint8], *, tokens: bool = False) -> FrameEncoding:
        """Embeddings are salience, too."""
        embedding = self.model.encode_frames(torch.from_numpy(frames)).numpy()
        return FrameEncoding(embedding, embedding, None)

    @torch.no_grad()
    def segments(self, frames: Array, mask: Array) -> Array:
        """[B, N, D], [B, N] → [B, D]."""
        segments: Array = self.model.encode_segments(torch.from_numpy(frames), torch.from_numpy(mask)).numpy()
        return segments

    @torch.no_grad()
    def texts(self, texts: Sequence[str], *, tokens: bool = False) -> TextEncoding:
        """Embeddings are salience, too."""
        batch = self.tokenizer(texts)
        ids, attention = torch.from_numpy(batch.input_ids), torch.from_numpy(batch.attention_mask)
        embedding = self.model.encode_texts(ids, attention).numpy()
        return TextEncoding(embedding, embedding, None, batch.attention_mask, batch.input_ids)

    def match(self, text: TextEncoding, text_rows: NDArray[np.int64], frame_tokens: Array) -> Array:
        """There is no matcher."""
        raise ValueError("this model has no matcher")


class FrameGraph(nn.Module):
    """`frame_encoder.onnx`."""

    def __init__(self, model: ToyModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """→ frame_embedding, frame_salience."""
        embedding = self.model.encode_frames(frames)
        return embedding, embedding * 1.0


class SegmentGraph(nn.Module):
    """`segment_encoder.onnx`."""

    def __init__(self, model: ToyModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, frame_embedding: Tensor, frame_mask: Tensor) -> Tensor:
        """→ segment_embedding."""
        return self.model.encode_segments(frame_embedding, frame_mask)


class TextGraph(nn.Module):
    """`text_encoder.onnx`."""

    def __init__(self, model: ToyModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """→ text_embedding, text_salience."""
        embedding = self.model.encode_texts(input_ids, attention_mask)
        return embedding, embedding * 1.0


class ToyFamily(PictureFamily[ToyModel, ToyConfig, ToyLosses]):
    """Mean colours and bags of words."""

    name = "toy"
    network_config = ToyConfig
    loss_config = ToyLosses

    def build(self, config: ToyConfig) -> ToyModel:
        """Random weights."""
        return ToyModel(config)

    def tokenizer_path(self, config: ToyConfig) -> Path:
        """A run brings its own."""
        return Path()

    def collate(self, examples: Examples, tokenizer: TextTokenizer) -> ToyBatch:
        """Tokens in place of texts."""
        tokens = tokenizer(examples.texts)
        slots, mask = torch.from_numpy(examples.slots), torch.from_numpy(examples.frame_mask)
        ids, attention = torch.from_numpy(tokens.input_ids), torch.from_numpy(tokens.attention_mask)
        return ToyBatch(examples.frames, slots, mask, ids, attention)

    def objective(self, model: ToyModel, losses: ToyLosses, seed: int) -> nn.Module:
        """One loss."""
        return ToyObjective(model, losses.temperature)

    def learning_rate(self, parameter: str, config: ToyConfig, train: TrainConfig) -> float:
        """Words learn as texts do, colours as images."""
        return train.lr_text if parameter.startswith("words.") else train.lr_image

    def encoder(
        self,
        model: ToyModel,
        tokenizer: TextTokenizer,
        options: InferenceOptions | None = None,
        *,
        bfloat16: bool = False,
    ) -> ToyEncoder:
        """There are no options."""
        _refuse(options)
        return ToyEncoder(model, tokenizer)

    def graphs(
        self, model: ToyModel, options: InferenceOptions | None = None, *, matcher: bool = True
    ) -> dict[str, Graph]:
        """Three encoders, without token outputs."""
        _refuse(options)
        config, generator = model.config, torch.Generator().manual_seed(0)

        def frames(count: int) -> tuple[Tensor]:
            shape = (count, config.image_size, config.image_size, 3)
            return (torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8),)

        def segments(count: int, slots: int) -> tuple[Tensor, Tensor]:
            mask = torch.ones(count, slots)
            mask[-1, 1:] = 0
            return F.normalize(torch.randn(count, slots, config.dim, generator=generator), dim=-1), mask

        def texts(count: int, length: int) -> tuple[Tensor, Tensor]:
            ids = torch.randint(0, config.vocabulary, (count, length), generator=generator)
            return ids, torch.ones_like(ids)

        rows, table = {0: "B"}, ({0: "B", 1: "N"}, {0: "B", 1: "N"})
        words = ({0: "B", 1: "L"}, {0: "B", 1: "L"})
        frame_names = ("frame_embedding", "frame_salience")
        text_names = ("text_embedding", "text_salience")
        segment_inputs, text_inputs = ("frame_embedding", "frame_mask"), ("input_ids", "attention_mask")
        return {
            "frame_encoder.onnx": Graph(
                FrameGraph(model), ("frames",), frame_names, frames(2), (rows,), (frames(3),)
            ),
            "segment_encoder.onnx": Graph(
                SegmentGraph(model),
                segment_inputs,
                ("segment_embedding",),
                segments(2, config.frames),
                table,
                (segments(3, config.frames - 1),),
            ),
            "text_encoder.onnx": Graph(
                TextGraph(model), text_inputs, text_names, texts(2, 5), words, (texts(3, 7),)
            ),
        }

    def describe(self, model: ToyModel, options: InferenceOptions | None = None) -> ModelDescription:
        """Without tokens."""
        _refuse(options)
        config = model.config
        return ModelDescription(
            embedding_dim=config.dim,
            salience_dim=config.dim,
            image_size=config.image_size,
            context_length=config.context_length,
            frames_per_segment=config.frames,
            num_salient_frames=1,
            salience_strategy="simdot",
        )


def _refuse(options: InferenceOptions | None) -> None:
    if options not in (None, InferenceOptions()):
        raise InputError(f"the toy family has no options, but there are {options}")
