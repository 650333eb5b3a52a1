"""BERT (Devlin et al., 2019) as the language encoder f^l, and MiniLM, which has its shape."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from model.backbones.base import TextBackbone
from model.modules import masked_mean


@dataclass(frozen=True)
class TextShape:
    """The size of a BERT-like text encoder; the defaults are MiniLM-L6."""

    vocabulary: int = 30522
    hidden: int = 384
    layers: int = 6
    heads: int = 12
    intermediate: int = 1536
    positions: int = 512


class TextLayer(nn.Module):
    """A post-LN Transformer layer of BERT."""

    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        h = shape.hidden
        self.heads = shape.heads
        self.qkv = nn.Linear(h, 3 * h)
        self.attention_out = nn.Linear(h, h)
        self.attention_norm = nn.LayerNorm(h, eps=1e-12)
        self.up = nn.Linear(h, shape.intermediate)
        self.down = nn.Linear(shape.intermediate, h)
        self.output_norm = nn.LayerNorm(h, eps=1e-12)

    def forward(self, x: Tensor, bias: Tensor, dropout: float = 0.0) -> Tensor:
        """Shapes x [B, L, H], bias [B, 1, 1, L] added to the attention logits → [B, L, H]."""
        b, length, h = x.shape
        q, k, v = self.qkv(x).view(b, length, 3, self.heads, h // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        y = self.attention_out(y.transpose(1, 2).reshape(b, length, h))
        x = self.attention_norm(x + F.dropout(y, dropout, self.training))
        y = self.down(F.gelu(self.up(x)))
        return self.output_norm(x + F.dropout(y, dropout, self.training))


class TextEncoder(TextBackbone):
    """A BERT encoder, mean-pooled over real tokens, as MiniLM's sentence embeddings were trained."""

    def __init__(self, shape: TextShape | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        shape = shape or TextShape()
        self.shape, self.dropout = shape, dropout
        self.width, self.vocabulary = shape.hidden, shape.vocabulary
        self.words = nn.Embedding(shape.vocabulary, shape.hidden)
        self.positions = nn.Embedding(shape.positions, shape.hidden)
        self.norm = nn.LayerNorm(shape.hidden, eps=1e-12)
        self.layers = nn.ModuleList(TextLayer(shape) for _ in range(shape.layers))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes input_ids, attention_mask int64 [B, L] → tokens [B, L, H] and their masked mean [B, H].

        Raises:
            ValueError: when the text is longer than the learned positions.
        """
        length = input_ids.shape[1]
        if not torch.jit.is_tracing() and length > self.positions.num_embeddings:
            raise ValueError(
                f"{length} tokens exceed {self.positions.num_embeddings} positions: truncate the text"
            )
        x = self.norm(self.words(input_ids) + self.positions.weight[:length])
        x = F.dropout(x, self.dropout, self.training)
        bias = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * -10000.0
        for layer in self.layers:
            x = layer(x, bias, self.dropout)
        x = x.float()
        return x, masked_mean(x, attention_mask.to(x.dtype))

    def freeze(self) -> None:
        """Freeze what a text begins with: few captions would spoil words that they do not use."""
        self.requires_grad_(True)
        self.words.requires_grad_(False)
        self.positions.requires_grad_(False)

    def load_package(self, path: Path) -> None:
        """Load BERT weights published as safetensors; segment 0 is folded into the positions.

        Raises:
            ValueError: when the file holds another network.
        """
        state = {k.removeprefix("bert."): v for k, v in load_file(path).items()}
        ours: dict[str, Tensor] = {}
        try:
            ours["words.weight"] = state["embeddings.word_embeddings.weight"]
            ours["positions.weight"] = (
                state["embeddings.position_embeddings.weight"]
                + state["embeddings.token_type_embeddings.weight"][0]
            )
            names = {"norm": "embeddings.LayerNorm"}
            for i in range(len(self.layers)):
                theirs = f"encoder.layer.{i}"
                names[f"layers.{i}.attention_out"] = f"{theirs}.attention.output.dense"
                names[f"layers.{i}.attention_norm"] = f"{theirs}.attention.output.LayerNorm"
                names[f"layers.{i}.up"] = f"{theirs}.intermediate.dense"
                names[f"layers.{i}.down"] = f"{theirs}.output.dense"
                names[f"layers.{i}.output_norm"] = f"{theirs}.output.LayerNorm"
                for kind in ("weight", "bias"):
                    parts = [state[f"{theirs}.attention.self.{p}.{kind}"] for p in ("query", "key", "value")]
                    ours[f"layers.{i}.qkv.{kind}"] = torch.cat(parts)
            ours |= {
                f"{a}.{kind}": state[f"{b}.{kind}"] for a, b in names.items() for kind in ("weight", "bias")
            }
            self.load_state_dict(ours)
        except (KeyError, RuntimeError) as error:
            raise ValueError(
                f"{path} holds other weights than this text encoder: choose the matching one"
            ) from error
