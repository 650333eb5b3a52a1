"""`answer_head.onnx`: the answer head as a graph of a bundle.

Shapes: B questions, n salient frames, L text tokens, P tokens a frame.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.families.base import Graph
from model.families.lgdn_qa.network import AnsweringLGDN


def answer_graph(model: AnsweringLGDN) -> Graph:
    """The graph, with examples of two rows and two frames: tracing takes a single one for a constant."""
    head, towers, config = model.answer_head, model.inference.towers, model.config
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        side = config.image_size
        pixels = torch.randint(0, 256, (4, side, side, 3), generator=generator, dtype=torch.uint8)
        encoded = towers.encode_frames(pixels).tokens

    def inputs(count: int, length: int, frames: int, tokens: int) -> tuple[Tensor, ...]:
        ids = torch.randint(1, towers.text.vocabulary, (count, length), generator=generator)
        mask, real = torch.ones_like(ids), torch.ones(count, frames)
        mask[-1, max(1, length // 2) :], real[-1, max(1, frames // 2) :] = 0, 0
        with torch.no_grad():
            text = ids if head.reads == "ids" else towers.encode_text(ids, mask).tokens
        shown = torch.randint(0, len(encoded), (count, frames), generator=generator)
        return text, mask, encoded[shown][:, :, :tokens].contiguous(), real

    longest, tokens = config.context_length, encoded.shape[1]
    return Graph(
        head,
        (
            "input_ids" if head.reads == "ids" else "text_tokens",
            "attention_mask",
            "frame_tokens",
            "frame_mask",
        ),
        ("answer_logit",),
        inputs(2, min(12, longest), 2, tokens),
        ({0: "B", 1: "L"}, {0: "B", 1: "L"}, {0: "B", 1: "n", 2: "P"}, {0: "B", 1: "n"}),
        (inputs(3, 4, 4, max(1, tokens // 2)), inputs(3, longest, 3, 2), inputs(1, 5, 1, tokens)),
    )
