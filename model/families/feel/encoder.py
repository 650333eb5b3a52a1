"""FEEL in evaluation mode, on NumPy arrays: what the search for videos and moments reads.

Shapes: V videos, M feature vectors, F their width, d width, Q queries, P pairs of a query and a video.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from model.arrays import Array
from model.families.feel.batch import collate_features
from model.families.feel.moments import video_scores
from model.families.feel.network import Feel
from model.runtime.preprocessing import TextTokenizer

# Queries that are compared with all frames at once.
_QUERIES = 64


class FeelEncoder:
    """A model in memory. It is put into evaluation mode: call its `train()` before training on."""

    def __init__(self, model: Feel, tokenizer: TextTokenizer, *, bfloat16: bool = False) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self._bfloat16 = bfloat16
        self._device = next(model.parameters()).device

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16)

    def videos(self, features: Sequence[Array], texts: Sequence[str]) -> tuple[Array, Array]:
        """Encode videos with their texts; an empty text stands for a video without one.

        Shapes V arrays float [M, F], V texts → frames [V, M, d] and their mask [V, M].

        Raises:
            ValueError: as `collate_features`.
        """
        batch = collate_features(features, texts, self.tokenizer, longest=self.model.config.frames)
        moved = batch.to(self._device)
        with torch.no_grad(), self._autocast():
            frames = self.model.encode_video(
                moved.features, moved.feature_mask, moved.input_ids, moved.attention_mask
            )
        return frames.float().cpu().numpy(), batch.feature_mask.numpy()

    def queries(self, texts: Sequence[str]) -> Array:
        """Encode queries. Shape Q texts → q [Q, d], of any length.

        Raises:
            InputError: a text has no word.
        """
        tokens = self.tokenizer(texts)
        ids, mask = (torch.from_numpy(x).to(self._device) for x in (tokens.input_ids, tokens.attention_mask))
        with torch.no_grad(), self._autocast():
            encoded: Array = self.model.encode_query(ids, mask).float().cpu().numpy()
        return encoded

    def scores(self, queries: Array, frames: Array, mask: Array) -> Array:
        """Cosine of each query and each video's best frame. Shapes [Q, d], [V, M, d], [V, M] → [Q, V]."""
        query, videos, real = (torch.from_numpy(x).to(self._device) for x in (queries, frames, mask))
        with torch.no_grad():
            parts = [video_scores(part, videos, real) for part in torch.split(query, _QUERIES)]
        scores: Array = torch.cat(parts).cpu().numpy()
        return scores

    def logits(
        self,
        queries: Array,
        frames: Array,
        mask: Array,
        query_rows: NDArray[np.int64],
        video_rows: NDArray[np.int64],
    ) -> tuple[Array, Array]:
        """Logits that a moment starts, and ends, at each frame of a video; far below all others where masked.

        Shapes queries [Q, d], frames [V, M, d], mask [V, M], rows int64 [P] twice → [P, M] twice.
        """
        query, videos, real = (torch.from_numpy(x).to(self._device) for x in (queries, frames, mask))
        with torch.no_grad():
            found = self.model.moment_head(query[query_rows], videos[video_rows], real[video_rows])
        start, end = (each.cpu().numpy() for each in found)
        return start, end

    def spans(
        self,
        queries: Array,
        frames: Array,
        mask: Array,
        query_rows: NDArray[np.int64],
        video_rows: NDArray[np.int64],
    ) -> tuple[Array, Array]:
        """Probabilities that a moment starts, and ends, at each frame of a video.

        Shapes as `logits` → [P, M] twice; each row sums to 1, with 0 at masked frames.
        """
        logits = self.logits(queries, frames, mask, query_rows, video_rows)
        start, end = (torch.softmax(torch.from_numpy(each), -1).numpy() for each in logits)
        return start, end
