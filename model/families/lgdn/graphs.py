"""The modules that become the ONNX graphs of a bundle, and the inputs to trace and check them with.

Shapes: B batch or pairs, N frames, P tokens a frame, L text tokens, H width of frame tokens, T of text
tokens, D joint space, S salience.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.families.base import Graph
from model.families.lgdn.fusion import Fusion, match_of
from model.families.lgdn.inference import InferenceModel
from model.families.lgdn.salience import frame_salience, text_salience
from model.runtime.bundle.graphs import FRAME_ENCODER, MATCHER, SEGMENT_ENCODER, TEXT_ENCODER


class FrameGraph(nn.Module):
    """`frame_encoder.onnx`: the frozen stages, run once, then the towers that the strategy reads."""

    def __init__(self, inference: InferenceModel) -> None:
        super().__init__()
        self.inference, self.towers, self.other = inference, inference.towers, inference.other

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Shape uint8 [B, h, w, 3] → frame_embedding [B, D], its salience [B, S], frame_tokens [B, P, H]."""
        prepared = self.towers.image.prepare(frames)
        features = self.towers.encode_frames(prepared)
        others = None if self.other is None else self.other.encode_frames(prepared).embedding
        salience = frame_salience(
            self.inference.strategy, *self.inference.online_and_momentum(features.embedding, others)
        )
        return features.temporal_input, salience, features.tokens


class SegmentGraph(nn.Module):
    """`segment_encoder.onnx`."""

    def __init__(self, inference: InferenceModel) -> None:
        super().__init__()
        self.temporal = inference.towers.temporal

    def forward(self, frame_embedding: Tensor, frame_mask: Tensor) -> Tensor:
        """Shapes [B, N, D], float [B, N] → segment_embedding [B, D]."""
        return F.normalize(self.temporal(frame_embedding, frame_mask), dim=-1)


class TextGraph(nn.Module):
    """`text_encoder.onnx`."""

    def __init__(self, inference: InferenceModel) -> None:
        super().__init__()
        self.inference, self.towers, self.other = inference, inference.towers, inference.other

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Shapes int64 [B, L] → text_embedding [B, D], text_salience [B, S], text_tokens [B, L, T]."""
        features = self.towers.encode_text(input_ids, attention_mask)
        others = None if self.other is None else self.other.encode_text(input_ids, attention_mask).embedding
        salience = text_salience(
            self.inference.strategy, *self.inference.online_and_momentum(features.embedding, others)
        )
        return features.embedding, salience, features.tokens


class MatcherGraph(nn.Module):
    """`matcher.onnx`."""

    def __init__(self, fusion: Fusion, score: str) -> None:
        super().__init__()
        self.fusion, self.score = fusion, score

    def forward(self, text: Tensor, attention_mask: Tensor, frame_tokens: Tensor) -> Tensor:
        """Shapes text tokens [B, L, T] or ids int64 [B, L], int64 [B, L], [B, P, H] → match_logit [B]."""
        return match_of(self.fusion(text, attention_mask, frame_tokens), self.score)


def graphs_of(inference: InferenceModel, *, matcher: bool = True) -> dict[str, Graph]:
    """The graphs by file name, with examples of two rows: tracing takes a single row for a constant."""
    graphs = {
        FRAME_ENCODER: _frame_graph(inference),
        SEGMENT_ENCODER: _segment_graph(inference),
        TEXT_ENCODER: _text_graph(inference),
    }
    if matcher:
        graphs[MATCHER] = _matcher_graph(inference)
    return graphs


def tokens_per_frame(inference: InferenceModel) -> int:
    """P, the tokens that the towers give of a frame."""
    with torch.no_grad():
        return int(inference.towers.encode_frames(_random_frames(inference, 1)).tokens.shape[1])


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _random_frames(inference: InferenceModel, count: int) -> Tensor:
    side = inference.model.config.image_size
    return torch.randint(0, 256, (count, side, side, 3), generator=_generator(), dtype=torch.uint8)


def _random_ids(inference: InferenceModel, count: int, length: int) -> tuple[Tensor, Tensor]:
    """Token ids and masks; the last text is the shorter one."""
    ids = torch.randint(1, inference.towers.text.vocabulary, (count, length), generator=_generator())
    mask = torch.ones_like(ids)
    mask[-1, max(1, length // 2) :] = 0
    return ids, mask


def _frame_graph(inference: InferenceModel) -> Graph:
    return Graph(
        FrameGraph(inference),
        ("frames",),
        ("frame_embedding", "frame_salience", "frame_tokens"),
        (_random_frames(inference, 2),),
        ({0: "B"},),
        ((_random_frames(inference, 3),),),
    )


def _segment_graph(inference: InferenceModel) -> Graph:
    config = inference.model.config

    def inputs(count: int, frames: int) -> tuple[Tensor, Tensor]:
        embeddings = torch.randn(count, frames, config.dim, generator=_generator())
        mask = torch.ones(count, frames)
        mask[-1, max(1, frames // 2) :] = 0
        return F.normalize(embeddings, dim=-1), mask

    return Graph(
        SegmentGraph(inference),
        ("frame_embedding", "frame_mask"),
        ("segment_embedding",),
        inputs(2, config.frames),
        ({0: "B", 1: "N"}, {0: "B", 1: "N"}),
        (inputs(3, max(1, config.frames - 1)),),
    )


def _text_graph(inference: InferenceModel) -> Graph:
    longest = inference.model.config.context_length
    return Graph(
        TextGraph(inference),
        ("input_ids", "attention_mask"),
        ("text_embedding", "text_salience", "text_tokens"),
        _random_ids(inference, 2, min(12, longest)),
        ({0: "B", 1: "L"}, {0: "B", 1: "L"}),
        (_random_ids(inference, 3, 4), _random_ids(inference, 3, longest)),
    )


def _matcher_graph(inference: InferenceModel) -> Graph:
    fusion = inference.fusion
    with torch.no_grad():
        frames = inference.towers.encode_frames(_random_frames(inference, 3)).tokens

    def inputs(count: int, length: int, tokens: int) -> tuple[Tensor, Tensor, Tensor]:
        ids, mask = _random_ids(inference, count, length)
        with torch.no_grad():
            text = ids if fusion.reads == "ids" else inference.towers.encode_text(ids, mask).tokens
        # Fewer tokens, as after merging.
        return text, mask, frames[:count, :tokens].contiguous()

    longest, tokens = inference.model.config.context_length, frames.shape[1]
    return Graph(
        MatcherGraph(fusion, inference.model.config.match_score),
        ("input_ids" if fusion.reads == "ids" else "text_tokens", "attention_mask", "frame_tokens"),
        ("match_logit",),
        inputs(2, min(12, longest), tokens),
        ({0: "B", 1: "L"}, {0: "B", 1: "L"}, {0: "B", 1: "P"}),
        (inputs(3, 4, max(1, tokens // 2)), inputs(3, longest, 2), inputs(1, 5, tokens)),
    )
