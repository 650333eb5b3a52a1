"""Frame tokens made small: merged to fewer, and stored in 8 bits with a scale a token.

Shapes: F frames, P tokens a frame, H their width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.runtime.errors import InputError

_LEVELS = 127
# Of the tokens that could be merged at once, half are: then neighbours are chosen anew.
_SHARE = 2


@dataclass(frozen=True)
class QuantisedTokens:
    """Tokens as stored: `values` int8 [F, P, H] times `scale` float16 [F, P]."""

    values: NDArray[np.int8]
    scale: NDArray[np.float16]

    def __post_init__(self) -> None:
        if self.values.ndim != 3 or self.scale.shape != self.values.shape[:2]:
            raise ValueError(
                f"values {list(self.values.shape)} and scale {list(self.scale.shape)}: "
                "pass [F, P, H] and [F, P]"
            )

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, frames: slice) -> QuantisedTokens:
        return QuantisedTokens(self.values[frames], self.scale[frames])


def quantise(tokens: NDArray[np.float32]) -> QuantisedTokens:
    """Round tokens to 255 levels, symmetric about 0, with a scale for each token.

    The error is at most half a scale: 1/254 of the token's largest value, and what rounding the scale up adds
    (0.1 %, or 3e-8 where that is more).

    Args:
        tokens: float32, shape [F, P, H].

    Raises:
        ValueError: another shape, or a value that is not finite or beyond 8e6.
    """
    if tokens.ndim != 3:
        raise ValueError(f"tokens have shape {list(tokens.shape)}: pass [F, P, H]")
    exact = np.abs(tokens).max(axis=2, initial=0) / np.float32(_LEVELS)
    if not (exact <= np.finfo(np.float16).max).all():
        raise ValueError("tokens hold NaN, infinity or values beyond 8e6, which int8 cannot store")
    scale = exact.astype(np.float16)
    # Never rounded down: the largest value would need a 128th level.
    scale = np.where(scale < exact, np.nextafter(scale, np.float16(np.inf)), scale)
    divisor = np.where(scale == 0, np.float16(1), scale).astype(np.float32)
    return QuantisedTokens(np.rint(tokens / divisor[..., None]).astype(np.int8), scale)


def store_tokens(
    tokens: NDArray[np.float32], count: int, *, int8: bool
) -> QuantisedTokens | NDArray[np.float32]:
    """Frames' tokens as an index stores them: merged to `count` a frame, and rounded with `int8`.

    Shape float32 [F, P, H] → [F, count, H].

    Raises:
        ValueError: as `merge_tokens` and `quantise`.
    """
    merged = merge_tokens(tokens, count)
    return quantise(merged) if int8 else merged


def dequantise(quantised: QuantisedTokens) -> NDArray[np.float32]:
    """Stored tokens as the matcher takes them. → float32 [F, P, H]."""
    out = quantised.values.astype(np.float32)
    out *= quantised.scale.astype(np.float32)[..., None]
    return out


def check_count(count: int, tokens_per_frame: int) -> None:
    """Check that a frame's tokens can be merged to `count`.

    Raises:
        InputError: they cannot.
    """
    # Token 0 stays alone, so the others leave at least one.
    least = min(2, tokens_per_frame)
    if not least <= count <= tokens_per_frame:
        raise InputError(
            f"{tokens_per_frame} tokens a frame cannot be merged to {count}: "
            f"choose {least} to {tokens_per_frame}"
        )


def merge_tokens(tokens: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Merge each frame's most similar tokens until `count` are left, in the order they had.

    Token 0, which stands for the whole frame, stays as it is. Of the others every second one looks for the
    most similar (by cosine) of the rest; the most similar pairs become their mean, weighted by how many
    tokens each stands for already. That is repeated; every frame goes its own way.

    Args:
        tokens: float32, shape [F, P, H].
        count: tokens to leave: P, or 2 to P.

    Returns:
        float32, shape [F, count, H].

    Raises:
        ValueError: another shape, or a count that cannot be.
    """
    if tokens.ndim != 3:
        raise ValueError(f"tokens have shape {list(tokens.shape)}: pass [F, P, H]")
    check_count(count, tokens.shape[1])
    merged = np.asarray(tokens, np.float32)
    size = np.ones(merged.shape[:2], np.float32)
    while merged.shape[1] > count:
        merged, size = _merge_once(merged, size, count)
    return merged


def _merge_once(
    tokens: NDArray[np.float32], size: NDArray[np.float32], count: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    frames, present, width = tokens.shape
    sources, targets = np.arange(1, present, 2), np.arange(2, present, 2)
    merges = min(present - count, max(1, len(sources) // _SHARE))
    unit = tokens / (np.linalg.norm(tokens, axis=2, keepdims=True) + np.float32(1e-12))
    similarity = unit[:, sources] @ unit[:, targets].transpose(0, 2, 1)
    target = similarity.argmax(axis=2)
    best = similarity.max(axis=2)
    chosen = np.argsort(-best, axis=1, kind="stable")[:, :merges]
    # Who takes whom in, as a matrix of 0 and 1: [F, targets, sources].
    taken = np.zeros((frames, len(targets), len(sources)), np.float32)
    row = np.arange(frames)[:, None]
    taken[row, target[row, chosen], chosen] = 1
    total = tokens * size[..., None]
    total[:, targets] += taken @ total[:, sources]
    size = size.copy()
    size[:, targets] += (taken @ size[:, sources, None])[..., 0]
    kept = np.ones((frames, present), np.bool_)
    kept[row, sources[chosen]] = False
    left = present - merges
    size = size[kept].reshape(frames, left)
    merged: NDArray[np.float32] = total[kept].reshape(frames, left, width) / size[..., None]
    return merged, size
