"""X-CLIP (Ni et al., 2022): `XCLIPModel`.

Its frames exchange messages in every layer of the image encoder, and one more Transformer (MIT) joins them:
the embedding of a segment is the mean of what that gives for each frame. So a frame's salience is its part of
this mean, and SFP works as on CLIP4Clip.

X-CLIP changes the embedding of a text by what a video shows (`prompts_generator`), so that each pair of a
text and a video has its own. A library of embeddings cannot do that, so the generator is left out: texts have
the embedding of `get_text_features`, and a similarity is what X-CLIP computes where its generator gives 0.

Shapes: B batch, N frames, h and w the sides of a frame, D joint space.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from model.importers.base import Checkpoint, Imported
from model.importers.dual_encoders import features, read_dual_encoder
from model.importers.processors import PicturePreparation
from model.importers.video_towers import VideoTower, import_video_tower
from model.importers.weights import load_model
from model.runtime.bundle.manifest import SalienceMatch


class XClipTower(VideoTower):
    """The image encoder with messages between frames, and the Transformer that joins them."""

    def __init__(self, model: Any, preparation: PicturePreparation) -> None:
        super().__init__(int(model.config.vision_config.num_frames), preparation)
        self.model = model

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """See `VideoTower.encode`."""
        seen = features(self.model.vision_model(pixel_values=pixels.flatten(0, 1)))
        projected = self.model.visual_projection(seen).unflatten(0, (-1, self.frames))
        joined = self.model.mit(projected)
        return joined.pooler_output, joined.last_hidden_state


def load(checkpoint: Checkpoint) -> Imported:
    """Read an X-CLIP.

    Raises:
        InputError: a file is missing, damaged, or does not fit the others.
    """
    from transformers import XCLIPModel

    model = load_model(checkpoint, XCLIPModel)
    encoder = read_dual_encoder(checkpoint, model)
    tower = XClipTower(model, encoder.preparation)
    return import_video_tower(checkpoint, tower, encoder, SalienceMatch(scale=1.0, bias=0.0))
