"""Which sampled pictures need no reading: those without edges, and those like the picture read before."""

import numpy as np
from numpy.typing import NDArray

#: Pictures are compared by the mean brightness of blocks of so many pixels a side.
_BLOCK = 8
#: Blocks that differ by less than this, of 255, look the same: compression alone changes them by less.
_BLOCK_CHANGE = 6.0
#: Neighbouring pixels that differ by more than this are an edge, as between a letter and what is behind it.
_EDGE = 16
#: The smallest readable word has more pixels on edges than this.
_FEWEST_EDGES = 24


def brightness(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The brightness of each pixel of an RGB picture. uint8 [h, w, 3] → uint8 [h, w]."""
    # The weights of Rec. 601 in 256ths: whole numbers are several times faster than floats.
    wide = picture.astype(np.uint16)
    weighted = 77 * wide[:, :, 0] + 150 * wide[:, :, 1] + 29 * wide[:, :, 2]
    return (weighted >> 8).astype(np.uint8)


def is_blank(grey: NDArray[np.uint8]) -> bool:
    """Whether a picture has too few edges for a word: black, of one colour, or a smooth transition."""
    steps = np.abs(np.diff(grey.astype(np.int16), axis=1))
    return int(np.count_nonzero(steps > _EDGE)) < _FEWEST_EDGES


class LastPicture:
    """Remembers the picture that was read last, to compare others with it."""

    def __init__(self) -> None:
        self._means: NDArray[np.float32] | None = None

    def is_like(self, grey: NDArray[np.uint8]) -> bool:
        """Whether a picture shows the same. If it does not, it is remembered in place of the other.

        Changes that are too small for one step add up: a picture is compared with the one that was read.
        """
        means = _block_means(grey)
        last, self._means = self._means, means
        if last is None or last.shape != means.shape or np.abs(last - means).max() >= _BLOCK_CHANGE:
            return False
        self._means = last
        return True


def _block_means(grey: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The mean of each block; those at the right and lower edges may be smaller. [h, w] → [h / 8, w / 8]."""
    height, width = grey.shape
    rows, columns = np.arange(0, height, _BLOCK), np.arange(0, width, _BLOCK)
    sums = np.add.reduceat(np.add.reduceat(grey, rows, axis=0, dtype=np.uint32), columns, axis=1)
    sizes = np.outer(np.diff(rows, append=height), np.diff(columns, append=width))
    means: NDArray[np.float32] = (sums / sizes).astype(np.float32)
    return means
