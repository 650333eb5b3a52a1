"""Films whose place in every answer can be computed: each segment is of one colour, stored without loss."""

import functools
import hashlib
import io
import random
from dataclasses import dataclass

import av
import numpy as np
from numpy.typing import NDArray

from tests.support.toy_bundle import frame_embedding

#: The length of one segment of a film that has several; the indexer divides a film into equal segments.
PART_SECONDS = 24
_SIZE = (32, 24)

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Film:
    """A film: the colours of its segments. Without colours, it is a file that no decoder can read."""

    colours: tuple[Colour, ...]
    damage: int = 0

    @functools.cached_property
    def data(self) -> bytes:
        """The file's bytes, the same each time."""
        if not self.colours:
            return random.Random(self.damage).randbytes(2000)
        return _encode(self.colours)

    @functools.cached_property
    def sha256(self) -> str:
        """The checksum of the file, by which the library knows what it has read."""
        return hashlib.sha256(self.data).hexdigest()

    @functools.cached_property
    def embeddings(self) -> NDArray[np.float32]:
        """What the toy bundle makes of each segment, [segments, 8]."""
        frames = np.array(self.colours, np.uint8)[:, None, None, :]
        return frame_embedding(frames)


def random_film(chance: random.Random) -> Film:
    """A film of one segment, now and then of two, or one that is damaged."""
    if chance.random() < 0.1:
        return Film((), chance.randrange(1 << 30))
    parts = 2 if chance.random() < 0.2 else 1
    return Film(tuple(_colour(chance) for _ in range(parts)))


def _colour(chance: random.Random) -> Colour:
    return chance.randrange(256), chance.randrange(256), chance.randrange(256)


def _encode(colours: tuple[Colour, ...]) -> bytes:
    """A Matroska file in FFV1, a picture a second, which keeps every colour as it is."""
    seconds = PART_SECONDS if len(colours) > 1 else 2
    out = io.BytesIO()
    with av.open(out, "w", format="matroska", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("ffv1", rate=1)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = *_SIZE, "bgr0"
        for colour in colours:
            pixels = np.full((_SIZE[1], _SIZE[0], 3), colour, np.uint8)
            for _ in range(seconds):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="bgr0")
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()
