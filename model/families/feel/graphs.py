"""The graphs of FEEL for a bundle, over the frame embeddings of another bundle's frame encoder.

A frame embedding is a feature vector; the model was trained on such. The bundle has one width for embeddings,
the larger of those of the features and of a query: zeros fill the narrower vectors up, which changes no
cosine. In a bundle videos have no text.

Search reads the direction of a query, and the moment head its length too. So the last place of a query holds
its length, times 2⁻²⁰: that leaves the vector of length 1, and segments have 0 there.

A library stores the saliences of frames, and the moment head reads embeddings. So a salience is the embedding
and then what tells the relevance; that of a query has zeros before its direction.

Shapes: B rows, M frames, F width of a feature, d width of the model, D width of the bundle's embeddings,
L text tokens.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.families.base import Graph
from model.families.feel.network import Feel
from model.runtime.bundle.graphs import FRAME_ENCODER, MOMENT_HEAD, SEGMENT_ENCODER, TEXT_ENCODER

# A query of length 1,000 changes cosines by less than one in a million.
_LENGTH_SCALE = 2.0**-20


def embedding_dim(model: Feel) -> int:
    """D: the width of a feature, or of a query with its length, whichever is larger."""
    config = model.config
    return max(config.feature_dim, config.hidden + 1)


class FramesOf(nn.Module):
    """Encodes frame embeddings as videos without text; longer videos in windows of `model.frames`."""

    def __init__(self, model: Feel) -> None:
        super().__init__()
        self.model = model

    def forward(self, frame_embedding: Tensor, frame_mask: Tensor) -> Tensor:
        """o_v. Shapes [B, M, D], [B, M] → [B, M, d]."""
        config = self.model.config
        e_v = self.model.embed_features(frame_embedding[..., : config.feature_dim])
        frames: Tensor = self.model.converter.cross.video_in_windows(e_v, frame_mask, config.frames)
        return frames


class FrameGraph(nn.Module):
    """What follows the frame encoder: its embedding filled up, and the frame as a video of its own."""

    def __init__(self, model: Feel) -> None:
        super().__init__()
        self.frames, self.dim = FramesOf(model), embedding_dim(model)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Shape [B, F] → [B, D], and again, before a unit vector that tells how well a frame alone fits a
        query, [B, D + d].
        """
        alone = self.frames(features[:, None], torch.ones_like(features[:, :1]))[:, 0]
        embedding = _filled(features, self.dim)
        return embedding, torch.cat([embedding, F.normalize(alone, dim=-1)], -1)


class SegmentGraph(nn.Module):
    """A segment as the mean of its frames' unit vectors.

    FEEL scores a video by its best frame, which takes the query to know. The cosine of a query with this mean
    orders videos as the mean of the frames' cosines does; the moment head finds the best frames.
    """

    def __init__(self, model: Feel) -> None:
        super().__init__()
        self.frames, self.dim = FramesOf(model), embedding_dim(model)

    def forward(self, frame_embedding: Tensor, frame_mask: Tensor) -> Tensor:
        """Shapes [B, M, D], [B, M] → unit vectors [B, D]."""
        frames = F.normalize(self.frames(frame_embedding, frame_mask), dim=-1)
        return _filled(F.normalize((frames * frame_mask[..., None]).sum(1), dim=-1), self.dim)


