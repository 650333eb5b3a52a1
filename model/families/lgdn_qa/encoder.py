"""LGDN with an answer head in memory, as an `AnsweringEncoder` for evaluation.

Shapes: B questions, n salient frames, P tokens a frame, H their width, A answers.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from model.arrays import Array
from model.families.encoder import FrameChoice
from model.families.lgdn.encoder import TowersEncoder
from model.families.lgdn_qa.network import AnsweringLGDN
from model.runtime.bundle import TextEncoding
from model.runtime.bundle.encodings import matcher_feed


class AnsweringTowers(TowersEncoder):
    """A model in memory. It is put into evaluation mode: call its `train()` before training on."""

    model: AnsweringLGDN

    @property
    def has_matcher(self) -> bool:
        """Whether the towers are still those that the matching head was trained with."""
        return not self.model.config.tune_towers

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The answers that were learned."""
        return self.model.config.answers

    @property
    def frames_read(self) -> FrameChoice:
        """As the settings say."""
        return cast(FrameChoice, self.model.config.frames_read)

    def answer(
        self, text: TextEncoding, text_rows: NDArray[np.int64], frame_tokens: Array, frame_mask: Array
    ) -> Array:
        """Shapes int64 [B], [B, n, P, H], [B, n] → [B, A]."""
        head = self.model.answer_head
        name = "input_ids" if head.reads == "ids" else "text_tokens"
        feed = matcher_feed(text, text_rows, frame_tokens, frozenset({name}))
        inputs = (feed[name], feed["attention_mask"], feed["frame_tokens"], frame_mask.astype(np.float32))
        with torch.no_grad(), self._autocast():
            logits = head(*(torch.from_numpy(x).to(self._device) for x in inputs))
        result: Array = logits.float().cpu().numpy()
        return result
