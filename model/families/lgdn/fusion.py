"""Fusion of a text with a frame's tokens: the cross-attention Transformer of LSFM (section 3.5).

Every fusion has one interface. `JointFusion` reads tokens of the joint space and compares them;
`CrossAttentionFusion` is ALBEF's: BERT layers with cross-attention, fed text features. `BlipFusion` is a
whole BERT with cross-attention in every layer, and reads ids instead of tokens.

Shapes: B pairs, L text tokens, T text-token width, P tokens a frame, H frame-token width, D joint space.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.backbones.attention import plain_attention
from model.backbones.base import Layered
from model.backbones.bert import TextLayer, TextShape
from model.families.lgdn.config import ModelConfig
from model.runtime.errors import InputError

_NEGLIGIBLE = -10000.0
_HEAD_WIDTH = 32
# Joint-space vectors have unit length; layers are made for entries of about one.
_JOINT_SCALE = 16.0
# With gradient checkpointing, pairs whose activations are in memory at once: each takes a megabyte or more.
_CHECKPOINTED_PAIRS = 256


class Fusion(Layered):
    """Decides whether a frame shows a text."""

    #: whether the first input are text tokens [B, L, T] or token ids int64 [B, L]
    reads: ClassVar[Literal["tokens", "ids"]]
    #: W, the width of what `fuse` gives
    width: int
    #: gives the two logits of a match
    head: nn.Linear

    @abstractmethod
    def fuse(self, text: Tensor, attention_mask: Tensor, frame_tokens: Tensor) -> Tensor:
        """The fused token [CLS], which other heads may read too.

        Shapes text as `reads` says, attention_mask int64 [B, L], frame_tokens [B, P, H] → [B, W].
        """

    def forward(self, text: Tensor, attention_mask: Tensor, frame_tokens: Tensor) -> Tensor:
        """Logits of "does not match" and "matches". Shapes as `fuse` → [B, 2]."""
        logits: Tensor = self.head(self.fuse(text, attention_mask, frame_tokens)).float()
        return logits

    def match_weights(self) -> Iterator[nn.Parameter]:
        """The weights that only `forward` reads, not `fuse`."""
        yield from self.head.parameters()


def match_of(logits: Tensor, score: str) -> Tensor:
    """How well each pair matches, from a fusion's logits.

    Args:
        logits: shape [B, 2].
        score: `difference`, logit₁ − logit₀, or `matched`, logit₁ alone; see `ModelConfig.match_score`.

    Returns:
        Shape [B], higher is better.
    """
    match: Tensor = logits[:, 1] if score == "matched" else logits[:, 1] - logits[:, 0]
    return match


def build_fusion(config: ModelConfig, text: TextShape, frame_width: int) -> Fusion:
    """The fusion that the settings name."""
    if config.fusion == "joint":
        return JointFusion(config)
    if config.fusion == "blip":
        return BlipFusion(config, text, frame_width)
    return CrossAttentionFusion(config, text, frame_width)


def _attend(query: Tensor, key: Tensor, value: Tensor, heads: int, bias: Tensor | None) -> Tensor:
    """Multi-head attention. Shapes [B, L, H], [B, P, H], [B, P, H], bias [B, 1, 1, P] → [B, L, H]."""
    b, _, h = query.shape
    q, k, v = (x.view(b, x.shape[1], heads, h // heads).transpose(1, 2) for x in (query, key, value))
    return plain_attention(q, k, v, bias).transpose(1, 2).reshape(query.shape)


class ComparingLayer(nn.Module):
    """A pre-LN Transformer layer whose cross-attention also compares.

    It adds what a word attends to in the frame, and the product of the two. A match is their agreement, which
    a product expresses at once, so that a few thousand captions are enough; a sum would have to learn it.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = max(1, width // _HEAD_WIDTH), dropout
        self.self_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.self_out = nn.Linear(width, width)
        self.cross_norm = nn.LayerNorm(width)
        self.cross_query = nn.Linear(width, width)
        self.cross_kv = nn.Linear(width, 2 * width)
        self.found_out = nn.Linear(width, width)
        self.compared_out = nn.Linear(width, width)
        self.feed_norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: Tensor, bias: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Shapes x [B, L, W], bias [B, 1, 1, L], the frame's key and value [B, P, W] → [B, L, W]."""
        q, k, v = self.qkv(self.self_norm(x)).chunk(3, -1)
        x = x + self._drop(self.self_out(_attend(q, k, v, self.heads, bias)))
        word = self.cross_norm(x)
        attended = _attend(self.cross_query(word), key, value, self.heads, None)
        x = x + self._drop(self.found_out(attended) + self.compared_out(word * attended))
        return x + self._drop(self.down(F.gelu(self.up(self.feed_norm(x)))))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


@dataclass(frozen=True)
class FrameReading:
    """Frames as `JointFusion` reads them: tokens [B, P, D], and keys and values [B, P, W] of each layer."""

    tokens: Tensor
    keys: list[Tensor]
    values: list[Tensor]


class JointFusion(Fusion):
    """Fusion over tokens that both towers project into the joint space; token 0 is the embedding itself.

    It starts as late interaction: each word attends to the frame's tokens, and its agreement with what it
    attended to is averaged. Layers with cross-attention correct that score, at first by zero, so that a small
    set of captions is enough. Both inputs are normalised here, so merged and quantised tokens are as good as
    exact ones.
    """

    reads = "tokens"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim, width = config.dim, config.fusion_dim
        self.width = width
        self.similarity, self.checkpointing = config.fusion_similarity, config.gradient_checkpointing
        self.sharpness = nn.Parameter(torch.tensor(10.0))
        self.word_weight = nn.Parameter(torch.tensor(10.0))
        self.whole_weight = nn.Parameter(torch.tensor(10.0))
        self.bias = nn.Parameter(torch.tensor(-2.0))
        self.gate = nn.Linear(dim, 1)
        self.word_in = nn.Linear(dim, width)
        self.found_in = nn.Linear(dim, width)
        self.compared_in = nn.Linear(dim, width)
        self.frame_in = nn.Linear(dim, width)
        self.layers = nn.ModuleList(
            ComparingLayer(width, config.dropout) for _ in range(config.fusion_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 2)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.zeros_(self.head.weight)

    @torch.no_grad()
    def weigh_similarity(self, weight: float) -> None:
        """Set how much the similarity of whole text and whole frame counts within the match.

        Layers that learned from one small set are misled by other footage; the similarity is so less.

        Raises:
            InputError: the fusion was trained without the similarity.
        """
        if not self.similarity:
            raise InputError(
                "this match was trained with model.fusion_similarity=false: it has no such weight"
            )
        self.whole_weight.fill_(weight)

    def forward(self, text: Tensor, attention_mask: Tensor, frame_tokens: Tensor) -> Tensor:
        """Shapes [B, L, D], int64 [B, L], [B, P, D] → [B, 2]."""
        return self._in_parts(self._match, text, attention_mask, frame_tokens)

    def fuse(self, text: Tensor, attention_mask: Tensor, frame_tokens: Tensor) -> Tensor:
        """Shapes [B, L, D], int64 [B, L], [B, P, D] → [B, W]."""
        return self._in_parts(self._fuse, text, attention_mask, frame_tokens)

    def match_weights(self) -> Iterator[nn.Parameter]:
        """Those of late interaction, and of the head."""
        yield from (self.word_weight, self.whole_weight, self.bias)
        yield from (*self.gate.parameters(), *self.head.parameters())

    def _in_parts(self, compute: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """Compute some pairs at a time with gradient checkpointing, or else all at once."""
        if not (self.checkpointing and self.training and torch.is_grad_enabled()):
            return compute(*inputs)
        split = (torch.split(x, _CHECKPOINTED_PAIRS) for x in inputs)
        parts = [checkpoint(compute, *part, use_reentrant=False) for part in zip(*split, strict=True)]
        return torch.cat(parts)

    def _match(self, text: Tensor, attention_mask: Tensor, frame_tokens: Tensor) -> Tensor:
        return self.judge(text, attention_mask, self.read(frame_tokens))

    def _fuse(self, text: Tensor, attention_mask: Tensor, frame_tokens: Tensor) -> Tensor:
        return self._compare(text, attention_mask, self.read(frame_tokens))[0]

    def read(self, frame_tokens: Tensor) -> FrameReading:
        """The part that depends on the frame alone, computed once for many texts. Shape [B, P, D]."""
        with torch.autocast(frame_tokens.device.type, enabled=False):
            frame = frame_tokens.float()
            if not self.training:  # in training the towers have just done so
                frame = F.normalize(frame, dim=-1)
        # Scaling the weight is cheaper than scaling the many tokens.
        keys = F.linear(frame, self.frame_in.weight * _JOINT_SCALE, self.frame_in.bias)
        pairs = [cast(ComparingLayer, layer).cross_kv(keys).chunk(2, -1) for layer in self.layers]
        return FrameReading(frame, [key for key, _ in pairs], [value for _, value in pairs])

    def judge(self, text: Tensor, attention_mask: Tensor, frame: FrameReading) -> Tensor:
        """Logits of texts with frames from `read`. Shapes [B, L, D], int64 [B, L] → [B, 2]."""
        fused, agreement = self._compare(text, attention_mask, frame)
        logits: Tensor = self.head(fused).float()
        half = agreement / 2
        return logits + torch.stack([-half, half], 1)

    def _compare(self, text: Tensor, attention_mask: Tensor, frame: FrameReading) -> tuple[Tensor, Tensor]:
        """The fused [CLS], and the score of late interaction. → [B, W], [B]"""
        with torch.autocast(text.device.type, enabled=False):
            words, tokens = text.float(), frame.tokens
            if not self.training:
                words = F.normalize(words, dim=-1)
            padding = (1.0 - attention_mask.float()) * _NEGLIGIBLE
            similarity = words @ tokens.transpose(1, 2)
            attended = F.normalize((similarity * self.sharpness).softmax(-1) @ tokens, dim=-1)
            compared = words * attended
            weight = self.gate(words)[..., 0] + padding
            if not self.similarity:  # token 0 is the whole text
                weight = weight + F.pad(weight.new_tensor([_NEGLIGIBLE]), (0, weight.shape[1] - 1))
            agreement = self.word_weight * (weight.softmax(-1) * compared.sum(-1)).sum(-1) + self.bias
            if self.similarity:
                agreement = agreement + self.whole_weight * similarity[:, 0, 0]
        x = self.word_in(words * _JOINT_SCALE) + self.found_in(attended * _JOINT_SCALE)
        x = x + self.compared_in(compared * _JOINT_SCALE**2)
        bias = padding[:, None, None, :]
        for layer, key, value in zip(self.layers, frame.keys, frame.values, strict=True):
            x = layer(x, bias, key, value)
        return self.norm(x[:, 0]), agreement


class CrossLayer(TextLayer):
    """A post-LN BERT layer with cross-attention between its self-attention and its feed-forward part."""

    def __init__(self, shape: TextShape, frame_width: int) -> None:
        super().__init__(shape)
        self.cross_query = nn.Linear(shape.hidden, shape.hidden)
        self.cross_kv = nn.Linear(frame_width, 2 * shape.hidden)
        self.cross_out = nn.Linear(shape.hidden, shape.hidden)
        self.cross_norm = nn.LayerNorm(shape.hidden, eps=shape.eps)

    def fuse(self, x: Tensor, bias: Tensor, frame: Tensor, dropout: float) -> Tensor:
        """Shapes x [B, L, T], bias [B, 1, 1, L], frame [B, P, H] → [B, L, T]."""
        x = self.attend(x, bias, dropout)
        key, value = self.cross_kv(frame).chunk(2, -1)
        y = self.cross_out(_attend(self.cross_query(x), key, value, self.heads, None))
        return self.feed(self.cross_norm(x + F.dropout(y, dropout, self.training)), dropout)


class CrossAttentionFusion(Fusion):
    """ALBEF's fusion: the text encoder's tokens pass through further layers that also read the frame.

    Args:
        config: its settings.
        shape: the sizes of a layer.
        frame_width: H.
        count: number of layers; None: as the settings say.
    """

    reads: ClassVar[Literal["tokens", "ids"]] = "tokens"

    def __init__(
        self, config: ModelConfig, shape: TextShape, frame_width: int, count: int | None = None
    ) -> None:
        super().__init__()
        count = count or config.fusion_from_text or config.fusion_layers
        self.dropout, self.checkpointing = config.dropout, config.gradient_checkpointing
        self.width = shape.hidden
        self.layers = nn.ModuleList(CrossLayer(shape, frame_width) for _ in range(count))
        self.head = nn.Linear(shape.hidden, 2)
        for layer in self._layers():
            for module in (layer.cross_query, layer.cross_kv, layer.cross_out):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def _layers(self) -> list[CrossLayer]:
        return cast(list[CrossLayer], list(self.layers))

    def start_from(self, layers: nn.ModuleList) -> None:
        """Load the text encoder's top layers; cross-attention stays as it is.

        Raises:
            ValueError: there are more or fewer layers than here.
        """
        if len(layers) != len(self.layers):
            raise ValueError(f"{len(layers)} text layers for {len(self.layers)} fusion layers: give as many")
        for layer, text_layer in zip(self.layers, layers, strict=True):
            layer.load_state_dict(text_layer.state_dict(), strict=False)

    def fuse(self, text: Tensor, attention_mask: Tensor, frame_tokens: Tensor) -> Tensor:
        """Shapes [B, L, T], int64 [B, L], [B, P, H] → [B, W], W = T."""
        bias = (1.0 - attention_mask[:, None, None, :].float()) * _NEGLIGIBLE
        x = text
        for layer in self._layers():
            if self.checkpointing and self.training and torch.is_grad_enabled():
                x = checkpoint(layer.fuse, x, bias, frame_tokens, self.dropout, use_reentrant=False)
            else:
                x = layer.fuse(x, bias, frame_tokens, self.dropout)
        return x[:, 0]


class BlipFusion(CrossAttentionFusion):
    """BLIP's fusion (Li et al., 2022): a BERT from token ids on, whose every layer also reads the frame.

    A text begins with a token of its own there, [ENC] in place of [CLS]; see `ModelConfig.fusion_start`.
    """

    reads = "ids"
    below = frozenset({"words", "positions", "norm"})

    def __init__(self, config: ModelConfig, shape: TextShape, frame_width: int) -> None:
        super().__init__(config, shape, frame_width, shape.layers)
        self.start = shape.vocabulary - 1 if config.fusion_start < 0 else config.fusion_start
        if self.start >= shape.vocabulary:
            raise InputError(
                f"model.fusion_start={self.start} is no id of the text encoder's {shape.vocabulary}: lower it"
            )
        self.words = nn.Embedding(shape.vocabulary, shape.hidden)
        self.positions = nn.Embedding(shape.positions, shape.hidden)
        self.norm = nn.LayerNorm(shape.hidden, eps=shape.eps)

    def fuse(self, text: Tensor, attention_mask: Tensor, frame_tokens: Tensor) -> Tensor:
        """Shapes int64 [B, L], int64 [B, L], [B, P, H] → [B, W], W = T."""
        ids = torch.cat([torch.full_like(text[:, :1], self.start), text[:, 1:]], 1)
        x = self.norm(self.words(ids) + self.positions.weight[: ids.shape[1]])
        x = F.dropout(x, self.dropout, self.training)
        return super().fuse(x, attention_mask, frame_tokens)
