"""What the families of CLIP have in common: an image encoder and a text encoder with a joint space.

A segment is the mean of its normalised frames, as in CLIP4Clip (Luo et al., 2022, "meanP"). Salient frames
are those whose cosine with the text is greatest, and their mean cosine is the match score: SFP on top of
CLIP4Clip, as in LGDN's Table 8.

Shapes: B batch, N frames, L text tokens, D joint space.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.backbones.pooling import masked_mean
from model.families.base import Graph
from model.importers.base import Checkpoint, Imported
from model.importers.processors import (
    Normalisation,
    PicturePreparation,
    PublishedTokenizer,
    read_preparation,
    read_tokenizer,
)
from model.runtime.bundle.graphs import FRAME_ENCODER, SEGMENT_ENCODER, TEXT_ENCODER
from model.runtime.bundle.manifest import SalienceMatch

FRAMES = 16


class Frames(nn.Module):
    """`frame_encoder.onnx`: the image encoder, whose embedding is the frame's salience too."""

    def __init__(self, model: Any, normalisation: Normalisation) -> None:
        super().__init__()
        self.model, self.normalisation = model, normalisation

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Shape uint8 [B, h, w, 3] → frame_embedding [B, D] twice."""
        pixels = self.normalisation(frames)
        embedding = F.normalize(features(self.model.get_image_features(pixel_values=pixels)), dim=-1)
        return embedding, embedding.clone()


class MeanOfFrames(nn.Module):
    """`segment_encoder.onnx`: the mean of the frames, normalised."""

    def forward(self, frame_embedding: Tensor, frame_mask: Tensor) -> Tensor:
        """Shapes [B, N, D], float [B, N] → segment_embedding [B, D]."""
        return F.normalize(masked_mean(frame_embedding, frame_mask), dim=-1)


class Texts(nn.Module):
    """`text_encoder.onnx`: the text encoder, whose embedding is the text's salience too.

    Args:
        model: the model of transformers.
        tokenizer: how it fills texts up.
        fixed_length: fill every text up to this many tokens, and let the model read the filling, as models
            are trained that have no attention mask; None: texts are as long as they are.
    """

    def __init__(self, model: Any, tokenizer: PublishedTokenizer, fixed_length: int | None = None) -> None:
        super().__init__()
        self.model, self.tokenizer, self.fixed_length = model, tokenizer, fixed_length

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes int64 [B, L] → text_embedding [B, D] twice."""
        filled = torch.where(attention_mask > 0, input_ids, self.tokenizer.pad_id)
        if self.fixed_length is None:
            found = self.model.get_text_features(input_ids=filled, attention_mask=attention_mask)
        else:
            found = self.model.get_text_features(
                input_ids=self._filled_up(filled, attention_mask, self.fixed_length)
            )
        embedding = F.normalize(features(found), dim=-1)
        return embedding, embedding.clone()

    def _filled_up(self, filled: Tensor, attention_mask: Tensor, length: int) -> Tensor:
        """Texts of `length` tokens, filled up where the tokenizer does. int64 [B, L] → [B, length]"""
        filling = filled.new_full((filled.shape[0], length), self.tokenizer.pad_id)
        longer = torch.cat([filled, filling], dim=1)[:, :length]
        if not self.tokenizer.pads_left:
            return longer
        starts = length - attention_mask.sum(dim=1, keepdim=True)
        places = torch.arange(length) - starts
        return torch.where(places < 0, self.tokenizer.pad_id, longer.gather(1, places.clamp(min=0)))


def features(found: Any) -> Tensor:
    """The embedding that `get_text_features` and its like return: an object with it, or itself."""
    pooled: Tensor = found if isinstance(found, Tensor) else found.pooler_output
    return pooled


