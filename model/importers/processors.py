"""How a checkpoint prepares pictures and texts, from its own files.

Shapes: B batch, h and w the sides of a frame.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

import torch
from PIL import Image
from tokenizers import Tokenizer, normalizers
from torch import Tensor, nn

from model.backbones.huggingface import read_json_object
from model.importers.base import Checkpoint
from model.importers.weights import quiet_transformers, reason_of
from model.runtime.bundle.manifest import ImageSpec
from model.runtime.errors import InputError
from model.runtime.preprocessing import Interpolation

_FILTERS: Mapping[int, Interpolation] = {
    Image.Resampling.BICUBIC: "bicubic",
    Image.Resampling.BILINEAR: "bilinear",
    Image.Resampling.LANCZOS: "lanczos",
}
_REMEDY = "add the files of its processor, which lie beside the weights on the hub"


@dataclass(frozen=True)
class PicturePreparation:
    """How a picture becomes the image encoder's input.

    Attributes:
        image: how it becomes a square.
        scale: what pixel values are multiplied by first.
        mean: what is subtracted from each channel then.
        std: what each channel is divided by at last.
    """

    image: ImageSpec
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Normalisation(nn.Module):
    """Pixels as a graph reads them, to the numbers that an image encoder reads."""

    scale: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, preparation: PicturePreparation) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(preparation.scale))
        self.register_buffer("mean", torch.tensor(preparation.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(preparation.std).view(3, 1, 1))

    def forward(self, frames: Tensor) -> Tensor:
        """Shape uint8 [B, h, w, 3] → float [B, 3, h, w]."""
        return (frames.permute(0, 3, 1, 2).float() * self.scale - self.mean) / self.std


def read_preparation(checkpoint: Checkpoint, size: int) -> PicturePreparation:
    """Read the image processor of a checkpoint.

    Args:
        checkpoint: the checkpoint.
        size: the side of the pictures that its image encoder reads, in pixels.

    Raises:
        InputError: there is no processor, or it prepares pictures in a way that a bundle cannot describe.
    """
    path = processor_path(checkpoint, ("preprocessor_config.json", "processor_config.json"))
    if "auto_map" in read_json_object(path):
        raise InputError(
            f"{path}: auto_map names code of its own, which is never run here: import a model whose image "
            "processor is one of transformers"
        )
    with quiet_transformers():
        from transformers import AutoImageProcessor

        processors: Any = AutoImageProcessor
        try:
            processor = processors.from_pretrained(
                checkpoint.folder, local_files_only=True, trust_remote_code=False, backend="pil"
            )
        # It raises errors of many kinds, of missing packages too.
        except Exception as error:
            raise InputError(f"{path} is not read by transformers ({reason_of(error)}): {_REMEDY}") from error
        values: Mapping[str, Any] = processor.to_dict()
    return preparation_of(path, values, checkpoint, size)


def processor_path(checkpoint: Checkpoint, names: Sequence[str], usual: int = 0) -> Path:
    """The file of a processor, the first of these names that is there; messages give the `usual` one.

    Raises:
        InputError: none is.
    """
    path = next((found for name in names if (found := checkpoint.folder / name).is_file()), None)
    if path is None:
        raise InputError(f"no {names[usual]} in {checkpoint.folder}: {_REMEDY}")
    return path


def preparation_of(
    path: Path, values: Mapping[str, Any], checkpoint: Checkpoint, size: int
) -> PicturePreparation:
    """What a processor does, from its values with the names of transformers.

    Raises:
        InputError: it prepares pictures in a way that a bundle cannot describe, or of another size than the
            model's; the message names `path`.
    """
    if not all(values.get(step, True) for step in ("do_resize", "do_rescale", "do_normalize")):
        raise InputError(f"{path}: do_resize, do_rescale and do_normalize must all be true")
    if values.get("do_pad"):
        raise InputError(f"{path}: do_pad is true; a bundle cannot pad pictures")
    image = _image_spec(path, values)
    if image.size != size:
        raise InputError(
            f"{path} makes pictures of {image.size} pixels, but {checkpoint.config_path} says {size}: the "
            "files do not belong together; download the checkpoint again"
        )
    mean, std = (_three(path, key, values.get(key)) for key in ("image_mean", "image_std"))
    scale = values.get("rescale_factor")
    if not _is_number(scale) or scale <= 0 or min(std) <= 0:
        raise InputError(f"{path}: rescale_factor is {scale!r}, image_std {std}: they must be positive")
    return PicturePreparation(image, float(scale), mean, std)


def _image_spec(path: Path, values: Mapping[str, Any]) -> ImageSpec:
    """How pictures become squares.

    Raises:
        InputError: they become no squares, or by a filter or rule that a bundle does not know.
    """
    resample = values.get("resample")
    interpolation = _FILTERS.get(Image.Resampling.BILINEAR if resample is None else resample)
    if interpolation is None:
        raise InputError(
            f"{path}: resample is {resample!r}: bundles know {sorted(map(int, _FILTERS))} "
            "(lanczos 1, bilinear 2, bicubic 3)"
        )
    size, crop = _sides(values.get("size")), _sides(values.get("crop_size"))
    filter_ = None if interpolation == "bicubic" else interpolation
    if values.get("do_center_crop"):
        square = _square(crop)
        shorter = size.get("shortest_edge") or _square(size)
        if square is None or shorter is None or shorter < square:
            raise InputError(f"{path}: size {size} and crop_size {crop} make no square: bundles read squares")
        if "shortest_edge" in size:
            return ImageSpec(size=square, resize="scale_crop", interpolation=filter_, shorter_side=shorter)
        if shorter != square:
            raise InputError(f"{path}: it cuts {square} pixels out of squashed pictures of {shorter}")
        return ImageSpec(size=square, resize="squash", interpolation=filter_)
    square = _square(size)
    if square is None:
        raise InputError(f"{path}: size {size} makes no square: bundles read squares")
    return ImageSpec(size=square, resize="squash", interpolation=filter_)


def _sides(value: Any) -> dict[str, int]:
    """The sides that a processor's size sets; a bare number is a square."""
    if isinstance(value, int):
        return {"height": value, "width": value}
    items = value.items() if isinstance(value, Mapping) else ()
    return {str(key): side for key, side in items if isinstance(side, int) and side > 0}


