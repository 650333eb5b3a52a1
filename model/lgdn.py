"""LGDN: the two towers, their momentum twins and the memory banks (section 3.1 and 3.2 of the paper).

Frame-level contrast (MFCL), the proposal of salient frames (SFP) and matching (LSFM) will read the same
towers: frames stay apart from their segment, and both encoders return what their tokens are made of.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.backbones import build_image, build_text
from model.config import ModelConfig
from model.losses import Negatives
from model.modules import TemporalLayer

# Softer than the classifier was trained: a scene is several things.
CLASS_SOFTNESS = 2.0
# Frames a pass of the backbone: on a CPU larger ones leave its caches, which costs half the speed.
_CHUNK = 32


@dataclass(frozen=True)
class Batch:
    """One training batch. Frames of all videos are packed, as videos have different numbers of them.

    Shapes: maps [F, C, h', w'] (outputs of the frozen stages), slots int64 [F] (row * N + position),
    frame_mask [B, N], input_ids and attention_mask int64 [B, L], video_ids int64 [B], teacher [F, C] or None.
    """

    maps: Tensor
    slots: Tensor
    frame_mask: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    video_ids: Tensor
    teacher: Tensor | None = None


class Towers(nn.Module):
    """Frame encoder f^e, temporal module T and language encoder f^l of eq. 1."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.image = build_image(config)
        self.text = build_text(config)
        self.frame_projection = nn.Linear(self.image.width, config.dim)
        self.text_projection = nn.Linear(self.text.width, config.dim)
        self.temporal = TemporalLayer(config.dim, config.frames)
        self.classifier = nn.Linear(self.image.width, config.classes) if config.classes else None
        self.class_projection = nn.Linear(config.classes, config.dim, bias=False) if config.classes else None
        if self.class_projection is not None:
            nn.init.zeros_(self.class_projection.weight)

    def frozen_maps(self, frames: Tensor) -> Tensor:
        """Outputs of the frozen stages. Shape uint8 [B, h, w, 3] → [B, C, h', w']."""
        return self.image.prepare(frames)

    def encode_maps(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Frame embeddings f^e from the frozen stages' outputs.

        Shape [B, C, h', w'] → normalised embeddings [B, D] and the pooled features [B, C].
        """
        pooled = F.dropout(self.image(maps)[0], self.config.dropout, self.training)
        with torch.autocast(pooled.device.type, enabled=False):
            return self.project_frames(pooled), pooled

    def project_frames(self, pooled: Tensor) -> Tensor:
        """A linear projection, plus the names of the classes that a frame shows by their likelihood.

        Captions teach the first; the second carries words that no caption of a small set has.
        Shape [B, C] → normalised [B, D].
        """
        x = self.frame_projection(pooled)
        if self.classifier is not None and self.class_projection is not None:
            x = x + self.class_projection(torch.softmax(self.classifier(pooled) / CLASS_SOFTNESS, -1))
        return F.normalize(x, dim=-1)

    def frame_tokens(self, cells: Tensor) -> Tensor:
        """The final map's cells in the joint space, classes left out. Shape [B, P, C] → [B, P, D]."""
        return self.frame_projection(cells)

    def encode_segment(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Segment embedding f^v, eq. 1. Shapes frames [B, N, D], mask [B, N] → normalised [B, D]."""
        return F.normalize(self.temporal(frames, mask), dim=-1)

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Text embedding f^l. Shapes int64 [B, L] → normalised [B, D] and tokens [B, L, H]."""
        tokens, pooled = self.text(input_ids, attention_mask)
        with torch.autocast(tokens.device.type, enabled=False):
            return F.normalize(self.text_projection(pooled), dim=-1), tokens

    def encode_texts(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """As `encode_text` in parts, each cut to its longest text: a batch sorted by length pads little.

        Shapes int64 [B, L] → [B, D].
        """
        parts = []
        for ids, mask in zip(input_ids.split(_CHUNK), attention_mask.split(_CHUNK), strict=True):
            length = int(mask.sum(1).max())
            parts.append(self.encode_text(ids[:, :length], mask[:, :length])[0])
        return torch.cat(parts)

    def encode_video(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Segment embeddings [B, D] and the packed frames' pooled features [F, C] of a batch."""
        parts = [self.encode_maps(part) for part in batch.maps.split(_CHUNK)]
        frames, pooled = (torch.cat(column) for column in zip(*parts, strict=True))
        rows, count = batch.frame_mask.shape
        slots = frames.new_zeros(rows * count, frames.shape[-1]).index_copy(0, batch.slots, frames)
        with torch.autocast(frames.device.type, enabled=False):
            return self.encode_segment(slots.view(rows, count, -1), batch.frame_mask), pooled


class MemoryBank(nn.Module):
    """The paper's M^v and M^l: the last `size` momentum embeddings of videos and texts, in one ring."""

    videos: Tensor
    texts: Tensor
    owners: Tensor
    position: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"a memory bank of {size} entries holds nothing: set bank_size to 1 or more")
        self.register_buffer("videos", torch.zeros(size, dim))
        self.register_buffer("texts", torch.zeros(size, dim))
        self.register_buffer("owners", torch.full((size,), -1, dtype=torch.int64))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def enqueue(self, videos: Tensor, texts: Tensor, owners: Tensor) -> None:
        """Overwrite the oldest entries, wrapping around. Shapes [B, D], [B, D], int64 [B].

        Raises:
            ValueError: when a batch is larger than the bank.
        """
        size, count = len(self.owners), len(owners)
        if count > size:
            raise ValueError(f"a batch of {count} does not fit a memory bank of {size}: raise bank_size")
        index = (self.position + torch.arange(count, device=owners.device)) % size
        self.videos[index], self.texts[index], self.owners[index] = videos.float(), texts.float(), owners
        self.position.copy_((self.position + count) % size)

    def negatives(self) -> Negatives:
        """A copy of what is stored, so that enqueueing does not disturb a pending backward pass."""
        return Negatives(self.videos.clone(), self.texts.clone(), self.owners.clone())


class LGDN(nn.Module):
    """Online towers, momentum towers and banks."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.online = Towers(config)
        self.bank = MemoryBank(config.bank_size, config.dim)
        self.log_temperature = nn.Parameter(
            torch.tensor(config.temperature).log(), requires_grad=config.learn_temperature
        )
        self.online.image.freeze()
        self.online.text.freeze()
        self.momentum = copy.deepcopy(self.online).requires_grad_(False)

    def reset_momentum(self) -> None:
        """Make the twins equal, after weights were loaded into the online towers."""
        self.momentum.load_state_dict(self.online.state_dict())

    def train(self, mode: bool = True) -> LGDN:
        """Momentum towers never drop out: they provide targets."""
        super().train(mode)
        self.momentum.eval()
        return self

    @property
    def temperature(self) -> Tensor:
        """τ, clamped to [0.001, 0.5] where it is learned."""
        return self.log_temperature.exp().clamp(0.001, 0.5)

    @torch.no_grad()
    def update_momentum(self) -> None:
        """Eq. 2, for encoders, projections and the temporal module."""
        pairs = [
            (slow, fast)
            for slow, fast in zip(self.momentum.parameters(), self.online.parameters(), strict=True)
            if fast.requires_grad
        ]
        torch._foreach_lerp_(
            [slow for slow, _ in pairs], [fast for _, fast in pairs], 1.0 - self.config.momentum
        )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Embeddings of a batch by both twins.

        Returns:
            `video`, `text`, `video_momentum`, `text_momentum` [B, D]; `class_logits` [F, C] with classes.
        """
        video, pooled = self.online.encode_video(batch)
        text = self.online.encode_texts(batch.input_ids, batch.attention_mask)
        with torch.no_grad():
            video_momentum, _ = self.momentum.encode_video(batch)
            text_momentum = self.momentum.encode_texts(batch.input_ids, batch.attention_mask)
        out = {
            "video": video,
            "text": text,
            "video_momentum": video_momentum,
            "text_momentum": text_momentum,
        }
        if self.online.classifier is not None:
            with torch.autocast(pooled.device.type, enabled=False):
                out["class_logits"] = self.online.classifier(pooled)
        return out
