"""What models have in common that read all frames of a segment at once: `video_encoder.onnx` and its example.

Such a model reads exactly N frames. A segment that shows fewer, n, shows them several times: slot j of the N
shows frame ⌊(j + ½) · n / N⌋, so that all are shown equally often, give or take one.

Shapes: B batch, N frames, h and w the sides of a frame, D joint space.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.families.base import Graph
from model.importers.base import Checkpoint, Imported
from model.importers.dual_encoders import DualEncoder, text_part
from model.importers.processors import Normalisation, PicturePreparation
from model.runtime.bundle import BundleDescription
from model.runtime.bundle.graphs import TEXT_ENCODER, VIDEO_ENCODER
from model.runtime.bundle.manifest import SalienceMatch

#: Frames are about as far apart as in a segment of 32 s with 16 of them.
_FRAME_SECONDS, _MOST_SECONDS = 2.0, 32.0


class VideoTower(nn.Module, ABC):
    """`video_encoder.onnx`: fills short segments up; what a frame gives is its mean over its slots."""

    def __init__(self, frames: int, preparation: PicturePreparation) -> None:
        super().__init__()
        self.frames, self.normalisation = frames, Normalisation(preparation)

    def forward(self, frames: Tensor, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes uint8 [B, N, h, w, 3], [B, N] → segment_embedding [B, D] and frame_salience [B, N, D]."""
        shown = slots(frame_mask, self.frames)
        first = torch.arange(frames.shape[0])[:, None] * self.frames
        pictures = frames.flatten(0, 1).index_select(0, (first + shown).flatten())
        segment, of_slots = self.encode(self.normalisation(pictures).unflatten(0, (-1, self.frames)))
        is_shown = (shown[:, :, None] == torch.arange(self.frames)).to(of_slots.dtype)
        # The direction of the sum is that of the mean.
        salience = is_shown.transpose(1, 2) @ of_slots
        return F.normalize(segment, dim=-1), F.normalize(salience, dim=-1)

    @abstractmethod
    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """What the model makes of N frames. Shape [B, N, 3, h, w] → [B, D] and, of each frame, [B, N, D]."""


def slots(frame_mask: Tensor, frames: int) -> Tensor:
    """The frame that each slot shows. Float [B, N] → int64 [B, N]."""
    counts = frame_mask.sum(dim=1, keepdim=True).to(torch.int64)
    # (j + ½) · n / N in whole numbers.
    return torch.div((2 * torch.arange(frames) + 1) * counts, 2 * frames, rounding_mode="floor")


def import_video_tower(
    checkpoint: Checkpoint, tower: VideoTower, encoder: DualEncoder, salience_match: SalienceMatch | None
) -> Imported:
    """A model that reads whole segments as a bundle.

    Args:
        checkpoint: where it comes from.
        tower: its video encoder.
        encoder: the whole model; its text encoder is read.
        salience_match: how salient frames re-rank; None: nothing does.

    Raises:
        InputError: the tokenizer gives ids that the model does not have.
    """
    texts, dim = text_part(encoder)
    image = encoder.preparation.image
    description = checkpoint.describe(
        dim,
        image,
        encoder.context_length,
        encoder.languages,
        frames_per_segment=tower.frames,
        segment_seconds=min(_FRAME_SECONDS * tower.frames, _MOST_SECONDS),
        num_salient_frames=min(BundleDescription.num_salient_frames, tower.frames),
        salience_match=salience_match,
    )
    graphs = {
        VIDEO_ENCODER: video_graph(tower, image.size),
        TEXT_ENCODER: texts,
    }
    return Imported(graphs, description, encoder.tokenizer.content)


def video_graph(tower: VideoTower, size: int) -> Graph:
    """A video encoder with its example: a whole segment and a short one."""
    generator = torch.Generator().manual_seed(0)
    shape = (2, tower.frames, size, size, 3)
    frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    mask = torch.ones(2, tower.frames)
    mask[1, (tower.frames + 1) // 2 :] = 0
    axes = {0: "batch"}
    inputs, outputs = ("frames", "frame_mask"), ("segment_embedding", "frame_salience")
    return Graph(tower, inputs, outputs, (frames, mask), (axes, axes))