def _square(sides: Mapping[str, int]) -> int | None:
    return sides["height"] if sides.keys() == {"height", "width"} and len(set(sides.values())) == 1 else None


def _three(path: Path, key: str, value: Any) -> tuple[float, float, float]:
    if not isinstance(value, list | tuple) or len(value) != 3 or not all(map(_is_number, value)):
        raise InputError(f"{path}: {key} is {value!r}: it must be three numbers, for red, green and blue")
    red, green, blue = (float(number) for number in value)
    return red, green, blue


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class PublishedTokenizer:
    """A checkpoint's tokenizer.

    Attributes:
        content: as a `tokenizer.json`, which pads with `pad_id`.
        pad_id: the id that fills texts up.
        pads_left: whether it fills them up at their start.
    """

    content: bytes
    pad_id: int
    pads_left: bool

    def preparing(self, *steps: normalizers.Normalizer) -> PublishedTokenizer:
        """The same tokenizer, with steps before its own that prepare a text as the model's training did."""
        tokenizer = Tokenizer.from_str(self.content.decode())
        own = [] if tokenizer.normalizer is None else [tokenizer.normalizer]
        tokenizer.normalizer = normalizers.Sequence([*steps, *own])
        return replace(self, content=tokenizer.to_str().encode())

    def example(self, length: int, vocabulary: int) -> tuple[Tensor, Tensor]:
        """Ids and mask of two texts of different lengths, int64 [2, L] with L ≤ `length`.

        Raises:
            InputError: the tokenizer gives ids that a model of so many ids does not have.
        """
        tokenizer = Tokenizer.from_str(self.content.decode())
        tokenizer.enable_truncation(length)
        found = tokenizer.encode_batch(["a dog runs along the beach", "a dog"])
        ids = torch.tensor([encoding.ids for encoding in found])
        mask = torch.tensor([encoding.attention_mask for encoding in found])
        if int(ids.max()) >= vocabulary:
            raise InputError(
                f"the tokenizer (tokenizer.json) gives the id {int(ids.max())}, but the model (config.json) "
                f"has {vocabulary} ids: they do not belong together; download the checkpoint again"
            )
        return ids, mask