class QueryGraph(nn.Module):
    """A query as a unit vector, which holds the query's length unless that is constant."""

    def __init__(self, model: Feel) -> None:
        super().__init__()
        self.model, self.dim = model, embedding_dim(model)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes int64 [B, L] twice → [B, D], and the direction after zeros [B, D + d]."""
        query = self.model.encode_query(input_ids, attention_mask)
        direction = F.normalize(query, dim=-1)
        length = query.norm(dim=-1, keepdim=True) * _LENGTH_SCALE
        whole = F.normalize(torch.cat([_filled(direction, self.dim - 1), length], -1), dim=-1)
        return whole, torch.cat([torch.zeros_like(whole), direction], -1)


class MomentGraph(nn.Module):
    """Start and end of a moment.

    FEEL does not learn whether a query has an answer: `rejection_logit` is 0 everywhere, even odds.
    """

    def __init__(self, model: Feel) -> None:
        super().__init__()
        self.model, self.frames = model, FramesOf(model)

    def forward(
        self, text_query: Tensor, frame_embedding: Tensor, frame_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Shapes [B, D], [B, M, D], [B, M] → [B, M] three times, 0 where masked."""
        width = self.model.config.hidden
        query = F.normalize(text_query[:, :width], dim=-1) * (text_query[:, -1:] / _LENGTH_SCALE)
        frames = self.frames(frame_embedding, frame_mask)
        start, end = self.model.moment_head(query, frames, frame_mask)
        return start * frame_mask, end * frame_mask, torch.zeros_like(start)


def _filled(x: Tensor, width: int) -> Tensor:
    """Zeros after the last axis. [..., W] → [..., width]"""
    return F.pad(x, (0, width - x.shape[-1])) if x.shape[-1] < width else x * 1.0


def graphs_of(model: Feel) -> dict[str, Graph]:
    """The graphs by file name; the model is put in evaluation mode.

    That of the frame encoder is what follows it, and reads `features`. Examples have two rows and two places
    or more: tracing takes a single one for a constant.
    """
    config, wide = model.eval().config, embedding_dim(model)
    generator = torch.Generator().manual_seed(0)

    def texts(count: int, length: int) -> tuple[Tensor, Tensor]:
        ids = torch.randint(1, model.text.vocabulary, (count, length), generator=generator)
        mask = torch.ones_like(ids)
        mask[-1, max(1, length // 2) :] = 0
        return ids, mask

    def features(count: int) -> tuple[Tensor]:
        return (F.normalize(torch.randn(count, config.feature_dim, generator=generator), dim=-1),)

    def videos(count: int, frames: int) -> tuple[Tensor, Tensor]:
        real = torch.ones(count, frames)
        real[-1, max(1, frames // 2) :] = 0
        filled = _filled(features(count * frames)[0], wide).view(count, frames, wide)
        return filled * real[..., None], real

    def moments(count: int, frames: int) -> tuple[Tensor, Tensor, Tensor]:
        query = F.normalize(torch.randn(count, config.hidden, generator=generator), dim=-1)
        query = _filled(query, wide)
        query[:, -1] = math.sqrt(config.hidden) * _LENGTH_SCALE
        return query, *videos(count, frames)

    longest, most = config.context_length, config.frames
    few, short = max(2, most // 4), max(2, longest // 4)
    rows, tokens, vectors = {0: "B"}, {0: "B", 1: "L"}, {0: "B", 1: "M"}
    found = {
        FRAME_ENCODER: Graph(
            FrameGraph(model),
            ("features",),
            ("frame_embedding", "frame_salience"),
            features(2),
            (rows,),
            (features(3),),
        ),
        SEGMENT_ENCODER: Graph(
            SegmentGraph(model),
            ("frame_embedding", "frame_mask"),
            ("segment_embedding",),
            videos(2, few),
            (vectors, vectors),
            (videos(3, most), videos(1, few + 1)),
        ),
        TEXT_ENCODER: Graph(
            QueryGraph(model),
            ("input_ids", "attention_mask"),
            ("text_embedding", "text_salience"),
            texts(2, short),
            (tokens, tokens),
            (texts(3, longest), texts(1, short + 1)),
        ),
    }
    found[MOMENT_HEAD] = Graph(
        MomentGraph(model),
        ("text_query", "frame_embedding", "frame_mask"),
        ("start_logit", "end_logit", "rejection_logit"),
        moments(2, few),
        (rows, vectors, vectors),
        # More frames than a video's features: several segments, one after the other.
        (moments(3, 2 * most + 1), moments(1, 2)),
    )
    return found
