"""The batches that FEEL reads: features of videos, their timed text, and queries.

Shapes: B videos, M feature vectors, F their width, L text tokens, Q queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.arrays import Array
from model.runtime.errors import InputError
from model.runtime.preprocessing import TextTokenizer, normalise_text

_MASKS = ("<mask>", "[MASK]")


@dataclass(frozen=True)
class FeelBatch:
    """One batch. A row of masked text belongs to a video without text; every video has a real feature."""

    features: Tensor
    """float [B, M, F]; zeros where masked."""
    feature_mask: Tensor
    """float [B, M], 1 for real feature vectors; at least one in every row."""
    input_ids: Tensor
    """int64 [B, L]: the video's text, such as its subtitles."""
    attention_mask: Tensor
    """int64 [B, L], 1 for real tokens; a row may have none."""
    maskable: Tensor
    """bool [B, L]: tokens that pre-training may mask, neither padding nor special."""
    mask_id: int
    """The id of the token that masks others; −1: the tokenizer has none."""
    query_ids: Tensor | None = None
    """int64 [Q, L']."""
    query_mask: Tensor | None = None
    """int64 [Q, L'], 1 for real tokens."""
    query_rows: Tensor | None = None
    """int64 [Q]: the row of the video that each query describes."""
    video_ids: Tensor | None = None
    """int64 [B]: rows with the same id show the same video, and are not negatives of each other. None: all
    rows show different videos."""
    spans: Tensor | None = None
    """int64 [Q, 2]: first and last feature vector of the moment, −1 for a query without one."""

    def to(self, device: torch.device | str) -> FeelBatch:
        """The same batch on another device."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True)
            for name, value in values.items()
            if isinstance(value, Tensor)
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class Queries:
    """Q queries about the videos of a batch.

    Attributes:
        texts: what is asked.
        rows: for each the row of its video.
        spans: for each the first and the last feature vector of its moment, (−1, −1) without one; None: no
            query has one.
    """

    texts: Sequence[str]
    rows: Sequence[int]
    spans: Sequence[tuple[int, int]] | None = None


def collate_features(
    features: Sequence[Array],
    texts: Sequence[str],
    tokenizer: TextTokenizer,
    *,
    longest: int,
    queries: Queries | None = None,
    video_ids: Sequence[int] | None = None,
) -> FeelBatch:
    """Make a batch of arrays and texts.

    Args:
        features: float [M, F] of each of B videos; M may differ.
        texts: the text of each video; one without a word stands for a video without text.
        tokenizer: cuts texts and queries to its `context_length`.
        longest: feature vectors beyond it are cut off, `model.frames`.
        queries: for fine-tuning; None: pre-training.
        video_ids: rows with the same id show the same video; None: all rows show different ones.

    Raises:
        ValueError: there is no video, numbers do not agree, or a feature array is empty or of another width.
        InputError: a query has no word.
    """
    padded, feature_mask = _padded(features, longest)
    count = len(features)
    if len(texts) != count or (video_ids is not None and len(video_ids) != count):
        named = "no" if video_ids is None else len(video_ids)
        raise ValueError(
            f"{count} videos, {len(texts)} texts and {named} ids: pass one of each for every video"
        )
    ids, mask = _tokenised(texts, tokenizer)
    special, mask_id = _special_ids(tokenizer)
    batch = FeelBatch(
        features=torch.from_numpy(padded),
        feature_mask=torch.from_numpy(feature_mask),
        input_ids=ids,
        attention_mask=mask,
        maskable=(mask > 0) & ~torch.isin(ids, special),
        mask_id=mask_id,
        video_ids=None if video_ids is None else torch.tensor(video_ids, dtype=torch.int64),
    )
    return batch if queries is None else _with_queries(batch, queries, tokenizer)


def _with_queries(batch: FeelBatch, queries: Queries, tokenizer: TextTokenizer) -> FeelBatch:
    count, videos = len(queries.texts), len(batch.features)
    if len(queries.rows) != count or (queries.spans is not None and len(queries.spans) != count):
        raise ValueError(f"{count} queries must have {count} rows, and as many spans or none")
    if not all(0 <= row < videos for row in queries.rows):
        raise ValueError(f"queries name rows {list(queries.rows)}: the batch has rows 0 to {videos - 1}")
    rows = torch.tensor(queries.rows, dtype=torch.int64)
    spans = torch.full((count, 2), -1)
    if queries.spans is not None:
        spans = torch.tensor(queries.spans, dtype=torch.int64).reshape(count, 2)
        # A moment beyond the features that were cut off cannot be learned.
        lengths = batch.feature_mask.sum(1).long()[rows]
        spans = spans.where((spans < lengths[:, None]).all(1, keepdim=True), -1)
    tokens = tokenizer(queries.texts)
    return replace(
        batch,
        query_ids=torch.from_numpy(tokens.input_ids),
        query_mask=torch.from_numpy(tokens.attention_mask),
        query_rows=rows,
        spans=spans,
    )


def _padded(features: Sequence[Array], longest: int) -> tuple[Array, Array]:
    """Shapes [B, M, F] and its mask [B, M]."""
    if not features:
        raise ValueError("features is empty: pass at least one video")
    width = features[0].shape[-1]
    for i, each in enumerate(features):
        if each.ndim != 2 or each.shape[0] == 0 or each.shape[1] != width:
            raise ValueError(f"features of video {i} are {list(each.shape)}: pass [M, {width}] with M ≥ 1")
    cut = [each[:longest] for each in features]
    padded = np.zeros((len(cut), max(map(len, cut)), width), np.float32)
    mask = np.zeros(padded.shape[:2], np.float32)
    for i, each in enumerate(cut):
        padded[i, : len(each)], mask[i, : len(each)] = each, 1.0
    return padded, mask


def _tokenised(texts: Sequence[str], tokenizer: TextTokenizer) -> tuple[Tensor, Tensor]:
    """Token ids and mask, int64 [B, L]; the rows of texts without a word are masked whole."""
    said = [i for i, text in enumerate(texts) if normalise_text(text)]
    if not said:
        return torch.zeros(len(texts), 1, dtype=torch.int64), torch.zeros(len(texts), 1, dtype=torch.int64)
    tokens = tokenizer([texts[i] for i in said])
    ids = torch.zeros(len(texts), tokens.input_ids.shape[1], dtype=torch.int64)
    mask = torch.zeros_like(ids)
    ids[said], mask[said] = torch.from_numpy(tokens.input_ids), torch.from_numpy(tokens.attention_mask)
    return ids, mask


def _special_ids(tokenizer: TextTokenizer) -> tuple[Tensor, int]:
    """The ids of special tokens, and that of the mask among them; −1 without one."""
    added = tokenizer.tokenizer.get_added_tokens_decoder()
    special = {number: token.content for number, token in added.items() if token.special}
    mask_id = next((number for number, content in special.items() if content in _MASKS), -1)
    return torch.tensor(sorted(special), dtype=torch.int64), mask_id


def check_mask(batch: FeelBatch) -> None:
    """Refuse to mask tokens without a mask.

    Raises:
        InputError: the tokenizer of the batch has no mask token.
    """
    if batch.mask_id < 0:
        raise InputError(
            f"the tokenizer has no special token {' or '.join(_MASKS)}: choose another one, or set loss.mlm=0"
        )