def read_tokenizer(checkpoint: Checkpoint) -> PublishedTokenizer:
    """Read the tokenizer of a checkpoint, as transformers computes it.

    Raises:
        InputError: there is none, a file of it is damaged, or it is of a kind that has no `tokenizer.json`.
    """
    _check_tokenizer_files(checkpoint.folder)
    with quiet_transformers():
        from transformers import AutoTokenizer, PreTrainedTokenizerFast

        try:
            found: Any = AutoTokenizer.from_pretrained(
                checkpoint.folder, local_files_only=True, trust_remote_code=False
            )
        # It raises errors of many kinds, of missing packages too.
        except Exception as error:
            if not (checkpoint.folder / "tokenizer.json").is_file():
                raise InputError(
                    f"the tokenizer in {checkpoint.folder} is of a kind that is not read "
                    f"({reason_of(error)}): add its tokenizer.json, which lies beside the weights on the "
                    "hub, or write one with transformers: "
                    "AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
                ) from error
            found = PreTrainedTokenizerFast.from_pretrained(checkpoint.folder, local_files_only=True)
    return tokenizer_of(checkpoint, found)


def _check_tokenizer_files(folder: Path) -> None:
    """Check that there is a vocabulary: without one, transformers makes a tokenizer that knows no word.

    Raises:
        InputError: there is none, or a file is damaged.
    """
    names = {path.name for path in folder.iterdir()}
    published, settings = folder / "tokenizer.json", folder / "tokenizer_config.json"
    if settings.name in names and "auto_map" in read_json_object(settings) and published.name not in names:
        raise InputError(
            f"{settings}: auto_map names code of its own, which is never run here: add a {published.name}, "
            "if there is one on the hub, or import another model"
        )
    if published.name in names:
        try:
            Tokenizer.from_file(str(published))
        # The package raises a bare Exception.
        except Exception as error:
            raise InputError(f"{published} is damaged ({reason_of(error)}): download it again") from error
        return
    vocabularies = {"vocab.txt", *(name for name in names if name.endswith(".model"))}
    if {"vocab.json", "merges.txt"} <= names or vocabularies & names:
        return
    raise InputError(
        f"no {published.name} in {folder}, nor a vocabulary in older files (vocab.json and merges.txt, "
        "vocab.txt, or a .model of SentencePiece): add the files of its tokenizer, which lie beside the "
        "weights on the hub"
    )


def tokenizer_of(checkpoint: Checkpoint, found: Any) -> PublishedTokenizer:
    """A tokenizer of transformers as a `tokenizer.json`.

    Raises:
        InputError: it is of a kind that has none.
    """
    backend = getattr(found, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise InputError(
            f"the tokenizer in {checkpoint.folder} is {type(found).__name__}, which has no tokenizer.json: "
            "add one, which lies beside the weights on the hub of most models"
        )
    pad_id = found.pad_token_id
    if pad_id is None:
        pad_id = found.eos_token_id or 0
    return as_published(backend, pad_id, pads_left=found.padding_side == "left")


def as_published(backend: Tokenizer, pad_id: int, *, pads_left: bool = False) -> PublishedTokenizer:
    """A tokenizer that cuts no text, and pads with `pad_id`."""
    copy = Tokenizer.from_str(backend.to_str())
    copy.no_truncation()
    copy.enable_padding(pad_id=pad_id, pad_token=copy.id_to_token(pad_id) or "")
    return PublishedTokenizer(copy.to_str().encode(), pad_id, pads_left)
