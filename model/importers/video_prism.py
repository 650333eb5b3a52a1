"""VideoPrism-LvT (Zhao et al., 2024): `VideoPrismClipModel`.

Its video encoder looks at each frame, then along time, then at all patches of all frames together, and one
query attends to all of these (its pooler). What the same pooler gives for the patches of one frame alone is
that frame's salience. VideoPrism was not trained to do that, so salient frames and the borders of moments
follow it, but no score does, and nothing is re-ranked.

Shapes: B batch, N frames, P patches of a frame, h and w the sides of a frame, D joint space.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Regex, normalizers
from torch import Tensor

from model.backbones.huggingface import read_json_object
from model.importers.base import Checkpoint, Imported
from model.importers.dual_encoders import DualEncoder
from model.importers.processors import (
    PicturePreparation,
    PublishedTokenizer,
    preparation_of,
    processor_path,
    read_tokenizer,
)
from model.importers.video_towers import VideoTower, import_video_tower
from model.importers.weights import load_model, quiet_transformers
from model.runtime.errors import InputError
from model.runtime.messages import first_line

#: The files in which transformers looks for a video processor, in its order.
_PROCESSORS = ("processor_config.json", "video_preprocessor_config.json", "preprocessor_config.json")


class VideoPrismTower(VideoTower):
    """The video encoder, and its pooler on all frames and on each."""

    def __init__(self, model: Any, preparation: PicturePreparation) -> None:
        super().__init__(int(model.config.vision_config.num_frames), preparation)
        self.model = model.video_model

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """See `VideoTower.encode`."""
        found = self.model(pixel_values_videos=pixels)
        patches = found.last_hidden_state.unflatten(1, (self.frames, -1))
        alone, _ = self.model.head(patches.flatten(0, 1))
        frames = self.model.head_layernorm(alone).flatten(0, 1).unflatten(0, (-1, self.frames))
        return found.pooler_output[:, 0], frames


def load(checkpoint: Checkpoint) -> Imported:
    """Read a VideoPrism with a text encoder.

    Raises:
        InputError: a file is missing, damaged, or does not fit the others.
    """
    from transformers import VideoPrismClipModel

    model = load_model(checkpoint, VideoPrismClipModel)
    vision, text = model.config.vision_config, model.config.text_config
    encoder = DualEncoder(
        model,
        _read_preparation(checkpoint, vision.image_size),
        canonical(read_tokenizer(checkpoint)),
        context_length=int(text.max_position_embeddings),
        vocabulary=int(text.vocab_size),
        fixed_length=False,
        languages=("en",),
    )
    return import_video_tower(checkpoint, VideoPrismTower(model, encoder.preparation), encoder, None)


def canonical(published: PublishedTokenizer) -> PublishedTokenizer:
    """The tokenizer with VideoPrism's own preparation of texts before it, which transformers leaves to users.

    Punctuation becomes white space, letters small, white space single, and a full stop is added.
    """
    return published.preparing(
        normalizers.Replace(Regex(f"[{re.escape(string.punctuation)}]"), " "),
        normalizers.Lowercase(),
        normalizers.Replace(Regex(r"\s+"), " "),
        normalizers.Strip(),
        normalizers.Replace(Regex(r"\z"), "."),
    )


def _read_preparation(checkpoint: Checkpoint, size: int | Sequence[int]) -> PicturePreparation:
    """What the checkpoint's video processor does with each frame.

    Raises:
        InputError: there is no video processor, or it prepares frames in a way that a bundle cannot describe.
    """
    path = processor_path(checkpoint, _PROCESSORS, usual=1)
    values = _with_defaults(path)
    if not values.get("do_normalize", True):
        values = {**values, "do_normalize": True, "image_mean": (0.0,) * 3, "image_std": (1.0,) * 3}
    # The configuration may name both sides.
    side = size if isinstance(size, int) else size[0]
    return preparation_of(path, values, checkpoint, side)


def _with_defaults(path: Path) -> Mapping[str, Any]:
    """The values of a video processor's file, and those of its class for the others.

    Raises:
        InputError: the file is not one.
    """
    raw = read_json_object(path)
    own = raw.get("video_processor", raw)
    with quiet_transformers():
        from transformers.models.llava_onevision.video_processing_llava_onevision import (
            LlavaOnevisionVideoProcessor,
        )

        processors: Any = LlavaOnevisionVideoProcessor
        try:
            values: Mapping[str, Any] = processors(**own).to_dict()
        # It raises errors of many kinds.
        except Exception as error:
            reason = first_line(error)
            raise InputError(f"{path} is not read by transformers ({reason[:200]})") from error
    return values
