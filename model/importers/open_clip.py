"""Models of the package open_clip, such as PE-Core (Bolya et al., 2025), which transformers does not have.

They are recognised by `open_clip_config.json`. The package, open_clip_torch, is optional.

A picture whose rule is `shortest` may be cut out one pixel aside from where torchvision cuts it, which rounds
half pixels to even numbers.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from tokenizers import Tokenizer
from torch import Tensor, nn

from model.importers.base import Checkpoint, Imported
from model.importers.dual_encoders import DualEncoder, import_dual_encoder
from model.importers.processors import PicturePreparation, PublishedTokenizer, as_published, tokenizer_of
from model.importers.weights import check_finite
from model.runtime.bundle.manifest import ImageSpec
from model.runtime.errors import InputError
from model.runtime.installing import install_packages
from model.runtime.messages import first_line

_INSTALL = f"install the package first: `{install_packages('open_clip_torch')}`"


class _Towers(nn.Module):
    """A model of open_clip with the names that transformers' models have."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        """Shape [B, 3, h, w] → [B, D]."""
        found: Tensor = self.model.encode_image(pixel_values)
        return found

    def get_text_features(self, input_ids: Tensor) -> Tensor:
        """Shape int64 [B, L] → [B, D]."""
        found: Tensor = self.model.encode_text(input_ids)
        return found


def load(checkpoint: Checkpoint) -> Imported:
    """Read a model of open_clip.

    Raises:
        InputError: the package is not installed, or a file is missing, damaged, or does not fit the others.
    """
    try:
        package = importlib.import_module("open_clip")
    # An installation with another torchvision fails with other errors.
    except Exception as error:
        raise InputError(f"{checkpoint.source.name} is a model of open_clip ({error}): {_INSTALL}") from error
    text = checkpoint.part("model_cfg").get("text_cfg")
    if not isinstance(text, Mapping):
        raise InputError(f"{checkpoint.config_path}: text_cfg is {text!r}: download the checkpoint again")
    if checkpoint.part("model_cfg").get("multimodal_cfg") is not None:
        raise InputError(f"{checkpoint.source.name} is a CoCa, which is not supported: import a plain CLIP")
    model = _model(package, checkpoint)
    tokenizer, length = _tokenizer(package, checkpoint)
    towers = DualEncoder(
        _Towers(model),
        _preparation(checkpoint, model),
        tokenizer,
        context_length=length,
        vocabulary=int(text.get("vocab_size", 1 << 31)),
        fixed_length=True,
        languages=("en",),
    )
    return import_dual_encoder(checkpoint, towers)


def _model(package: ModuleType, checkpoint: Checkpoint) -> Any:
    try:
        model = package.create_model(
            f"local-dir:{checkpoint.folder}", precision="fp32", load_weights=True, require_pretrained=True
        )
    # A configuration can hold anything, and the package checks it in many places.
    except Exception as error:
        reason = first_line(error)
        raise InputError(
            f"{checkpoint.folder} is not read by open_clip ({reason[:200]}): its open_clip_config.json does "
            "not fit its weights, or they are damaged; download the checkpoint again"
        ) from error
    check_finite(checkpoint, model)
    return model.eval()


def _preparation(checkpoint: Checkpoint, model: Any) -> PicturePreparation:
    """What the package's own transform does, which it keeps beside the model."""
    values = model.visual.preprocess_cfg
    size = values["size"]
    height, width = (size, size) if isinstance(size, int) else size
    rule, interpolation = values["resize_mode"], values["interpolation"]
    if height != width or rule not in ("squash", "shortest") or interpolation not in ("bicubic", "bilinear"):
        raise InputError(
            f"{checkpoint.config_path}: pictures of {height} × {width} by {rule} and {interpolation}: "
            "bundles read squares, by squash or shortest, and bicubic or bilinear"
        )
    crops = rule == "shortest"
    image = ImageSpec(
        size=height,
        resize="scale_crop" if crops else "squash",
        interpolation=None if interpolation == "bicubic" else interpolation,
        shorter_side=height if crops else None,
    )
    return PicturePreparation(image, 1 / 255, tuple(values["mean"]), tuple(values["std"]))


def _tokenizer(package: ModuleType, checkpoint: Checkpoint) -> tuple[PublishedTokenizer, int]:
    """The tokenizer and the context length."""
    try:
        found = package.get_tokenizer(f"local-dir:{checkpoint.folder}")
    except Exception as error:
        reason = first_line(error)
        raise InputError(f"the tokenizer in {checkpoint.folder} is not read ({reason[:200]})") from error
    length = int(found.context_length)
    published = getattr(found, "tokenizer", None)
    if published is not None:
        return tokenizer_of(checkpoint, published), length
    return as_published(_byte_pairs(found), pad_id=0), length


def _byte_pairs(simple: Any) -> Tokenizer:
    """OpenAI's own byte-level BPE, which open_clip's SimpleTokenizer computes, as a `tokenizer.json`."""
    from transformers import CLIPTokenizer

    tokenizers: Any = CLIPTokenizer
    merges = [pair for pair, _ in sorted(simple.bpe_ranks.items(), key=lambda item: item[1])]
    start, end = (simple.decoder[number] for number in (simple.sot_token_id, simple.eot_token_id))
    special = {"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": end}
    backend: Tokenizer = tokenizers(vocab=dict(simple.encoder), merges=merges, **special).backend_tokenizer
    return backend
