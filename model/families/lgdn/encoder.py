"""LGDN in memory, as an `Encoder` for evaluation.

Shapes: B batch or pairs, N frame slots, P tokens a frame, H width of frame tokens, D joint space.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from model.arrays import Array, Frames
from model.families.encoder import Profile
from model.families.lgdn.fusion import match_of
from model.families.lgdn.inference import InferenceModel
from model.families.lgdn.network import LGDN
from model.families.lgdn.salience import frame_salience, text_salience
from model.runtime.bundle import FrameEncoding, TextEncoding
from model.runtime.bundle.encodings import matcher_feed
from model.runtime.preprocessing import Resizing, TextTokenizer

_SEGMENT_SECONDS = 32.0
_NUM_CANDIDATES = 100
# Pairs in one pass of the fusion: more do not fit a CPU's caches, fewer leave a GPU idle.
_CPU_PAIRS, _GPU_PAIRS = 64, 1024


class TowersEncoder:
    """A model in memory. It is put into evaluation mode: call its `train()` before training on."""

    def __init__(
        self,
        model: LGDN,
        tokenizer: TextTokenizer,
        *,
        weights: str | None = None,
        strategy: str | None = None,
        bfloat16: bool = False,
        ensemble_lambda: float = 1.0,
    ) -> None:
        """Choose what is measured.

        Args:
            model: its towers and its fusion.
            tokenizer: the one it was trained with.
            weights: `online` or `momentum`, see `InferenceModel`; None: as the model's settings say.
            strategy: how salient frames are estimated; None: as the model's settings say.
            bfloat16: compute in half precision.
            ensemble_lambda: λ, unless options name another.

        Raises:
            InputError: `weights` is neither of the two, or the strategy is unknown.
        """
        self.model = model.eval()
        self.tokenizer = tokenizer
        self._inference = InferenceModel(
            model,
            weights or model.config.inference_weights,
            strategy or model.config.salience_strategy,
        )
        self._lambda = ensemble_lambda
        self._bfloat16 = bfloat16
        self._device = next(model.parameters()).device

    @property
    def strategy(self) -> str:
        """How salient frames are estimated."""
        return self._inference.strategy

    @property
    def profile(self) -> Profile:
        """What the model's settings say."""
        config = self.model.config
        return Profile(
            resizing=Resizing(config.image_size),
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

    def frames(self, frames: Frames, *, tokens: bool = False) -> FrameEncoding:
        """Shape uint8 [B, size, size, 3]."""
        with torch.no_grad(), self._autocast():
            towers, other = self._inference.towers, self._inference.other
            # Online and momentum towers share the frozen stages.
            prepared = towers.image.prepare(torch.from_numpy(frames).to(self._device))
            features = towers.encode_frames(prepared)
            other_embedding = None if other is None else other.encode_frames(prepared).embedding
            salience = frame_salience(
                self.strategy, *self._inference.online_and_momentum(features.embedding, other_embedding)
            )
        return FrameEncoding(
            _numpy(features.temporal_input), _numpy(salience), _numpy(features.tokens) if tokens else None
        )

    def segments(self, frames: Array, mask: Array) -> Array:
        """Shapes [B, N, D], [B, N] → [B, D]."""
        with torch.no_grad():
            inputs = (torch.from_numpy(x).to(self._device) for x in (frames, mask.astype(np.float32)))
            return _numpy(self._inference.towers.encode_segment(*inputs))

    def texts(self, texts: Sequence[str], *, tokens: bool = False) -> TextEncoding:
        """B texts."""
        batch = self.tokenizer(texts)
        ids, mask = (torch.from_numpy(x).to(self._device) for x in (batch.input_ids, batch.attention_mask))
        with torch.no_grad(), self._autocast():
            towers, other = self._inference.towers, self._inference.other
            features = towers.encode_text(ids, mask)
            other_embedding = None if other is None else other.encode_text(ids, mask).embedding
            salience = text_salience(
                self.strategy, *self._inference.online_and_momentum(features.embedding, other_embedding)
            )
        return TextEncoding(
            _numpy(features.embedding),
            _numpy(salience),
            _numpy(features.tokens) if tokens else None,
            batch.attention_mask,
            batch.input_ids,
        )

    def match(self, text: TextEncoding, text_rows: NDArray[np.int64], frame_tokens: Array) -> Array:
        """Shapes int64 [B], [B, P, H] → the match of equation 9, [B]."""
        text_input = "input_ids" if self._inference.fusion.reads == "ids" else "text_tokens"
        step = _CPU_PAIRS if self._device.type == "cpu" else _GPU_PAIRS
        out = np.empty(len(text_rows), np.float32)
        for start in range(0, len(text_rows), step):
            part = slice(start, start + step)
            feed = matcher_feed(text, text_rows[part], frame_tokens[part], frozenset({text_input}))
            inputs = (feed[text_input], feed["attention_mask"], feed["frame_tokens"])
            with torch.no_grad(), self._autocast():
                logits = self._inference.fusion(*(torch.from_numpy(x).to(self._device) for x in inputs))
            out[part] = _numpy(match_of(logits.float(), self.model.config.match_score))
        return out


def _numpy(x: torch.Tensor) -> Array:
    result: Array = x.detach().float().cpu().numpy()
    return result
