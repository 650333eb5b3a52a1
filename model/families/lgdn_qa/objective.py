"""The loss of LGDN's answer head for one batch: the cross-entropy of the right answers.

Shapes: B questions, F packed frames, N frame slots, n frames that are read, P tokens a frame, H their width,
A answers, D joint space, S salience.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model import distributed
from model.families.lgdn.network import LGDNBatch
from model.families.lgdn.salience import frame_salience, select_salient_tensor, text_salience
from model.families.lgdn_qa.config import AnswerLossConfig
from model.families.lgdn_qa.network import AnsweringLGDN


@dataclass(frozen=True)
class AnswerBatch:
    """Videos with a question about each as its text, and the answers, B of them."""

    videos: LGDNBatch
    answers: tuple[str, ...]

    def to(self, device: torch.device | str) -> AnswerBatch:
        """The same batch on another device."""
        return replace(self, videos=self.videos.to(device))


@dataclass(frozen=True)
class Asked:
    """What the head reads: text [B, L, T] or ids [B, L], frame tokens [B, n, P, H], and a mask of each."""

    text: Tensor
    attention_mask: Tensor
    frame_tokens: Tensor
    frame_mask: Tensor


class AnswerObjective(nn.Module):
    """The loss of a model, as a module that DistributedDataParallel can wrap."""

    def __init__(self, model: AnsweringLGDN, loss: AnswerLossConfig, seed: int = 0) -> None:
        super().__init__()
        self.model, self.loss, self.seed = model, loss, seed
        self._places = {answer: place for place, answer in enumerate(model.config.answers)}

    def forward(self, batch: AnswerBatch, step: int, epoch: int) -> dict[str, Tensor]:
        """The loss of one batch.

        Args:
            batch: this process's part.
            step: seeds the choice of random frames.
            epoch: counts from 0; in the warm-up the head reads all frames.

        Returns:
            Scalars: `accuracy`, the share of right answers, and `answers`, the mean cross-entropy, which is
            `total`. Their mean over the processes is the joint batch's.
        """
        kind = self.model.config.frames_read
        if kind == "salient" and epoch < self.loss.warmup_epochs:
            kind = "all"
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + step) * 1024 + distributed.rank())
        with nullcontext() if self.model.config.tune_towers else torch.no_grad():
            asked = self._read(batch.videos, kind, generator)
        logits = self.model.answer_head(
            asked.text, asked.attention_mask, asked.frame_tokens, asked.frame_mask
        )
        places = [self._places[answer] for answer in batch.answers]
        target = torch.tensor(places, device=logits.device)
        loss = distributed.mean_of(F.cross_entropy(logits, target, reduction="none"))
        right = distributed.mean_of((logits.detach().argmax(1) == target).float())
        return {"accuracy": right, "answers": loss, "total": loss}

    def _read(self, videos: LGDNBatch, kind: str, generator: torch.Generator) -> Asked:
        """Encode a batch, and choose the frames of each question."""
        model, towers = self.model, self.model.inference.towers
        text = towers.encode_text(videos.input_ids, videos.attention_mask)
        words = videos.input_ids if model.answer_head.reads == "ids" else text.tokens
        if kind == "none":
            rows = len(videos.slots)
            nothing = text.tokens.new_zeros(rows, 1, 1, towers.token_width)
            return Asked(words, videos.attention_mask, nothing, nothing.new_ones(rows, 1))
        frames = towers.encode_frames(videos.frames)
        mask = videos.frame_mask
        with torch.no_grad():
            relevance = torch.rand(mask.shape, generator=generator).to(mask.device)
            if kind == "salient":
                relevance = self._relevance(videos, frames.embedding, text.embedding)
            count = mask.shape[1] if kind == "all" else model.config.num_salient_frames
            index, real = select_salient_tensor(relevance, mask, count)
            packed = videos.slots.gather(1, index)
        return Asked(words, videos.attention_mask, frames.tokens[packed], real.float())

    def _relevance(self, videos: LGDNBatch, frames: Tensor, questions: Tensor) -> Tensor:
        """The relevance of each slot's frame for its question (SFP). Shapes [F, D], [B, D] → [B, N]."""
        inference, frames_hat, questions_hat = self.model.inference, None, None
        if inference.other is not None:
            frames_hat = inference.other.encode_frames(videos.frames).embedding.float()
            encoded = inference.other.encode_text(videos.input_ids, videos.attention_mask)
            questions_hat = encoded.embedding.float()
        # In half precision similar frames would tie, and other frames be chosen than in search.
        with torch.autocast(frames.device.type, enabled=False):
            pair = inference.online_and_momentum(frames.float(), frames_hat)
            stored = frame_salience(inference.strategy, *pair)[videos.slots]
            pair = inference.online_and_momentum(questions.float(), questions_hat)
            asked = text_salience(inference.strategy, *pair)
            return torch.einsum("bns,bs->bn", stored, asked)
