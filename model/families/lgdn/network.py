"""LGDN: the two towers, their momentum copies, the memory banks and the fusion (section 3 of the paper).

Shapes: B batch, N frame slots, F packed frames, P tokens a frame, L text tokens, H frame-token width,
T text-token width, D joint space, M bank.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.backbones import build_image, build_text
from model.families.lgdn.config import ModelConfig
from model.families.lgdn.conversion import build_converter
from model.families.lgdn.fusion import build_fusion
from model.families.lgdn.losses import Negatives
from model.families.lgdn.temporal import TemporalLayer
from model.runtime.errors import InputError

# Temperature of the classes, softer than the classifier was trained: a scene shows several things.
CLASS_SOFTNESS = 2.0
# Frames or texts in one pass on a CPU: more do not fit its caches, which halves the speed.
_CPU_CHUNK = 32


@dataclass(frozen=True)
class LGDNBatch:
    """One training batch. Frames are packed: a frame that several videos show is stored once."""

    frames: Tensor
    """Distinct frames: uint8 [F, h, w, 3], or as prepared, float [F, C, h', w']."""
    slots: Tensor
    """int64 [B, N]: the packed frame that each slot shows; any value where masked."""
    frame_mask: Tensor
    """float [B, N], 1 for real frames; at least one in every row."""
    input_ids: Tensor
    """int64 [B, L]."""
    attention_mask: Tensor
    """int64 [B, L]."""
    video_ids: Tensor
    """int64 [B]: pairs with the same id are not negatives of each other."""
    teacher: Tensor | None = None
    """[F, classes]: the published classifier's shares for each frame; rows of zeros do not count."""
    taught: Tensor | None = None
    """[F, Ht]: another image encoder's embedding of each frame; rows of zeros for frames without one."""
    counted: Tensor | None = None
    """With `taught`, bool [F]: false for frames that count for another process."""

    def to(self, device: torch.device | str) -> LGDNBatch:
        """The same batch on another device."""
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(
            self, **{k: v.to(device, non_blocking=True) for k, v in moved.items() if v is not None}
        )


@dataclass(frozen=True)
class FrameFeatures:
    """Shapes embedding [F, D] (unit length), temporal_input [F, D], tokens [F, P, H], pooled [F, Hv].

    The temporal layer reads `temporal_input`: the embedding, or the same before it is normalised, see
    `ModelConfig.normalise_frames`.
    """

    embedding: Tensor
    temporal_input: Tensor
    tokens: Tensor
    pooled: Tensor


@dataclass(frozen=True)
class TextFeatures:
    """Shapes embedding [B, D] (unit length), tokens [B, L, T], attention_mask int64 [B, L]."""

    embedding: Tensor
    tokens: Tensor
    attention_mask: Tensor


