"""A model in training and an exported bundle behind one interface, for evaluation.

Shapes: B batch or pairs, N frame slots, P tokens a frame, L text tokens, H width of frame tokens, T of text
tokens, D joint space, S salience.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from model.families.lgdn.inference import Chosen
from model.families.lgdn.network import LGDN
from model.families.lgdn.salience import frame_salience, text_salience
from model.runtime.bundle import Bundle, FrameEncoding, TextEncoding
from model.runtime.bundle.encodings import matcher_feed
from model.runtime.preprocessing import ResizeRule, TextTokenizer

Array = NDArray[np.float32]
_SEGMENT_SECONDS = 32.0
_NUM_CANDIDATES = 100
# Pairs a pass of the fusion: on a CPU more leave its caches, on a GPU few leave it idle.
_CPU_PAIRS, _GPU_PAIRS = 64, 1024


@dataclass(frozen=True)
class Profile:
    """How a model wants videos read and ranked; what serving uses where nothing else is asked for."""

    image_size: int
    resize: ResizeRule
    frames_per_segment: int
    segment_seconds: float
    num_salient_frames: int
    num_candidates: int
    ensemble_lambda: float
    #: tokens that the index keeps of a frame, merged; None: all
    tokens_per_frame: int | None


class Encoder(Protocol):
    """What evaluation needs of a model."""

    @property
    def profile(self) -> Profile:
        """How videos are read and ranked."""

    @property
    def has_matcher(self) -> bool:
        """Whether `match` works."""

    def frames(self, frames: NDArray[np.uint8], *, tokens: bool = False) -> FrameEncoding:
        """Shape uint8 [B, size, size, 3]; the encoding has tokens where they are asked for."""

    def segments(self, frames: Array, mask: Array) -> Array:
        """Shapes [B, N, D], [B, N] → [B, D]."""

    def texts(self, texts: Sequence[str], *, tokens: bool = False) -> TextEncoding:
        """B texts; the encoding has tokens where they are asked for."""

    def match(self, text: TextEncoding, text_rows: NDArray[np.int64], frame_tokens: Array) -> Array:
        """Each pair's text by its row, and its frame. int64 [B], [B, P, H] → match logits [B]."""


