"""Encoded texts and videos, ready to be ranked against each other.

Shapes: Q texts, G segments, F distinct frames, N frame slots, P tokens a frame, H their width, D joint space,
S salience.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model.arrays import Array, Frames, Rows
from model.data.sources import Source
from model.families.encoder import Encoder, ReadsWholeSegments
from model.progress import Progress, Report, silent
from model.runtime.bundle import SegmentEncoding, TextEncoding
from model.runtime.errors import InputError
from model.runtime.tokens import QuantisedTokens, dequantise, store_tokens
from model.runtime.video import VideoReader

_FRAMES_A_PASS, _SEGMENTS_A_PASS, _TEXTS_A_PASS = 32, 256, 128


@dataclass(frozen=True)
class TokenOptions:
    """How frame tokens are stored: in int8, as an index does, or float32; merged to `per_frame`, None: all.

    Raises:
        InputError: the kind is unknown, or `per_frame` is below 1.
    """

    kind: Literal["int8", "float32"] = "int8"
    per_frame: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("int8", "float32"):
            raise InputError(f"tokens is {self.kind!r}: choose int8 or float32", "tokens")
        if self.per_frame is not None and self.per_frame < 1:
            count = self.per_frame
            raise InputError(f"tokens_per_frame is {count}: keep at least 1", "tokens_per_frame")


class FrameTokens:
    """Tokens of distinct frames, as an index stores them."""

    def __init__(self, parts: Sequence[Array | QuantisedTokens]) -> None:
        """Join `parts`, which are all float32 [F, P, H] or all quantised."""
        first = parts[0]
        self._values: NDArray[np.float32] | NDArray[np.int8]
        self._scale: NDArray[np.float16] | None = None
        if isinstance(first, QuantisedTokens):
            quantised = [part for part in parts if isinstance(part, QuantisedTokens)]
            self._values = np.concatenate([part.values for part in quantised])
            self._scale = np.concatenate([part.scale for part in quantised])
        else:
            self._values = np.concatenate([part for part in parts if not isinstance(part, QuantisedTokens)])

    @classmethod
    def keep(cls, tokens: Array, options: TokenOptions) -> FrameTokens:
        """Merge and quantise tokens as the options say. Shape float32 [F, P, H]."""
        return cls([reduce_tokens(tokens, options)])

    def __len__(self) -> int:
        return len(self._values)

    @property
    def per_frame(self) -> int:
        """P, the tokens of a frame."""
        return int(self._values.shape[1])

    def take(self, rows: Rows) -> Array:
        """The tokens of some frames. Shape int64 [B] → float32 [B, P, H]."""
        values = self._values[rows]
        if self._scale is None:
            return values.astype(np.float32, copy=False)
        return dequantise(QuantisedTokens(values.astype(np.int8, copy=False), self._scale[rows]))


def reduce_tokens(tokens: Array, options: TokenOptions) -> Array | QuantisedTokens:
    """Tokens as the options store them: merged, and quantised for int8. Shape float32 [F, P, H]."""
    present = tokens.shape[1]
    return store_tokens(tokens, min(options.per_frame or present, present), int8=options.kind == "int8")


@dataclass(frozen=True)
class Texts:
    """Encoded texts: `embedding` [Q, D] and `salience` [Q, S] in the order given.

    `parts` hold what the matcher reads, the texts sorted by length: each part's rows [B] and its encoding.
    """

    embedding: Array
    salience: Array
    parts: tuple[tuple[Rows, TextEncoding], ...]

    def __len__(self) -> int:
        return len(self.embedding)


@dataclass(frozen=True)
class Corpus:
    """Encoded segments: `embedding` [G, D], and `owner` [G], the video of each.

    `slots` int64 [G, N] give the distinct frame that each slot shows; the first `counts` [G] are real.
    `salience` [F, S] and `tokens` belong to the distinct frames.
    """

    embedding: Array
    owner: Rows
    slots: Rows
    counts: Rows
    salience: Array
    tokens: FrameTokens | None

    def __len__(self) -> int:
        return len(self.embedding)


def encode_all_texts(
    encoder: Encoder, texts: Sequence[str], *, tokens: bool = False, report: Report = silent
) -> Texts:
    """Encode many texts, sorted by length so that little is padded; `tokens`: with their tokens."""
    order = np.argsort([len(text) for text in texts], kind="stable").astype(np.int64)
    parts = []
    progress = Progress("texts", len(texts), report)
    for start in range(0, len(texts), _TEXTS_A_PASS):
        rows = order[start : start + _TEXTS_A_PASS]
        parts.append((rows, encoder.texts([texts[i] for i in rows], tokens=tokens)))
        progress.step(len(rows))
    back = np.argsort(order)
    embedding = np.concatenate([encoding.embedding for _, encoding in parts])[back]
    salience = np.concatenate([encoding.salience for _, encoding in parts])[back]
    return Texts(embedding, salience, tuple(parts))


def join_segments(encoder: Encoder, embedding: Array, slots: Rows, counts: Rows) -> Array:
    """Segment embeddings from the embeddings of distinct frames. Shapes [F, D], [G, N], [G] → [G, D]."""
    mask = np.arange(slots.shape[1])[None, :] < counts[:, None]
    parts = []
    for start in range(0, len(slots), _SEGMENTS_A_PASS):
        part = slice(start, start + _SEGMENTS_A_PASS)
        # Padding is zeros, as in the indexer.
        frames = embedding[slots[part]] * mask[part, :, None]
        parts.append(encoder.segments(frames.astype(np.float32), mask[part].astype(np.float32)))
    return np.concatenate(parts)


@dataclass(frozen=True)
class EncodedFrames:
    """Encoded distinct frames: `embedding` [F, D], `salience` [F, S], `tokens` as an index stores them."""

    embedding: Array
    salience: Array
    tokens: FrameTokens | None


def passes(frames: Iterable[Frames]) -> Iterator[Frames]:
    """Regroup frames from parts of any size, [n, size, size, 3], to the parts that one pass takes."""
    pending: list[Frames] = []
    count = 0
    for part in frames:
        pending.append(part)
        count += len(part)
        if count >= _FRAMES_A_PASS:
            joined = np.concatenate(pending)
            whole = count // _FRAMES_A_PASS * _FRAMES_A_PASS
            for start in range(0, whole, _FRAMES_A_PASS):
                yield joined[start : start + _FRAMES_A_PASS]
            pending, count = [joined[whole:]], count - whole
    if count:
        yield np.concatenate(pending)


def encode_frames(
    encoder: Encoder, frames: Iterable[Frames], tokens: TokenOptions | None = None
) -> EncodedFrames:
    """Encode frames that come in parts of any size [n, size, size, 3]; `tokens`: with their tokens.

    Raises:
        InputError: there is no frame.
    """
    embedding: list[Array] = []
    salience: list[Array] = []
    stored: list[Array | QuantisedTokens] = []
    for part in passes(frames):
        encoding = encoder.frames(part, tokens=tokens is not None)
        embedding.append(encoding.embedding)
        # In half precision, as the index stores it, so that the same frames are salient.
        salience.append(encoding.salience.astype(np.float16).astype(np.float32))
        if tokens is not None and encoding.tokens is not None:
            stored.append(reduce_tokens(encoding.tokens, tokens))
    if not embedding:
        raise InputError("no segment to encode: pass at least one video or photo")
    return EncodedFrames(
        np.concatenate(embedding), np.concatenate(salience), FrameTokens(stored) if stored else None
    )


def encode_whole(encoder: ReadsWholeSegments, segments: Iterable[Frames]) -> tuple[Array, Array]:
    """Encode segments [n, size, size, 3] whose frames are read at once.

    Returns:
        Their embeddings [G, D], and the salience of their frames [F, S], as the index stores it.

    Raises:
        InputError: there is no segment.
    """
    parts: list[SegmentEncoding] = []
    pending: list[Frames] = []

    def encode() -> None:
        parts.append(encoder.whole_segments(np.concatenate(pending), [len(frames) for frames in pending]))
        pending.clear()

    for frames in segments:
        pending.append(frames)
        if sum(map(len, pending)) >= _FRAMES_A_PASS:
            encode()
    if pending:
        encode()
    if not parts:
        raise InputError("no segment to encode: pass at least one video or photo")
    salience = np.concatenate([part.salience for part in parts])
    return np.concatenate([part.embedding for part in parts]), salience.astype(np.float16).astype(np.float32)


def encode_corpus(
    encoder: Encoder, segments: Iterable[tuple[int, Frames]], tokens: TokenOptions | None = None
) -> Corpus:
    """Encode segments.

    Args:
        encoder: the model.
        segments: for each its video, and its resized frames [n, size, size, 3].
        tokens: how to store frame tokens; None: without tokens.

    Raises:
        InputError: there is no segment.
    """
    owners: list[int] = []
    counts: list[int] = []

    def read() -> Iterable[Frames]:
        for owner, frames in segments:
            owners.append(owner)
            counts.append(len(frames))
            yield frames

    if isinstance(encoder, ReadsWholeSegments):
        embedding, salience = encode_whole(encoder, read())
        slots, sizes = slots_of(counts)
        return Corpus(embedding, np.array(owners, np.int64), slots, sizes, salience, None)
    encoded = encode_frames(encoder, read(), tokens)
    slots, sizes = slots_of(counts)
    return Corpus(
        embedding=join_segments(encoder, encoded.embedding, slots, sizes),
        owner=np.array(owners, np.int64),
        slots=slots,
        counts=sizes,
        salience=encoded.salience,
        tokens=encoded.tokens,
    )


def slots_of(counts: Sequence[int]) -> tuple[Rows, Rows]:
    """The frame that each slot of a segment shows, [G, N], and how many are real, [G]."""
    sizes = np.array(counts, np.int64)
    place = np.arange(sizes.max())
    starts = np.cumsum(sizes) - sizes
    return np.where(place < sizes[:, None], starts[:, None] + place, 0), sizes


def encode_source(
    encoder: Encoder, source: Source, tokens: TokenOptions | None = None, report: Report = silent
) -> Corpus:
    """Encode every video of a source as one segment, by the middle frames of equal parts, as papers test.

    Raises:
        InputError: a file cannot be read.
    """
    profile, progress = encoder.profile, Progress(source.unit, len(source), report)

    def read() -> Iterable[tuple[int, Frames]]:
        for row in range(len(source)):
            yield row, source.frames(row, profile.frames_per_segment, profile.resizing.size, None)
            progress.step()

    return encode_corpus(encoder, read(), tokens)


def encode_videos(
    encoder: Encoder,
    paths: Sequence[Path],
    tokens: TokenOptions | None = None,
    report: Report = silent,
) -> Corpus:
    """Encode the segments of all videos, sampled as in indexing.

    Raises:
        VideoError: a file cannot be decoded.
    """
    progress = Progress("videos", len(paths), report)

    def read() -> Iterable[tuple[int, Frames]]:
        for row, path in enumerate(paths):
            for _, frames in video_segments(encoder, path):
                yield row, frames
            progress.step()

    return encode_corpus(encoder, read(), tokens)


def video_segments(encoder: Encoder, path: Path) -> Iterable[tuple[NDArray[np.float64], Frames]]:
    """The segments of one video: times of their frames in seconds [n], and the resized frames.

    Raises:
        VideoError: the file cannot be decoded.
    """
    profile = encoder.profile
    with VideoReader(path) as reader:
        for segment in reader.segments(profile.segment_seconds, profile.frames_per_segment):
            times = np.array(segment.frames.pts_seconds, np.float64)
            yield times, profile.resizing.frames(segment.frames.data)
