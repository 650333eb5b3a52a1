"""The hubness correction of frames as part of a bundle's graphs; see `model.evaluation.frame_hubness`.

Shapes: B frames or texts, R reference texts, S salience.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from model.families.base import Graph
from model.runtime.bundle import HubnessCorrection
from model.runtime.bundle.graphs import FRAME_ENCODER, TEXT_ENCODER


class CorrectedFrameGraph(nn.Module):
    """A frame encoder whose second output, the salience, gets a number more: less the frame's hubness."""

    references: Tensor

    def __init__(self, module: nn.Module, correction: HubnessCorrection) -> None:
        super().__init__()
        self.module, self.weight, self.neighbours = module, correction.weight, correction.neighbours
        self.register_buffer("references", torch.from_numpy(correction.references.copy()))

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Shape uint8 [B, h, w, 3] → the encoder's outputs, the salience [B, S + 1]."""
        embedding, salience, *others = self.module(frames)
        nearest = (salience @ self.references.T).topk(self.neighbours, dim=1).values
        less = -self.weight * nearest.mean(1, keepdim=True)
        return embedding, torch.cat([salience, less], 1), *others


class CorrectedTextGraph(nn.Module):
    """A text encoder whose second output, the salience, gets a 1 more."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """Shapes int64 [B, L] twice → the encoder's outputs, the salience [B, S + 1]."""
        embedding, salience, *others = self.module(input_ids, attention_mask)
        return embedding, torch.cat([salience, torch.ones_like(salience[:, :1])], 1), *others


def with_frame_hubness(graphs: Mapping[str, Graph], correction: HubnessCorrection) -> dict[str, Graph]:
    """The graphs with corrected saliences.

    Args:
        graphs: of a bundle, by file name.
        correction: its weight, and the saliences of the reference texts, [R, S].
    """
    frame, text = graphs[FRAME_ENCODER], graphs[TEXT_ENCODER]
    return {
        **graphs,
        FRAME_ENCODER: replace(frame, module=CorrectedFrameGraph(frame.module, correction)),
        TEXT_ENCODER: replace(text, module=CorrectedTextGraph(text.module)),
    }
