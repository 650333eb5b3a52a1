"""What becomes the ONNX graphs of a bundle, and the inputs to trace and check them with.

Shapes: B batch or pairs, N frames, P tokens a frame, L text tokens, H width of frame tokens, T of text
tokens, D joint space, S salience.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.families.base import Graph
from model.families.lgdn.fusion import Fusion
from model.families.lgdn.inference import Chosen
from model.families.lgdn.salience import frame_salience, text_salience

FRAME, SEGMENT, TEXT = "frame_encoder.onnx", "segment_encoder.onnx", "text_encoder.onnx"
MATCHER = "matcher.onnx"


class FrameGraph(nn.Module):
    """`frame_encoder.onnx`: the frozen stages once, then each twin that the strategy reads."""

    def __init__(self, chosen: Chosen) -> None:
        super().__init__()
        self.chosen, self.towers, self.other = chosen, chosen.towers, chosen.other

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """uint8 [B, h, w, 3] → frame_embedding [B, D], frame_salience [B, S], frame_tokens [B, P, H]."""
        prepared = self.towers.image.prepare(frames)
        features = self.towers.encode_frames(prepared)
        others = None if self.other is None else self.other.encode_frames(prepared).embedding
        salience = frame_salience(self.chosen.strategy, *self.chosen.twins(features.embedding, others))
        return features.embedding, salience, features.tokens


class SegmentGraph(nn.Module):
    """`segment_encoder.onnx`."""

    def __init__(self, chosen: Chosen) -> None:
        super().__init__()
        self.temporal = chosen.towers.temporal

    def forward(self, frame_embedding: Tensor, frame_mask: Tensor) -> Tensor:
        """Shapes [B, N, D], float [B, N] → segment_embedding [B, D]."""
        return F.normalize(self.temporal(frame_embedding, frame_mask), dim=-1)


class TextGraph(nn.Module):
    """`text_encoder.onnx`."""

    def __init__(self, chosen: Chosen) -> None:
        super().__init__()
        self.chosen, self.towers, self.other = chosen, chosen.towers, chosen.other

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Shapes int64 [B, L] → text_embedding [B, D], text_salience [B, S], text_tokens [B, L, T]."""
        features = self.towers.encode_text(input_ids, attention_mask)
        others = None if self.other is None else self.other.encode_text(input_ids, attention_mask).embedding
        salience = text_salience(self.chosen.strategy, *self.chosen.twins(features.embedding, others))
        return features.embedding, salience, features.tokens


class MatcherGraph(nn.Module):
    """`matcher.onnx`."""

    def __init__(self, fusion: Fusion) -> None:
        super().__init__()
        self.fusion = fusion

    def forward(self, text: Tensor, attention_mask: Tensor, frame_tokens: Tensor) -> Tensor:
        """Text tokens [B, L, T] or ids int64 [B, L], int64 [B, L], [B, P, H] → match_logit [B]."""
        logits: Tensor = self.fusion(text, attention_mask, frame_tokens)
        return logits[:, 1] - logits[:, 0]


def graphs_of(chosen: Chosen, *, matcher: bool = True) -> dict[str, Graph]:
    """The graphs by file name, with examples of two rows: one row would be taken for a constant."""
    graphs = {FRAME: _frame_graph(chosen), SEGMENT: _segment_graph(chosen), TEXT: _text_graph(chosen)}
    if matcher:
        graphs[MATCHER] = _matcher_graph(chosen)
    return graphs


def tokens_per_frame(chosen: Chosen) -> int:
    """P."""
    with torch.no_grad():
        return int(chosen.towers.encode_frames(_random_frames(chosen, 1)).tokens.shape[1])


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _random_frames(chosen: Chosen, count: int) -> Tensor:
    side = chosen.model.config.image_size
    return torch.randint(0, 256, (count, side, side, 3), generator=_generator(), dtype=torch.uint8)


def _random_ids(chosen: Chosen, count: int, length: int) -> tuple[Tensor, Tensor]:
    """Token ids and masks; the last text is the shorter one."""
    ids = torch.randint(1, chosen.towers.text.vocabulary, (count, length), generator=_generator())
    mask = torch.ones_like(ids)
    mask[-1, max(1, length // 2) :] = 0
    return ids, mask


def _frame_graph(chosen: Chosen) -> Graph:
    return Graph(
        FrameGraph(chosen),
        ("frames",),
        ("frame_embedding", "frame_salience", "frame_tokens"),
        (_random_frames(chosen, 2),),
        ({0: "B"},),
        ((_random_frames(chosen, 3),),),
    )


def _segment_graph(chosen: Chosen) -> Graph:
    config = chosen.model.config

    def inputs(count: int, frames: int) -> tuple[Tensor, Tensor]:
        embeddings = torch.randn(count, frames, config.dim, generator=_generator())
        mask = torch.ones(count, frames)
        mask[-1, max(1, frames // 2) :] = 0
        return F.normalize(embeddings, dim=-1), mask

    return Graph(
        SegmentGraph(chosen),
        ("frame_embedding", "frame_mask"),
        ("segment_embedding",),
        inputs(2, config.frames),
        ({0: "B", 1: "N"}, {0: "B", 1: "N"}),
        (inputs(3, max(1, config.frames - 1)),),
    )


def _text_graph(chosen: Chosen) -> Graph:
    longest = chosen.model.config.context_length
    return Graph(
        TextGraph(chosen),
        ("input_ids", "attention_mask"),
        ("text_embedding", "text_salience", "text_tokens"),
        _random_ids(chosen, 2, min(12, longest)),
        ({0: "B", 1: "L"}, {0: "B", 1: "L"}),
        (_random_ids(chosen, 3, 4), _random_ids(chosen, 3, longest)),
    )


def _matcher_graph(chosen: Chosen) -> Graph:
    fusion = chosen.fusion
    with torch.no_grad():
        frames = chosen.towers.encode_frames(_random_frames(chosen, 3)).tokens

    def inputs(count: int, length: int, tokens: int) -> tuple[Tensor, Tensor, Tensor]:
        ids, mask = _random_ids(chosen, count, length)
        with torch.no_grad():
            text = ids if fusion.reads == "ids" else chosen.towers.encode_text(ids, mask).tokens
        # Fewer tokens, as after merging.
        return text, mask, frames[:count, :tokens].contiguous()

    longest, tokens = chosen.model.config.context_length, frames.shape[1]
    return Graph(
        MatcherGraph(fusion),
        ("input_ids" if fusion.reads == "ids" else "text_tokens", "attention_mask", "frame_tokens"),
        ("match_logit",),
        inputs(2, min(12, longest), tokens),
        ({0: "B", 1: "L"}, {0: "B", 1: "L"}, {0: "B", 1: "P"}),
        (inputs(3, 4, max(1, tokens // 2)), inputs(3, longest, 2), inputs(1, 5, tokens)),
    )
