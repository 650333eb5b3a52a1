"""Embeddings that a bundle carries to compare with: of reference texts and of reference images.

A file is a NumPy array, int8 [R, D], whose rows are scaled to unit length when they are read; or float16, as
bundles of before have it. Reference images are many, so that only their parts along a few axes are kept.

Shapes: B embeddings, R references, D joint space, A axes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.runtime.bundle.files import EXPORT_AGAIN
from model.runtime.bundle.graphs import REFERENCE_AXES, REFERENCE_IMAGES
from model.runtime.errors import BundleError
from model.runtime.ranking import cut_embeddings

#: The nearest references whose mean counts, unless the author of a bundle chooses another number.
NEIGHBOURS = 10
#: Embeddings compared with the references at once.
_ROWS_A_PASS = 256
#: Lengths of embeddings stored as float16 differ from 1 by their rounding.
_UNIT_TOLERANCE = 1e-2
_KINDS: dict[str, np.dtype[Any]] = {"|i1": np.dtype("i1"), "<f2": np.dtype("<f2")}


def nearest_mean(
    embeddings: NDArray[np.float32], references: NDArray[np.float32], neighbours: int = NEIGHBOURS
) -> NDArray[np.float32]:
    """The mean cosine of embeddings with their nearest references. [B, D], [R, D] → [B]

    Args:
        embeddings: of unit length.
        references: of unit length; fewer than `neighbours` all count.
        neighbours: how many of the nearest count.
    """
    first = max(0, len(references) - neighbours)
    out = np.empty(len(embeddings), np.float32)
    for start in range(0, len(out), _ROWS_A_PASS):
        part = slice(start, start + _ROWS_A_PASS)
        similarity = embeddings[part] @ references.T
        nearest = np.partition(similarity, first, axis=1)[:, first:]
        out[part] = nearest.mean(axis=1, dtype=np.float64)
    return out


def references_file(references: NDArray[np.floating]) -> bytes:
    """The content of a file of references [R, D]: each row scaled to int8."""
    rows = np.asarray(references, np.float32)
    most = np.maximum(np.abs(rows).max(axis=1, keepdims=True, initial=0), 1e-12)
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(np.rint(rows / most * 127), np.int8))
    return buffer.getvalue()


def read_references(path: Path, dim: int) -> NDArray[np.float32]:
    """The references in a bundle's file, float32 [R, D], of unit length.

    Raises:
        BundleError: the file holds something else.
    """
    try:
        with path.open("rb") as file:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError("another version")
            shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
            content = file.read()
    # The header is a Python literal: what its parsers raise for one of a stranger has no common base.
    except Exception as error:
        what = f"is not a NumPy array of version 1.0 ({type(error).__name__})"
        raise BundleError(f"{path} {what}: {EXPORT_AGAIN}") from error
    kind = _KINDS.get(dtype.str)
    if kind is None or by_columns or len(shape) != 2 or shape[1] != dim:
        raise BundleError(
            f"{path} holds {dtype} {list(shape)} instead of int8 or float16 [R, {dim}]: {EXPORT_AGAIN}"
        )
    # The header may tell any number: believe the file's size.
    if len(content) != kind.itemsize * shape[0] * dim:
        raise BundleError(f"{path} has {len(content)} bytes of values for {shape[0]} rows: {EXPORT_AGAIN}")
    stored = np.frombuffer(content, kind).reshape(shape).astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        lengths = np.linalg.norm(stored, axis=1)
        is_unit = np.abs(lengths - 1) < _UNIT_TOLERANCE if kind.itemsize == 2 else lengths > 0
    if not is_unit.all():
        raise BundleError(f"{path} holds embeddings that are not of unit length: {EXPORT_AGAIN}")
    unit: NDArray[np.float32] = stored if kind.itemsize == 2 else stored / lengths[:, None]
    return unit


@dataclass(frozen=True, eq=False)
class ReferenceImages:
    """Images that queries are compared with: what a query finds in pictures that nobody searches.

    Attributes:
        axes: float32 [A, D], of unit length and at right angles.
        images: the images' embeddings along the axes, float32 [R, A], of unit length.
    """

    axes: NDArray[np.float32]
    images: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.images)

    @classmethod
    def of(cls, embeddings: NDArray[np.float32], most_axes: int) -> ReferenceImages:
        """Embeddings [R, D] along the axes that keep most of their squares, `most_axes` at most."""
        axes = np.linalg.svd(embeddings, full_matrices=False)[2][:most_axes].astype(np.float32)
        return cls(axes, cut_embeddings(embeddings @ axes.T, len(axes)))

    def usual(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """The mean cosine of embeddings of unit length with the images nearest to them. [B, D] → [B]"""
        return nearest_mean(embeddings @ self.axes.T, self.images)

    def files(self) -> Mapping[str, bytes]:
        """The content of a bundle's files, by their names."""
        return {REFERENCE_AXES: references_file(self.axes), REFERENCE_IMAGES: references_file(self.images)}

    @classmethod
    def read(cls, folder: Path, dim: int) -> ReferenceImages:
        """The reference images in a bundle's folder.

        Raises:
            BundleError: a file holds something else.
        """
        axes = read_references(folder / REFERENCE_AXES, dim)
        return cls(axes, read_references(folder / REFERENCE_IMAGES, len(axes)))
