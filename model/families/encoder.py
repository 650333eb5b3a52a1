"""The interface through which evaluation uses a model: a checkpoint in memory, or an exported bundle.

Shapes: B batch or pairs, N frame slots, n salient frames, P tokens a frame, H width of frame tokens, D joint
space, A answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from model.arrays import Array, Frames
from model.runtime.bundle import FrameEncoding, HubnessCorrection, SegmentEncoding, TextEncoding
from model.runtime.bundle.manifest import SalienceMatch
from model.runtime.preprocessing import Resizing

#: The frames that an answer rests on. salient: chosen by SFP; random: as many; all: every frame; none: the
#: question alone, with tokens of zeros. All but the first are baselines.
FrameChoice = Literal["salient", "random", "all", "none"]
FRAME_CHOICES: tuple[FrameChoice, ...] = get_args(FrameChoice)


@dataclass(frozen=True)
class Profile:
    """How videos are sampled and ranked for a model, unless options say otherwise."""

    resizing: Resizing
    frames_per_segment: int
    segment_seconds: float
    num_salient_frames: int
    num_candidates: int
    ensemble_lambda: float
    #: tokens of a frame that the index keeps, merged; None: all
    tokens_per_frame: int | None
    #: re-ranks by the relevance of the salient frames; None: the matcher re-ranks, if there is one
    salience_match: SalienceMatch | None = None
    #: what is subtracted from similarities; None: nothing
    hubness: HubnessCorrection | None = None
    #: whether the model says how well single frames fit a text
    has_salience: bool = True


@runtime_checkable
class AnswersQuestions(Protocol):
    """What an encoder with an answer head has besides. A bundle without one has an empty vocabulary."""

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The A answers that the head knows, in the order of its logits."""

    @property
    def frames_read(self) -> FrameChoice:
        """The frames that the head was trained to read."""

    def answer(
        self, text: TextEncoding, text_rows: NDArray[np.int64], frame_tokens: Array, frame_mask: Array
    ) -> Array:
        """Answer questions. Shapes int64 [B], their rows in `text`; [B, n, P, H], [B, n] → logits [B, A]."""


@runtime_checkable
class ReadsWholeSegments(Protocol):
    """What an encoder has besides whose model reads all frames of a segment at once: it reads no single ones,
    so that its `frames` and `segments` raise a BundleError.
    """

    def whole_segments(self, frames: Frames, counts: Sequence[int]) -> SegmentEncoding:
        """Encode B segments: their frames in order, uint8 [F, size, size, 3], and how many each has."""


class Encoder(Protocol):
    """A model, as evaluation uses it."""

    @property
    def profile(self) -> Profile:
        """How videos are sampled and ranked."""

    @property
    def has_matcher(self) -> bool:
        """Whether `match` works."""

    def frames(self, frames: Frames, *, tokens: bool = False) -> FrameEncoding:
        """Encode frames uint8 [B, size, size, 3]; `tokens`: with their tokens, if the model has any."""

    def segments(self, frames: Array, mask: Array) -> Array:
        """Embed segments. Shapes frame embeddings [B, N, D], mask [B, N], 1 for real frames → [B, D]."""

    def texts(self, texts: Sequence[str], *, tokens: bool = False) -> TextEncoding:
        """Encode B texts; `tokens`: with their tokens, if the model has any."""

    def match(self, text: TextEncoding, text_rows: NDArray[np.int64], frame_tokens: Array) -> Array:
        """Match pairs: int64 [B], each one's row in `text`, and frames [B, P, H] → logits [B]."""


class FeatureEncoder(Protocol):
    """A model that reads features of videos with timed text, as evaluation uses it.

    Shapes: V videos, M feature vectors, F their width, d width, Q queries.
    """

    def videos(self, features: Sequence[Array], texts: Sequence[str]) -> tuple[Array, Array]:
        """Encode videos with their texts; an empty text stands for a video without one.

        Shapes V arrays float [M, F], V texts → frames [V, M, d] and their mask [V, M].
        """

    def queries(self, texts: Sequence[str]) -> Array:
        """Encode queries. Shape Q texts → [Q, d]."""

    def scores(self, queries: Array, frames: Array, mask: Array) -> Array:
        """How well each video fits each query. Shapes [Q, d], [V, M, d], [V, M] → [Q, V]."""

    def logits(
        self,
        queries: Array,
        frames: Array,
        mask: Array,
        query_rows: NDArray[np.int64],
        video_rows: NDArray[np.int64],
    ) -> tuple[Array, Array]:
        """Logits that a moment starts, and ends, at each frame, of P pairs of a query and a video.

        Shapes queries [Q, d], frames [V, M, d], mask [V, M], rows int64 [P] twice → [P, M] twice.
        """