class Towers(nn.Module):
    """Frame encoder f^e, temporal module T and language encoder f^l of eq. 1."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.image = build_image(config)
        self.text = build_text(config, config.fusion_from_text)
        self.frame_projection = nn.Linear(self.image.width, config.dim)
        self.text_projection = nn.Linear(self.text.width, config.dim)
        self.temporal = TemporalLayer(config.dim, config.frames, drop=config.temporal_drop)
        self.classifier = nn.Linear(self.image.width, config.classes) if config.classes else None
        self.class_projection = nn.Linear(config.classes, config.dim, bias=False) if config.classes else None
        if self.class_projection is not None:
            nn.init.zeros_(self.class_projection.weight)
        self.joint = config.fusion == "joint"
        narrow = config.token_dim if not self.joint else 0
        self.token_projection = nn.Linear(self.image.width, narrow) if narrow else None
        #: H and T
        self.token_width = config.dim if self.joint else narrow or self.image.width
        self.text_token_width = config.dim if self.joint else self.text.width

    def encode_frames(self, frames: Tensor) -> FrameFeatures:
        """Frame embeddings f^e, and the tokens that the fusion reads: one for the frame, then its cells.

        Shape uint8 [F, h, w, 3], or as prepared [F, C, h', w'].
        """
        parts = [self._encode_frames(part) for part in _parts(frames)]
        return FrameFeatures(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def _encode_frames(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        prepared = self.image.prepare(frames) if frames.dtype == torch.uint8 else frames
        pooled, cells = self.image(prepared)
        dropped = F.dropout(pooled, self.config.projection_dropout, self.training)
        with torch.autocast(pooled.device.type, enabled=False):
            projected = self.project_frames(dropped)
            embedding = F.normalize(projected, dim=-1)
        temporal_input = embedding if self.config.normalise_frames else projected
        return embedding, temporal_input, self.frame_tokens(pooled, cells, embedding), dropped

    def project_frames(self, pooled: Tensor) -> Tensor:
        """A linear projection, plus the names of the classes that a frame shows by their likelihood.

        Captions teach the projection; the names carry words that no caption of a small set has.
        Shape [F, Hv] → [F, D].
        """
        x: Tensor = self.frame_projection(pooled)
        if self.classifier is not None and self.class_projection is not None:
            x = x + self.class_projection(torch.softmax(self.classifier(pooled) / CLASS_SOFTNESS, -1))
        return x

    def frame_tokens(self, pooled: Tensor, cells: Tensor, embedding: Tensor) -> Tensor:
        """E_i = [e_cls; e_1; …]. A joint fusion gets the embedding as e_cls, and cells without the classes.

        Shapes pooled [F, Hv], cells [F, P-1, Hv], embedding [F, D] → [F, P, H].
        """
        if self.joint:
            return torch.cat(
                [embedding[:, None], F.normalize(self.frame_projection(cells).float(), dim=-1)], 1
            )
        tokens = torch.cat([pooled[:, None], cells], 1)
        return tokens if self.token_projection is None else self.token_projection(tokens)

    def encode_segment(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Segment embedding f^v, eq. 1. Shapes frames [B, N, D], mask [B, N] → normalised [B, D]."""
        with torch.autocast(frames.device.type, enabled=False):
            return F.normalize(self.temporal(frames.float(), mask), dim=-1)

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> TextFeatures:
        """Text embedding f^l and the tokens that the fusion reads. Shapes int64 [B, L] twice.

        On a CPU the batch is encoded in parts of texts of similar length, each cut to its longest text.
        """
        length = input_ids.shape[1]
        if torch.compiler.is_exporting():
            return TextFeatures(*self._encode_text(input_ids, attention_mask), attention_mask)
        lengths = attention_mask.sum(1)
        order = torch.argsort(lengths, stable=True)
        embeddings, tokens = [], []
        for rows in _parts(order):
            longest = int(lengths[rows[-1]])
            embedding, part = self._encode_text(input_ids[rows, :longest], attention_mask[rows, :longest])
            embeddings.append(embedding)
            tokens.append(F.pad(part, (0, 0, 0, length - longest)))
        place = torch.argsort(order)
        return TextFeatures(torch.cat(embeddings)[place], torch.cat(tokens)[place], attention_mask)

    def _encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        tokens, pooled = self.text(input_ids, attention_mask)
        with torch.autocast(tokens.device.type, enabled=False):
            embedding = F.normalize(self.text_projection(pooled), dim=-1)
            if self.joint:
                words = F.normalize(self.text_projection(tokens[:, 1:]), dim=-1)
                tokens = torch.cat([embedding[:, None], words], 1)
        return embedding, tokens

    def words(self, text: TextFeatures) -> Tensor:
        """The text's tokens in the joint space: its embedding in place of [CLS], then its words.

        → unit length [B, L, D]. What stands at masked places has no meaning.
        """
        if self.joint:
            return text.tokens
        with torch.autocast(text.tokens.device.type, enabled=False):
            words = F.normalize(self.text_projection(text.tokens[:, 1:].float()), dim=-1)
            return torch.cat([text.embedding[:, None], words], 1)


def _parts(x: Tensor) -> tuple[Tensor, ...]:
    """The parts that an encoder takes in one pass each."""
    return (x,) if x.is_cuda or torch.compiler.is_exporting() else torch.split(x, _CPU_CHUNK)


