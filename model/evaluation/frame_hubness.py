"""The hubness correction of frames: some frames are relevant for most texts, whatever these say.

A frame's hubness is its mean relevance for the nearest of some reference texts. Minus that, times
a weight, becomes a further number of the frame's salience, and 1 a further number of each text's: so their
product is the corrected relevance, and nothing that stores or compares saliences knows of it.

Shapes: B frames or texts, R reference texts, S salience.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from model.arrays import Array, Frames
from model.families.encoder import Encoder, Profile
from model.runtime.bundle import FrameEncoding, HubnessCorrection, TextEncoding


class FrameHubnessEncoder:
    """An encoder whose saliences are corrected; see `model.families.encoder.Encoder`."""

    def __init__(self, encoder: Encoder, correction: HubnessCorrection) -> None:
        """Correct an encoder.

        Args:
            encoder: gives the saliences as they are.
            correction: its weight, and the saliences of the reference texts, [R, S].
        """
        self._encoder, self._correction = encoder, correction

    @property
    def profile(self) -> Profile:
        """As the encoder's."""
        return self._encoder.profile

    @property
    def has_matcher(self) -> bool:
        """As the encoder's."""
        return self._encoder.has_matcher

    def frames(self, frames: Frames, *, tokens: bool = False) -> FrameEncoding:
        """As the encoder's, with saliences of one number more."""
        encoded = self._encoder.frames(frames, tokens=tokens)
        return replace(encoded, salience=corrected(encoded.salience, self._correction))

    def segments(self, frames: Array, mask: Array) -> Array:
        """As the encoder's."""
        return self._encoder.segments(frames, mask)

    def texts(self, texts: Sequence[str], *, tokens: bool = False) -> TextEncoding:
        """As the encoder's, with saliences of one number more."""
        encoded = self._encoder.texts(texts, tokens=tokens)
        ones = np.ones((len(encoded.salience), 1), np.float32)
        return replace(encoded, salience=np.concatenate([encoded.salience, ones], axis=1))

    def match(self, text: TextEncoding, text_rows: NDArray[np.int64], frame_tokens: Array) -> Array:
        """As the encoder's."""
        return self._encoder.match(text, text_rows, frame_tokens)


def corrected(salience: Array, correction: HubnessCorrection) -> Array:
    """Frames' saliences with their correction as a further number. Shape [B, S] → [B, S + 1]."""
    less = np.float32(-correction.weight) * correction.of(salience)
    return np.concatenate([salience, less[:, None]], axis=1, dtype=np.float32)
