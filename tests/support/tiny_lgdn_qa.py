"""A tiny LGDN with an answer head, batches of questions, and the naive form of its loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from model.families.lgdn.fusion import CrossAttentionFusion, JointFusion
from model.families.lgdn_qa.config import AnswerModelConfig
from model.families.lgdn_qa.network import AnsweringLGDN
from model.families.lgdn_qa.objective import AnswerBatch
from model.settings import to_mapping
from tests.support.tiny_lgdn import tiny_batch, tiny_model_config

ANSWERS = ("man", "two", "guitar", "stage", "run")


def answer_config(**changes: Any) -> AnswerModelConfig:
    """The sizes of the tiny LGDN, and five answers."""
    values = to_mapping(tiny_model_config()) | {"answers": ANSWERS, "tune_towers": True} | changes
    return AnswerModelConfig(**values)


def answer_model(**changes: Any) -> AnsweringLGDN:
    """No weight is zero, momentum differs from online, frames are far from one another."""
    torch.manual_seed(0)
    model = AnsweringLGDN(answer_config(**changes))
    with torch.no_grad():
        for parameter in (*model.online.parameters(), *model.answer_head.parameters()):
            parameter.add_(0.05 * torch.randn_like(parameter))
        model.reset_momentum()
        for parameter in (*model.momentum.parameters(), *model.fusion_average.parameters()):
            parameter.add_(0.02 * torch.randn_like(parameter))
        for towers in (model.online, model.momentum):
            towers.frame_projection.weight *= 5
    return model


def answer_batch(answers: Sequence[str], *, seed: int = 0) -> AnswerBatch:
    """Ragged questions about ragged videos."""
    videos = tiny_batch(range(len(answers)), seed=seed, packed=9, teacher=False)
    return AnswerBatch(dataclasses.replace(videos, teacher=None), tuple(answers))


def naive_logits(
    model: AnsweringLGDN, batch: AnswerBatch, row: int, frames: Sequence[int] | None = None
) -> Tensor:
    """The logits of one question, step by step; `frames` are the slots to read, None: SFP's. → [A]"""
    config, videos = model.config, batch.videos
    used = model.momentum if config.inference_weights == "momentum" else model.online
    real = [slot for slot in range(videos.slots.shape[1]) if videos.frame_mask[row, slot] > 0]
    length = int(videos.attention_mask[row].sum())
    ids, mask = videos.input_ids[row : row + 1, :length], torch.ones(1, length, dtype=torch.int64)
    text = used.encode_text(ids, mask)
    shown = {slot: videos.frames[videos.slots[row, slot]][None] for slot in real}
    if frames is None:
        # Collaborative SFP, Table 1: (f + f̂) · (l + l̂).
        query = (
            model.online.encode_text(ids, mask).embedding + model.momentum.encode_text(ids, mask).embedding
        )
        relevance = {}
        for slot, frame in shown.items():
            stored = (
                model.online.encode_frames(frame).embedding + model.momentum.encode_frames(frame).embedding
            )
            relevance[slot] = float((stored @ query.T).detach())
        frames = sorted(real, key=lambda slot: (-relevance[slot], slot))[: config.num_salient_frames]
    fused = []
    for slot in frames:
        tokens = used.encode_frames(shown[slot]).tokens
        fused.append(naive_fused(model, text.tokens, mask, tokens)[0])
    mean = torch.stack(fused).sum(0) / len(fused)
    _, first, norm, _, second = model.answer_head.classifier
    assert isinstance(first, torch.nn.Linear)
    assert isinstance(norm, torch.nn.LayerNorm)
    assert isinstance(second, torch.nn.Linear)
    hidden = F.gelu(F.layer_norm(first(mean), norm.normalized_shape, norm.weight, norm.bias, norm.eps))
    return second.weight @ hidden + second.bias


def naive_fused(model: AnsweringLGDN, text: Tensor, mask: Tensor, tokens: Tensor) -> Tensor:
    """What the fusion's own head of two outputs reads, caught where it enters the head. [1, …] → [1, W]"""
    fusion = model.answer_head.fusion
    assert isinstance(fusion, JointFusion | CrossAttentionFusion)
    caught: list[Tensor] = []
    hook = fusion.head.register_forward_hook(lambda _module, inputs, _output: caught.append(inputs[0]))
    try:
        fusion(text, mask, tokens)
    finally:
        hook.remove()
    return caught[0]