class MemoryBank(nn.Module):
    """The paper's M^v, M^l and M^e: the last momentum embeddings of videos, texts and frames, in one ring."""

    videos: Tensor
    texts: Tensor
    frames: Tensor
    frame_mask: Tensor
    owners: Tensor
    position: Tensor

    def __init__(self, size: int, frames: int, dim: int) -> None:
        super().__init__()
        if size < 1:
            raise InputError(f"a memory bank of {size} entries holds nothing: set bank_size to 1 or more")
        self.register_buffer("videos", torch.zeros(size, dim))
        self.register_buffer("texts", torch.zeros(size, dim))
        self.register_buffer("frames", torch.zeros(size, frames, dim))
        self.register_buffer("frame_mask", torch.zeros(size, frames, dtype=torch.bool))
        self.register_buffer("owners", torch.full((size,), -1, dtype=torch.int64))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def enqueue(
        self, videos: Tensor, texts: Tensor, frames: Tensor, frame_mask: Tensor, owners: Tensor
    ) -> None:
        """Overwrite the oldest entries, wrapping around.

        Shapes [B, D], [B, D], [B, N, D], [B, N], int64 [B].

        Raises:
            InputError: the batch is larger than the bank.
        """
        size, count = len(self.owners), len(owners)
        if count > size:
            raise InputError(f"a batch of {count} does not fit a memory bank of {size}: raise bank_size")
        index = (self.position + torch.arange(count, device=owners.device)) % size
        self.videos[index], self.texts[index] = videos.float(), texts.float()
        self.frames[index], self.frame_mask[index] = frames.float(), frame_mask > 0
        self.owners[index] = owners
        self.position.copy_((self.position + count) % size)

    def negatives(self) -> Negatives:
        """A copy of what is stored, so that enqueueing does not disturb a pending backward pass."""
        rows = self.owners[:, None].expand_as(self.frame_mask)
        return Negatives(
            self.videos.clone(),
            self.texts.clone(),
            self.owners.clone(),
            self.frames[self.frame_mask],
            rows[self.frame_mask],
        )


class LGDN(nn.Module):
    """Online towers, momentum towers, banks, and the fusion with its moving average."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.online = Towers(config)
        self.bank = MemoryBank(config.bank_size, config.frames, config.dim)
        self.log_temperature = nn.Parameter(
            torch.tensor(config.temperature).log(), requires_grad=config.learn_temperature
        )
        self.online.image.freeze()
        self.online.text.freeze()
        self.fusion = build_fusion(config, self.online.text.shape, self.online.token_width)
        #: from another image encoder's embeddings to the joint space; only training uses it
        self.teacher_projection = nn.Linear(config.teacher_dim, config.dim) if config.teacher_dim else None
        #: FEEL's, between frames and words; only training uses it
        self.converter = build_converter(config)
        self.momentum = copy.deepcopy(self.online).requires_grad_(False)
        # No loss reads it. It is exported with the momentum towers, and is as steady as they are.
        self.fusion_average = copy.deepcopy(self.fusion).requires_grad_(False)

    def reset_momentum(self) -> None:
        """Copy the online weights to the momentum towers and to the fusion's average."""
        self.momentum.load_state_dict(self.online.state_dict())
        self.fusion_average.load_state_dict(self.fusion.state_dict())

    def train(self, mode: bool = True) -> LGDN:
        """Set the mode of what trains. Momentum weights, which give targets, stay in evaluation mode."""
        super().train(mode)
        self.momentum.eval()
        self.fusion_average.eval()
        return self

    @property
    def temperature(self) -> Tensor:
        """τ, clamped to [0.001, 0.5] where it is learned."""
        return self.log_temperature.exp().clamp(0.001, 0.5)

    @torch.no_grad()
    def update_momentum(self) -> None:
        """Update the momentum towers by equation 2, and the fusion's average in the same way."""
        momentum, online = zip(*self._momentum_and_online(), strict=True)
        torch._foreach_lerp_(list(momentum), list(online), 1.0 - self.config.momentum)

    def _momentum_and_online(self) -> Iterator[tuple[nn.Parameter, nn.Parameter]]:
        for average, trained in ((self.momentum, self.online), (self.fusion_average, self.fusion)):
            for slow, fast in zip(average.parameters(), trained.parameters(), strict=True):
                if fast.requires_grad:
                    yield slow, fast
