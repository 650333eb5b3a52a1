"""The network of FEEL: encoders, converter, and the heads of pre-training and of fine-tuning (Figure 2).

Shapes: B videos, M feature vectors, F their width, L text tokens, d width, Q queries, K masked tokens,
W words.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.backbones import build_text
from model.backbones.bert import TextEncoder
from model.families.feel.config import FeelModelConfig
from model.families.feel.conversion import Converter, ConverterShape
from model.families.feel.moments import MomentHead, QueryEncoder


class WordHead(nn.Module):
    """Predicts masked tokens, as BERT does; its last layer shares the word embeddings."""

    def __init__(self, hidden: int, words: nn.Embedding) -> None:
        super().__init__()
        self.transform = nn.Linear(hidden, words.embedding_dim)
        self.norm = nn.LayerNorm(words.embedding_dim)
        self.bias = nn.Parameter(torch.zeros(words.num_embeddings))

    def forward(self, x: Tensor, words: Tensor) -> Tensor:
        """Shapes x [K, d], word embeddings [W, H] → logits [K, W]."""
        return F.linear(self.norm(F.gelu(self.transform(x))), words, self.bias)


class Feel(nn.Module):
    """FEEL, with random weights.

    Raises:
        InputError: sizes that do not fit together.
    """

    def __init__(self, config: FeelModelConfig) -> None:
        super().__init__()
        self.config = config
        self.text = cast(TextEncoder, build_text(config))
        # Random embeddings must train. MiniLM's stay: few texts would spoil the words that they lack.
        self.text.train_embeddings = config.text != "minilm"
        self.text.freeze()
        # As BERT starts: the word head shares the words, and larger ones would make its logits too large.
        for table in (self.text.words, self.text.positions):
            nn.init.normal_(table.weight, std=0.02)
        width, d = self.text.width, config.hidden
        self.text_projection = nn.Identity() if width == d else nn.Linear(width, d)
        self.text_norm = nn.LayerNorm(d)
        self.feature_projection = nn.Linear(config.feature_dim, d)
        self.feature_norm = nn.LayerNorm(d)
        self.feature_mask = nn.Parameter(torch.randn(config.feature_dim) * 0.02)
        self.converter = Converter(
            ConverterShape(
                hidden=d,
                heads=config.heads,
                intermediate=config.intermediate,
                positions=max(config.frames, config.context_length),
                cross_layers=config.cross_layers,
                mcb_layers=config.mcb_layers,
                shared_mcb=config.shared_mcb,
                target_masked=config.target_masked,
                dropout=config.dropout,
                gradient_checkpointing=config.gradient_checkpointing,
            )
        )
        self.word_head = WordHead(d, self.text.words)
        self.query_encoder = QueryEncoder(d, config.heads, config.context_length, config.dropout)
        self.moment_head = MomentHead(d, config.conv_kernel)

    def embed_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """e_t. Shapes int64 [B, L] twice → [B, L, d]."""
        tokens, _ = self.text(input_ids, attention_mask)
        embedded: Tensor = self.text_norm(self.text_projection(tokens))
        return embedded

    def embed_features(self, features: Tensor, masked: Tensor | None = None) -> Tensor:
        """e_v.

        Args:
            features: shape [B, M, F].
            masked: bool [B, M]: features that are replaced by the mask embedding; None: none.

        Returns:
            shape [B, M, d].
        """
        if masked is not None:
            features = torch.where(masked[..., None], self.feature_mask.to(features.dtype), features)
        embedded: Tensor = self.feature_norm(self.feature_projection(features))
        return embedded

    def cross(
        self, e_v: Tensor, e_t: Tensor, feature_mask: Tensor, attention_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """o_v [B, M, d] and o_t [B, L, d] (FEEL, eq. 1). Shapes as `CrossModalTransformer.forward`."""
        features: tuple[Tensor, Tensor] = self.converter.cross(e_v, e_t, feature_mask, attention_mask)
        return features

    def words(self, o_t: Tensor) -> Tensor:
        """Logits of the tokens at chosen places. Shape [K, d] → [K, W]."""
        logits: Tensor = self.word_head(o_t, self.text.words.weight)
        return logits

    def encode_query(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The vector q of each query: the text encoder, T_cross on the text alone, HERO's query encoder.

        Shapes int64 [Q, L] twice → [Q, d], of length √d with `model.unit_query`, otherwise of any length.
        """
        o_t = self.converter.cross.text_alone(self.embed_text(input_ids, attention_mask), attention_mask)
        query: Tensor = self.query_encoder(o_t, attention_mask)
        if self.config.unit_query:
            query = F.normalize(query, dim=-1) * math.sqrt(self.config.hidden)
        return query

    def encode_video(
        self, features: Tensor, feature_mask: Tensor, input_ids: Tensor, attention_mask: Tensor
    ) -> Tensor:
        """The frames of videos with their text, as search reads them: o_v.

        Shapes [B, M, F], [B, M], int64 [B, L] twice, of which rows may be masked whole → [B, M, d].
        """
        e_v, e_t = self.embed_features(features), self.embed_text(input_ids, attention_mask)
        return self.cross(e_v, e_t, feature_mask, attention_mask)[0]
