"""Public checkpoints as bundles: one module for each family, listed by the `model_type` of its config.json.

To add a family, see CONTRIBUTING.md.
"""

from __future__ import annotations

from collections.abc import Mapping

from model.importers import blip, clip, metaclip_2, open_clip, siglip, video_prism, x_clip
from model.importers.base import Checkpoint, Imported, Load
from model.runtime.errors import InputError

#: How each family is read, by its `model_type`.
FAMILIES: Mapping[str, Load] = {
    "blip": blip.load,
    "clip": clip.load,
    "metaclip_2": metaclip_2.load,
    "open_clip": open_clip.load,
    "siglip": siglip.load,
    "siglip2": siglip.refuse_naflex,
    "videoprism": video_prism.load,
    "xclip": x_clip.load,
}


def load(checkpoint: Checkpoint) -> Imported:
    """Read a checkpoint by the importer of its family.

    Raises:
        InputError: its family is not supported, or its files are not whole.
    """
    kind = checkpoint.config.get("model_type")
    read = FAMILIES.get(kind) if isinstance(kind, str) else None
    if read is None:
        known = ", ".join(sorted(FAMILIES))
        code = (
            "it needs code of its own, which is never run here; " if "auto_map" in checkpoint.config else ""
        )
        raise InputError(
            f"{checkpoint.config_path}: model_type {kind!r} is not supported: {code}import one of {known}"
        )
    return read(checkpoint)
