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

ResizeRule = Literal["squash", "center_crop", "scale_crop"]
Interpolation = Literal["bicubic", "bilinear", "lanczos"]
_RULES: tuple[ResizeRule, ...] = ("squash", "center_crop", "scale_crop")
_RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}
# A picture that is this much longer than wide is not scaled as a whole.
_LONGEST = 16
#: Frames of videos and pictures are read with at most so many pixels on the longer side.
READ_SIDE = 512


@dataclass(frozen=True)
class Resizing:
    """How a frame becomes a square, always antialiased.

    Attributes:
        size: side of the square in pixels.
        rule: "squash" scales each side on its own and cuts nothing off; "center_crop" scales both sides
            equally and keeps the square in the middle; "scale_crop" does so in whole pixels, as the image
            processors of published models do: it scales the shorter side to `shorter_side` pixels and cuts
            the square of `size` pixels out of the middle.
        interpolation: the filter.
        shorter_side: for "scale_crop", at least `size`; 0 for the other rules.

    Raises:
        ValueError: a size or the rule is wrong.
    """

    size: int
    rule: ResizeRule = "squash"
    interpolation: Interpolation = "bicubic"
    shorter_side: int = 0

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size is {self.size}: it must be at least 1 pixel")
        if self.rule not in _RULES:
            raise ValueError(f"resize rule {self.rule!r} is unknown: use one of {list(_RULES)}")
        if self.interpolation not in _RESAMPLING:
            raise ValueError(
                f"interpolation {self.interpolation!r} is unknown: use one of {list(_RESAMPLING)}"
            )
        if self.rule == "scale_crop" and self.shorter_side < self.size:
            raise ValueError(
                f"shorter_side is {self.shorter_side}: a square of {self.size} pixels needs at least that"
            )
        if self.rule != "scale_crop" and self.shorter_side:
            raise ValueError(f"shorter_side is {self.shorter_side}: only the rule 'scale_crop' reads it")

    def image(self, image: Image.Image) -> Image.Image:
        """Resize one image to the square."""
        resampling = _RESAMPLING[self.interpolation]
        if self.rule != "scale_crop":
            return image.resize((self.size, self.size), resampling, box=self._box(*image.size))
        width, height = (self.shorter_side * side // min(image.size) for side in image.size)
        left, top = (width - self.size) // 2, (height - self.size) // 2
        right, bottom = left + self.size, top + self.size
        if max(width, height) <= _LONGEST * self.shorter_side:
            return image.resize((width, height), resampling).crop((left, top, right, bottom))
        # The whole of a very long and narrow picture would fill the memory. This rounds a little differently.
        across, down = image.width / width, image.height / height
        box = (left * across, top * down, right * across, bottom * down)
        return image.resize((self.size, self.size), resampling, box=box)

    def frames(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize RGB frames, shape [N, h, w, 3] → [N, size, size, 3]; always a new array.

        Raises:
            ValueError: dtype or shape is wrong, or there is no frame.
        """
        if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
            kind = getattr(frames, "dtype", type(frames).__name__)
            raise ValueError(f"frames are {kind}: pass a uint8 array")
        if frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
            raise ValueError(f"frames have shape {list(frames.shape)}: pass [N, h, w, 3] with N, h and w ≥ 1")
        out = np.empty((len(frames), self.size, self.size, 3), np.uint8)
        for i, frame in enumerate(frames):
            out[i] = np.asarray(self.image(Image.fromarray(frame)))
        return out

    def _box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The part of an image that becomes the square: left, top, right, bottom."""
        if self.rule == "squash":
            return 0.0, 0.0, float(width), float(height)
        side = min(height, width)
        left, top = (width - side) / 2, (height - side) / 2
        return left, top, left + side, top + side


def resize_frames(frames: NDArray[np.uint8], size: int, rule: ResizeRule = "squash") -> NDArray[np.uint8]:
    """Resize RGB frames with bicubic interpolation, shape [N, h, w, 3] → [N, size, size, 3].

    Raises:
        ValueError: as `Resizing` and `Resizing.frames`.
    """
    return Resizing(size, rule).frames(frames)


def load_image(path: str | Path) -> NDArray[np.uint8]:
    """Read a photo as it is meant to be seen: turned upright by its EXIF orientation.

    Returns:
        shape [h, w, 3], RGB; transparent parts are white.

    Raises:
        InputError: the file is missing, not a photo, damaged, or truncated; the message names it.
    """
    try:
        with Image.open(path) as image:
            return np.array(upright_rgb(image))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    # Pillow's readers raise almost any error on damaged input.
    except Exception as error:
        raise InputError(f"{path} is not a readable photo: {error}") from error


def upright_rgb(image: Image.Image, max_side: int | None = None) -> Image.Image:
    """An open image, of any mode, as it is meant to be seen; of a moving one, the first picture.

    Args:
        image: the image; it need not be loaded yet.
        max_side: pixels on the longer side, at most; None keeps the size.

    Returns:
        RGB, turned upright by its EXIF orientation; transparent parts are white.

    Raises:
        Exception: whatever Pillow raises where the image is damaged.
    """
    image.load()
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16") or upright.mode == "I":
        # Pillow clips 16-bit grey at 255 instead of scaling it.
        upright = Image.fromarray((np.asarray(upright) >> 8).clip(0, 255).astype(np.uint8))
    is_transparent = upright.has_transparency_data
    mode = "RGBA" if is_transparent else "RGB"
    if upright.mode != mode:
        upright = upright.convert(mode)
    if max_side is not None and (factor := max(upright.size) // (2 * max_side)) > 1:
        # What follows takes several times the memory of the image.
        upright = upright.reduce(factor)
    if is_transparent:
        white = Image.new("RGBA", upright.size, "white")
        upright = Image.alpha_composite(white, upright).convert("RGB")
    if max_side is not None:
        upright.thumbnail((max_side, max_side), Image.Resampling.BICUBIC)
    return upright


UnicodeForm = Literal["NFKC", "as_is"]


def normalise_text(text: str, form: UnicodeForm = "NFKC") -> str:
    """Replace broken surrogates, collapse white space to single spaces, and normalise to a form of Unicode.

    Args:
        text: as typed.
        form: "NFKC", or "as_is" for tokenizers that bring their own normalisation.
    """
    # Half a surrogate pair (from a JSON escape or a broken argument) has no UTF-8 form: tokenizers would
    # fail.
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return " ".join((unicodedata.normalize("NFKC", whole) if form == "NFKC" else whole).split())


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
        pad_id: the id that fills up shorter texts.
        unicode_form: the form of Unicode that texts have before it reads them.
    """

    def __init__(self, tokenizer: Tokenizer, context_length: int, unicode_form: UnicodeForm = "NFKC") -> None:
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
        self.pad_id: int = pad_id
        self.context_length = context_length
        self.unicode_form: UnicodeForm = unicode_form

    @classmethod
    def from_file(
        cls, path: str | Path, context_length: int, unicode_form: UnicodeForm = "NFKC"
    ) -> TextTokenizer:
        """Read a `tokenizer.json`.

        Raises:
            InputError: the file is missing or not a tokenizer, or `context_length` leaves no room for a
                token.
        """
        try:
            with _panics_as_errors():
                return cls(Tokenizer.from_file(str(path)), context_length, unicode_form)
        except InputError:
            raise
        # The package raises a bare Exception.
        except Exception as error:
            raise InputError(f"{path} is not a readable tokenizer file: {error}") from error

    def normalise(self, text: str) -> str:
        """A text in the form that the tokenizer reads, see `normalise_text`."""
        return normalise_text(text, self.unicode_form)

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
        normalised = [self.normalise(text) for text in texts]
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

    def join(self, batches: Sequence[TokenBatch]) -> TokenBatch:
        """The texts of several batches as one, padded to the longest as `__call__` would.

        Raises:
            ValueError: there is no batch.
        """
        if not batches:
            raise ValueError("batches is empty: pass at least one")
        length = max(batch.input_ids.shape[1] for batch in batches)
        total = sum(len(batch.input_ids) for batch in batches)
        ids = np.full((total, length), self.pad_id, np.int64)
        mask = np.zeros((total, length), np.int64)
        start = 0
        for batch in batches:
            count, width = batch.input_ids.shape
            ids[start : start + count, :width] = batch.input_ids
            mask[start : start + count, :width] = batch.attention_mask
            start += count
        return TokenBatch(ids, mask)
