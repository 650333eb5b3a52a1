"""Measures what a change of graphs costs: in their outputs, and in the order of pictures for texts.

Shapes: M pictures, Q texts, L text tokens, D joint space.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.runtime.bundle.graphs import FRAME_ENCODER, TEXT_ENCODER, VIDEO_ENCODER
from model.runtime.errors import InputError
from model.runtime.onnx import ort
from model.runtime.preprocessing import Resizing, TextTokenizer, load_image

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
_MOST_PHOTOS = 64
_DRAWN = 12
#: What people search for.
TEXTS = (
    "a dog runs along the beach",
    "a man cooks in a kitchen",
    "children play football on grass",
    "a red car drives through a city at night",
    "a woman plays the guitar",
    "snow falls on mountains",
    "a cat sleeps on a sofa",
    "people dance at a wedding",
    "a plane takes off",
    "waves break on rocks",
    "someone writes on a whiteboard",
    "fireworks over a river",
)


@dataclass(frozen=True)
class Probe:
    """Pictures and texts to measure with.

    Attributes:
        pictures: uint8, shape [M, size, size, 3].
        texts: Q texts.
        source: what the pictures are, for people.
    """

    pictures: NDArray[np.uint8]
    texts: tuple[str, ...]
    source: str

    @classmethod
    def of_photos(cls, folder: Path, resizing: Resizing) -> Probe:
        """The photos of a folder, at most 64 of them.

        Raises:
            InputError: there are fewer than two, or one cannot be read.
        """
        paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in _SUFFIXES)[:_MOST_PHOTOS]
        if len(paths) < 2:
            raise InputError(f"{folder} holds {len(paths)} photos: --probe needs at least 2", "probe")
        pictures = np.concatenate([resizing.frames(load_image(path)[None]) for path in paths])
        return cls(pictures, TEXTS, f"{len(paths)} photos of {folder.name}")

    @classmethod
    def drawn(cls, resizing: Resizing) -> Probe:
        """Pictures of coloured noise, from coarse to fine."""
        rng = np.random.default_rng(0)
        grids = [rng.integers(0, 256, (1, 2 + i, 2 + i, 3), np.uint8) for i in range(_DRAWN)]
        square = Resizing(resizing.size)
        return cls(np.concatenate([square.frames(grid) for grid in grids]), TEXTS, f"{_DRAWN} drawn pictures")


@dataclass(frozen=True)
class Loss:
    """What a change costs.

    Attributes:
        pictures: of what it was measured on.
        outputs: by graph, the largest difference of an embedding's number.
        same_first: share of texts for which the same picture comes first.
        rank_correlation: mean over texts of Spearman's correlation of the pictures' order.
    """

    pictures: str
    outputs: Mapping[str, float]
    same_first: float
    rank_correlation: float

    def as_object(self) -> dict[str, object]:
        """For JSON, in as many digits as mean something."""
        values = asdict(self)
        values["outputs"] = {name: float(f"{worst:.2g}") for name, worst in self.outputs.items()}
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}

    def __str__(self) -> str:
        outputs = ", ".join(f"{name} {worst:.2g}" for name, worst in self.outputs.items())
        return (
            f"from fp32 {outputs}; the first picture is the same for {self.same_first:.0%} of texts, "
            f"rank correlation {self.rank_correlation:.4f} ({self.pictures})"
        )


def loss_of(
    exact: Mapping[str, Path], changed: Mapping[str, Path], tokenize: TextTokenizer, probe: Probe
) -> Loss:
    """Compare changed graphs with exact ones.

    Args:
        exact: the files of `frame_encoder.onnx` or `video_encoder.onnx`, and of `text_encoder.onnx`. A video
            encoder reads segments of as many pictures as it takes, one from each picture on.
        changed: the same graphs, changed.
        tokenize: the bundle's tokenizer.
        probe: what to measure with.
    """
    before, after = (_embeddings(graphs, tokenize, probe) for graphs in (exact, changed))
    outputs = {
        name: float(np.abs(new - old).max())
        for name, old, new in zip((picture_graph(exact), TEXT_ENCODER), before, after, strict=True)
    }
    same, correlation = agreement(*(texts @ frames.T for frames, texts in (before, after)))
    return Loss(probe.source, outputs, same, correlation)


def picture_graph(graphs: Collection[str]) -> str:
    """The name of the graph that reads pictures."""
    return FRAME_ENCODER if FRAME_ENCODER in graphs else VIDEO_ENCODER


def agreement(before: NDArray[np.float32], after: NDArray[np.float32]) -> tuple[float, float]:
    """How much the orders of pictures by two scores agree, each [Q, M] with M ≥ 2.

    Returns:
        the share of texts for which the same picture comes first, and the mean over texts of Spearman's
        correlation of the orders.
    """
    first, second = (np.argsort(np.argsort(-scores, axis=1), axis=1) for scores in (before, after))
    same = float((first.argmin(axis=1) == second.argmin(axis=1)).mean())
    count = before.shape[1]
    # Spearman's correlation of two orders without ties: 1 − 6 Σd² / (M (M² − 1)).
    squares = ((first - second) ** 2).sum(axis=1)
    return same, float((1 - 6 * squares / (count * (count**2 - 1))).mean())


def _embeddings(
    graphs: Mapping[str, Path], tokenize: TextTokenizer, probe: Probe
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Embeddings of the pictures or segments [M, D] and of the texts [Q, D], one after the other."""
    reader = ort.InferenceSession(graphs[picture_graph(graphs)], providers=["CPUExecutionProvider"])
    if FRAME_ENCODER in graphs:
        # The normalised embedding, in every family; the embedding itself may have any length.
        pictures = [reader.run(["frame_salience"], {"frames": p[None]})[0] for p in probe.pictures]
    else:
        count = reader.get_inputs()[0].shape[1]
        mask = np.ones((1, count), np.float32)
        pictures = [
            reader.run(["segment_embedding"], {"frames": segment[None], "frame_mask": mask})[0]
            for segment in _segments(probe.pictures, count)
        ]
    del reader
    encoder = ort.InferenceSession(graphs[TEXT_ENCODER], providers=["CPUExecutionProvider"])
    batches = [tokenize([text]) for text in probe.texts]
    texts = [
        encoder.run(["text_embedding"], {"input_ids": b.input_ids, "attention_mask": b.attention_mask})[0]
        for b in batches
    ]
    return _joined(pictures), _joined(texts)


def _segments(pictures: NDArray[np.uint8], frames: int) -> Iterator[NDArray[np.uint8]]:
    """M segments of some pictures, [frames, size, size, 3]: those from each picture on, around the end."""
    for first in range(len(pictures)):
        yield pictures[(first + np.arange(frames)) % len(pictures)]


def _joined(parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    joined: NDArray[np.float32] = np.concatenate(parts)
    return joined
