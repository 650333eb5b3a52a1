"""Encodes captioned stills with a bundle once, in several views, and keeps the embeddings on disk.

Shapes: I images, V views, C captions, D joint space.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.arrays import Array, Frames, Rows
from model.data.stills import CaptionedStills
from model.data.views import VIEWS_VERSION, view_of
from model.progress import Progress, Report, silent
from model.runtime.bundle import Bundle
from model.runtime.bundle.graphs import FRAME_ENCODER, TEXT_ENCODER
from model.runtime.errors import InputError
from model.runtime.files import replacing

# Small passes stay in the caches of a CPU.
_IMAGES_AT_ONCE, _TEXTS_AT_ONCE = 8, 64
_VERSION = 1


@dataclass(frozen=True)
class EncodedStills:
    """Embeddings of captioned items: photos, or videos of which there are a few frames.

    Attributes:
        views: of each image as it is, and of its augmented views, float32 [I, V, D], of unit length.
        items: the images of each item, in the order of the video.
        texts: of the captions, float32 [C, D], of unit length.
        owners: the item of each caption, int64 [C].
    """

    views: Array
    items: tuple[tuple[int, ...], ...]
    texts: Array
    owners: Rows

    def __len__(self) -> int:
        return len(self.items)

    def join(self, other: EncodedStills) -> EncodedStills:
        """The items of both, these first."""
        shift = len(self.views)
        return EncodedStills(
            np.concatenate([self.views, other.views]),
            self.items + tuple(tuple(image + shift for image in item) for item in other.items),
            np.concatenate([self.texts, other.texts]),
            np.concatenate([self.owners, other.owners + len(self.items)]),
        )


def encode_stills(
    bundle: Bundle,
    stills: CaptionedStills,
    views: int,
    captions: int,
    cache: Path | None = None,
    seed: int = 0,
    report: Report = silent,
) -> EncodedStills:
    """Encode every image in some views, and the first captions of every item.

    Args:
        bundle: encodes images and texts.
        stills: the items.
        views: V; the first one is the image itself.
        captions: captions of an item that are encoded, at most.
        cache: folder that keeps the embeddings; the same encoders, images and captions find them again.
        seed: decides the views.
        report: told of progress.

    Raises:
        InputError: an image cannot be read, or the folder cannot be written.
    """
    texts = [text for own in stills.captions for text in own[:captions]]
    owners = np.repeat(np.arange(len(stills)), [len(own[:captions]) for own in stills.captions])
    path = None if cache is None else cache / f"{_key(bundle, stills, texts, views, seed)}.npz"
    shape = (len(stills.images), views, bundle.manifest.embedding_dim)
    stored = None if path is None else _read(path, shape, len(texts))
    if stored is None:
        stored = _encode_images(bundle, stills, views, seed, report), _encode_texts(bundle, texts, report)
        if path is not None:
            _write(path, *stored)
    images, text_embeddings = stored
    return EncodedStills(images, stills.items, text_embeddings, owners.astype(np.int64))


def _encode_images(bundle: Bundle, stills: CaptionedStills, views: int, seed: int, report: Report) -> Array:
    size, count = bundle.manifest.image.size, len(stills.images)
    progress = Progress("views of images", count * views, report)

    def pixels() -> Iterator[Frames]:
        for image in range(count):
            for view in range(views):
                yield view_of(stills, image, view, size, seed)

    parts: list[Array] = []
    remaining = pixels()
    while batch := list(islice(remaining, _IMAGES_AT_ONCE)):
        parts.append(bundle.encode_frames(np.stack(batch)).embedding)
        progress.step(len(batch))
    return np.concatenate(parts).reshape(count, views, -1)


def _encode_texts(bundle: Bundle, texts: Sequence[str], report: Report) -> Array:
    progress = Progress("captions", len(texts), report)
    result = np.empty((len(texts), bundle.manifest.embedding_dim), np.float32)
    # Texts of a batch are padded to the longest: batches of similar lengths pad little.
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    for first in range(0, len(order), _TEXTS_AT_ONCE):
        rows = order[first : first + _TEXTS_AT_ONCE]
        result[rows] = bundle.encode_text([texts[row] for row in rows]).embedding
        progress.step(len(rows))
    return result


def _key(bundle: Bundle, stills: CaptionedStills, texts: Sequence[str], views: int, seed: int) -> str:
    """A name that changes with the encoders, the images, the captions and the views."""
    files = bundle.manifest.files
    facts = [
        _VERSION,
        files[FRAME_ENCODER].sha256,
        files[TEXT_ENCODER].sha256,
        bundle.manifest.image.model_dump(),
        views,
        seed,
        VIEWS_VERSION,
        [(str(path), path.stat().st_size if path.is_file() else -1) for path in stills.images],
        stills.items,
        texts,
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _read(path: Path, shape: tuple[int, int, int], texts: int) -> tuple[Array, Array] | None:
    """Stored embeddings of images and texts; None where there are none, or damaged ones."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            images: NDArray[np.float32] = stored["images"]
            text_embeddings: NDArray[np.float32] = stored["texts"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if images.shape != shape or text_embeddings.shape != (texts, shape[2]):
        return None
    return images, text_embeddings


def _write(path: Path, images: Array, texts: Array) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            np.savez(temporary, images=images, texts=texts)
    except OSError as error:
        raise InputError(f"cache {path.parent} cannot be written: {error}", "cache") from error
