"""Hubness: some segments are near to most texts, whatever these say, and push better ones down.

Reference texts measure it: a segment's hubness is the mean cosine of its embedding with those of the nearest
reference texts. A search subtracts it, times a weight, from the segment's similarity.

Shapes: B segments, R reference texts, D joint space.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.runtime.bundle.files import EXPORT_AGAIN
from model.runtime.bundle.graphs import REFERENCE_TEXTS
from model.runtime.errors import BundleError
from model.runtime.ranking import cut_embeddings

#: The nearest reference texts whose mean counts, unless the author of a bundle chooses another number.
NEIGHBOURS = 10
#: Segments compared with the reference texts at once.
_SEGMENTS_A_PASS = 256
#: Lengths of stored embeddings differ from 1 by their rounding.
_UNIT_TOLERANCE = 1e-2


@dataclass(frozen=True, eq=False)
class HubnessCorrection:
    """What is subtracted from a segment's similarity: `weight` × `of(embedding)`.

    Attributes:
        weight: the factor, 0 or more.
        neighbours: how many of the nearest reference texts count.
        references: embeddings of the reference texts, float32 [R, D], of unit length.

    Raises:
        ValueError: there are fewer reference texts than neighbours.
    """

    weight: float
    neighbours: int
    references: NDArray[np.float32]

    def __post_init__(self) -> None:
        if not 1 <= self.neighbours <= len(self.references):
            raise ValueError(
                f"neighbours is {self.neighbours}: it must be 1 to {len(self.references)}, the number of "
                "reference texts"
            )

    def of(self, segment_embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """The hubness of segments: the mean cosine with the nearest reference texts. [B, D] → [B].

        Where the segments' embeddings are cut to fewer dimensions, so are those of the texts.

        Raises:
            ValueError: the embeddings have another shape, or more dimensions.
        """
        references = self.references
        if segment_embeddings.ndim != 2 or not 0 < segment_embeddings.shape[1] <= references.shape[1]:
            raise ValueError(
                f"segment embeddings of shape {segment_embeddings.shape}: pass [B, {references.shape[1]}]"
            )
        if segment_embeddings.shape[1] < references.shape[1]:
            references = cut_embeddings(references, segment_embeddings.shape[1])
        first = len(self.references) - self.neighbours
        out = np.empty(len(segment_embeddings), np.float32)
        for start in range(0, len(out), _SEGMENTS_A_PASS):
            part = slice(start, start + _SEGMENTS_A_PASS)
            similarity = segment_embeddings[part] @ references.T
            nearest = np.partition(similarity, first, axis=1)[:, first:]
            out[part] = nearest.mean(axis=1, dtype=np.float64)
        return out


def references_file(references: NDArray[np.floating]) -> bytes:
    """The content of `reference_texts.npy`: the embeddings in half precision."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(references, np.dtype("<f2")))
    return buffer.getvalue()


def read_references(folder: Path, dim: int) -> NDArray[np.float32]:
    """The embeddings of a bundle's reference texts, float32 [R, D].

    Raises:
        BundleError: the file holds something else.
    """
    path = folder / REFERENCE_TEXTS
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
    if dtype != np.dtype("<f2") or by_columns or len(shape) != 2 or shape[1] != dim:
        raise BundleError(f"{path} holds {dtype} {list(shape)} instead of float16 [R, {dim}]: {EXPORT_AGAIN}")
    # The header may tell any number: believe the file's size.
    if len(content) != 2 * shape[0] * dim:
        raise BundleError(f"{path} has {len(content)} bytes of values for {shape[0]} texts: {EXPORT_AGAIN}")
    references = np.frombuffer(content, "<f2").reshape(shape).astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        worst = np.abs(np.linalg.norm(references, axis=1) - 1).max(initial=0)
    if not worst < _UNIT_TOLERANCE:
        raise BundleError(f"{path} holds embeddings that are not of unit length: {EXPORT_AGAIN}")
    return references