@dataclass(frozen=True)
class DualEncoder:
    """A model of CLIP's kind, with what it reads.

    Attributes:
        model: has `get_image_features` and `get_text_features`.
        preparation: how it reads pictures.
        tokenizer: how it reads texts.
        context_length: its longest text, in tokens.
        vocabulary: the number of its ids.
        fixed_length: every text is filled up to the context length.
        languages: that the family reads, unless the model card names others.
    """

    model: Any
    preparation: PicturePreparation
    tokenizer: PublishedTokenizer
    context_length: int
    vocabulary: int
    fixed_length: bool
    languages: tuple[str, ...]


def read_dual_encoder(
    checkpoint: Checkpoint, model: Any, *, fixed_length: bool = False, languages: tuple[str, ...] = ("en",)
) -> DualEncoder:
    """A model of transformers, with the processors beside its weights.

    Raises:
        InputError: a file of the checkpoint is missing or does not fit.
    """
    vision, text = model.config.vision_config, model.config.text_config
    return DualEncoder(
        model,
        read_preparation(checkpoint, vision.image_size),
        read_tokenizer(checkpoint),
        int(text.max_position_embeddings),
        int(text.vocab_size),
        fixed_length,
        languages,
    )


def import_dual_encoder(checkpoint: Checkpoint, encoder: DualEncoder) -> Imported:
    """A model of CLIP's kind as a bundle.

    Raises:
        InputError: the tokenizer does not fit the model.
    """
    texts, dim = text_part(encoder)
    image = encoder.preparation.image
    description = checkpoint.describe(
        dim,
        image,
        encoder.context_length,
        encoder.languages,
        frames_per_segment=FRAMES,
        salience_match=SalienceMatch(scale=1.0, bias=0.0),
    )
    frames = Frames(encoder.model, Normalisation(encoder.preparation))
    graphs = {
        FRAME_ENCODER: frame_graph(frames, image.size),
        SEGMENT_ENCODER: segment_graph(dim),
        TEXT_ENCODER: texts,
    }
    return Imported(graphs, description, encoder.tokenizer.content)


def text_part(encoder: DualEncoder) -> tuple[Graph, int]:
    """The text encoder with its example, and D.

    Raises:
        InputError: the tokenizer gives ids that the model does not have.
    """
    length = encoder.context_length
    texts = Texts(encoder.model, encoder.tokenizer, length if encoder.fixed_length else None)
    example = encoder.tokenizer.example(length, encoder.vocabulary)
    with torch.no_grad():
        dim = texts(*example)[0].shape[-1]
    return text_graph(texts, example), dim


def frame_graph(module: nn.Module, size: int, outputs: tuple[str, ...] = ()) -> Graph:
    """A frame encoder with its example; `outputs` follow the embedding and the salience."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8, generator=generator)
    names = ("frame_embedding", "frame_salience", *outputs)
    return Graph(module, ("frames",), names, (frames,), ({0: "batch"},), ((frames[:1],),))


def segment_graph(dim: int) -> Graph:
    """The mean of frames, with its example."""
    generator = torch.Generator().manual_seed(1)
    frames = F.normalize(torch.randn(2, FRAMES, dim, generator=generator), dim=-1)
    mask = torch.ones(2, FRAMES)
    mask[1, 3:] = 0
    inputs, axes = ("frame_embedding", "frame_mask"), {0: "batch", 1: "frames"}
    other = (frames[:, :5], mask[:, :5])
    return Graph(MeanOfFrames(), inputs, ("segment_embedding",), (frames, mask), (axes, axes), (other,))


def text_graph(module: nn.Module, example: tuple[Tensor, Tensor], outputs: tuple[str, ...] = ()) -> Graph:
    """A text encoder with its example; `outputs` follow the embedding and the salience."""
    axes: Mapping[int, str] = {0: "batch", 1: "length"}
    names = ("text_embedding", "text_salience", *outputs)
    short = tuple(part[:, :4] for part in example)
    inputs = ("input_ids", "attention_mask")
    return Graph(module, inputs, names, example, (dict(axes), dict(axes)), (short,))
