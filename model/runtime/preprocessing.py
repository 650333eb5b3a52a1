"""Turns pixels and text into a model's input, with the same code for training, indexing and search.

Shapes: B batch, N frames, L text tokens.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from tokenizers import Encoding, Tokenizer

from model.runtime.errors import BundleError, InputError

ResizeRule = Literal["squash", "center_crop"]
_RULES = ("squash", "center_crop")


def resize_frames(frames: NDArray[np.uint8], size: int, rule: ResizeRule = "squash") -> NDArray[np.uint8]:
    """Resize frames to squares, with antialiased bicubic interpolation.

    Args:
        frames: shape [N, h, w, 3], RGB.
        size: side of the square in pixels.
        rule: "squash" scales each side on its own and cuts nothing off; "center_crop" scales both sides
            equally and keeps the square in the middle.

    Returns:
        shape [N, size, size, 3], RGB; always a new array.

    Raises:
        ValueError: dtype, shape or size is wrong, there is no frame, or the rule is unknown.
    """
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
        raise ValueError(f"frames are {getattr(frames, 'dtype', type(frames).__name__)}: pass a uint8 array")
    if frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
        raise ValueError(f"frames have shape {list(frames.shape)}: pass [N, h, w, 3] with N, h and w ≥ 1")
    if size < 1:
        raise ValueError(f"size is {size}: it must be at least 1 pixel")
    if rule not in _RULES:
        raise ValueError(f"resize rule {rule!r} is unknown: use one of {list(_RULES)}")
    out = np.empty((len(frames), size, size, 3), np.uint8)
    for i, frame in enumerate(frames):
        out[i] = np.asarray(resize_image(Image.fromarray(frame), size, rule))
    return out


def resize_image(image: Image.Image, size: int, rule: ResizeRule) -> Image.Image:
    """Resize one image to a square; see `resize_frames`."""
    width, height = image.size
    box = (0.0, 0.0, float(width), float(height))
    if rule == "center_crop":
        side = min(height, width)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box)


def load_image(path: str | Path) -> NDArray[np.uint8]:
    """Read a photo as it is meant to be seen: turned upright by its EXIF orientation.

    Returns:
        shape [h, w, 3], RGB; transparent parts are white.

    Raises:
        InputError: the file is missing, not a photo, damaged, or truncated; the message names it.
    """
    try:
        with Image.open(path) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I;16") or upright.mode == "I":
                # Pillow clips 16-bit grey at 255 instead of scaling it.
                grey = (np.asarray(upright).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
                upright = Image.fromarray(grey)
            if upright.has_transparency_data:
                rgba = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
            return np.array(upright.convert("RGB"))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    # Pillow's readers raise almost any error on damaged input.
    except Exception as error:
        raise InputError(f"{path} is not a readable photo: {error}") from error


def normalise_text(text: str) -> str:
    """Normalise to Unicode NFKC, replace broken surrogates, and collapse white space to single spaces."""
    # Half a surrogate pair (from a JSON escape or a broken argument) has no UTF-8 form: tokenizers would
    # fail.
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return " ".join(unicodedata.normalize("NFKC", whole).split())


@dataclass(frozen=True)
class TokenBatch:
    """Tokenised texts. `input_ids` and `attention_mask` are int64, shape [B, L]; the mask is 1 on tokens."""

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.input_ids.ndim != 2 or self.input_ids.shape != self.attention_mask.shape:
            raise ValueError(
                f"input_ids {list(self.input_ids.shape)} and attention_mask "
                f"{list(self.attention_mask.shape)} must both be [B, L]"
            )

    def __len__(self) -> int:
        return len(self.input_ids)


@contextmanager
def _tokenizing() -> Iterator[None]:
    try:
        with _panics_as_errors():
            yield
    except Exception as error:
        raise BundleError(f"the bundle's tokenizer fails on this text: {error}") from error


@contextmanager
def _panics_as_errors() -> Iterator[None]:
    """Turn a panic of the tokenizers package, which is written in Rust, into a RuntimeError.

    A panic is no Exception, so that it would pass by all that handles errors.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise RuntimeError(f"panic: {' '.join(str(error).split())[:200]}") from error


class TextTokenizer:
    """Turns texts into padded token ids with a `tokenizer.json` of the `tokenizers` package. Thread-safe.

    Attributes:
        tokenizer: the package's own object, which cuts texts to `context_length`.
        num_special: how many tokens it adds to a text.
        context_length: the most tokens of a text, with these.
    """

    def __init__(self, tokenizer: Tokenizer, context_length: int) -> None:
        special: int = tokenizer.num_special_tokens_to_add(is_pair=False)
        if context_length <= special:
            raise InputError(
                f"context_length is {context_length}, of which {special} are the tokenizer's own: "
                "it must leave room for at least 1 token"
            )
        padding = tokenizer.padding or {}
        pad_token = padding.get("pad_token", "[PAD]")
        pad_id = padding.get("pad_id")
        if pad_id is None:
            pad_id = next((i for t in ("[PAD]", "<pad>") if (i := tokenizer.token_to_id(t)) is not None), 0)
        # Replace the file's own truncation and padding, often to a fixed length.
        tokenizer.enable_truncation(context_length)
        tokenizer.enable_padding(pad_id=pad_id, pad_token=pad_token)
        self.tokenizer = tokenizer
        self.num_special = special
        self.context_length = context_length

    @classmethod
    def from_file(cls, path: str | Path, context_length: int) -> TextTokenizer:
        """Read a `tokenizer.json`.

        Raises:
            InputError: the file is missing or not a tokenizer, or `context_length` leaves no room for a
                token.
        """
        try:
            with _panics_as_errors():
                return cls(Tokenizer.from_file(str(path)), context_length)
        except InputError:
            raise
        # The package raises a bare Exception.
        except Exception as error:
            raise InputError(f"{path} is not a readable tokenizer file: {error}") from error

    def encode(self, text: str) -> Encoding:
        """The tokens of a text and their places in it, cut to `context_length`; what is left out overflows.

        Raises:
            BundleError: the tokenizer fails on the text.
        """
        with _tokenizing():
            return self.tokenizer.encode(text)

    def __call__(self, texts: Sequence[str]) -> TokenBatch:
        """Normalise and tokenise texts, cut to `context_length` and padded to the longest.

        Raises:
            ValueError: there is no text, or a text is not a string or has no token.
            BundleError: the tokenizer fails on a text.
        """
        if isinstance(texts, str):
            raise ValueError("texts is one string: pass a list of strings")
        if len(texts) == 0:
            raise ValueError("texts is empty (shape [0]): pass at least one text")
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise ValueError(f"text {i} is {type(text).__name__}: pass strings")
        normalised = [normalise_text(text) for text in texts]
        if "" in normalised:
            raise InputError(f"text {normalised.index('')} is empty: give it at least one word")
        with _tokenizing():
            encodings = self.tokenizer.encode_batch_fast(normalised)
        ids = np.array([encoding.ids for encoding in encodings], np.int64)
        mask = np.array([encoding.attention_mask for encoding in encodings], np.int64)
        empty = np.flatnonzero(mask.sum(axis=1) <= self.num_special)
        if len(empty):
            raise InputError(f"text {empty[0]} has no token: {texts[empty[0]]!r}; give it at least one word")
        return TokenBatch(ids, mask)
