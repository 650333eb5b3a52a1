"""Another image encoder's embeddings of training images, which a smaller model learns from.

A file `.npz` with `names` [n], the names of the images' files, `encoder`, what made them, and `embedding`
float16 [n, V, Ht], of length 1, of the first V views of each, or zeros where a view was not embedded: that of
the image itself, its first view, then stands for it. [n, Ht] is read as one view.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from model.arrays import Array, Frames, unit_rows, unreadable
from model.backbones.clip import CLIP_PIXELS
from model.backbones.packaged_clip import CLIP_PACKAGE, package_graph
from model.data.stills import CaptionedStills
from model.data.views import VIEW_SEED, view_of
from model.progress import Progress, Report
from model.runtime.errors import InputError
from model.runtime.files import replacing
from model.runtime.onnx import ort

_REMEDY = "make it with `reelfind-model teacher`"
# Mean and deviation of pixels, as shares of 255.
_MEAN, _DEVIATION = (np.array(values, np.float32) for values in CLIP_PIXELS)


@dataclass(frozen=True)
class Teacher:
    """Another encoder's embeddings of images, by the names of their files.

    Attributes:
        encoder: what made them.
        names: of the n images.
        embedding: float32 [n, V, Ht], of length 1: of the first V views of each image.
    """

    encoder: str
    names: tuple[str, ...]
    embedding: Array

    def of(self, images: Sequence[Path], views: int) -> Array:
        """The embeddings of each image's views; one may stand for all. → float32 [images, 1 or views, Ht]

        Raises:
            InputError: there is none of some image.
        """
        places = {name: place for place, name in enumerate(self.names)}
        missing = [image.name for image in images if image.name not in places]
        if missing:
            raise InputError(
                f"data.teacher lacks {len(missing)} of {len(images)} images, such as {missing[0]}: {_REMEDY} "
                "for the folders of data, data.second and data.uncaptioned"
            )
        known = self.embedding[[places[image.name] for image in images], :views]
        if known.shape[1] == 1:
            return known
        rows = np.repeat(known[:, :1], views, axis=1)
        is_known = known.any(axis=-1)
        rows[:, : known.shape[1]][is_known] = known[is_known]
        return rows


def read_teacher(path: Path) -> Teacher:
    """Read the embeddings that `write_teacher` wrote.

    Raises:
        InputError: the file is missing, or holds something else.
    """
    if not path.is_file():
        raise InputError(f"data.teacher={path}: no such file; {_REMEDY}")
    try:
        with np.load(path, allow_pickle=False) as stored:
            names = tuple(str(name) for name in stored["names"])
            embedding: Array = np.asarray(stored["embedding"], np.float32)
            encoder = str(stored["encoder"])
    except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
        raise InputError(
            f"data.teacher={path} holds no embeddings ({unreadable(error)}): {_REMEDY}"
        ) from error
    if embedding.ndim == 2:
        embedding = embedding[:, None]
    if (
        embedding.ndim != 3
        or not embedding.shape[1]
        or len(names) != len(embedding)
        or not np.isfinite(embedding).all()
    ):
        raise InputError(f"data.teacher={path} holds embeddings that fit no names: {_REMEDY}")
    return Teacher(encoder, names, unit_rows(embedding))


def write_teacher(
    path: Path, sets: Sequence[CaptionedStills], graph: Path | None, report: Report, *, views: int = 1
) -> None:
    """Embed all images of some sets, and write the embeddings.

    Args:
        path: the `.npz` to write, whole or not at all.
        sets: whose images are embedded; no two images may have the same name.
        graph: an ONNX graph of one input, float [B, 3, s, s] normalised as CLIP's, whose first output is
            [B, Ht]; None: that of `CLIP_PACKAGE`.
        report: told how long it will take.
        views: how many views of each captioned image are embedded, as training shows them; the first is the
            image itself. One of those without captions.

    Raises:
        InputError: the package is not installed, the graph is another one, an image cannot be read, or two
            images have the same name.
    """
    images = [(stills, image) for stills in sets for image in range(len(stills.images))]
    names = [stills.images[image].name for stills, image in images]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"two images are named {twice}: rename one of them")
    encode = _Encoder(graph or package_graph())
    places = [
        (row, view)
        for row, (stills, image) in enumerate(images)
        for view in range(views if stills.owners[image] >= 0 else 1)
    ]
    progress = Progress("views of images", len(places), report)
    rows = []

    def embed(place: tuple[int, int]) -> Array:
        row, view = place
        return encode(view_of(*images[row], view, encode.size, VIEW_SEED))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for embedded in pool.map(embed, places):
            rows.append(embedded)
            progress.step()
    embedding = np.zeros((len(images), views, rows[0].shape[-1]), np.float32)
    embedding[tuple(np.array(places).T)] = unit_rows(np.stack(rows))
    encoder = CLIP_PACKAGE if graph is None else graph.name
    with replacing(path) as temporary, temporary.open("wb") as out:
        np.savez(
            out, names=np.array(names), embedding=embedding.astype(np.float16), encoder=np.array(encoder)
        )


class _Encoder:
    """An image encoder in a graph, safe to use from several threads."""

    def __init__(self, graph: Path) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        try:
            self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
            (image,) = self._session.get_inputs()
            self._input, self._output = image.name, self._session.get_outputs()[0].name
            self.size = int(image.shape[-1])
        # ONNX Runtime raises many kinds of errors.
        except Exception as error:
            raise InputError(f"{graph} is no graph of one image input [B, 3, size, size]: {error}") from error

    def __call__(self, image: Frames) -> Array:
        """The embedding of an image. Shape uint8 [size, size, 3] → float32 [Ht]

        Each image is encoded alone: a graph with dynamic quantisation scales an image by its batch.
        """
        pixels = (image.astype(np.float32) / np.float32(255) - _MEAN) / _DEVIATION
        feed = {self._input: np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])}
        (embedding,) = self._session.run([self._output], feed)
        return np.asarray(embedding[0], np.float32)
