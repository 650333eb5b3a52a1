"""BLIP for image-text matching (Li et al., 2022), base and large: `BlipForImageTextRetrieval`.

A ViT reads frames. A BERT reads texts, alone for the joint space, or with cross-attention to the frame's
tokens for the matching head. The second reading starts from the ids, so the matcher reads ids.

A segment is the normalised mean of its projected frames, as in BLIP's own evaluation of videos. There the
matching head reads the tokens of all frames at once; here it reads one salient frame at a time. What a
library stores of a frame's tokens is merged to a quarter by default.

Shapes: B batch or pairs, P tokens a frame, P' as many or fewer, L text tokens, H width of frame tokens,
D joint space.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Regex, normalizers
from torch import Tensor, nn

from model.families.base import Graph
from model.importers.base import Checkpoint, Imported
from model.importers.dual_encoders import FRAMES, frame_graph, segment_graph, text_graph
from model.importers.processors import Normalisation, PublishedTokenizer, read_preparation, read_tokenizer
from model.importers.weights import load_model
from model.runtime.bundle.graphs import FRAME_ENCODER, MATCHER, SEGMENT_ENCODER, TEXT_ENCODER
from model.runtime.bundle.manifest import TokenSizes
from model.runtime.errors import InputError

ARCHITECTURE = "BlipForImageTextRetrieval"
#: The id of [ENC], which takes the place of [CLS] where BLIP's text encoder reads a picture too. The
#: published tokenizers do not have the token, and transformers' own forward leaves [CLS].
ENC_ID = 30523
# The longest text of BLIP's training for retrieval, in tokens.
_CONTEXT_LENGTH = 35
# What BLIP's own preparation of captions replaces by a space.
_PUNCTUATION = r"""[.!"()*#:;~]"""
# `BlipTextConfig` has 8 heads where config.json names none; all published weights have 12.
_DEFAULT_HEADS = 8
# Merged to a quarter, tokens cost nothing that was measured on our own data: see RESULTS.md.
_STORED_SHARE = 4


class Frames(nn.Module):
    """`frame_encoder.onnx`: the ViT, whose first token is projected: normalised, that is the salience."""

    def __init__(self, model: Any, normalisation: Normalisation) -> None:
        super().__init__()
        self.model, self.normalisation = model, normalisation

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """uint8 [B, h, w, 3] → frame_embedding [B, D], frame_salience [B, D], frame_tokens [B, P, H]."""
        # `pooler_output` would apply the last norm a second time.
        tokens = self.model.vision_model(pixel_values=self.normalisation(frames)).last_hidden_state
        embedding = self.model.vision_proj(tokens[:, 0])
        return embedding, F.normalize(embedding, dim=-1), tokens


class Texts(nn.Module):
    """`text_encoder.onnx`: BERT alone, whose [CLS] state is projected to the embedding and salience."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes int64 [B, L] → text_embedding [B, D] twice."""
        states = self.model.text_encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        embedding = F.normalize(self.model.text_proj(states[:, 0]), dim=-1)
        return embedding, embedding.clone()


class Matcher(nn.Module):
    """`matcher.onnx`: BERT with cross-attention to a frame's tokens, and the matching head.

    Args:
        model: the model of transformers.
        first_id: the id that takes the first place of each text; None: the tokenizer's [CLS] stays, as in
            transformers' own forward.
    """

    def __init__(self, model: Any, first_id: int | None = ENC_ID) -> None:
        super().__init__()
        self.model, self.first_id = model, first_id

    def forward(self, input_ids: Tensor, attention_mask: Tensor, frame_tokens: Tensor) -> Tensor:
        """Shapes int64 [B, L] twice, [B, P', H] → match_logit [B], logit₁ − logit₀."""
        ids = input_ids
        if self.first_id is not None:
            ids = torch.cat([torch.full_like(ids[:, :1], self.first_id), ids[:, 1:]], dim=1)
        states = self.model.text_encoder(
            input_ids=ids, attention_mask=attention_mask, encoder_hidden_states=frame_tokens
        ).last_hidden_state
        logits: Tensor = self.model.itm_head(states[:, 0])
        return logits[:, 1] - logits[:, 0]


def load(checkpoint: Checkpoint) -> Imported:
    """Read a BLIP for image-text matching.

    Raises:
        InputError: it is a BLIP for something else, or a file is missing, damaged, or does not fit the
            others.
    """
    from transformers import BlipForImageTextRetrieval

    _check_architecture(checkpoint)
    model = load_model(checkpoint, BlipForImageTextRetrieval)
    vision, text = model.config.vision_config, model.config.text_config
    preparation = read_preparation(checkpoint, vision.image_size)
    tokenizer = as_captions(read_tokenizer(checkpoint))
    length = min(_CONTEXT_LENGTH, int(text.max_position_embeddings))
    example = tokenizer.example(length, int(text.vocab_size))
    frames = frame_graph(
        Frames(model, Normalisation(preparation)), preparation.image.size, outputs=("frame_tokens",)
    )
    with torch.no_grad():
        embedding, _, tokens = frames.module(*frames.example)
    dim, count = embedding.shape[-1], tokens.shape[1]
    description = checkpoint.describe(
        dim,
        preparation.image,
        length,
        ("en",),
        tokens=TokenSizes(count, max(min(2, count), math.ceil(count / _STORED_SHARE)), tokens.shape[2], None),
        frames_per_segment=FRAMES,
    )
    has_enc = int(text.vocab_size) > ENC_ID
    graphs = {
        FRAME_ENCODER: frames,
        SEGMENT_ENCODER: segment_graph(dim),
        TEXT_ENCODER: text_graph(Texts(model), example),
        MATCHER: matcher_graph(Matcher(model, ENC_ID if has_enc else None), example, tokens),
    }
    return Imported(graphs, description, tokenizer.content, _warnings(checkpoint, text, has_enc))


def matcher_graph(module: Matcher, example: tuple[Tensor, Tensor], tokens: Tensor) -> Graph:
    """The matcher with its example: two texts, and the tokens of two frames, [2, P, H]."""
    ids, mask = example
    text = {0: "batch", 1: "length"}
    fewer = (ids[:, :4], mask[:, :4], tokens[:, : max(1, tokens.shape[1] // 2)].contiguous())
    single = (ids[:1], mask[:1], tokens[:1, :1].contiguous())
    return Graph(
        module,
        ("input_ids", "attention_mask", "frame_tokens"),
        ("match_logit",),
        (ids, mask, tokens),
        (text, text, {0: "batch", 1: "tokens"}),
        (fewer, single),
    )


def as_captions(published: PublishedTokenizer) -> PublishedTokenizer:
    """The tokenizer with BLIP's own preparation of captions before it: lower case, and no punctuation.

    Commas, hyphens, apostrophes and question marks stay. BLIP also drops words after the thirtieth; here a
    long text is read in parts.
    """
    return published.preparing(normalizers.Lowercase(), normalizers.Replace(Regex(_PUNCTUATION), " "))


def _check_architecture(checkpoint: Checkpoint) -> None:
    """Refuse the BLIPs that write captions or answer questions.

    Raises:
        InputError: it is one of them.
    """
    named = checkpoint.config.get("architectures")
    if isinstance(named, list) and named and ARCHITECTURE not in named:
        raise InputError(
            f"{checkpoint.config_path}: architectures is {named}: import a {ARCHITECTURE}, the BLIP with a "
            "matching head, such as Salesforce/blip-itm-base-coco"
        )


def _warnings(checkpoint: Checkpoint, text: Any, has_enc: bool) -> tuple[str, ...]:
    found = []
    if text.num_attention_heads == _DEFAULT_HEADS:
        found.append(
            f"{checkpoint.config_path}: text_config has {_DEFAULT_HEADS} attention heads, transformers' "
            "default, but the published BLIP have 12: if these weights come from one, write "
            '"num_attention_heads": 12 there and import again, or all texts are read wrongly'
        )
    if not has_enc:
        found.append(
            f"{checkpoint.config_path}: text_config has {text.vocab_size} ids and so no [ENC] ({ENC_ID}), "
            "which BLIP's matching head was trained with: texts keep [CLS]"
        )
    return tuple(found)
