"""Hubness: some segments are near to most texts, whatever these say, and push better ones down.

Reference texts measure it: a segment's hubness is the mean cosine of its embedding with those of the nearest
reference texts. A search subtracts it, times a weight, from the segment's similarity.

Shapes: B segments, R reference texts, D joint space.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.runtime.bundle.references import nearest_mean
from model.runtime.ranking import cut_embeddings


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
        return nearest_mean(segment_embeddings, references, self.neighbours)
