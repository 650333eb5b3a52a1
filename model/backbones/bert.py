"""BERT (Devlin et al., 2019) as the language encoder f^l, and what has its shape: MiniLM and RoBERTa."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.backbones.attention import attention
from model.backbones.base import TextBackbone
from model.backbones.huggingface import read_config, read_weights, size_of
from model.backbones.pooling import masked_mean
from model.backbones.shapes import check_sizes
from model.runtime.errors import InputError


@dataclass(frozen=True)
class TextShape:
    """The size of a BERT; the defaults are MiniLM-L6."""

    vocabulary: int = 30522
    hidden: int = 384
    layers: int = 6
    heads: int = 12
    intermediate: int = 1536
    positions: int = 512
    eps: float = 1e-12

    def __post_init__(self) -> None:
        check_sizes(self, "text encoder")

    @classmethod
    def read(cls, folder: Path, kind: str = "bert") -> TextShape:
        """The sizes in a folder's `config.json`; `kind` is the network that it must hold: bert or roberta.

        Raises:
            InputError: the file is missing, or describes another network.
        """
        config, path = read_config(folder, kind), folder / "config.json"
        if config.get("position_embedding_type", "absolute") != "absolute":
            raise InputError(f"{path}: position_embedding_type must be absolute for this encoder")
        positions = size_of(config, "max_position_embeddings", path)
        if kind == "roberta":
            # The first token has the position after the padding token's id.
            positions -= 1 + size_of(config, "pad_token_id", path)
        return cls(
            vocabulary=size_of(config, "vocab_size", path),
            hidden=size_of(config, "hidden_size", path),
            layers=size_of(config, "num_hidden_layers", path),
            heads=size_of(config, "num_attention_heads", path),
            intermediate=size_of(config, "intermediate_size", path),
            positions=positions,
            eps=float(config.get("layer_norm_eps", 1e-12)),
        )


class TextLayer(nn.Module):
    """A post-LN Transformer layer of BERT."""

    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        h = shape.hidden
        self.heads = shape.heads
        self.qkv = nn.Linear(h, 3 * h)
        self.attention_out = nn.Linear(h, h)
        self.attention_norm = nn.LayerNorm(h, eps=shape.eps)
        self.up = nn.Linear(h, shape.intermediate)
        self.down = nn.Linear(shape.intermediate, h)
        self.output_norm = nn.LayerNorm(h, eps=shape.eps)

    def forward(self, x: Tensor, bias: Tensor, dropout: float = 0.0) -> Tensor:
        """Shapes x [B, L, H], bias [B, 1, 1, L] added to the attention logits → [B, L, H]."""
        return self.feed(self.attend(x, bias, dropout), dropout)

    def attend(self, x: Tensor, bias: Tensor, dropout: float) -> Tensor:
        """Self-attention, the first half of the layer. Shapes as `forward`."""
        b, length, h = x.shape
        q, k, v = self.qkv(x).view(b, length, 3, self.heads, h // self.heads).permute(2, 0, 3, 1, 4)
        y = attention(q, k, v, bias)
        y = self.attention_out(y.transpose(1, 2).reshape(b, length, h))
        attended: Tensor = self.attention_norm(x + F.dropout(y, dropout, self.training))
        return attended

    def feed(self, x: Tensor, dropout: float) -> Tensor:
        """The feed-forward network, the second half. Shape [B, L, H] → the same."""
        y = self.down(F.gelu(self.up(x)))
        out: Tensor = self.output_norm(x + F.dropout(y, dropout, self.training))
        return out


class TextEncoder(TextBackbone):
    """A BERT encoder.

    RoBERTa computes the same for texts that are padded at their end, once its weights are loaded: its first
    position rows, which no token of such a text has, are left out.

    Args:
        shape: its sizes.
        dropout: after the embeddings and in every layer.
        kind: the network whose published weights `load` takes, bert or roberta.
        pooling: "mean" of the real tokens, as MiniLM's sentence embeddings were trained, or "cls".
        hand_over: top layers that are left out, since the fusion starts from them.
        train_embeddings: train the embeddings of words and positions too.
        gradient_checkpointing: layers compute their activations again in the backward pass.
    """

    below = frozenset({"words", "positions", "norm"})

    def __init__(
        self,
        shape: TextShape | None = None,
        dropout: float = 0.0,
        *,
        kind: str = "bert",
        pooling: str = "mean",
        hand_over: int = 0,
        train_embeddings: bool = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        shape = shape or TextShape()
        if not 0 <= hand_over < shape.layers:
            raise InputError(
                f"model.fusion_from_text={hand_over} must be 0 to {shape.layers - 1}: "
                "a layer must stay in the text encoder"
            )
        self.kind, self.pooling, self.train_embeddings = kind, pooling, train_embeddings
        self.gradient_checkpointing = gradient_checkpointing
        self.shape, self.dropout = shape, dropout
        self.width, self.vocabulary = shape.hidden, shape.vocabulary
        self.words = nn.Embedding(shape.vocabulary, shape.hidden)
        self.positions = nn.Embedding(shape.positions, shape.hidden)
        self.norm = nn.LayerNorm(shape.hidden, eps=shape.eps)
        self.layers = nn.ModuleList(TextLayer(shape) for _ in range(shape.layers - hand_over))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes input_ids, attention_mask int64 [B, L] → tokens [B, L, H] and their pooling [B, H].

        Raises:
            ValueError: the text is longer than the learned positions.
        """
        length = input_ids.shape[1]
        if not torch.compiler.is_compiling() and length > self.positions.num_embeddings:
            raise ValueError(
                f"{length} tokens exceed {self.positions.num_embeddings} positions: truncate the text"
            )
        x = self.norm(self.words(input_ids) + self.positions.weight[:length])
        x = F.dropout(x, self.dropout, self.training)
        bias = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * -10000.0
        recompute = self.gradient_checkpointing and self.training and torch.is_grad_enabled()
        for layer in self.layers:
            arguments = (x, bias, self.dropout)
            x = checkpoint(layer, *arguments, use_reentrant=False) if recompute else layer(*arguments)
        x = x.float()
        return x, x[:, 0] if self.pooling == "cls" else masked_mean(x, attention_mask.to(x.dtype))

    def freeze(self) -> None:
        """Train all but, by default, the embeddings: a few captions would spoil the words that they lack."""
        self.requires_grad_(True)
        self.words.requires_grad_(self.train_embeddings)
        self.positions.requires_grad_(self.train_embeddings)

    def load(self, source: Path) -> nn.ModuleList:
        """Load published weights from a folder saved by transformers, or from one file of such weights.

        Segment 0 is folded into the positions.

        Returns:
            the top layers that this encoder leaves out, lowest first.

        Raises:
            InputError: `source` holds another network, or is damaged.
        """
        state = read_weights(source, f"{self.kind}.")
        count = len(self.layers)
        try:
            positions = state["embeddings.position_embeddings.weight"]
            if self.kind == "roberta":
                positions = positions[max(0, len(positions) - self.shape.positions) :]
            weights = {
                "words.weight": state["embeddings.word_embeddings.weight"],
                "positions.weight": positions + state["embeddings.token_type_embeddings.weight"][0],
                "norm.weight": state["embeddings.LayerNorm.weight"],
                "norm.bias": state["embeddings.LayerNorm.bias"],
            }
            for i in range(count):
                weights |= {f"layers.{i}.{name}": tensor for name, tensor in layer_state(state, i).items()}
            self.load_state_dict(weights)
            top = nn.ModuleList(TextLayer(self.shape) for _ in range(count, self.shape.layers))
            for i, layer in enumerate(top, count):
                layer.load_state_dict(layer_state(state, i))
        except (KeyError, RuntimeError) as error:
            raise InputError(
                f"{source} holds other weights than this text encoder: choose the matching one"
            ) from error
        return top


def layer_state(state: Mapping[str, Tensor], i: int) -> dict[str, Tensor]:
    """Layer `i` of published weights, by the names of `TextLayer`."""
    prefix = f"encoder.layer.{i}"
    names = {
        "attention_out": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
        "up": "intermediate.dense",
        "down": "output.dense",
        "output_norm": "output.LayerNorm",
    }
    out = {
        f"{name}.{kind}": state[f"{prefix}.{published}.{kind}"]
        for name, published in names.items()
        for kind in ("weight", "bias")
    }
    for kind in ("weight", "bias"):
        parts = [state[f"{prefix}.attention.self.{p}.{kind}"] for p in ("query", "key", "value")]
        out[f"qkv.{kind}"] = torch.cat(parts)
    return out
