"""The graphs of FEEL for a bundle: features of videos with their text, queries, and moments.

Shapes: B videos or queries, M feature vectors of a video, F their width, L text tokens, d width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.families.base import Graph
from model.families.feel.network import Feel

FEATURE_ENCODER, TEXT_ENCODER, MOMENT_HEAD = (
    "feature_encoder.onnx",
    "text_encoder.onnx",
    "moment_head.onnx",
)


class QueryGraph(nn.Module):
    """A query as a unit vector, for cosines, and as it is, for the moment head."""

    def __init__(self, model: Feel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes int64 [B, L] twice → [B, d] twice."""
        query = self.model.encode_query(input_ids, attention_mask)
        return F.normalize(query, dim=-1), query


class FeatureGraph(nn.Module):
    """The frames of videos, made of their features and their text."""

    def __init__(self, model: Feel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, features: Tensor, feature_mask: Tensor, input_ids: Tensor, attention_mask: Tensor
    ) -> Tensor:
        """Shapes [B, M, F], [B, M], int64 [B, L] twice → [B, M, d]; rows of text may be masked whole."""
        return self.model.encode_video(features, feature_mask, input_ids, attention_mask)


def graphs_of(model: Feel) -> dict[str, Graph]:
    """The graphs by file name; the model is put in evaluation mode.

    Examples have two rows and two places or more: tracing takes a single one for a constant.
    """
    config = model.eval().config
    generator = torch.Generator().manual_seed(0)

    def texts(count: int, length: int) -> tuple[Tensor, Tensor]:
        ids = torch.randint(1, model.text.vocabulary, (count, length), generator=generator)
        mask = torch.ones_like(ids)
        mask[-1, max(1, length // 2) :] = 0
        return ids, mask

    def masked(count: int, frames: int, width: int) -> tuple[Tensor, Tensor]:
        real = torch.ones(count, frames)
        real[-1, max(1, frames // 2) :] = 0
        return torch.randn(count, frames, width, generator=generator) * real[..., None], real

    def moments(count: int, frames: int) -> tuple[Tensor, Tensor, Tensor]:
        query = torch.randn(count, config.hidden, generator=generator)
        return query, *masked(count, frames, config.hidden)

    longest, most = config.context_length, config.frames
    few, short = max(2, most // 4), max(2, longest // 4)
    rows, tokens, vectors = {0: "B"}, {0: "B", 1: "L"}, {0: "B", 1: "M"}
    wide = config.feature_dim
    return {
        FEATURE_ENCODER: Graph(
            FeatureGraph(model),
            ("features", "feature_mask", "input_ids", "attention_mask"),
            ("frame_embedding",),
            (*masked(2, few, wide), *texts(2, short)),
            (vectors, vectors, tokens, tokens),
            ((*masked(3, most, wide), *texts(3, longest)), (*masked(1, few + 1, wide), *texts(1, short))),
        ),
        TEXT_ENCODER: Graph(
            QueryGraph(model),
            ("input_ids", "attention_mask"),
            ("text_embedding", "text_query"),
            texts(2, short),
            (tokens, tokens),
            (texts(3, longest), texts(1, short + 1)),
        ),
        MOMENT_HEAD: Graph(
            model.moment_head,
            ("text_query", "frame_embedding", "frame_mask"),
            ("start_logit", "end_logit"),
            moments(2, few),
            (rows, vectors, vectors),
            # More frames than a video's features: several segments, one after the other.
            (moments(3, 3 * most), moments(1, 2)),
        ),
    }
