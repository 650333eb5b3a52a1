"""Encodes reference texts with the text encoder of the bundle that is to hold them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.arrays import Array
from model.families.encoder import Encoder
from model.runtime.bundle import HubnessCorrection
from model.runtime.bundle.references import NEIGHBOURS
from model.runtime.errors import InputError
from model.runtime.onnx import ort
from model.runtime.preprocessing import TextTokenizer

_TEXTS_A_PASS = 128


@dataclass(frozen=True)
class ReferenceTexts:
    """The hubness correction that a bundle is to have.

    Attributes:
        weight: the factor of a segment's hubness, see `HubnessCorrection`.
        texts: the reference texts.

    Raises:
        InputError: there are too few texts.
    """

    weight: float
    texts: Sequence[str]

    def __post_init__(self) -> None:
        if len(self.texts) < NEIGHBOURS:
            raise InputError(
                f"{len(self.texts)} reference texts: a hubness correction needs at least {NEIGHBOURS}"
            )

    def saliences(self, encoder: Encoder) -> Array:
        """The texts' saliences, for the correction of frames. → [R, S]"""
        ordered = sorted(self.texts, key=len)
        parts = [
            encoder.texts(ordered[start : start + _TEXTS_A_PASS]).salience
            for start in range(0, len(ordered), _TEXTS_A_PASS)
        ]
        return np.concatenate(parts)

    def encoded(self, text_encoder: bytes, tokenizer: Path, context_length: int) -> HubnessCorrection:
        """The correction, with the texts encoded by a serialised `text_encoder.onnx`."""
        session = ort.InferenceSession(text_encoder, providers=["CPUExecutionProvider"])
        tokenize = TextTokenizer.from_file(tokenizer, context_length)
        parts: list[Array] = []
        # By length, so that little is padded.
        ordered = sorted(self.texts, key=len)
        for start in range(0, len(ordered), _TEXTS_A_PASS):
            batch = tokenize(ordered[start : start + _TEXTS_A_PASS])
            feed = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
            parts += session.run(["text_embedding"], feed)
        return HubnessCorrection(self.weight, NEIGHBOURS, np.concatenate(parts))
