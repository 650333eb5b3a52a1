"""Retrieval metrics of a model in training or of a bundle, on captioned photos and on a folder of videos.

Both go through the same preprocessing, sampling and metrics as serving.
Shapes: B batch, N frames, D joint space, Q queries, V videos or photos.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from model.data import CaptionedPhotos
from model.lgdn import Towers
from model.runtime.bundle import Bundle
from model.runtime.metrics import retrieval_metrics, text_to_video, video_to_text
from model.runtime.preprocess import TextTokenizer, resize_frames
from model.runtime.video import VideoReader

Array = NDArray[np.float32]
_FRAMES_A_PASS, _TEXTS_A_PASS = 32, 128


class Encoder(Protocol):
    """What evaluation needs of a model, trained or exported."""

    @property
    def image_size(self) -> int:
        """Side of the square frames."""

    def frames(self, frames: NDArray[np.uint8]) -> Array:
        """Shape [B, size, size, 3] → [B, D]."""

    def segments(self, frames: Array, mask: Array) -> Array:
        """Shapes [B, N, D], [B, N] → [B, D]."""

    def texts(self, texts: Sequence[str]) -> Array:
        """Texts → [B, D]."""


@dataclass(frozen=True)
class TowersEncoder:
    """PyTorch towers as an encoder."""

    towers: Towers
    tokenizer: TextTokenizer
    bfloat16: bool = False

    @property
    def image_size(self) -> int:
        """Side of the square frames."""
        return self.towers.config.image_size

    def _autocast(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16)

    def frames(self, frames: NDArray[np.uint8]) -> Array:
        """Shape [B, size, size, 3] → [B, D]."""
        with torch.no_grad(), self._autocast():
            maps = self.towers.frozen_maps(torch.from_numpy(frames))
            return self.towers.encode_maps(maps)[0].float().numpy()

    def segments(self, frames: Array, mask: Array) -> Array:
        """Shapes [B, N, D], [B, N] → [B, D]."""
        with torch.no_grad():
            return self.towers.encode_segment(torch.from_numpy(frames), torch.from_numpy(mask)).numpy()

    def texts(self, texts: Sequence[str]) -> Array:
        """Texts → [B, D]."""
        tokens = self.tokenizer(texts)
        with torch.no_grad(), self._autocast():
            ids, mask = torch.from_numpy(tokens.input_ids), torch.from_numpy(tokens.attention_mask)
            return self.towers.encode_text(ids, mask)[0].float().numpy()


@dataclass(frozen=True)
class BundleEncoder:
    """An exported bundle as an encoder."""

    bundle: Bundle

    @property
    def image_size(self) -> int:
        """Side of the square frames."""
        return self.bundle.manifest.image.size

    def frames(self, frames: NDArray[np.uint8]) -> Array:
        """Shape [B, size, size, 3] → [B, D]."""
        return self.bundle.encode_frames(frames).embedding

    def segments(self, frames: Array, mask: Array) -> Array:
        """Shapes [B, N, D], [B, N] → [B, D]."""
        return self.bundle.encode_segments(frames, mask)

    def texts(self, texts: Sequence[str]) -> Array:
        """Texts → [B, D]."""
        return self.bundle.encode_text(list(texts)).embedding


def encode_texts(encoder: Encoder, texts: Sequence[str]) -> Array:
    """Encode many texts, sorted by length so that little is padded. → [Q, D] in the order given."""
    order = np.argsort([len(t) for t in texts], kind="stable")
    parts = [
        encoder.texts([texts[i] for i in order[start : start + _TEXTS_A_PASS]])
        for start in range(0, len(texts), _TEXTS_A_PASS)
    ]
    out = np.empty((len(texts), parts[0].shape[1]), np.float32)
    out[order] = np.concatenate(parts)
    return out


def encode_frames(encoder: Encoder, frames: NDArray[np.uint8]) -> Array:
    """Encode resized frames in passes. Shape [F, size, size, 3] → [F, D]."""
    passes = range(0, len(frames), _FRAMES_A_PASS)
    return np.concatenate([encoder.frames(frames[start : start + _FRAMES_A_PASS]) for start in passes])


def both_directions(similarity: Array, target: NDArray[np.int64]) -> dict[str, Any]:
    """Metrics text to video and back. Shapes [Q, V], [Q]."""
    return {
        "text_to_video": retrieval_metrics(text_to_video(similarity, target)),
        "video_to_text": retrieval_metrics(video_to_text(similarity, target)),
    }


def photo_embeddings(encoder: Encoder, photos: CaptionedPhotos) -> Array:
    """Every photo as a segment of one frame. → [V, D]."""
    parts = []
    for start in range(0, len(photos), _FRAMES_A_PASS):
        rows = range(start, min(start + _FRAMES_A_PASS, len(photos)))
        frames = encoder.frames(np.stack([photos.load(i, encoder.image_size) for i in rows]))
        parts.append(encoder.segments(frames[:, None], np.ones((len(frames), 1), np.float32)))
    return np.concatenate(parts)


def evaluate_photos(encoder: Encoder, photos: CaptionedPhotos) -> dict[str, Any]:
    """Every caption against every photo, and back."""
    texts = encode_texts(encoder, [caption for group in photos.captions for caption in group])
    target = np.repeat(np.arange(len(photos)), [len(group) for group in photos.captions])
    return both_directions(texts @ photo_embeddings(encoder, photos).T, target)


def segment_embeddings(encoder: Encoder, path: Path, frames: int = 16, seconds: float = 32.0) -> Array:
    """The segments of one video, sampled as when indexing. → [S, D]."""
    rows = []
    with VideoReader(path) as reader:
        for segment in reader.segments(seconds, frames):
            encoded = encode_frames(encoder, resize_frames(segment.frames.data, encoder.image_size))
            rows.append(encoder.segments(encoded[None], np.ones((1, len(encoded)), np.float32))[0])
    return np.stack(rows)


def evaluate_videos(
    encoder: Encoder, clips: Path, queries: Path, report: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Every query of a `queries.jsonl` (video, query, set) against clips; a video scores as its best segment.

    Returns:
        for each set, `own` with only that set's clips and texts in the gallery, and `all` with everyone's.

    Raises:
        ValueError: for a missing or malformed file of queries.
    """
    if not queries.is_file():
        raise ValueError(
            f"no queries at {queries}: pass a file with a JSON object (video, query, set) a line"
        )
    rows = [json.loads(line) for line in queries.read_text(encoding="utf-8").splitlines() if line.strip()]
    for number, row in enumerate(rows, 1):
        if not {"video", "query"} <= row.keys():
            raise ValueError(f"{queries} line {number} lacks video or query")
    videos = sorted({row["video"] for row in rows})
    texts = encode_texts(encoder, [row["query"] for row in rows])
    similarity = np.empty((len(rows), len(videos)), np.float32)
    for column, video in enumerate(videos):
        similarity[:, column] = (texts @ segment_embeddings(encoder, clips / video).T).max(1)
        if column % 20 == 0:
            report(f"video {column + 1}/{len(videos)}")
    target = np.array([videos.index(row["video"]) for row in rows])
    backwards = video_to_text(similarity, target)
    sets = np.array([row.get("set", "all") for row in rows])
    result: dict[str, Any] = {}
    for name in sorted(set(sets)):
        chosen = sets == name
        own = np.unique(target[chosen])
        result[name] = {
            "own": both_directions(similarity[chosen][:, own], np.searchsorted(own, target[chosen])),
            "all": {
                "text_to_video": retrieval_metrics(text_to_video(similarity[chosen], target[chosen])),
                "video_to_text": retrieval_metrics(backwards[own]),
            },
        }
    return result