class BundleEncoder:
    """An exported bundle."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    @property
    def profile(self) -> Profile:
        """What the manifest says."""
        m = self.bundle.manifest
        tokens = m.tokens
        return Profile(
            image_size=m.image.size,
            resize=m.image.resize,
            frames_per_segment=m.frames_per_segment,
            segment_seconds=m.segment_seconds,
            num_salient_frames=m.num_salient_frames,
            num_candidates=m.num_candidates,
            ensemble_lambda=m.ensemble_lambda,
            tokens_per_frame=None if tokens is None else tokens.stored_tokens_per_frame,
        )

    @property
    def has_matcher(self) -> bool:
        """Whether the bundle was exported with one."""
        return "match" in self.bundle.capabilities

    def frames(self, frames: NDArray[np.uint8], *, tokens: bool = False) -> FrameEncoding:
        """As `Bundle.encode_frames`."""
        return self.bundle.encode_frames(frames, tokens=tokens)

    def segments(self, frames: Array, mask: Array) -> Array:
        """As `Bundle.encode_segments`."""
        return self.bundle.encode_segments(frames, mask)

    def texts(self, texts: Sequence[str], *, tokens: bool = False) -> TextEncoding:
        """As `Bundle.encode_text`."""
        return self.bundle.encode_text(list(texts), tokens=tokens)

    def match(self, text: TextEncoding, text_rows: NDArray[np.int64], frame_tokens: Array) -> Array:
        """As `Bundle.match`."""
        return self.bundle.match(text, text_rows, frame_tokens)


class TowersEncoder:
    """A model in training. It is put into evaluation mode: call `train()` on it to go on."""

    def __init__(
        self,
        model: LGDN,
        tokenizer: TextTokenizer,
        *,
        weights: str = "momentum",
        strategy: str | None = None,
        bfloat16: bool = False,
        ensemble_lambda: float = 1.0,
    ) -> None:
        """Choose what is measured.

        Args:
            model: its towers and its fusion.
            tokenizer: the one it was trained with.
            weights: `momentum` or `online`: the twin whose embeddings and tokens are used, with the moving
                average of the fusion's weights or with the fusion itself.
            strategy: how salient frames are estimated; None: as the model's settings say.
            bfloat16: compute in half precision.
            ensemble_lambda: λ where none is asked for.

        Raises:
            ValueError: `weights` is neither of the two, or the strategy is unknown.
        """
        self.model = model.eval()
        self.tokenizer = tokenizer
        self._chosen = Chosen(model, weights, strategy or model.config.salience_strategy)
        self._lambda = ensemble_lambda
        self._bfloat16 = bfloat16
        self._device = next(model.parameters()).device

    @property
    def strategy(self) -> str:
        """How salient frames are estimated."""
        return self._chosen.strategy

    @property
    def profile(self) -> Profile:
        """What the model's settings say."""
        config = self.model.config
        return Profile(
            image_size=config.image_size,
            resize="squash",
            frames_per_segment=config.frames,
            segment_seconds=_SEGMENT_SECONDS,
            num_salient_frames=config.num_salient_frames,
            num_candidates=_NUM_CANDIDATES,
            ensemble_lambda=self._lambda,
            tokens_per_frame=None,
        )

    @property
    def has_matcher(self) -> bool:
        """Always: every model has a fusion, trained or not."""
        return True

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16)

    def frames(self, frames: NDArray[np.uint8], *, tokens: bool = False) -> FrameEncoding:
        """Shape uint8 [B, size, size, 3]."""
        with torch.no_grad(), self._autocast():
            towers, other = self._chosen.towers, self._chosen.other
            # The frozen stages are the twins' common part.
            prepared = towers.image.prepare(torch.from_numpy(frames).to(self._device))
            mine = towers.encode_frames(prepared)
            others = None if other is None else other.encode_frames(prepared).embedding
            salience = frame_salience(self.strategy, *self._chosen.twins(mine.embedding, others))
        return FrameEncoding(
            _numpy(mine.embedding), _numpy(salience), _numpy(mine.tokens) if tokens else None
        )

    def segments(self, frames: Array, mask: Array) -> Array:
        """Shapes [B, N, D], [B, N] → [B, D]."""
        with torch.no_grad():
            inputs = (torch.from_numpy(x).to(self._device) for x in (frames, mask.astype(np.float32)))
            return _numpy(self._chosen.towers.encode_segment(*inputs))

    def texts(self, texts: Sequence[str], *, tokens: bool = False) -> TextEncoding:
        """B texts."""
        batch = self.tokenizer(texts)
        ids, mask = (torch.from_numpy(x).to(self._device) for x in (batch.input_ids, batch.attention_mask))
        with torch.no_grad(), self._autocast():
            towers, other = self._chosen.towers, self._chosen.other
            mine = towers.encode_text(ids, mask)
            others = None if other is None else other.encode_text(ids, mask).embedding
            salience = text_salience(self.strategy, *self._chosen.twins(mine.embedding, others))
        return TextEncoding(
            _numpy(mine.embedding),
            _numpy(salience),
            _numpy(mine.tokens) if tokens else None,
            batch.attention_mask,
            batch.input_ids,
        )

    def match(self, text: TextEncoding, text_rows: NDArray[np.int64], frame_tokens: Array) -> Array:
        """int64 [B], [B, P, H] → logit₁ − logit₀, [B]."""
        words = "input_ids" if self._chosen.fusion.reads == "ids" else "text_tokens"
        step = _CPU_PAIRS if self._device.type == "cpu" else _GPU_PAIRS
        out = np.empty(len(text_rows), np.float32)
        for start in range(0, len(text_rows), step):
            part = slice(start, start + step)
            feed = matcher_feed(text, text_rows[part], frame_tokens[part], frozenset({words}))
            order = (feed[words], feed["attention_mask"], feed["frame_tokens"])
            with torch.no_grad(), self._autocast():
                logits = self._chosen.fusion(*(torch.from_numpy(x).to(self._device) for x in order))
            out[part] = _numpy(logits[:, 1].float() - logits[:, 0].float())
        return out


def _numpy(x: torch.Tensor) -> Array:
    result: Array = x.detach().float().cpu().numpy()
    return result
