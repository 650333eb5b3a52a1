"""Encoding decoded segments in batches across files, several batches at the same time."""

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.engines.channel import Channel
from indexer.engines.worker import Decoded, DecodedSegment, Unchanged
from indexer.events import Event, SegmentEncoded
from indexer.library.schema import Layout, SegmentRow
from indexer.plan import Task
from model.runtime.bundle import Bundle, Provider
from model.runtime.errors import BundleError
from model.runtime.tokens import QuantisedTokens, store_tokens

#: Frames of one model call on a CPU: as fast as more, in less memory.
_CPU_CALL_FRAMES = 4


def open_encoder(
    folder: Path,
    provider: Provider,
    threads: int | None,
    batch_frames: int,
    engine_cache: Path | None = None,
) -> tuple[Bundle, int]:
    """Open a bundle for indexing.

    Args:
        folder: the bundle's.
        provider: where the model runs.
        threads: CPU threads for the model; None is one a core.
        batch_frames: frames that a GPU takes at once.
        engine_cache: where TensorRT keeps the engines it builds; None: nowhere.

    Returns:
        The bundle, and how many batches to encode at the same time: on a CPU one a thread.

    Raises:
        BundleError: it cannot be read, or the provider is not active.
    """
    if provider != "cpu":
        opened = Bundle.open(
            folder, provider=provider, threads=threads, max_batch=batch_frames, cache_dir=engine_cache
        )
        return opened, 1
    bundle = Bundle.open(folder, threads=1, max_batch=min(batch_frames, _CPU_CALL_FRAMES))
    return bundle, threads or available_cores()


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class ReaderEnded:
    """A decoder's thread has no more files."""


#: What decoders' threads hand over: a file's segments, then what became of it.
Item = tuple[Task, DecodedSegment | Decoded | Unchanged] | ReaderEnded
#: What the writer gets: rows, a file's end, or None when all is done.
Encoded = list[SegmentRow] | tuple[Task, Decoded | Unchanged] | None


@dataclass
class _Batch:
    """Segments to encode together, and the files that end with them."""

    segments: list[tuple[Task, DecodedSegment]] = field(default_factory=list)
    endings: list[tuple[Task, Decoded | Unchanged]] = field(default_factory=list)
    rows: Future[list[SegmentRow]] | None = None


class EncodingStage:
    """Takes decoded segments, gives rows, in the order in which they came."""

    def __init__(
        self,
        bundle: Bundle,
        layout: Layout,
        batch_frames: int,
        encoders: int,
        pad_to: int | None,
        decoded: Channel[Item],
        encoded: Channel[Encoded],
        emit: Callable[[Event], None],
    ) -> None:
        self._bundle = bundle
        self._layout = layout
        self._batch_frames = batch_frames
        self._encoders = encoders
        self._pad_to = pad_to
        self._decoded = decoded
        self._encoded = encoded
        self._emit = emit
        self._readers = 0

    def run(self, readers: int) -> None:
        """Encode what `readers` decoders give until all of them have ended. Raises what encoding raises."""
        self._readers = readers
        under_way: deque[_Batch] = deque()
        pool = ThreadPoolExecutor(self._encoders, thread_name_prefix="encoder")
        try:
            while self._readers:
                # With nothing decoded yet, finish what is under way: it must not wait for a slow file.
                item = self._decoded.get_if_any() if under_way else self._decoded.get()
                if item is not None:
                    batch = self._gather(item)
                    if batch.segments:
                        batch.rows = pool.submit(
                            encode_segments, self._bundle, batch.segments, self._layout, self._pad_to
                        )
                    under_way.append(batch)
                if item is None or len(under_way) > self._encoders:
                    self._hand_over(under_way.popleft())
            while under_way:
                self._hand_over(under_way.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def _gather(self, item: Item) -> _Batch:
        """A batch from `item` and what else there is now: waiting for more would leave the encoders idle."""
        batch, frames = _Batch(), 0
        following: Item | None = item
        while following is not None:
            if isinstance(following, ReaderEnded):
                self._readers -= 1
            elif isinstance(following[1], DecodedSegment):
                batch.segments.append((following[0], following[1]))
                frames += len(following[1].frames)
            else:
                batch.endings.append((following[0], following[1]))
            if frames >= self._batch_frames or not self._readers:
                break
            following = self._decoded.get_if_any()
        return batch

    def _hand_over(self, batch: _Batch) -> None:
        if batch.rows is not None:
            self._encoded.put(batch.rows.result())
            for task, segment in batch.segments:
                self._emit(SegmentEncoded(task.path, segment.end_seconds - segment.start_seconds))
        # A file's end comes after its last segment, so after this batch is as good.
        for ending in batch.endings:
            self._encoded.put(ending)


def encode_segments(
    bundle: Bundle,
    batch: Sequence[tuple[Task, DecodedSegment]],
    layout: Layout | None = None,
    pad_to: int | None = None,
) -> list[SegmentRow]:
    """Encode segments of any files together.

    Args:
        bundle: the library's.
        batch: at least one segment, each with the task it belongs to.
        layout: the library's, which says what tokens it stores; None: none.
        pad_to: fill the frames up to a multiple of this with black ones, so that a GPU sees one shape.

    Returns:
        A row a segment, in order.
    """
    counts = [len(segment.frames) for _, segment in batch]
    frames = np.concatenate([segment.frames for _, segment in batch])
    total = len(frames)
    if pad_to and total % pad_to:
        missing = pad_to - total % pad_to
        frames = np.concatenate([frames, np.zeros((missing, *frames.shape[1:]), np.uint8)])
    encoding = bundle.encode_frames(frames, tokens=layout is not None and layout.tokens != "none")
    ends = np.cumsum(counts)
    embedding, mask = _padded(encoding.embedding[:total], counts, bundle.manifest.frames_per_segment)
    joined = bundle.encode_segments(embedding, mask)
    tokens = None
    if layout is not None and encoding.tokens is not None:
        tokens = _stored_tokens(bundle, layout, encoding.tokens[:total])
    rows = []
    for i, (task, segment) in enumerate(batch):
        own = slice(ends[i] - counts[i], ends[i])
        rows.append(
            SegmentRow(
                video_id=task.video_id,
                ingest_id=task.ingest_id,
                segment_index=segment.index,
                start_seconds=segment.start_seconds,
                end_seconds=segment.end_seconds,
                frame_pts_seconds=segment.pts_seconds,
                frame_salience=encoding.salience[own],
                embedding=joined[i],
                thumbnails=segment.thumbnails,
                tokens=None if tokens is None else tokens[own],
            )
        )
    return rows


def _stored_tokens(
    bundle: Bundle, layout: Layout, tokens: NDArray[np.float32]
) -> QuantisedTokens | NDArray[np.float32]:
    """Frames' tokens as the library stores them. [F, P, H] → [F, P', H]."""
    try:
        return store_tokens(tokens, layout.tokens_per_frame, int8=layout.tokens == "int8")
    except ValueError as error:
        raise BundleError(f"{bundle.folder}: {error}; index with --tokens float32") from error


def _padded(
    embedding: NDArray[np.float32], counts: Sequence[int], most: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Frames one after the other to segments: [ΣN, D] → [B, N, D] and which are real, [B, N]."""
    out = np.zeros((len(counts), most, embedding.shape[1]), np.float32)
    mask = np.arange(most)[None, :] < np.asarray(counts)[:, None]
    out[mask] = embedding
    return out, mask
